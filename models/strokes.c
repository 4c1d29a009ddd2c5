/* Draws digits: each class is a few pen strokes on the unit square, jittered, mapped to the page, and painted with a
 * round pen; see strokes.h. Only + - * / and sqrt are used, which IEEE 754 rounds alike everywhere: no libm. */
#include "models/strokes.h"

#include <math.h>
#include <string.h>

enum { SIDE = 28, MAX_POINTS = 9, MAX_STROKES = 3, SECTIONS = 6 };

typedef struct point {
    double x, y;
} point;

/* A smooth stroke is a Catmull-Rom curve through its points, another one straight between them. One in two writers
 * leaves an optional stroke out. */
typedef struct stroke {
    int count, smooth, optional;
    point at[MAX_POINTS]; /* x to the right, y downwards */
} stroke;

enum { STRAIGHT, SMOOTH };

static const stroke glyphs[10][MAX_STROKES] = {
    { { 9, SMOOTH, 0, { { .5, 0 }, { .14, .16 }, { 0, .5 }, { .14, .84 }, { .5, 1 }, { .86, .84 }, { 1, .5 },
                        { .86, .16 }, { .5, 0 } } } },
    { { 2, STRAIGHT, 0, { { .5, 0 }, { .5, 1 } } }, { 2, STRAIGHT, 1, { { .28, .2 }, { .5, 0 } } } },
    { { 7, SMOOTH, 0, { { .05, .25 }, { .25, .04 }, { .62, 0 }, { .9, .2 }, { .8, .48 }, { .4, .78 }, { 0, 1 } } },
      { 2, STRAIGHT, 0, { { 0, 1 }, { 1, .98 } } } },
    { { 5, SMOOTH, 0, { { .05, .12 }, { .45, 0 }, { .86, .16 }, { .76, .4 }, { .38, .48 } } },
      { 5, SMOOTH, 0, { { .38, .48 }, { .84, .56 }, { .94, .8 }, { .55, 1 }, { .03, .9 } } } },
    { { 3, STRAIGHT, 0, { { .6, 0 }, { 0, .62 }, { 1, .62 } } }, { 2, STRAIGHT, 0, { { .76, .3 }, { .7, 1 } } } },
    { { 3, STRAIGHT, 0, { { .92, 0 }, { .2, .02 }, { .12, .45 } } },
      { 6, SMOOTH, 0, { { .12, .45 }, { .55, .38 }, { .94, .64 }, { .72, .94 }, { .32, 1 }, { 0, .88 } } } },
    { { 8, SMOOTH, 0, { { .78, 0 }, { .3, .26 }, { .05, .66 }, { .25, .97 }, { .66, .97 }, { .9, .72 }, { .6, .52 },
                        { .1, .68 } } } },
    { { 2, STRAIGHT, 0, { { 0, .04 }, { .95, .02 } } }, { 3, STRAIGHT, 0, { { .95, .02 }, { .6, .5 }, { .38, 1 } } },
      { 2, STRAIGHT, 1, { { .3, .52 }, { .84, .5 } } } },
    { { 9, SMOOTH, 0, { { .5, .47 }, { .14, .24 }, { .5, 0 }, { .86, .24 }, { .5, .47 }, { .1, .75 }, { .5, 1 },
                        { .9, .75 }, { .5, .47 } } } },
    { { 5, SMOOTH, 0, { { .86, .28 }, { .5, 0 }, { .1, .26 }, { .42, .52 }, { .86, .28 } } },
      { 3, SMOOTH, 0, { { .86, .28 }, { .8, .65 }, { .6, 1 } } } },
};

/* How one writer writes: x = a u + b v + c, y = d u + e v + f for a point (u, v) measured from the glyph's middle. */
typedef struct hand {
    double a, b, c, d, e, f;
    double radius; /* of the pen, in pixels */
} hand;

/* splitmix64: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", 2014. */
static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static double between(uint64_t *state, double low, double high)
{
    return low + (high - low) * ((double)(next(state) >> 11) * 0x1p-53);
}

