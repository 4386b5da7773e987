#include "l4/dataplane.h"

#include <rte_eal.h>
#include <rte_launch.h>
#include <rte_lcore.h>

#include <cassert>
#include <stdexcept>

#include "core/log.h"
#include "l4/eal.h"

namespace tidegate::l4 {
namespace {

int run_worker(void* worker) {
  static_cast<Worker*>(worker)->run();
  return 0;
}

}  // namespace

Result<std::unique_ptr<Dataplane>> Dataplane::start(const L4Node& node, const FlowHasher& hasher,
                                                    std::shared_ptr<const ForwardingTables> tables) {
  if (Result<void> started = start_eal(eal_arguments(node, read_host_resources())); !started) return started.error();
  std::unique_ptr<Dataplane> dataplane(new Dataplane(node.workers));
  if (Result<void> opened = dataplane->open(node, hasher); !opened) return opened.error();
  dataplane->publisher_.publish(std::move(tables));
  dataplane->launch();
  return dataplane;
}

Result<void> Dataplane::open(const L4Node& node, const FlowHasher& hasher) {
  const bool tap = node.punt == "tap";
  for (const L4Port& config : node.ports) {
    Result<Port> port = Port::open(config, static_cast<uint16_t>(ports_.size()), node.workers);
    if (!port) return port.error();
    ports_.push_back(std::move(*port));
    if (!tap) continue;
    Result<PuntDevice> punt = PuntDevice::open(config.device, ports_.back().identity().mac);
    if (!punt) return punt.error();
    log_info("port {}: what is not ours goes to {}", config.device, punt->name());
    punts_.push_back(std::move(*punt));
  }
  DeciderConfig config;
  config.hasher = hasher;
  for (const Port& port : ports_) config.ports.push_back(port.identity());
  config.flows = node.flows;
  config.punt_tap = tap;
  config.workers = node.workers;
  for (uint32_t number = 0; number < node.workers; ++number) {
    config.announces = number == 0;
    try {
      workers_.push_back(std::make_unique<Worker>(number, config, ports_, punts_, publisher_));
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
  assert(next == workers_.size());  // eal_arguments() asked for one lcore a worker
}

Dataplane::~Dataplane() {
  if (launched_) {
    for (const auto& worker : workers_) worker->stop();
    rte_eal_mp_wait_lcore();
  }
  workers_.clear();
  ports_.clear();
  rte_eal_cleanup();
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
