/* IDX files, the format of MNIST: an array of unsigned bytes with its dimensions in front.
 *
 * The file is two zero bytes, the type (8: unsigned byte, the only one read here), the rank, then each dimension as a
 * big-endian 32-bit number, then the elements, the last dimension varying fastest. Plain and gzip-compressed files are
 * read alike. Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits". */
#ifndef MODELS_IDX_H
#define MODELS_IDX_H

#include "autodiff/ad.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { IDX_MAX_RANK = 4 };
#define IDX_MAX_BYTES ((int64_t)1 << 30) /* larger arrays are refused before any memory is asked for */

typedef struct idx {
    int rank;                  /* 1 to IDX_MAX_RANK */
    int64_t dim[IDX_MAX_RANK]; /* outermost first; those past the rank are 1 */
    int64_t count;             /* their product */
    uint8_t *data;             /* count bytes, row-major */
} idx;

/* Reads the file at path into *array, which the caller ends with idx_free. Returns 0; or -1 with *array empty and the
 * reason in why (at most size bytes, NUL included): no such file, not IDX, elements of another type, a dimension or
 * array too large, cut short, or longer than its dimensions say. */
AD_API int idx_read(idx *array, const char *path, char *why, size_t size);

/* Frees the data and empties *array; harmless on an empty one. */
AD_API void idx_free(idx *array);

#ifdef __cplusplus
}
#endif

#endif
