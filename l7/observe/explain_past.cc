// SPDX-License-Identifier: Apache-2.0
#include "l7/observe/explain_past.h"

#include <fmt/format.h>

#include <cstring>
#include <ctime>
#include <nlohmann/json.hpp>

#include "core/clock.h"
#include "l7/limits.h"
#include "l7/observe/explain_pool.h"
#include "l7/policy/policy.h"

namespace tidegate::l7 {
namespace {

using nlohmann::json;

std::string text_of_time(uint64_t realtime) {
  const auto seconds = static_cast<time_t>(realtime / kNsPerS);
  tm utc{};
  ::gmtime_r(&seconds, &utc);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday,
                     utc.tm_hour, utc.tm_min, utc.tm_sec, realtime / kNsPerMs % 1000);
}

// From the bytes that the worker copied. Nothing if there was no address.
template <class Value, class Rest>
std::optional<Value> recorded_value(const std::array<uint64_t, 2>& words, Rest rest) {
  static_assert(std::is_trivially_copyable_v<Value> && sizeof(Value) == sizeof words + sizeof rest);
  if ((words[0] & 0xff) == 0) return std::nullopt;  // no family
  Value value;
  std::memcpy(static_cast<void*>(&value), words.data(), sizeof words);
  std::memcpy(reinterpret_cast<char*>(&value) + sizeof words, &rest, sizeof rest);
  return value;
}

json name_or_null(const NameIds& names, uint32_t id) {
  const std::string_view name = names.name(id);
  return name.empty() ? json() : json(name);
}

double recorded_ms(uint64_t ns) { return static_cast<double>(ns / 1'000) / 1e3; }

// "per-client.limit,office.authorise", with four bits for each.
json tell_policies(const RequestRecord& record, const NameIds& names) {
  json told = json::array();
  std::string_view chain = names.name(record.policies);
  for (size_t i = 0; !chain.empty(); ++i) {
    const std::string_view rule = chain.substr(0, chain.find(','));
    chain.remove_prefix(std::min(chain.size(), rule.size() + 1));
    const size_t dot = rule.rfind('.');
    json& entry = told.emplace_back(json{{"policy", rule.substr(0, dot)}, {"kind", rule.substr(dot + 1)}});
    if (i < kRecordedVerdicts) {
      entry["verdict"] = policy::name(static_cast<policy::RuleVerdict>(record.verdicts >> (4 * i) & 15));
    } else {
      entry["verdict"] = nullptr;  // not recorded
    }
  }
  return told;
}

json tell_cache(const RequestRecord& record) {
  if (!record.cache_answer.asked) return nullptr;
  json told = {{"outcome", cache::name(record.cache_answer.outcome)},
               {"hit", record.cache_flags.hit},
               {"stored", record.cache_flags.stored},
               {"collapsed", record.cache_flags.collapsed}};
  told["forward"] =
      record.cache_flags.forward == cache::Forward::none ? json() : json(cache::token(record.cache_flags.forward));
  told["detail"] = record.cache_detail == nullptr ? json() : json(record.cache_detail);
  told["forward_status"] = record.forward_status == 0 ? json() : json(record.forward_status);
  return told;
}

json tell_failed_tries(const RequestRecord& record, const NameIds& names) {
  json told = json::array();
  for (size_t i = 0; record.tries > 0 && i < record.failed_tries && i < kRecordedTries; ++i) {
    const Failure failure = record.failures[i];
    const bool by_status = failure == Failure::none;  // retry_statuses
    told.push_back(
        {{"backend", name_or_null(names, record.failed_backends[i])},
         {"failure", by_status ? "status" : info(failure).name},
         {"why", by_status ? "The route has answers with its status tried again." : info(failure).sentence}});
  }
  return told;
}

std::string why_this_backend(const RequestRecord& record) {
  if (record.chosen_by == ChosenBy::sticky) return "the client's sticky token names it";
  if (record.tries > 1) return fmt::format("try {}: those before it had failed", record.tries);
  const std::string of_pool =
      record.chosen_by == ChosenBy::whole_pool ? "no backend with the route's labels could be used; " : "";
  if (record.members == 1 && record.chosen_by == ChosenBy::policy) return "the only backend that took new work";
  const PolicyWords words = policy_words(record.pool_policy);
  if (*words.reason == '\0') return of_pool + "the hash of the request picked it, within its bound of load";
  return of_pool + words.reason;
}

// Why the request ended as it did, in one sentence.
std::string why_it_ended(const RequestRecord& record, const json& told) {
  if (record.end.failure != Failure::none) {
    std::string sentence = info(record.end.failure).sentence;
    while (!sentence.empty() && (sentence.back() == '\n' || sentence.back() == '.')) sentence.pop_back();
    return fmt::format("{}: {}", info(record.end.failure).name, sentence);
  }
  for (const json& each : told["policies"]) {
    if (each["verdict"] == "answered") return fmt::format("policy {} answered", each["policy"].get<std::string>());
  }
  if (record.cache_answer.asked && record.cache_flags.hit) return "answered from the cache";
  if (record.tries > 0) return why_this_backend(record);
  return record.route == 0 ? "answered by the proxy itself" : "answered by the route itself";
}

json tell_record(const RequestRecord& record, const NameIds& names, const RequestRecords& records) {
  json told = {{"ended", text_of_time(records.realtime_of(record.ended_ns))},
               {"version", record.version},
               {"words", record.live_state},
               {"took_ms", recorded_ms(record.ended_ns - record.started_ns)},
               {"queued_ms", recorded_ms(record.queued_ns)},
               {"status", record.end.status},
               {"tries", record.tries},
               {"background", record.whose.background},
               {"client_left", record.whose.client_gone && !record.whose.background}};
  told["first_byte_ms"] = record.tries == 0 || record.first_byte_ns == 0
                              ? json()
                              : json(recorded_ms(record.first_byte_ns - record.started_ns));
  const Endpoint peer = recorded_value<Endpoint>(record.peer, record.peer_rest).value_or(Endpoint{});
  told["peer"] = peer.address.to_string();
  told["peer_port"] = peer.port;
  const IpAddress named = recorded_value<IpAddress>(record.client, record.client_rest).value_or(IpAddress{});
  told["client"] = (named == IpAddress{} ? peer.address : named).to_string();
  told["destination"] = told["destination_port"] = nullptr;
  if (const auto destination = recorded_value<Endpoint>(record.destination, record.destination_rest)) {
    told["destination"] = destination->address.unmapped().to_string();
    told["destination_port"] = destination->port;
  }
  told["listener"] = name_or_null(names, record.listener);
  told["route"] = name_or_null(names, record.route);
  told["policies"] = tell_policies(record, names);
  told["variant"] = name_or_null(names, record.variant);
  told["cache"] = tell_cache(record);
  told["pool"] = name_or_null(names, record.pool);
  told["backend"] = record.tries == 0 ? json() : name_or_null(names, record.backend);
  told["failed_tries"] = tell_failed_tries(record, names);
  told["failure"] = record.end.failure == Failure::none ? json() : json(info(record.end.failure).name);
  if (record.tries > 0) {
    told["policy"] = policy_words(record.pool_policy).name;
    told["members"] = record.members;
  }
  told["reason"] = why_it_ended(record, told);
  return told;
}

}  // namespace

Result<json> explain_past(const RequestRecords* records, const NameIds& names, const HttpRequest& request,
                          uint64_t now_ns) {
  for (const char* other : {"url", "client", "method", "headers", "body"}) {
    if (request.parameter(other)) return fail(fmt::format("request: it stands alone, without {}", other));
  }
  const std::string id = request.parameter("request").value_or("");
  if (id.empty() || id.size() > kLongestRequestId) {
    return fail(fmt::format("request: expected an id of 1 to {} bytes", kLongestRequestId));
  }
  json answer = {
      {"plane", "l7"}, {"request", id}, {"found", false}, {"records", json::array()}, {"forgotten", nullptr}};
  if (records == nullptr) {
    answer["forgotten"] = "this proxy remembers no requests: l7.remember_requests is 0";
    return answer;
  }
  for (const RequestRecord& record : records->find(id, kToldRecords, now_ns)) {
    answer["records"].push_back(tell_record(record, names, *records));
  }
  answer["found"] = !answer["records"].empty();
  const uint64_t since_ns = records->complete_since_ns(now_ns);
  const uint64_t age_s = (now_ns - std::min(now_ns, since_ns)) / kNsPerS;
  answer["complete_since_s"] = age_s;
  if (answer["found"]) return answer;
  const char* const because = since_ns == records->started_ns()         ? "it was started then"
                              : since_ns + records->keep_ns() <= now_ns ? "l7.remember_requests says so"
                                                                        : "newer ones needed the memory";
  answer["forgotten"] = fmt::format(
      "no request with this id ended here in the last {} s; what ended before that is forgotten, because {}", age_s,
      because);
  return answer;
}

}  // namespace tidegate::l7
