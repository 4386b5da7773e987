// SPDX-License-Identifier: Apache-2.0
#include "conf/state_records.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace tidegate {
namespace {

using nlohmann::json;

std::string text_of(const json& record) { return record.dump(-1, ' ', false, json::error_handler_t::replace); }

// Calls `read` on the parsed record. A record in which a member is missing or has another type is an Error, not a
// crash.
template <class T, class Read>
Result<T> decode(const char* what, std::string_view record, Read&& read) {
  try {
    return read(json::parse(record));
  } catch (const json::exception& error) {
    return fail(std::string("state: damaged ") + what + " record: " + error.what());
  }
}

constexpr char kDown = '\0', kUp = '\1', kDrains = '\2';  // the first byte of a verdict

const char* text_of(OverrideState state) {
  switch (state) {
    case OverrideState::drained:
      return "drained";
    case OverrideState::down:
      return "down";
    case OverrideState::up:
      return "up";
    case OverrideState::quota:
      return "quota";
  }
  return "?";
}

const char* text_of(PurgeKind kind) {
  switch (kind) {
    case PurgeKind::url:
      return "url";
    case PurgeKind::tag:
      return "tag";
    case PurgeKind::all:
      return "all";
  }
  return "?";
}

}  // namespace

std::string encode_version(const Manifest& manifest) {
  return text_of(json{{"created_ns", manifest.created_ns},
                      {"author", manifest.author},
                      {"comment", manifest.comment},
                      {"digest", manifest.digest},
                      {"rollback_of", manifest.rollback_of}});
}

Result<Manifest> decode_version(uint64_t version, std::string_view record) {
  return decode<Manifest>("version", record, [version](const json& fields) {
    Manifest manifest;
    manifest.version = version;
    manifest.created_ns = fields.at("created_ns").get<uint64_t>();
    manifest.author = fields.at("author").get<std::string>();
    manifest.comment = fields.at("comment").get<std::string>();
    manifest.digest = fields.at("digest").get<std::string>();
    manifest.rollback_of = fields.at("rollback_of").get<uint64_t>();
    return manifest;
  });
}

std::string encode_override(const Override& record) {
  json fields{
      {"state", text_of(record.state)}, {"by", record.by}, {"note", record.note}, {"since_ns", record.since_ns}};
  if (record.state == OverrideState::quota) {
    fields["requests"] = record.requests;
    fields["burst"] = record.burst;
  }
  return text_of(fields);
}

Result<Override> decode_override(std::string_view record) {
  return decode<Override>("override", record, [](const json& fields) {
    Override out;
    const std::string state = fields.at("state").get<std::string>();
    for (const OverrideState known : {OverrideState::down, OverrideState::up, OverrideState::quota}) {
      if (state == text_of(known)) out.state = known;
    }
    out.by = fields.at("by").get<std::string>();
    out.note = fields.at("note").get<std::string>();
    out.since_ns = fields.at("since_ns").get<uint64_t>();
    if (out.state == OverrideState::quota) {
      out.requests = fields.at("requests").get<uint64_t>();
      out.burst = fields.at("burst").get<uint64_t>();
    }
    return out;
  });
}

std::string encode_verdict(const HealthVerdict& verdict) {
  return std::string(1, verdict.up       ? kUp
                        : verdict.drains ? kDrains
                                         : kDown) +
         lmdb::be64(verdict.since_ns) + verdict.reason;
}

Result<HealthVerdict> decode_verdict(std::string_view record) {
  if (record.size() < 9) return fail("state: damaged health verdict");
  return HealthVerdict{record[0] == kUp, std::string(record.substr(9)), lmdb::be64(record.substr(1, 8)),
                       record[0] == kDrains};
}

std::string encode_load(const SiteLoad& record) {
  return text_of(json{
      {"load_percent", record.load_percent}, {"shed_permille", record.shed_permille}, {"since_ns", record.since_ns}});
}

Result<SiteLoad> decode_load(std::string_view record) {
  return decode<SiteLoad>("load", record, [](const json& fields) {
    return SiteLoad{fields.at("load_percent").get<uint32_t>(), fields.at("shed_permille").get<uint32_t>(),
                    fields.at("since_ns").get<uint64_t>()};
  });
}

