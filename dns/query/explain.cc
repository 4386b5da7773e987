// SPDX-License-Identifier: Apache-2.0
#include "dns/query/explain.h"

#include <fmt/format.h>
#include <ldns/ldns.h>

#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "conf/model.h"
#include "conf/model/site.h"
#include "conf/model/steer.h"
#include "dns/plan/lookup.h"
#include "dns/query/explain_steer.h"
#include "dns/wire/request.h"

namespace tidegate::dns {
namespace {

using Json = nlohmann::json;

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
std::string tell_reason(QueryOutcome outcome, const CompiledSteer* steer, std::string_view note) {
  if (steer == nullptr || outcome != QueryOutcome::steered) return info(outcome).sentence;
  std::string reason = reason_of(steer->policy);
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

  // The real answer, and how it ended.
  std::array<uint8_t, kHeaderBytes + Name::kMaxBytes + 4> query;
  std::vector<uint8_t> out(kMaxMessageBytes);
  const size_t query_bytes = write_query(query, asked->wire(), static_cast<uint16_t>(rr_type));
  const size_t bytes = answer({query.data(), query_bytes}, out, {client, QueryTransport::http}, tables, worker);
  const auto message = std::span<const uint8_t>(out).first(bytes);
  told["answers"] = Json::array();
  for_each_record(message, [&](const RecordView& record) {
    if (record.section == RecordView::Section::answer) told["answers"].push_back(tell_record(record));
  });
  told["rcode"] = dns::name(static_cast<Rcode>(load_u16(&message[header::kFlags]) & header::kRcodeMask));
  told["ttl_s"] = freshness_s(message);

  // The details of the answer.
  const CompiledSteer* steer = nullptr;
  if (const ServedZone* zone = authority.zone_for(*asked)) {
    told["zone"] = zone->name;
    const Found found = find_name(*zone, *asked, static_cast<uint16_t>(rr_type));
    if (found.steer != kNone) steer = &authority.steers[found.steer];
  }
  const auto family = rr_type == LDNS_RR_TYPE_AAAA ? IpAddress::Family::v6 : IpAddress::Family::v4;
  const DrawKey key(asked->wire(), client, worker.now_s);
  std::vector<ChoiceStep> steps;
  const uint8_t scope =
      steer == nullptr ? 0 : choose_told(steer_context(tables), *steer, family, client, key, steps).scope;
  told["geo"] = tell_geo(client, tables, scope);
  told["candidates"] = Json::array();
  if (steer != nullptr) {
    told["steer"] = authority.model->steers[steer->model_index].name;
    told["policy"] = name_of(steer->policy);
    told["draw"] = {{"network", key.network()}, {"changes_in_s", key.changes_in_s()}};
    const auto from = tables.geo->explanation(client).location;
    told["candidates"] = tell_candidates(*steer, family, from, tables);
    told["steps"] = tell_steps(steps, family, from, tables);
  }
  told["reason"] = tell_reason(worker.last_outcome, steer, worker.last_note);
  return told;
}

}  // namespace tidegate::dns
