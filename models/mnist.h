/* MNIST: 28 x 28 gray pictures of handwritten digits with their labels; found, fetched, or drawn.
 *
 * The four files train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte,
 * plain or with .gz, are looked for in this order:
 *
 *   1. the folder in the options; when they are not there, that is an error;
 *   2. the folder named by $TAPER_DATA; likewise;
 *   3. the cache, $XDG_CACHE_HOME/taper/mnist or ~/.cache/taper/mnist;
 *   4. two public mirrors, over HTTPS by running curl; each file is unpacked into the cache once its SHA-256, as told
 *      by sha256sum, is that of the original;
 *   5. no MNIST: digits drawn with jittered strokes, the same on every machine. They fit the same programs, but their
 *      losses are not comparable with those on MNIST.
 *
 * mnist.about says in one line which it was. Any other data set in the same form can be given by its folder. */
#ifndef MODELS_MNIST_H
#define MODELS_MNIST_H

#include "autodiff/ad.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { MNIST_SIDE = 28, MNIST_PIXELS = MNIST_SIDE * MNIST_SIDE, MNIST_CLASSES = 10 };

typedef struct mnist_set {
    int64_t count;
    uint8_t *images; /* (count, 28, 28), row-major; 0 is paper, 255 ink */
    uint8_t *labels; /* (count), each 0 to 9 */
} mnist_set;

typedef struct mnist {
    mnist_set train, test;
    char about[512]; /* such as "data: MNIST from /data/mnist (60000 train, 10000 test)" */
} mnist;

/* Zero takes the default. */
typedef struct mnist_options {
    const char *folder;  /* where the files are; NULL: the order above */
    bool synthetic;      /* draw digits, and look for no files */
    bool offline;        /* leave step 4 out */
    int64_t train, test; /* keep, or draw, no more than the first so many; default all, or 60000 and 10000 */
} mnist_options;

/* Fills *data, which the caller ends with mnist_close. options may be NULL. Returns 0; or -1 with *data empty and the
 * reason in why (at most size bytes): a named folder without the files, a corrupt file, no memory. It may take a while:
 * step 4 moves 11 megabytes. */
AD_API int mnist_open(mnist *data, const mnist_options *options, char *why, size_t size);

/* Frees the images and labels and empties *data; harmless on an empty one. */
AD_API void mnist_close(mnist *data);

#ifdef __cplusplus
}
#endif

#endif
