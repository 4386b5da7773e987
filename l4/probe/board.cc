// SPDX-License-Identifier: Apache-2.0
#include "l4/probe/board.h"

#include <arpa/inet.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "core/assert.h"
#include "l4/tunnel.h"

namespace tidegate::l4 {
namespace {

constexpr size_t kProbeResetBytes = kEthernetBytes + kIp6HeaderBytes + 20;
constexpr uint32_t kProbeLinkMtu = 1'500;  // for a port that does not report its own MTU

constexpr std::string_view kProbeEndNames[] = {
#define TIDEGATE_L4_NAME(name, sentence) #name,
    TIDEGATE_L4_PROBE_ENDS(TIDEGATE_L4_NAME)
#undef TIDEGATE_L4_NAME
};
constexpr std::string_view kProbeEndSentences[] = {
#define TIDEGATE_L4_SENTENCE(name, sentence) sentence,
    TIDEGATE_L4_PROBE_ENDS(TIDEGATE_L4_SENTENCE)
#undef TIDEGATE_L4_SENTENCE
};

const IpAddress* own_address(const PortIdentity& port, const IpAddress& like) {
  for (const auto& [address, prefix] : port.addresses) {
    if (address.family == like.family) return &address;
  }
  return nullptr;
}

// A frame of a probe, with room for the outer header of its tunnel.
class ProbeFrame {
 public:
  // Returns false if the packet does not fit into the tunnel. `flow` selects the tunnel's values that differ by flow.
  bool write(const uint8_t* ethernet_addresses, const ProbePacket& packet, const std::optional<Action>& tunnel,
             uint32_t link_mtu, uint32_t flow) {
    frame_.data = buffer_.data() + kRoom;
    frame_.headroom = kRoom;
    frame_.capacity = kMaxProbeFrameBytes;
    frame_.bytes = static_cast<uint32_t>(write_probe_frame(frame_.data, ethernet_addresses, packet));
    if (!tunnel) return true;
    if (encapsulate(*tunnel, nullptr, uint64_t{flow} << 8, link_mtu, kEthernetBytes, frame_) != DropReason::none) {
      return false;
    }
    std::memcpy(frame_.data, ethernet_addresses, 12);
    return true;
  }
  const uint8_t* data() const { return frame_.data; }
  uint32_t bytes() const { return frame_.bytes; }

 private:
  static constexpr size_t kRoom = Action::kMostHeaderBytes;
  std::array<uint8_t, kRoom + kMaxProbeFrameBytes> buffer_;
  Frame frame_;
};

}  // namespace

std::string_view name(ProbeEnd end) { return kProbeEndNames[static_cast<size_t>(end)]; }
std::string_view sentence(ProbeEnd end) { return kProbeEndSentences[static_cast<size_t>(end)]; }

ProbeBoard::ProbeBoard() : slots_(kMaxProbes), event_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  TIDEGATE_ASSERT(event_, "the forwarder has descriptors left when it starts");
}

std::optional<uint16_t> ProbeBoard::order(const ProbeOrder& order) {
  const uint32_t queued = queued_.load(std::memory_order_relaxed);
  if (queued - unqueued_.load(std::memory_order_acquire) == queue_.size()) return std::nullopt;
  for (size_t tried = 0; tried < slots_.size(); ++tried) {
    const size_t number = (next_ + tried) % slots_.size();
    Slot& slot = slots_[number];
    if (slot.phase.load(std::memory_order_acquire) != Phase::free) continue;
    next_ = number + 1;
    slot.order = order;
    slot.reply_bytes = 0;
    slot.phase.store(Phase::ordered, std::memory_order_release);
    queue_[queued % queue_.size()].store(static_cast<uint16_t>(number), std::memory_order_relaxed);
    queued_.store(queued + 1, std::memory_order_release);
    return static_cast<uint16_t>(number);
  }
  return std::nullopt;
}

