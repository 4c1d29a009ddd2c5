/* Compiling by NVRTC, and its cache: a file for each source, target and version, written aside and renamed, known whole
 * by its checksum. A cache that cannot be read or written is no error. */
#include "gpu/compile.h"
#include "gpu/hash.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <nvrtc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_HEADERS = 16, MOST_ARCHITECTURES = 64 };

bool gpu__target(int capability, gpu_target *target, char *why, size_t n)
{
    int count = 0, known[MOST_ARCHITECTURES], least = 0, best = 0;
    if (nvrtcGetNumSupportedArchs(&count) || count < 1 || count > MOST_ARCHITECTURES || nvrtcGetSupportedArchs(known)) {
        snprintf(why, n, "NVRTC does not say for which GPUs it compiles");
        return false;
    }
    for (int i = 0; i < count; i++) {
        if (!least || known[i] < least)
            least = known[i];
        if (known[i] <= capability && known[i] > best)
            best = known[i];
    }
    target->architecture = best;
    target->ptx = best != capability;
    if (best)
        return true;
    snprintf(why, n, "compute capability %d.%d; this CUDA compiles for %d.%d and later", capability / 10,
             capability % 10, least / 10, least % 10);
    return false;
}

/* What NVRTC is told beside the source. */
enum { OPTIONS = 4 };
typedef struct gpu_options {
    char architecture[48], precision[32];
    const char *option[OPTIONS];
} gpu_options;

static void options_for(gpu_target t, gpu_options *o)
{
    snprintf(o->architecture, sizeof o->architecture, "--gpu-architecture=%s_%d", t.ptx ? "compute" : "sm",
             t.architecture);
    snprintf(o->precision, sizeof o->precision, "-DAD_REAL_BITS=%d", t.real_bits);
    const char *option[OPTIONS] = { o->architecture, o->precision, "--fmad=false", "--std=c++17" };
    memcpy(o->option, option, sizeof option);
}

/* ---- the cache --------------------------------------------------------------------------------------------------- */

/* 128 bits of everything that the code depends on, but that NVRTC's version has no patch level: updates of one minor
 * version share their files. */
static void hash_source(const char *source, const gpu_options *o, uint64_t out[2])
{
    int version[2] = { 0, 0 };
    nvrtcVersion(&version[0], &version[1]);
    for (int i = 0; i < 2; i++) {
        uint64_t h = i ? 0x9e3779b97f4a7c15u : GPU_HASH;
        h = gpu__hash(h, version, sizeof version);
        for (int j = 0; j < OPTIONS; j++)
            h = gpu__hash(h, o->option[j], strlen(o->option[j]) + 1);
        for (int j = 0; j < gpu__n_texts; j++)
            h = gpu__hash(h, gpu__texts[j].text, strlen(gpu__texts[j].text));
        out[i] = gpu__hash(h, source, strlen(source));
    }
}

/* Whether nobody else can put a file there, or write to it: what is read from the cache runs on the device. */
static bool is_ours(const struct stat *s)
{
    return s->st_uid == geteuid() && !(s->st_mode & (S_IWGRP | S_IWOTH));
}

/* The path of a cached file, its folder made; false where there is none, or another user's. */
static bool cache_path(const uint64_t hash[2], char *path, size_t n)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (!(cache && *cache) && !(home && *home))
        return false;
    bool own = cache && *cache;
    char folder[3584];
    if ((size_t)snprintf(folder, sizeof folder, "%s%s", own ? cache : home, own ? "" : "/.cache") >= sizeof folder)
        return false;
    for (int level = 0; level < 3; level++) {
        static const char *const below[] = { "", "/taper", "/taper/kernels" };
        snprintf(path, n, "%s%s", folder, below[level]);
        struct stat at;
        if (mkdir(path, 0700) && errno != EEXIST)
            return false;
        if (level && (lstat(path, &at) || !S_ISDIR(at.st_mode) || !is_ours(&at)))
            return false;
    }
    snprintf(path, n, "%s/taper/kernels/%016llx%016llx", folder, (unsigned long long)hash[0],
             (unsigned long long)hash[1]);
    return true;
}

typedef struct file_head {
    char magic[8];
    uint64_t hash[2], bytes, checksum;
} file_head;
static const char magic[8] = "taperk1";

static char *read_cache(const char *path, const uint64_t hash[2], size_t *bytes)
{
    file_head head;
    char *code = NULL;
    struct stat at;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "rb");
    if (!f || fstat(fd, &at) || !S_ISREG(at.st_mode) || !is_ours(&at)) {
        if (f)
            fclose(f);
        return NULL;
    }
    bool whole = fread(&head, sizeof head, 1, f) == 1 && !memcmp(head.magic, magic, sizeof magic) &&
                 head.hash[0] == hash[0] && head.hash[1] == hash[1] && head.bytes && head.bytes < (uint64_t)1 << 30 &&
                 (code = malloc(head.bytes)) && fread(code, head.bytes, 1, f) == 1 &&
                 gpu__hash(0, code, head.bytes) == head.checksum;
    fclose(f);
    if (whole) {
        *bytes = head.bytes;
        return code;
    }
    free(code);
    return NULL;
}

