/* What a macro can know of its arguments before the call: how many they are, whether a size is a whole number, and how
 * many elements an array holds. Included by ad.h, for C alone; the rooms uphill build their macros on it. */
#ifndef AUTODIFF_ARGUMENT_H
#define AUTODIFF_ARGUMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- counting ---------------------------------------------------------------------------------------------------- */

#define AD_CAT_(a, b) AD_PASTE_(a, b)
#define AD_PASTE_(a, b) a##b
#define AD_33RD_(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P, q,    \
                 ...)                                                                                                  \
    q
/* 1 to 16, or TOO_MANY up to 32 */
#define AD_COUNT_(...)                                                                                                 \
    AD_33RD_(__VA_ARGS__, TOO_MANY, TOO_MANY, TOO_MANY, TOO_MANY, TOO_MANY, TOO_MANY, TOO_MANY, TOO_MANY, TOO_MANY,    \
             TOO_MANY, TOO_MANY, TOO_MANY, TOO_MANY, TOO_MANY, TOO_MANY, TOO_MANY, 16, 15, 14, 13, 12, 11, 10, 9, 8,   \
             7, 6, 5, 4, 3, 2, 1, 0)
/* 1 for more than one argument, else 0 */
#define AD_COMMA_(...)                                                                                                 \
    AD_33RD_(__VA_ARGS__, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, \
             0, 0)

/* 1 when there are no arguments at all, else 0: after Jens Gustedt, "Detect empty macro arguments". */
#define AD_EMPTY_(...)                                                                                                 \
    AD_EMPTY_CASE_(AD_COMMA_(__VA_ARGS__), AD_COMMA_(AD_TO_COMMA_ __VA_ARGS__), AD_COMMA_(__VA_ARGS__()),              \
                   AD_COMMA_(AD_TO_COMMA_ __VA_ARGS__()))
#define AD_TO_COMMA_(...) ,
#define AD_EMPTY_CASE_(a, b, c, d) AD_EMPTY_PASTE_(a, b, c, d)
#define AD_EMPTY_PASTE_(a, b, c, d) AD_COMMA_(AD_EMPTY_##a##b##c##d)
#define AD_EMPTY_0001 ,

/* m(a), m(b), ... for 1 to 16 arguments */
#define AD_MAP_1(m, a) m(a)
#define AD_MAP_2(m, a, ...) m(a), AD_MAP_1(m, __VA_ARGS__)
#define AD_MAP_3(m, a, ...) m(a), AD_MAP_2(m, __VA_ARGS__)
#define AD_MAP_4(m, a, ...) m(a), AD_MAP_3(m, __VA_ARGS__)
#define AD_MAP_5(m, a, ...) m(a), AD_MAP_4(m, __VA_ARGS__)
#define AD_MAP_6(m, a, ...) m(a), AD_MAP_5(m, __VA_ARGS__)
#define AD_MAP_7(m, a, ...) m(a), AD_MAP_6(m, __VA_ARGS__)
#define AD_MAP_8(m, a, ...) m(a), AD_MAP_7(m, __VA_ARGS__)
#define AD_MAP_9(m, a, ...) m(a), AD_MAP_8(m, __VA_ARGS__)
#define AD_MAP_10(m, a, ...) m(a), AD_MAP_9(m, __VA_ARGS__)
#define AD_MAP_11(m, a, ...) m(a), AD_MAP_10(m, __VA_ARGS__)
#define AD_MAP_12(m, a, ...) m(a), AD_MAP_11(m, __VA_ARGS__)
#define AD_MAP_13(m, a, ...) m(a), AD_MAP_12(m, __VA_ARGS__)
#define AD_MAP_14(m, a, ...) m(a), AD_MAP_13(m, __VA_ARGS__)
#define AD_MAP_15(m, a, ...) m(a), AD_MAP_14(m, __VA_ARGS__)
#define AD_MAP_16(m, a, ...) m(a), AD_MAP_15(m, __VA_ARGS__)
#define AD_MAP_TOO_MANY(m, ...)                                                                                        \
    sizeof(struct {                                                                                                    \
        char unit;                                                                                                     \
        _Static_assert(0, "too many: a shape has at most 16 dimensions, a call at most 12 arguments");                 \
    })
#define AD_MAP_(m, ...) AD_CAT_(AD_MAP_, AD_COUNT_(__VA_ARGS__))(m, __VA_ARGS__)

/* ---- whole numbers ----------------------------------------------------------------------------------------------- */

/* x, a size or an axis; a float, double or pointer does not compile: it would be cut off in silence. The compilers'
 * classes 1 to 4 are integers. */
#define AD_WHOLE_(x)                                                                                                   \
    ((x) + 0 * (int)sizeof(struct {                                                                                    \
               char unit;                                                                                              \
               _Static_assert(__builtin_classify_type(x) < 5,                                                          \
                              "a size, count or axis must be an integer: cast it yourself");                           \
           }))

/* ---- options ----------------------------------------------------------------------------------------------------- */

/* Around a call whose options are designated initialisers, AD_STRICT_ ... AD_STRICT_END_: a pointer of another type
 * (.obs = double *) and a number that stands for a pointer or a struct (a bare 3 for AD_SHAPE(3)) do not compile, nor,
 * with AD_STRICT_SIZES_, a size with a fraction. Compilers merely warn of these, or say nothing. */
#define AD_STRICT_                                                                                                     \
    _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic error \"-Wincompatible-pointer-types\"")                    \
        _Pragma("GCC diagnostic error \"-Wint-conversion\"") _Pragma("GCC diagnostic error \"-Wmissing-braces\"")
#ifdef __clang__
#define AD_STRICT_SIZES_                                                                                               \
    AD_STRICT_ _Pragma("clang diagnostic error \"-Wfloat-conversion\"")                                                \
        _Pragma("clang diagnostic error \"-Wliteral-conversion\"")
#else
#define AD_STRICT_SIZES_ AD_STRICT_ _Pragma("GCC diagnostic error \"-Wfloat-conversion\"")
#endif
#define AD_STRICT_END_ _Pragma("GCC diagnostic pop")

/* ---- arrays ------------------------------------------------------------------------------------------------------ */

/* Bytes behind p where that is known, else the most there can be: of a true array, not of a pointer; and a row of an
 * array stands for all that follows it, as in ad_from(m[0], AD_SHAPE(2, 3)). */
#define AD_ARRAY_BYTES_(p)                                                                                             \
    ad_array_bytes(!__builtin_types_compatible_p(__typeof__(p), __typeof__(1 ? (p) : (p))),                            \
                   __builtin_object_size((p), AD_OBJECT_), sizeof(__typeof__(p)), #p)
/* A member of a struct is a whole; to Clang each row is, unless the struct is. */
#ifdef __clang__
#define AD_OBJECT_ 0
#else
#define AD_OBJECT_ 1
#endif
static inline int64_t ad_array_bytes(bool is_array, size_t known, size_t own, const char *text)
{
    if (!is_array)
        return INT64_MAX;
    if (known != (size_t)-1)
        return (int64_t)known;
    bool may_be_row = !__builtin_strchr(text, '{') && (__builtin_strchr(text, '[') || __builtin_strchr(text, '*'));
    return may_be_row ? INT64_MAX : (int64_t)own;
}
#define AD_ROOM_(p) (AD_ARRAY_BYTES_(p) / (int64_t)sizeof(*(p))) /* in elements */
/* Whether p holds n elements; false, with an error that says what wants them. */
#define AD_HOLDS_(p, n, wants) ad_holds(AD_ROOM_(p), (n), (wants))

#endif
