// A call by XLA's FFI, read from its C structs alone. jaxlib's own C++ header (ffi.h) formats messages with iostreams: the
// library became 565 KB instead of 46, wanted glibc 2.35 instead of 2.14, and took four times as long to compile.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "xla/ffi/api/c_api.h"

// XLA asks a handler at registration for the version it was compiled with, and refuses a newer one than its own. All that
// is used here is the same in each version from 0.1 on, so the answer is the older of both: a library compiled with newer
// headers than jaxlib's, or with older ones, is taken. True if that was the question.
static inline bool version_asked(XLA_FFI_CallFrame* frame) {
  auto* extension = frame->extension_start;
  if (!extension || extension->type != XLA_FFI_Extension_Metadata) return false;
  XLA_FFI_Metadata* told = reinterpret_cast<XLA_FFI_Metadata_Extension*>(extension)->metadata;
  const XLA_FFI_Api_Version& theirs = frame->api->api_version;
  const bool older = theirs.major_version == XLA_FFI_API_MAJOR && theirs.minor_version < XLA_FFI_API_MINOR;
  told->api_version.major_version = XLA_FFI_API_MAJOR;
  told->api_version.minor_version = older ? theirs.minor_version : XLA_FFI_API_MINOR;
  told->traits = 0;
  if (told->struct_size >= offsetof(XLA_FFI_Metadata, state_type_id) + sizeof(XLA_FFI_TypeId)) told->state_type_id.type_id = 0;
  return true;
}

// What a handler returns instead of null when it cannot do what it was called for; JAX raises it.
static inline XLA_FFI_Error* refusal(const XLA_FFI_CallFrame* frame, const char* message) {
  XLA_FFI_Error_Create_Args told{sizeof(XLA_FFI_Error_Create_Args), nullptr, message, XLA_FFI_Error_Code_INVALID_ARGUMENT};
  return frame->api->XLA_FFI_Error_Create(&told);
}

// Buffer `i` of the arguments or of the results, or null if there is none or it holds something else than `type`.
static inline const XLA_FFI_Buffer* buffer(void** all, int64_t size, int64_t i, XLA_FFI_DataType type) {
  if (i >= size) return nullptr;
  const auto* found = static_cast<const XLA_FFI_Buffer*>(all[i]);
  return found->dtype == type ? found : nullptr;
}
static inline const XLA_FFI_Buffer* argument(const XLA_FFI_CallFrame* frame, int64_t i, XLA_FFI_DataType type) {
  return buffer(frame->args.args, frame->args.size, i, type);
}
static inline const XLA_FFI_Buffer* result(const XLA_FFI_CallFrame* frame, int64_t i, XLA_FFI_DataType type) {
  return buffer(frame->rets.rets, frame->rets.size, i, type);
}
static inline int64_t elements(const XLA_FFI_Buffer* of) {
  int64_t n = 1;
  for (int64_t d = 0; d < of->rank; d++) n *= of->dims[d];
  return n;
}

// The attribute `name` if it is an array of `type`, or null.
static inline const XLA_FFI_Array* array_attribute(const XLA_FFI_CallFrame* frame, const char* name, XLA_FFI_DataType type) {
  for (int64_t i = 0; i < frame->attrs.size; i++) {
    const XLA_FFI_ByteSpan* its = frame->attrs.names[i];
    if (its->len != strlen(name) || memcmp(its->ptr, name, its->len) != 0) continue;
    if (frame->attrs.types[i] != XLA_FFI_AttrType_ARRAY) return nullptr;
    const auto* found = static_cast<const XLA_FFI_Array*>(frame->attrs.attrs[i]);
    return found->dtype == type ? found : nullptr;
  }
  return nullptr;
}
