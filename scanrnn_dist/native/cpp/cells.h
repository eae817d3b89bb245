// Steps of cells, for the instruction set that the including file is compiled for; it sets NAMESPACE.
//
// All lanes that have a row take a step together, layer by layer, WIDTH hidden units (a panel) at a time: the products
// of a panel for some lanes at once, in registers (`Tile`), then the gates. A number is summed up in one order, bias,
// inputs, hidden state, whatever lanes stand beside it: so a row's bits depend on that row alone. Of a large hidden state
// parts are summed up, and then these: in one sum of 512 products each rounding is of the whole, and 4 of 369 rows of real
// data were farther from float64 than 1.5 times the specification's own float32.
#pragma once

#include <cstring>

#include "task.h"
#include "vec.h"

namespace NAMESPACE {

const int GATES[] = {3, 4, 1};  // by `Cell`
const int64_t SUMMED = 128;     // products of the hidden state that are summed up before they are added to the sum so far
const int BIASES = 4;           // vectors of them in a panel: of a GRU r, z, n of the hidden state, n of the input

static int64_t panels_of(const Layer& layer) { return (layer.hidden + WIDTH - 1) / WIDTH; }
static int64_t panel_floats(const Layer& layer) {
  return (BIASES + GATES[layer.cell] * (layer.in_features + layer.hidden)) * WIDTH;
}

struct Lane {  // what a step of a layer reads and writes; `c` is an LSTM's
  const float *x, *h;
  float *next, *c;
};

// products[m][g] += a[m][k] * w[k][g] over k; `w` is moved behind what was read.
template <int LANES, int G>
static inline __attribute__((always_inline)) void multiply(const float*& w, const float* const* a, int64_t size,
                                                           V (&products)[LANES][G]) {
  // The last gate's weights are not held: with all registers taken, an accumulator would be spilled.
  constexpr int HELD = G > 1 ? G - 1 : 1;
  const float *of_gates = w, *values[LANES];
#pragma GCC unroll 16
  for (int m = 0; m < LANES; m++) values[m] = a[m];
  for (int64_t k = 0; k < size; k++, of_gates += G * WIDTH) {
    V weights[HELD];
#pragma GCC unroll 4
    for (int g = 0; g < HELD; g++) weights[g] = held(load(of_gates + g * WIDTH));
#pragma GCC unroll 16
    for (int m = 0; m < LANES; m++) {
      const V value = all(values[m][k]);
#pragma GCC unroll 4
      for (int g = 0; g < G; g++)
        products[m][g] = fma(value, g < HELD ? weights[g] : load(of_gates + g * WIDTH), products[m][g]);
    }
  }
  w = of_gates;
}

// out[m][g] += h[m][k] * w[k][g] of `size` numbers of the hidden state from `from` on, which are summed up apart.
template <int LANES, int G>
static void part(const float* w, const Lane* lanes, int64_t from, int64_t size, float* out) {
  const float* h[LANES];
  V products[LANES][G];
#pragma GCC unroll 16
  for (int m = 0; m < LANES; m++) {
    h[m] = lanes[m].h + from;
#pragma GCC unroll 4
    for (int g = 0; g < G; g++) products[m][g] = all(0.f);
  }
  multiply<LANES, G>(w, h, size, products);
#pragma GCC unroll 16
  for (int m = 0; m < LANES; m++)
#pragma GCC unroll 4
    for (int g = 0; g < G; g++) {
      float* sum = out + (m * BIASES + g) * WIDTH;
      store(sum, load(sum) + products[m][g]);
    }
}

// The sums of one panel for LANES lanes, to `out (LANES, BIASES, WIDTH)`: of a GRU r, z, n of the hidden state, n of the
// input; of an LSTM i, f, g, o.
template <int LANES, int G>
static void tile(const float* w, const Layer& layer, const Lane* lanes, float* out) {
  const float *x[LANES], *h[LANES];
  for (int m = 0; m < LANES; m++) x[m] = lanes[m].x, h[m] = lanes[m].h;
  V products[LANES][G];
  const float* biases = w;
#pragma GCC unroll 4
  for (int g = 0; g < G; g++) {
    const V bias = load(biases + (G == 3 && g == 2 ? 3 : g) * WIDTH);
#pragma GCC unroll 16
    for (int m = 0; m < LANES; m++) products[m][g] = bias;
  }
  w += BIASES * WIDTH;
  multiply<LANES, G>(w, x, layer.in_features, products);
  if (G == 3) {
    const V bias = load(biases + 2 * WIDTH);
#pragma GCC unroll 16
    for (int m = 0; m < LANES; m++) store(out + (m * BIASES + 3) * WIDTH, products[m][G - 1]), products[m][G - 1] = bias;
  }
  if (layer.hidden <= SUMMED) multiply<LANES, G>(w, h, layer.hidden, products);
#pragma GCC unroll 16
  for (int m = 0; m < LANES; m++)
#pragma GCC unroll 4
    for (int g = 0; g < G; g++) store(out + (m * BIASES + g) * WIDTH, products[m][g]);
}

// h' = (1 - z) n + z h, z = 1 / (1 + e^-a), n = tanh(b) = (1 - e^-2b) / (1 + e^-2b), with one division for both.
static void gru_gates(float* sums, int64_t lanes, const Lane* of, int64_t at) {
  const V one = all(1.f), two = all(2.f), zero = all(0.f);
  float* p = sums;
  for (int64_t i = 0; i < lanes; i++, p += BIASES * WIDTH) {  // two loops: more of these long chains under way at once
    const V r = one / (one + exp_minus(load(p)));
    store(p, fma(r, load(p + 2 * WIDTH), load(p + 3 * WIDTH)));
  }
  p = sums;
  for (int64_t i = 0; i < lanes; i++, p += BIASES * WIDTH) {
    const V en = exp_minus_twice_less_one(load(p)), ez = exp_minus(load(p + WIDTH));
    const V below = two + en;
    const V above = fma(load(of[i].h + at), below, zero - ez * en);
    store(of[i].next + at, above / ((one + ez) * below));
  }
}

static void lstm_gates(float* sums, int64_t lanes, const Lane* of, int64_t at) {
  const V one = all(1.f), two = all(2.f), zero = all(0.f);
  for (int64_t i = 0; i < lanes; i++, sums += BIASES * WIDTH) {
    const V ei = exp_minus(load(sums)), ef = exp_minus(load(sums + WIDTH));
    const V eg = exp_minus_twice_less_one(load(sums + 2 * WIDTH)), eo = exp_minus(load(sums + 3 * WIDTH));
    const V input = (zero - eg) / ((one + ei) * (two + eg));
    const V c = fma(load(of[i].c + at), one / (one + ef), input);
    store(of[i].c + at, c);
    const V ec = exp_minus_twice_less_one(c);
    store(of[i].next + at, (zero - ec) / ((one + eo) * (two + ec)));
  }
}

static void tanh_gates(float* sums, int64_t lanes, const Lane* of, int64_t at) {
  for (int64_t i = 0; i < lanes; i++, sums += BIASES * WIDTH) {
    const V e = exp_minus_twice_less_one(load(sums));
    store(of[i].next + at, (all(0.f) - e) / (all(2.f) + e));
  }
}

typedef void (*Tile)(const float*, const Layer&, const Lane*, float*);
typedef void (*PartOf)(const float*, const Lane*, int64_t, int64_t, float*);
typedef void (*Gates)(float*, int64_t, const Lane*, int64_t);
struct Steps {  // how a cell takes a step: tiles and parts by lanes, from 1 on
  const Tile* tiles;
  const PartOf* parts;
  int64_t most_lanes;
  Gates gates;
};

template <int G, int... LANES>
static Steps by_lanes(Gates gates) {
  static constexpr Tile tiles[] = {nullptr, tile<LANES, G>...};
  static constexpr PartOf parts[] = {nullptr, part<LANES, G>...};
  return {tiles, parts, sizeof...(LANES), gates};
}
static Steps steps_of(int64_t cell) {
  if (cell == TANH) return by_lanes<1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12>(tanh_gates);
#if REGISTERS == 32
  if (cell == GRU) return by_lanes<3, 1, 2, 3, 4, 5, 6, 7, 8>(gru_gates);
  return by_lanes<4, 1, 2, 3, 4, 5, 6>(lstm_gates);
#else
  if (cell == GRU) return by_lanes<3, 1, 2, 3, 4>(gru_gates);
  return by_lanes<4, 1, 2, 3>(lstm_gates);
#endif
}

// One layer takes a step in all lanes that have a row. Tiles are equally large, as near as can be: one lane alone takes
// as long as three. Part by part of a large hidden state, since the weights of a part stay in the core's own caches.
static void step(const Layer& layer, const Steps& steps, const float* weights, const Lane* lanes, int64_t n, float* sums) {
  const int64_t tiles = (n + steps.most_lanes - 1) / steps.most_lanes, G = GATES[layer.cell];
  for (int64_t p = 0; p < panels_of(layer); p++) {
    const float* panel = weights + p * panel_floats(layer);
    for (int64_t i = 0, begin = 0, end; i < tiles; i++, begin = end) {
      end = n * (i + 1) / tiles;
      steps.tiles[end - begin](panel, layer, lanes + begin, sums + begin * BIASES * WIDTH);
    }
    for (int64_t k = 0; layer.hidden > SUMMED && k < layer.hidden; k += SUMMED) {
      const float* of_part = panel + (BIASES + G * (layer.in_features + k)) * WIDTH;
      const int64_t size = layer.hidden - k < SUMMED ? layer.hidden - k : SUMMED;
      for (int64_t i = 0, begin = 0, end; i < tiles; i++, begin = end) {
        end = n * (i + 1) / tiles;
        steps.parts[end - begin](of_part, lanes + begin, k, size, sums + begin * BIASES * WIDTH);
      }
    }
    steps.gates(sums, n, lanes, p * WIDTH);
  }
}

// The weights of one layer as `multiply` reads them: panel by panel the biases, then for each input the gates.
void pack(const Layer& layer, const float* wi, const float* bi, const float* wh, const float* bh, float* out) {
  const int64_t G = GATES[layer.cell], H = layer.hidden, D = layer.in_features;
  for (int64_t j = 0; j < H; j += WIDTH) {
    const int64_t real = H - j < WIDTH ? H - j : WIDTH;
    memset(out, 0, sizeof(float) * panel_floats(layer));
    for (int64_t v = 0; v < real; v++)
      for (int64_t g = 0; g < G; g++) {
        const float input = bi ? bi[g * H + j + v] : 0.f, hidden = bh ? bh[g * H + j + v] : 0.f;
        const bool apart = layer.cell == GRU && g == 2;
        out[g * WIDTH + v] = apart ? hidden : input + hidden;
        if (apart) out[3 * WIDTH + v] = input;
      }
    out += BIASES * WIDTH;
    for (int64_t k = 0; k < D + H; k++)
      for (int64_t g = 0; g < G; g++, out += WIDTH)
        memcpy(out, (k < D ? wi + k * G * H : wh + (k - D) * G * H) + g * H + j, sizeof(float) * real);
  }
}
}  // namespace NAMESPACE
