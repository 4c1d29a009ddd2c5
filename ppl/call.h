/* Calling the user's functions: the types of their prototypes and the values of their arguments. Included by ppl.h.
 *
 * PPL_ARGS(vae *, ad_tensor *) names the parameter types of a model; used inside svi_new, ppl_trace_run, ... it is
 * checked against the functions at compile time. svi_step(s, &v, x) carries each argument's kind and value over plain
 * functions: a wrong count or kind is an error that names it, and there are no varargs. Numbers are converted as C
 * would, but a number with a fraction is refused for an integer parameter; a tensor never stands for another pointer,
 * and NULL stands for any. */
#ifndef PPL_CALL_H
#define PPL_CALL_H

#include "autodiff/ad.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { PPL_MAX_ARGS = 12 };

typedef void (*ppl_function)(void); /* any model or guide, called through the types of a ppl_signature */

/* Kinds of parameters, one letter each: 't' tensor, 'p' any other pointer, 'b' bool, 'f' float, 'd' double; signed
 * integers of 1, 2, 4, 8 bytes 'c' 's' 'i' 'l', unsigned ones 'C' 'S' 'I' 'L'. */
typedef struct ppl_signature {
    int n; /* 0 without types: the function takes nothing, or .args was left out */
    char kind[PPL_MAX_ARGS];
    const char *types; /* as written, for messages */
} ppl_signature;

/* An argument: kind 't', 'p', 'l', 'L' or 'd' (integers and reals at their widest). */
typedef struct ppl_arg {
    char kind;
    union {
        const void *pointer;
        int64_t integer;
        double real;
    } as;
} ppl_arg;

/* Arguments, one after the other; in C: PPL_VALUES(&v, x), which live as long as the block around. */
typedef struct ppl_arguments {
    int n;
    const ppl_arg *arg;
} ppl_arguments;

static inline ppl_arg ppl_arg_tensor(const ad_tensor *x)
{
    ppl_arg a;
    a.kind = 't';
    a.as.pointer = x;
    return a;
}
static inline ppl_arg ppl_arg_pointer(const void *x)
{
    ppl_arg a;
    a.kind = 'p';
    a.as.pointer = x;
    return a;
}
static inline ppl_arg ppl_arg_signed(int64_t x)
{
    ppl_arg a;
    a.kind = 'l';
    a.as.integer = x;
    return a;
}
static inline ppl_arg ppl_arg_unsigned(uint64_t x)
{
    ppl_arg a;
    a.kind = 'L';
    a.as.integer = (int64_t)x;
    return a;
}
static inline ppl_arg ppl_arg_real(double x)
{
    ppl_arg a;
    a.kind = 'd';
    a.as.real = x;
    return a;
}

#ifdef __cplusplus
}
#else

#define PPL_ARG(x)                                                                                                     \
    (PPL_SENDS_(x), _Generic((x), ad_tensor *                                                                          \
                             : ppl_arg_tensor, float                                                                   \
                             : ppl_arg_real, double                                                                    \
                             : ppl_arg_real, long double                                                               \
                             : ppl_arg_real, bool                                                                      \
                             : ppl_arg_unsigned, char                                                                  \
                             : ppl_arg_signed, signed char                                                             \
                             : ppl_arg_signed, short                                                                   \
                             : ppl_arg_signed, int                                                                     \
                             : ppl_arg_signed, long                                                                    \
                             : ppl_arg_signed, long long                                                               \
                             : ppl_arg_signed, unsigned char                                                           \
                             : ppl_arg_unsigned, unsigned short                                                        \
                             : ppl_arg_unsigned, unsigned                                                              \
                             : ppl_arg_unsigned, unsigned long                                                         \
                             : ppl_arg_unsigned, unsigned long long                                                    \
                             : ppl_arg_unsigned, default                                                               \
                             : ppl_arg_pointer)(x))

#define PPL_KIND_OF_INT(T, s, u) (sizeof(T) == 8 ? (s)[3] : sizeof(T) == 4 ? (s)[2] : sizeof(T) == 2 ? (s)[1] : (s)[0])
#define PPL_KIND(T)                                                                                                    \
    _Generic(*(T *)0, ad_tensor *                                                                                      \
             : 't', bool                                                                                               \
             : 'b', float                                                                                              \
             : 'f', double                                                                                             \
             : 'd', char                                                                                               \
             : 'c', signed char                                                                                        \
             : 'c', short                                                                                              \
             : 's', int                                                                                                \
             : 'i', long                                                                                               \
             : sizeof(long) == 8 ? 'l' : 'i', long long                                                                \
             : 'l', unsigned char                                                                                      \
             : 'C', unsigned short                                                                                     \
             : 'S', unsigned                                                                                           \
             : 'I', unsigned long                                                                                      \
             : sizeof(long) == 8 ? 'L' : 'I', unsigned long long                                                       \
             : 'L', default                                                                                            \
             : 'p')
