/* The device by CUDA's runtime, cuBLAS and NVRTC: one stream of its own, cuBLAS with a workspace of its own, every
 * status checked. $TAPER_TF32=1 lets products of floats round their operands to TF32; without it they are FP32. */
#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/compile.h"
#include "gpu/device.h"

/* Bytes of cuBLAS's workspace, and of what is held back for the runtime and cuBLAS, which ask for memory of their own
 * when a kernel is first launched: a card full of data must still run. */
enum { WORKSPACE = 32 << 20, HELD_BACK = 32 << 20 };

typedef struct cuda {
    ad_context *context;
    int ordinal, real_bits, processors;
    gpu_target target;
    cudaStream_t stream;
    cublasHandle_t blas;
    void *workspace, *held_back;
    bool tf32;
    char description[512];
} cuda;

static bool failed(const cuda *d, bool of_memory, const char *doing, const char *why)
{
    cudaGetLastError(); /* the next call starts clean, unless the device itself is lost */
    if (of_memory)
        ad__fail(d->context, AD_ERROR_MEMORY, "free tensors, or use a smaller minibatch",
                 "%s: out of device memory while %s: %s", d->description, doing, why);
    else
        ad__fail(d->context, AD_ERROR_DEVICE, NULL, "%s: %s: %s", d->description, doing, why);
    return false;
}
static bool works(const cuda *d, cudaError_t e, const char *doing)
{
    return !e || failed(d, e == cudaErrorMemoryAllocation, doing, cudaGetErrorString(e));
}
static bool blas_works(const cuda *d, cublasStatus_t s, const char *doing)
{
    return !s || failed(d, s == CUBLAS_STATUS_ALLOC_FAILED, doing, cublasGetStatusString(s));
}
/* Gives back what was held back; false where that has been done. */
static bool made_room(cuda *d)
{
    void *held = d->held_back;
    d->held_back = NULL;
    cudaGetLastError();
    return held && !cudaFree(held);
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
        works(d, e, "allocating");
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

static bool copy(void *device, void *to, const void *from, size_t bytes)
{
    const cuda *d = device;
    return use(d) && works(d, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, d->stream), "copying");
}

static bool wait_for_all(void *device)
{
    const cuda *d = device;
    return use(d) && works(d, cudaStreamSynchronize(d->stream), "running");
}

/* Memory of this device's, aligned as kernels want it. Another's is copied, which needs no access from one to the
 * other. */
static bool reaches(void *device, const void *memory)
{
    const cuda *d = device;
    struct cudaPointerAttributes a;
    if (use(d) && !cudaPointerGetAttributes(&a, memory))
        return (uintptr_t)memory % sizeof(double) == 0 &&
               (a.type == cudaMemoryTypeManaged || (a.type == cudaMemoryTypeDevice && a.device == d->ordinal));
    cudaGetLastError();
    return false;
}

/* Pinned and mapped; addresses of such memory are the same on both sides. */
static void *record_new(void *device, size_t bytes)
{
    const cuda *d = device;
    void *record = NULL;
    return use(d) && works(d, cudaHostAlloc(&record, bytes, cudaHostAllocMapped), "allocating host memory") ? record
                                                                                                            : NULL;
}
static void record_free(void *device, void *record)
{
    if (use(device))
        works(device, cudaFreeHost(record), "freeing host memory");
}

/* ---- kernels ----------------------------------------------------------------------------------------------------- */

static void *compile(void *device, const char *source)
{
    const cuda *d = device;
    char why[2048];
    size_t bytes;
    if (!use(d))
        return NULL;
    char *code = gpu__compile(source, d->target, true, &bytes, why, sizeof why);
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
    cuda *d = device;
    void *arguments[] = { &bind, &step };
    dim3 blocks = { (unsigned)grid.blocks, (unsigned)grid.rows, 1 }, threads = { (unsigned)grid.threads, 1, 1 };
    if (!use(d))
        return false;
    cudaError_t e = cudaLaunchKernel(kernel, blocks, threads, arguments, 0, d->stream);
    if (e == cudaErrorMemoryAllocation && made_room(d))
        e = cudaLaunchKernel(kernel, blocks, threads, arguments, 0, d->stream);
    return works(d, e, "launching");
}