static hand draw_hand(uint64_t *state)
{
    double width = between(state, 10, 14), height = between(state, 17, 20), slant = between(state, -.1, .3);
    double half = between(state, -.1, .1); /* tangent of half the angle, as sines are not the same everywhere */
    double cosine = (1 - half * half) / (1 + half * half), sine = 2 * half / (1 + half * half);
    hand h = { .radius = between(state, .8, 1.7) };
    h.a = cosine * width;
    h.b = -(cosine * slant + sine) * height;
    h.d = sine * width;
    h.e = (cosine - sine * slant) * height;
    h.c = between(state, 12.5, 14.5);
    h.f = between(state, 12.5, 14.5);
    return h;
}

/* Darkens the pixels within the pen's reach of the line p q, with soft edges a pixel wide. */
static void paint_line(uint8_t *image, point p, point q, double radius)
{
    double reach = radius + .5, dx = q.x - p.x, dy = q.y - p.y, length2 = dx * dx + dy * dy;
    double inverse = length2 > 0 ? 1 / length2 : 0;
    double left = (p.x < q.x ? p.x : q.x) - reach, right = (p.x > q.x ? p.x : q.x) + reach;
    double top = (p.y < q.y ? p.y : q.y) - reach, bottom = (p.y > q.y ? p.y : q.y) + reach;
    for (int y = top > 0 ? (int)top : 0; y < SIDE && y <= bottom; y++)
        for (int x = left > 0 ? (int)left : 0; x < SIDE && x <= right; x++) {
            double px = x - p.x, py = y - p.y, along = (px * dx + py * dy) * inverse;
            along = along < 0 ? 0 : along > 1 ? 1 : along;
            double ex = px - along * dx, ey = py - along * dy;
            double distance2 = ex * ex + ey * ey;
            if (distance2 >= reach * reach)
                continue;
            double ink = reach - sqrt(distance2);
            uint8_t value = ink >= 1 ? 255 : (uint8_t)(255 * ink + .5);
            if (value > image[y * SIDE + x])
                image[y * SIDE + x] = value;
        }
}

/* The point at t in [0, 1] between b and c of the Catmull-Rom curve a b c d. */
static point curve(point a, point b, point c, point d, double t)
{
    double t2 = t * t, t3 = t2 * t;
    double wa = -t3 + 2 * t2 - t, wb = 3 * t3 - 5 * t2 + 2, wc = -3 * t3 + 4 * t2 + t, wd = t3 - t2;
    return (point){ (wa * a.x + wb * b.x + wc * c.x + wd * d.x) / 2, (wa * a.y + wb * b.y + wc * c.y + wd * d.y) / 2 };
}

static void paint_stroke(uint8_t *image, const stroke *s, const point *at, double radius)
{
    for (int i = 0; i + 1 < s->count; i++) {
        if (!s->smooth) {
            paint_line(image, at[i], at[i + 1], radius);
            continue;
        }
        point before = at[i > 0 ? i - 1 : i], after = at[i + 2 < s->count ? i + 2 : i + 1], from = at[i];
        for (int k = 1; k <= SECTIONS; k++) {
            point to = curve(before, at[i], at[i + 1], after, (double)k / SECTIONS);
            paint_line(image, from, to, radius);
            from = to;
        }
    }
}

int models__draw_digit(uint8_t *image, int stream, int64_t index)
{
    uint64_t state = (uint64_t)stream << 40 ^ (uint64_t)index;
    state = next(&state); /* neighbours must not walk the same sequence one step apart */
    int class = (int)(next(&state) % 10);
    hand h = draw_hand(&state);
    memset(image, 0, SIDE * SIDE);
    for (int k = 0; k < MAX_STROKES; k++) {
        const stroke *s = &glyphs[class][k];
        point at[MAX_POINTS];
        int skip = (int)(next(&state) >> 63) & s->optional;
        for (int i = 0; i < s->count; i++) {
            double u = s->at[i].x - .5 + between(&state, -.05, .05), v = s->at[i].y - .5 + between(&state, -.04, .04);
            at[i] = (point){ h.a * u + h.b * v + h.c, h.d * u + h.e * v + h.f };
        }
        if (!skip)
            paint_stroke(image, s, at, h.radius);
    }
    return class;
}
