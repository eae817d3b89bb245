// The kernel, for the instruction set that the including file is compiled for: rows from a queue into lanes, steps of
// all lanes together, and features of the rows that end. What a step is stands in `cells.h`.
//
// No templates of the standard library: the linker keeps one copy of each, and it could be one with instructions that
// the processor has not.
#pragma once

#include <cstdlib>

#include "cells.h"

namespace NAMESPACE {

// `size` zeros.
template <typename T>
class Array {
 public:
  explicit Array(int64_t size) : size(size), at(static_cast<T*>(calloc(size ? size : 1, sizeof(T)))) {
    if (!at) abort();
  }
  ~Array() { free(at); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  T& operator[](int64_t i) { return at[i]; }
  T* begin() { return at; }
  const int64_t size;

 private:
  T* const at;
};

int64_t packed_floats(const Layer& layer) { return panels_of(layer) * panel_floats(layer); }

// What the lanes keep of one layer: two hidden states, one of which a step reads and the other of which it writes, and
// an LSTM's c.
struct Kept {
  Layer layer;
  Steps steps;
  const float* weights;
  int64_t stride;
  float *h, *c;

  float* hidden(int64_t lane, bool second) { return h + (2 * lane + second) * stride; }
  float* cell(int64_t lane) { return c + lane * stride; }
  static int64_t stride_of(const Layer& layer) {
    return panels_of(layer) * WIDTH + 16;  // no power of two, or lanes would share cache sets
  }
  static int64_t floats_of(const Layer& layer) { return stride_of(layer) * (layer.cell == LSTM ? 3 : 2); }
};

const int64_t GLANCE = 16;  // steps after which is looked for rows, and for the next queue, again

static int64_t floats_of_all(const Network& net) {
  int64_t floats = 0;
  for (int64_t i = 0; i < net.n_layers; i++) floats += Kept::floats_of(net.layers[i]);
  return floats;
}

// All lanes of one device during one call.
class Lanes {
 public:
  explicit Lanes(const Task& task)
      : task(task), net(task.network), items(task.in_lanes), outputs(net.layers[net.n_layers - 1].hidden),
        pool_floats(((net.mean >= 0) + (net.most >= 0)) * outputs), layers(net.n_layers),
        memory(task.lanes * floats_of_all(net)), pooled(task.lanes * pool_floats), is_second(task.lanes),
        state(net.state), sums(task.lanes * BIASES * WIDTH), rows(2 * net.n_layers * task.lanes), busy(task.lanes),
        is_counted(is_last()) {
    const float* weights = net.weights;
    float* free_memory = memory.begin();
    for (int64_t i = 0; i < net.n_layers; i++) {
      const Layer& layer = net.layers[i];
      const int64_t stride = Kept::stride_of(layer);
      layers[i] = {layer, steps_of(layer.cell), weights, stride, free_memory, free_memory + 2 * task.lanes * stride};
      free_memory += task.lanes * Kept::floats_of(layer);
      weights += packed_floats(layer);
    }
    for (int64_t lane = 0; lane < task.lanes; lane++) {
      if (items[lane].number < 0) continue;
      memcpy(state.begin(), task.states + lane * net.state, sizeof(float) * net.state);
      restore(lane);
      busy[n_busy++] = lane;
    }
  }

  // Work until no row is left; or the queue is empty, and the next one is there, or the lanes did `most_dry` since; or
  // they did `most_steps`. But for some steps at least: else a row of a device that always comes late would never end.
  void run() {
    Queue& queue = *task.queue;
    int64_t left = queue.most_steps, dry = queue.most_dry;
    fill((queue.size + queue.devices - 1) / queue.devices);  // a share: the other devices may not have begun yet
    for (bool is_first = true;; is_first = false) {
      if (!is_first && n_busy < task.lanes) fill(INT64_MAX);
      tell_load();
      const bool is_empty = __atomic_load_n(&queue.next, __ATOMIC_RELAXED) >= queue.size;
      const int64_t more = __atomic_load_n(&queue.more, __ATOMIC_RELAXED);
      if (left <= 0 || (is_empty && (n_busy == 0 || (more == IS_HERE && !is_first) || dry <= 0))) break;
      int64_t span = is_empty && dry < left ? dry : left;
      if ((n_busy < task.lanes || more != NONE || !is_empty) && span > GLANCE) span = GLANCE;
      for (int64_t nth = 0; nth < n_busy; nth++)
        if (items[busy[nth]].left < span) span = items[busy[nth]].left;
      if (n_busy) advance(span);
      left -= span;
      if (is_empty) dry -= span;
      end_rows();
    }
    for (int64_t nth = 0; nth < n_busy; nth++) {
      save(busy[nth]);
      memcpy(task.states + busy[nth] * net.state, state.begin(), sizeof(float) * net.state);
    }
  }

