#!/usr/bin/env python3
"""Writes masks.h from ops.def: macros that let a number stand for an operand and carry file and line.
Usage: masks.py ops.def masks.h"""
import re
import sys

HEAD = """/* Generated from ops.def by masks.py: macros over the functions of ad.h, for C alone. */
#ifndef AUTODIFF_MASKS_H
#define AUTODIFF_MASKS_H

static inline ad_tensor *ad_operand_tensor(ad_tensor *x) { return x; }
/* 0 where a size is negative: the function that is given the shape refuses it. */
static inline int64_t ad_elements(const ad_shape *s)
{
    int64_t n = 1;
    for (int i = 0; i < s->rank; i++)
        if (s->dim[i] < 0 || __builtin_mul_overflow(n, s->dim[i], &n))
            return 0;
    return n;
}
static inline bool ad_holds(int64_t room, int64_t n, const char *wants)
{
    return room >= n || ad_array_short(room, n, wants);
}
#define AD_OPERAND(x) _Generic((x), ad_tensor *: ad_operand_tensor, default: ad_number)(x)
#ifdef AD_INSIDE /* the library itself: an error names the user's line, not ours */
#define AD_HERE ((void)0)
#else
#define AD_HERE (ad_at)(__FILE__, __LINE__)
#endif
#define AD_MASK1(f, x) \\
    __extension__({ __auto_type ad_x_ = (x); AD_HERE; (f)(AD_OPERAND(ad_x_)); })
#define AD_MASK2(f, a, b) \\
    __extension__({ __auto_type ad_a_ = (a); __auto_type ad_b_ = (b); AD_HERE; \\
                    (f)(AD_OPERAND(ad_a_), AD_OPERAND(ad_b_)); })
#define AD_MASK3(f, a, b, c) \\
    __extension__({ __auto_type ad_a_ = (a); __auto_type ad_b_ = (b); __auto_type ad_c_ = (c); AD_HERE; \\
                    (f)(AD_OPERAND(ad_a_), AD_OPERAND(ad_b_), AD_OPERAND(ad_c_)); })
#define AD_MASK4(f, a, b, c, d) \\
    __extension__({ __auto_type ad_a_ = (a); __auto_type ad_b_ = (b); __auto_type ad_c_ = (c); \\
                    __auto_type ad_d_ = (d); AD_HERE; \\
                    (f)(AD_OPERAND(ad_a_), AD_OPERAND(ad_b_), AD_OPERAND(ad_c_), AD_OPERAND(ad_d_)); })
#define AD_SOURCE_OF(p) _Generic((p), float *: AD_FROM_FLOAT, const float *: AD_FROM_FLOAT, \\
    double *: AD_FROM_DOUBLE, const double *: AD_FROM_DOUBLE, int *: AD_FROM_INT, const int *: AD_FROM_INT, \\
    int64_t *: AD_FROM_INT64, const int64_t *: AD_FROM_INT64, uint8_t *: AD_FROM_BYTE, const uint8_t *: AD_FROM_BYTE)

/* Data by the type of its pointer, sizes and axes as plain lists. */
#define ad_from(data, ...) \\
    __extension__({ ad_shape ad_s_ = __VA_ARGS__; int64_t ad_n_ = ad_elements(&ad_s_); AD_HERE; \\
                    AD_HOLDS_(data, ad_n_, "ad_from: the shape wants") \\
                        ? (ad_from_data)((data), AD_SOURCE_OF(data), ad_s_) : (ad_tensor *)NULL; })
#define ad_write(t, data, n) \\
    __extension__({ int64_t ad_n_ = AD_WHOLE_(n); AD_HERE; AD_HOLDS_(data, ad_n_, "ad_write is asked for") && \\
                    (ad_write_data)((t), (data), AD_SOURCE_OF(data), ad_n_); })
#define ad_read(x, out, n) \\
    __extension__({ int64_t ad_n_ = AD_WHOLE_(n); AD_HERE; AD_HOLDS_(out, ad_n_, "ad_read is asked for") && \\
                    (ad_read_data)((x), (out), AD_SOURCE_OF(out), ad_n_); })
#define ad_zeros(...) ad_full_shape(AD_SHAPE(__VA_ARGS__), 0.0)
#define ad_ones(...) ad_full_shape(AD_SHAPE(__VA_ARGS__), 1.0)
#define ad_matmul(a, b) AD_MASK2(ad_matmul, a, b)
#define ad_stop_gradient(x) AD_MASK1(ad_stop_gradient, x)

/* Axes as plain arguments, at most four: ad_sum(x) over all of them, ad_sum(x, -1), ad_mean(x, 0, 2). */
#define AD_REDUCE_0(kind, x) ad_reduce((kind), (x), NULL, 0, false)
#define AD_REDUCE_N(kind, x, ...) \\
    ad_reduce((kind), (x), (const int[]){ AD_MAP_(AD_WHOLE_, __VA_ARGS__) }, AD_COUNT_(__VA_ARGS__), false)
#define AD_REDUCE_PICK(x, a, b, c, d, name, ...) name
#define AD_REDUCE(kind, ...) \\
    AD_REDUCE_PICK(__VA_ARGS__, AD_REDUCE_N, AD_REDUCE_N, AD_REDUCE_N, AD_REDUCE_N, AD_REDUCE_0, 0)(kind, __VA_ARGS__)
#define ad_sum(...) AD_REDUCE(AD_SUM, __VA_ARGS__)
#define ad_mean(...) AD_REDUCE(AD_MEAN, __VA_ARGS__)
#define ad_max_over(...) AD_REDUCE(AD_MAX, __VA_ARGS__)
#define ad_logsumexp(...) AD_REDUCE(AD_LOGSUMEXP, __VA_ARGS__)
"""
# Functions whose arguments are taken as they are: their masks only say where the call stands.
PLAIN = """assign borrow cast_real commit concat expand from_data full_shape gradient item linear matmul_t permute
random_normal random_uniform read_data reduce reshape stack state sum_to weighted_total write_data""".split()
# Those of sizes and axes, marked w, which must be of an integer type.
WHOLE = """arange(w) cumsum(x,w,x) dim(x,w) gather(x,w,x) pad(x,w,w,w) random_index(w,w,x)
scatter_add(x,w,x,w) slice(x,w,w,w) squeeze(x,w) transpose(x,w,w) unsqueeze(x,w)""".split()


def whole(row):
    """The mask of a row of WHOLE."""
    name, kinds = re.match(r"(\w+)\((.*)\)", row).groups()
    names = "abcd"[: (len(kinds) + 1) // 2]
    taken = [f"AD_WHOLE_({x})" if kind == "w" else x for x, kind in zip(names, kinds.split(","))]
    return f"#define ad_{name}({', '.join(names)}) (AD_HERE, (ad_{name})({', '.join(taken)}))"


def main(ops, out):
    text = re.sub(r"/\*.*?\*/", "", open(ops).read(), flags=re.S)
    rows = re.findall(r"^AD_OP([1-4])\((\w+),", text, flags=re.M)
    lines = [HEAD]
    for arity, name in rows:
        args = "x" if arity == "1" else ", ".join("abcd"[: int(arity)])
        lines.append(f"#define ad_{name}({args}) AD_MASK{arity}(ad_{name}, {args})")
    lines += [f"#define ad_{name}(...) (AD_HERE, (ad_{name})(__VA_ARGS__))" for name in PLAIN if name != "commit"]
    lines += [whole(row) for row in WHOLE]
    lines.append("#define ad_commit() (AD_HERE, (ad_commit)())")
    lines.append("\n#endif")
    open(out, "w").write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
