#!/usr/bin/env python3
"""Writes densities.inc: log densities far out and at borders, with first and second derivatives by every parameter and
the value, from formulas of their own with 900 digits. The numbers of a row are those that its precision can hold.
Usage: densities.py > densities.inc (needs mpmath)."""
import struct
import sys

from mpmath import mp, mpf, exp, log, log1p, pi, sqrt, cosh

mp.dps = 900


def normal(x, loc, scale):
    return -((x - loc) / scale) ** 2 / 2 - log(scale) - log(2 * pi) / 2


def log_normal(x, loc, scale):
    return normal(log(x), loc, scale) - log(x)


def half_normal(x, scale):
    return log(2) + normal(x, 0, scale)


def uniform(x, low, high):
    return -log(high - low)


def exponential(x, rate):
    return log(rate) - rate * x


def laplace(x, loc, scale):
    return -abs(x - loc) / scale - log(2 * scale)


def cauchy(x, loc, scale):
    return -log(pi * scale) - log1p(((x - loc) / scale) ** 2)


def half_cauchy(x, scale):
    return log(2) + cauchy(x, 0, scale)


def gumbel(x, loc, scale):
    z = (x - loc) / scale
    return -z - exp(-z) - log(scale)


def softplus(z):
    return z + log1p(exp(-z)) if z > 0 else log1p(exp(z))


def logistic(x, loc, scale):
    z = (x - loc) / scale
    return -softplus(z) - softplus(-z) - log(scale)


def bernoulli(x, p):
    return x * log(p) + (1 - x) * log(1 - p)


def bernoulli_logits(x, logit):
    return -x * softplus(-logit) - (1 - x) * softplus(logit)


def geometric(x, p):
    return x * log(1 - p) + log(p)


def categorical(x, *weights):
    return log(weights[int(x)] / sum(weights))


def categorical_logits(x, *logits):
    return categorical(x, *[exp(v - max(logits)) for v in logits])


# Parameters (a tuple is a vector) and values; precisions that cannot hold a row leave it out.
PLACES = [(0.0, 1.0), (3.0, 1e-15), (-2e10, 1e12), (0.0, 1e-30), (1e-20, 1e30), (0.0, 1e-200), (1e100, 1e150)]
FAR = [0.0, 0.5, -7.0, 90.0, -1e8, 1e19, -1e25, 3e38, -1e100, 1e155, -1e307]
SIZES = [(1.0,), (1e-15,), (1e12,), (1e-30,), (1e30,), (1e-200,)]
OUT = [1e-37, 1e-6, 0.5, 300.0, 1e19, 3e38, 1e-300, 1e155, 1e300]
CASES = [
    (normal, PLACES, FAR),
    (log_normal, [(0.0, 1.0), (3.0, 1e-5), (-50.0, 1e6)], OUT),
    (half_normal, SIZES, OUT),
    (uniform, [(0.0, 1.0), (-3e38, 3e38), (1.0, 1.0000002), (-1e-30, 1e-30), (-1.7e308, 1.7e308)], [0.0, 1.0]),
    (exponential, SIZES, [0.0] + OUT),
    (laplace, PLACES, FAR),
    (cauchy, PLACES, FAR),
    (half_cauchy, SIZES, OUT),
    (gumbel, PLACES, FAR),
    (logistic, PLACES, FAR),
    (bernoulli, [(1e-6,), (0.5,), (0.99999,)], [0.0, 1.0, 0.3]),
    (bernoulli_logits, [(v,) for v in (0.0, 5.0, 14.2, -17.0, 40.0, -200.0, 700.0, 1e6, -1e30)],
     [0.0, 1.0, 0.3]),
    (geometric, [(1e-10,), (1e-30,), (0.5,), (0.9999,), (1e-200,)], [0.0, 1.0, 7.0, 1e6, 1e10]),
    (categorical, [((1e-5, 1.0, 2.0),), ((1e30, 1e31, 3e30),), ((1e-30, 1e-31, 3e-31),)], [0.0, 1.0, 2.0]),
    (categorical_logits, [((0.0, -80.0, 3.0),), ((1e6, 0.0, -1e6),), ((1e30, 0.0, -1e30),), ((-1e4, -1e4, -1e4),)],
     [0.0, 1.0, 2.0]),
]
KINKS = {(laplace, 0), (laplace, 2)}


