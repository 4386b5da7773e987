// SPDX-License-Identifier: Apache-2.0
// Neighbours: the MAC addresses of backends and gateways, resolved before they are needed and kept fresh. Each worker
// has its own, and no other thread touches it. Its memory is fixed; the time and the frame sink are arguments.
//
// The table holds only addresses that the configuration names. Messages about other addresses are not remembered, so
// nobody can fill the table. A packet to an unresolved backend is dropped with a named reason; it is not queued. All
// backends are asked for as soon as the tables hold them, long before a probe lets them have traffic.
//
// States, after RFC 4861 §7.3.2: For an `incomplete` neighbour, requests go to everybody, once a second and then less
// and less often, as long as the address is in the configuration. A `reachable` MAC is used for 30 s and then asked for
// again. A MAC in `probe` is used while it is asked for: three requests to the neighbour itself, then three to
// everybody; then it is `incomplete`. If a MAC changes without a request, a request goes to everybody, and only the
// answer to that request is believed. A neighbour that answers none of kAsksUntilSilent requests to everybody is
// `silent`. The board is told so, and the neighbour gets no new flows until it answers.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "l4/kept_neighbour.h"
#include "l4/link_sets.h"
#include "l4/neighbour_board.h"
#include "l4/neighbour_wire.h"
#include "l4/vlan.h"

namespace tidegate::l4 {

// The addresses of a port on its link.
struct PortIdentity {
  Mac mac;
  std::vector<std::pair<IpAddress, uint8_t>> addresses;  // our own addresses with their prefix lengths
  PortTags tags;
  uint32_t mtu = 0;  // the longest IP packet that its link takes; 0: not known
  // Set if this port is a further VLAN of another port's device: the index of that other port. Its queue receives the
  // frames of both.
  std::optional<uint16_t> arrives_by = {};
};

// The sender of a request for `target` on a port's link: the port's MAC address, and its own address in the target's
// network if it has one.
OwnIdentity identity_towards(const PortIdentity& port, const IpAddress& target);

// Sends frames of our own. Called on the worker's thread.
class FrameSink {
 public:
  virtual void send(uint16_t port, const uint8_t* frame, size_t bytes) = 0;

 protected:
  ~FrameSink() = default;
};

enum class NeighbourState : uint8_t { unused, incomplete, reachable, probe };
const char* name(NeighbourState state);

// The state of a neighbour, for operators.
struct NeighbourView {
  IpAddress address;
  Mac mac;  // zero: not known
  uint16_t port = 0;
  NeighbourState state = NeighbourState::unused;
};

// Only the fields that are needed to rewrite a frame: sixteen bytes, four entries to a cache line.
struct NextHop {
  uint8_t ethernet_addresses[12] = {};  // destination and source, in the order of the frame
  uint16_t port = 0;
  bool usable = false;
};
static_assert(sizeof(NextHop) == 16);

enum class Learned : uint8_t { expected, unknown };

class Neighbours {
 public:
  // `board` is told which neighbours are silent. It is null if another worker reports them.
  explicit Neighbours(std::vector<PortIdentity> ports, NeighbourBoard* board = nullptr);

  // Call for new tables. Keeps the states of addresses that stay, forgets removed addresses, and asks for new ones at
  // the next tick. If the set is the same, it costs nothing; otherwise it costs a walk over both sets.
  void set_targets(std::shared_ptr<const NeighbourSet> set, uint32_t now_ms);

  // Call before the first set_targets(): reads what an earlier process knew from `records` (kMaxNeighbours of them). A
  // neighbour that answered in the last kKeptMs is used while it is asked for again.
  void recall(const KeptNeighbour* records, uint32_t now_ms);
  // From now on each answer is also written to `records`, for the next process. They must outlive this object.
  void keep(KeptNeighbour* records) { kept_ = records; }

  // A port was opened again, perhaps with another MAC address.
  void set_ports(std::vector<PortIdentity> ports);
  // A link came back: every neighbour that is not known is asked for at once.
  void ask_again(uint32_t now_ms);

  const NextHop& next_hop(NeighbourId id) const { return index_of(id) < hops_.size() ? hops_[index_of(id)] : kNoHop; }
  // A station has reported that `address` is at `mac`, after a request or without one.
  Learned learn(const IpAddress& address, const Mac& mac, uint32_t now_ms);
  // Sends the requests that are due. One call looks at kMaxSlotsPerTick neighbours and sends at most `most_frames`
  // frames; the next call continues from there. So thousands of neighbours cost a worker no more cache and time per
  // call than hundreds.
  void tick(uint32_t now_ms, size_t most_frames, FrameSink& sink);

  NeighbourState state(NeighbourId id) const { return slots_[index_of(id)].state; }
  // The MAC address of a neighbour that the set names. Zero: it is not known.
  Mac mac_of(const IpAddress& address) const;
  size_t resolved() const { return resolved_; }
  size_t targets() const { return set_->targets.size(); }
  // Appends up to `most` neighbours to `out`, starting at `from`. Returns where the next call continues; nothing after
  // the last one.
  std::optional<size_t> list(size_t from, size_t most, std::vector<NeighbourView>& out) const;

  static constexpr size_t kMaxSlotsPerTick = 256;
  static constexpr size_t kMaxFramesPerTick = 64;
  static constexpr uint32_t kRetransmitMs = 1'000;  // RFC 4861 §10, RETRANS_TIMER
  static constexpr uint32_t kSlowestRetryMs = 8'000;
  static constexpr uint32_t kReachableMs = 30'000;  // RFC 4861 §10, REACHABLE_TIME
  static constexpr unsigned kUnicastProbes = 3, kBroadcastProbes = 3;
  static constexpr uint32_t kKeptMs = 60'000;      // in this time a neighbour in use is asked for twice
  static constexpr unsigned kAsksUntilSilent = 4;  // three seconds without an answer

 private:
  struct Slot {
    IpAddress address;
    Mac mac;
    NeighbourState state = NeighbourState::unused;
    uint8_t asked = 0;  // requests sent in this state
    uint16_t port = 0;
    uint32_t due_ms = 0;  // when the next request is due
    uint32_t set = 0;     // number of the last set that named it
  };
  static constexpr NextHop kNoHop{};

  Slot* find(const IpAddress& address);
  void ask(Slot& slot, uint32_t now_ms, FrameSink& sink);
  void set_state(Slot& slot, NeighbourState state, uint32_t due_ms);
  void update_hop(const Slot& slot);
  void set_hop(size_t index, const NextHop& hop);

  void tell(const Slot& slot, bool silent);
  const KeptNeighbour* recalled(const NeighbourTarget& target) const;
  void write_kept(const Slot& slot, uint32_t now_ms);

  std::vector<PortIdentity> ports_;
  NeighbourBoard* board_;
  std::vector<Slot> slots_;    // by NeighbourId
  std::vector<NextHop> hops_;  // by NeighbourId
  std::shared_ptr<const NeighbourSet> set_;
  std::vector<KeptNeighbour> recalled_;  // ordered by address; empty after the first set_targets()
  KeptNeighbour* kept_ = nullptr;        // by NeighbourId; null: not kept, or another worker writes them
  uint32_t sets_ = 0;                    // number of sets adopted so far
  size_t resolved_ = 0;                  // usable next hops
  size_t next_ = 0;                      // the target at which the next tick continues
};

}  // namespace tidegate::l4