 private:
  // Take rows from the queue until all lanes have one, or so many were taken; rows without steps end at once. One of the
  // last rows is left to the others where this device has more than an even share of all but that row, so that all end
  // together; which never holds for all devices at once.
  void fill(int64_t most) {
    Queue& queue = *task.queue;
    const Item* waiting = reinterpret_cast<const Item*>(queue.items);
    tell_load();
    for (int64_t lane = 0; lane < task.lanes; lane++) {
      while (items[lane].number < 0) {
        const int64_t next = __atomic_load_n(&queue.next, __ATOMIC_RELAXED);
        if (most-- <= 0 || next >= queue.size) return;
        if (n_busy && is_last()) {
          const int64_t of_all = __atomic_load_n(&queue.load, __ATOMIC_RELAXED);
          if (told_load * queue.devices > of_all - waiting[next].left) return;
        }
        const int64_t taken = __atomic_fetch_add(&queue.next, 1, __ATOMIC_RELAXED);
        if (taken >= queue.size) return;
        begin_row(lane, waiting[taken]);
        tell_load(waiting[taken].left);
      }
    }
  }

  // Whether no other queue follows, as far as is known.
  bool is_last() const { return __atomic_load_n(&task.queue->more, __ATOMIC_RELAXED) == NONE; }

  // What this device has to do: the steps of its rows; and of the longest once more, since a step of few lanes takes
  // longer than their share of one of many.
  int64_t load() {
    int64_t steps = 0, longest = 0;
    for (int64_t nth = 0; nth < n_busy; nth++) {
      const int64_t left = items[busy[nth]].left;
      steps += left;
      if (left > longest) longest = left;
    }
    return steps + longest;
  }

  // Tell of it, where that decides who takes the last rows; `taken` steps of them are here now.
  void tell_load(int64_t taken = 0) {
    if (!is_counted) return;
    const int64_t now = load();
    __atomic_fetch_add(&task.queue->load, now - told_load - taken, __ATOMIC_RELAXED);
    told_load = now;
  }

  void begin_row(int64_t lane, const Item& item) {
    memcpy(state.begin(), net.first_state, sizeof(float) * net.state);
    if (item.carry) memcpy(state.begin(), reinterpret_cast<const float*>(item.carry), sizeof(float) * net.carry);
    items[lane] = item;
    if (item.left == 0) {
      emit(lane);
    } else {
      restore(lane);
      busy[n_busy++] = lane;
    }
  }

  // All busy lanes take `span` steps; none has fewer left.
  void advance(int64_t span) {
    const int64_t n = n_busy;
    const int64_t x_step = task.queue->x_step;
    for (int64_t parity = 0; parity < (span < 2 ? span : 2); parity++)
      for (int64_t i = 0; i < net.n_layers; i++)
        for (int64_t nth = 0; nth < n; nth++) {
          const int64_t lane = busy[nth];
          const bool second = is_second[lane] ^ parity;
          Lane& row = rows[(parity * net.n_layers + i) * task.lanes + nth];
          const float* x = i ? layers[i - 1].hidden(lane, !second) : reinterpret_cast<const float*>(items[lane].x) + parity * x_step;
          row = {x, layers[i].hidden(lane, second), layers[i].hidden(lane, !second), layers[i].cell(lane)};
        }
    for (int64_t t = 0; t < span; t++) {
      Lane* of_step = rows.begin() + (t & 1) * net.n_layers * task.lanes;
      for (int64_t i = 0; i < net.n_layers; i++)
        step(layers[i].layer, layers[i].steps, layers[i].weights, of_step + i * task.lanes, n, sums.begin());
      for (int64_t nth = 0; nth < n; nth++) of_step[nth].x += 2 * x_step;
      if (pool_floats || items[busy[0]].steps_to) keep_outputs(of_step + (net.n_layers - 1) * task.lanes);
      for (int64_t nth = 0; nth < n; nth++) items[busy[nth]].done++;
    }
    for (int64_t nth = 0; nth < n; nth++) {
      const int64_t lane = busy[nth];
      items[lane].x += static_cast<int64_t>(sizeof(float)) * x_step * span;
      items[lane].left -= span;
      is_second[lane] ^= span & 1;
    }
    task.told->rounds += span;
  }

