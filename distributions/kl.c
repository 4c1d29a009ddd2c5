/* Kullback-Leibler divergences in closed form: a table of pairs of classes. Called by TraceMeanField_ELBO. A pair gives
 * the divergence of two members, elementwise; event dimensions made by to_event are summed here. */
#include "distributions/categorical.h"

#include <math.h>

typedef T divergence(const dist_object *p, const dist_object *q);

/* (r^2 + t^2 - 1) / 2 - log r, r the ratio of the scales, t the distance in q's scales */
static T normal(const dist_object *p, const dist_object *q)
{
    T r = (ad_div)(p->parameter[1], q->parameter[1]);
    T t = (ad_div)((ad_sub)(p->parameter[0], q->parameter[0]), q->parameter[1]);
    T squares = (ad_sub)((ad_add)((ad_square)(r), (ad_square)(t)), k(1));
    return (ad_sub)((ad_mul)(k(0.5), squares), (ad_log)(r));
}

/* sum_i p_i (log p_i - log q_i): of a choice of two, and of many */
static T bernoulli(const dist_object *p, const dist_object *q)
{
    dist__two a = dist__bernoulli_parts(p), b = dist__bernoulli_parts(q);
    return (ad_add)(dist__weighed(a.p[0], (ad_sub)(a.log_p[0], b.log_p[0])),
                    dist__weighed(a.p[1], (ad_sub)(a.log_p[1], b.log_p[1])));
}
static T categorical(const dist_object *p, const dist_object *q)
{
    T log_p = dist__categorical_exact_log_p(p);
    return dist__sum_rightmost(dist__weighed((ad_exp)(log_p), (ad_sub)(log_p, dist__categorical_exact_log_p(q))), 1);
}

/* r - 1 - log r, r = rate of q / rate of p */
static T exponential(const dist_object *p, const dist_object *q)
{
    T r = (ad_div)(q->parameter[0], p->parameter[0]);
    return (ad_sub)((ad_sub)(r, k(1)), (ad_log)(r));
}

/* (r^2 - 1) / 2 - log r, r the ratio of the scales */
static T half_normal(const dist_object *p, const dist_object *q)
{
    T r = (ad_div)(p->parameter[0], q->parameter[0]);
    return (ad_sub)((ad_mul)(k(0.5), (ad_sub)((ad_square)(r), k(1))), (ad_log)(r));
}

/* log of the ratio of the widths, infinite where p reaches beyond q */
static T uniform(const dist_object *p, const dist_object *q)
{
    T width = (ad_sub)((ad_mul)(k(0.5), p->parameter[1]), (ad_mul)(k(0.5), p->parameter[0]));
    T around = (ad_sub)((ad_mul)(k(0.5), q->parameter[1]), (ad_mul)(k(0.5), q->parameter[0]));
    T widths = (ad_log)((ad_div)(around, width)); /* of halves, which do not overflow */
    T within = (ad_mul)((ad_ge)(p->parameter[0], q->parameter[0]), (ad_le)(p->parameter[1], q->parameter[1]));
    return (ad_where)(within, widths, k(INFINITY));
}

/* log p - log q + (1 - p) / p (log(1 - p) - log(1 - q)), of the probabilities */
static T geometric(const dist_object *p, const dist_object *q)
{
    T a = p->parameter[0], b = q->parameter[0];
    T failures = dist__weighed((ad_sub)(k(1), a), (ad_sub)((ad_log1p)((ad_neg)(a)), (ad_log1p)((ad_neg)(b))));
    return (ad_add)((ad_sub)((ad_log)(a), (ad_log)(b)), (ad_div)(failures, a));
}

/* log(((s + t)^2 + d^2) / (4 s t)), s and t the scales, d the distance (Chyzak and Nielsen 2019): close to each other
 * as log(1 + ((s - t)^2 + d^2) / (4 s t)), which keeps its digits, else without squares, which overflow. */
static T cauchy(const dist_object *p, const dist_object *q)
{
    T s = p->parameter[1], t = q->parameter[1], d = (ad_sub)(p->parameter[0], q->parameter[0]);
    T sum = (ad_add)(s, t), off = (ad_sub)(s, t), product = (ad_add)((ad_log)(s), (ad_log)(t));
    T squares = (ad_add)((ad_mul)((ad_div)(off, s), (ad_div)(off, t)), (ad_mul)((ad_div)(d, s), (ad_div)(d, t)));
    T near = (ad_log1p)((ad_mul)(k(0.25), squares));
    T far = (ad_sub)((ad_add)(dist__log_cauchy(d, sum), (ad_log)(sum)), (ad_add)(product, k(2 * LOG_2)));
    T close = (ad_mul)((ad_le)((ad_abs)(d), (ad_mul)(k(1e3), sum)), (ad_le)(sum, (ad_mul)(k(1e3), (ad_min)(s, t))));
    return (ad_where)(close, near, far);
}

/* -log r + euler (r - 1) + exp(d) Gamma(1 + r) - 1 + d', r = ratio of the scales, d = distance in q's scales */
static T gumbel(const dist_object *p, const dist_object *q)
{
    T r = (ad_div)(p->parameter[1], q->parameter[1]);
    T d = (ad_div)((ad_sub)(q->parameter[0], p->parameter[0]), q->parameter[1]);
    T tail = (ad_exp)((ad_add)(d, (ad_lgamma)((ad_add)(r, k(1)))));
    T centre = (ad_sub)((ad_mul)(k(EULER), (ad_sub)(r, k(1))), d);
    return (ad_sub)((ad_add)(centre, (ad_sub)(tail, k(1))), (ad_log)(r));
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
    { &dist__half_normal, &dist__half_normal, half_normal },
    { &dist__uniform, &dist__uniform, uniform },
    { &dist__geometric, &dist__geometric, geometric },
    { &dist__cauchy, &dist__cauchy, cauchy },
    { &dist__gumbel, &dist__gumbel, gumbel },
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
    const dist_object *one = dist_object_of(p), *other = one ? dist_object_of(q) : NULL;
    if (other && (one->mask || other->mask) && one->of != &dist__delta) {
        ad_fail(AD_ERROR_ARGUMENT, "mask the divergence of the distributions without masks, with ad_where",
                "KL(%s || %s): one of them is masked", one->of->name, other->of->name);
        return AD_NIL;
    }
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
