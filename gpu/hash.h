/* FNV-1a's mixing, by which sources are found again: names of kernels, modules, files of the kernel cache. */
#ifndef GPU_HASH_H
#define GPU_HASH_H

#include <stddef.h>
#include <stdint.h>

#define GPU_HASH 0xcbf29ce484222325u /* of nothing */

static inline uint64_t gpu__hash(uint64_t h, const void *data, size_t n)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

#endif
