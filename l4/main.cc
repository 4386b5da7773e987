// SPDX-License-Identifier: Apache-2.0
// tidegate-l4: the forwarder's process. The main thread follows the state and answers the admin socket; workers
// forward.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/plane.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "core/log.h"
#include "core/metrics.h"
#include "l4/country_reader.h"
#include "l4/dataplane.h"
#include "l4/dataplane_status.h"
#include "l4/eal.h"
#include "l4/explain.h"
#include "l4/fixed_keys.h"
#include "l4/left_vips.h"
#include "l4/link_facts.h"
#include "l4/link_log.h"
#include "l4/metrics.h"
#include "l4/plan/share_settings.h"
#include "l4/port_metrics.h"
#include "l4/probe/desk.h"
#include "l4/share/sharing.h"
#include "l4/views.h"
#include "l4/vip_holdings.h"
#include "l4/watch.h"

namespace tidegate::l4 {
namespace {

std::optional<uint16_t> port_number(const std::string& text) {
  uint16_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Another start may help: a supervisor tries it (RestartPreventExitStatus= of the unit).
constexpr int kLostPortsStatus = 3;
constexpr uint64_t kQuickLookMs = 10;  // while a bond is about to leave a member
constexpr uint64_t kLookMs = 500;      // how often ports and neighbours are checked; kernel events come in addition

class Forwarder final : private IoHandler {
 public:
  explicit Forwarder(PlaneOptions options)
      : plane_("l4", std::move(options)),
        look_timer_(plane_.loop(), [this] { look(); }),
        hasher_(derive_hash_key(plane_.secret(), "flow")),
        builder_(derive_hash_key(plane_.secret(), "maglev")),
        sharing_(plane_.loop(), plane_.secret()),
        watch_(plane_.loop(), hasher_),
        left_vips_(monotonic_ns()) {
    metrics().collector([this](std::string& out) {
      if (!dataplane_) return;
      std::vector<const WorkerCounters*> counters;
      for (const auto& worker : dataplane_->workers()) counters.push_back(&worker->counters());
      append_metrics(out, counters, *dataplane_->tables(), {builder_.backend_ids(), builder_.acl_ids()});
      append_counter(out, "tidegate_l4_flow_events_lost_total",
                     "Events of new flows that were overwritten before they were read", watch_.events_lost());
      append_holdings(out, *dataplane_->tables(), node_.name);
      append_port_metrics(out, dataplane_->ports(), dataplane_->port_states(), dataplane_->neighbours().silent());
    });
  }

  int run() {
    PlaneHooks hooks;
    hooks.apply = [this](std::shared_ptr<const Snapshot> snapshot, const Node& node) {
      return apply(std::move(snapshot), node);
    };
    hooks.judge = [](const std::shared_ptr<const Model>& model, const Node&) { return l4::judge(model); };
    hooks.hold = [this](const std::shared_ptr<const Snapshot>& snapshot, const Node& node) {
      return hold(snapshot, node);
    };
    hooks.digest = [this] { return dataplane_ ? dataplane_->tables()->digest : std::string(); };
    hooks.add_status = [this](nlohmann::json& status) { add_status(status); };
    hooks.works = [this] { return works(); };
    hooks.cannot_start = [this] { return failed_to_start_; };
    hooks.warnings = [this] { return warnings(); };
    hooks.on_control = [this](bool hears_leader) { left_vips_.on_control(hears_leader, monotonic_ns()); };
    hooks.explain = [this](const HttpRequest& request) { return explain_request(request); };
    hooks.explain_parameters = {QueryParameter::address("client", "its IP address"),
                                QueryParameter::number("client_port", "its port", 1, 65535),
                                {"vip", "that it sends to: its name or one of its addresses"},
                                QueryParameter::number("port", "of the service", 1, 65535),
                                {"protocol", "tcp or udp"}};
    hooks.admin = [this](const HttpExchangePtr& exchange) {
      if (exchange->request().path == "/dropped") {
        exchange->respond(
            HttpResponse::json(200, (dataplane_ ? last_dropped(*dataplane_) : nlohmann::json::array()).dump()));
        return true;
      }
      if (desk_ && exchange->request().path == "/probe") {
        desk_->take(exchange, builder_.backend_ids());
        return true;
      }
      std::optional<HttpResponse> view;
      if (dataplane_) view = answer_view(exchange->request(), *dataplane_, builder_.backend_ids());
      if (view) exchange->respond(*std::move(view));
      return view.has_value() || (dataplane_ && watch_.answer(exchange, *dataplane_, builder_.backend_ids(),
                                                              builder_.service_ids(), running_.punt == "tap"));
    };
    hooks.drain = [this](const std::function<void()>& done) {
      stop();
      done();
    };
    hooks.upgrade.sockets = [] { return std::vector<LentSocket>(); };
    hooks.upgrade.let_go = [this](const std::function<void(UniqueFd)>& done) {
      let_go();
      done({});
    };
    hooks.upgrade.take_back = [this] { take_back(); };
    hooks.upgrade.leave = [](const std::function<void()>& done) { done(); };
    hooks.upgrade.get_ready = [this](const std::shared_ptr<const Snapshot>&, const Node& node) {
      return get_ready(node.l4);
    };
    if (link_events_.fd() >= 0) plane_.loop().add(link_events_.fd(), EPOLLIN, this);
    const int status = plane_.run(std::move(hooks));
    if (link_events_.fd() >= 0) plane_.loop().remove(link_events_.fd());
    stop();
    return lost_ports_ ? kLostPortsStatus : status;
  }

 private:
  Result<void> apply(std::shared_ptr<const Snapshot> snapshot, const Node& wanted) {
    if (failed_to_start_) return fail("EAL starts once per process, and this one ends");
    if (!wanted.l4.enabled || wanted.l4.ports.empty()) return fail(fmt::format("node {} has no l4 ports", wanted.name));
    const Node node = with_open_ports(wanted);
    if (dataplane_) {
      needs_restart_ = differences_fixed_at_start(running_, wanted.l4);
      for (const std::string& key : needs_restart_) log_warn("{} has changed: it takes effect at the next start", key);
    }
    if (!dataplane_ && !has_let_go_) open_kept(node.l4);
    const uint64_t began_ns = monotonic_ns();
    Result<std::shared_ptr<const CountryNetworks>> countries = country_reader_.read(*snapshot->model);
    if (!countries) return countries.error();
    Result<std::shared_ptr<const ForwardingTables>> tables =
        builder_.build(snapshot, node, began_ns, outages(), *countries);
    if (!tables) return tables.error();
    countries_ = *std::move(countries);
    snapshot_ = std::move(snapshot);
    node_ = node;
    node_in_force_ = wanted.l4;
    if (dataplane_) {
      publish(*std::move(tables));
    } else if (has_let_go_) {
      builder_.adopt(**tables, monotonic_ns());
    } else if (Result<void> started = start(node, *std::move(tables)); !started) {
      return started;
    }
    if (!has_let_go_) sharing_.configure(share_settings(*snapshot_->model, node_));
    log_debug("tables built and published in {} us", (monotonic_ns() - began_ns) / 1'000);
    return {};
  }

  // Tables may use only ports that are open.
  Node with_open_ports(Node node) const {
    if ((dataplane_ || has_let_go_) && !differences_fixed_at_start(running_, node.l4).empty())
      node.l4.ports = running_.ports;
    return node;
  }

  // The vote on a candidate. A build of tables has no effect until it is adopted, and a running forwarder needs nothing
  // else. So there is nothing to hold. Other sockets may share the port of shared flows, so binding it can be tried
  // while it is in use.
  Vote hold(std::shared_ptr<const Snapshot> snapshot, const Node& wanted) {
    if (failed_to_start_) return Vote::no("EAL starts once per process, and this one ends");
    if (!wanted.l4.enabled || wanted.l4.ports.empty()) {
      return Vote::no(fmt::format("node {} has no l4 ports", wanted.name));
    }
    Vote vote;
    if (dataplane_) {
      const std::vector<std::string> changed = differences_fixed_at_start(node_in_force_, wanted.l4);
      for (std::string& key : differences_fixed_at_start(running_, wanted.l4)) {
        // Keys that an earlier version changed are left out: they wait for a restart already.
        if (std::find(changed.begin(), changed.end(), key) != changed.end())
          vote.needs_restart.push_back(std::move(key));
      }
    }
    if (Result<void> there = check_devices(dataplane_ ? running_ : L4Node{}, wanted.l4); !there) {
      return Vote::no(there.error().message);
    }
    if (wanted.l4.share_flows) {
      if (Result<void> heard = FlowSharing::try_listen(*wanted.l4.share_flows); !heard) {
        return Vote::no(heard.error().message);
      }
    }
    const Result<std::shared_ptr<const CountryNetworks>> countries = country_reader_.read(*snapshot->model);
    if (!countries) return Vote::no(countries.error().message);
    // While no version is in force, the previous process's ids are not restored yet.
    ForwardingBuilder other(derive_hash_key(plane_.secret(), "maglev"));
    const auto tables = (dataplane_ ? builder_ : other)
                            .build(std::move(snapshot), with_open_ports(wanted), monotonic_ns(), outages(), *countries);
    return tables ? vote : Vote::no(tables.error().message);
  }

  // Called once, before the first tables: gives the previous process's ids to the same backends again.
  void open_kept(const L4Node& node) {
    if (std::exchange(looked_for_kept_, true)) return;
    if (!reopen_kept(shape_of(node))) return;
    if (!kept_->inherited()) return log_info("no flows of a process before: {}", kept_->why_new());
    builder_.restore(kept_->ids(), monotonic_ns());
  }

  KeptShape shape_of(const L4Node& node) const {
    KeptShape shape;
    shape.workers = node.workers;
    shape.flows = node.flows;
    shape.secret_check = derive_hash_key(plane_.secret(), "kept flows").k0;
    for (const L4Port& port : node.ports) shape.devices.push_back(port.device);
    return shape;
  }

  bool reopen_kept(const KeptShape& shape) {
    Result<std::unique_ptr<KeptState>> kept = KeptState::open(plane_.options().run_dir, shape, monotonic_ns());
    if (kept) {
      kept_ = std::move(*kept);
      return true;
    }
    why_not_kept_ = kept.error().message;
    log_info("flows end with this process: {}", why_not_kept_);
    return false;
  }

  // Call it before a worker can use ids that the last build gave out.
  void keep_ids(bool first) {
    if (!kept_ || !(first || ids_are_unwritten_ || builder_.ids_changed())) return;
    const Result<void> written = kept_->write_ids(builder_.kept_ids());
    ids_are_unwritten_ = !written;
    if (!written) log_error("flows will end with this process: {}", written.error().message);
  }

  void publish(std::shared_ptr<const ForwardingTables> tables) {
    keep_ids(false);
    const bool ids_changed = builder_.ids_changed();
    say_what_changed_hands(*dataplane_->tables(), *tables, node_.name);
    dataplane_->publish(tables);
    builder_.adopt(*tables, monotonic_ns());
    if (ids_changed) sharing_.learn_names(builder_.kept_ids());
  }

  void stop() {
    stop_using_workers();
    dataplane_.reset();
  }

  void stop_using_workers() {
    look_timer_.cancel();
    sharing_.use(nullptr);
    desk_.reset();
    watch_.stop();
  }

  void on_io(uint32_t) override {
    link_events_.drain();
    if (dataplane_) look();
  }

  // Derives the tables again if a port or a neighbour came or went.
  void look() {
    look_timer_.arm_after_ms(kLookMs);
    if (kept_) kept_->tell_alive(monotonic_ns());
    const bool left_changed = settle_claims();
    watch_.collect_events(*dataplane_);
    const bool ports_changed = dataplane_->check_ports();
    if (dataplane_->ports_are_unsettled()) look_timer_.arm_after_ms(kQuickLookMs);
    const uint64_t changes = dataplane_->neighbours().changes();
    if (!ports_changed && !left_changed && changes == neighbour_changes_ && !read_countries_anew()) return;
    neighbour_changes_ = changes;
    Result<std::shared_ptr<const ForwardingTables>> tables =
        builder_.build(snapshot_, node_, monotonic_ns(), outages(), countries_);
    if (!tables) return log_error("{}", tables.error().message);
    link_log_.say_who_is_cut_off(**tables, builder_.backend_ids());
    publish(*std::move(tables));
  }

  // Returns true if a country database has changed and could be read. Otherwise the earlier content stays in force.
  bool read_countries_anew() {
    if (!country_reader_.has_changed(*snapshot_->model)) return false;
    Result<std::shared_ptr<const CountryNetworks>> countries = country_reader_.read(*snapshot_->model);
    if (!countries) {
      log_error("lists of clients by country: {}; what was read before stays in force", countries.error().message);
      return false;
    }
    countries_ = *std::move(countries);
    return true;
  }

  // Ports and neighbours that do not work, as soon as the dataplane runs, and addresses that are left to other
  // forwarders.
  Outages outages() const {
    Outages outages = dataplane_ ? dataplane_->outages() : Outages{};
    outages.alone = left_vips_.alone();
    outages.left = left_vips_.left();
    return outages;
  }

  // Returns true if addresses are left to another forwarder or taken back.
  bool settle_claims() {
    const uint64_t now_ns = monotonic_ns();
    std::vector<AddressConflict> conflicts = dataplane_->take_conflicts();
    for (const AddressConflict& claim : conflicts) {
      const ForwardingTables& tables = *dataplane_->tables();
      const auto family = static_cast<uint8_t>(claim.address.family);
      const bool ours = tables.local_kind(family, words_of(claim.address)) == LocalKind::vip;
      if (ours || left_vips_.left().contains(claim.address)) left_vips_.on_claim(claim, now_ns);
    }
    // Answers for addresses that were left already are no conflict.
    std::erase_if(conflicts, [&](const AddressConflict& each) { return left_vips_.left().contains(each.address); });
    link_log_.say_conflicts(conflicts, dataplane_->ports(), now_ns);
    const bool was_alone = left_vips_.alone();
    std::optional<std::vector<std::pair<Mac, uint32_t>>> known;
    const auto forwarder_of = [&](const Mac& mac) {
      if (!known) known = macs_of_forwarders();
      for (const auto& [of, node] : *known) {
        if (of == mac) return snapshot_->model->nodes[node].name;
      }
      return std::string();
    };
    const bool changed = left_vips_.settle(forwarder_of, place(), now_ns);
    if (left_vips_.alone() != was_alone) {
      log_info("{}", was_alone ? "control hears a leader again, who decides which forwarder holds a VIP"
                               : "control hears no leader: a VIP that another forwarder claims will be left to it");
    }
    return changed;
  }

  // This node's place among those with forwarders.
  uint32_t place() const {
    uint32_t before = 0;
    for (const tidegate::Node& node : snapshot_->model->nodes) {
      if (node.name == node_.name) break;
      before += node.l4.enabled ? 1 : 0;
    }
    return before;
  }

  // The MAC addresses of other forwarders that have answered, with the indexes of their nodes.
  std::vector<std::pair<Mac, uint32_t>> macs_of_forwarders() const {
    const std::vector<OtherForwarder> others = other_forwarders(*snapshot_->model, node_);
    std::vector<std::pair<Mac, uint32_t>> known;
    known.reserve(others.size());  // so that the worker need not allocate
    dataplane_->workers().front()->read([&](const Decider& decider, uint32_t) {
      for (const OtherForwarder& other : others) {
        const Mac mac = decider.neighbours().mac_of(other.address);
        if (!mac.is_zero()) known.emplace_back(mac, other.node);
      }
    });
    return known;
  }

  // The forwarder works if at least one port works.
  bool works() const {
    if (!dataplane_) return true;
    const std::vector<PortState>& states = dataplane_->port_states();
    return std::any_of(states.begin(), states.end(), [](const PortState& state) { return state.problem.empty(); });
  }

  std::string warnings() const {
    std::string out;
    if (!sharing_.problem().empty()) out += sharing_.problem() + "\n";
    if (!dataplane_) return out;
    if (const auto& left = dataplane_->tables()->left; !left.empty()) {
      out += fmt::format("{} addresses of VIPs are left to other forwarders that claim them: control hears no leader\n",
                         left.size());
    }
    out += port_problems(*dataplane_);
    return out;
  }

  Result<void> start(const Node& node, std::shared_ptr<const ForwardingTables> tables) {
    running_ = node.l4;
    keep_ids(true);
    Result<void> runs = start_eal(node.l4);
    if (!runs) return end(runs.error());
    Result<std::unique_ptr<Dataplane>> started = Dataplane::start(node.l4, hasher_, tables, kept_.get(), stock_);
    if (!started) return end(started.error());
    builder_.adopt(*tables, monotonic_ns());
    dataplane_ = std::move(*started);
    sharing_.learn_names(builder_.kept_ids());
    sharing_.use(dataplane_.get());
    desk_ = std::make_unique<ProbeDesk>(plane_.loop(), *dataplane_);
    say_inherited();
    look_timer_.arm_after_ms(kLookMs);
    return {};
  }

  // EAL starts once per process.
  Error end(const Error& why) {
    failed_to_start_ = true;
    return why;
  }

  Result<void> start_eal(const L4Node& node) {
    if (eal_) return {};
    Result<std::unique_ptr<Eal>> started = Eal::start(eal_arguments(node, read_host_resources()));
    if (!started) return started.error();
    eal_ = *std::move(started);
    return {};
  }

  // Does all slow work that needs no port, while the previous process still forwards.
  Result<void> get_ready(const L4Node& node) {
    if (std::any_of(node.ports.begin(), node.ports.end(), is_pci_port)) {
      return fail("two processes cannot have a NIC that DPDK drives: restart the forwarder");
    }
    if (Result<void> started = start_eal(node); !started) return started;
    for (const L4Port& port : node.ports) {
      if (Result<void> made = Port::stock_up(port, node.workers, stock_); !made) return made;
    }
    return {};
  }

  // From now on no packet is forwarded, until the process that follows has opened the ports or take_back() does.
  void let_go() {
    has_let_go_ = true;
    stop_using_workers();
    if (dataplane_) dataplane_->leave(stock_);
    dataplane_.reset();
    sharing_.configure(std::nullopt);
    if (kept_) kept_->tell_alive(monotonic_ns());
    kept_.reset();
    ids_left_ = builder_.kept_ids();
  }

  void take_back() {
    if (!has_let_go_) return;
    const uint64_t now_ns = monotonic_ns();
    Node node = with_open_ports(node_);
    node.l4.workers = running_.workers;
    node.l4.flows = running_.flows;
    node.l4.punt = running_.punt;
    node.l4.memory_mb = running_.memory_mb;
    has_let_go_ = false;
    stock_.clear();
    if (const KeptShape shape = shape_of(running_); reopen_kept(shape) && kept_->ids() != ids_left_) {
      // The other process gave out ids that mean nothing here.
      if (Result<void> made = kept_->begin_anew(shape, now_ns, "another process used the tables meanwhile"); !made) {
        why_not_kept_ = made.error().message;
        kept_.reset();
      }
    }
    Result<std::shared_ptr<const ForwardingTables>> tables =
        builder_.build(snapshot_, node, now_ns, outages(), countries_);
    const Result<void> started = tables ? start(node, *std::move(tables)) : Result<void>(end(tables.error()));
    if (started) return sharing_.configure(share_settings(*snapshot_->model, node_));
    log_error("the ports that were left cannot be opened again: {}", started.error().message);
    lost_ports_ = true;
    plane_.loop().stop();
  }

  void say_inherited() const {
    if (!kept_ || !kept_->inherited()) return;
    const uint64_t refused = sum_of(*dataplane_, &WorkerCounters::flows_not_inherited);
    log_info("{} flows of the process before go on with their backends",
             sum_of(*dataplane_, &WorkerCounters::flows_inherited));
    if (refused != 0) log_warn("{} flows of the process before were damaged or without a known backend", refused);
  }

  nlohmann::json kept_status() const {
    if (!kept_) return {{"kept", false}, {"why", why_not_kept_}};
    return {{"kept", !ids_are_unwritten_},
            {"file", kept_->path()},
            {"inherited", sum_of(*dataplane_, &WorkerCounters::flows_inherited)},
            {"not_inherited", sum_of(*dataplane_, &WorkerCounters::flows_not_inherited)},
            {"why", kept_->why_new()}};
  }

  void add_status(nlohmann::json& status) const {
    if (!dataplane_) return;
    const WorkerCounters& first = dataplane_->workers().front()->counters();
    status["ports"] = ports_status(*dataplane_);
    status["workers"] = dataplane_->workers().size();
    status["flows"] = sum_of(*dataplane_, &WorkerCounters::flows_live);
    status["flow_memory"] = kept_status();
    status["flow_sharing"] = sharing_.status();
    status["shared_vips"] = holdings_status(*dataplane_->tables(), node_.name);
    status["neighbours"] = {{"total", first.neighbours.value()}, {"resolved", first.neighbours_resolved.value()}};
    status["maglev_tables_built"] = builder_.maglev_tables_built();
    status["maglev_tables_derived"] = builder_.maglev_tables_derived();
    status["needs_restart"] = needs_restart_;
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
  LinkEvents link_events_;
  Timer look_timer_;
  FlowHasher hasher_;
  ForwardingBuilder builder_;
  FlowSharing sharing_;
  Watch watch_;
  LeftVips left_vips_;
  std::unique_ptr<Eal> eal_;         // outlives the ports and their buffers
  BufferStock stock_;                // for the first start of the dataplane; later those of ports that were left
  std::unique_ptr<KeptState> kept_;  // outlives the workers; null: flows end with the process
  std::string why_not_kept_;
  bool looked_for_kept_ = false, ids_are_unwritten_ = false;
  KeptIds ids_left_;  // in the tables when the ports were left
  std::unique_ptr<Dataplane> dataplane_;
  std::unique_ptr<ProbeDesk> desk_;  // belongs to the dataplane
  L4Node running_;
  std::shared_ptr<const Snapshot> snapshot_;  // the snapshot in force; node_ belongs to it
  CountryReader country_reader_;
  std::shared_ptr<const CountryNetworks> countries_;  // in force; null: no list names a country
  Node node_;
  L4Node node_in_force_;            // the node in the version in force
  uint64_t neighbour_changes_ = 0;  // the board's change count when the tables in force were built
  LinkLog link_log_;
  std::vector<std::string> needs_restart_;  // keys whose current values take effect only at the next start
  bool failed_to_start_ = false;
  bool has_let_go_ = false;  // another process is about to have the ports
  bool lost_ports_ = false;  // it did not come to serve, and they could not be opened again
};

}  // namespace
}  // namespace tidegate::l4

int main(int argc, char** argv) {
  tidegate::PlaneOptions options = tidegate::parse_plane_options(
      argc, argv, "l4", "Forwards packets to the backends of each service: DPDK, weighted Maglev, flows kept.");
  return tidegate::l4::Forwarder(std::move(options)).run();
}
