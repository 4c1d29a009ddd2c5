/* CUDA's runtime and cuBLAS without a device: memory of the host's, launches and products that do nothing, and calls
 * that fail as asked (fake_cuda.h). Linked with the CUDA backend in place of the real libraries, so that test_card.c
 * sees what gpu/cuda.c makes of each failure; values mean nothing. NVRTC is the real one. */
#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fake/fake_cuda.h"

__attribute__((visibility("default"))) fake_cuda fake__cuda;

/* The status of this call. */
static int status_of(const char *call)
{
    fake_cuda *f = &fake__cuda;
    if (!f->fails || (*f->fails && strcmp(f->fails, call) != 0))
        return 0;
    f->count++;
    return f->count >= f->from && f->count < f->from + f->times ? f->status : 0;
}
#define STATUS() status_of(__func__)

/* ---- the runtime ------------------------------------------------------------------------------------------------- */

/* Memory is noted: what a lost device could not be asked to free is no leak of the library's. */
static void *held[4096];
static cudaError_t allocate(void **out, size_t bytes, int status)
{
    size_t i = 0;
    while (held[i])
        i++;
    *out = held[i] = status ? NULL : calloc(1, bytes);
    return (cudaError_t)status;
}
static cudaError_t release(void *memory, int status)
{
    for (size_t i = 0; memory && i < sizeof held / sizeof *held; i++)
        if (held[i] == memory)
            held[i] = NULL;
    free(memory);
    return (cudaError_t)status;
}
cudaError_t cudaMalloc(void **out, size_t bytes)
{
    return allocate(out, bytes, STATUS());
}
cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned flags)
{
    (void)flags;
    return allocate(out, bytes, STATUS());
}
cudaError_t cudaFree(void *memory)
{
    return release(memory, STATUS());
}
cudaError_t cudaFreeHost(void *memory)
{
    return release(memory, STATUS());
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    *free_bytes = fake__cuda.free_bytes;
    *total = (size_t)1 << 30;
    return (cudaError_t)STATUS();
}
cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream)
{
    (void)stream;
    memset(memory, value, bytes);
    return (cudaError_t)STATUS();
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    (void)kind, (void)stream;
    memcpy(to, from, bytes);
    fake__cuda.copies++;
    return (cudaError_t)STATUS();
}
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *memory)
{
    (void)memory;
    *a = (struct cudaPointerAttributes){ .type = cudaMemoryTypeDevice, .device = fake__cuda.pointers_of };
    return (cudaError_t)STATUS();
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 1;
    return (cudaError_t)STATUS();
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
    (void)device;
    *p = (struct cudaDeviceProp){ .name = "Fake", .major = 9, .totalGlobalMem = 1 << 30, .multiProcessorCount = 4 };
    return (cudaError_t)STATUS();
}
cudaError_t cudaSetDevice(int device)
{
    (void)device;
    return (cudaError_t)STATUS();
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    (void)flags;
    *stream = NULL;
    return (cudaError_t)STATUS();
}
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    (void)stream;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    (void)stream;
    return (cudaError_t)STATUS();
}
cudaError_t cudaGetLastError(void)
{
    return cudaSuccess;
}
const char *cudaGetErrorString(cudaError_t e)
{
    return e == cudaErrorMemoryAllocation ? "out of memory" : "a fake error";
}

cudaError_t cudaLibraryLoadData(cudaLibrary_t *library, const void *code, enum cudaJitOption *options, void **values,
                                unsigned n, enum cudaLibraryOption *more, void **more_values, unsigned n_more)
{
    static int any;
    (void)code, (void)options, (void)values, (void)n, (void)more, (void)more_values, (void)n_more;
    *library = (cudaLibrary_t)(void *)&any;
    return (cudaError_t)STATUS();
}
cudaError_t cudaLibraryUnload(cudaLibrary_t library)
{
    (void)library;
    return (cudaError_t)STATUS();
}
cudaError_t cudaLibraryGetKernel(cudaKernel_t *kernel, cudaLibrary_t library, const char *name)
{
    (void)name;
    *kernel = (cudaKernel_t)(void *)library;
    return (cudaError_t)STATUS();
}
cudaError_t cudaLaunchKernel(const void *kernel, dim3 grid, dim3 threads, void **arguments, size_t shared,
                             cudaStream_t stream)
{
    (void)kernel, (void)grid, (void)threads, (void)arguments, (void)shared, (void)stream;
    fake__cuda.launches++;
    return (cudaError_t)STATUS();
}

/* ---- cuBLAS ------------------------------------------------------------------------------------------------------ */

cublasStatus_t cublasCreate_v2(cublasHandle_t *handle)
{
    *handle = NULL;
    return (cublasStatus_t)STATUS();
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle)
{
    (void)handle;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream)
{
    (void)handle, (void)stream;
    return (cublasStatus_t)STATUS();
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void *workspace, size_t bytes)
{
    (void)handle, (void)workspace, (void)bytes;
    return (cublasStatus_t)STATUS();
}
const char *cublasGetStatusString(cublasStatus_t s)
{
    return s == CUBLAS_STATUS_ALLOC_FAILED ? "allocation failed" : "a fake status";
}
cublasStatus_t cublasGemmEx_64(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int64_t m,
                               int64_t n, int64_t k, const void *alpha, const void *a, cudaDataType type_a,
                               int64_t row_a, const void *b, cudaDataType type_b, int64_t row_b, const void *beta,
                               void *c, cudaDataType type_c, int64_t row_c, cublasComputeType_t how,
                               cublasGemmAlgo_t algorithm)
{
    (void)handle, (void)op_a, (void)op_b, (void)m, (void)n, (void)k, (void)alpha, (void)a, (void)type_a, (void)row_a;
    (void)b, (void)type_b, (void)row_b, (void)beta, (void)c, (void)type_c, (void)row_c, (void)how, (void)algorithm;
    return (cublasStatus_t)STATUS();
}
cublasStatus_t cublasGemmStridedBatchedEx_64(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b,
                                             int64_t m, int64_t n, int64_t k, const void *alpha, const void *a,
                                             cudaDataType type_a, int64_t row_a, long long stride_a, const void *b,
                                             cudaDataType type_b, int64_t row_b, long long stride_b, const void *beta,
                                             void *c, cudaDataType type_c, int64_t row_c, long long stride_c,
                                             int64_t members, cublasComputeType_t how, cublasGemmAlgo_t algorithm)
{
    (void)handle, (void)op_a, (void)op_b, (void)m, (void)n, (void)k, (void)alpha, (void)a, (void)type_a, (void)row_a;
    (void)stride_a, (void)b, (void)type_b, (void)row_b, (void)stride_b, (void)beta, (void)c, (void)type_c, (void)row_c;
    (void)stride_c, (void)members, (void)how, (void)algorithm;
    return (cublasStatus_t)STATUS();
}
