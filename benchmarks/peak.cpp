// The most float32 work that one core can do: fused multiply-adds in registers, without a load, on as many sums at a time
// as hide the time that one takes. bench_kernel.py compiles it for the machine at hand and runs it on every core.

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#define REGISTER "v"
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#define REGISTER "x"
#else
constexpr int kBytes = 16;
#define REGISTER "w"  // of ARM
#endif

typedef float Vector __attribute__((vector_size(kBytes)));
constexpr int kSums = 12;

// Does `times` steps of all sums, and returns their floating-point operations.
extern "C" double peak(long times) {
  Vector sums[kSums] = {}, factor = Vector{} + 0.999f, addend = Vector{} + 1e-3f;
  for (long step = 0; step < times; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) {
      sums[i] = sums[i] * factor + addend;
      __asm__ volatile("" : "+" REGISTER(sums[i]));  // what is computed counts as used, and stays in its register
    }
  }
  return 2.0 * kSums * (kBytes / sizeof(float)) * times;
}
