/* What the runtime of fake_cuda.c is told and tells; its module exports one, `fake__cuda`. */
#ifndef TESTS_FAKE_CUDA_H
#define TESTS_FAKE_CUDA_H

#include <stddef.h>

typedef struct fake_cuda {
    const char *fails; /* the call that fails; "" for every one; NULL for none */
    int from, times;   /* its calls, counted from 1, that do: `times` of them from `from` on */
    int status;
    int count;         /* of those calls so far */
    size_t free_bytes; /* as the device says */
    int pointers_of;   /* which device memory is said to lie on */
    int copies, launches;
} fake_cuda;

#endif
