// Every variant that this processor runs against the reference, without ONNX Runtime: for sanitizers and for emulators.
//
// usage: specc_kernels_check [rounds] [threads]. Each thread makes all rounds, on data of its own. Prints one line; exits
// with 1 at the first bit that differs.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../src/variants.h"

namespace {

using specc::Variant;

thread_local std::mt19937 g_random;

int64_t between(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(g_random); }

std::vector<float> normal(int64_t count) {
  std::normal_distribution<float> values;
  std::vector<float> all(count);
  for (float& value : all) value = values(g_random);
  return all;
}

template <class T>
std::vector<T> words(int64_t count, uint64_t below) {
  std::vector<T> all(count);
  for (T& word : all) word = static_cast<T>(between(0, static_cast<int64_t>(below) - 1));
  return all;
}

// bf16 words of values near one
std::vector<uint16_t> bf16(int64_t count) {
  std::vector<uint16_t> all(count);
  const std::vector<float> values = normal(count);
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, &values[i], 4);
    all[i] = static_cast<uint16_t>(bits >> 16);
  }
  return all;
}

void require_equal(const std::vector<float>& a, const std::vector<float>& b, const std::string& what) {
  for (size_t i = 0; i < a.size(); ++i) {
    uint32_t x, y;
    std::memcpy(&x, &a[i], 4);
    std::memcpy(&y, &b[i], 4);
    if (x == y || (std::isnan(a[i]) && std::isnan(b[i]))) continue;
    std::printf("%s: value %zu is %a where the reference has %a\n", what.c_str(), i, a[i], b[i]);
    std::exit(1);
  }
}

void check_dense(const Variant& reference, const Variant& variant, bool half) {
  const int64_t rows = between(1, 40), k = between(1, 90), columns = between(1, 100), panels = (columns + 31) / 32;
  const auto x = normal(rows * k);
  const auto w16 = bf16(half ? panels * ((k + 1) / 2) * 64 : 0);
  const auto w32 = normal(half ? 0 : panels * k * 32);
  std::vector<float> expected(rows * columns), result(rows * columns);
  specc::Dense d{x.data(), expected.data(), half ? static_cast<const void*>(w16.data()) : w32.data(), rows, k, columns};
  (half ? reference.linear_bf16 : reference.linear_f32)(d, 0, panels);
  d.y = result.data();
  const auto run = half ? variant.linear_bf16 : variant.linear_f32;
  const int64_t middle = between(0, panels);
  std::thread other([&] { run(d, 0, middle); });
  run(d, middle, panels);
  other.join();
  require_equal(result, expected, std::string(variant.name) + (half ? " LinearBF16" : " LinearF32"));
}

void check_nbits(const Variant& reference, const Variant& variant) {
  specc::NBits n{};
  n.bits = between(0, 1) ? 4 : 8;
  n.block = 16 << between(n.bits == 8 ? 0 : 1, 2);
  n.half_scales = between(0, 1);
  const int64_t kind = between(0, 2);  // of zero points: one for all, of each block and column, or offsets
  const bool zeros = kind == 1;
  const int64_t k = between(1, 200), columns = between(1, 100), panels = (columns + 31) / 32;
  n.rows = between(1, 30), n.columns = columns, n.blocks = (k + n.block - 1) / n.block;
  const auto x = normal(n.rows * k);
  const auto w = words<uint8_t>(panels * n.blocks * 32 * n.block * n.bits / 8, 256);
  const auto points = words<uint8_t>(panels * n.blocks * 32, 1 << n.bits);
  const auto scales = normal(panels * n.blocks * 32);
  const auto half_scales = words<uint16_t>(panels * n.blocks * 32, 0x7c00);
  const auto offsets = normal(panels * n.blocks * 32);
  n.offsets = kind == 2 ? offsets.data() : nullptr;
  const int factor = n.offsets ? 1 : zeros ? -1 : n.bits == 4 ? -8 : -128;
  std::vector<float> results[2];
  const Variant* both[] = {&reference, &variant};
  for (int i = 0; i < 2; ++i) {
    std::vector<int8_t> q(n.rows * n.blocks * n.block);
    std::vector<float> row_scales(n.rows * n.blocks);
    std::vector<int32_t> starts(n.rows * n.blocks);
    const auto quantize = both[i]->quantize ? both[i]->quantize : reference.quantize;
    quantize(x.data(), n.rows, k, n.block, factor, q.data(), row_scales.data(), starts.data(), 0, n.blocks);
    results[i].resize(n.rows * columns);
    n.x = {q.data(), row_scales.data(), starts.data()};
    n.y = results[i].data();
    n.w = w.data();
    n.scales = n.half_scales ? static_cast<const void*>(half_scales.data()) : scales.data();
    n.zeros = zeros ? points.data() : nullptr;
    both[i]->linear_nbits(n, 0, panels);
  }
  require_equal(results[1], results[0], std::string(variant.name) + " LinearNBits");
}

template <class Row>
std::vector<Row> rows_of(int64_t count) {
  if constexpr (sizeof(Row) == 4) return normal(count);
  else return bf16(count);
}

