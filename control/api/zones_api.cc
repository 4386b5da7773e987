// SPDX-License-Identifier: Apache-2.0
#include "control/api/zones_api.h"

#include <fmt/format.h>

#include <memory>
#include <utility>

#include "conf/model.h"
#include "conf/model/zone.h"
#include "conf/names.h"
#include "conf/objects.h"
#include "conf/scalar.h"
#include "control/api/parameters.h"
#include "control/api/write_rules.h"
#include "control/api/zone_records.h"
#include "control/limits.h"

namespace tidegate {

namespace {

using nlohmann::json;

constexpr const char* kZoneFile = "text/dns";  // RFC 4027
constexpr uint64_t kDefaultSets = 1'000;

// "example.test." from a path; empty if it is not a domain name.
std::string apex_of(const std::string& text) {
  const std::optional<std::string> domain = canonical_domain(text);
  return !domain ? std::string() : domain->ends_with('.') ? *domain : *domain + ".";
}

uint32_t find_zone(const Model& model, const std::string& name) {
  const std::string apex = apex_of(name);
  for (uint32_t z = 0; z < model.zones.size(); ++z) {
    if (model.zones[z].name == apex) return z;
  }
  return kNone;
}

HttpResponse no_such_zone(const Model* model, const std::string& name) {
  if (model == nullptr) {
    return problem(404, "not_configured", "no configuration has been committed yet: PUT one with If-Match: *");
  }
  std::vector<std::string_view> names;
  for (const Zone& zone : model->zones) names.push_back(zone.name);
  const std::string hint = did_you_mean(apex_of(name), names);
  return problem(404, "no_such_zone",
                 fmt::format("there is no zone {}{}{}", in_quotes(name), hint.empty() ? "" : "; ", hint));
}

// The set that a call names, checked against its zone.
struct Wanted {
  std::optional<HttpResponse> refusal;
  dns::RecordFilter filter;
};

Wanted wanted_of(const ApiCall& call, const dns::Name& apex) {
  Wanted wanted;
  if (const auto name = call.path.find("name"); name != call.path.end()) {
    wanted.filter.name = dns::record_name(apex, name->second);
    if (!wanted.filter.name) {
      wanted.refusal =
          problem(400, "bad_name",
                  fmt::format("{} is no name of the zone; write one below it (www), @ for the zone itself, "
                              "or an absolute one with its final dot",
                              in_quotes(name->second)));
      return wanted;
    }
  }
  const auto type = call.path.find("type");
  if (type == call.path.end()) return wanted;
  wanted.filter.type = dns::record_type(type->second);
  if (wanted.filter.type == 0) {
    wanted.refusal =
        problem(400, "bad_type", fmt::format("{} is no type of a zone's records", in_quotes(type->second)));
  }
  return wanted;
}

// The result for a zone's text: an answer, or new content for its file.
struct Edited {
  std::optional<HttpResponse> answer;
  std::string text;
};
using EditZone = std::function<Edited(const Zone& zone, const dns::Name& apex)>;

class ZonesApi {
 public:
  ZonesApi(HostState& host_state, LongCalls& long_calls) : host_state_(host_state), long_calls_(long_calls) {}

  void list(const ApiCall& call) {
    json zones = json::array();
    if (const std::shared_ptr<const Model> model = host_state_.model()) {
      for (const Zone& zone : model->zones) {
        zones.push_back({{"name", zone.name}, {"file", zone.file.name}, {"hash", zone.file.hash}});
      }
    }
    call.respond(
        HttpResponse::json(200, dump({{"version", host_state_.head().version}, {"zones", std::move(zones)}}) + "\n"));
  }