/* cuBLAS stores by columns: the transpose of a row-major product is the product of the transposes, in turn. One product
 * goes through the entry for one, which may cut a long inner dimension into parts. */
static cublasStatus_t call_blas(const cuda *d, const gpu_product *g, const void *a, const void *b, void *c)
{
    bool wide = d->real_bits == 64;
    static const double one = 1, zero = 0;
    static const float one_f = 1, zero_f = 0;
    const void *alpha = wide ? (const void *)&one : &one_f, *beta = wide ? (const void *)&zero : &zero_f;
    cudaDataType type = wide ? CUDA_R_64F : CUDA_R_32F;
    cublasComputeType_t how = wide ? CUBLAS_COMPUTE_64F : d->tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    cublasOperation_t op_a = g->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N,
                      op_b = g->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    int64_t row_a = g->transpose_a ? g->m : g->k, row_b = g->transpose_b ? g->k : g->n;
    if (g->members == 1)
        return cublasGemmEx_64(d->blas, op_b, op_a, g->n, g->m, g->k, alpha, b, type, row_b, a, type, row_a, beta, c,
                               type, g->n, how, CUBLAS_GEMM_DEFAULT);
    return cublasGemmStridedBatchedEx_64(d->blas, op_b, op_a, g->n, g->m, g->k, alpha, b, type, row_b, g->stride_b, a,
                                         type, row_a, g->stride_a, beta, c, type, g->n, g->m * g->n, g->members, how,
                                         CUBLAS_GEMM_DEFAULT);
}

static bool multiply(void *device, const gpu_product *g, const void *a, const void *b, void *c)
{
    cuda *d = device;
    if (!use(d))
        return false;
    cublasStatus_t s = call_blas(d, g, a, b, c);
    if (s == CUBLAS_STATUS_ALLOC_FAILED && made_room(d))
        s = call_blas(d, g, a, b, c);
    return blas_works(d, s, "multiplying matrices");
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static const char *describe(void *device)
{
    return ((cuda *)device)->description;
}
static int processors(void *device)
{
    return ((cuda *)device)->processors;
}

static void close_device(void *device)
{
    cuda *d = device;
    if (!cudaSetDevice(d->ordinal)) {
        if (d->blas)
            cublasDestroy(d->blas);
        if (d->workspace)
            cudaFree(d->workspace);
        if (d->held_back)
            cudaFree(d->held_back);
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

/* Without memory cuBLAS says that it is not initialised. */
static bool open_blas(cuda *d)
{
    cublasStatus_t s = cublasCreate(&d->blas);
    size_t free_bytes = HELD_BACK, total = 0;
    if (s == CUBLAS_STATUS_NOT_INITIALIZED && !cudaMemGetInfo(&free_bytes, &total) && free_bytes < HELD_BACK)
        s = CUBLAS_STATUS_ALLOC_FAILED;
    return blas_works(d, s, "opening cuBLAS");
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
    d->processors = properties.multiProcessorCount;
    return works(d, cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking), "making a stream") &&
           (d->workspace = memory_new(d, WORKSPACE)) && open_blas(d) &&
           blas_works(d, cublasSetStream(d->blas, d->stream), "opening cuBLAS") && /* first: it resets the workspace */
           blas_works(d, cublasSetWorkspace(d->blas, d->workspace, WORKSPACE), "opening cuBLAS") &&
           (d->held_back = memory_new(d, HELD_BACK));
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
    .processors = processors,
    .memory_new = memory_new,
    .memory_free = memory_free,
    .clear = clear,
    .copy = copy,
    .wait = wait_for_all,
    .reaches = reaches,
    .record_new = record_new,
    .record_free = record_free,
    .compile = compile,
    .unload = unload,
    .kernel = kernel,
    .launch = launch,
    .multiply = multiply,
};
