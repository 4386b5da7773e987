// SPDX-License-Identifier: Apache-2.0
#include "l4/worker.h"

#include <fmt/format.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_ring.h>

#include <algorithm>
#include <stdexcept>

#include "core/assert.h"
#include "core/clock.h"
#include "l4/limits.h"

namespace tidegate::l4 {
namespace {

constexpr uint64_t kLongestSleepNs = 100 * kNsPerMs;  // neighbour requests and sweeping continue while no frame comes
constexpr uint64_t kLongestSleepOfLacpNs = 50 * kNsPerMs;  // it loses its timing after 100 ms
constexpr unsigned kTransmitTries = 4;

// Data that travels with a frame to another worker, in the buffer's own scratch field.
struct Passage {
  uint16_t port;
  uint8_t asked;
  bool learn_only;
};
static_assert(sizeof(Passage) <= sizeof(uint32_t));

void attach(rte_mbuf* buffer, const Passage& passage) { std::memcpy(&buffer->hash.usr, &passage, sizeof passage); }
Passage detach(const rte_mbuf* buffer) {
  Passage passage;
  std::memcpy(&passage, &buffer->hash.usr, sizeof passage);
  return passage;
}

inline void describe(Frame& frame, rte_mbuf* buffer, const Passage& passage) {
  // A frame in several segments cannot be read as one piece. With these frame sizes, no driver here makes any.
  const bool whole = buffer->nb_segs == 1;
  frame.data = rte_pktmbuf_mtod(buffer, uint8_t*);
  frame.bytes = whole ? buffer->data_len : UINT16_MAX + 1u;
  frame.capacity = static_cast<uint32_t>(buffer->buf_len - buffer->data_off);
  frame.port = passage.port;
  frame.asked = passage.asked;
  frame.learn_only = passage.learn_only;
  frame.headroom = buffer->data_off;
}

}  // namespace

Worker::Worker(uint32_t number, DeciderConfig config, const std::vector<Port>& ports,
               const std::vector<PuntDevice>& punts, const PortBoard& board, Publisher& publisher)
    : number_(number),
      decider_(std::move(config), counters_),
      ports_(ports),
      punts_(punts),
      board_(board),
      publisher_(publisher),
      uses_port_(ports.size()),
      tags_(ports.size()),
      most_bytes_(ports.size()),
      outbound_(ports.size()) {
  inbox_ = rte_ring_create(fmt::format("inbox{}", number).c_str(), kInboxFrames, SOCKET_ID_ANY, RING_F_SC_DEQ);
  if (inbox_ == nullptr)
    throw std::runtime_error(fmt::format("inbox of worker {}: {}", number, rte_strerror(rte_errno)));
}

Worker::~Worker() { rte_ring_free(inbox_); }

void Worker::stop() {
  stop_.store(true, std::memory_order_release);
  wake();
}

uint32_t Worker::now_ms() const { return static_cast<uint32_t>(now_ns_ / kNsPerMs); }

void Worker::run() {
  publisher_.online(number_);
  now_ns_ = monotonic_ns();
  unsigned empty_bursts = 0;
  uint32_t ticked_ms = now_ms() - 1;
  while (!stop_.load(std::memory_order_acquire)) {
    const ForwardingTables& tables = *publisher_.current();
    adopt_if_new(tables);
    adopt_ports_if_new();
    size_t received = receive(tables) + receive_inbox(tables);
    if (now_ms() != ticked_ms || empty_bursts > 0) {
      ticked_ms = now_ms();
      decider_.tick(ticked_ms, *this);
      serve_lacp();
      received += receive_punted();
      answer_query();
    }
    flush();
    empty_bursts = received == 0 ? empty_bursts + 1 : 0;
    publisher_.quiescent(number_);
    account(monotonic_ns(), received != 0);
    if (empty_bursts >= Idle::kEmptyBurstsBeforeWait) {
      publisher_.offline(number_);
      idle_.wait(empty_bursts, lacp_ports_.empty() ? kLongestSleepNs : kLongestSleepOfLacpNs);
      publisher_.online(number_);
      account(monotonic_ns(), false);
    }
  }
  publisher_.offline(number_);
  answer_query();
}

void Worker::account(uint64_t now_ns, bool was_busy) {
  const uint64_t passed_ns = now_ns - now_ns_;
  now_ns_ = now_ns;
  counters_.elapsed_ns.add(passed_ns);
  if (was_busy) counters_.busy_ns.add(passed_ns);
}

void Worker::adopt_if_new(const ForwardingTables& tables) {
  if (tables.generation == adopted_generation_) return;
  decider_.adopt(tables, now_ms());
  adopted_generation_ = tables.generation;
}

void Worker::adopt_ports_if_new() {
  const uint64_t generation = board_.generation();
  if (generation == ports_generation_.load(std::memory_order_relaxed)) return;
  std::vector<PortIdentity> identities;
  std::vector<int> fds;
  bool all_pollable = true, came_back = false;
  used_ports_.clear();
  receiving_ports_.clear();
  lacp_ports_.clear();
  for (uint16_t port = 0; port < ports_.size(); ++port) {
    identities.push_back(ports_[port].identity());
    identities.back().mtu = ports_[port].mtu();
    const bool usable = board_.is_usable(port);
    tags_[port] = ports_[port].identity().tags;
    const uint32_t mtu = ports_[port].mtu();
    most_bytes_[port] = mtu == 0 ? UINT32_MAX : mtu + static_cast<uint32_t>(kEthernetBytes);
    came_back = came_back || (usable && !uses_port_[port]);
    uses_port_[port] = usable;
    if (usable) used_ports_.push_back(port);
    if (usable && number_ == 0 && !punts_.empty()) fds.push_back(punts_[port].fd());
    if (!board_.is_polled(port) || ports_[port].holder()) continue;
    receiving_ports_.push_back(port);
    if (ports_[port].is_agreed_by_lacp()) lacp_ports_.push_back(port);
    const std::vector<int>& of_queue = ports_[port].queue(number_).wake_fds;
    fds.insert(fds.end(), of_queue.begin(), of_queue.end());
    all_pollable = all_pollable && !of_queue.empty();
  }
  same_links_ =
      std::all_of(most_bytes_.begin(), most_bytes_.end(), [&](uint32_t bytes) { return bytes == most_bytes_.front(); });
  idle_.watch(fds, all_pollable);
  decider_.set_ports(std::move(identities));
  const uint64_t announcements = board_.announcements();
  if (came_back || announcements != announcements_) decider_.introduce(now_ms());
  announcements_ = announcements;
  ports_generation_.store(generation, std::memory_order_release);
}

// DPDK's bonding sends its LACP frames when its device is asked to send any, or none.
void Worker::serve_lacp() {
  for (const uint16_t port : lacp_ports_) {
    const PortQueue& queue = ports_[port].queue(number_);
    rte_eth_tx_burst(queue.device, queue.queue, nullptr, 0);
  }
}

bool Worker::has_left_ports(uint64_t generation) const {
  return ports_generation_.load(std::memory_order_acquire) == generation && rte_ring_empty(inbox_) != 0;
}

size_t Worker::receive(const ForwardingTables& tables) {
  size_t received = 0;
  for (const uint16_t port : receiving_ports_) {
    const PortQueue& queue = ports_[port].queue(number_);
    rte_mbuf* buffers[kBurst];
    const uint16_t count = rte_eth_rx_burst(queue.device, queue.queue, buffers, kBurst);
    if (count == 0) continue;
    uint64_t bytes = 0;
    for (uint16_t i = 0; i < count; ++i) {
      describe(frames_[i], buffers[i], {port, 0, false});
      bytes += buffers[i]->pkt_len;
    }
    counters_.received_packets.add(count);
    counters_.received_bytes.add(bytes);
    process(tables, buffers, count, bytes);
    received += count;
  }
  return received;
}

// frames_ must describe `buffers`. outbound_ must be empty.
void Worker::process(const ForwardingTables& tables, rte_mbuf** buffers, uint16_t count, uint64_t bytes) {
  const std::optional<uint16_t> port_of_all =
      decider_.decide(tables, frames_.data(), outcomes_.data(), count, now_ms());
  if (port_of_all && same_links_) {
    if (decider_.moved()) bytes = move_all(buffers, count);
    const uint16_t sent = transmit(*port_of_all, buffers, count);
    if (sent < count) [[unlikely]] {
      uint64_t unsent_bytes = 0;
      for (uint16_t i = sent; i < count; ++i) unsent_bytes += frames_[i].bytes;
      bytes -= unsent_bytes;
      counters_.unsent(FrameKind::forwarded, why_unsent(*port_of_all), count - sent, unsent_bytes);
    }
    counters_.sent_packets.add(sent);
    counters_.sent_bytes.add(bytes);
    counters_.sent(FrameKind::forwarded, sent, bytes);
    return;
  }
  for (size_t i = 0; i < count; ++i) carry_out(buffers[i], frames_[i], outcomes_[i]);
  flush();
}

// Sets the frame's beginning to where the Decider left it, which may be earlier or later in the buffer than on arrival.
void Worker::move(rte_mbuf* buffer, const Frame& frame) {
  buffer->data_off = static_cast<uint16_t>(buffer->data_off + (frame.data - rte_pktmbuf_mtod(buffer, uint8_t*)));
  buffer->data_len = static_cast<uint16_t>(frame.bytes);
  buffer->pkt_len = frame.bytes;
}

// Returns the bytes of all frames.
uint64_t Worker::move_all(rte_mbuf** buffers, uint16_t count) {
  uint64_t bytes = 0;
  for (uint16_t i = 0; i < count; ++i) {
    move(buffers[i], frames_[i]);
    bytes += frames_[i].bytes;
  }
  return bytes;
}

void Worker::carry_out(rte_mbuf* buffer, const Frame& frame, const FrameOutcome& outcome) {
  if (buffer->nb_segs == 1) move(buffer, frame);
  if (outcome.share) share(buffer, frame.port);
  switch (outcome.verdict) {
    case FrameVerdict::forward:
    case FrameVerdict::relay:
      if (!fits(outcome.port, buffer->pkt_len)) {
        counters_.drop(DropReason::exceeds_mtu, 1, buffer->pkt_len);
        break;
      }
      queue(outcome.port, buffer, outcome.verdict == FrameVerdict::relay ? FrameKind::relayed : FrameKind::forwarded);
      return;
    case FrameVerdict::answer:
      queue(outcome.port, buffer, FrameKind::answered);
      return;
    case FrameVerdict::hand_over:
      hand_over(buffer, frame);
      return;
    case FrameVerdict::punt:
      if (punts_[frame.port].write(frame.data, frame.bytes)) {
        counters_.punted_packets.add();
      } else {
        counters_.drop(DropReason::punt_refused, 1, frame.bytes);
      }
      break;
    case FrameVerdict::consume:
    case FrameVerdict::drop:
      break;
  }
  rte_pktmbuf_free(buffer);
}

size_t Worker::receive_inbox(const ForwardingTables& tables) {
  if (rte_ring_empty(inbox_)) return 0;
  void* taken[kBurst];
  const unsigned count = rte_ring_sc_dequeue_burst(inbox_, taken, kBurst, nullptr);
  rte_mbuf* buffers[kBurst];
  uint64_t bytes = 0;
  for (unsigned i = 0; i < count; ++i) {
    buffers[i] = static_cast<rte_mbuf*>(taken[i]);
    describe(frames_[i], buffers[i], detach(buffers[i]));
    bytes += buffers[i]->pkt_len;
  }
  if (count != 0) process(tables, buffers, static_cast<uint16_t>(count), bytes);
  return count;
}

void Worker::deliver(Worker& peer, rte_mbuf* buffer) {
  if (rte_ring_mp_enqueue(peer.inbox_, buffer) != 0) {
    counters_.unsent(detach(buffer).learn_only ? FrameKind::own : FrameKind::forwarded, DropReason::inbox_full, 1,
                     buffer->pkt_len);
    rte_pktmbuf_free(buffer);
    return;
  }
  peer.wake();
}

void Worker::hand_over(rte_mbuf* buffer, const Frame& frame) {
  attach(buffer, {frame.port, static_cast<uint8_t>(frame.asked + 1), false});
  counters_.handed_over_packets.add();
  deliver(*peers_[(number_ + 1) % peers_.size()], buffer);
}

void Worker::share(const rte_mbuf* buffer, uint16_t port) {
  for (Worker* peer : peers_) {
    if (peer == this) continue;
    rte_mempool* pool = ports_[port].queue(number_).buffers;
    rte_mbuf* copy = rte_pktmbuf_copy(buffer, pool, 0, UINT32_MAX);
    if (copy == nullptr) {
      counters_.unsent_packets.add();
      continue;
    }
    attach(copy, {port, 0, true});
    deliver(*peer, copy);
  }
}

size_t Worker::receive_punted() {
  if (number_ != 0) return 0;
  size_t received = 0;
  if (punts_.empty()) return 0;
  for (const uint16_t port : used_ports_) {
    for (size_t i = 0; i < kBurst / 2; ++i) {
      rte_mbuf* buffer = rte_pktmbuf_alloc(ports_[port].queue(number_).buffers);
      if (buffer == nullptr) break;
      const size_t bytes = punts_[port].read(rte_pktmbuf_mtod(buffer, uint8_t*), rte_pktmbuf_tailroom(buffer));
      if (bytes == 0) {
        rte_pktmbuf_free(buffer);
        break;
      }
      buffer->data_len = static_cast<uint16_t>(bytes);
      buffer->pkt_len = static_cast<uint32_t>(bytes);
      queue(port, buffer, FrameKind::own);
      ++received;
    }
  }
  return received;
}

void Worker::queue(uint16_t port, rte_mbuf* buffer, FrameKind kind) {
  Outbound& out = outbound_[port];
  if (out.count == kBurst) flush();
  out.frames[out.count] = buffer;
  out.kinds[out.count++] = kind;
}

void Worker::flush() {
  for (size_t index = 0; index < outbound_.size(); ++index) {
    Outbound& out = outbound_[index];
    if (out.count == 0) continue;
    const auto port = static_cast<uint16_t>(index);
    // The device may free a buffer that it accepts, so lengths are read before.
    std::array<uint32_t, kBurst> bytes;
    for (uint16_t i = 0; i < out.count; ++i) bytes[i] = out.frames[i]->pkt_len;
    const uint16_t sent = transmit(port, out.frames, out.count);
    uint64_t sent_bytes = 0;
    for (uint16_t i = 0; i < out.count; ++i) {
      if (i < sent) {
        counters_.sent(out.kinds[i], 1, bytes[i]);
        sent_bytes += bytes[i];
      } else {
        counters_.unsent(out.kinds[i], why_unsent(port), 1, bytes[i]);
      }
    }
    counters_.sent_packets.add(sent);
    counters_.sent_bytes.add(sent_bytes);
    out.count = 0;
  }
}

DropReason Worker::why_unsent(uint16_t port) const {
  return uses_port_[port] ? DropReason::transmit_queue_full : DropReason::port_down;
}

// A packet buffer has room for the largest outer header and two tags.
void Worker::put_tags(const PortTags& tags, rte_mbuf** buffers, uint16_t count) {
  for (uint16_t i = 0; i < count; ++i) {
    TIDEGATE_ASSERT(rte_pktmbuf_headroom(buffers[i]) >= tags.bytes(), "a frame's buffer has room for tags");
    put_tags_on(tags, rte_pktmbuf_mtod(buffers[i], uint8_t*));
    rte_pktmbuf_prepend(buffers[i], static_cast<uint16_t>(tags.bytes()));
  }
}

// Returns how many the device took. Frees the rest.
uint16_t Worker::transmit(uint16_t port, rte_mbuf** buffers, uint16_t count) {
  uint16_t sent = 0;
  if (uses_port_[port]) {
    const PortQueue& queue = ports_[port].queue(number_);
    if (tags_[port].vlan != 0) put_tags(tags_[port], buffers, count);
    for (unsigned tries = 0; tries < kTransmitTries && sent < count; ++tries) {
      sent = static_cast<uint16_t>(
          sent + rte_eth_tx_burst(queue.device, queue.queue, buffers + sent, static_cast<uint16_t>(count - sent)));
    }
  }
  if (sent < count) rte_pktmbuf_free_bulk(buffers + sent, count - sent);
  return sent;
}

void Worker::send(uint16_t port, const uint8_t* frame, size_t bytes) {
  if (!uses_port_[port]) return;
  rte_mbuf* buffer = rte_pktmbuf_alloc(ports_[port].queue(number_).buffers);
  if (buffer == nullptr) {
    counters_.unsent_packets.add();
    return;
  }
  std::memcpy(rte_pktmbuf_append(buffer, static_cast<uint16_t>(bytes)), frame, bytes);
  queue(port, buffer, FrameKind::own);
}

void Worker::answer_query() {
  WorkerQuery* query = query_.exchange(nullptr, std::memory_order_acq_rel);
  if (query == nullptr) return;
  query->read(decider_, now_ms());
  query->answered.release();
}

void Worker::read(std::function<void(Decider&, uint32_t now_ms)> read) {
  WorkerQuery query;
  query.read = std::move(read);
  query_.store(&query, std::memory_order_release);
  wake();
  query.answered.acquire();
}

std::optional<FlowEntry> Worker::find_flow(uint64_t hash) {
  std::optional<FlowEntry> flow;
  read([&](Decider& decider, uint32_t now_ms) { flow = decider.flow(hash, now_ms); });
  return flow;
}

std::vector<DroppedFrame> Worker::last_dropped() {
  std::vector<DroppedFrame> dropped;
  read([&](Decider& decider, uint32_t) { dropped = decider.dropped().last(); });
  return dropped;
}

}  // namespace tidegate::l4
