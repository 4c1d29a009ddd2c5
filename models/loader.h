/* Minibatches: rows of bytes, shuffled anew in every epoch, as tensors of reals in [0, 1].
 *
 *     loader *train = loader_new(data.train.images, data.train.count, MNIST_PIXELS,
 *                                &(loader_options){ .batch_size = 256, .seed = 1 });
 *     ad_tensor *x;
 *     for (int epoch = 0; epoch < 10; epoch++)
 *         while (loader_next(train, &x)) loss += svi_step(s, &v, x);
 *     loader_free(train);
 *
 * The last minibatch of an epoch holds what remains and may be smaller. The order is a function of seed and epoch
 * alone. After the first epoch nothing is allocated.
 *
 * On the CPU, rows are gathered and converted by loader_next. On a GPU the rows are copied to it as bytes by
 * loader_new, the order (8 bytes a row) at the beginning of each epoch, and kernels gather, convert and batch: no pixel
 * crosses the bus after the start. The minibatches are the same, bit for bit. */
#ifndef MODELS_LOADER_H
#define MODELS_LOADER_H

#include "autodiff/ad.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct loader loader;

typedef struct loader_options {
    int64_t batch_size; /* 0: 256 */
    uint64_t seed;
    bool in_order; /* no shuffling: for test sets */
} loader_options;

/* Rows: `count` of them, `width` bytes each, one after the other; they must outlive the loader. Belongs
 * to the current context: end with loader_free, before or after its end. options may be NULL. NULL, with the error in
 * ad_error, for no rows, a negative size or no memory. */
AD_API loader *loader_new(const uint8_t *rows, int64_t count, int64_t width, const loader_options *options);
AD_API void loader_free(loader *l); /* NULL is allowed */

/* The next minibatch of the epoch, (B, width) with byte b as b / 255, in *x; false at the end of the epoch, and after
 * an error (see ad_error); the call after that begins the next epoch. *x is the loader's: it stays valid, and its
 * content stands until the next call. */
AD_API bool loader_next(loader *l, ad_tensor **x);

AD_API int64_t loader_count(const loader *l);   /* rows in an epoch */
AD_API int64_t loader_batches(const loader *l); /* minibatches in an epoch */
/* Which row became row i of the minibatch that loader_next gave last: its index among `rows`; -1 outside. */
AD_API int64_t loader_row(const loader *l, int64_t i);

#ifdef __cplusplus
}
#endif
#endif
