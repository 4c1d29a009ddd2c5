/* Pictures: a grid of gray images as one PNG file. */
#ifndef MODELS_PICTURE_H
#define MODELS_PICTURE_H

#include "autodiff/ad.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Zero takes the default. */
typedef struct picture_options {
    int columns; /* images in a row; default: the smallest square that holds all */
    int zoom;    /* screen pixels for each pixel, in both directions; default 1 */
    int gap;     /* black screen pixels between images and around them; default 2, a negative number means none */
} picture_options;

/* pixels (count, height, width) in [0, 1], row-major -> an 8-bit gray PNG at path, images in reading order, the places
 * after the last one black. A value v becomes round(255 v); what lies outside is clamped, and NaN is black. options
 * may be NULL. The file is replaced whole or not at all. Returns 0, or -1 with the reason in why (at most size bytes):
 * no pixels, a picture of more than 2^28 bytes, no memory, or a file that cannot be written. */
AD_API int picture_grid(const char *path, const float *pixels, int count, int height, int width,
                        const picture_options *options, char *why, size_t size);

#ifdef __cplusplus
}
#endif

#endif