static void write_cache(const char *path, const uint64_t hash[2], const char *code, size_t bytes)
{
    char aside[4096 + 32];
    snprintf(aside, sizeof aside, "%s.XXXXXX", path);
    file_head head = { .hash = { hash[0], hash[1] }, .bytes = bytes, .checksum = gpu__hash(0, code, bytes) };
    memcpy(head.magic, magic, sizeof magic);
    int fd = mkostemp(aside, O_CLOEXEC); /* a new file of this user alone */
    FILE *f = fd < 0 ? NULL : fdopen(fd, "wb");
    if (!f)
        return;
    bool written = fwrite(&head, sizeof head, 1, f) == 1 && fwrite(code, bytes, 1, f) == 1;
    if (fclose(f) || !written || rename(aside, path))
        remove(aside);
}

/* ---- compiling --------------------------------------------------------------------------------------------------- */

/* The compiler's first complaints. */
static void explain(nvrtcProgram program, nvrtcResult result, char *why, size_t n)
{
    size_t bytes = 0;
    char *log = nvrtcGetProgramLogSize(program, &bytes) || !bytes ? NULL : malloc(bytes);
    bool told = log && !nvrtcGetProgramLog(program, log);
    snprintf(why, n, "NVRTC: %s%s%.1000s", nvrtcGetErrorString(result), told ? ": " : "", told ? log : "");
    free(log);
}

static char *code_of(nvrtcProgram program, bool ptx, size_t *bytes)
{
    if (ptx ? nvrtcGetPTXSize(program, bytes) : nvrtcGetCUBINSize(program, bytes))
        return NULL;
    char *code = malloc(*bytes ? *bytes : 1);
    if (code && !(ptx ? nvrtcGetPTX(program, code) : nvrtcGetCUBIN(program, code)))
        return code;
    free(code);
    return NULL;
}

/* NVRTC opens its built-in functions by a bare name, which the loader may not know where NVRTC itself was found by a
 * path: once they are open, by the path of NVRTC's own folder, the name is known. */
static void open_builtins(void)
{
    Dl_info info;
    int major = 0, minor = 0;
    char path[4096];
    nvrtcResult (*version)(int *, int *) = nvrtcVersion;
    void *at;
    memcpy(&at, &version, sizeof at); /* C has no cast between the two kinds of pointer */
    const char *slash = dladdr(at, &info) ? strrchr(info.dli_fname, '/') : NULL;
    if (!slash || version(&major, &minor))
        return;
    snprintf(path, sizeof path, "%.*s/libnvrtc-builtins.so.%d.%d", (int)(slash - info.dli_fname), info.dli_fname, major,
             minor);
    dlopen(path, RTLD_LAZY | RTLD_LOCAL); /* stays open; where it is not there, NVRTC looks for it itself */
}

static char *compile(const char *source, const gpu_options *o, bool ptx, size_t *bytes, char *why, size_t n)
{
    const char *names[MOST_HEADERS], *texts[MOST_HEADERS];
    for (int i = 0; i < gpu__n_texts; i++) {
        names[i] = gpu__texts[i].name;
        texts[i] = gpu__texts[i].text;
    }
    open_builtins();
    nvrtcProgram program;
    nvrtcResult result = nvrtcCreateProgram(&program, source, "taper.cu", gpu__n_texts, texts, names);
    if (result) {
        snprintf(why, n, "NVRTC: %s", nvrtcGetErrorString(result));
        return NULL;
    }
    char *code = NULL;
    if ((result = nvrtcCompileProgram(program, OPTIONS, o->option)))
        explain(program, result, why, n);
    else if (!(code = code_of(program, ptx, bytes)))
        snprintf(why, n, "NVRTC gave no code");
    nvrtcDestroyProgram(&program);
    return code;
}

char *gpu__compile(const char *source, gpu_target target, bool cached, size_t *bytes, char *why, size_t n)
{
    uint64_t hash[2];
    char path[4096];
    gpu_options options;
    options_for(target, &options);
    if (cached) {
        hash_source(source, &options, hash);
        cached = cache_path(hash, path, sizeof path);
    }
    char *code = cached ? read_cache(path, hash, bytes) : NULL;
    if (code)
        return code;
    code = compile(source, &options, target.ptx, bytes, why, n);
    if (code && cached)
        write_cache(path, hash, code, *bytes);
    return code;
}
