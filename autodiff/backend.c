/* Choosing the backend of a context: the CPU's, or one from a shared object. Such objects stay open for the process's
 * life: CUDA's libraries cannot be closed safely. */
#include "autodiff/backend.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "autodiff/plan/plan.h"

static const backend_services services = {
    .bytes = sizeof(backend_services),
    .context_bytes = sizeof(ad_context),
    .plan_bytes = sizeof(plan),
    .allocate = ad__allocate,
    .reserve = ad__reserve,
    .fail = ad__fail,
    .op_name = ad__op_name,
    .source = ad__plan_source,
    .operand = ad__plan_operand,
    .value_bytes = ad__plan_bytes,
};

/* ---- finding the shared object ----------------------------------------------------------------------------------- */

/* The folder of the file that this code was loaded from, absolute and with its slash; "" where it cannot be told. The
 * name of a program is what it was called by, and may be relative: then the system is asked. */
static void own_folder(char *out, size_t n)
{
    Dl_info info, program;
    char path[4096] = "";
    if (dladdr(&services, &info) && info.dli_fname)
        snprintf(path, sizeof path, "%s", info.dli_fname);
    bool is_program = dladdr((void *)getauxval(AT_ENTRY), &program) && program.dli_fbase == info.dli_fbase;
    if (path[0] != '/' && is_program) {
        ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
        path[length > 0 ? length : 0] = 0;
    }
    const char *slash = path[0] == '/' ? strrchr(path, '/') : NULL;
    snprintf(out, n, "%.*s", slash ? (int)(slash - path + 1) : 0, path);
}

/* Opens libtaper_NAME.so from $TAPER_BACKEND_PATH, else from beside the library (or as a build folder has it); never from
 * the working folder or where the system looks: what is opened runs. NULL with the reason of the last place where there
 * was such a file. */
static void *open_object(const char *name, char *why, size_t n)
{
    static const char *const below[] = { "", "gpu/", "../gpu/" };
    char folder[2048], path[4096];
    const char *given = secure_getenv("TAPER_BACKEND_PATH");
    void *object = NULL;
    snprintf(why, n, "libtaper_%s.so is not installed", name);
    if (given && *given && *given != '/') {
        snprintf(why, n, "$TAPER_BACKEND_PATH is no absolute path");
        return NULL;
    }
    own_folder(folder, sizeof folder);
    for (int i = given && *given ? -1 : 0; !object && i < 3; i++) {
        if (i >= 0 && !*folder)
            break;
        if (i < 0)
            snprintf(path, sizeof path, "%s/libtaper_%s.so", given, name);
        else
            snprintf(path, sizeof path, "%s%slibtaper_%s.so", folder, below[i], name);
        if (access(path, R_OK))
            continue;
        if (!(object = dlopen(path, RTLD_NOW | RTLD_LOCAL))) {
            const char *error = dlerror();
            snprintf(why, n, "%.1000s", error ? error : path);
        }
    }
    return object;
}

static const ad_backend *load(const char *name, char *why, size_t n)
{
    void *object = open_object(name, why, n);
    if (!object)
        return NULL;
    void *symbol = dlsym(object, "ad__backend_entry");
    backend_entry *entry;
    memcpy(&entry, &symbol, sizeof entry); /* C has no cast between the two kinds of pointer */
    const ad_backend *b = entry ? entry(&services) : NULL;
    if (!b)
        snprintf(why, n, "libtaper_%s.so is of another version of the library", name);
    return b;
}

/* ---- choosing ---------------------------------------------------------------------------------------------------- */

enum { MOST_NAME = 32 };
/* Letters in front of the number, if any: they become part of a path. 0: no name of a backend. */
static size_t name_length(const char *device)
{
    size_t n = strcspn(device, ":");
    return n < MOST_NAME && strspn(device, "abcdefghijklmnopqrstuvwxyz") == n ? n : 0;
}

static const ad_backend *find(ad_context *c, const char *name, const char **why)
{
    *why = c->reason;
    c->reason[0] = 0;
    if (!strcmp(name, "cpu"))
        return &ad__cpu_backend;
    if (name_length(name) && !strchr(name, ':'))
        return load(name, c->reason, sizeof c->reason);
    snprintf(c->reason, sizeof c->reason, "\"%.100s\" is no name of a backend: there are cpu and cuda", name);
    return NULL;
}

const ad_backend *ad_backend_open(const char *name, const char **why)
{
    ad_context *c = ad__current();
    const char *ignored, **reason = why ? why : &ignored;
    *reason = "out of memory";
    return c ? find(c, name ? name : "", reason) : NULL;
}

static bool start(ad_context *c, const ad_backend *b, const char *device)
{
    c->backend_state = b->open(c, device);
    if (c->backend_state)
        c->backend = b;
    return c->backend_state != NULL;
}

/* The backend of "NAME" or "NAME:number". */
static bool start_object(ad_context *c, const char *device)
{
    char name[MOST_NAME];
    const char *why;
    size_t n = name_length(device);
    snprintf(name, sizeof name, "%.*s", (int)n, device);
    if (!n || !strcmp(name, "cpu")) {
        ad__fail(c, AD_ERROR_DEVICE, "devices: auto, cpu, cuda, cuda:1", "no device \"%s\"", device);
        return false;
    }
    const ad_backend *b = find(c, name, &why);
    if (b)
        return start(c, b, device);
    ad__fail(c, AD_ERROR_DEVICE,
             "devices: auto, cpu, cuda, cuda:1; the CUDA backend is built where CUDA is (-Dcuda=enabled tells what "
             "lacks), and "
             "looked for in $TAPER_BACKEND_PATH and beside the library",
             "device \"%s\" cannot be used: %s", device, why);
    return false;
}

bool ad__backend_start(ad_context *c, const char *device)
{
    if (!device)
        device = getenv("TAPER_DEVICE");
    if (!device || !*device || !strcmp(device, "cpu"))
        return start(c, &ad__cpu_backend, "cpu");
    if (strcmp(device, "auto"))
        return start_object(c, device);
    const char *why;
    const ad_backend *cuda = find(c, "cuda", &why);
    if (cuda && start(c, cuda, "cuda"))
        return true;
    c->error_kind = AD_ERROR_NONE; /* a preference that cannot be met is no error */
    c->error[0] = 0;
    return start(c, &ad__cpu_backend, "cpu");
}