/* GCC's and Clang's classes: 1 to 4 are integers, 5 is a pointer, 8 a real number, 12 and above struct and union. */
#define PPL_SENDS_(x)                                                                                                  \
    ((void)sizeof(struct {                                                                                             \
        char unit;                                                                                                     \
        _Static_assert(__builtin_classify_type(x) <= 5 || __builtin_classify_type(x) == 8,                             \
                       "an argument is a number or a pointer: of a struct, pass the address");                         \
    }))

/* Whether the types are void alone, as in PPL_ARGS(void), or none at all. */
#define PPL_SECOND_(a, b, ...) b
#define PPL_SECOND_OF_(...) PPL_SECOND_(__VA_ARGS__)
#define PPL_NONE_ ~, 1
#define PPL_NONE_void ~, 1
#define PPL_IS_NONE_(a, ...) PPL_SECOND_OF_(PPL_NONE_##a, 0, ~)

/* f(first, n, arguments after the first) */
#define PPL_CALL_(f, ...) AD_CAT_(PPL_CALL_, AD_COMMA_(__VA_ARGS__))(f, __VA_ARGS__)
#define PPL_CALL_0(f, s) f(s, 0, NULL)
#define PPL_CALL_1(f, s, ...) f(s, AD_COUNT_(__VA_ARGS__), ((const ppl_arg[]){ AD_MAP_(PPL_ARG, __VA_ARGS__) }))

#define PPL_VALUES(...) AD_CAT_(PPL_VALUES_, AD_EMPTY_(__VA_ARGS__))(__VA_ARGS__)
#define PPL_VALUES_1(...) ((ppl_arguments){ 0, NULL })
#define PPL_VALUES_0(...)                                                                                              \
    ((ppl_arguments){ AD_COUNT_(__VA_ARGS__), (const ppl_arg[]){ AD_MAP_(PPL_ARG, __VA_ARGS__) } })

/* Binds both for the checks below; a literal NULL takes part in none, and is refused at run time. */
#define PPL_MODEL_AND_GUIDE_(model, guide)                                                                             \
    __auto_type ppl_model_ = (model);                                                                                  \
    __auto_type ppl_guide_ = _Generic((guide), void * : ppl_model_, default : (guide));                                \
    (void)ppl_guide_
#define PPL_GUIDE_OR_NULL_(guide) _Generic((guide), void * : (ppl_function)0, default : (ppl_function)ppl_guide_)
/* Whether a model without .args must take arguments, as far as its type tells: it may also return something else. */
#define PPL_TAKES_SOME_(f)                                                                                             \
    (!__builtin_types_compatible_p(__typeof__(*(f)), void(void)) &&                                                    \
     !__builtin_types_compatible_p(__typeof__(*(f)), int(void)) &&                                                     \
     !__builtin_types_compatible_p(__typeof__(*(f)), ad_tensor *(void)))

/* PPL_ARGS stands where ppl_model_ and ppl_guide_ are the functions (svi_new and its like bind them): it asserts that
 * both take exactly these types, whatever they return. */
#define PPL_ARGS(...) AD_CAT_(PPL_ARGS_, PPL_IS_NONE_(__VA_ARGS__, ~))(#__VA_ARGS__, __VA_ARGS__)
#define PPL_LVALUE_(T) *(T *)0
#define PPL_PASSES_(T)                                                                                                 \
    0 * sizeof(struct {                                                                                                \
        char unit;                                                                                                     \
        _Static_assert(PPL_KIND(T) != 'p' || __builtin_classify_type(*(T *)0) == 5,                                    \
                       "a type of PPL_ARGS is neither a number (float, double, integer) nor a pointer");               \
    }) + PPL_KIND(T)
#define PPL_TAKES_(f, what, call, ...)                                                                                 \
    0 * sizeof(struct {                                                                                                \
        char unit;                                                                                                     \
        _Static_assert(__builtin_types_compatible_p(__typeof__(f), __typeof__(f call)(*)(__VA_ARGS__)),                \
                       "the " what " does not take exactly the types of PPL_ARGS");                                    \
    })
#define PPL_ARGS_0(text, ...)                                                                                          \
    ((ppl_signature){ .n = (int)(PPL_TAKES_(ppl_model_, "model", (AD_MAP_(PPL_LVALUE_, __VA_ARGS__)), __VA_ARGS__) +   \
                                 PPL_TAKES_(ppl_guide_, "guide", (AD_MAP_(PPL_LVALUE_, __VA_ARGS__)), __VA_ARGS__) +   \
                                 AD_COUNT_(__VA_ARGS__)),                                                              \
                      .kind = { AD_MAP_(PPL_PASSES_, __VA_ARGS__) },                                                   \
                      .types = text })
#define PPL_ARGS_1(text, ...)                                                                                          \
    ((ppl_signature){                                                                                                  \
        .n = (int)(PPL_TAKES_(ppl_model_, "model", (), void) + PPL_TAKES_(ppl_guide_, "guide", (), void)),             \
        .types = "" })
#endif
#endif
