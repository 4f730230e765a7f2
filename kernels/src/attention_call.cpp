#include "attention_call.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "matrix.h"
#include "variants.h"

namespace specc {
namespace {

enum Input : size_t { kPastLen, kWidths, kPositions, kCos, kSin, kMask, kSinks };

constexpr int64_t kSerialWork = 1 << 17;  // products that one thread does sooner than it wakes another
constexpr int64_t kJoinParts = 8;
constexpr int64_t kMost = 1 << 20;  // heads, and numbers of a head: products of both and of slots stay far below 2^63

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
struct AttentionCall::Lane {
  int64_t first, slots, past, capacity;  // `first` of all slots
  float *keys, *values;
  std::vector<uint8_t> seen, hidden;
  std::vector<int64_t> oldest;
  int64_t span = 0, chunks = 0;
  float* query;  // [slots, heads, size]
  Attention attention{};
};

HeadSettings::HeadSettings(const Attributes& attributes)
    : heads(attributes.integer("num_heads")),
      kv_heads(attributes.integer("kv_num_heads")),
      window(attributes.integer("local_window_size", 0)),
      scale(attributes.real("scale")),
      softcap(attributes.real("softcap", 0.0f)),
      interleaved(attributes.integer("rotary_interleaved", 0) != 0),
      tree(attributes.integers("tree")) {
  require(heads > 0 && heads <= kMost && kv_heads > 0 && heads % kv_heads == 0,
          "num_heads is ", heads, " and kv_num_heads ", kv_heads, "; the first must be a multiple of the second, and at "
          "most ", kMost);
  require(window >= 0, "local_window_size is ", window, "; give 0 or more");
}

AttentionCall::~AttentionCall() = default;

AttentionCall::AttentionCall(const Call& call, const HeadSettings& settings, size_t first, size_t output, int64_t slots,
                             int64_t size, Scratch& scratch)
    : settings_(settings), slots_(slots), size_(size) {
  const int64_t heads = settings.heads, kv_heads = settings.kv_heads;
  const size_t caches = first + kFixed;
  require(call.inputs() > caches && (call.inputs() - caches) % 2 == 0,
          "keys and values of each lane must follow the ", caches, " inputs");
  const int64_t lanes = static_cast<int64_t>(call.inputs() - caches) / 2;
  const Tensor past_len = call.input(first + kPastLen), widths = call.input(first + kWidths);
  const Tensor mask = call.input(first + kMask);
  positions_ = call.input(first + kPositions), cos_ = call.input(first + kCos), sin_ = call.input(first + kSin);
  sinks_ = call.input(first + kSinks);
  require(size > 0 && size <= kMost && size % 16 == 0, "a head has the size ", size, "; a multiple of 16 is needed");
  require(past_len.data && past_len.size() == lanes,
          "past_len has the shape ", past_len.shape, " for ", lanes, " lanes");
  require(lanes == 1 || widths.data, "several lanes need the input widths");
  require(!widths.data || widths.size() == lanes, "widths has the shape ", widths.shape, " for ", lanes, " lanes");
  require(!positions_.data || positions_.size() == slots,
          "positions has the shape ", positions_.shape, " for ", slots, " slots");
  half_ = cos_.data ? cos_.shape.back() : 0;
  if (half_) {
    require(sin_.data && sin_.shape == cos_.shape && cos_.shape.size() == 2 && half_ <= size / 2 && positions_.data,
            "rotation needs positions, and cos and sin of one shape [rows, at most ", size / 2, "]");
    for (int64_t i = 0; i < slots; ++i)
      require(positions_.as<int64_t>()[i] >= 0 && positions_.as<int64_t>()[i] < cos_.shape[0],
              "position ", positions_.as<int64_t>()[i], " is outside the table of ", cos_.shape[0], " rows");
  }
  require(!settings.window || positions_.data, "a window needs positions");
  for (int64_t i = 0; settings.window && i < slots; ++i)
    require(positions_.as<int64_t>()[i] >= 0, "position ", positions_.as<int64_t>()[i], " is negative");
  require(!mask.data || (mask.shape.size() == 2 && mask.shape[0] == slots),
          "the mask has the shape ", mask.shape, "; [", slots, ", T] is needed");
  require(!sinks_.data || sinks_.size() == heads, "sinks must be one for each head");

  int64_t before = 0;
  lanes_.resize(lanes);
  for (int64_t l = 0; l < lanes; ++l) {
    Lane& lane = lanes_[l];
    const Tensor keys = call.input(caches + 2 * l), values = call.input(caches + 2 * l + 1);
    require(keys.shape.size() == 4 && keys.shape[0] == 1 && keys.shape[1] == kv_heads && keys.shape[3] == size &&
                values.shape == keys.shape,
            "a cache has the shape ", keys.shape, "; [1, ", kv_heads, ", capacity, ", size, "] is needed");
    lane.first = before;
    lane.slots = widths.data ? widths.as<int64_t>()[l] : slots;
    lane.past = past_len.as<int64_t>()[l];
    lane.capacity = keys.shape[2];
    before += lane.slots;
    require(lane.slots >= 0 && before <= slots, "the widths exceed the ", slots, " slots");
    require(lane.past >= 0 && lane.past <= lane.capacity - lane.slots,  // the sum could overflow
            lane.past, " rows and ", lane.slots, " slots exceed the capacity ", lane.capacity);
    lane.keys = static_cast<float*>(call.output(output + 2 * l, keys.shape));
    lane.values = static_cast<float*>(call.output(output + 2 * l + 1, keys.shape));
    require(lane.keys && lane.values, "keys and values of each lane must be outputs");
    if (lane.keys != keys.data) std::memcpy(lane.keys, keys.data, keys.size() * sizeof(float));
    if (lane.values != values.data) std::memcpy(lane.values, values.data, values.size() * sizeof(float));
    see(lane, mask, positions_.as<int64_t>());
    lane.chunks = (lane.past + lane.slots + kChunk - 1) / kChunk;
    work_ += lane.slots * heads * size * (lane.past + lane.slots);
    const int64_t queries = lane.slots * heads;
    lane.query = scratch.take<float>(queries * size);
    Attention& a = lane.attention;
    a.query = lane.query;
    a.keys = lane.keys;
    a.values = lane.values;
    a.partial = scratch.take<float>(lane.chunks * queries * size);
    a.maximum = scratch.take<float>(lane.chunks * queries);
    a.total = scratch.take<float>(lane.chunks * queries);
    a.seen = lane.seen.data();
    a.hidden = lane.span ? lane.hidden.data() : nullptr;
    a.oldest = lane.oldest.empty() ? nullptr : lane.oldest.data();
    a.span = lane.span;
    a.slots = lane.slots;
    a.heads = heads;
    a.kv_heads = kv_heads;
    a.capacity = lane.capacity;
    a.size = size;
    a.past = lane.past;
    a.softcap = settings.softcap;
  }
  require(before == slots, "the widths sum to ", before, " for ", slots, " slots");
}

bool AttentionCall::is_small() const { return work_ < kSerialWork; }

// Writes a lane's rows of one key-value head, and turns the queries that attend to it.
void AttentionCall::append(const Lane& lane, int64_t kv_head, const float* packed) const {
  const int64_t heads = settings_.heads, kv_heads = settings_.kv_heads, group = heads / kv_heads;
  const auto turn = [&](int64_t slot, int64_t head, float* to, float scale) {
    const int64_t position = half_ ? positions_.as<int64_t>()[lane.first + slot] : 0;
    rotate(packed + ((lane.first + slot) * settings_.packed() + head) * size_, to, cos_.as<float>() + position * half_,
           sin_.as<float>() + position * half_, half_, size_, settings_.interleaved, scale);
  };
  for (int64_t slot = 0; slot < lane.slots; ++slot) {
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
      turn(slot, head, lane.query + (slot * heads + head) * size_, settings_.scale);
    const int64_t row = (kv_head * lane.capacity + lane.past + slot) * size_;
    turn(slot, heads + kv_head, lane.keys + row, 1.0f);
    const float* value = packed + ((lane.first + slot) * settings_.packed() + heads + kv_heads + kv_head) * size_;
    std::memcpy(lane.values + row, value, size_ * sizeof(float));
  }
}

// Joins the chunks of a lane's rows of [slots, heads].
void AttentionCall::join(const Lane& lane, int64_t first, int64_t last, float* out) const {
  float* const of_lane = out + lane.first * settings_.heads * size_;
  active().join(lane.attention, lane.chunks, sinks_.as<float>(), of_lane, first, last);
}

void AttentionCall::add(const float* packed, float* out, std::vector<Stage>& stages) const {
  const int64_t heads = settings_.heads, kv_heads = settings_.kv_heads, group = heads / kv_heads;
  const int64_t parts = static_cast<int64_t>(lanes_.size()) * kv_heads;
  const bool in_one_chunk =
      std::all_of(lanes_.begin(), lanes_.end(), [](const Lane& lane) { return lane.chunks <= 1; });
  const auto of_head = [=](int64_t part) {
    const Lane& lane = lanes_[part / kv_heads];
    const int64_t kv_head = part % kv_heads;
    append(lane, kv_head, packed);
    if (!in_one_chunk || !lane.slots) return;
    active().attend[0](lane.attention, kv_head, 0);
    for (int64_t row = kv_head * group; row < lane.slots * heads; row += heads) join(lane, row, row + group, out);
  };
  stages.push_back({parts, of_head});
  if (in_one_chunk) return;

  int64_t tasks = 0;
  for (const Lane& lane : lanes_) tasks += lane.slots ? lane.chunks * kv_heads : 0;
  const auto of_chunk = [=](int64_t task) {
    for (const Lane& lane : lanes_) {
      if (!lane.slots) continue;
      if (task < lane.chunks * kv_heads) return active().attend[0](lane.attention, task % kv_heads, task / kv_heads);
      task -= lane.chunks * kv_heads;
    }
  };
  stages.push_back({tasks, of_chunk});
  const int64_t joins = std::min(slots_, kJoinParts);
  const auto of_slots = [=](int64_t part) {
    const int64_t first = slots_ * part / joins, last = slots_ * (part + 1) / joins;
    for (const Lane& lane : lanes_) {
      const int64_t from = std::max(first, lane.first) - lane.first;
      const int64_t to = std::min(last, lane.first + lane.slots) - lane.first;
      if (from < to) join(lane, from * heads, to * heads, out);
    }
  };
  stages.push_back({joins, of_slots});
}

// Fills in what the slots of a lane see.
void AttentionCall::see(Lane& lane, const Tensor& mask, const int64_t* positions) const {
  const int64_t n = lane.slots, words = (n + 63) / 64;
  lane.seen.assign(n * n, 0);
  if (mask.data) {
    const int64_t width = mask.shape[1];
    require(width >= n, "the mask has ", width, " columns for ", n, " slots");
    const bool* rows = mask.as<bool>() + lane.first * width;
    lane.span = std::min(width - n, lane.past);
    lane.hidden.assign(n * lane.span, 0);
    for (int64_t i = 0; i < n; ++i) {
      const bool* own = rows + i * width + width - n;
      for (int64_t j = 0; j < n; ++j) lane.seen[i * n + j] = own[j];
      for (int64_t j = 0; j < lane.span; ++j) lane.hidden[i * lane.span + j] = !own[j - lane.span];
    }
  } else if (!settings_.tree.empty()) {
    require(static_cast<int64_t>(settings_.tree.size()) == n * words,
            "the attribute tree has ", settings_.tree.size(), " words for ", n, " slots");
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j) lane.seen[i * n + j] = static_cast<uint64_t>(settings_.tree[i * words + j / 64]) >> j % 64 & 1;
  } else {
    for (int64_t i = 0; i < n; ++i) std::fill_n(lane.seen.data() + i * n, i + 1, 1);
  }
  if (!settings_.window) return;
  // A row before the slots' stands at its number; a slot's own row stands at its position, unless the mask also
  // covers rows before, when it stands at its number too.
  const bool by_number = mask.data && mask.shape[1] != n;
  positions += lane.first;
  lane.oldest.resize(n);
  for (int64_t i = 0; i < n; ++i) {
    lane.oldest[i] = std::clamp<int64_t>(positions[i] - settings_.window + 1, 0, lane.past);
    for (int64_t j = 0; j < n; ++j)
      if (lane.seen[i * n + j] && (by_number ? lane.past + j : positions[j]) <= positions[i] - settings_.window)
        lane.seen[i * n + j] = kTooFar;
  }
}

}  // namespace specc
