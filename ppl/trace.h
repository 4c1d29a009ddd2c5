/* Traces: what a run of a model did, site by site. Included by ppl.h.
 *
 * A ppl_trace is a handle with a step's life: it ends with the ad_scope or step in which it was made. */
#ifndef PPL_TRACE_H
#define PPL_TRACE_H

#include "ppl/call.h"
#include "ppl/message.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ppl_trace ppl_trace;

/* Runs f on the arguments and records its sites. An ad_scope or a step must be open. Where the program is met first its
 * computed parameters are checked, as dist_check does, and nil is returned where one makes no distribution. In C:
 * ppl_trace_run(guide, PPL_ARGS(vae *, ad_tensor *), &v, x). */
AD_API ppl_trace *ppl_trace_run_args(ppl_function f, ppl_signature types, int n, const ppl_arg *args);

/* An empty trace, and the handler that records into it: ppl_with (ppl_record(t)) { ... } starts it afresh. Two sample
 * sites of one name are an error, as is a name that is both a sample site and a parameter; of a parameter's visits the
 * last stays. */
AD_API ppl_trace *ppl_trace_new(void);
AD_API ppl_handler ppl_record(ppl_trace *t);

AD_API int ppl_trace_size(ppl_trace *t); /* messages recorded */
/* The i-th recorded message in order of its call, or NULL; it lives as long as the trace and must not be changed. */
AD_API const ppl_message *ppl_trace_at(ppl_trace *t, int i);
/* The message of a name, or NULL without an error when there is none. */
AD_API const ppl_message *ppl_trace_find(ppl_trace *t, const char *name);
/* The value of a site or parameter; nil, and an error, when the trace has none of that name. */
AD_API ad_tensor *ppl_trace_value(ppl_trace *t, const char *name);
/* log p of a site's value: scaled and masked, of its batch shape. */
AD_API ad_tensor *ppl_trace_log_prob(ppl_trace *t, const char *name);
/* The sum of all sites' log-densities, a scalar. */
AD_API ad_tensor *ppl_trace_log_prob_sum(ppl_trace *t);
/* A table of the shapes of all sites, one line each: "z dist 256 | 50", "value 256 | 50", as Pyro's format_shapes.
 * Writes at most size bytes, always ended; returns the length of the whole text. */
AD_API size_t ppl_format_shapes(ppl_trace *t, char *out, size_t size);

#ifdef __cplusplus
}
#else
#define PPL_TRACE_RUN_(s, n, args) ppl_trace_run_args((ppl_function)ppl_model_, s, n, args)
#define ppl_trace_run(...) AD_CAT_(PPL_TRACE_RUN_, AD_COMMA_(__VA_ARGS__))(__VA_ARGS__)
#define PPL_TRACE_RUN_0(f) PPL_TRACE_RUN_1(f, PPL_ARGS())
#define PPL_TRACE_RUN_1(f, ...)                                                                                        \
    __extension__({                                                                                                    \
        PPL_MODEL_AND_GUIDE_(f, NULL);                                                                                 \
        AD_HERE;                                                                                                       \
        PPL_CALL_(PPL_TRACE_RUN_, __VA_ARGS__);                                                                        \
    })
#endif
#endif
