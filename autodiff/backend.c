/* Choosing the backend of a context. */
#include "autodiff/backend.h"

#include <stdlib.h>
#include <string.h>

bool ad__backend_start(ad_context *c, const char *device)
{
    if (!device) device = getenv("TAPER_DEVICE");
    if (!device || !strcmp(device, "auto")) device = "cpu";
    if (strcmp(device, "cpu")) {
        ad__fail(c, AD_ERROR_DEVICE, "devices of this build: cpu", "no device \"%s\"", device);
        return false;
    }
    c->backend_state = ad__cpu_backend.open(c, device);
    if (!c->backend_state) return false;
    c->backend = &ad__cpu_backend;
    return true;
}
