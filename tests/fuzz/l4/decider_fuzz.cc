// SPDX-License-Identifier: Apache-2.0
// A sequence of frames through a whole Decider. Each record has a length of two bytes, one byte of passing time, and
// the frame; each frame is on a heap buffer of its exact size. Every frame must get a verdict of the table, and a
// forwarded frame must differ from the input only in its Ethernet addresses.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <vector>

#include "l4/decider.h"
#include "tests/unit/l4/edge.h"

namespace {

using namespace tidegate::l4;

class Discard final : public FrameSink {
 public:
  void send(uint16_t, const uint8_t*, size_t bytes) override {
    if (bytes < 42 || bytes > kMaxMldFrameBytes) abort();
  }
};

// One Decider for all inputs: the flows and neighbours of one input are the history of the next.
struct Harness {
  testing::Edge edge;
  std::shared_ptr<const ForwardingTables> tables = edge.tables();
  WorkerCounters counters;
  Decider decider;
  uint32_t now_ms = 0;

  static DeciderConfig config() {
    DeciderConfig config;
    config.hasher = FlowHasher(testing::kFlowKey);
    config.ports = {PortIdentity{testing::kOurMac, {{testing::ip("10.0.0.2"), 24}, {testing::ip("fd00::2"), 64}}}};
    config.flows = 64;
    return config;
  }
  Harness() : decider(config(), counters) { decider.adopt(*tables, 0); }
};

void decide_one(Harness& harness, const uint8_t* bytes, size_t size) {
  const std::unique_ptr<uint8_t[]> buffer(new uint8_t[size]);
  std::copy(bytes, bytes + size, buffer.get());
  Frame frame;
  frame.data = buffer.get();
  frame.bytes = frame.capacity = static_cast<uint32_t>(size);
  Outcome outcome;
  harness.decider.decide(*harness.tables, &frame, &outcome, 1, harness.now_ms);
  if (outcome.verdict == Verdict::drop &&
      (outcome.reason == DropReason::none || outcome.reason >= DropReason::count_)) {
    abort();
  }
  const auto cut = static_cast<size_t>(frame.data - buffer.get());  // the priority tag was removed
  if (outcome.verdict == Verdict::forward &&
      (frame.bytes + cut != size || !std::equal(bytes + 12 + cut, bytes + size, frame.data + 12))) {
    abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Harness harness;
  static Discard sink;
  while (size >= 3) {
    const size_t frame_bytes = std::min<size_t>(load_be16(data), size - 3);
    harness.now_ms += uint32_t{data[2]} * 64;
    decide_one(harness, data + 3, frame_bytes);
    harness.decider.tick(harness.now_ms, sink);
    data += 3 + frame_bytes;
    size -= 3 + frame_bytes;
  }
  return 0;
}
