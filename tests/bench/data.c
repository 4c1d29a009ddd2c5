/* Pictures of digits for the rows that train the variational autoencoder. Called by models.c. */
#include "models/mnist.h"
#include "tests/bench/bench.h"

#include <stdlib.h>

const float *bench_digits(int64_t count)
{
    static float *pixels;
    static int64_t held;
    if (count <= held) return pixels;

    mnist data;
    char why[512];
    const char *folder = bench_data_folder();
    mnist_options o = { .folder = folder, .synthetic = !folder, .train = count, .test = 1 };
    if (mnist_open(&data, &o, why, sizeof why)) {
        fprintf(stderr, "bench: no digits: %s\n", why);
        return NULL;
    }
    float *grown = realloc(pixels, (size_t)count * MNIST_PIXELS * sizeof *grown);
    if (grown) {
        pixels = grown;
        held = count;
        for (int64_t i = 0; i < count; i++) /* a small data set is gone through again */
            for (int p = 0; p < MNIST_PIXELS; p++)
                pixels[i * MNIST_PIXELS + p] =
                    (float)data.train.images[i % data.train.count * MNIST_PIXELS + p] / 255.0f;
    }
    mnist_close(&data);
    return grown;
}
