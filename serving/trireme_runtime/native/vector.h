/* Eight floats at a time, in the vector types that GCC and Clang share: they become what the machine has. */
#ifndef TRIREME_VECTOR_H
#define TRIREME_VECTOR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Bytes that memory hands out at a time. */
#define LINE 64
#define INLINE static inline __attribute__((always_inline))
/* Rows of scratch memory are multiples of so many floats, and zero beyond their width. */
#define PAD 16
#define PADDED(width) (((width) + PAD - 1) / PAD * PAD)

typedef float v8 __attribute__((vector_size(32)));
typedef int32_t v8i __attribute__((vector_size(32)));

INLINE v8 load(const float *from) {
    v8 value;
    memcpy(&value, from, sizeof value);
    return value;
}

INLINE void store(float *to, v8 value) { memcpy(to, &value, sizeof value); }

INLINE v8 splat(float value) { return (v8){value, value, value, value, value, value, value, value}; }

/* The larger and the smaller of two; `one` where it is NaN, so that a fault of a model shows in what it answers. */
INLINE v8 larger(v8 one, v8 other) {
    const v8i mask = one < other;
    return (v8)(((v8i)other & mask) | ((v8i)one & ~mask));
}

INLINE v8 smaller(v8 one, v8 other) {
    const v8i mask = one > other;
    return (v8)(((v8i)other & mask) | ((v8i)one & ~mask));
}

/* Whether any of eight comparisons is true. */
INLINE int any(v8i mask) {
    uint64_t parts[4];
    memcpy(parts, &mask, sizeof parts);
    return ((parts[0] | parts[1]) | (parts[2] | parts[3])) != 0;
}

INLINE float sum(v8 value) {
    return ((value[0] + value[4]) + (value[1] + value[5])) + ((value[2] + value[6]) + (value[3] + value[7]));
}

/* exp, to 2 units in the last place between -87 and 88, and the value at the nearer end beyond: the polynomial of Cephes (Moshier,
 * netlib.org/cephes, expf). Its two-part logarithm of 2 must not be added up first. */
INLINE v8 exponential(v8 x) {
#ifdef __clang__
#pragma clang fp reassociate(off)
#endif
    x = larger(smaller(x, splat(88.0f)), splat(-87.0f));
    /* Adding and taking away 1.5 * 2^23 rounds to the nearest integer. */
    const v8 rounder = splat(12582912.0f);
    const v8 shifted = x * splat(1.44269504f) + rounder;
    const v8i power = (v8i)shifted - (v8i)rounder;
    const v8 whole = __builtin_convertvector(power, v8);
    const v8 r = (x - whole * splat(0.693359375f)) - whole * splat(-2.12194440e-4f);
    v8 p = splat(1.9875691500e-4f);
    p = p * r + splat(1.3981999507e-3f);
    p = p * r + splat(8.3334519073e-3f);
    p = p * r + splat(4.1665795894e-2f);
    p = p * r + splat(1.6666665459e-1f);
    p = p * r + splat(5.0000001201e-1f);
    p = p * r * r + r + splat(1.0f);
    return p * (v8)((power + 127) << 23);
}

/* x times the normal distribution function at x (GELU), to 4e-7 times x: erf by Abramowitz and Stegun 7.1.26. */
INLINE v8 gelu(v8 x) {
    const v8 zero = splat(0.0f), half = splat(0.5f);
    const v8 size = larger(x, zero - x) * splat(0.70710678f);
    const v8 t = splat(1.0f) / (splat(1.0f) + splat(0.3275911f) * size);
    v8 p = splat(1.061405429f);
    p = p * t + splat(-1.453152027f);
    p = p * t + splat(1.421413741f);
    p = p * t + splat(-0.284496736f);
    p = p * t + splat(0.254829592f);
    const v8 tail = half * p * t * exponential(zero - size * size); /* beyond |x|, of the distribution */
    const v8i negative = x < zero;
    const v8 share = (v8)(((v8i)tail & negative) | ((v8i)(splat(1.0f) - tail) & ~negative));
    return x * share;
}

/* Inner product of two rows of `width` floats, a multiple of eight. */
INLINE float dot(const float *one, const float *other, int64_t width) {
    v8 total[4] = {splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};
    int64_t at = 0;
    for (; at + 32 <= width; at += 32)
        for (int part = 0; part < 4; part++) total[part] += load(one + at + 8 * part) * load(other + at + 8 * part);
    for (; at < width; at += 8) total[0] += load(one + at) * load(other + at);
    return sum((total[0] + total[1]) + (total[2] + total[3]));
}

#endif
