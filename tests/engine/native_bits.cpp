// Runs the native kernel without Python, for sanitizers and emulators: every cell, odd sizes, rows of all lengths, NaN and
// infinities among them; with few and many lanes, in one call and in many, by one thread and by two that share a queue.
// Prints, per instruction set, a hash of the features of all rows; ends with 1 where they depend on any of that.
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <thread>
#include <vector>

#include "task.h"

struct Kernel {
  const char* name;
  void (*run)(const Task&);
  int64_t (*packed_floats)(const Layer&);
  void (*pack)(const Layer&, const float*, const float*, const float*, const float*, float*);
};
#define OF(NAME) {#NAME, NAME::run, NAME::packed_floats, NAME::pack}

static uint32_t seed = 1;
static float drawn() {  // -1 ... 1
  seed = seed * 1664525u + 1013904223u;
  return static_cast<float>(seed >> 8) * 0x1p-23f - 1.f;
}
using Floats = std::unique_ptr<float[]>;  // exactly as large as it is, so that a sanitizer sees the next float
static Floats floats(int64_t n, bool draw) {
  Floats made(new float[n]());
  for (int64_t i = 0; draw && i < n; i++) made[i] = drawn();
  return made;
}

struct Rows {
  std::vector<Floats> values, carries, steps_to;
  std::vector<int64_t> lengths;
};

static Rows drawn_rows(int64_t features, int64_t carry, int64_t outputs, bool with_steps) {
  Rows rows;
  for (int64_t length : {0, 1, 2, 3, 7, 1, 0, 64, 5, 5, 5, 129, 1, 2, 17, 33, 4, 6, 1, 1, 9, 0, 31, 12, 2, 8}) {
    Floats x = floats(length * features, true);
    const size_t number = rows.lengths.size();
    if (number % 6 == 4 && length) x[length * features / 2] = std::numeric_limits<float>::quiet_NaN();
    if (number % 6 == 2 && length) x[0] = number % 4 ? INFINITY : -1e30f;
    if (number % 6 == 3 && length) x[length * features - 1] = 1e-40f;
    rows.values.push_back(std::move(x));
    rows.carries.push_back(floats(carry, number % 3 == 0));
    rows.steps_to.push_back(with_steps ? floats(length * outputs, false) : nullptr);
    rows.lengths.push_back(length);
  }
  return rows;
}

static uint64_t hash(uint64_t so_far, const float* numbers, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    uint32_t bits = 0x7fc00000;  // processors differ in the sign and the rest of a NaN
    if (numbers[i] == numbers[i]) memcpy(&bits, numbers + i, 4);
    so_far = (so_far ^ bits) * 1099511628211u;
  }
  return so_far;
}

struct Net {
  std::vector<Layer> layers;
  std::vector<Part> parts;
  Floats weights, first_state;
  Network network;
};

static Net drawn_net(const Kernel& kernel, std::vector<Layer> layers) {
  Net net{std::move(layers), {}, nullptr, nullptr, {}};
  int64_t packed = 0, carry = 0;
  for (const Layer& layer : net.layers) {
    packed += kernel.packed_floats(layer);
    carry += (layer.cell == LSTM ? 2 : 1) * layer.hidden;
  }
  net.weights = floats(packed, false);
  float* at = net.weights.get();
  for (const Layer& layer : net.layers) {
    const int64_t gates = (layer.cell == GRU ? 3 : layer.cell == LSTM ? 4 : 1) * layer.hidden;
    Floats wi = floats(layer.in_features * gates, true), bi = floats(gates, true), wh = floats(layer.hidden * gates, true),
           bh = floats(gates, true);
    kernel.pack(layer, wi.get(), bi.get(), wh.get(), layer.cell == GRU ? nullptr : bh.get(), at);
    at += kernel.packed_floats(layer);
  }
  const int64_t H = net.layers.back().hidden, state = carry + 2 * H;
  net.first_state = floats(state, false);
  for (int64_t i = 0; i < H; i++) net.first_state[carry + H + i] = -INFINITY;
  net.parts = {{AS_IT_IS, 0, carry}, {ZERO_WITHOUT_STEPS, carry + H, H}, {AS_IT_IS, carry, H}, {COUNT, 0, 2}};
  net.network = {static_cast<int64_t>(net.layers.size()), 4, net.layers.data(), net.parts.data(), state, carry + 2 * H + 2,
                 carry, carry, carry + H, net.weights.get(), net.first_state.get()};
  return net;
}

