// The doors of the library: the handler that JAX calls, and plain functions for `ctypes`. Both choose the widest vectors
// that the processor has.
#include <cstring>
#include <initializer_list>

#include "task.h"
#include "xla_call.h"

#define PUBLIC extern "C" __attribute__((visibility("default")))

struct Kernel {
  const char* name;
  void (*run)(const Task&);
  int64_t (*packed_floats)(const Layer&);
  void (*pack)(const Layer&, const float*, const float*, const float*, const float*, float*);
};

static const Kernel* kernel_named(const char* name) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  static const Kernel avx512 = {"avx512", avx512::run, avx512::packed_floats, avx512::pack};
  static const Kernel avx2 = {"avx2", avx2::run, avx2::packed_floats, avx2::pack};
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return nullptr;
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  if (has_avx512 && (!*name || !strcmp(name, "avx512"))) return &avx512;
  return !*name || !strcmp(name, "avx2") ? &avx2 : nullptr;
#elif defined(__aarch64__)
  static const Kernel neon = {"neon", neon::run, neon::packed_floats, neon::pack};  // every such processor has it
  return !*name || !strcmp(name, "neon") ? &neon : nullptr;
#else
  return nullptr;
#endif
}
static const Kernel* chosen = nullptr;

// The name of the instruction set that is used from now on: the named one, the widest for ""; "" if there is none.
PUBLIC const char* scanrnn_choose(const char* name) {
  chosen = kernel_named(name);
  return chosen ? chosen->name : "";
}
PUBLIC int64_t scanrnn_packed_floats(const Layer* layer) { return chosen->packed_floats(*layer); }
PUBLIC void scanrnn_pack(const Layer* layer, const float* wi, const float* bi, const float* wh, const float* bh, float* out) {
  chosen->pack(*layer, wi, bi, wh, bh, out);
}

static void same(const XLA_FFI_Buffer* out, const XLA_FFI_Buffer* in) {  // where JAX could not hand on the buffer itself
  if (out->data != in->data) memcpy(out->data, in->data, 4 * elements(in));
}

// What Python and this library both lay out: a number that is raised with each change of what they mean, then the bytes of
// each. `LAYOUT` in native/library.py.
PUBLIC int64_t scanrnn_layout() {
  int64_t layout = 2;
  for (size_t bytes : {sizeof(Item), sizeof(Queue), sizeof(Told), sizeof(Layer), sizeof(Part)}) layout = 1000 * layout + bytes;
  return layout;
}

// F are floats; U are 64-bit numbers, two words each: JAX has none by default.
PUBLIC XLA_FFI_Error* scanrnn_rows(XLA_FFI_CallFrame* frame) {
  if (version_asked(frame)) return nullptr;
  const XLA_FFI_DataType F = XLA_FFI_DataType_F32, U = XLA_FFI_DataType_U32;
  const XLA_FFI_Buffer *weights = argument(frame, 0, F), *first_state = argument(frame, 1, F), *states = argument(frame, 2, F),
                       *in_lanes = argument(frame, 3, U), *queue = argument(frame, 5, U), *new_states = result(frame, 0, F),
                       *now_in_lanes = result(frame, 1, U), *told = result(frame, 2, U);
  const XLA_FFI_Array* network = array_attribute(frame, "network", XLA_FFI_DataType_S64);
  if (!weights || !first_state || !states || !in_lanes || !queue || !new_states || !now_in_lanes || !told || !network)
    return refusal(frame, "an argument, a result or the network is missing, or is of another type");
  same(new_states, states);
  same(now_in_lanes, in_lanes);
  uint64_t address;
  memcpy(&address, queue->data, sizeof address);
  const auto* plan = static_cast<const int64_t*>(network->data);
  Task task;
  task.network = {plan[0], plan[1], reinterpret_cast<const Layer*>(plan + 7), nullptr, plan[2], plan[3], plan[4], plan[5],
                  plan[6], static_cast<const float*>(weights->data), static_cast<const float*>(first_state->data)};
  task.network.parts = reinterpret_cast<const Part*>(plan + 7 + 3 * plan[0]);
  task.lanes = states->dims[1];  // the first axis is the device's, of 1
  task.states = static_cast<float*>(new_states->data);
  task.in_lanes = static_cast<Item*>(now_in_lanes->data);
  task.queue = reinterpret_cast<Queue*>(address);
  task.told = static_cast<Told*>(told->data);
  task.numbers = reinterpret_cast<int64_t*>(task.told + 1);
  task.most = (4 * told->dims[1] - static_cast<int64_t>(sizeof(Told))) / static_cast<int64_t>(sizeof(int64_t));
  if (task.most < task.lanes + task.queue->size)
    return refusal(frame, "the queue has more rows than there is room to tell of");
  if (!chosen) return refusal(frame, "no kernel");
  chosen->run(task);
  return nullptr;
}