  // What a step gave, to the mean and the maximum, and to where the outputs of all steps are wanted.
  void keep_outputs(const Lane* of_step) {
    for (int64_t nth = 0; nth < n_busy; nth++) {
      Item& item = items[busy[nth]];
      const float* y = of_step[nth].next;
      if (item.steps_to) {
        memcpy(reinterpret_cast<float*>(item.steps_to), y, sizeof(float) * outputs);
        item.steps_to += static_cast<int64_t>(sizeof(float)) * task.queue->output_step;
      }
      float* pool = pools(busy[nth]);
      if (net.mean >= 0) {
        const float count = static_cast<float>(item.done + 1);
        for (int64_t j = 0; j < outputs; j++) pool[j] = pool[j] + (y[j] - pool[j]) / count;
        pool += outputs;
      }
      if (net.most >= 0)
        for (int64_t j = 0; j < outputs; j++) pool[j] = y[j] > pool[j] || y[j] != y[j] ? y[j] : pool[j];
    }
  }

  void end_rows() {
    int64_t kept = 0;
    for (int64_t nth = 0; nth < n_busy; nth++) {
      const int64_t lane = busy[nth];
      if (items[lane].left > 0) {
        busy[kept++] = lane;
      } else {
        save(lane);
        emit(lane);
      }
    }
    n_busy = kept;
  }

  // The features of a row whose final state is `state`; its lane is free.
  void emit(int64_t lane) {
    Item& item = items[lane];
    float* out = reinterpret_cast<float*>(item.features);
    task.numbers[task.told->finished++] = item.number;
    item.number = -1;
    if (!out) return;
    for (int64_t i = 0; i < net.n_parts; i++) {
      const Part& part = net.parts[i];
      if (part.read == COUNT) {  // float32 holds whole numbers to 2^24
        *out++ = static_cast<float>(item.done / 4096);
        *out++ = static_cast<float>(item.done % 4096);
      } else if (part.read == ZERO_WITHOUT_STEPS && item.done == 0) {
        memset(out, 0, sizeof(float) * part.size);
        out += part.size;
      } else {
        memcpy(out, state.begin() + part.from, sizeof(float) * part.size);
        out += part.size;
      }
    }
  }

  // From `state` to the lane, and back.
  void restore(int64_t lane) { each_part(lane, [](float* here, float* in_lane, int64_t n) { memcpy(in_lane, here, n); }); }
  void save(int64_t lane) { each_part(lane, [](float* here, float* in_lane, int64_t n) { memcpy(here, in_lane, n); }); }
  template <typename Copy>
  void each_part(int64_t lane, Copy copy) {
    float* here = state.begin();
    for (int64_t i = 0; i < net.n_layers; i++) {
      Kept& kept = layers[i];
      const int64_t H = kept.layer.hidden;
      if (kept.layer.cell == LSTM) copy(here, kept.cell(lane), sizeof(float) * H), here += H;
      copy(here, kept.hidden(lane, is_second[lane]), sizeof(float) * H), here += H;
    }
    const int64_t rest = state.begin() + net.state - here;
    if (rest) copy(here, pools(lane), sizeof(float) * rest);
  }
  float* pools(int64_t lane) { return pooled.begin() + lane * pool_floats; }

  const Task& task;
  const Network& net;
  Item* const items;
  const int64_t outputs, pool_floats;
  Array<Kept> layers;
  Array<float> memory;     // of `layers`
  Array<float> pooled;     // the mean and the maximum, as far as they are asked for
  Array<char> is_second;   // which of the two hidden states is the last one
  Array<float> state, sums;  // of one lane, on its way; of one panel of all lanes
  Array<Lane> rows;
  Array<int64_t> busy;     // the lanes that have a row
  const bool is_counted;   // whether this was the last queue when it was begun
  int64_t n_busy = 0, told_load = 0;
};

void run(const Task& task) {
  *task.told = {0, 0};
  Lanes(task).run();
}

}  // namespace NAMESPACE
