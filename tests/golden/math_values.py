"""Writes tests/golden/math.inc: arguments and reference values for tests/test_math.c.

    python3 tests/golden/math_values.py > tests/golden/math.inc

Needs mpmath.  Values are computed with 50 digits from the exact float or double argument and printed with 25.
"""
import random
import struct

from mpmath import (mp, mpf, nstr, exp, expm1, log, log1p, sin, cos, tanh, erf, loggamma, psi, sqrt, power)

mp.dps = 50
random.seed(20)


def sigmoid(x):
    return 1 / (1 + exp(-x))


def softplus(x):
    return log1p(exp(x)) if x < 50 else x + log1p(exp(-x))


def spread(low, high, n, negative=False):
    """n magnitudes between low and high, evenly spread in their logarithms."""
    out = [low * (high / low) ** random.random() for _ in range(n)]
    return [-x for x in out] + out if negative else out


def uniform(low, high, n):
    return [random.uniform(low, high) for _ in range(n)]


GAMMA = spread(1e-6, 1e5, 12) + uniform(0.5, 3.2, 24) + [1e-30, 0.5, 1.5, 1.46163, 2.4999, 2.5, 3.0, 7.0, 171.5, 1e30]
BELOW = uniform(-20, 0, 12) + [-1e-6, -0.5, -1.4999, -2.000001, -37.3]
CIRCLE = uniform(-7, 7, 16) + spread(1e-12, 1e5, 16, True) + [
    1e-40, 0.7853981, 1.5707963, 3.1415926, 22.0, 355.0, 710.0, 99999.5]
ALL = lambda near, low, high: uniform(-near, near, 20) + spread(low, high, 10, True)

# name, function, arguments for both precisions, for float alone, for double alone
ROWS = [
    ("sqrt", sqrt, spread(1e-30, 1e30, 10), [1e-44], [5e-324]),
    ("rsqrt", lambda x: 1 / sqrt(x), spread(1e-30, 1e30, 10), [1e-44], [1e-310]),
    ("exp", exp, ALL(20, 1e-12, 80), [-87.3, -88, -95, -103.2, 88.7, 88.72283], [-708.5, -720, -745, 709.7, 1e-300]),
    ("expm1", expm1, ALL(3, 1e-12, 80) + [1e-40, -17.3, -50.0, 0.3466, -0.3466], [88.7], [-36.7, 709.7, -1e-300]),
    ("log", log, uniform(0.5, 2, 20) + spread(1e-37, 1e38, 12) + [1e-40, 0.999999, 1.000001, 0.7071067, 1.4142135],
     [1e-45, 3.4e38], [1e-320, 1e300]),
    ("log1p", log1p, uniform(-0.999, 3, 24) + spread(1e-12, 1e38, 12) +
     [-0.9999999, 1e-40, -1e-40, -1e-9, -0.2928, 0.4142],
     [3.4e38], [1e300]),
    ("sin", sin, CIRCLE, [], [3.7e7, 99999999.0]),
    ("cos", cos, CIRCLE, [], [3.7e7, 99999999.0]),
    ("tanh", tanh, ALL(2, 1e-12, 15) + [0.5499, 0.55, 0.5501, 1e-40, 1000.0], [], [18.9]),
    ("sigmoid", sigmoid, ALL(6, 1e-9, 60), [-88, -100], [-709, -740]),
    ("softplus", softplus, ALL(6, 1e-9, 60) + [19.9, 20.0, 20.1, 1e6], [-88, -100, -103.5], [-709, -740]),
    ("log_sigmoid", lambda x: -softplus(-x), ALL(6, 1e-9, 60), [100.0], [740]),
    ("logit_clamped", lambda p: log(p) - log1p(-p), uniform(0.01, 0.99, 10) + [0.25, 1e-6, 0.9999], [], [1e-12]),
    ("erf", erf, ALL(4, 1e-12, 3.9) + [0.9999, 1.0, 1.0001, 1e-40, 50.0], [3.92], [5.9]),
    ("lgamma", lambda x: loggamma(x).real if x > 0 else log(abs(mp.gamma(x))), GAMMA + BELOW, [], [1e-300]),
    ("digamma", lambda x: psi(0, x), GAMMA + BELOW, [], [1e-300]),
    ("trigamma", lambda x: psi(1, x), [x for x in GAMMA if x > 1e-18] + BELOW, [], [1e-150]),
    ("tetragamma", lambda x: psi(2, x), [x for x in GAMMA if 1e-10 < x < 1e15] + BELOW, [], []),
]

POW = ([(a, b) for a, b in zip(spread(1e-4, 1e4, 20), uniform(-9, 9, 20))] +
       [(-a, b) for a, b in zip(spread(1e-2, 1e2, 6), [-3.0, -2.0, -1.0, 1.0, 2.0, 5.0])] +
       [(1.0000001, 1e7), (0.9999999, -3e7), (2.0, -140.0), (3.0, 0.5), (1e-40, 0.5), (10.0, 38.0), (1e10, 3.5)])
POW_DOUBLE = [(1.0000000001, 7e12), (2.0, -1070.0), (10.0, 308.0), (1e-310, 0.75), (0.3, 600.0)]


def rounded(x, bits):
    return struct.unpack("f", struct.pack("f", x))[0] if bits == 32 else float(x)


def cases(name, bits, rows):
    print(f"static const math_case {name}_f{bits}[] = {{")
    for x, y, value in rows:
        print(f"    {{{x.hex()}, {y.hex()}, {nstr(value, 25, min_fixed=-1, max_fixed=1)}L}},")
    print("};")


if __name__ == "__main__":
    print("/* References for test_math.c: x, y, f(x) or f(x, y).  "
          "Written by tests/golden/math_values.py; change that, not this. */")
    for bits in (32, 64):
        for name, f, both, single, double in ROWS:
            arguments = [rounded(x, bits) for x in both + (single if bits == 32 else double)]
            cases(name, bits, [(x, 0.0, f(mpf(x))) for x in arguments if x])
        pairs = [(rounded(a, bits), rounded(b, bits)) for a, b in POW + (POW_DOUBLE if bits == 64 else [])]
        cases("pow", bits, [(a, b, power(mpf(a), mpf(b))) for a, b in pairs])
    print("#define MATH_GOLDEN(ROW) " + " ".join(f"ROW({row[0]})" for row in ROWS) + " ROW(pow)")
