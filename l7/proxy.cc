// SPDX-License-Identifier: Apache-2.0
#include "l7/proxy.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "conf/model.h"
#include "conf/model/certificate.h"
#include "conf/model/listener.h"
#include "conf/model/policy.h"
#include "conf/model/pool.h"
#include "conf/worker_count.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "core/log.h"
#include "l7/fixed_keys.h"
#include "l7/observe/explain.h"
#include "l7/observe/explain_past.h"
#include "l7/observe/url.h"
#include "l7/policy/table_memory.h"

namespace tidegate::l7 {
namespace {

int breaker_value(Breaker::State state) {
  return state == Breaker::State::closed ? 0 : state == Breaker::State::half_open ? 1 : 2;
}

}  // namespace

Proxy::Proxy(EventLoop& main_loop, const std::string& secret, std::string state_dir, Metrics& metrics, bool overlaps)
    : main_loop_(main_loop),
      metrics_(metrics),
      state_dir_(std::move(state_dir)),
      overlaps_(overlaps),
      stats_(metrics),
      hash_key_(derive_hash_key(secret, "l7 backend hash")),
      router_key_(derive_hash_key(random_bytes(32), "l7 router")),
      tickets_(std::make_shared<const TicketKeys>(secret)),
      names_(main_loop, metrics, "tidegate_l7_name_lookups_total", [this] { adopt_names(); }),
      keys_(main_loop) {
  metrics.collector([this](std::string& out) { append_pool_metrics(out); });
  metrics.collector([this](std::string& out) {
    if (plan_) plan_->policies.append_metrics(out);
  });
  metrics.gauge("tidegate_l7_client_connections", "Client connections open", [this] {
    return shared_ ? static_cast<double>(shared_->admission.connections.load(std::memory_order_relaxed)) : 0.0;
  });
  metrics.gauge("tidegate_l7_self_made_certificates", "Ordered certificates that are not issued yet", [this] {
    if (!plan_) return 0.0;
    return static_cast<double>(std::count_if(plan_->certificates.begin(), plan_->certificates.end(),
                                             [](const ServedCertificate& each) { return each.self_made; }));
  });
  metrics.gauge("tidegate_l7_missing_staples", "Certificates with ocsp that are shown without an answer", [this] {
    if (!plan_) return 0.0;
    return static_cast<double>(
        missing_staples(plan_->model(), plan_->certificates, static_cast<int64_t>(realtime_ns() / kNsPerS)));
  });
  metrics.gauge("tidegate_l7_remembered_requests", "Requests of which explain --request can tell",
                [this] { return records_ ? static_cast<double>(records_->size()) : 0.0; });
  metrics.collector([this](std::string& out) {
    constexpr const char* kName = "tidegate_l7_unrecorded_names_total";
    out += fmt::format(
        "# HELP {0} Names that records of requests lack, because there are too many\n# TYPE {0} counter\n{0} {1}\n",
        kName, registry_.names().refused());
  });
  metrics.gauge("tidegate_l7_arena_bytes", "Memory of requests' heads, held by transactions", [this] {
    uint64_t bytes = 0;
    for (const std::unique_ptr<Worker>& worker : workers_) bytes += worker->arena_bytes();
    return static_cast<double>(bytes);
  });
}

Proxy::~Proxy() {
  for (const std::unique_ptr<Worker>& worker : workers_) worker->stop();
  workers_.clear();
}

Result<void> Proxy::apply(std::shared_ptr<const Snapshot> snapshot, const Node& node) {
  if (workers_.empty()) {
    if (Result<void> started = start_workers(node); !started) return started;
  }
  Result<Description> described = describe_for(std::move(snapshot), node);
  if (!described) return described.error();
  std::vector<std::shared_ptr<Adoption>> adoptions;
  std::vector<TlsContexts::Set> sets;
  for (TlsContexts& contexts : tls_) {
    Result<TlsContexts::Set> set = contexts.prepare(*described);
    if (!set) return set.error();
    sets.push_back(std::move(*set));
    adoptions.push_back(std::make_shared<Adoption>());
    adoptions.back()->staples = contexts.staples();
  }
  Result<SocketChanges> sockets = prepare_sockets(*described);
  if (!sockets) return sockets.error();

  // From here on nothing can fail.
  std::shared_ptr<const Plan> plan = attach(*std::move(described), plan_.get(), registry_, policies_);
  mark_taken_down(*plan);
  for (size_t p = 0; p < plan->pools.size(); ++p) {
    const bool is_in_service = plan_ != nullptr && p < plan_->pools.size() && plan_->pools[p] == plan->pools[p];
    if (!is_in_service) plan->pools[p]->enter_service(monotonic_ns(), plan_ == nullptr);
  }
  for (const Endpoint& gone : sockets->close) listening_.erase(gone);
  for (const std::vector<ListenSocket>& opened : sockets->open) {
    for (const ListenSocket& socket : opened) listening_[socket.bind].push_back(socket.fd.get());
  }
  for (size_t i = 0; i < workers_.size(); ++i) {
    adoptions[i]->plan = std::make_unique<LocalPlan>(plan, std::move(sets[i]));
    adoptions[i]->open = std::move(sockets->open[i]);
    adoptions[i]->close = sockets->close;
    workers_[i]->adopt(std::move(adoptions[i]));
  }
  bound_ = std::move(sockets->bound);
  needs_restart_ = differences_fixed_at_start(started_as_, node);
  for (const std::string& key : needs_restart_) log_warn("{} has changed: it takes effect at the next start", key);
  shared_->admission.configure(node.l7);
  plan_ = std::move(plan);
  registry_.trim(plan_->model());
  own_certificates_.trim(*plan_);
  if (const auto tables = policies_.find<policy::TableMemories>(policy::TableMemories::kRegistryKey)) {
    tables->forget_inherited();
  }
  policies_.trim();
  upcoming_.reset();
  names_.follow(plan_->model(), plan_->this_node().dns.resolvers);
  keys_.follow(plan_->policies.key_sources());
  return {};
}

// Names lead to other addresses now. The version is the same, with other servers. Requests in progress keep their
// servers.
void Proxy::adopt_names() {
  if (!plan_) return;
  const std::shared_ptr<const Snapshot> snapshot = plan_->snapshot;
  const Node node = plan_->this_node();
  if (Result<void> adopted = apply(snapshot, node); !adopted) {
    log_error("names of backends lead elsewhere, but that is not in force: {}", adopted.error().message);
  }
}

// Called before the workers get the Plan. From then on no request of an older Plan chooses such a backend.
void Proxy::mark_taken_down(const Plan& next) {
  if (plan_) {
    for (const std::shared_ptr<BackendRuntime>& backend : plan_->taken_down) {
      if (std::find(next.taken_down.begin(), next.taken_down.end(), backend) == next.taken_down.end()) {
        backend->taken_down.store(false, std::memory_order_relaxed);
      }
    }
  }
  for (const std::shared_ptr<BackendRuntime>& backend : next.taken_down) {
    backend->taken_down.store(true, std::memory_order_relaxed);
  }
}

Result<Description> Proxy::describe_for(std::shared_ptr<const Snapshot> snapshot, const Node& node) {
  const uint32_t node_index = snapshot->model->node_index(node.name);
  const Description* previous = plan_ ? plan_.get() : upcoming_.get();
  // Uses all that was made for the candidate, except the live state, because a newer one may be in force.
  if (held_ && held_->snapshot->configured == snapshot->configured) previous = held_.get();
  Result<Description> described =
      describe({std::move(snapshot), node_index, router_key_, hash_key_, names_.book()}, previous);
  if (described) own_certificates_.complete(*described);
  return described;
}

Result<PurgePosition> Proxy::prepare(const std::shared_ptr<const Snapshot>& snapshot, const Node& node) {
  if (Result<void> opened = open_cache(node); !opened) return opened.error();
  Result<Description> described = describe_for(snapshot, node);
  if (!described) return described.error();
  upcoming_ = std::make_shared<const Description>(*std::move(described));
  return cache_ ? cache_->last_applied_purge() : PurgePosition{};
}

Result<void> Proxy::open_cache(const Node& node) {
  if (cache_ || !node.cache.enabled) return {};
  Result<std::unique_ptr<cache::Cache>> cache =
      cache::Cache::open(cache::make_options(node.cache, state_dir_), metrics_, std::move(cache_lock_));
  if (!cache) return cache.error();
  cache_ = std::move(*cache);
  started_as_.cache = node.cache;
  return {};
}

Result<void> Proxy::start_workers(const Node& node) {
  const size_t count = worker_count(node.l7.workers);
  Result<std::unique_ptr<AccessLog>> log = AccessLog::open(access_log_options(node), count, stats_.log_lines_dropped);
  if (!log) return log.error();
  log_ = std::move(*log);
  if (node.l7.remember_requests_ms != 0) {
    Result<std::unique_ptr<RequestRecords>> records =
        RequestRecords::make(count, node.l7.remember_requests_bytes, node.l7.remember_requests_ms * kNsPerMs);
    if (!records) return records.error();
    records_ = *std::move(records);
  }
  if (Result<void> opened = open_cache(node); !opened) return opened;
  started_as_.l7 = node.l7;
  if (!cache_) started_as_.cache = node.cache;
  shared_.reset(
      new WorkerShared{stats_, *log_, cache_.get(), main_loop_, AdmissionShared(random_hash_key()), records_.get()});
  shared_->admission.configure(node.l7);
  for (size_t i = 0; i < count; ++i) {
    tls_.emplace_back(tickets_);
    workers_.push_back(std::make_unique<Worker>(i, *shared_));
  }
  for (const std::unique_ptr<Worker>& worker : workers_) worker->start();
  return {};
}

Result<Proxy::SocketChanges> Proxy::prepare_sockets(const Description& description) {
  // A version that was prepared has its ports already. This binds those that are still missing.
  Result<void> held = hold_ports(description, workers_.size());
  Result<SocketChanges> changes = held ? open_sockets(description) : held.error();
  if (!held_) held_ports_.clear();
  return changes;
}

Result<Proxy::SocketChanges> Proxy::open_sockets(const Description& description) {
  SocketChanges changes;
  changes.open.resize(workers_.size());
  for (const uint32_t index : description.listeners) {
    const Listener& listener = description.model().listeners[index];
    for (const Endpoint& bind : listener.bind) {
      if (const auto known = bound_.find(bind); known != bound_.end()) {
        changes.bound.insert(*known);
        continue;
      }
      Endpoint wanted = bind;
      for (std::vector<ListenSocket>& sockets : changes.open) {
        Result<ListenSocket> socket = open_listen_socket(bind, wanted, held_ports_);
        if (!socket) return fail(fmt::format("listener {}: {}", listener.name, socket.error().message));
        wanted = socket->bound;  // all workers use the first worker's port
        sockets.push_back(std::move(*socket));
      }
      // The previous process had more workers. None of its sockets is closed, because connections may wait in each.
      for (size_t i = 0; held_ports_.holds_more(bind, SOCK_STREAM); ++i) {
        Result<ListenSocket> socket = open_listen_socket(bind, bind, held_ports_);
        if (!socket) return fail(fmt::format("listener {}: {}", listener.name, socket.error().message));
        changes.open[i % workers_.size()].push_back(std::move(*socket));
      }
      changes.bound.emplace(bind, wanted);
    }
  }
  for (const auto& [bind, real] : bound_) {
    if (!changes.bound.contains(bind)) changes.close.push_back(bind);
  }
  return changes;
}

void Proxy::drain(std::function<void()> done) {
  if (workers_.empty()) return done();
  auto left = std::make_shared<size_t>(workers_.size());
  const uint64_t timeout_ms = plan_ ? plan_->this_node().l7.drain_timeout_ms : 0;
  for (const std::unique_ptr<Worker>& worker : workers_) {
    worker->drain(timeout_ms, [left, done] {
      if (--*left == 0) done();
    });
  }
}

std::string Proxy::digest() const { return plan_ ? plan_->digest() : std::string(); }

std::optional<Endpoint> Proxy::bound(const Endpoint& bind) const {
  const auto found = bound_.find(bind);
  return found == bound_.end() ? std::nullopt : std::optional(found->second);
}

void Proxy::add_status(nlohmann::json& status) const {
  status["workers"] = workers_.size();
  status["needs_restart"] = needs_restart_;
  status["connections"] = shared_ ? shared_->admission.connections.load(std::memory_order_relaxed) : 0;
  if (shared_) {
    status["load"] = {{"at_ns", monotonic_ns()},
                      {"cpu_ns", clock_ns(CLOCK_PROCESS_CPUTIME_ID)},
                      {"workers", workers_.size()},
                      {"connections", status["connections"]},
                      {"max_connections", shared_->admission.max_connections.load(std::memory_order_relaxed)}};
  }
  nlohmann::json& listeners = status["listeners"] = nlohmann::json::array();
  for (const auto& [bind, real] : bound_) listeners.push_back(real.to_string());
  if (cache_) {
    const cache::Cache::Totals totals = cache_->totals();
    status["cache"] = {{"objects", totals.objects},
                       {"ram_bytes", totals.ram_bytes},
                       {"disk_bytes", totals.disk_bytes},
                       {"loading", totals.loading},
                       {"disk_trouble", nullptr}};
    if (!totals.disk_trouble.empty()) status["cache"]["disk_trouble"] = totals.disk_trouble;
  }
}

std::string Proxy::warnings() const {
  const std::string trouble = cache_ ? cache_->totals().disk_trouble : std::string();
  return trouble.empty() ? trouble : "cache: " + trouble + "\n";
}

void Proxy::reopen_log() {
  if (log_) log_->reopen_soon();
}

void Proxy::purge(const Purge& purge) {
  if (!cache_) return;
  std::vector<std::string> keys;
  const Description* described = plan_ ? plan_.get() : upcoming_.get();
  if (purge.kind == PurgeKind::url && described != nullptr) keys = cache_keys_of_url(*described, purge.value);
  cache_->purge(purge, keys);
}

Result<nlohmann::json> Proxy::explain(const HttpRequest& request) const {
  if (!plan_) return fail("no configuration yet");
  if (const std::optional<std::string> id = request.parameter("request")) {
    return explain_past(records_.get(), registry_.names(), request, monotonic_ns());
  }
  Result<nlohmann::json> answer = explain_request(*plan_, cache_.get(), request);
  const std::optional<IpAddress> client = IpAddress::parse(request.parameter("client").value_or(""));
  if (!answer || !client) return answer;
  const AdmissionShared::AddressView view = shared_->admission.look(*client, monotonic_ns());
  (*answer)["client"] = {{"connections", view.connections},
                         {"most_connections", view.most_connections},
                         {"new_connections_left", view.new_connections_left}};
  return answer;
}

void Proxy::append_pool_metrics(std::string& out) const {
  if (!plan_) return;
  const uint64_t now_ns = monotonic_ns();
  const auto family = [&](const char* name, const char* type, const char* help, auto value) {
    out += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
    for (const std::shared_ptr<const BackendPool>& pool : plan_->pools) {
      for (const BackendPool::Server& server : pool->servers()) {
        const MetricLabels labels{{"pool", pool->config().name}, {"backend", server.name}};
        out += fmt::format("{}{} {}\n", name, render_labels(labels), value(*server.runtime));
      }
    }
  };
  const auto relaxed = [](const auto& counter) { return counter.load(std::memory_order_relaxed); };
  family("tidegate_l7_backend_in_flight", "gauge", "Requests under way at a backend",
         [&](const BackendRuntime& r) { return relaxed(r.in_flight); });
  family("tidegate_l7_backend_requests_total", "counter", "Requests sent to a backend",
         [&](const BackendRuntime& r) { return relaxed(r.requests); });
  family("tidegate_l7_backend_failures_total", "counter", "Requests that failed for a reason of the backend's",
         [&](const BackendRuntime& r) { return relaxed(r.failures); });
  family("tidegate_l7_backend_connections_not_accepted_total", "counter",
         "Connections that the backend's kernel did not take: its queue was full",
         [&](const BackendRuntime& r) { return relaxed(r.not_accepted); });
  family("tidegate_l7_backend_ejected", "gauge", "1 while a backend is ejected for consecutive failures",
         [&](const BackendRuntime& r) { return r.ejected(now_ns) ? 1 : 0; });
  family("tidegate_l7_backend_breaker_state", "gauge", "The breaker of a backend: 0 closed, 1 half-open, 2 open",
         [&](const BackendRuntime& r) { return breaker_value(r.breaker.state(now_ns)); });
  const auto pool_family = [&](const char* name, const char* type, const char* help, auto value) {
    out += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
    for (const std::shared_ptr<const BackendPool>& pool : plan_->pools) {
      out += fmt::format("{}{} {}\n", name, render_labels({{"pool", pool->config().name}}), value(pool->runtime()));
    }
  };
  pool_family("tidegate_l7_pool_queued_requests", "gauge", "Requests that wait for room at a backend of the pool",
              [&](const PoolRuntime& r) { return relaxed(r.waiting); });
  pool_family("tidegate_l7_pool_queued_requests_total", "counter", "Requests that had to wait for room at a backend",
              [&](const PoolRuntime& r) { return relaxed(r.waited); });
  pool_family(
      "tidegate_l7_pool_pushed_out_requests_total", "counter",
      "Requests that lost their place in the full queue: to one of a higher queue_priority, or to a client with fewer "
      "requests there",
      [&](const PoolRuntime& r) { return relaxed(r.pushed_out); });
  pool_family("tidegate_l7_pool_breaker_state", "gauge", "The breaker of a pool: 0 closed, 1 half-open, 2 open",
              [&](const PoolRuntime& r) { return breaker_value(r.breaker.state(now_ns)); });
  pool_family("tidegate_l7_breaker_opened_total", "counter", "How often a breaker of the pool or its backends opened",
              [&](const PoolRuntime& r) { return relaxed(r.breaker_opened); });
  pool_family("tidegate_l7_breaker_closed_total", "counter", "How often one closed after its trials",
              [&](const PoolRuntime& r) { return relaxed(r.breaker_closed); });
}

}  // namespace tidegate::l7
