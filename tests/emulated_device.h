/* What the emulated device tells about itself: its memory, what crossed the bus, and the steps that it was given. Its
 * module exports one, `emulated__record`; test_device.c reads it and sets it back to nothing. */
#ifndef TESTS_EMULATED_DEVICE_H
#define TESTS_EMULATED_DEVICE_H

#include "gpu/device.h"

/* Lets the emulated device compile each source once while this process and those it forks live. Called by suites. */
void emulated_cache_begin(void);

/* It has little of everything, so that loops stride over their blocks and memory ends. */
enum { EMULATED_MOST = 512, EMULATED_MEMORIES = 4096, EMULATED_PROCESSORS = 2, EMULATED_BYTES = 1 << 30 };

typedef struct emulated_step {
    char kernel[32]; /* "" for a product */
    gpu_grid grid;
    int64_t *bind; /* on the device: as long as its program lives */
    const int64_t *words;
    gpu_product product;
    const void *operand[3]; /* of a product: c, a, b */
} emulated_step;

typedef struct emulated_record {
    int64_t sent, fetched;  /* bytes from the host to the device, and back */
    int64_t sends, fetches; /* copies */
    int64_t waits;
    int64_t compiled; /* modules */
    int n_steps;      /* kernels and products that ran, the first EMULATED_MOST noted */
    emulated_step step[EMULATED_MOST];

    int n_memory; /* live allocations */
    struct {
        char *at;
        size_t bytes;
    } memory[EMULATED_MEMORIES];
} emulated_record;

#endif
