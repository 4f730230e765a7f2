// What the shared library shows: ONNX Runtime's entry, and a few functions for Python and the tests.
#include <cstring>
#include <string>

#include "argmax.h"
#include "attention_op.h"
#include "linear.h"
#include "mlp.h"
#include "variants.h"

#define SPECC_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

const specc::Entry<specc::LinearDense<true>> kLinearBF16;
const specc::Entry<specc::LinearDense<false>> kLinearF32;
const specc::Entry<specc::LinearNBits> kLinearNBits;
const specc::Entry<specc::GatherBF16> kGatherBF16;
const specc::Entry<specc::TreeAttention> kTreeAttention;
const specc::Entry<specc::ProjectedAttention> kProjectedAttention;
const specc::Entry<specc::GatedMLP> kGatedMLP;
const specc::Entry<specc::ArgMax> kArgMax;
const ort::CustomOp* const kOperators[] = {&kLinearBF16, &kLinearF32,     &kLinearNBits,
                                           &kGatherBF16, &kTreeAttention, &kProjectedAttention,
                                           &kGatedMLP,   &kArgMax};

template <class... Args>
ort::Status* call(const void* const* table, ort::Position position, Args... args) {
  return reinterpret_cast<ort::Status* (*)(Args...)>(const_cast<void*>(table[position]))(args...);
}

}  // namespace

SPECC_EXPORT ort::Status* RegisterCustomOps(ort::SessionOptions* options, const ort::ApiBase* base) {
  const void* const* table = base->GetApi(ort::kApiVersion);
  if (!table) {
    const void* const* oldest = base->GetApi(1);  // CreateStatus stands first in every version
    static const std::string message = "specc_kernels needs ONNX Runtime 1.17 or newer, and this is " +
                                       std::string(base->GetVersionString()) + "; install a newer onnxruntime";
    return oldest ? call(oldest, ort::kCreateStatus, ort::kInvalidArgument, message.c_str()) : nullptr;
  }
  specc::set_api(table);
  ort::CustomOpDomain* domain = nullptr;  // lives as long as the process, as sessions refer to it
  if (ort::Status* status = call(table, ort::kCreateCustomOpDomain, "specc", &domain)) return status;
  for (const ort::CustomOp* op : kOperators)
    if (ort::Status* status = call(table, ort::kCustomOpDomainAdd, domain, op)) return status;
  return call(table, ort::kAddCustomOpDomain, options, domain);
}

// The names of the operators, of the variants built, or of those that this processor runs, by commas.
SPECC_EXPORT const char* specc_kernels_operators() {
  static const std::string names = [] {
    std::string all;
    for (const ort::CustomOp* op : kOperators) all += (all.empty() ? "" : ",") + std::string(op->GetName(op));
    return all;
  }();
  return names.c_str();
}

SPECC_EXPORT const char* specc_kernels_variants(int only_supported) {
  static thread_local std::string names;
  names.clear();
  size_t count = 0;
  const specc::Variant* const* all = specc::variants(&count);
  for (size_t i = 0; i < count; ++i)
    if (!only_supported || specc::supported(*all[i])) names += (names.empty() ? "" : ",") + std::string(all[i]->name);
  return names.c_str();
}

// The fastest variant in use.
SPECC_EXPORT const char* specc_kernels_active() { return specc::active().name; }

// For tests, while no session runs: use no variant faster than `name`. Returns 0 where it is not supported.
SPECC_EXPORT int specc_kernels_limit(const char* name) { return specc::limit(name); }
