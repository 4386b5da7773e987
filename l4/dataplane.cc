// SPDX-License-Identifier: Apache-2.0
#include "l4/dataplane.h"

#include <rte_launch.h>
#include <rte_lcore.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <stdexcept>
#include <utility>

#include "core/clock.h"
#include "core/log.h"

namespace tidegate::l4 {
namespace {

constexpr uint64_t kLeaveNs = kNsPerS;  // each worker passes through its loop at least every 100 ms
constexpr useconds_t kLookUs = 500;

int run_worker(void* worker) {
  static_cast<Worker*>(worker)->run();
  return 0;
}

}  // namespace

Result<std::unique_ptr<Dataplane>> Dataplane::start(const L4Node& node, const FlowHasher& hasher,
                                                    std::shared_ptr<const ForwardingTables> tables,
                                                    const KeptState* kept, BufferStock& stock) {
  std::unique_ptr<Dataplane> dataplane(new Dataplane(node.workers));
  if (Result<void> opened = dataplane->open(node, hasher, kept, stock); !opened) return opened.error();
  stock.clear();
  dataplane->publisher_.publish(std::move(tables));
  dataplane->launch();
  return dataplane;
}

Result<void> Dataplane::open(const L4Node& node, const FlowHasher& hasher, const KeptState* kept, BufferStock& stock) {
  const bool tap = node.punt == "tap";
  for (const L4Port& config : node.ports) {
    const auto holder =
        std::find_if(ports_.begin(), ports_.end(), [&](const Port& port) { return port.device() == config.shares; });
    Result<Port> port = holder != ports_.end()
                            ? Port::share(config, *holder, static_cast<uint16_t>(holder - ports_.begin()))
                            : Port::open(config, static_cast<uint16_t>(ports_.size()), node.workers, stock);
    if (!port) return port.error();
    ports_.push_back(std::move(*port));
    if (!tap) continue;
    Result<PuntDevice> punt = PuntDevice::open(config.device, ports_.back().identity().mac);
    if (!punt) return punt.error();
    log_info("port {}: what is not ours goes to {}", config.device, punt->name());
    punts_.push_back(std::move(*punt));
  }
  board_ = std::make_unique<PortBoard>(ports_.size());
  watch_ = std::make_unique<PortWatch>(ports_, *board_, [this] { return leave_ports(); });
  DeciderConfig config;
  config.hasher = hasher;
  for (const Port& port : ports_) config.ports.push_back(port.identity());
  config.flows = node.flows;
  config.punt_tap = tap;
  config.workers = node.workers;
  config.conflicts = &conflicts_;
  config.probes = &probes_;
  config.bounds = &bounds_;
  for (uint32_t number = 0; number < node.workers; ++number) {
    config.announces = number == 0;
    config.board = number == 0 ? &neighbours_ : nullptr;
    if (kept != nullptr) config.kept = kept->memory_of(number, monotonic_ns());
    try {
      workers_.push_back(std::make_unique<Worker>(number, config, ports_, punts_, *board_, publisher_));
    } catch (const std::exception& error) {
      return fail(fmt::format("worker {}: {}", number, error.what()));
    }
  }
  return {};
}

void Dataplane::launch() {
  std::vector<Worker*> peers;
  for (const auto& worker : workers_) peers.push_back(worker.get());
  for (const auto& worker : workers_) worker->set_peers(peers);
  launched_ = true;
  size_t next = 0;
  unsigned lcore;
  RTE_LCORE_FOREACH_WORKER(lcore) {
    if (next == workers_.size()) break;
    const int status = rte_eal_remote_launch(run_worker, workers_[next++].get(), lcore);
    assert(status == 0);
    static_cast<void>(status);
  }
  assert(next == workers_.size());  // eal_arguments() asked for one lcore per worker
}

void Dataplane::stop_workers() {
  if (!std::exchange(launched_, false)) return;
  for (const auto& worker : workers_) worker->stop();
  rte_eal_mp_wait_lcore();
}

void Dataplane::leave(BufferStock& spent) {
  stop_workers();
  for (Port& port : ports_) port.leave(spent);
}

Dataplane::~Dataplane() {
  stop_workers();
  workers_.clear();
  ports_.clear();
}

bool Dataplane::check_ports() {
  if (!watch_->check()) return false;
  for (size_t port = 0; port < punts_.size(); ++port) {
    if (Result<void> set = punts_[port].set_mac(ports_[port].identity().mac); !set) log_warn("{}", set.error().message);
  }
  return true;
}

// Returns false if a worker did not pass its loop in time. Then the next check asks it again.
bool Dataplane::leave_ports() {
  const uint64_t until_ns = monotonic_ns() + kLeaveNs;
  for (const auto& worker : workers_) worker->wake();
  const auto left = [this](const auto& worker) { return worker->has_left_ports(board_->generation()); };
  while (!std::all_of(workers_.begin(), workers_.end(), left)) {
    if (monotonic_ns() > until_ns) return false;
    ::usleep(kLookUs);
  }
  publisher_.wait_for_workers();  // frames that were in an inbox a moment ago may now be in use by a worker
  return true;
}

Outages Dataplane::outages() const {
  Outages outages;
  outages.board = &neighbours_;
  for (size_t port = 0; port < ports_.size(); ++port) outages.ports.push_back(!board_->is_usable(port));
  return outages;
}

void Dataplane::publish(std::shared_ptr<const ForwardingTables> tables) {
  publisher_.publish(std::move(tables));
  for (const auto& worker : workers_) worker->wake();
}

std::optional<FlowEntry> Dataplane::find_flow(uint64_t hash) const {
  for (const auto& worker : workers_) {
    if (std::optional<FlowEntry> flow = worker->find_flow(hash)) return flow;
  }
  return std::nullopt;
}

}  // namespace tidegate::l4