// A hash of all rows' features, and of the outputs of their steps.
static uint64_t features(const Kernel& kernel, const Net& net, Rows& rows, int64_t lanes, int64_t threads, int64_t most_steps) {
  const int64_t n = static_cast<int64_t>(rows.lengths.size()), width = net.network.out_features;
  std::vector<Item> items;
  std::vector<Floats> all;
  for (int64_t i = 0; i < n; i++) {
    all.push_back(floats(width, false));
    items.push_back({reinterpret_cast<uint64_t>(rows.values[i].get()),
                     i % 3 == 0 ? reinterpret_cast<uint64_t>(rows.carries[i].get()) : 0,
                     reinterpret_cast<uint64_t>(rows.steps_to[i].get()), reinterpret_cast<uint64_t>(all[i].get()), i,
                     rows.lengths[i], 0});
  }
  std::vector<std::atomic<int>> ended(n);
  int64_t steps = 0;
  for (const Item& item : items) steps += item.left;
  Queue queue{reinterpret_cast<uint64_t>(items.data()), n, 0, threads, 0, 2 * most_steps, most_steps, net.layers[0].in_features,
              net.layers.back().hidden, steps};
  auto work = [&] {
    const int64_t most = lanes + n;
    Floats states = floats(lanes * net.network.state, false);
    std::vector<Item> in_lanes(lanes, Item{0, 0, 0, 0, -1, 0, 0});
    std::vector<int64_t> numbers(most);
    for (bool busy = true; busy;) {
      Told told;
      kernel.run({net.network, lanes, states.get(), in_lanes.data(), &queue, numbers.data(), most, &told});
      for (int64_t i = 0; i < told.finished; i++) ended[numbers[i]]++;
      busy = false;
      for (const Item& item : in_lanes) busy |= item.number >= 0;
    }
  };
  std::vector<std::thread> others;
  for (int64_t i = 1; i < threads; i++) others.emplace_back(work);
  work();
  for (std::thread& other : others) other.join();
  uint64_t so_far = 14695981039346656037u;
  for (int64_t i = 0; i < n; i++) so_far = hash(so_far, all[i].get(), ended[i] == 1 ? width : 0);
  for (int64_t i = 0; i < n && rows.steps_to[i]; i++)
    so_far = hash(so_far, rows.steps_to[i].get(), rows.lengths[i] * net.layers.back().hidden);
  return so_far;
}

struct Way {
  int64_t lanes, threads, most_steps;
};

int main() {
#if defined(__x86_64__)
  std::vector<Kernel> kernels = {OF(avx2)};
  if (__builtin_cpu_supports("avx512f")) kernels.push_back(OF(avx512));
#else
  std::vector<Kernel> kernels = {OF(neon)};
#endif
  int faults = 0;
  for (const Kernel& kernel : kernels) {
    uint64_t together = 0;
    seed = 1;
    for (int64_t cell : {GRU, LSTM, TANH})
      for (std::vector<int64_t> sizes : {std::vector<int64_t>{1, 1}, {3, 5}, {7, 16, 4}, {2, 33}, {12, 8, 40}, {3, 150}}) {
        std::vector<Layer> layers;
        for (size_t i = 1; i < sizes.size(); i++) layers.push_back({cell, sizes[i - 1], sizes[i]});
        const Net net = drawn_net(kernel, layers);
        Rows rows = drawn_rows(sizes[0], net.network.carry, sizes.back(), sizes.size() > 2);
        const uint64_t first = features(kernel, net, rows, 1, 1, INT64_MAX / 2);
        together = together * 31 + first;
        // Each number of lanes, both of threads, and both ways to stop; all products of these tell no more.
        for (const Way& way : {Way{2, 1, 3}, {3, 2, INT64_MAX / 2}, {7, 2, 3}, {16, 1, INT64_MAX / 2}, {40, 2, 3}})
          if (features(kernel, net, rows, way.lanes, way.threads, way.most_steps) != first && ++faults)
            printf("%s: cell %d, %d -> %d: other features with %d lanes, %d threads\n", kernel.name, int(cell),
                   int(sizes[0]), int(sizes.back()), int(way.lanes), int(way.threads));
      }
    printf("%s %016llx\n", kernel.name, static_cast<unsigned long long>(together));
  }
  return faults != 0;
}
