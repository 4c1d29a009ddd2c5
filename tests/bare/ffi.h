/* The part of libffi that ppl/call.c uses, for machines without it; see tests/bare/build. Where integers and reals
 * are passed in registers of their own (x86-64's System V, aarch64), a call with all of the one kind and then all of
 * the other fills the registers that any order of them would. More arguments than registers are refused. */
#ifndef TESTS_BARE_FFI_H
#define TESTS_BARE_FFI_H

#include <stdint.h>
#include <string.h>

#if !(defined __x86_64__ && !defined _WIN32) && !defined __aarch64__
#error "this machine's calls are not known here: install libffi"
#endif

/* Bytes of an argument; integers of a negative number are signed, reals above 100. */
typedef int ffi_type;
static ffi_type ffi_type_void, ffi_type_pointer = 8, ffi_type_uint8 = 1, ffi_type_uint16 = 2, ffi_type_uint32 = 4,
                               ffi_type_uint64 = 8, ffi_type_sint8 = -1, ffi_type_sint16 = -2, ffi_type_sint32 = -4,
                               ffi_type_sint64 = -8, ffi_type_float = 104, ffi_type_double = 108;

typedef struct ffi_cif {
    unsigned n;
    ffi_type **type;
} ffi_cif;
typedef enum ffi_status { FFI_OK, FFI_BAD_TYPEDEF } ffi_status;
enum { FFI_DEFAULT_ABI, FFI_INTEGERS = 6, FFI_REALS = 8 };

static inline ffi_status ffi_prep_cif(ffi_cif *cif, int abi, unsigned n, ffi_type *result, ffi_type **type)
{
    int reals = 0;
    (void)abi, (void)result;
    for (unsigned i = 0; i < n; i++)
        reals += *type[i] > 100;
    *cif = (ffi_cif){ n, type };
    return reals <= FFI_REALS && (int)n - reals <= FFI_INTEGERS ? FFI_OK : FFI_BAD_TYPEDEF;
}

/* Little-endian; narrow integers are extended to whole registers. */
static inline void ffi_call(ffi_cif *cif, void (*f)(void), void *result, void **value)
{
    int64_t whole[FFI_INTEGERS] = { 0 };
    double real[FFI_REALS] = { 0 };
    int n = 0, n_reals = 0;
    (void)result;
    for (unsigned i = 0; i < cif->n; i++) {
        int type = *cif->type[i], bytes = type > 100 ? type - 100 : type < 0 ? -type : type;
        if (type > 100) {
            memcpy(&real[n_reals++], value[i], (size_t)bytes);
            continue;
        }
        uint64_t bits = 0;
        memcpy(&bits, value[i], (size_t)bytes);
        int above = 64 - 8 * bytes;
        whole[n++] = type < 0 ? (int64_t)(bits << above) >> above : (int64_t)bits;
    }
    typedef void call(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, double, double, double, double, double,
                      double, double, double);
    ((call *)f)(whole[0], whole[1], whole[2], whole[3], whole[4], whole[5], real[0], real[1], real[2], real[3], real[4],
                real[5], real[6], real[7]);
}

#endif
