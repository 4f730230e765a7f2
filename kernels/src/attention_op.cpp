#include "attention_op.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "variants.h"

namespace specc {
namespace {

enum Input : size_t { kPacked, kPastLen, kWidths, kPositions, kCos, kSin, kMask, kSinks, kCaches };

constexpr int64_t kSerialWork = 1 << 17;  // products that one thread does sooner than it wakes another

// Rotates one head: pairs are (i, i + half), or (2 i, 2 i + 1) where interleaved.
void rotate(const float* from, float* __restrict to, const float* cos, const float* sin, int64_t half, int64_t size,
            bool interleaved, float scale) {
  const auto pairs = [&](int64_t step, int64_t other) {
    for (int64_t i = 0; i < half; ++i) {
      const float a = from[i * step], b = from[i * step + other];
      to[i * step] = (a * cos[i] - b * sin[i]) * scale;
      to[i * step + other] = (b * cos[i] + a * sin[i]) * scale;
    }
  };
  interleaved ? pairs(2, 1) : pairs(1, half);  // each call is compiled for its steps
  for (int64_t i = 2 * half; i < size; ++i) to[i] = from[i] * scale;
}

}  // namespace

// One lane's part of a call.
struct TreeAttention::Lane {
  int64_t first, slots, past, capacity;  // `first` of all slots
  float *keys, *values;
  std::vector<uint8_t> seen, hidden;
  std::vector<int64_t> oldest;
  int64_t span = 0, chunks = 0;
  Attention attention{};
};

TreeAttention::TreeAttention(const Attributes& attributes)
    : heads_(attributes.integer("num_heads")),
      kv_heads_(attributes.integer("kv_num_heads")),
      window_(attributes.integer("local_window_size", 0)),
      scale_(attributes.real("scale")),
      softcap_(attributes.real("softcap", 0.0f)),
      interleaved_(attributes.integer("rotary_interleaved", 0) != 0),
      tree_(attributes.integers("tree")) {
  require(heads_ > 0 && kv_heads_ > 0 && heads_ % kv_heads_ == 0,
          "num_heads is " + std::to_string(heads_) + " and kv_num_heads " + std::to_string(kv_heads_) +
              "; the first must be a multiple of the second");
}

void TreeAttention::append(const Lane& lane, const float* packed, const int64_t* positions, const float* cos,
                           const float* sin, int64_t half, float* query) const {
  const int64_t size = lane.attention.size, width = (heads_ + 2 * kv_heads_) * size;
  for (int64_t i = 0; i < lane.slots; ++i) {
    const float* from = packed + (lane.first + i) * width;
    const int64_t position = half ? positions[lane.first + i] : 0;
    const float *c = cos + position * half, *s = sin + position * half;
    for (int64_t h = 0; h < heads_; ++h, from += size)
      rotate(from, query + ((lane.first + i) * heads_ + h) * size, c, s, half, size, interleaved_, scale_);
    const int64_t row = lane.past + i;
    for (int64_t h = 0; h < kv_heads_; ++h, from += size)
      rotate(from, lane.keys + (h * lane.capacity + row) * size, c, s, half, size, interleaved_, 1.0f);
    for (int64_t h = 0; h < kv_heads_; ++h, from += size)
      std::memcpy(lane.values + (h * lane.capacity + row) * size, from, size * sizeof(float));
  }
}

void TreeAttention::compute(const Call& call) const {
  const size_t inputs = call.inputs();
  const Tensor packed = call.input(kPacked), past_len = call.input(kPastLen), widths = call.input(kWidths);
  const Tensor positions = call.input(kPositions), cos = call.input(kCos), sin = call.input(kSin);
  const Tensor mask = call.input(kMask), sinks = call.input(kSinks);
  require(inputs > kCaches && (inputs - kCaches) % 2 == 0, "keys and values of each lane must follow the 8 inputs");
  const int64_t lanes = static_cast<int64_t>(inputs - kCaches) / 2;
  require(packed.shape.size() == 3 && packed.shape[0] == 1 && packed.shape[2] % (heads_ + 2 * kv_heads_) == 0,
          "query, key and value have the shape " + to_string(packed.shape) + "; [1, slots, " +
              std::to_string(heads_ + 2 * kv_heads_) + " * size] is needed");
  const int64_t slots = packed.shape[1], size = packed.shape[2] / (heads_ + 2 * kv_heads_);
  require(size % 16 == 0, "a head has the size " + std::to_string(size) + "; a multiple of 16 is needed");
  require(past_len.size() == lanes, "past_len has the shape " + to_string(past_len.shape) + " for " +
                                        std::to_string(lanes) + " lanes");
  require(lanes == 1 || widths.data, "several lanes need the input widths");
  require(!widths.data || widths.size() == lanes,
          "widths has the shape " + to_string(widths.shape) + " for " + std::to_string(lanes) + " lanes");
  require(!positions.data || positions.size() == slots,
          "positions has the shape " + to_string(positions.shape) + " for " + std::to_string(slots) + " slots");
  const int64_t half = cos.data ? cos.shape.back() : 0;
  if (half) {
    require(sin.data && sin.shape == cos.shape && cos.shape.size() == 2 && 2 * half <= size && positions.data,
            "rotation needs positions, and cos and sin of one shape [rows, at most " + std::to_string(size / 2) + "]");
    for (int64_t i = 0; i < slots; ++i)
      require(positions.as<int64_t>()[i] >= 0 && positions.as<int64_t>()[i] < cos.shape[0],
              "position " + std::to_string(positions.as<int64_t>()[i]) + " is outside the table of " +
                  std::to_string(cos.shape[0]) + " rows");
  }
  require(!window_ || positions.data, "a window needs positions");
  require(!mask.data || (mask.shape.size() == 2 && mask.shape[0] == slots),
          "the mask has the shape " + to_string(mask.shape) + "; [" + std::to_string(slots) + ", T] is needed");
  require(!sinks.data || sinks.size() == heads_, "sinks must be one for each head");

  auto* const out = static_cast<float*>(call.output(0, {1, slots, heads_ * size}));
  std::vector<Lane> all(lanes);
  int64_t first = 0, chunks = 0, work = 0, tasks = 0;
  for (int64_t l = 0; l < lanes; ++l) {
    Lane& lane = all[l];
    const Tensor keys = call.input(kCaches + 2 * l), values = call.input(kCaches + 2 * l + 1);
    require(keys.shape.size() == 4 && keys.shape[0] == 1 && keys.shape[1] == kv_heads_ && keys.shape[3] == size &&
                values.shape == keys.shape,
            "a cache has the shape " + to_string(keys.shape) + "; [1, " + std::to_string(kv_heads_) +
                ", capacity, " + std::to_string(size) + "] is needed");
    lane.first = first;
    lane.slots = widths.data ? widths.as<int64_t>()[l] : slots;
    lane.past = past_len.as<int64_t>()[l];
    lane.capacity = keys.shape[2];
    first += lane.slots;
    require(lane.slots >= 0 && first <= slots, "the widths exceed the " + std::to_string(slots) + " slots");
    require(lane.past >= 0 && lane.past + lane.slots <= lane.capacity,
            std::to_string(lane.past) + " rows and " + std::to_string(lane.slots) + " slots exceed the capacity " +
                std::to_string(lane.capacity));
    lane.keys = static_cast<float*>(call.output(1 + 2 * l, keys.shape));
    lane.values = static_cast<float*>(call.output(2 + 2 * l, keys.shape));
    if (lane.keys != keys.data) std::memcpy(lane.keys, keys.data, keys.size() * sizeof(float));
    if (lane.values != values.data) std::memcpy(lane.values, values.data, values.size() * sizeof(float));
    see(lane, mask, positions.as<int64_t>());
    lane.chunks = (lane.past + lane.slots + kChunk - 1) / kChunk;
    chunks += lane.chunks * lane.slots;
    tasks += lane.chunks * kv_heads_;
    work += lane.slots * heads_ * size * (lane.past + lane.slots);
  }
  require(first == slots, "the widths sum to " + std::to_string(first) + " for " + std::to_string(slots) + " slots");

  // Kept between calls; a kernel may run in several threads at once.
  thread_local std::vector<float> scratch;
  scratch.resize(slots * heads_ * size + chunks * heads_ * (size + 2));
  float *const query = scratch.data(), *partial = query + slots * heads_ * size;
  for (Lane& lane : all) {
    Attention& a = lane.attention;
    a.query = query + lane.first * heads_ * size;
    a.keys = lane.keys;
    a.values = lane.values;
    a.partial = partial;
    a.maximum = partial + lane.chunks * lane.slots * heads_ * size;
    a.total = a.maximum + lane.chunks * lane.slots * heads_;
    partial = a.total + lane.chunks * lane.slots * heads_;
    a.seen = lane.seen.data();
    a.hidden = lane.span ? lane.hidden.data() : nullptr;
    a.oldest = lane.oldest.empty() ? nullptr : lane.oldest.data();
    a.span = lane.span;
    a.slots = lane.slots;
    a.heads = heads_;
    a.kv_heads = kv_heads_;
    a.capacity = lane.capacity;
    a.size = size;
    a.past = lane.past;
    a.softcap = softcap_;
    append(lane, packed.as<float>(), positions.as<int64_t>(), cos.as<float>(), sin.as<float>(), half, query);
  }

  const AttendFn attend = active().attend[0];
  const JoinFn join = active().join;
  const auto run = [&](int64_t task) {
    for (const Lane& lane : all) {
      if (task < lane.chunks * kv_heads_) return attend(lane.attention, task % kv_heads_, task / kv_heads_);
      task -= lane.chunks * kv_heads_;
    }
  };
  if (work < kSerialWork) {
    for (int64_t task = 0; task < tasks; ++task) run(task);
  } else {
    call.parallel(tasks, run);
  }
  for (const Lane& lane : all)
    if (lane.slots) join(lane.attention, lane.chunks, sinks.as<float>(), out + lane.first * heads_ * size);
}

// Fills in what the slots of a lane see.
void TreeAttention::see(Lane& lane, const Tensor& mask, const int64_t* positions) const {
  const int64_t n = lane.slots, words = (n + 63) / 64;
  lane.seen.assign(n * n, 0);
  if (mask.data) {
    const int64_t width = mask.shape[1];
    require(width >= n, "the mask has " + std::to_string(width) + " columns for " + std::to_string(n) + " slots");
    const bool* rows = mask.as<bool>() + lane.first * width;
    lane.span = std::min(width - n, lane.past);
    lane.hidden.assign(n * lane.span, 0);
    for (int64_t i = 0; i < n; ++i) {
      const bool* own = rows + i * width + width - n;
      for (int64_t j = 0; j < n; ++j) lane.seen[i * n + j] = own[j];
      for (int64_t j = 0; j < lane.span; ++j) lane.hidden[i * lane.span + j] = !own[j - lane.span];
    }
  } else if (!tree_.empty()) {
    require(static_cast<int64_t>(tree_.size()) == n * words,
            "the attribute tree has " + std::to_string(tree_.size()) + " words for " + std::to_string(n) + " slots");
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j) lane.seen[i * n + j] = static_cast<uint64_t>(tree_[i * words + j / 64]) >> j % 64 & 1;
  } else {
    for (int64_t i = 0; i < n; ++i) std::fill_n(lane.seen.data() + i * n, i + 1, 1);
  }
  if (!window_) return;
  // A row before the slots' stands at its number; a slot's own row stands at its position, unless the mask also
  // covers rows before, when it stands at its number too.
  const bool by_number = mask.data && mask.shape[1] != n;
  positions += lane.first;
  lane.oldest.resize(n);
  for (int64_t i = 0; i < n; ++i) {
    lane.oldest[i] = std::clamp<int64_t>(positions[i] - window_ + 1, 0, lane.past);
    for (int64_t j = 0; j < n; ++j)
      if (lane.seen[i * n + j] && (by_number ? lane.past + j : positions[j]) <= positions[i] - window_)
        lane.seen[i * n + j] = kTooFar;
  }
}

}  // namespace specc
