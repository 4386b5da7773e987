// SPDX-License-Identifier: Apache-2.0
#include "dns/server/server.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "conf/worker_count.h"
#include "core/crypto.h"
#include "dns/family_text.h"
#include "dns/limits.h"

namespace tidegate::dns {
namespace {

bool same_listeners(const DnsNode& a, const DnsNode& b) {
  return a.enabled == b.enabled && a.listen == b.listen && a.httpdns_listen == b.httpdns_listen &&
         a.trusted_proxies == b.trusted_proxies && worker_count(a.workers) == worker_count(b.workers) && a.xdp == b.xdp;
}

void add_into(Tally::Count& to, const Tally::Count& from) { Tally::add(to, from.load(std::memory_order_relaxed)); }

void add_into(Tally& to, const Tally& from) {
  for (size_t i = 0; i < to.outcomes.size(); ++i) add_into(to.outcomes[i], from.outcomes[i]);
  for (size_t i = 0; i < to.rcodes.size(); ++i) add_into(to.rcodes[i], from.rcodes[i]);
  for (size_t i = 0; i < to.queries.size(); ++i) add_into(to.queries[i], from.queries[i]);
  add_into(to.truncated, from.truncated);
  add_into(to.with_edns, from.with_edns);
  add_into(to.with_subnet, from.with_subnet);
  add_into(to.failed_open, from.failed_open);
  add_into(to.shed, from.shed);
}

uint64_t value(const Tally::Count& count) { return count.load(std::memory_order_relaxed); }

}  // namespace

Server::UdpWorker::UdpWorker(TablesPublisher& tables_publisher, const HashKey& cookie_secret)
    : publisher(tables_publisher),
      slot(tables_publisher.add_reader()),
      worker(std::make_unique<Worker>(cookie_secret)) {}

Server::UdpWorker::~UdpWorker() {
  udp.reset();
  publisher.remove_reader(slot);
}

Server::Server(const HashKey& cookie_secret, bool overlaps)
    : cookie_secret_(cookie_secret),
      overlaps_(overlaps),
      own_worker_(cookie_secret),
      httpdns_clients_(kHttpDnsClients, random_hash_key()) {}

Server::~Server() { stop(); }

void Server::stop() {
  if (!listeners_) return;
  if (listeners_->xdp) listeners_->xdp->stop();  // it is first, because its queries then come to the ordinary sockets
  for (const auto& udp : listeners_->udp) udp->udp->stop();
  for (const auto& stream : listeners_->streams) stream->stop();
}

Result<std::unique_ptr<Server::Listeners>> Server::open(const DnsNode& node) {
  auto listeners = std::make_unique<Listeners>();
  listeners->node = node;
  if (!node.enabled) return listeners;
  // The first worker decides what port 0 becomes. UDP comes first, so that TCP gets the same port.
  std::vector<Endpoint> addresses = node.listen;
  std::vector<Endpoint> http_addresses = node.httpdns_listen;
  for (uint32_t w = 0; w < worker_count(node.workers); ++w) {
    for (Endpoint& address : addresses) {
      if (Result<void> added = add_udp(address, *listeners); !added) return added.error();
      address = listeners->udp.back()->udp->endpoint();
    }
    auto stream =
        StreamWorker::open(node, addresses, http_addresses, publisher_, cookie_secret_, httpdns_clients_, held_ports_);
    if (!stream) return stream.error();
    http_addresses = (*stream)->http_endpoints();
    listeners->streams.push_back(*std::move(stream));
  }
  if (Result<void> opened = open_inherited(*listeners); !opened) return opened.error();
  return listeners;
}

Result<void> Server::add_udp(const Endpoint& endpoint, Listeners& listeners) {
  auto udp = std::make_unique<UdpWorker>(publisher_, cookie_secret_);
  auto bound = UdpServer::bind(endpoint, udp->slot, *udp->worker, held_ports_);
  if (!bound) return bound.error();
  udp->udp = *std::move(bound);
  listeners.udp.push_back(std::move(udp));
  return {};
}

std::vector<Fault> Server::judge(const std::shared_ptr<const Model>& model) {
  const Tables* in_force = publisher_.in_force();
  PlannedAuthority planned = plan_authority(model, in_force == nullptr ? nullptr : in_force->authority.get());
  planned_ = std::move(planned.authority);
  return std::move(planned.faults);
}

Vote Server::hold(std::shared_ptr<const Snapshot> snapshot, const Node& node) {
  auto tables = build_tables(std::move(snapshot), node, publisher_.in_force());
  if (!tables) return Vote::no(tables.error().message);
  if (Result<void> ports = hold_ports(node.dns); !ports) {
    held_ports_.clear();
    return Vote::no(ports.error().message);
  }
  held_ = *std::move(tables);
  return {};
}

void Server::release() {
  held_ = nullptr;
  held_ports_.clear();
}

Result<void> Server::hold_ports(const DnsNode& node) {
  if (!node.enabled || (listeners_ && same_listeners(listeners_->node, node))) return {};
  for (const Endpoint& endpoint : node.listen) {
    for (const int type : {SOCK_DGRAM, SOCK_STREAM}) {
      if (Result<void> held = hold_port(endpoint, type, node); !held) return held;
    }
  }
  for (const Endpoint& endpoint : node.httpdns_listen) {
    if (Result<void> held = hold_port(endpoint, SOCK_STREAM, node); !held) return held;
  }
  return {};
}

// A port that this process has need not be held, because nobody can take it. A second UDP socket on it would get a
// share of its queries, and drop them.
Result<void> Server::hold_port(const Endpoint& endpoint, int type, const DnsNode& node) {
  if (endpoint.port == 0 || has_port(endpoint) || held_ports_.holds(endpoint, type)) return {};
  const bool may_be_shared = (overlaps_ && !listeners_) || held_ports_.meets(endpoint, type);
  Result<void> held = may_be_shared ? Result<void>() : check_port_is_free(endpoint, type);
  if (held) held = held_ports_.hold(endpoint, type, worker_count(node.workers));
  return held ? held : fail(fmt::format("cannot listen on {}: {}", endpoint.to_string(), held.error().message));
}

bool Server::has_port(const Endpoint& endpoint) const {
  if (!listeners_ || !listeners_->node.enabled) return false;
  for (const std::vector<Endpoint>& bound : {udp_endpoints(), tcp_endpoints(), http_endpoints()}) {
    const auto taken = [&](const Endpoint& other) { return share_a_port(endpoint, other); };
    if (std::any_of(bound.begin(), bound.end(), taken)) return true;
  }
  return false;
}

Result<void> Server::apply(std::shared_ptr<const Snapshot> snapshot, const Node& node) {
  // Uses all that was built for the candidate, except the live state, because a newer one may be in force.
  const Tables* known =
      held_ != nullptr && held_->snapshot->configured == snapshot->configured ? held_.get() : publisher_.in_force();
  auto tables = build_tables(std::move(snapshot), node, known, std::exchange(planned_, nullptr));
  if (!tables) return tables.error();
  std::unique_ptr<Listeners> fresh;
  if (!listeners_ || !same_listeners(listeners_->node, node.dns)) {
    // A version that was prepared has its ports already. This binds those that are still missing.
    if (Result<void> ports = hold_ports(node.dns); !ports) {
      if (held_ == nullptr) held_ports_.clear();
      return ports;
    }
    auto opened = open(node.dns);
    if (held_ == nullptr) held_ports_.clear();
    if (!opened) return opened.error();
    fresh = *std::move(opened);
  }
  publisher_.publish(*std::move(tables));
  if (fresh) {
    for (const auto& udp : fresh->udp) udp->udp->start();
    for (const auto& stream : fresh->streams) stream->start();
    stop();
    for_each_worker([&](const Worker& worker) { add_into(retired_, worker.tally); });
    listeners_ = std::move(fresh);
    // A queue has only one socket, so the previous ones had to be closed first.
    if (node.dns.enabled && !node.dns.xdp.empty() && !xdp_let_go_) {
      listeners_->xdp = std::make_unique<XdpFront>(node.dns, udp_endpoints(), publisher_, cookie_secret_);
    }
    publisher_.collect();
  }
  return {};
}

void Server::set_aliases(const AliasBook& aliases) {
  const Tables* const in_force = publisher_.in_force();
  if (in_force != nullptr) publisher_.publish(with_aliases(*in_force, aliases));
  if (held_ != nullptr) held_ = with_aliases(*held_, aliases);
}

// The threads of AF_XDP have ended. Their counters are kept.
void Server::retire_xdp() {
  listeners_->xdp->for_each_worker([this](const Worker& worker) { add_into(retired_, worker.tally); });
  listeners_->xdp.reset();
}

bool Server::tend_xdp() {
  if (!listeners_ || !listeners_->xdp) return xdp_let_go_;
  listeners_->xdp->tend([this](const Worker& worker) { add_into(retired_, worker.tally); });
  return true;
}

std::vector<XdpState> Server::xdp_states() const {
  return listeners_ && listeners_->xdp ? listeners_->xdp->states() : std::vector<XdpState>();
}

template <class Fn>
void Server::for_each_worker(Fn&& fn) const {
  if (!listeners_) return;
  for (const auto& udp : listeners_->udp) fn(*udp->worker);
  for (const auto& stream : listeners_->streams) fn(stream->worker());
  if (listeners_->xdp) listeners_->xdp->for_each_worker(fn);
}

std::vector<Endpoint> Server::udp_endpoints() const {
  std::vector<Endpoint> endpoints;
  for (size_t i = 0; listeners_ && i < listeners_->node.listen.size(); ++i) {
    endpoints.push_back(listeners_->udp[i]->udp->endpoint());
  }
  return endpoints;
}

std::vector<Endpoint> Server::tcp_endpoints() const {
  return listeners_ && !listeners_->streams.empty() ? listeners_->streams.front()->tcp_endpoints()
                                                    : std::vector<Endpoint>();
}

std::vector<Endpoint> Server::http_endpoints() const {
  return listeners_ && !listeners_->streams.empty() ? listeners_->streams.front()->http_endpoints()
                                                    : std::vector<Endpoint>();
}

uint64_t Server::queries() const {
  uint64_t sum = 0;
  for (const auto& count : retired_.queries) sum += value(count);
  for_each_worker([&](const Worker& worker) {
    for (const auto& count : worker.tally.queries) sum += value(count);
  });
  return sum;
}

void Server::append_metrics(std::string& out) const {
  Tally sum;
  add_into(sum, retired_);
  for_each_worker([&](const Worker& worker) { add_into(sum, worker.tally); });

  FamilyText queries(out, "tidegate_dns_queries_total", "Messages received, by transport.");
  for (size_t i = 0; i < kTransportCount; ++i) {
    queries.add(value(sum.queries[i]), {{"transport", name(static_cast<QueryTransport>(i))}});
  }
  FamilyText outcomes(out, "tidegate_dns_outcomes_total", "How queries ended.");
  for (size_t i = 0; i < kOutcomeCount; ++i) outcomes.add(value(sum.outcomes[i]), {{"outcome", kOutcomes[i].name}});
  FamilyText rcodes(out, "tidegate_dns_responses_total", "Answers given, by response code.");
  for (size_t i = 0; i < Tally::kRcodes; ++i) {
    if (name(static_cast<Rcode>(i))[0] != '?')
      rcodes.add(value(sum.rcodes[i]), {{"rcode", name(static_cast<Rcode>(i))}});
  }
  FamilyText(out, "tidegate_dns_truncated_total", "Answers that did not fit and sent the client to TCP.")
      .add(value(sum.truncated));
  FamilyText(out, "tidegate_dns_edns_queries_total", "Queries with EDNS.").add(value(sum.with_edns));
  FamilyText(out, "tidegate_dns_client_subnet_queries_total", "Queries with a client subnet.")
      .add(value(sum.with_subnet));
  FamilyText(out, "tidegate_dns_failed_open_answers_total", "Steered answers given although no target was usable.")
      .add(value(sum.failed_open));
  FamilyText(out, "tidegate_dns_shed_answers_total",
             "Steered answers for which a nearer site was passed over, because it sheds load.")
      .add(value(sum.shed));
  append_transport_metrics(out);
}

// Metrics of the listeners that are open now. They begin at 0 when listeners are opened again.
void Server::append_transport_metrics(std::string& out) const {
  if (!listeners_) return;
  const auto sum_udp = [&](Tally::Count UdpTally::*count) {
    uint64_t sum = 0;
    for (const auto& udp : listeners_->udp) sum += value(udp->udp->tally().*count);
    return sum;
  };
  const auto sum_tcp = [&](Tally::Count TcpTally::*count) {
    uint64_t sum = 0;
    for (const auto& stream : listeners_->streams) sum += value(stream->tcp_tally().*count);
    return sum;
  };
  const auto sum_http = [&](auto&& pick) {
    uint64_t sum = 0;
    for (const auto& stream : listeners_->streams) sum += value(pick(stream->http_tally()));
    return sum;
  };
  FamilyText(out, "tidegate_dns_udp_faults_total", "Datagrams that were dropped outside of DNS.")
      .add(sum_udp(&UdpTally::oversized), {{"fault", "oversized"}})
      .add(sum_udp(&UdpTally::unanswerable), {{"fault", "source_port_zero"}})
      .add(sum_udp(&UdpTally::send_failed), {{"fault", "send_failed"}});
  FamilyText(out, "tidegate_dns_tcp_connections_total", "Connections, by what became of them.")
      .add(sum_tcp(&TcpTally::accepted), {{"event", "accepted"}})
      .add(sum_tcp(&TcpTally::evicted), {{"event", "evicted"}})
      .add(sum_tcp(&TcpTally::evicted_by_address), {{"event", "evicted_by_address"}})
      .add(sum_tcp(&TcpTally::refused), {{"event", "refused"}})
      .add(sum_tcp(&TcpTally::timed_out), {{"event", "timed_out"}})
      .add(sum_tcp(&TcpTally::oversized_query), {{"event", "oversized_query"}})
      .add(sum_tcp(&TcpTally::unanswerable), {{"event", "unanswerable"}});
  FamilyText(out, "tidegate_dns_http_requests_total", "Requests over HTTP, by what they asked.")
      .add(sum_http([](const HttpTally& t) -> const Tally::Count& { return t.doh; }), {{"kind", "doh"}})
      .add(sum_http([](const HttpTally& t) -> const Tally::Count& { return t.doh_refused; }), {{"kind", "doh_refused"}})
      .add(sum_http([](const HttpTally& t) -> const Tally::Count& { return t.httpdns; }), {{"kind", "httpdns"}})
      .add(sum_http([](const HttpTally& t) -> const Tally::Count& { return t.httpdns_v2; }), {{"kind", "httpdns_v2"}})
      .add(sum_http([](const HttpTally& t) -> const Tally::Count& { return t.httpdns_dnspod; }),
           {{"kind", "httpdns_dnspod"}})
      .add(sum_http([](const HttpTally& t) -> const Tally::Count& { return t.unknown_path; }),
           {{"kind", "unknown_path"}});
  FamilyText errors(out, "tidegate_dns_httpdns_errors_total", "Refusals of HTTPDNS, by code.");
  for (size_t i = 1; i < kHttpDnsErrorCount; ++i) {
    errors.add(sum_http([i](const HttpTally& t) -> const Tally::Count& { return t.httpdns_errors[i]; }),
               {{"code", kHttpDnsErrors[i].code}});
  }
  if (listeners_->xdp) listeners_->xdp->append_metrics(out);
}

}  // namespace tidegate::dns