template <class Row>
void check_attention(const Variant& reference, const Variant& variant) {
  specc::Attention a{};
  a.slots = between(1, 20), a.kv_heads = between(1, 3), a.heads = a.kv_heads * between(1, 4);
  a.size = 16 * between(1, 5), a.past = between(0, 1) ? between(0, 30) : between(240, 530);
  a.capacity = a.past + a.slots + between(0, 1) * 40;
  a.softcap = between(0, 1) ? 0.0f : 3.0f;
  a.span = between(0, 1) ? std::min<int64_t>(a.past, 9) : 0;
  const auto query = normal(a.slots * a.heads * a.size);
  const auto keys = rows_of<Row>(a.kv_heads * a.capacity * a.size), values = rows_of<Row>(keys.size());
  auto seen = words<uint8_t>(a.slots * a.slots, 3);
  const auto hidden = words<uint8_t>(a.slots * a.span, 2);
  auto oldest = words<int64_t>(a.slots, a.past + 1);
  for (int64_t i = 0; i < a.slots; ++i)
    for (int64_t j = i; j < a.slots; ++j) seen[i * a.slots + j] = i == j ? specc::kSeen : specc::kUnseen;
  const auto sinks = normal(a.heads);
  const int64_t chunks = (a.past + a.slots + specc::kChunk - 1) / specc::kChunk, heads = a.slots * a.heads;
  a.query = query.data(), a.keys = keys.data(), a.values = values.data(), a.seen = seen.data();
  a.hidden = a.span ? hidden.data() : nullptr;
  a.oldest = between(0, 1) ? oldest.data() : nullptr;
  std::vector<float> results[2];
  const Variant* both[] = {&reference, &variant};
  for (int i = 0; i < 2; ++i) {
    std::vector<float> partial(chunks * heads * a.size), maximum(chunks * heads), total(chunks * heads);
    a.partial = partial.data(), a.maximum = maximum.data(), a.total = total.data();
    for (int64_t task = 0; task < chunks * a.kv_heads; ++task)
      both[i]->attend[sizeof(Row) == 2](a, task % a.kv_heads, task / a.kv_heads);
    results[i].resize(heads * a.size);
    both[i]->join(a, chunks, a.slots % 2 ? sinks.data() : nullptr, results[i].data(), 0, heads);
  }
  require_equal(results[1], results[0], std::string(variant.name) + " TreeAttention");
}

void check_between(const Variant& reference, const Variant& variant) {
  const int64_t count = between(1, 100);
  const auto x = normal(count), other = normal(count), weight = normal(count);
  std::vector<float> results[2];
  const Variant* both[] = {&reference, &variant};
  for (int i = 0; i < 2; ++i) {
    results[i].resize(3 * count);
    float* const out = results[i].data();
    both[i]->gate(x.data(), other.data(), out, count);
    both[i]->add_norm(x.data(), other.data(), weight.data(), 1e-5f, count, out + count, out + 2 * count);
  }
  require_equal(results[1], results[0], std::string(variant.name) + " gate and norm");
}

// Equal values, NaN and infinities stand among them.
void check_largest(const Variant& reference, const Variant& variant) {
  auto x = normal(between(1, 3000));
  const float values[] = {NAN, -INFINITY, INFINITY, 3.0f};
  const float value = values[between(0, 3)];
  for (int64_t i = between(0, 4); i > 0; --i) x[between(0, x.size() - 1)] = value;
  if (between(0, 9) == 0) std::fill(x.begin(), x.end(), values[between(0, 3)]);
  const int64_t expected = reference.largest(x.data(), x.size()), result = variant.largest(x.data(), x.size());
  if (result == expected) return;
  std::printf("%s ArgMax: %lld where the reference has %lld\n", variant.name, (long long)result, (long long)expected);
  std::exit(1);
}

// Compares every variant that runs here with the reference, which stands first.
void check(const Variant* const* all, size_t count, int rounds, unsigned seed) {
  g_random.seed(seed);
  for (size_t i = 1; i < count; ++i) {
    const Variant& variant = *all[i];
    for (int round = 0; specc::supported(variant) && round < rounds; ++round) {
      if (variant.linear_bf16) check_dense(*all[0], variant, true);
      if (variant.linear_f32) check_dense(*all[0], variant, false);
      if (variant.linear_nbits) check_nbits(*all[0], variant);
      if (variant.attend[0]) check_attention<float>(*all[0], variant);
      if (variant.attend[1]) check_attention<uint16_t>(*all[0], variant);
      if (variant.gate && variant.add_norm) check_between(*all[0], variant);
      if (variant.largest) check_largest(*all[0], variant);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 100, threads = argc > 2 ? std::atoi(argv[2]) : 1;
  size_t count = 0;
  const Variant* const* all = specc::variants(&count);
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(check, all, count, rounds, i + 1);
  check(all, count, rounds, 1);
  for (std::thread& other : others) other.join();
  std::string names;
  for (size_t i = 1; i < count; ++i)
    if (specc::supported(*all[i])) names += std::string(" ") + all[i]->name;
  std::printf("%d rounds, equal to the reference:%s\n", rounds, names.empty() ? " no other variant" : names.c_str());
  return 0;
}
