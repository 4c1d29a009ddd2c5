/* The device by CUDA's runtime, cuBLAS and NVRTC: one stream of its own, cuBLAS with a workspace of its own, every
 * status checked. $TAPER_TF32=1 lets products of floats round their operands to TF32; without it they are FP32. */
#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/compile.h"
#include "gpu/device.h"

enum { WORKSPACE = 32 << 20 };

typedef struct cuda {
    ad_context *context;
    int ordinal, real_bits;
    gpu_target target;
    cudaStream_t stream;
    cublasHandle_t blas;
    void *workspace;
    bool tf32;
    char description[512];
} cuda;

static bool failed(const cuda *d, cudaError_t e, const char *doing)
{
    cudaGetLastError(); /* the next call starts clean, unless the device itself is lost */
    ad__fail(d->context, AD_ERROR_DEVICE, NULL, "%s: %s: %s", d->description, doing, cudaGetErrorString(e));
    return false;
}
static bool works(const cuda *d, cudaError_t e, const char *doing)
{
    return !e || failed(d, e, doing);
}
static bool blas_works(const cuda *d, cublasStatus_t s, const char *doing)
{
    if (!s)
        return true;
    ad__fail(d->context, AD_ERROR_DEVICE, NULL, "%s: %s: %s", d->description, doing, cublasGetStatusString(s));
    return false;
}
/* The runtime's current device is the thread's. */
static bool use(const cuda *d)
{
    return works(d, cudaSetDevice(d->ordinal), "choosing the device");
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static void *memory_new(void *device, size_t bytes)
{
    const cuda *d = device;
    void *memory = NULL;
    if (!use(d))
        return NULL;
    cudaError_t e = cudaMalloc(&memory, bytes);
    if (!e)
        return memory;
    if (e != cudaErrorMemoryAllocation) {
        failed(d, e, "allocating");
        return NULL;
    }
    cudaGetLastError();
    size_t free_bytes = 0, total = 0;
    if (cudaMemGetInfo(&free_bytes, &total))
        cudaGetLastError();
    ad__fail(d->context, AD_ERROR_MEMORY, "a smaller minibatch needs less",
             "out of device memory: %zu bytes asked, %zu free of %zu", bytes, free_bytes, total);
    return NULL;
}

static void memory_free(void *device, void *memory)
{
    const cuda *d = device;
    if (use(d))
        works(d, cudaFree(memory), "freeing"); /* waits for what still runs */
}

static bool clear(void *device, void *memory, size_t bytes)
{
    const cuda *d = device;
    return use(d) && works(d, cudaMemsetAsync(memory, 0, bytes, d->stream), "clearing");
}

static bool copy(void *device, void *to, const void *from, size_t bytes, bool wait)
{
    const cuda *d = device;
    return use(d) && works(d, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, d->stream), "copying") &&
           (!wait || works(d, cudaStreamSynchronize(d->stream), "running"));
}

static bool on_host(void *device, const void *memory)
{
    (void)device;
    struct cudaPointerAttributes a;
    if (!cudaPointerGetAttributes(&a, memory))
        return a.type == cudaMemoryTypeUnregistered || a.type == cudaMemoryTypeHost;
    cudaGetLastError();
    return true;
}

/* ---- kernels ----------------------------------------------------------------------------------------------------- */

static void *compile(void *device, const char *source)
{
    const cuda *d = device;
    char why[2048];
    size_t bytes;
    char *code = use(d) ? gpu__compile(source, d->target, true, &bytes, why, sizeof why) : NULL;
    if (!code) {
        ad__fail(d->context, AD_ERROR_DEVICE, NULL, "%s: compiling kernels: %s", d->description, why);
        return NULL;
    }
    cudaLibrary_t library = NULL;
    bool done = works(d, cudaLibraryLoadData(&library, code, NULL, NULL, 0, NULL, NULL, 0), "loading kernels");
    free(code);
    return done ? (void *)library : NULL;
}

static void unload(void *device, void *module)
{
    const cuda *d = device;
    if (use(d))
        works(d, cudaLibraryUnload((cudaLibrary_t)module), "unloading kernels");
}

static void *kernel(void *device, void *module, const char *name)
{
    const cuda *d = device;
    cudaKernel_t found = NULL;
    return use(d) && works(d, cudaLibraryGetKernel(&found, (cudaLibrary_t)module, name), name) ? (void *)found : NULL;
}

static bool launch(void *device, void *kernel, gpu_grid grid, void *bind, const void *step)
{
    const cuda *d = device;
    void *arguments[] = { &bind, &step };
    dim3 blocks = { (unsigned)grid.blocks, (unsigned)grid.rows, 1 }, threads = { (unsigned)grid.threads, 1, 1 };
    return use(d) && works(d, cudaLaunchKernel(kernel, blocks, threads, arguments, 0, d->stream), "launching");
}

