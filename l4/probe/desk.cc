// SPDX-License-Identifier: Apache-2.0
#include "l4/probe/desk.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "core/assert.h"
#include "core/crypto.h"

namespace tidegate::l4 {
namespace {

uint32_t unguessable() {
  const std::string bytes = random_bytes(sizeof(uint32_t));
  uint32_t number;
  std::memcpy(&number, bytes.data(), sizeof number);
  return number;
}

}  // namespace

// One order, from its request to its answer.
struct ProbeDesk::Order {
  Order(HttpExchangePtr asked, ProbeRequest given) : exchange(std::move(asked)), request(std::move(given)) {
    for (const Endpoint& target : request.targets) results.push_back({target, ProbeEnd::timeout, {}});
    slots.resize(results.size());
  }
  HttpExchangePtr exchange;
  ProbeRequest request;  // the board reads the payload from here
  std::vector<ProbeResultLine> results;
  std::vector<std::optional<uint16_t>> slots;  // slots of the targets that have not ended
  std::unique_ptr<Timer> timer;
  bool is_over() const {
    return std::none_of(slots.begin(), slots.end(), [](const auto& slot) { return slot.has_value(); });
  }
};

ProbeDesk::ProbeDesk(EventLoop& loop, Dataplane& dataplane)
    : loop_(loop),
      dataplane_(dataplane),
      refused_(metrics().counter("tidegate_l4_probe_orders_refused_total",
                                 "Orders of probes that found too many under way")) {
  for (size_t i = 0; i < ended_.size(); ++i) {
    ended_[i] = &metrics().counter("tidegate_l4_probes_total", "Probes that control had sent from here, by their end",
                                   {{"end", std::string(name(static_cast<ProbeEnd>(i)))}});
  }
  loop_.add(dataplane_.probes().fd(), EPOLLIN, this);
}

ProbeDesk::~ProbeDesk() {
  loop_.remove(dataplane_.probes().fd());
  for (const auto& order : orders_) end_unanswered(*order);
}

void ProbeDesk::take(const HttpExchangePtr& exchange, const BackendIds& backends) {
  if (exchange->request().method != "POST") {
    return exchange->respond(HttpResponse::problem(405, "Method Not Allowed", "a probe is ordered by POST"));
  }
  Result<ProbeRequest> request = read_probe_request(exchange->request().body);
  if (!request) return exchange->respond(HttpResponse::problem(400, "Bad Request", request.error().message));
  const ForwardingTables& tables = *dataplane_.tables();
  const std::optional<BackendId> backend = backends.find({request->pool, request->backend});
  if (!backend) {
    return exchange->respond(HttpResponse::problem(
        404, "Not Found", fmt::format("no service here has backend {}/{}", request->pool, request->backend)));
  }
  for (const Endpoint& target : request->targets) {
    if (is_vip(tables.local_kind(static_cast<uint8_t>(target.address.family), words_of(target.address)))) {
      continue;
    }
    return exchange->respond(
        HttpResponse::problem(404, "Not Found", fmt::format("{} is no VIP here", target.address.to_string())));
  }
  const auto order = std::make_shared<Order>(exchange, *std::move(request));
  if (!place_all(*order, tables, *backend)) {
    refused_.add();
    end_unanswered(*order);
    return exchange->respond(
        HttpResponse::problem(503, "Service Unavailable", fmt::format("{} probes are under way", kMaxProbes)));
  }
  dataplane_.send_probes();
  orders_.push_back(order);
  order->timer = std::make_unique<Timer>(loop_, [this, weak = std::weak_ptr(order)] {
    const std::shared_ptr<Order> late = weak.lock();
    end_unanswered(*late);
    answer_those_over();
  });
  order->timer->arm_after_ms(order->request.timeout_ms);
  answer_those_over();
}

bool ProbeDesk::place_all(Order& order, const ForwardingTables& tables, BackendId backend) {
  for (size_t i = 0; i < order.results.size(); ++i) {
    if (!place(order, i, tables, backend)) return false;
  }
  return true;
}

// Returns false if there is no room for another probe.
bool ProbeDesk::place(Order& order, size_t index, const ForwardingTables& tables, BackendId backend) {
  const Endpoint& target = order.results[index].target;
  const auto family = static_cast<uint8_t>(target.address.family);
  const BackendEntry& entry = tables.backend(backend);
  if (entry.neighbour(family) == kNoNeighbour) {
    end(order, index, ProbeEnd::no_address, {});
    return true;
  }
  order.slots[index] = dataplane_.probes().order(
      {.protocol = order.request.protocol,
       .vip = target.address,
       .port = target.port,
       .neighbour = entry.neighbour(family),
       .sequence = unguessable(),
       .payload = order.request.payload,
       .tunnel = entry.has_tunnel(family) ? std::optional(tables.tunnel(backend, family)) : std::nullopt});
  return order.slots[index].has_value();
}

void ProbeDesk::end(Order& order, size_t index, ProbeEnd how, std::string_view reply) {
  order.slots[index].reset();
  order.results[index].end = how;
  order.results[index].reply = reply;
  ended_[static_cast<size_t>(how)]->add();
}

// Ends targets that are still open: they got no reply in time.
void ProbeDesk::end_unanswered(Order& order) {
  for (size_t i = 0; i < order.slots.size(); ++i) {
    if (!order.slots[i]) continue;
    const std::optional<ProbeBoard::Done> done = dataplane_.probes().cancel(*order.slots[i]);
    end(order, i, done ? done->end : ProbeEnd::timeout, done ? done->reply : std::string_view());
  }
}

void ProbeDesk::on_io(uint32_t) {
  dataplane_.probes().drain();
  for (const auto& order : orders_) {
    for (size_t i = 0; i < order->slots.size(); ++i) {
      if (!order->slots[i]) continue;
      const std::optional<ProbeBoard::Done> done = dataplane_.probes().take_done(*order->slots[i]);
      if (done) end(*order, i, done->end, done->reply);
    }
  }
  answer_those_over();
}

void ProbeDesk::answer_those_over() {
  for (auto each = orders_.begin(); each != orders_.end();) {
    if (!(*each)->is_over()) {
      ++each;
      continue;
    }
    (*each)->exchange->respond(HttpResponse::json(200, write_probe_results((*each)->results)));
    each = orders_.erase(each);
  }
}

}  // namespace tidegate::l4
