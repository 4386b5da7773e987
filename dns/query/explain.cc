// SPDX-License-Identifier: Apache-2.0
#include "dns/query/explain.h"

#include <fmt/format.h>
#include <ldns/ldns.h>

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "dns/plan/lookup.h"
#include "dns/wire/request.h"

namespace tidegate::dns {
namespace {

using Json = nlohmann::json;

const char* name_of(SteerPolicy policy) {
  switch (policy) {
    case SteerPolicy::nearest:
      return "nearest";
    case SteerPolicy::weighted:
      return "weighted";
    case SteerPolicy::failover:
      return "failover";
    case SteerPolicy::map:
      return "map";
    case SteerPolicy::sticky:
      return "sticky";
    case SteerPolicy::multivalue:
      return "multivalue";
  }
  return "?";
}

Json site_name(const Model& model, uint32_t site) { return site == kNone ? Json() : Json(model.sites[site].name); }

Json tell_facts(const Mmdb::Facts& facts) {
  const auto text = [](const std::string& value) { return value.empty() ? Json() : Json(value); };
  return {{"continent", text(facts.continent)},
          {"country", text(facts.country)},
          {"region", text(facts.region)},
          {"asn", facts.asn == 0 ? Json() : Json(facts.asn)}};
}

Json tell_geo(const IpAddress& client, const Tables& tables, uint8_t scope) {
  const Authority& authority = *tables.authority;
  const GeoMap& geo = *tables.geo;
  const GeoExplanation explanation = geo.explanation(client);
  const Located located = geo.locate(client);
  Json order = Json::array();
  for (const uint32_t site : geo.order(located)) order.push_back(authority.model->sites[site].name);
  return {{"source", name(explanation.source)},
          {"located_as", GeoMap::located_as(client).to_string()},
          {"site", site_name(*authority.model, explanation.site)},
          {"latitude", explanation.location ? Json(explanation.location->latitude) : Json()},
          {"longitude", explanation.location ? Json(explanation.location->longitude) : Json()},
          {"scope", scope},
          {"facts", tell_facts(explanation.facts)},
          {"order", order}};
}

std::string vip_trouble(const Snapshot& snapshot, uint32_t vip) {
  const Model& model = *snapshot.model;
  const uint32_t site = model.vips[vip].site;
  if (site != kNone && snapshot.site_drained[site]) return "site " + model.sites[site].name + " is drained";
  if (snapshot.vip_drained[vip]) return "the vip is drained";
  for (const Service& service : model.services) {
    if (service.vip == vip && !snapshot.pools[service.pool].up) {
      return fmt::format("service {}: pool {} is down", service.name, model.pools[service.pool].name);
    }
  }
  return {};
}

Json tell_candidate(const Candidate& candidate, IpAddress::Family family, const CompiledSteer& compiled,
                    const std::optional<Location>& from, const Tables& tables) {
  const Model& model = *tables.authority->model;
  const Snapshot& snapshot = *tables.snapshot;
  const SteerTarget& target = model.steers[compiled.model_index].targets[candidate.target];
  IpAddress address;
  address.family = family;
  address.bytes = candidate.address;
  const uint8_t of_target = tables.health[candidate.target_health];
  const uint8_t flags = tables.health[candidate.health] & of_target;
  std::string label = target_label(model, target);
  label[label.find(':')] = '/';
  Json told{{"target", label},
            {"address", candidate.kind == Candidate::Kind::address ? Json(address.to_string()) : Json()},
            {"site", site_name(model, candidate.site)},
            {"distance_km", nullptr},
            {"weight", compiled.target_weights[candidate.target]},
            {"state", (flags & health::kUsable) != 0     ? "up"
                      : (flags & health::kFailOpen) != 0 ? "down"
                                                         : "drained"},
            {"why", ""}};
  if (from && candidate.site != kNone) {
    told["distance_km"] = std::round(distance_km(*from, model.sites[candidate.site].location));
  }
  if (of_target == 0) {
    told["why"] = "the target is drained";
    return told;
  }
  if (candidate.kind == Candidate::Kind::alias) {
    const AliasAddresses::Of& alias = tables.aliases[candidate.led_to].of(family);
    told["why"] = !alias.known ? "not looked up yet" : alias.addresses.empty() ? "the name has no addresses" : "";
    told["addresses"] = Json::array();
    for (const auto& bytes : alias.addresses) {
      address.bytes = bytes;
      told["addresses"].push_back(address.to_string());
    }
  }
  if (candidate.kind != Candidate::Kind::address) return told;
  if (target.vip() != kNone) {
    told["why"] = vip_trouble(snapshot, target.vip());
    return told;
  }
  const uint32_t pool = target.pool();
  const uint32_t backend = candidate.health - HealthLayout(model).of_backend(pool, 0);
  told["backend"] = model.pools[pool].backends[backend].name;
  const BackendStatus& status = snapshot.pools[pool].backends[backend];
  told["why"] = status.why;
  if (status.why.empty() && !snapshot.pools[pool].up) told["why"] = "pool " + model.pools[pool].name + " is down";
  return told;
}

std::string tell_record(const RecordView& record) {
  IpAddress address;
  if (record.type == rrtype::kA || record.type == rrtype::kAaaa) {
    address.family = record.type == rrtype::kA ? IpAddress::Family::v4 : IpAddress::Family::v6;
    std::memcpy(address.bytes.data(), record.rdata.data(), std::min(record.rdata.size(), address.size()));
    return address.to_string();
  }
  char* type = ldns_rr_type2str(static_cast<ldns_rr_type>(record.type));
  const std::string text = fmt::format("{} ({} bytes)", type, record.rdata.size());
  std::free(type);
  return text;
}

// Why the answer is as it is: the outcome's own sentence, and for a steer what decided.
std::string tell_reason(Outcome outcome, const CompiledSteer* steer, std::string_view note) {
  std::string reason = info(outcome).sentence;
  if (steer == nullptr || outcome != Outcome::steered) return reason;
  switch (steer->policy) {
    case SteerPolicy::nearest:
      reason = "the nearest site that has a usable target";
      break;
    case SteerPolicy::weighted:
      reason = "a target drawn by weight for the client's network, until the next draw";
      break;
    case SteerPolicy::failover:
      reason = "the first target in order that is usable";
      break;
    case SteerPolicy::map:
      reason = "the closest target for the client's network that is usable";
      break;
    case SteerPolicy::sticky:
      reason = "the target that the client's network keeps while it is usable";
      break;
    case SteerPolicy::multivalue:
      reason = "every usable target, in an order drawn for the client's network";
      break;
  }
  if (!note.empty()) reason += fmt::format("; {}", note);
  return reason;
}

}  // namespace

Json explain(const IpAddress& client, std::string_view name, std::string_view type, const Tables& tables,
             Worker& worker) {
  Json told{{"plane", "dns"}, {"zone", nullptr},  {"name", name},
            {"type", type},   {"steer", nullptr}, {"policy", nullptr}};
  const auto asked = Name::from_text(name);
  const ldns_rr_type rr_type = ldns_get_rr_type_by_name(std::string(type).c_str());
  if (!asked) return {{"plane", "dns"}, {"error", "name is not a domain name"}};
  if (rr_type == 0) return {{"plane", "dns"}, {"error", "type is not a record type"}};
  const Authority& authority = *tables.authority;

  // The very answer, and how it ended.
  std::array<uint8_t, kHeaderBytes + Name::kMaxBytes + 4> query;
  std::vector<uint8_t> out(kMaxMessageBytes);
  const size_t query_bytes = write_query(query, asked->wire(), static_cast<uint16_t>(rr_type));
  const size_t bytes = answer({query.data(), query_bytes}, out, {client, Transport::http}, tables, worker);
  const auto message = std::span<const uint8_t>(out).first(bytes);
  told["answers"] = Json::array();
  for_each_record(message, [&](const RecordView& record) {
    if (record.section == RecordView::Section::answer) told["answers"].push_back(tell_record(record));
  });
  told["rcode"] = dns::name(static_cast<Rcode>(load_u16(&message[header::kFlags]) & header::kRcodeMask));
  told["ttl_s"] = freshness_s(message);

  // What stood behind it.
  const CompiledSteer* steer = nullptr;
  if (const ServedZone* zone = authority.zone_for(*asked)) {
    told["zone"] = zone->name;
    const Found found = find_name(*zone, *asked, static_cast<uint16_t>(rr_type));
    if (found.steer != kNone) steer = &authority.steers[found.steer];
  }
  const auto family = rr_type == LDNS_RR_TYPE_AAAA ? IpAddress::Family::v6 : IpAddress::Family::v4;
  const DrawKey key(asked->wire(), client, worker.now_s);
  const uint8_t scope = steer == nullptr ? 0 : choose(steer_context(tables), *steer, family, client, key).scope;
  told["geo"] = tell_geo(client, tables, scope);
  told["candidates"] = Json::array();
  if (steer != nullptr) {
    told["steer"] = authority.model->steers[steer->model_index].name;
    told["policy"] = name_of(steer->policy);
    told["draw"] = {{"network", key.network()}, {"changes_in_s", key.changes_in_s()}};
    const auto from = tables.geo->explanation(client).location;
    for (const Candidate& candidate : steer->of(family).candidates) {
      told["candidates"].push_back(tell_candidate(candidate, family, *steer, from, tables));
    }
  }
  told["reason"] = tell_reason(worker.last_outcome, steer, worker.last_note);
  return told;
}

}  // namespace tidegate::dns
