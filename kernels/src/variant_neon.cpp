#include "attention.h"
#include "between.h"
#include "dense.h"
#include "largest.h"
#include "nbits.h"
#include "quantize.h"

namespace specc {

extern const Variant kNeon;
const Variant kNeon = {"neon", dense<BF16Weights>, dense<F32Weights>, quantize, nbits,
    {attend<float>, attend<uint16_t>}, join, gate, add_norm, largest};

}  // namespace specc
