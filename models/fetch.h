/* Fetches MNIST from its public mirrors. Called by mnist.c. */
#ifndef MODELS_FETCH_H
#define MODELS_FETCH_H

#include <stddef.h>

/* The four files of MNIST and the SHA-256 of each once unpacked (mirrors differ in how they compress). */
#define MNIST_FILES(X)                                                                                                 \
    X(TRAIN_IMAGES, "train-images-idx3-ubyte", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db")     \
    X(TRAIN_LABELS, "train-labels-idx1-ubyte", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5")     \
    X(TEST_IMAGES, "t10k-images-idx3-ubyte", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7")       \
    X(TEST_LABELS, "t10k-labels-idx1-ubyte", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2")

/* Makes folder, with its parents, and puts the four unpacked files there, each whole and verified. Returns 0, or -1
 * with the reason in why. It runs curl and sha256sum, found by $PATH. */
int models__fetch_mnist(const char *folder, char *why, size_t size);

#endif