def held(v, bits):
    """v as a number of the precision, None where it is none."""
    if bits == 64:
        return v
    if v and not 2e-38 < abs(v) < 3.4e38:
        return None
    return struct.unpack("f", struct.pack("f", v))[0]


def derivatives(f, at):
    """f, gradient and Hessian at a point, by differences of 40 digits."""
    least = min([abs(v) for v in at if v] or [mpf(1)])
    h = [(abs(v) or least) * mpf(10) ** -40 for v in at]
    n, y = len(at), f(at)

    def moved(*steps):
        x = list(at)
        for i, s in steps:
            x[i] += s * h[i]
        return f(x)
    g = [(moved((i, 1)) - moved((i, -1))) / (2 * h[i]) for i in range(n)]
    hess = [[None] * n for _ in range(n)]
    for i in range(n):
        for j in range(n):
            if i == j:
                hess[i][i] = (moved((i, 1)) - 2 * y + moved((i, -1))) / h[i] ** 2
            else:
                hess[i][j] = (moved((i, 1), (j, 1)) - moved((i, 1), (j, -1)) - moved((i, -1), (j, 1))
                              + moved((i, -1), (j, -1))) / (4 * h[i] * h[j])
    return y, g, hess


def c(x, bits, digits=17):
    digits = digits if bits == 64 or digits < 9 else 9
    if x is None:
        return "NAN"
    limit = 3.4028234e38 if bits == 32 else sys.float_info.max
    if abs(x) > limit:
        return "INFINITY" if x > 0 else "-INFINITY"
    return "0" if abs(x) < mpf(10) ** -320 else mp.nstr(x, digits)


def row(f, p, x, bits):
    flat, sizes = [], []
    for v in p:
        flat += list(v) if isinstance(v, tuple) else [v]
        sizes.append(len(v) if isinstance(v, tuple) else 0)
    numbers = [held(v, bits) for v in flat + [x]]
    if None in numbers:
        return
    at = [mpf(v) for v in numbers]
    if f is uniform and not at[0] <= at[2] <= at[1]:
        return
    if f in (laplace,) and at[0] == at[-1]:
        y, g, hess = f(at[-1], *at[:-1]), [None] * len(at), [[None] * len(at)] * len(at)
    else:
        y, g, hess = derivatives(lambda v: f(v[-1], *v[:-1]), at)
    n = len(at)
    # what rounding the inputs alone does to it
    bound = max([abs(y), 1] + [sum(abs(a * b) for a, b in zip(at, g) if b is not None)])
    unit = 1 / at[1] if len(p) == 2 and f is not uniform else 0
    slopes = [None if g[i] is None else max(unit, abs(g[i]), sum(abs(at[j] * hess[i][j]) for j in range(n)))
              for i in range(n)]
    bends = [None if g[i] is None else max(abs(hess[i][i]), unit * slopes[i], slopes[i] / abs(at[i]) if at[i] else 0)
             for i in range(n)]
    # elements at the border of the support by the value have one-sided derivatives, which are not compared
    skip = f in (categorical, categorical_logits, geometric, bernoulli, uniform, exponential) and x == 0 or f in (
        categorical, categorical_logits, geometric, uniform)
    if skip:
        g[-1] = slopes[-1] = None
    rows = ", ".join("{ " + ", ".join(repr(float(at[sum(max(k, 1) for k in sizes[:i]) + j])) for j in range(max(s, 1)))
                     + " }" for i, s in enumerate(sizes))
    second = [None if g[i] is None else hess[i][i] for i in range(n)]
    print(f'FAR("{f.__name__}", {bits}, {len(p)}, {{ {", ".join(map(str, sizes))} }}, {{ {rows} }}, '
          f'{float(at[-1])!r}, {c(y, bits)}, {c(bound, bits, 3)},\n    {{ {", ".join(c(v, bits) for v in g)} }}, '
          f'{{ {", ".join(c(v, bits, 3) for v in slopes)} }},\n    {{ {", ".join(c(v, bits) for v in second)} }}, '
          f'{{ {", ".join(c(v, bits, 3) for v in bends)} }})')


def main():
    print("/* Generated by densities.py: FAR(name, bits, parameters, their sizes (0: a scalar), the parameters,\n"
          " * value, log density, its conditioning, derivatives by the elements and the value, their conditioning,\n"
          " * second derivatives, their conditioning); NAN: not compared. */")
    for bits in 32, 64:
        for f, parameters, values in CASES:
            for p in parameters:
                for x in values:
                    row(f, p, x, bits)


if __name__ == "__main__":
    main()
