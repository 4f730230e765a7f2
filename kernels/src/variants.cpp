#include "variants.h"

#include <cstdlib>
#include <cstring>
#include <string>

namespace specc {

extern const Variant kScalar;
#if defined(SPECC_X86)
extern const Variant kAvx2, kAvx512, kAvx512Vnni;
#elif defined(SPECC_NEON)
extern const Variant kNeon;
#endif

namespace {

const Variant* const kVariants[] = {
    &kScalar,
#if defined(SPECC_X86)
    &kAvx2, &kAvx512, &kAvx512Vnni,
#elif defined(SPECC_NEON)
    &kNeon,
#endif
};

bool is(const Variant& variant, const char* name) { return std::strcmp(variant.name, name) == 0; }

#if defined(SPECC_X86)
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
#endif

// Whether the comma-separated list has the name.
bool names(const char* list, const char* name) {
  const std::string all = std::string(",") + list + ",";
  return all.find(std::string(",") + name + ",") != std::string::npos;
}

Variant choose(const char* disabled, const char* limit) {
  Variant chosen = kScalar;
  bool below = true;
  for (const Variant* v : kVariants) {
    if (below && supported(*v) && !names(disabled, v->name)) {
      chosen.name = v->name;
      if (v->linear_bf16) chosen.linear_bf16 = v->linear_bf16;
      if (v->linear_f32) chosen.linear_f32 = v->linear_f32;
      if (v->quantize) chosen.quantize = v->quantize;
      if (v->linear_nbits) chosen.linear_nbits = v->linear_nbits;
      for (int i = 0; i < 2; ++i)
        if (v->attend[i]) chosen.attend[i] = v->attend[i];
      if (v->join) chosen.join = v->join;
      if (v->gate) chosen.gate = v->gate;
      if (v->add_norm) chosen.add_norm = v->add_norm;
      if (v->largest) chosen.largest = v->largest;
    }
    if (limit && is(*v, limit)) below = false;
  }
  return chosen;
}

const char* disabled() {
  const char* list = std::getenv("SPECC_KERNELS_DISABLE");
  return list ? list : "";
}

Variant g_active = choose(disabled(), nullptr);

}  // namespace

const Variant* const* variants(size_t* count) {
  *count = sizeof kVariants / sizeof *kVariants;
  return kVariants;
}

bool supported(const Variant& variant) {
  if (is(variant, "scalar")) return true;
#if defined(SPECC_X86)
  __builtin_cpu_init();
  if (is(variant, "avx2")) return has_avx2();
  if (is(variant, "avx512")) return has_avx512();
  if (is(variant, "avx512_vnni")) return has_avx512() && __builtin_cpu_supports("avx512vnni");
  return false;
#elif defined(SPECC_NEON)
  return is(variant, "neon");
#else
  return false;
#endif
}

const Variant& active() { return g_active; }

bool limit(const char* name) {
  for (const Variant* v : kVariants)
    if (is(*v, name) && supported(*v)) {
      g_active = choose("", name);
      return true;
    }
  return false;
}

}  // namespace specc
