/* The one thread pool of a CPU backend: runs the chunks of a kernel on the calling thread and on workers. Which thread
 * runs a chunk never changes a bit of its result. Used by one thread at a time. */
#ifndef AUTODIFF_CPU_POOL_H
#define AUTODIFF_CPU_POOL_H

#include "autodiff/context.h"

typedef struct cpu_pool cpu_pool;

/* Runs chunks [from, to) of a job on thread number `thread`. */
typedef void chunk_fn(const void *job, int64_t from, int64_t to, int thread);

/* Workers are started at the first parallel job. NULL after an error. */
cpu_pool *cpu_pool_new(ad_context *c, int threads);
void cpu_pool_free(cpu_pool *p);
int cpu_pool_threads(const cpu_pool *p);
/* Returns when all chunks are done. */
void cpu_pool_run(cpu_pool *p, chunk_fn *run, const void *job, int64_t chunks);

#endif
