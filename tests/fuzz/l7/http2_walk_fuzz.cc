// SPDX-License-Identifier: Apache-2.0
// Http2Walk over any bytes in pieces of any size, compared with a naive twin that sees all of them at once. Input: how
// the bytes are cut (pairs of piece and allowance, up to a zero), then the bytes themselves.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <utility>
#include <vector>

#include "l7/h2/walk.h"

namespace {

using namespace tidegate::l7;

struct Counted {
  uint64_t frames = 0;
  Http2Conduct conduct;
  bool operator==(const Counted&) const = default;
};

// All frames with complete heads, after the preface.
Counted naive(std::string_view bytes) {
  Counted out;
  for (size_t at = 24; at + 9 <= bytes.size();) {
    const auto octet = [&](size_t i) { return static_cast<uint8_t>(bytes[at + i]); };
    const size_t length = size_t{octet(0)} << 16 | size_t{octet(1)} << 8 | octet(2);
    const uint8_t type = octet(3);
    ++out.frames;
    if (type == 0 && length > 0) {
      out.conduct.on_data_frame();
    } else {
      out.conduct.on_frame(type == 1 || type == 9 ? length : 0);
    }
    if (type == 3) out.conduct.on_reset();
    at += 9 + length;
  }
  return out;
}

std::vector<std::pair<size_t, uint64_t>> take_cuts(std::string_view& input) {
  std::vector<std::pair<size_t, uint64_t>> cuts;
  while (input.size() >= 2) {
    const auto piece = static_cast<uint8_t>(input[0]), frames = static_cast<uint8_t>(input[1]);
    input.remove_prefix(2);
    if (piece == 0) break;
    cuts.emplace_back(piece, frames);
  }
  if (cuts.empty()) cuts.emplace_back(1, 1);
  return cuts;
}

void expect(bool right) {
  if (!right) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto cuts = take_cuts(bytes);
  Http2Walk walk;
  Counted seen;
  size_t taken = 0, refused = 0;
  for (size_t turn = 0; taken < bytes.size(); ++turn) {
    const auto [piece, allowed] = cuts[turn % cuts.size()];
    // After a refusal one more frame is allowed, so that the walk ends.
    const uint64_t frames = refused > 0 ? std::max<uint64_t>(allowed, 1) : allowed;
    uint64_t left = frames;
    const std::string_view offered = bytes.substr(taken, piece);
    const size_t now = walk.next(offered, left, seen.conduct);
    expect(now <= offered.size() && left <= frames);
    expect(now == offered.size() || left == 0);  // it stops early only where it must
    seen.frames += frames - left;
    taken += now;
    refused = now == 0 ? refused + 1 : 0;
    expect(refused < 2);
  }
  expect(seen == naive(bytes));
  return 0;
}
