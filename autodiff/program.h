/* The held program: a tape that was recorded once, taken off the context's stack, and is run again and again without
 * being recorded, compared or planned anew. Internal: the clients are svi_run, densities, loaders on a device, samplers.
 *
 * A program is immutable, but that it can be continued (program_resume) before its run states are made. A *run state*
 * runs it for chosen roots: it has buffers, inputs, numbers and a key of draws of its own, so that several of one program
 * can run at once, each in a thread. Making, beginning and freeing one belongs to the context's thread; running a lone
 * one touches neither the context nor its allocator.
 *
 *   ad__tape_open(c, stream, run);  ... record ...  program *p = ad__program_hold(c);
 *   run_state *s = ad__run_state_new(p, &request, inputs, n, alone);
 *   ad__run_state_begin(s)                                 where parameters and data lie now
 *   ad__run_state_write(s, 0, x, n); ad__run_state_run(s); ad__run_state_read(s, 0, out, n);     any number of times
 *
 * Nobody else touches a tape from outside autodiff/. */
#ifndef AUTODIFF_PROGRAM_H
#define AUTODIFF_PROGRAM_H

#include "autodiff/tape.h"

typedef struct program program;
typedef struct run_state run_state;

/* While recording: a committing run writes `value` over a persistent tensor that is no state. */
void ad__program_store(ad_context *c, ad_tensor *to, ad_tensor *value);
/* The slot of the number at which a slice starts; -1 where it takes all. */
int32_t ad__program_start_of(ad_context *c, ad_tensor *slice);
/* Takes the open tape off the stack and holds it, with all that is recorded on it; values that were already computed do
 * not count: every run computes them anew. NULL after an error, and then the tape is closed. Ended by program_free, after
 * its run states. */
program *ad__program_hold(ad_context *c);
void ad__program_free(program *p);
/* Puts the tape back on the stack, so that operations can be recorded behind it or its values be read; suspend takes it
 * off again. What was recorded in between is part of the program from then on (`keep`), or is forgotten. */
void ad__program_resume(program *p);
void ad__program_suspend(program *p, bool keep);
/* Compares the open tape with the program: true where they are the same but for run-time numbers from `numbers` on, else
 * false with an error that begins with `who` and names the first operation or number that differs. */
bool ad__program_compare(const program *p, int64_t numbers, const char *who, const char *hint);

/* A run state for a request: its roots, whether it commits, and what it implies (expand). inputs[i], persistent tensors
 * that the program reads, stand for memory of the state's own, which ad__run_state_write fills. `alone`: it can run in
 * any thread, on that thread alone; then it cannot commit. NULL after an error; a backend that runs one program at a time
 * refuses lone ones. */
run_state *ad__run_state_new(program *p, const run_request *r, ad_tensor *const *inputs, int n_inputs, bool alone);
void ad__run_state_free(run_state *s);

/* Another tensor of the same shape and type stands where `from` stood. */
void ad__run_state_substitute(run_state *s, const ad_tensor *from, ad_tensor *to);
/* Draws from now on: those of this run of a stream. */
void ad__run_state_key(run_state *s, uint64_t stream, uint64_t run);
/* A run-time number by its slot, and: between these two calls ad__bind_scalar gives the numbers from slot `first` on
 * anew, in the order of recording; not of a lone state. */
void ad__run_state_number(run_state *s, int32_t slot, double value);
void ad__run_state_numbers_begin(run_state *s, int64_t first);
void ad__run_state_numbers_end(run_state *s);

/* Looks where the tensors that the program reads lie; their contents are read by each run. False, with an error, where
 * one has been freed since. */
bool ad__run_state_begin(run_state *s);
void ad__run_state_write(run_state *s, int input, const double *x, int64_t n);
/* Runs; false where the device failed or an index was out of range, which ad__run_state_report makes an error of. */
bool ad__run_state_run(run_state *s);
bool ad__run_state_report(run_state *s);
/* Whether the last run committed: what it depends on was finite. */
bool ad__run_state_finite(const run_state *s);
/* The elements of a root as doubles; false after a device failed. */
bool ad__run_state_read(run_state *s, int root, double *out, int64_t n);

#endif
