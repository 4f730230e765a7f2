#include "nbits.h"

namespace specc {

extern const Variant kAvx512Vnni;
const Variant kAvx512Vnni = {"avx512_vnni", nullptr, nullptr, nullptr, nbits, {nullptr, nullptr}, nullptr,
                             nullptr,       nullptr, nullptr};

}  // namespace specc
