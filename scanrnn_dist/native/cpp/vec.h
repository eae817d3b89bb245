// `V`, WIDTH floats in one register, for the instruction set that is compiled for, and the two exponentials of the gates.
//
// All operations round exactly, and FMA is used only where it is written (-ffp-contract=off), so what is computed of one
// number does not depend on WIDTH or on the compiler: AVX2, AVX-512 and NEON give the same bits.
#pragma once

#include <cstdint>

#if defined(__AVX512F__)
#include <immintrin.h>
#define WIDTH 16
#define REGISTERS 32
struct V { __m512 v; };
static inline V load(const float* p) { return {_mm512_loadu_ps(p)}; }
static inline void store(float* p, V a) { _mm512_storeu_ps(p, a.v); }
static inline V all(float x) { return {_mm512_set1_ps(x)}; }
static inline V fma(V a, V b, V c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
static inline V operator+(V a, V b) { return {_mm512_add_ps(a.v, b.v)}; }
static inline V operator-(V a, V b) { return {_mm512_sub_ps(a.v, b.v)}; }
static inline V operator*(V a, V b) { return {_mm512_mul_ps(a.v, b.v)}; }
static inline V operator/(V a, V b) { return {_mm512_div_ps(a.v, b.v)}; }
static inline V least(V a, V b) { return {_mm512_min_ps(a.v, b.v)}; }  // b, if either is NaN
static inline V most(V a, V b) { return {_mm512_max_ps(a.v, b.v)}; }   // b, if either is NaN
static inline V power_of_two(V k) {  // 2^k for a whole number k that is held as 1.5 * 2^23 + k
  return {_mm512_castsi512_ps(
      _mm512_add_epi32(_mm512_slli_epi32(_mm512_castps_si512(k.v), 23), _mm512_set1_epi32(0x3f800000)))};
}
#elif defined(__AVX2__)
#include <immintrin.h>
#define WIDTH 8
#define REGISTERS 16
struct V { __m256 v; };
static inline V load(const float* p) { return {_mm256_loadu_ps(p)}; }
static inline void store(float* p, V a) { _mm256_storeu_ps(p, a.v); }
static inline V all(float x) { return {_mm256_set1_ps(x)}; }
static inline V fma(V a, V b, V c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
static inline V operator+(V a, V b) { return {_mm256_add_ps(a.v, b.v)}; }
static inline V operator-(V a, V b) { return {_mm256_sub_ps(a.v, b.v)}; }
static inline V operator*(V a, V b) { return {_mm256_mul_ps(a.v, b.v)}; }
static inline V operator/(V a, V b) { return {_mm256_div_ps(a.v, b.v)}; }
static inline V least(V a, V b) { return {_mm256_min_ps(a.v, b.v)}; }
static inline V most(V a, V b) { return {_mm256_max_ps(a.v, b.v)}; }
static inline V power_of_two(V k) {
  return {_mm256_castsi256_ps(
      _mm256_add_epi32(_mm256_slli_epi32(_mm256_castps_si256(k.v), 23), _mm256_set1_epi32(0x3f800000)))};
}
#elif defined(__aarch64__)
#include <arm_neon.h>
#define WIDTH 4
#define REGISTERS 32
struct V { float32x4_t v; };
static inline V load(const float* p) { return {vld1q_f32(p)}; }
static inline void store(float* p, V a) { vst1q_f32(p, a.v); }
static inline V all(float x) { return {vdupq_n_f32(x)}; }
static inline V fma(V a, V b, V c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
static inline V operator+(V a, V b) { return {vaddq_f32(a.v, b.v)}; }
static inline V operator-(V a, V b) { return {vsubq_f32(a.v, b.v)}; }
static inline V operator*(V a, V b) { return {vmulq_f32(a.v, b.v)}; }
static inline V operator/(V a, V b) { return {vdivq_f32(a.v, b.v)}; }
static inline V least(V a, V b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }
static inline V most(V a, V b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
static inline V power_of_two(V k) {
  return {vreinterpretq_f32_s32(vaddq_s32(vshlq_n_s32(vreinterpretq_s32_f32(k.v), 23), vdupq_n_s32(0x3f800000)))};
}
#else
#error "no vectors are known for this instruction set"
#endif

// `a`, loaded into a register of its own: compilers else fold its load into every use, which costs load ports.
static inline V held(V a) {
#if defined(__x86_64__)
  asm("" : "+v"(a.v));
#else
  asm("" : "+w"(a.v));
#endif
  return a;
}

// 2^y, y clamped to -60 ... 60, as s + fq s: s is a power of two, 1 + fq in 0.7 ... 1.42. So e^a - 1 keeps its accuracy
// near 0, and no product of two of them overflows. The polynomial is within 1e-8 of 2^f on -0.5 ... 0.5.
struct PowerOfTwo { V fq, s; };
static inline PowerOfTwo exp2_parts(V y) {
  y = most(all(-60.f), least(all(60.f), y));  // keeps NaN
  const V magic = all(12582912.f);            // 1.5 * 2^23: adding it rounds to a whole number
  const V k = y + magic;
  const V f = y - (k - magic);
  const V f2 = f * f;
  V q = fma(f2, fma(f, all(0.00015353361959569156f), all(0.0013398873852565885f)),
            fma(f, all(0.00961843691766262f), all(0.055503323674201965f)));
  q = fma(f2, q, fma(f, all(0.24022647738456726f), all(0.6931471824645996f)));
  return {f * q, power_of_two(k)};
}
static const float LOG2_E = 1.44269504088896340736f;
static inline V exp_minus(V a) {  // e^-a
  const PowerOfTwo e = exp2_parts(a * all(-LOG2_E));
  return fma(e.fq, e.s, e.s);
}
static inline V exp_minus_twice_less_one(V a) {  // e^-2a - 1
  const PowerOfTwo e = exp2_parts(a * all(-2 * LOG2_E));
  return fma(e.fq, e.s, e.s - all(1.f));
}
