"""Writes autodiff/real_tables.h: the polynomials behind autodiff/real.h.

    python3 tests/golden/real_tables.py > autodiff/real_tables.h

Needs mpmath.  Each row fits g on [a, b] by least squares at Chebyshev nodes, in 90
digits, and then rounds the coefficients: within a factor of two or so of minimax.
The weight is |what multiplies g| / |the function|, so the error is relative.
"""
from mpmath import (mp, mpf, cos, pi, exp, log, log1p, tanh, sqrt, sin, erf, erfc, loggamma,
                    digamma, psi, matrix, lu_solve)

mp.dps = 90


def coefficients(g, weight, a, b, n):
    """Weighted least squares on 4 (n + 1) Chebyshev nodes of [a, b] -> monomial coefficients, lowest first."""
    m = 4 * (n + 1)
    x = [(a + b) / 2 + (b - a) / 2 * cos(pi * (2 * i + 1) / (2 * m)) for i in range(m)]
    w = [weight(v) for v in x]
    return list(lu_solve(matrix([[u * v**j for j in range(n + 1)] for u, v in zip(w, x)]),
                         matrix([u * g(v) for u, v in zip(w, x)])))


def worst(g, weight, a, b, c):
    """Largest weighted error of the polynomial c on [a, b]."""
    grid = [a + (b - a) * mpf(i) / 400 for i in range(1, 400)]
    return max(abs((sum(k * v**j for j, k in enumerate(c)) - g(v)) * weight(v)) for v in grid)


def by_root(f):
    """g(z) from a function of x = sqrt(z)."""
    return lambda z: f(sqrt(z))


def centred(f):
    """g(u) from a function of t = u + 3/4: monomials in t itself would cancel."""
    return lambda u: f(u + mpf(3) / 4)


HALF_LN2 = log(2) / 2 * mpf('1.001')
S = (sqrt(2) - 1) / (sqrt(2) + 1)
QUARTER = pi / 4 * mpf('1.001')
T0 = mp.findroot(lambda x: digamma(1 + x), mpf('0.46'))
atanh_tail = lambda z: sum(mpf(2) / (2 * i + 5) * z**i for i in range(60))
stirling = lambda z: (loggamma(1 / sqrt(z)) - ((1 / sqrt(z) - mpf(1) / 2) * log(1 / sqrt(z)) - 1 / sqrt(z)
                                              + log(2 * pi) / 2)) / sqrt(z)