/* cuBLAS stores by columns: the transpose of a row-major product is the product of the transposes, in turn. */
static bool multiply(void *device, const gpu_product *g, const void *a, const void *b, void *c)
{
    const cuda *d = device;
    bool wide = d->real_bits == 64;
    double one = 1, zero = 0;
    float one_f = 1, zero_f = 0;
    cudaDataType type = wide ? CUDA_R_64F : CUDA_R_32F;
    cublasComputeType_t how = wide      ? CUBLAS_COMPUTE_64F_PEDANTIC
                              : d->tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32
                                        : CUBLAS_COMPUTE_32F_PEDANTIC;
    return use(d) && blas_works(d,
                                cublasGemmStridedBatchedEx_64(d->blas, g->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                                                              g->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, g->n, g->m,
                                                              g->k, wide ? (void *)&one : (void *)&one_f, b, type,
                                                              g->transpose_b ? g->k : g->n, g->stride_b, a, type,
                                                              g->transpose_a ? g->m : g->k, g->stride_a,
                                                              wide ? (void *)&zero : (void *)&zero_f, c, type, g->n,
                                                              g->m * g->n, g->members, how, CUBLAS_GEMM_DEFAULT),
                                "multiplying matrices");
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static const char *describe(void *device)
{
    return ((cuda *)device)->description;
}

static void close_device(void *device)
{
    cuda *d = device;
    if (!cudaSetDevice(d->ordinal)) {
        if (d->blas)
            cublasDestroy(d->blas);
        if (d->workspace)
            cudaFree(d->workspace);
        if (d->stream)
            cudaStreamDestroy(d->stream);
    }
    ad__allocate(d->context, d, 0);
}

/* Whether the device is there; errors say what to do. */
static bool find_device(ad_context *c, int ordinal)
{
    int count = 0;
    cudaError_t e = cudaGetDeviceCount(&count);
    static const char hint[] = "nvidia-smi shows what the driver sees; --device cpu, or TAPER_DEVICE=cpu, needs no GPU";
    if (e)
        cudaGetLastError();
    if (e == cudaErrorInsufficientDriver)
        ad__fail(c, AD_ERROR_DEVICE, hint, "CUDA cannot be used: no NVIDIA driver, or one older than CUDA %d.%d needs",
                 CUDART_VERSION / 1000, CUDART_VERSION / 10 % 100);
    else if (e == cudaErrorNoDevice || (!e && !count))
        ad__fail(c, AD_ERROR_DEVICE, hint,
                 "CUDA cannot be used: the driver shows no GPU ($CUDA_VISIBLE_DEVICES may hide it)");
    else if (e)
        ad__fail(c, AD_ERROR_DEVICE, hint, "CUDA cannot be used: %s", cudaGetErrorString(e));
    else if (ordinal >= count)
        ad__fail(c, AD_ERROR_DEVICE, "count from cuda:0", "no device cuda:%d: the driver shows %d", ordinal, count);
    else
        return true;
    return false;
}

static bool start(cuda *d)
{
    struct cudaDeviceProp properties;
    char why[256];
    if (!use(d) || !works(d, cudaGetDeviceProperties(&properties, d->ordinal), "looking at the device"))
        return false;
    snprintf(d->description, sizeof d->description, "cuda:%d, %s, %.1f GiB, %s", d->ordinal, properties.name,
             (double)properties.totalGlobalMem / (1 << 30),
             d->real_bits == 64 ? "FP64"
             : d->tf32          ? "TF32 products"
                                : "FP32");
    if (!gpu__target(properties.major * 10 + properties.minor, &d->target, why, sizeof why)) {
        ad__fail(d->context, AD_ERROR_DEVICE, "use --device cpu, or a build with an older CUDA",
                 "%s cannot be used: %s", d->description, why);
        return false;
    }
    d->target.real_bits = d->real_bits;
    return works(d, cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking), "making a stream") &&
           (d->workspace = memory_new(d, WORKSPACE)) && blas_works(d, cublasCreate(&d->blas), "opening cuBLAS") &&
           blas_works(d, cublasSetStream(d->blas, d->stream), "opening cuBLAS") && /* first: it resets the workspace */
           blas_works(d, cublasSetWorkspace(d->blas, d->workspace, WORKSPACE), "opening cuBLAS");
}

static void *open_device(ad_context *c, int ordinal, int real_bits)
{
    cuda *d = find_device(c, ordinal) ? ad__allocate(c, NULL, sizeof *d) : NULL;
    if (!d)
        return NULL;
    const char *tf32 = getenv("TAPER_TF32");
    *d = (cuda){ .context = c,
                 .ordinal = ordinal,
                 .real_bits = real_bits,
                 .tf32 = tf32 && !strcmp(tf32, "1"),
                 .description = "CUDA" };
    if (start(d))
        return d;
    close_device(d);
    return NULL;
}

const char gpu__device_name[] = "cuda";
const gpu_device gpu__device = {
    .open = open_device,
    .close = close_device,
    .describe = describe,
    .memory_new = memory_new,
    .memory_free = memory_free,
    .clear = clear,
    .copy = copy,
    .on_host = on_host,
    .compile = compile,
    .unload = unload,
    .kernel = kernel,
    .launch = launch,
    .multiply = multiply,
};
