// SPDX-License-Identifier: Apache-2.0
// ProbeBoard: the probes that the forwarder itself sends. The control thread orders them, the announcing worker sends
// them, and any worker may get the reply.
//
// A probe has a slot. Its number is also the probe's source port, so a reply names its slot. A reply counts only if it
// comes from the probed VIP and port, goes to the probe's source address, and acknowledges the sent number. The ports
// kFirstProbePort .. kFirstProbePort + kMaxProbes - 1 are beyond those that Linux gives out by default. If the kernel
// has the port's own addresses (punt: tap), it still gets every frame that is no reply to a probe.
//
// Threads: order(), take_done() and cancel() belong to the control thread, send_due() to the announcing worker, and
// take() to any worker. Each field has one writer at a time, which the slot's phase defines. Workers neither lock nor
// allocate. Without a probe, send_due() costs one load, and frames cost nothing, because only frames to our own
// addresses are compared.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "core/fd.h"
#include "l4/action.h"
#include "l4/ids.h"
#include "l4/neighbour.h"
#include "l4/packet_view.h"
#include "l4/probe/frame.h"

namespace tidegate::l4 {

// X(name, sentence): how a probe ended.
#define TIDEGATE_L4_PROBE_ENDS(X)                                                \
  X(answered, "the backend answered for the VIP")                                \
  X(refused, "the backend refused: nobody listens there")                        \
  X(timeout, "nothing came in time")                                             \
  X(no_address, "the backend has no address of the VIP's family")                \
  X(no_source, "the port has no address of its own of the VIP's family")         \
  X(no_neighbour, "the backend's MAC address is not known: no ARP or ND answer") \
  X(too_long, "the tunnel to the backend has no room for the probe")

enum class ProbeEnd : uint8_t {
#define TIDEGATE_L4_ENUMERATE(name, sentence) name,
  TIDEGATE_L4_PROBE_ENDS(TIDEGATE_L4_ENUMERATE)
#undef TIDEGATE_L4_ENUMERATE
      count_,
};
std::string_view name(ProbeEnd end);
std::string_view sentence(ProbeEnd end);

constexpr uint16_t kFirstProbePort = 61'000;

struct ProbeOrder {
  uint8_t protocol = kProtocolTcp;  // or kProtocolUdp
  IpAddress vip;
  uint16_t port = 0;
  NeighbourId neighbour =
      kNoNeighbour;                   // neighbour of the backend, in the family of the VIP; with a tunnel: its next hop
  uint32_t sequence = 0;              // TCP: the number that the backend must acknowledge; it must not be guessable
  std::string_view payload;           // UDP; the caller keeps it until the slot is free
  std::optional<Action> tunnel = {};  // the tunnel to the backend
};

class ProbeBoard {
 public:
  struct Done {
    ProbeEnd end = ProbeEnd::timeout;
    std::string_view reply;  // the first bytes of a datagram; valid until the slot is used again
  };
  enum class Taken : uint8_t { not_ours, consumed, answer };

  ProbeBoard();

  // Returns the slot, or nothing if all are in use. Wake the announcing worker then.
  std::optional<uint16_t> order(const ProbeOrder& order);
  // The result of the probe, if it has ended. Then the slot is free.
  std::optional<Done> take_done(uint16_t slot);
  // The time of the probe is over. Returns its result if it has one by now. The slot is free then.
  std::optional<Done> cancel(uint16_t slot);
  // Readable when a probe has ended; drain() makes it wait for the next one.
  int fd() const { return event_.get(); }
  void drain();

  // Sends ordered probes, at most `most` frames.
  void send_due(const Neighbours& neighbours, const std::vector<PortIdentity>& ports, size_t most, FrameSink& sink);
  // Handles a frame to one of our own addresses. `answer`: it was rewritten in place to a reset, which must leave by
  // the port on which it came; `bytes` is then its length.
  Taken take(uint8_t* frame, uint32_t& bytes, uint32_t capacity, const PacketView& view);

 private:
  enum class Phase : uint8_t {
    free,
    ordered,  // the control thread has written `order`
    sending,  // the announcing worker writes `source` and `mac`
    sent,
    taking,  // a worker writes the end
    done,
  };
  struct Slot {
    std::atomic<Phase> phase{Phase::free};
    ProbeOrder order;
    IpAddress source;
    Mac mac;  // MAC address of the backend, or of the tunnel's next hop
    uint32_t link_mtu = 0;
    ProbeEnd end = ProbeEnd::timeout;
    uint16_t reply_bytes = 0;
    std::array<char, kMaxProbeReply> reply;
  };

  void send(Slot& slot, uint16_t number, const Neighbours& neighbours, const std::vector<PortIdentity>& ports,
            FrameSink& sink);
  void finish(Slot& slot, ProbeEnd end);
  static bool begin_taking(Slot& slot);
  static uint32_t write_reset(uint8_t* frame, uint32_t capacity, const Slot& slot, uint16_t number);
  static bool is_reply(const Slot& slot, const ProbeReply& reply, const PacketView& view);

  std::vector<Slot> slots_;
  size_t next_ = 0;  // where order() begins its search, so that a port rests before it is used again
  // Ordered slots, from the control thread to the announcing worker.
  std::array<std::atomic<uint16_t>, kMaxProbes> queue_{};
  std::atomic<uint32_t> queued_{0}, unqueued_{0};
  UniqueFd event_;
};

}  // namespace tidegate::l4
