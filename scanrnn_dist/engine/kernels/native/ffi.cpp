// The doors of the library: the handler that JAX calls, and plain functions for `ctypes`. Both choose the widest vectors
// that the processor has.
#include <cstring>

#include "task.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
#define PUBLIC extern "C" __attribute__((visibility("default")))

struct Kernel {
  const char* name;
  int (*run)(const Task&);
  int64_t (*packed_floats)(const Layer&);
  void (*pack)(const Layer&, const float*, const float*, const float*, const float*, float*);
};

static const Kernel* kernel_named(const char* name) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  static const Kernel avx512 = {"avx512", avx512::run, avx512::packed_floats, avx512::pack};
  static const Kernel avx2 = {"avx2", avx2::run, avx2::packed_floats, avx2::pack};
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return nullptr;
  if (__builtin_cpu_supports("avx512f") && (!*name || !strcmp(name, "avx512"))) return &avx512;
  return !*name || !strcmp(name, "avx2") ? &avx2 : nullptr;
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
PUBLIC int scanrnn_run(const Task* task) { return chosen->run(*task); }

using Floats = ffi::Buffer<ffi::F32>;
using Words = ffi::Buffer<ffi::U32>;  // 64-bit numbers, two words each: JAX has none by default

template <typename T>
static void same(T& out, const T& in) {  // where JAX could not hand on the buffer itself
  if (out.untyped_data() != in.untyped_data()) memcpy(out.untyped_data(), in.untyped_data(), in.size_bytes());
}

static ffi::Error run(Floats weights, Floats first_state, Floats states, Words in_lanes, Floats features, Words told,
                      Words queue, ffi::Result<Floats> new_states, ffi::Result<Words> now_in_lanes,
                      ffi::Result<Floats> new_features, ffi::Result<Words> new_told, ffi::Span<const int64_t> network) {
  same(*new_states, states);
  same(*now_in_lanes, in_lanes);
  uint64_t address;
  memcpy(&address, queue.typed_data(), sizeof address);
  const int64_t* plan = network.begin();
  Task task;
  task.network = {plan[0], plan[1], reinterpret_cast<const Layer*>(plan + 7), nullptr, plan[2], plan[3], plan[4], plan[5],
                  plan[6], weights.typed_data(), first_state.typed_data()};
  task.network.parts = reinterpret_cast<const Part*>(plan + 7 + 3 * plan[0]);
  task.lanes = states.dimensions()[0];
  task.states = new_states->typed_data();
  task.in_lanes = reinterpret_cast<Item*>(now_in_lanes->typed_data());
  task.queue = reinterpret_cast<Queue*>(address);
  task.features = new_features->typed_data();
  task.told = reinterpret_cast<Told*>(new_told->typed_data());
  task.numbers = reinterpret_cast<int64_t*>(task.told + 1);
  task.most = features.dimensions()[0];
  if (task.most < task.lanes + task.queue->size)
    return ffi::Error(ffi::ErrorCode::kInvalidArgument, "the queue has more rows than there is room for features");
  return chosen && chosen->run(task) == 0 ? ffi::Error::Success() : ffi::Error(ffi::ErrorCode::kInternal, "no kernel");
}

PUBLIC XLA_FFI_Error* scanrnn_rows(XLA_FFI_CallFrame*);
XLA_FFI_DEFINE_HANDLER_SYMBOL(scanrnn_rows, run,
                              ffi::Ffi::Bind()
                                  .Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Words>().Arg<Floats>().Arg<Words>().Arg<Words>()
                                  .Ret<Floats>().Ret<Words>().Ret<Floats>().Ret<Words>()
                                  .Attr<ffi::Span<const int64_t>>("network"));