  // Returns every set, those of one name, or one.
  void get_records(const ApiCall& call) {
    const size_t offset = number_parameter(call, "offset", 0), limit = number_parameter(call, "limit", kDefaultSets);
    read(call, [call, offset, limit](const Zone& zone, const dns::Name& apex, uint64_t version) {
      Wanted wanted = wanted_of(call, apex);
      if (wanted.refusal) return *std::move(wanted.refusal);
      const dns::ListedRecords listed =
          dns::list_records(apex, zone.file.name, *zone.file.bytes, wanted.filter, offset, limit);
      if (listed.total == 0 && wanted.filter.name) {
        return problem(404, "no_such_records", fmt::format("the zone {} has no such records", zone.name));
      }
      json sets = json::array();
      for (const dns::RecordSet& set : listed.sets) sets.push_back(to_json(set));
      return HttpResponse::json(
          200,
          dump({{"version", version}, {"zone", zone.name}, {"total", listed.total}, {"records", std::move(sets)}}) +
              "\n");
    });
  }

  void get_file(const ApiCall& call) {
    read(call, [](const Zone& zone, const dns::Name& apex, uint64_t) {
      return HttpResponse::text(200, dns::without_include_marks(apex, zone.file.name, *zone.file.bytes), kZoneFile);
    });
  }

  void put_records(const ApiCall& call) {
    std::vector<Fault> faults;
    dns::RecordChange change;
    read_record_body(call.request().body, change, faults);
    if (!faults.empty()) return call.respond(invalid_configuration(faults));
    change_records(call, std::move(change));
  }

  void delete_records(const ApiCall& call) { change_records(call, {}); }

  void put_file(const ApiCall& call) {
    change_zone(call, "zone file", [body = call.request().body](const Zone&, const dns::Name&) -> Edited {
      return {{}, body};
    });
  }

 private:
  using ReadZone = std::function<HttpResponse(const Zone& zone, const dns::Name& apex, uint64_t version)>;

  void read(const ApiCall& call, ReadZone answer) {
    const std::shared_ptr<const Model> model = host_state_.model();
    const uint32_t z = model == nullptr ? kNone : find_zone(*model, call.path.at("zone"));
    if (z == kNone) return call.respond(no_such_zone(model.get(), call.path.at("zone")));
    const std::string tag = entity_tag(host_state_.manifest(), "records", false);
    if (is_unchanged(call.request(), tag)) return call.respond({304, {{"ETag", tag}}, ""});
    long_calls_.answer(call, [model, z, tag, version = host_state_.head().version, answer = std::move(answer)] {
      const Zone& zone = model->zones[z];
      HttpResponse response = answer(zone, *dns::Name::from_text(zone.name), version);
      if (response.status == 200) response.headers.emplace_back("ETag", tag);
      return response;
    });
  }

  void change_records(const ApiCall& call, dns::RecordChange asked) {
    const std::string what = fmt::format("{} {}", call.path.at("name"), call.path.at("type"));
    change_zone(call, "records " + what, [call, asked = std::move(asked)](const Zone& zone, const dns::Name& apex) {
      return edit_set(call, asked, zone, apex);
    });
  }

  static Edited edit_set(const ApiCall& call, dns::RecordChange change, const Zone& zone, const dns::Name& apex) {
    Wanted wanted = wanted_of(call, apex);
    if (wanted.refusal) return {std::move(wanted.refusal), {}};
    change.name = *wanted.filter.name;
    change.type = wanted.filter.type;
    dns::EditedZone edited = dns::edit_records(apex, zone.file.name, *zone.file.bytes, change);
    if (!edited.faults.empty()) return {invalid_configuration(edited.faults), {}};
    if (edited.existed && call.request().header("if-none-match") == "*") {
      return {problem(412, "already_there", fmt::format("the zone {} has these records already", zone.name)), {}};
    }
    if (!edited.existed && change.data.empty()) {
      return {problem(404, "no_such_records", fmt::format("the zone {} has no such records", zone.name)), {}};
    }
    return {{}, std::move(edited.text)};
  }

