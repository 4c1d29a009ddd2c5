/* What the backend needs of a device: memory, a compiler, launches, products. CUDA's is in cuda.c; tests put in one
 * that compiles the same sources as C. Every entry is required; failures go through ad__fail; work is done in the order
 * of the calls. */
#ifndef GPU_DEVICE_H
#define GPU_DEVICE_H

#include "autodiff/backend.h"

typedef struct gpu_grid {
    int32_t blocks, rows, threads;
} gpu_grid;

/* c (members; M, N) = op(a) op(b), row-major: a (M, K) or, transposed, (K, M); b (K, N) or (N, K). A stride of 0
 * repeats an operand for every member. */
typedef struct gpu_product {
    bool transpose_a, transpose_b;
    int64_t m, n, k, members, stride_a, stride_b;
} gpu_product;

typedef struct gpu_device {
    void *(*open)(ad_context *c, int ordinal, int real_bits); /* NULL after an error */
    void (*close)(void *device);
    const char *(*describe)(void *device);
    int (*processors)(void *device); /* each runs a few blocks of threads at once */

    void *(*memory_new)(void *device, size_t bytes); /* aligned to 64 bytes */
    void (*memory_free)(void *device, void *memory);
    bool (*clear)(void *device, void *memory, size_t bytes);
    /* Either side may lie on the host. Until the next wait `from` must stay as it is, and `to` is not whole. */
    bool (*copy)(void *device, void *to, const void *from, size_t bytes);
    bool (*wait)(void *device);                        /* for all that was asked; false where any of it failed */
    bool (*reaches)(void *device, const void *memory); /* whether kernels may read it where it lies */
    /* Memory of the host's that kernels write at the same address: what they wrote is there after a wait. */
    void *(*record_new)(void *device, size_t bytes);
    void (*record_free)(void *device, void *record);

    /* A module of kernels; the source includes gpu/ and autodiff/ headers by name. NULL after an error. */
    void *(*compile)(void *device, const char *source);
    void (*unload)(void *device, void *module);
    void *(*kernel)(void *device, void *module, const char *name);
    bool (*launch)(void *device, void *kernel, gpu_grid grid, void *bind, const void *step);
    bool (*multiply)(void *device, const gpu_product *g, const void *a, const void *b, void *c);
} gpu_device;

/* The device that this shared object is about, and its name ("cuda"). */
extern const gpu_device gpu__device;
extern const char gpu__device_name[];

#endif
