/* Digits drawn as jittered strokes, for machines without MNIST. Called by mnist.c. */
#ifndef MODELS_STROKES_H
#define MODELS_STROKES_H

#include <stdint.h>

/* Draws digit `index` of a stream into image (28, 28), 0 paper to 255 ink, and returns its class, 0 to 9. A pure
 * function, with the same bytes on every machine that has IEEE double arithmetic. */
int models__draw_digit(uint8_t *image, int stream, int64_t index);

#endif
