/* Compiles kernels' sources by NVRTC, which needs no GPU: compile_sources TARGETS BITS_NAME.cu... [TARGETS ...], where
 * TARGETS are architectures and ptx, as 80,90,ptx, and a file's name begins with the bits of its reals. Called by
 * test_gpu.c; works in a process for each core, says what failed and exits 1. Code is kept under $XDG_CACHE_HOME. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gpu/compile.h"

enum { MOST_WORKERS = 8 };

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

/* Whether the file compiles for a target by name, "90" or "ptx". */
static bool compiles(const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    bool ptx = !strncmp(name, "ptx", 3);
    gpu_target target = { ptx ? 80 : atoi(name), ptx, atoi(slash ? slash + 1 : path) };
    char *source = read_text(path), why[2048] = "it cannot be read", *code = NULL;
    size_t bytes = 0;
    if (source)
        code = gpu__compile(source, target, true, &bytes, why, sizeof why);
    bool done = code && bytes;
    if (!done)
        fprintf(stderr, "%s for %.3s: %s\n", path, name, why);
    free(code);
    free(source);
    return done;
}

/* Every n-th compilation, from the k-th on: the number of failures. */
static int work(char **arguments, int k, int n)
{
    const char *targets = NULL;
    int job = 0, failures = 0;
    for (; *arguments; arguments++) {
        size_t length = strlen(*arguments);
        if (length < 3 || strcmp(*arguments + length - 3, ".cu")) {
            targets = *arguments;
            continue;
        }
        for (const char *t = targets; t; t = strchr(t, ',') ? strchr(t, ',') + 1 : NULL)
            if (job++ % n == k)
                failures += !compiles(*arguments, t);
    }
    return failures + !job;
}

int main(int argc, char **argv)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int workers = cores < 1 ? 1 : cores > MOST_WORKERS ? MOST_WORKERS : (int)cores, failed = 0, status;
    (void)argc;
    for (int k = 0; k < workers; k++) {
        pid_t child = fork();
        if (!child)
            return work(argv + 1, k, workers) > 0;
        failed |= child < 0;
    }
    while (wait(&status) >= 0)
        failed |= status != 0;
    return failed;
}