  // Commits new content of the zone's file. The cost depends only on that zone.
  void change_zone(const ApiCall& call, const std::string& what, EditZone edit) {
    const std::string& name = call.path.at("zone");
    const WriteTarget target{"records", fmt::format("{} {}", name, what)};  // not an object: it is in the zone's file
    if (auto refusal = check_precondition(call.request(), host_state_.manifest(), target)) {
      return call.respond(std::move(*refusal));
    }
    const std::shared_ptr<const Model> model = host_state_.model();
    const uint32_t known = model == nullptr ? kNone : find_zone(*model, name);
    if (known == kNone) return call.respond(no_such_zone(model.get(), name));
    TryObject attempt = [name, edit = std::move(edit)](WorkingCopy& copy,
                                                       const std::shared_ptr<const Plans>& plans) -> TriedObject {
      const uint32_t z = find_zone(copy.model(), name);
      if (z == kNone) return {no_such_zone(&copy.model(), name), {}};
      const Zone& zone = copy.model().zones[z];
      for (const Zone& other : copy.model().zones) {
        if (&other == &zone || other.file.name != zone.file.name) continue;
        return {problem(409, "shared_file",
                        fmt::format("the zones {} and {} share the file {}, so a change of one would change both",
                                    zone.name, other.name, in_quotes(zone.file.name))),
                {}};
      }
      Edited edited = edit(zone, *dns::Name::from_text(zone.name));
      if (edited.answer) return {std::move(edited.answer), {}};
      return {{}, try_zone_file(copy, z, std::make_shared<const std::string>(std::move(edited.text)), plans)};
    };
    long_calls_.change_object(
        call, target, std::move(attempt),
        [call] { call.respond(problem(412, "stale", "the configuration was replaced meanwhile; read it again")); },
        fmt::format("zone {}: {}", name, what));
  }

  HostState& host_state_;
  LongCalls& long_calls_;
};

}  // namespace

void add_zone_routes(RouteTable& table, HostState& host_state, LongCalls& long_calls) {
  const auto api = std::make_shared<ZonesApi>(host_state, long_calls);
  const auto handler = [api](void (ZonesApi::*member)(const ApiCall&)) {
    return [api, member](const ApiCall& call) { (api.get()->*member)(call); };
  };
  const std::vector<QueryParameter> page = {
      QueryParameter::number("offset", "how many sets to leave out at the beginning (0)"),
      QueryParameter::number("limit", "how many sets at most (1000)", 1, kMaxListed)};
  table.add(
      {"GET", "/v1/zones", Role::viewer, Effect::reads, "The zones and their files", {}, {}, handler(&ZonesApi::list)});
  table.add({"GET",
             "/v1/zones/{zone}/records",
             Role::viewer,
             Effect::reads,
             "The records of a zone, by name and type",
             page,
             {},
             handler(&ZonesApi::get_records)});
  table.add({"GET",
             "/v1/zones/{zone}/records/{name}",
             Role::viewer,
             Effect::reads,
             "The records of one name; @ is the zone itself",
             page,
             {},
             handler(&ZonesApi::get_records)});
  table.add({"GET",
             "/v1/zones/{zone}/records/{name}/{type}",
             Role::viewer,
             Effect::reads,
             "The records of one name and type",
             {},
             {},
             handler(&ZonesApi::get_records)});
  table.add({"PUT",
             "/v1/zones/{zone}/records/{name}/{type}",
             Role::publisher,
             Effect::writes,
             "Put these in place of the records of one name and type: {\"ttl\", \"data\"}",
             write_parameters(),
             {"application/json"},
             handler(&ZonesApi::put_records)});
  table.add({"DELETE",
             "/v1/zones/{zone}/records/{name}/{type}",
             Role::publisher,
             Effect::writes,
             "Remove the records of one name and type",
             write_parameters(),
             {},
             handler(&ZonesApi::delete_records)});
  table.add({"GET",
             "/v1/zones/{zone}/file",
             Role::viewer,
             Effect::reads,
             "The zone's file, with the files that it included in their place",
             {},
             {},
             handler(&ZonesApi::get_file)});
  table.add({"PUT",
             "/v1/zones/{zone}/file",
             Role::publisher,
             Effect::writes,
             "Replace the zone's file",
             write_parameters(),
             {kZoneFile},
             handler(&ZonesApi::put_file)});
}

}  // namespace tidegate