std::string encode_found_name(const FoundName& record) {
  json endpoints = json::array();
  for (const NamedEndpoint& each : record.endpoints) {
    endpoints.push_back({each.endpoint.to_string(), each.priority, each.weight, each.left_ns});
  }
  return text_of(json{{"endpoints", std::move(endpoints)}, {"trouble", record.trouble}});
}

Result<FoundName> decode_found_name(std::string_view record) {
  return decode<FoundName>("name", record, [](const json& fields) -> Result<FoundName> {
    FoundName out;
    out.trouble = fields.at("trouble").get<std::string>();
    for (const json& each : fields.at("endpoints")) {
      const std::optional<Endpoint> endpoint = Endpoint::parse(each.at(0).get<std::string>());
      if (!endpoint) return fail("state: damaged name record: an address cannot be read");
      out.endpoints.push_back(
          {*endpoint, each.at(1).get<uint16_t>(), each.at(2).get<uint16_t>(), each.at(3).get<uint64_t>()});
    }
    std::sort(out.endpoints.begin(), out.endpoints.end());
    return out;
  });
}

namespace {

constexpr std::string_view kCertificatePrefix = "certificate/", kAccountPrefix = "account/", kProofPrefix = "proof/",
                           kStaplePrefix = "staple/";

json hashes_of(const IssuedCertificate& issued) {
  return issued.is_issued() ? json{issued.certificate_hash, issued.key_hash} : json::array();
}

std::string encode_issued_certificate(const IssuedCertificate& issued) {
  return text_of(json{{"names", issued.names},
                      {"objects", hashes_of(issued)},
                      {"not_before_s", issued.not_before_s},
                      {"not_after_s", issued.not_after_s},
                      {"failures", issued.failures},
                      {"next_try_s", issued.next_try_s},
                      {"error", issued.error},
                      {"window_start_s", issued.window_start_s},
                      {"window_end_s", issued.window_end_s},
                      {"ask_window_at_s", issued.ask_window_at_s}});
}

Result<IssuedCertificate> decode_issued_certificate(std::string_view record) {
  return decode<IssuedCertificate>("certificate", record, [](const json& fields) {
    IssuedCertificate out;
    out.names = fields.at("names").get<std::vector<std::string>>();
    const json& objects = fields.at("objects");
    if (!objects.empty()) {
      out.certificate_hash = objects.at(0).get<std::string>();
      out.key_hash = objects.at(1).get<std::string>();
    }
    out.not_before_s = fields.at("not_before_s").get<int64_t>();
    out.not_after_s = fields.at("not_after_s").get<int64_t>();
    out.failures = fields.at("failures").get<uint32_t>();
    out.next_try_s = fields.at("next_try_s").get<int64_t>();
    out.error = fields.at("error").get<std::string>();
    // A record of an earlier release has none of these.
    out.window_start_s = fields.value("window_start_s", int64_t{0});
    out.window_end_s = fields.value("window_end_s", int64_t{0});
    out.ask_window_at_s = fields.value("ask_window_at_s", int64_t{0});
    return out;
  });
}

const char* word_of(RevocationStatus status) {
  switch (status) {
    case RevocationStatus::not_known:
      return "not_known";
    case RevocationStatus::good:
      return "good";
    case RevocationStatus::revoked:
      return "revoked";
  }
  return "?";
}

std::string encode_staple(const StapleRecord& staple) {
  return text_of(json{{"certificate", staple.certificate_hash},
                      {"objects", staple.answer_hash.empty() ? json::array() : json::array({staple.answer_hash})},
                      {"status", word_of(staple.status)},
                      {"this_update_s", staple.this_update_s},
                      {"next_update_s", staple.next_update_s},
                      {"failures", staple.failures},
                      {"next_try_s", staple.next_try_s},
                      {"error", staple.error}});
}

Result<StapleRecord> decode_staple(std::string_view record) {
  return decode<StapleRecord>("staple", record, [](const json& fields) {
    StapleRecord out;
    out.certificate_hash = fields.at("certificate").get<std::string>();
    const json& objects = fields.at("objects");
    if (!objects.empty()) out.answer_hash = objects.at(0).get<std::string>();
    const auto status = fields.at("status").get<std::string>();
    out.status = status == "good"      ? RevocationStatus::good
                 : status == "revoked" ? RevocationStatus::revoked
                                       : RevocationStatus::not_known;
    out.this_update_s = fields.at("this_update_s").get<int64_t>();
    out.next_update_s = fields.at("next_update_s").get<int64_t>();
    out.failures = fields.at("failures").get<uint32_t>();
    out.next_try_s = fields.at("next_try_s").get<int64_t>();
    out.error = fields.at("error").get<std::string>();
    return out;
  });
}

}  // namespace