# name, comment, g, weight, a, b, degree in float, degree in double
ROWS = [
    ("EXP", "e^r = 1 + r + r^2 P(r), |r| <= ln 2 / 2",
     lambda r: (exp(r) - 1 - r) / r**2 if abs(r) > 1e-20 else mpf(1) / 2, abs, -HALF_LN2, HALF_LN2, 5, 10),
    ("LOG", "log((1 + s) / (1 - s)) = 2 s + 2/3 s^3 + s^5 P(s^2), |s| <= (sqrt 2 - 1) / (sqrt 2 + 1)",
     atanh_tail, lambda z: z * z / 2, mpf(0), S**2, 2, 6),
    ("LOG1P", "log(1 + e) = e + e^2 P(e - 1/2), 0 <= e <= 1",
     lambda u: (log1p(u + mpf(1) / 2) / (u + mpf(1) / 2) - 1) / (u + mpf(1) / 2),
     lambda u: (u + mpf(1) / 2) / log(2), -mpf(1) / 2, mpf(1) / 2, 9, 20),
    ("TANH", "tanh x = x + x^3 P(x^2), |x| <= 0.55",
     by_root(lambda x: (tanh(x) - x) / x**3), lambda z: z, mpf(0), mpf('0.3025'), 3, 9),
    ("SIN", "sin r = r + r^3 P(r^2), |r| <= pi / 4",
     by_root(lambda r: (sin(r) - r) / r**3), lambda z: z, mpf(0), QUARTER**2, 2, 5),
    ("COS", "cos r = 1 - r^2 / 2 + r^4 P(r^2), |r| <= pi / 4",
     by_root(lambda r: (cos(r) - 1 + r * r / 2) / r**4), lambda z: z * z * sqrt(2), mpf(0), QUARTER**2, 2, 5),
    ("SINPI", "sin(pi r) / pi = r + r^3 P(r^2), |r| <= 1/2",
     by_root(lambda r: (sin(pi * r) / pi - r) / r**3), lambda z: z, mpf(0), mpf(1) / 4, 4, 7),
    ("ERF", "erf x = x + x P(x^2), |x| <= 1",
     by_root(lambda x: erf(x) / x - 1), lambda z: 1 / mpf('0.84'), mpf(0), mpf(1), 6, 12),
    ("ERFC", "erf x = 1 - exp(-P(x)), 1 <= x <= 3.93 (float), 5.93 (double)",
     lambda x: -log(erfc(x)), erfc, (mpf(1), mpf(1)), (mpf('3.93'), mpf('5.93')), 7, 19),
    ("LGAMMA", "lgamma(1 + t) = t (t - 1) P(t - 3/4), 0 <= t <= 3/2",
     centred(lambda t: loggamma(1 + t) / (t * (t - 1))), lambda u: 2, -mpf(3) / 4, mpf(3) / 4, 12, 25),
    ("STIRLING", "lgamma x = (x - 1/2) log x - x + log(2 pi) / 2 + P(1 / x^2) / x, x >= 5/2",
     stirling, lambda z: 3 * sqrt(z), mpf(0), mpf(4) / 25, 4, 13),
    ("DIGAMMA", "digamma(1 + t) = (t - t0) P(t - 3/4), 0 <= t <= 3/2",
     centred(lambda t: digamma(1 + t) / (t - T0)), lambda u: 1, -mpf(3) / 4, mpf(3) / 4, 13, 27),
    ("DIGAMMA_TAIL", "digamma x = log x - 1 / (2 x) - P(1 / x^2) / x^2, x >= 5/2",
     by_root(lambda w: (-digamma(1 / w) - log(w) - w / 2) / w**2), lambda z: z, mpf(0), mpf(4) / 25, 3, 14),
    ("TRIGAMMA", "trigamma(1 + t) = P(t - 3/4), 0 <= t <= 3/2",
     centred(lambda t: psi(1, 1 + t)), lambda u: mpf(1), -mpf(3) / 4, mpf(3) / 4, 15, 29),
    ("TRIGAMMA_TAIL", "trigamma x = 1 / x + 1 / (2 x^2) + P(1 / x^2) / x^3, x >= 5/2",
     by_root(lambda w: (psi(1, 1 / w) - w - w * w / 2) / w**3), lambda z: z, mpf(0), mpf(4) / 25, 4, 15),
    ("TETRAGAMMA", "tetragamma(1 + t) = P(t - 3/4), 0 <= t <= 3/2",
     centred(lambda t: psi(2, 1 + t)), lambda u: 1 / (1 + u) if u > 0 else mpf(1), -mpf(3) / 4, mpf(3) / 4, 16, 30),
    ("TETRAGAMMA_TAIL", "tetragamma x = -1 / x^2 - 1 / x^3 - P(1 / x^2) / x^4, x >= 5/2",
     by_root(lambda w: (-psi(2, 1 / w) - w * w - w**3) / w**4), lambda z: z, mpf(0), mpf(4) / 25, 5, 16),
]


def pick(v, i):
    return v[i] if isinstance(v, tuple) else v


def emit(bits):
    which, digits = (0, 9) if bits == 32 else (1, 17)
    for name, comment, g, weight, a, b, *degree in ROWS:
        a, b = pick(a, which), pick(b, which)
        c = coefficients(g, weight, a, b, degree[which])
        text = [mp.nstr(k, digits, min_fixed=-1, max_fixed=1, strip_zeros=False) for k in c]
        error = worst(g, weight, a, b, c)
        print(f"/* {comment}: 2^{float(log(error, 2)):.1f} */")
        words = [("FIRST" if i == 0 else "NEXT") + f"({t})" for i, t in enumerate(reversed(text))]
        line = f"#define REAL_{name}_POLY(FIRST, NEXT)"
        for w in words:
            if len(line) + len(w) + 3 > 118:
                print(line + " \\")
                line = "   "
            line += " " + w
        print(line)


if __name__ == "__main__":
    print("""/* Polynomials of autodiff/real.h, in Horner order, and the error of each fit relative to its function.
 * Written by tests/golden/real_tables.py; change that, not this.  Only real.h includes it.
 */
#ifndef AD_REAL_TABLES_H
#define AD_REAL_TABLES_H

#if AD_REAL_BITS == 32
""")
    emit(32)
    print("\n#else\n")
    emit(64)
    print("\n#endif\n#endif")
