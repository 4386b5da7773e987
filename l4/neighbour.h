// SPDX-License-Identifier: Apache-2.0
// Neighbours: the MAC addresses of backends and gateways, resolved ahead of need and kept fresh. One a worker, touched
// by that worker alone. Memory is fixed; time and the way out are arguments.
//
// The table holds what the configuration names and nothing else: whatever a station says of another address is not
// remembered, so nobody can fill it. A packet to a backend that is not resolved is dropped by name instead of queued:
// all backends are asked for as soon as tables hold them, long before a probe lets them have traffic.
//
// States, after RFC 4861 §7.3.2: `incomplete` asks everybody, once a second and then less and less often, for as long
// as the configuration holds the address. `reachable` is used for 30 s and then asked again. `probe` is used while it
// is asked: three times itself, three times everybody; then it is `incomplete`. A MAC that changes unasked starts a
// question to everybody, and only the answer to that question is believed. One that answers none of kAsksUntilSilent
// questions to everybody is `silent`, and that is told: it gets no new flows until it answers.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "l4/link_sets.h"
#include "l4/neighbour_board.h"
#include "l4/neighbour_wire.h"

namespace tidegate::l4 {

// What a port is to the link it is on. Fixed when the forwarder starts.
struct PortIdentity {
  Mac mac;
  std::vector<std::pair<IpAddress, uint8_t>> addresses;  // own, with prefix lengths
};

// Where frames of our own go. Called on the worker's thread.
class FrameSink {
 public:
  virtual void send(uint16_t port, const uint8_t* frame, size_t bytes) = 0;

 protected:
  ~FrameSink() = default;
};

enum class NeighbourState : uint8_t { unused, incomplete, reachable, probe };

// What rewriting a frame needs, and nothing more: sixteen bytes, four to a cache line.
struct NextHop {
  uint8_t ethernet_addresses[12] = {};  // destination and source, as they lie in a frame
  uint16_t port = 0;
  bool usable = false;
};
static_assert(sizeof(NextHop) == 16);

enum class Learned : uint8_t { expected, unknown };

class Neighbours {
 public:
  // `board`: told which neighbours are silent; null where another worker does that.
  explicit Neighbours(std::vector<PortIdentity> ports, NeighbourBoard* board = nullptr);

  // New tables: keeps what is known of addresses that stay, forgets those that went, asks for new ones at the next
  // tick. The set of before costs nothing, another one a walk over both.
  void set_targets(std::shared_ptr<const NeighbourSet> set, uint32_t now_ms);

  // A port was opened anew, perhaps with another MAC address.
  void set_ports(std::vector<PortIdentity> ports);
  // A link came back: whoever is not known is asked for at once.
  void ask_again(uint32_t now_ms);

  const NextHop& next_hop(NeighbourId id) const { return index_of(id) < hops_.size() ? hops_[index_of(id)] : kNoHop; }
  // A station said (asked or unasked) that `address` is at `mac`.
  Learned learn(const IpAddress& address, const Mac& mac, uint32_t now_ms);
  // Sends what is due. Looks at `kMaxSlotsPerTick` neighbours a call and sends `most_frames` at most; the next call
  // goes on from there. So thousands of neighbours cost a worker no more cache and time than hundreds.
  void tick(uint32_t now_ms, size_t most_frames, FrameSink& sink);

  NeighbourState state(NeighbourId id) const { return slots_[index_of(id)].state; }
  size_t resolved() const { return resolved_; }
  size_t targets() const { return set_->targets.size(); }

  static constexpr size_t kMaxSlotsPerTick = 256;
  static constexpr size_t kMaxFramesPerTick = 64;
  static constexpr uint32_t kRetransmitMs = 1'000;  // RFC 4861 §10, RETRANS_TIMER
  static constexpr uint32_t kSlowestRetryMs = 8'000;
  static constexpr uint32_t kReachableMs = 30'000;  // RFC 4861 §10, REACHABLE_TIME
  static constexpr unsigned kUnicastProbes = 3, kBroadcastProbes = 3;
  static constexpr unsigned kAsksUntilSilent = 4;  // three seconds without an answer

 private:
  struct Slot {
    IpAddress address;
    Mac mac;
    NeighbourState state = NeighbourState::unused;
    uint8_t asked = 0;  // questions sent in this state
    uint16_t port = 0;
    uint32_t due_ms = 0;  // of the next question
    uint32_t set = 0;     // the last set that named it
  };
  static constexpr NextHop kNoHop{};

  Slot* find(const IpAddress& address);
  void ask(Slot& slot, uint32_t now_ms, FrameSink& sink);
  void set_state(Slot& slot, NeighbourState state, uint32_t due_ms);
  void update_hop(const Slot& slot);
  void set_hop(size_t index, const NextHop& hop);
  OwnIdentity identity_towards(uint16_t port, const IpAddress& target) const;

  void tell(const Slot& slot, bool silent);

  std::vector<PortIdentity> ports_;
  NeighbourBoard* board_;
  std::vector<Slot> slots_;    // by NeighbourId
  std::vector<NextHop> hops_;  // by NeighbourId
  std::shared_ptr<const NeighbourSet> set_;
  uint32_t sets_ = 0;    // adopted so far
  size_t resolved_ = 0;  // usable next hops
  size_t next_ = 0;      // where the next tick goes on among the targets
};

}  // namespace tidegate::l4
