// SPDX-License-Identifier: Apache-2.0
#include "l4/views.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/service.h"
#include "conf/model/site.h"
#include "conf/query.h"
#include "conf/vip_holder.h"
#include "core/clock.h"

namespace tidegate::l4 {
namespace {

using nlohmann::json;

constexpr uint64_t kUsualEntries = 100;
constexpr uint64_t kBucketsPerSlice = 2'048;  // 128 KB, which a worker reads in some ten microseconds
constexpr uint64_t kSlicesPerPage = 512;      // then the page ends, even if few flows were found
constexpr size_t kNeighboursPerSlice = 256;
constexpr unsigned kWorkerShift = 40;  // a place in the flow tables: worker, then bucket

struct ViewQuestion {
  uint64_t limit = kUsualEntries, from = 0;
  std::optional<BackendId> backend;
};

json page_of(const char* name, json entries, std::optional<uint64_t> next) {
  json page = {{name, std::move(entries)}, {"next", nullptr}};
  if (next) page["next"] = *next;
  return page;
}

std::vector<std::string> names_by_id(const BackendIds& backends) {
  std::vector<std::string> names(kMaxBackends);
  backends.for_each([&](const BackendKey& key, BackendId id) { names[index_of(id)] = key.first + "/" + key.second; });
  return names;
}

json shares_of(const ForwardingTables& tables, const ServiceEntry& service, const std::vector<std::string>& names) {
  std::vector<uint32_t> slots(kMaxBackends);
  for (uint32_t slot = 0; slot < service.slot_count; ++slot) {
    if (service.slots[slot] < kMaxBackends) ++slots[service.slots[slot]];
  }
  json out = json::array();
  for (size_t id = 0; id < slots.size(); ++id) {
    if (slots[id] == 0) continue;
    out.push_back({{"backend", names[id]},
                   {"slots", slots[id]},
                   {"reachable", !tables.backend(BackendId(static_cast<uint16_t>(id))).is_cut_off(service.family)}});
  }
  return out;
}

// The node that holds the VIP's first address of the family; empty if each forwarder serves it.
std::string holder_of_family(const Forwarders& forwarders, const ForwardingTables& tables, uint32_t vip,
                             uint8_t family) {
  const Snapshot& snapshot = *tables.snapshot;
  for (const IpAddress& address : snapshot.model->vips[vip].addresses) {
    if (static_cast<uint8_t>(address.family) != family) continue;
    if (const auto left = tables.left.find(address); left != tables.left.end()) return left->second;
    const uint32_t holder = holder_of(forwarders, snapshot.nodes, vip, address);
    return holder == kNone ? std::string() : snapshot.model->nodes[holder].name;
  }
  return {};
}

json services_view(const ViewQuestion& question, const Dataplane& dataplane, const BackendIds& backends) {
  const ForwardingTables& tables = *dataplane.tables();
  const Model& model = *tables.snapshot->model;
  const Forwarders forwarders(model);
  const std::vector<std::string> names = names_by_id(backends);
  json out = json::array();
  uint64_t at = question.from;
  for (; at < tables.services.size() && out.size() < question.limit; ++at) {
    const ServiceEntry& service = tables.services[at];
    const Service& config = model.services[service.service];
    out.push_back({{"service", config.name},
                   {"vip", model.vips[config.vip].name},
                   {"family", service.family},
                   {"protocol", config.protocol == Protocol::udp ? "udp" : "tcp"},
                   {"port", config.port},
                   {"last_port", config.last_port == 0 ? config.port : config.last_port},
                   {"pool", model.pools[config.pool].name},
                   {"forwarding", name(config.forwarding)},
                   {"tracking", service.tracking},
                   {"slots", service.slot_count},
                   {"second_chance", service.before != nullptr},
                   {"backends", shares_of(tables, service, names)}});
    if (std::string holder = holder_of_family(forwarders, tables, config.vip, service.family); !holder.empty())
      out.back()["holder"] = std::move(holder);
  }
  return page_of("services", std::move(out), at < tables.services.size() ? std::optional(at) : std::nullopt);
}

json neighbours_view(const ViewQuestion& question, const Dataplane& dataplane) {
  std::vector<NeighbourView> found;
  found.reserve(question.limit);
  std::optional<size_t> next = question.from;
  while (next && found.size() < question.limit) {
    const size_t most = std::min<size_t>(kNeighboursPerSlice, question.limit - found.size());
    dataplane.workers().front()->read(
        [&](const Decider& decider, uint32_t) { next = decider.neighbours().list(*next, most, found); });
  }
  json out = json::array();
  for (const NeighbourView& each : found) {
    out.push_back({{"address", each.address.to_string()},
                   {"port", dataplane.ports()[each.port].device()},
                   {"state", name(each.state)},
                   {"mac", each.mac.is_zero() ? json() : json(each.mac.to_string())}});
  }
  return page_of("neighbours", std::move(out), next);
}

json flow_json(const FlowEntry& flow, size_t worker, uint32_t now_ms, const std::vector<std::string>& names) {
  return {{"hash", fmt::format("{:016x}", flow.hash)},
          {"worker", worker},
          {"backend", index_of(flow.backend) < names.size() ? names[index_of(flow.backend)] : ""},
          {"state", name(flow.state)},
          {"assured", flow.assured()},
          {"begun_here", flow.unseen == 0 && flow.shared == 0},
          {"shared", flow.shared != 0},
          {"ends_in_ms", flow.expires_ms - now_ms}};
}

json flows_view(const ViewQuestion& question, const Dataplane& dataplane, const BackendIds& backends) {
  const std::vector<std::string> names = names_by_id(backends);
  std::vector<FlowEntry> slice;
  slice.reserve(kMaxShownEntries + 3);  // so that the worker need not allocate
  json out = json::array();
  size_t worker = question.from >> kWorkerShift;
  uint64_t bucket = question.from & ((uint64_t{1} << kWorkerShift) - 1);
  for (uint64_t slices = 0; slices < kSlicesPerPage && out.size() < question.limit; ++slices) {
    if (worker >= dataplane.workers().size()) break;
    slice.clear();
    bool ended = false;
    uint32_t now_ms = 0;
    dataplane.workers()[worker]->read([&](const Decider& decider, uint32_t worker_now_ms) {
      now_ms = worker_now_ms;
      bucket =
          decider.flows().list(bucket, kBucketsPerSlice, question.backend, question.limit - out.size(), now_ms, slice);
      ended = bucket >= decider.flows().bucket_count();
    });
    for (const FlowEntry& flow : slice) out.push_back(flow_json(flow, worker, now_ms, names));
    if (!ended) continue;
    ++worker;
    bucket = 0;
  }
  std::optional<uint64_t> next;
  if (worker < dataplane.workers().size()) next = uint64_t{worker} << kWorkerShift | bucket;
  return page_of("flows", std::move(out), next);
}

HttpResponse bad_view_query(const std::string& detail) { return HttpResponse::problem(400, "Bad Request", detail); }

}  // namespace

std::optional<HttpResponse> answer_view(const HttpRequest& request, const Dataplane& dataplane,
                                        const BackendIds& backends) {
  const bool flows = request.path == "/flows";
  if (!flows && request.path != "/services" && request.path != "/neighbours") return std::nullopt;
  if (request.method != "GET") return HttpResponse::problem(405, "Method Not Allowed", "only GET reads a view");
  std::vector<QueryParameter> known = {QueryParameter::number("limit", "most entries", 1, kMaxShownEntries),
                                       QueryParameter::number("from", "the `next` of the page before")};
  if (flows) known.push_back({"backend", "POOL/NAME: its flows alone"});
  if (const std::optional<QueryFault> fault = check_query(request.query, known)) return bad_view_query(fault->detail);
  ViewQuestion question;
  if (const auto limit = request.parameter("limit")) question.limit = parse_number(*limit).value_or(kUsualEntries);
  if (const auto from = request.parameter("from")) question.from = parse_number(*from).value_or(0);
  if (const auto wanted = request.parameter("backend")) {
    const size_t slash = wanted->find('/');
    if (slash != std::string::npos)
      question.backend = backends.find({wanted->substr(0, slash), wanted->substr(slash + 1)});
    if (!question.backend) return bad_view_query(fmt::format("no backend {}; it is written POOL/NAME", *wanted));
  }
  const json view = flows                         ? flows_view(question, dataplane, backends)
                    : request.path == "/services" ? services_view(question, dataplane, backends)
                                                  : neighbours_view(question, dataplane);
  return HttpResponse::json(200, view.dump());
}

}  // namespace tidegate::l4