std::optional<ProbeBoard::Done> ProbeBoard::take_done(uint16_t number) {
  Slot& slot = slots_[number];
  if (slot.phase.load(std::memory_order_acquire) != Phase::done) return std::nullopt;
  const Done done{slot.end, {slot.reply.data(), slot.reply_bytes}};
  slot.phase.store(Phase::free, std::memory_order_relaxed);
  return done;
}

std::optional<ProbeBoard::Done> ProbeBoard::cancel(uint16_t number) {
  Slot& slot = slots_[number];
  for (;;) {
    Phase phase = slot.phase.load(std::memory_order_acquire);
    TIDEGATE_ASSERT(phase != Phase::free, "only a probe under way is cancelled");
    if (phase == Phase::done) return take_done(number);
    if ((phase == Phase::ordered || phase == Phase::sent) &&
        slot.phase.compare_exchange_strong(phase, Phase::free, std::memory_order_acq_rel)) {
      return std::nullopt;
    }
    ::sched_yield();  // a worker is using it for a moment
  }
}

void ProbeBoard::drain() {
  uint64_t count;
  [[maybe_unused]] const ssize_t got = ::read(event_.get(), &count, sizeof count);
}

void ProbeBoard::finish(Slot& slot, ProbeEnd end) {
  slot.end = end;
  slot.phase.store(Phase::done, std::memory_order_release);
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(event_.get(), &one, sizeof one);
}

void ProbeBoard::send_due(const Neighbours& neighbours, const std::vector<PortIdentity>& ports, size_t most,
                          FrameSink& sink) {
  uint32_t at = unqueued_.load(std::memory_order_relaxed);
  const uint32_t end = queued_.load(std::memory_order_acquire);
  for (; at != end && most > 0; ++at, --most) {
    const uint16_t number = queue_[at % queue_.size()].load(std::memory_order_relaxed);
    Slot& slot = slots_[number];
    Phase ordered = Phase::ordered;  // unless it was cancelled meanwhile
    if (!slot.phase.compare_exchange_strong(ordered, Phase::sending, std::memory_order_acq_rel)) continue;
    send(slot, number, neighbours, ports, sink);
  }
  unqueued_.store(at, std::memory_order_release);
}

void ProbeBoard::send(Slot& slot, uint16_t number, const Neighbours& neighbours, const std::vector<PortIdentity>& ports,
                      FrameSink& sink) {
  const ProbeOrder& order = slot.order;
  const NextHop& hop = neighbours.next_hop(order.neighbour);
  if (!hop.usable) return finish(slot, ProbeEnd::no_neighbour);
  const IpAddress* const source = own_address(ports[hop.port], order.vip);
  if (source == nullptr) return finish(slot, ProbeEnd::no_source);
  slot.source = *source;
  slot.mac = Mac::from(hop.ethernet_addresses);
  slot.link_mtu = ports[hop.port].mtu == 0 ? kProbeLinkMtu : ports[hop.port].mtu;
  ProbeFrame frame;
  const ProbePacket packet{.protocol = order.protocol,
                           .source = *source,
                           .destination = order.vip,
                           .source_port = static_cast<uint16_t>(kFirstProbePort + number),
                           .destination_port = order.port,
                           .sequence = order.sequence,
                           .tcp_flags = kTcpSyn,
                           .payload = order.payload};
  if (!frame.write(hop.ethernet_addresses, packet, order.tunnel, slot.link_mtu, order.sequence)) {
    return finish(slot, ProbeEnd::too_long);
  }
  slot.phase.store(Phase::sent, std::memory_order_release);
  sink.send(hop.port, frame.data(), frame.bytes());
}

