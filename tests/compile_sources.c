/* Compiles kernels' sources by NVRTC, which needs no GPU: compile_sources BITS_NAME.cu... for sm_80, sm_90 and PTX. A
 * file's name begins with the bits of its reals. Called by test_gpu.c; says what failed and exits 1. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/compile.h"

static char *read_text(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    size_t n = 0, room = 1 << 20;
    char *text = malloc(room + 1);
    if (text)
        n = fread(text, 1, room, f);
    fclose(f);
    if (text)
        text[n] = 0;
    return text;
}

int main(int argc, char **argv)
{
    static const gpu_target targets[] = { { .architecture = 80 },
                                          { .architecture = 90 },
                                          { .architecture = 80, .ptx = true } };
    int failures = 0;
    for (int i = 1; i < argc; i++) {
        const char *slash = strrchr(argv[i], '/');
        char *source = read_text(argv[i]);
        for (size_t t = 0; source && t < sizeof targets / sizeof *targets; t++) {
            gpu_target target = targets[t];
            target.real_bits = atoi(slash ? slash + 1 : argv[i]);
            char why[2048];
            size_t bytes = 0;
            char *code = gpu__compile(source, target, false, &bytes, why, sizeof why);
            if (!code || !bytes) {
                fprintf(stderr, "%s for %d: %s\n", argv[i], target.architecture, why);
                failures++;
            }
            free(code);
        }
        failures += !source;
        free(source);
    }
    return failures || argc < 2;
}