IssuedRecords encode_issued(const LiveState& live_state) {
  IssuedRecords records;
  for (const auto& [name, issued] : live_state.certificates) {
    records[std::string(kCertificatePrefix) + name] = encode_issued_certificate(issued);
  }
  for (const auto& [name, staple] : live_state.staples) {
    records[std::string(kStaplePrefix) + name] = encode_staple(staple);
  }
  for (const auto& [directory, hash] : live_state.accounts) {
    records[std::string(kAccountPrefix) + directory] = text_of(json{{"objects", {hash}}});
  }
  for (const auto& [key, proof] : live_state.proofs) records[std::string(kProofPrefix) + key] = proof;
  return records;
}

Result<void> decode_issued(const IssuedRecords& records, LiveState& live_state) {
  for (const auto& [key, record] : records) {
    if (key.starts_with(kCertificatePrefix)) {
      Result<IssuedCertificate> issued = decode_issued_certificate(record);
      if (!issued) return issued.error();
      live_state.certificates[key.substr(kCertificatePrefix.size())] = *std::move(issued);
    } else if (key.starts_with(kStaplePrefix)) {
      Result<StapleRecord> staple = decode_staple(record);
      if (!staple) return staple.error();
      live_state.staples[key.substr(kStaplePrefix.size())] = *std::move(staple);
    } else if (key.starts_with(kAccountPrefix)) {
      const std::vector<std::string> objects = objects_of_issued(key, record);
      if (objects.empty()) return fail("state: damaged account record");
      live_state.accounts[key.substr(kAccountPrefix.size())] = objects.front();
    } else if (key.starts_with(kProofPrefix)) {
      live_state.proofs[key.substr(kProofPrefix.size())] = record;
    }
    // Other records come from later releases.
  }
  return {};
}

std::vector<std::string> objects_of_issued(std::string_view key, std::string_view record) {
  if (key.starts_with(kProofPrefix)) return {};
  const json fields = json::parse(record, nullptr, false);
  const auto objects = fields.is_object() ? fields.find("objects") : fields.end();
  std::vector<std::string> hashes;
  if (!fields.is_object() || objects == fields.end() || !objects->is_array()) return hashes;
  for (const json& hash : *objects) {
    if (hash.is_string()) hashes.push_back(hash.get<std::string>());
  }
  return hashes;
}

std::string encode_purge(const Purge& purge) {
  return text_of(json{{"kind", text_of(purge.kind)},
                      {"value", purge.value},
                      {"soft", purge.soft},
                      {"at_ns", purge.at_ns},
                      {"by", purge.by}});
}

Result<Purge> decode_purge(uint64_t sequence, std::string_view record) {
  return decode<Purge>("purge", record, [sequence](const json& fields) {
    Purge purge;
    purge.sequence = sequence;
    const auto kind = fields.at("kind").get<std::string>();
    purge.kind = kind == "url" ? PurgeKind::url : kind == "tag" ? PurgeKind::tag : PurgeKind::all;
    purge.value = fields.at("value").get<std::string>();
    purge.soft = fields.at("soft").get<bool>();
    purge.at_ns = fields.at("at_ns").get<uint64_t>();
    purge.by = fields.at("by").get<std::string>();
    return purge;
  });
}

std::string encode_audit(const AuditRecord& record) {
  return text_of(json{{"at_ns", record.at_ns},
                      {"who", record.who},
                      {"action", record.action},
                      {"target", record.target},
                      {"detail", record.detail}});
}

Result<AuditRecord> decode_audit(uint64_t sequence, std::string_view record) {
  return decode<AuditRecord>("audit", record, [sequence](const json& fields) {
    return AuditRecord{sequence,
                       fields.at("at_ns").get<uint64_t>(),
                       fields.at("who").get<std::string>(),
                       fields.at("action").get<std::string>(),
                       fields.at("target").get<std::string>(),
                       fields.at("detail").get<std::string>()};
  });
}

}  // namespace tidegate
