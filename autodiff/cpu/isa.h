/* Names of the CPU kernels: one source, compiled once per precision (-DAD_REAL_BITS=32 or 64) and instruction set
 * (-DCPU_ISA=base, avx2 or avx512).  CPU_NAME(fill_normal) is fill_normal_f32_avx512 in such an object.
 */
#ifndef AD_CPU_ISA_H
#define AD_CPU_ISA_H

/* The instruction sets this architecture has builds for, plainest first; meson.build holds the flags of each. */
#if defined __x86_64__
#define CPU_FOR_EACH_ISA(X) X(base) X(avx2) X(avx512)
#else
#define CPU_FOR_EACH_ISA(X) X(base)
#endif

#define CPU__PASTE(name, bits, isa) name##_f##bits##_##isa
#define CPU__EXPAND(name, bits, isa) CPU__PASTE(name, bits, isa)
#define CPU_NAME(name) CPU__EXPAND(name, AD_REAL_BITS, CPU_ISA)

#endif
