// SPDX-License-Identifier: Apache-2.0
// Watch: live views of packets for an operator, through the admin socket: captures to pcapng, top talkers, events of
// new flows, and the fate of the frames of a file.
//
//   GET /capture?seconds&packets&bytes&snap&client&vip&port&protocol&dropped&reason   pcapng, when a bound is reached
//   GET /top?seconds&limit&prefix_v4&prefix_v6                                        the networks that sent most
//   GET /events?from                                                                  new flows since that number
//   POST /pcap?port&to_us                                                             a capture file; see DryRun
//
// There is one capture or count at a time. It ends early if its client closes the connection. Main thread only.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "core/event_loop.h"
#include "core/hash.h"
#include "core/http_server.h"
#include "l4/capture.h"
#include "l4/dataplane.h"
#include "l4/dry_run.h"
#include "l4/top_sources.h"

namespace tidegate::l4 {

class Watch {
 public:
  Watch(EventLoop& loop, const FlowHasher& hasher);

  // Returns false if the path is not one of these. `dataplane` must stay until stop(). `punt_tap` is the node's
  // setting.
  bool answer(const HttpExchangePtr& exchange, const Dataplane& dataplane, const BackendIds& backends,
              const ServiceIds& services, bool punt_tap);
  // Collects the workers' events. Call it twice a second.
  void collect_events(const Dataplane& dataplane);
  uint64_t events_lost() const { return events_lost_; }
  // Call it before the workers end: waiting clients get what there is.
  void stop();

 private:
  struct Running;
  struct Told {
    NewFlow flow;
    uint32_t worker = 0;
  };
  void answer_capture(const HttpExchangePtr& exchange, const Dataplane& dataplane, const BackendIds& backends);
  void answer_top(const HttpExchangePtr& exchange, const Dataplane& dataplane);
  HttpResponse answer_events(const HttpRequest& request, const BackendIds& backends, const ServiceIds& services) const;
  HttpResponse answer_pcap(const HttpRequest& request, const Dataplane& dataplane, const BackendIds& backends,
                           bool punt_tap) const;
  void begin(std::shared_ptr<Running> running, const HttpExchangePtr& exchange, uint64_t seconds);
  void look();
  void end();

  EventLoop& loop_;
  FlowHasher hasher_;
  Timer timer_;
  std::shared_ptr<Running> running_;  // null: nothing is running
  std::deque<Told> events_;           // the last kMaxFlowEvents of all workers
  uint64_t next_event_ = 0;           // number of the next event
  std::vector<uint64_t> read_upto_;   // by worker: the number up to which events were read
  uint64_t events_lost_ = 0;
};

}  // namespace tidegate::l4