// Turns a segment without a connection here into the reset that ends that connection (RFC 9293 §3.10.7.1). The reset
// goes back to the station that sent the segment, or through the tunnel. Returns its length; 0: there is no room.
uint32_t ProbeBoard::write_reset(uint8_t* frame, uint32_t capacity, const Slot& slot, uint16_t number) {
  uint8_t back[12];
  std::memcpy(back, slot.mac.bytes.data(), 6);
  std::memcpy(back + 6, frame, 6);
  const ProbePacket packet{.protocol = kProtocolTcp,
                           .source = slot.source,
                           .destination = slot.order.vip,
                           .source_port = static_cast<uint16_t>(kFirstProbePort + number),
                           .destination_port = slot.order.port,
                           .sequence = slot.order.sequence + 1,
                           .tcp_flags = kTcpRst,
                           .payload = {}};
  ProbeFrame reset;
  if (!reset.write(back, packet, slot.order.tunnel, slot.link_mtu, slot.order.sequence)) return 0;
  if (reset.bytes() > capacity) return 0;
  std::memcpy(frame, reset.data(), reset.bytes());
  return reset.bytes();
}

bool ProbeBoard::is_reply(const Slot& slot, const ProbeReply& reply, const PacketView& view) {
  const ProbeOrder& order = slot.order;
  if (view.protocol != order.protocol || ntohs(view.source_port_be) != order.port) return false;
  if (view.source != words_of(order.vip) || view.destination != words_of(slot.source)) return false;
  if (order.protocol == kProtocolUdp) return true;
  const bool reset = (reply.tcp_flags & kTcpRst) != 0;
  const bool accepted = (reply.tcp_flags & (kTcpSyn | kTcpAck)) == (kTcpSyn | kTcpAck);
  return (reset || accepted) && (reply.tcp_flags & kTcpAck) != 0 && reply.acknowledged == order.sequence + 1;
}

// From now on the slot belongs to this worker, until the probe ends or the frame proves not to be a reply. If another
// worker is just checking a frame, this worker waits for some nanoseconds. So a flood of frames that are no replies
// cannot hide the reply.
bool ProbeBoard::begin_taking(Slot& slot) {
  constexpr unsigned kMostTries = 1'000;
  for (unsigned tries = 0; tries < kMostTries; ++tries) {
    Phase phase = Phase::sent;
    if (slot.phase.compare_exchange_weak(phase, Phase::taking, std::memory_order_acq_rel)) return true;
    if (phase != Phase::sent && phase != Phase::taking) return false;
  }
  return false;
}

ProbeBoard::Taken ProbeBoard::take(uint8_t* frame, uint32_t& bytes, uint32_t capacity, const PacketView& view) {
  const uint16_t port = ntohs(view.destination_port_be);
  if (port < kFirstProbePort || port - kFirstProbePort >= static_cast<int>(kMaxProbes) || view.first_fragment) {
    return Taken::not_ours;
  }
  Slot& slot = slots_[port - kFirstProbePort];
  if (!begin_taking(slot)) return Taken::not_ours;
  const ProbeReply reply = read_probe_reply(frame, view);
  if (view.family != (slot.order.vip.is_v4() ? 4 : 6) || !is_reply(slot, reply, view)) {
    slot.phase.store(Phase::sent, std::memory_order_release);
    return Taken::not_ours;
  }
  const bool refused = view.protocol == kProtocolTcp && (reply.tcp_flags & kTcpRst) != 0;
  // A reply from another station than the probed one gets no reset. A reply to a probe through a tunnel may come from
  // any station.
  const bool reset = view.protocol == kProtocolTcp && !refused && capacity >= kProbeResetBytes &&
                     (slot.order.tunnel || Mac::from(frame + 6) == slot.mac);
  slot.reply_bytes = static_cast<uint16_t>(std::min<size_t>(reply.payload.size(), slot.reply.size()));
  std::copy_n(reply.payload.begin(), slot.reply_bytes, slot.reply.begin());
  // The reset is written before finish(), because after it the slot may belong to another probe.
  const uint32_t reset_bytes =
      reset ? write_reset(frame, capacity, slot, static_cast<uint16_t>(port - kFirstProbePort)) : 0;
  finish(slot, refused ? ProbeEnd::refused : ProbeEnd::answered);
  if (reset_bytes == 0) return Taken::consumed;
  bytes = reset_bytes;
  return Taken::answer;
}

}  // namespace tidegate::l4
