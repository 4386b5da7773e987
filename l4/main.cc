// tidegate-l4: the forwarder's process. The main thread follows the state and answers the admin socket; workers
// forward.
#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include "conf/plane.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "core/log.h"
#include "core/metrics.h"
#include "l4/dataplane.h"
#include "l4/explain.h"
#include "l4/metrics.h"

namespace tidegate::l4 {
namespace {

// What a running forwarder cannot change: devices, memory and threads are opened once.
bool needs_restart(const L4Node& running, const L4Node& wanted) {
  const auto device_and_driver = [](const L4Node& node) {
    std::vector<std::pair<std::string, std::string>> out;
    for (const L4Port& port : node.ports) out.emplace_back(port.device, port.driver);
    return out;
  };
  return device_and_driver(running) != device_and_driver(wanted) || running.workers != wanted.workers ||
         running.flows != wanted.flows || running.punt != wanted.punt || running.memory_mb != wanted.memory_mb;
}

std::optional<uint16_t> port_number(const std::string& text) {
  uint16_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

class Forwarder {
 public:
  explicit Forwarder(PlaneOptions options)
      : plane_("l4", std::move(options)),
        hasher_(derive_hash_key(plane_.secret(), "flow")),
        builder_(derive_hash_key(plane_.secret(), "maglev")) {
    metrics().collector([this](std::string& out) {
      if (!dataplane_) return;
      std::vector<const WorkerCounters*> counters;
      for (const auto& worker : dataplane_->workers()) counters.push_back(&worker->counters());
      append_metrics(out, counters, *dataplane_->tables(), builder_.backend_ids());
    });
  }

  int run() {
    PlaneHooks hooks;
    hooks.apply = [this](std::shared_ptr<const Snapshot> snapshot, const Node& node) {
      return apply(std::move(snapshot), node);
    };
    hooks.digest = [this] { return dataplane_ ? dataplane_->tables()->digest : std::string(); };
    hooks.add_status = [this](nlohmann::json& status) { add_status(status); };
    hooks.explain = [this](const HttpRequest& request) { return explain_request(request); };
    hooks.drain = [this](const std::function<void()>& done) {
      dataplane_.reset();
      done();
    };
    const int status = plane_.run(std::move(hooks));
    dataplane_.reset();
    return failed_to_start_ ? 1 : status;
  }

 private:
  Result<void> apply(std::shared_ptr<const Snapshot> snapshot, const Node& node) {
    if (!node.l4.enabled || node.l4.ports.empty()) return fail(fmt::format("node {} has no l4 ports", node.name));
    const uint64_t began_ns = monotonic_ns();
    Result<std::shared_ptr<const ForwardingTables>> tables = builder_.build(std::move(snapshot), node, began_ns);
    if (!tables) return tables.error();
    if (dataplane_) {
      restart_needed_ = needs_restart(running_, node.l4);
      if (restart_needed_) log_warn("ports, workers, flows, punt or memory changed: they take effect at a restart");
      dataplane_->publish(std::move(*tables));
    } else if (Result<void> started = start(node, std::move(*tables)); !started) {
      return started;
    }
    log_debug("tables built and published in {} us", (monotonic_ns() - began_ns) / 1'000);
    return {};
  }

  Result<void> start(const Node& node, std::shared_ptr<const ForwardingTables> tables) {
    running_ = node.l4;
    Result<std::unique_ptr<Dataplane>> started = Dataplane::start(node.l4, hasher_, std::move(tables));
    if (!started) {
      // EAL starts once a process, so whoever supervises this one has to try again.
      log_error("{}", started.error().message);
      failed_to_start_ = true;
      plane_.loop().stop();
      return started.error();
    }
    dataplane_ = std::move(*started);
    return {};
  }

  void add_status(nlohmann::json& status) const {
    if (!dataplane_) return;
    nlohmann::json ports = nlohmann::json::array();
    for (const Port& port : dataplane_->ports()) {
      ports.push_back({{"device", port.device()}, {"driver", port.driver()}, {"mac", port.identity().mac.to_string()}});
    }
    uint64_t flows = 0;
    for (const auto& worker : dataplane_->workers()) flows += worker->counters().flows_live.value();
    const WorkerCounters& first = dataplane_->workers().front()->counters();
    status["ports"] = std::move(ports);
    status["workers"] = dataplane_->workers().size();
    status["flows"] = flows;
    status["neighbours"] = {{"total", first.neighbours.value()}, {"resolved", first.neighbours_resolved.value()}};
    status["maglev_tables_built"] = builder_.maglev_tables_built();
    status["restart_needed"] = restart_needed_;
  }

  nlohmann::json explain_request(const HttpRequest& request) const {
    if (!dataplane_) return {{"plane", "l4"}, {"decision", "none"}, {"reason", "no configuration yet"}};
    ExplainQuestion question;
    question.client = IpAddress::parse(request.parameter("client").value_or(""));
    if (const auto port = request.parameter("client_port")) question.client_port = port_number(*port);
    question.vip = request.parameter("vip").value_or("");
    question.port = port_number(request.parameter("port").value_or("")).value_or(0);
    question.protocol = request.parameter("protocol").value_or("tcp");
    return explain(
        *dataplane_->tables(), hasher_, builder_.backend_ids(),
        [this](uint64_t hash) { return dataplane_->find_flow(hash); }, question);
  }

  Plane plane_;
  FlowHasher hasher_;
  ForwardingBuilder builder_;
  std::unique_ptr<Dataplane> dataplane_;
  L4Node running_;
  bool restart_needed_ = false;
  bool failed_to_start_ = false;
};

}  // namespace
}  // namespace tidegate::l4

int main(int argc, char** argv) {
  tidegate::PlaneOptions options = tidegate::parse_plane_options(
      argc, argv, "l4", "Forwards packets to the backends of each service: DPDK, weighted Maglev, flows kept.");
  return tidegate::l4::Forwarder(std::move(options)).run();
}
