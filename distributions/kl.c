/* Kullback-Leibler divergences in closed form: a table of pairs of classes. Called by TraceMeanField_ELBO. A pair gives
 * the divergence of two members, elementwise; event dimensions made by to_event are summed here. */
#include "distributions/categorical.h"

typedef T divergence(const dist_object *p, const dist_object *q);

/* (r^2 + t^2 - 1) / 2 - log r, r the ratio of the scales, t the distance in q's scales */
static T normal(const dist_object *p, const dist_object *q)
{
    T r = (ad_div)(p->parameter[1], q->parameter[1]);
    T t = (ad_div)((ad_sub)(p->parameter[0], q->parameter[0]), q->parameter[1]);
    T squares = (ad_sub)((ad_add)((ad_square)(r), (ad_square)(t)), k(1));
    return (ad_sub)((ad_mul)(k(0.5), squares), (ad_log)(r));
}

/* p (l - m) - log(1 + e^l) + log(1 + e^m), with l and m the logits of p and q */
static T bernoulli(const dist_object *p, const dist_object *q)
{
    bool logits = p->of == &dist__bernoulli_logits;
    T l = logits ? p->parameter[0] : (ad_logit_clamped)(p->parameter[0]);
    T m = q->of == &dist__bernoulli_logits ? q->parameter[0] : (ad_logit_clamped)(q->parameter[0]);
    T mean = logits ? (ad_sigmoid)(l) : p->parameter[0];
    return (ad_add)((ad_mul)(mean, (ad_sub)(l, m)), (ad_sub)((ad_softplus)(m), (ad_softplus)(l)));
}

/* sum_i p_i (log p_i - log q_i) */
static T categorical(const dist_object *p, const dist_object *q)
{
    T log_p = dist__categorical_log_p(p);
    return dist__sum_rightmost((ad_chain)((ad_exp)(log_p), (ad_sub)(log_p, dist__categorical_log_p(q))), 1);
}

/* r - 1 - log r, r = rate of q / rate of p */
static T exponential(const dist_object *p, const dist_object *q)
{
    T r = (ad_div)(q->parameter[0], p->parameter[0]);
    return (ad_sub)((ad_sub)(r, k(1)), (ad_log)(r));
}

/* r exp(-t / r) + t - 1 - log r, r = ratio of the scales, t = distance in q's scales */
static T laplace(const dist_object *p, const dist_object *q)
{
    T r = (ad_div)(p->parameter[1], q->parameter[1]);
    T t = (ad_div)((ad_abs)((ad_sub)(p->parameter[0], q->parameter[0])), q->parameter[1]);
    T near = (ad_mul)(r, (ad_exp)((ad_neg)((ad_div)(t, r))));
    return (ad_sub)((ad_add)(near, (ad_sub)(t, k(1))), (ad_log)(r));
}

static const struct {
    const dist_class *p, *q;
    divergence *kl;
} pairs[] = {
    { &dist__normal, &dist__normal, normal },
    { &dist__log_normal, &dist__log_normal, normal }, /* exp keeps divergences */
    { &dist__bernoulli, &dist__bernoulli, bernoulli },
    { &dist__bernoulli, &dist__bernoulli_logits, bernoulli },
    { &dist__bernoulli_logits, &dist__bernoulli, bernoulli },
    { &dist__bernoulli_logits, &dist__bernoulli_logits, bernoulli },
    { &dist__categorical, &dist__categorical, categorical },
    { &dist__categorical, &dist__categorical_logits, categorical },
    { &dist__categorical_logits, &dist__categorical, categorical },
    { &dist__categorical_logits, &dist__categorical_logits, categorical },
    { &dist__exponential, &dist__exponential, exponential },
    { &dist__laplace, &dist__laplace, laplace },
};

static divergence *find(const dist_object *p, const dist_object *q)
{
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (pairs[i].p == p->of && pairs[i].q == q->of) return pairs[i].kl;
    return NULL;
}

/* Event dimensions of one draw. */
static int events(const dist_object *o) { return o->to_event + o->event->rank; }

bool dist_has_kl(distribution *p, distribution *q)
{
    const dist_object *a = dist_object_of(p), *b = a ? dist_object_of(q) : NULL;
    if (!b || events(a) != events(b)) return false;
    if (a->of == &dist__delta) return true;
    return !a->mask && !b->mask && a->to_event == b->to_event && find(a, b);
}

T dist_kl(distribution *p, distribution *q)
{
    if (!dist_has_kl(p, q)) {
        ad_fail(AD_ERROR_ARGUMENT, NULL, "no closed form of KL(%s || %s) with %d and %d event dimensions", dist_name(p),
                dist_name(q), dist_event_dim(p), dist_event_dim(q));
        return AD_NIL;
    }
    const dist_object *a = dist_object_of(p), *b = dist_object_of(q);
    if (a->of == &dist__delta) { /* E_p[log p(x) - log q(x)] has one x */
        T x = dist_sample(p, 0);
        return (ad_sub)(dist_log_prob(p, x), dist_log_prob(q, x));
    }
    ad_shape joint;
    ad_context *c = ad__current();
    if (!ad__broadcast(a->batch, b->batch, &joint)) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "KL(%s || %s): shapes %s and %s do not broadcast", a->of->name, b->of->name,
                 ad__shape_text(c, a->batch), ad__shape_text(c, b->batch));
        return AD_NIL;
    }
    T kl = dist__expanded(find(a, b)(a, b), &ad__shape_info(c, ad__shape(c, &joint))->shape);
    return dist__sum_rightmost(kl, a->to_event);
}
