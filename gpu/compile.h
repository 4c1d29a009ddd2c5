/* Sources to machine code by NVRTC, which needs no GPU, with a cache in the user's cache folder. Called by cuda.c and
 * by the test that compiles every source for every architecture. */
#ifndef GPU_COMPILE_H
#define GPU_COMPILE_H

#include <stdbool.h>
#include <stddef.h>

/* The headers that sources include, as text (made at build time). */
typedef struct gpu_text {
    const char *name, *text;
} gpu_text;
extern const gpu_text gpu__texts[];
extern const int gpu__n_texts;

typedef struct gpu_target {
    int architecture; /* 90 for sm_90 */
    bool ptx;         /* text that the driver compiles, for GPUs newer than NVRTC */
    int real_bits;
} gpu_target;

/* The best target for a GPU of compute capability major * 10 + minor; false, with a reason, where NVRTC is too new. */
bool gpu__target(int capability, gpu_target *target, char *why, size_t n);
/* Malloced code of a source, or NULL with a reason. With `cached`, looks in the cache first and leaves a copy there. */
char *gpu__compile(const char *source, gpu_target target, bool cached, size_t *bytes, char *why, size_t n);

#endif
