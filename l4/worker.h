// SPDX-License-Identifier: Apache-2.0
// Worker: the loop of one lcore. It receives a burst, asks the Decider, and sends; it sleeps when no frame comes. It
// owns its Decider, so flows and neighbours belong to this thread alone. Other threads post requests to it.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <semaphore>
#include <vector>

#include "l4/decider.h"
#include "l4/idle.h"
#include "l4/port_board.h"
#include "l4/ports.h"
#include "l4/publish.h"
#include "l4/punt.h"

struct rte_mbuf;
struct rte_ring;

namespace tidegate::l4 {

// A question of another thread about what a worker holds. The worker answers it between two bursts.
struct WorkerQuery {
  std::function<void(Decider&, uint32_t now_ms)> read;
  std::binary_semaphore answered{0};
};

class Worker final : private FrameSink {
 public:
  // `ports`, `punts` (empty, or one per port), `board`, `publisher` and the peers must outlive the worker.
  Worker(uint32_t number, DeciderConfig config, const std::vector<Port>& ports, const std::vector<PuntDevice>& punts,
         const PortBoard& board, Publisher& publisher);
  ~Worker();

  // Sets all workers of the node, including this one. Call before the start.
  void set_peers(std::vector<Worker*> peers) { peers_ = std::move(peers); }
  // Runs the loop on its lcore. Returns after stop().
  void run();

  // Any thread may call these:
  void stop();
  void wake() { idle_.wake(); }
  // Calls `read` on the worker's thread, between two bursts, and returns afterwards, at most some milliseconds later.
  // Frames wait meanwhile, so `read` must take only microseconds and must not allocate. One thread at a time.
  void read(std::function<void(Decider&, uint32_t now_ms)> read);
  // Returns the flow with this hash if this worker holds it.
  std::optional<FlowEntry> find_flow(uint64_t hash);
  // The frames that this worker dropped last, the newest first.
  std::vector<DroppedFrame> last_dropped();
  const WorkerCounters& counters() const { return counters_; }
  // True if the worker has stopped using the ports that this generation of the board forbids, and has none of their
  // frames.
  bool has_left_ports(uint64_t generation) const;

 private:
  // Frames that wait to be sent by one port.
  struct Outbound {
    uint16_t count = 0;
    rte_mbuf* frames[kBurst] = {};
    FrameKind kinds[kBurst] = {};
  };

  uint32_t now_ms() const;
  void adopt_if_new(const ForwardingTables& tables);
  void adopt_ports_if_new();
  void serve_lacp();
  size_t receive(const ForwardingTables& tables);
  void process(const ForwardingTables& tables, rte_mbuf** buffers, uint16_t count, uint64_t bytes);
  static void move(rte_mbuf* buffer, const Frame& frame);
  uint64_t move_all(rte_mbuf** buffers, uint16_t count);
  void carry_out(rte_mbuf* buffer, const Frame& frame, const FrameOutcome& outcome);
  size_t receive_inbox(const ForwardingTables& tables);
  void hand_over(rte_mbuf* buffer, const Frame& frame);
  void share(const rte_mbuf* buffer, uint16_t port);
  void deliver(Worker& peer, rte_mbuf* buffer);
  size_t receive_punted();
  void queue(uint16_t port, rte_mbuf* buffer, FrameKind kind);
  bool fits(uint16_t port, uint32_t bytes) const { return bytes <= most_bytes_[port]; }
  void flush();
  uint16_t transmit(uint16_t port, rte_mbuf** buffers, uint16_t count);
  static void put_tags(const PortTags& tags, rte_mbuf** buffers, uint16_t count);
  DropReason why_unsent(uint16_t port) const;
  void answer_query();
  void account(uint64_t now_ns, bool was_busy);
  void send(uint16_t port, const uint8_t* frame, size_t bytes) override;

  uint32_t number_;
  WorkerCounters counters_;
  Decider decider_;
  const std::vector<Port>& ports_;
  const std::vector<PuntDevice>& punts_;
  const PortBoard& board_;
  Publisher& publisher_;
  Idle idle_;
  // The second without further VLANs of a device, and with ports that are left out of decisions but must be polled.
  std::vector<uint16_t> used_ports_, receiving_ports_, lacp_ports_;
  std::vector<bool> uses_port_;       // by port
  std::vector<PortTags> tags_;        // by port
  std::vector<uint32_t> most_bytes_;  // by port: the longest frame that its link takes
  bool same_links_ = true;            // all ports have the same MTU, so a frame from one fits any other
  std::array<Frame, kBurst> frames_;  // the current burst; its outcomes are below
  std::array<FrameOutcome, kBurst> outcomes_;
  std::vector<Outbound> outbound_;  // by port
  rte_ring* inbox_ = nullptr;       // frames from other workers
  std::vector<Worker*> peers_;
  uint64_t adopted_generation_ = 0, announcements_ = 0;  // the second: of the board
  uint64_t now_ns_ = 0;                                  // start of this turn of the loop
  std::atomic<uint64_t> ports_generation_{0};            // the board's generation that this worker has adopted
  std::atomic<bool> stop_{false};
  std::atomic<WorkerQuery*> query_{nullptr};
};

}  // namespace tidegate::l4
