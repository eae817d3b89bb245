// What the kernel is asked to do: rows from a queue, each through the layers of an encoder, one step after the other.
//
// Rows are read where they stand. Whoever makes a queue keeps the rows, and the queue itself, until the call is over.
#pragma once

#include <cstdint>

enum Cell : int64_t { GRU = 0, LSTM = 1, TANH = 2 };

struct Layer {
  int64_t cell, in_features, hidden;
};

enum Read : int64_t { AS_IT_IS = 0, ZERO_WITHOUT_STEPS = 1, COUNT = 2 };

struct Part {  // of the features: `size` numbers of the state from `from` on; or the count of steps, as two numbers
  int64_t read, from, size;
};

// The state of a lane is the layers' carries one after the other (of an LSTM c, then h), then the mean of the outputs,
// then their maximum, as far as the features ask for them.
struct Network {
  int64_t n_layers, n_parts;
  const Layer* layers;
  const Part* parts;
  int64_t state, out_features, carry;  // sizes: of a state, of the features, of what a row may bring
  int64_t mean, most;                  // where in the state they begin; -1 for none
  const float* weights;                // as `pack` laid them out
  const float* first_state;
};

struct Item {         // a row, or what is left of one
  uint64_t x;         // address of its next step
  uint64_t carry;     // address of what it begins with; 0 for the first state
  uint64_t steps_to;  // address of the output of that step; 0 where outputs of steps are not asked for
  uint64_t features;  // address of its features; 0 where they are not asked for
  int64_t number, left, done;
};

enum More : int64_t { NONE = 0, FOLLOWS = 1, IS_HERE = 2 };

struct Queue {
  uint64_t items;  // address of the first
  int64_t size;
  int64_t next;        // the first that nobody took: all devices take from one queue
  int64_t devices;
  int64_t more;        // whether rows follow in another queue; who made this one writes here that the next is there
  int64_t most_steps;  // no lane does more; rows that nobody took by then are left
  int64_t most_dry;    // nor more than these once the queue is empty
  int64_t x_step, output_step;  // floats from one step to the next, and from its output to the next one's; any sign
  int64_t load;        // steps of the rows that nobody took, and what the devices that have begun with it have to do
};

struct Told {
  int64_t finished, rounds;
};

struct Task {
  Network network;
  int64_t lanes;
  float* states;       // (lanes, state), in and out
  Item* in_lanes;      // (lanes,), in and out; number -1 where a lane is free
  Queue* queue;
  int64_t* numbers;    // (most,), of the rows that ended
  int64_t most;        // at least lanes + queue->size
  Told* told;
};

// One for each instruction set. `pack` lays out the weights of one layer, `wi
// (in_features, gates, hidden)`, `bi (gates, hidden)` or null, `wh (hidden, gates, hidden)`, `bh` or null.
#define KERNEL(NAMESPACE)                                                                                          \
  namespace NAMESPACE {                                                                                            \
  void run(const Task& task);                                                                                      \
  int64_t packed_floats(const Layer& layer);                                                                       \
  void pack(const Layer& layer, const float* wi, const float* bi, const float* wh, const float* bh, float* out);   \
  }
KERNEL(avx2)
KERNEL(avx512)
KERNEL(neon)
