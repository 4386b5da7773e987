// SPDX-License-Identifier: Apache-2.0
#include "conf/candidate.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>

#include "conf/secret_store.h"
#include "conf/state_store_impl.h"
#include "core/crypto.h"

namespace tidegate {
namespace {

using nlohmann::json;

auto key_of(const auto& entry) { return std::tie(entry.kind, entry.name); }

std::string to_text(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

// A change as JSON. An object that comes without its bytes is in the state, or it is a private key.
json to_json(const CandidateChange& change, bool with_keys) {
  json out = {{"kind", change.kind}, {"name", change.name}};
  if (change.hash.empty()) return out;
  out["hash"] = change.hash;
  if (change.bytes == nullptr) return out;
  if (!with_keys && holds_private_key(*change.bytes)) {
    out["withheld"] = true;
  } else {
    out["bytes"] = base64url_encode(*change.bytes);
  }
  return out;
}

Result<CandidateChange> change_from(const json& given) {
  CandidateChange change;
  change.kind = given.at("kind").get<std::string>();
  change.name = given.at("name").get<std::string>();
  change.hash = given.value("hash", "");
  change.withheld = given.value("withheld", false);
  if (!given.contains("bytes")) return change;
  std::optional<std::string> bytes = base64url_decode(given.at("bytes").get<std::string>());
  if (!bytes || sha256_hex(*bytes) != change.hash) {
    return fail(fmt::format("{} '{}' is not what its hash says", change.kind, change.name));
  }
  change.bytes = std::make_shared<const std::string>(*std::move(bytes));
  return change;
}

Result<CandidateVersion> candidate_from(const json& given) {
  CandidateVersion candidate;
  candidate.id = given.at("candidate").get<uint64_t>();
  candidate.base = given.at("base").get<uint64_t>();
  candidate.base_digest = given.at("base_digest").get<std::string>();
  candidate.digest = given.at("digest").get<std::string>();
  if (candidate.id == 0) return fail("a candidate's id is not 0");
  for (const json& element : given.at("changes")) {
    Result<CandidateChange> change = change_from(element);
    if (!change) return change.error();
    if (!candidate.changes.empty() && key_of(candidate.changes.back()) >= key_of(*change)) {
      return fail("the changes are not ordered by kind and name");
    }
    candidate.changes.push_back(*std::move(change));
  }
  return candidate;
}

Result<Vote> vote_from(const json& given) {
  Vote vote;
  const std::string choice = given.at("vote").get<std::string>();
  for (const Vote::Choice known : {Vote::Choice::yes, Vote::Choice::no, Vote::Choice::behind}) {
    if (choice == name(known)) vote.choice = known;
  }
  if (choice != name(vote.choice)) return fail("its vote is '" + choice + "'");
  vote.why = given.value("why", "");
  vote.needs_restart = given.value("needs_restart", std::vector<std::string>{});
  vote.missing = given.value("missing", std::vector<std::string>{});
  return vote;
}

// Reads text from another process. The library throws for every wrong type or missing member.
template <class T>
Result<T> read(std::string_view text, Result<T> (*from)(const json&)) {
  try {
    return from(json::parse(text));
  } catch (const json::exception& error) {
    return fail(error.what());
  }
}

}  // namespace

const char* name(Vote::Choice choice) {
  switch (choice) {
    case Vote::Choice::yes:
      return "yes";
    case Vote::Choice::no:
      return "no";
    case Vote::Choice::behind:
      return "behind";
  }
  return "unknown";
}

std::string encode_candidate(const CandidateVersion& candidate, bool with_keys) {
  json changes = json::array();
  for (const CandidateChange& change : candidate.changes) changes.push_back(to_json(change, with_keys));
  return to_text({{"candidate", candidate.id},
                  {"base", candidate.base},
                  {"base_digest", candidate.base_digest},
                  {"digest", candidate.digest},
                  {"changes", std::move(changes)}});
}

Result<CandidateVersion> decode_candidate(std::string_view text) {
  return read<CandidateVersion>(text, candidate_from);
}

std::string encode_vote(const Vote& vote) {
  return to_text({{"vote", name(vote.choice)},
                  {"why", vote.why},
                  {"needs_restart", vote.needs_restart},
                  {"missing", vote.missing}});
}

Result<Vote> decode_vote(std::string_view text) { return read<Vote>(text, vote_from); }

CandidateVersion candidate_between(
    uint64_t id, const Manifest& base, const std::vector<ManifestEntry>& entries,
    const std::function<std::shared_ptr<const std::string>(const ManifestEntry&)>& object) {
  CandidateVersion candidate;
  candidate.id = id;
  candidate.base = base.version;
  candidate.base_digest = base.digest;
  candidate.digest = manifest_digest(entries);
  auto old_entry = base.entries.begin();
  const auto drop_until = [&](const ManifestEntry* next) {
    for (; old_entry != base.entries.end() && (next == nullptr || key_of(*old_entry) < key_of(*next)); ++old_entry) {
      candidate.changes.push_back({old_entry->kind, old_entry->name, {}, nullptr});
    }
  };
  for (const ManifestEntry& entry : entries) {
    drop_until(&entry);
    const bool there = old_entry != base.entries.end() && key_of(*old_entry) == key_of(entry);
    const bool same = there && old_entry->hash == entry.hash;
    if (there) ++old_entry;
    if (!same) candidate.changes.push_back({entry.kind, entry.name, entry.hash, object(entry)});
  }
  drop_until(nullptr);
  return candidate;
}

std::optional<CandidateVersion> candidate_with(uint64_t id, const Manifest& base, CandidateChange change) {
  const ManifestEntry key{change.kind, change.name, {}};
  const auto entry = std::lower_bound(base.entries.begin(), base.entries.end(), key);
  if (entry == base.entries.end() || key_of(*entry) != key_of(key)) return std::nullopt;
  CandidateVersion candidate;
  candidate.id = id;
  candidate.base = base.version;
  candidate.base_digest = base.digest;
  candidate.digest = manifest_digest(base.entries, &*entry, change.hash);
  if (entry->hash != change.hash) candidate.changes.push_back(std::move(change));
  return candidate;
}

Result<Manifest> manifest_of(const CandidateVersion& candidate, const Manifest& base) {
  if (base.version != candidate.base || (base.version != 0 && base.digest != candidate.base_digest)) {
    return fail(fmt::format("version {} is another one here", candidate.base));
  }
  Manifest manifest;
  manifest.version = base.version + 1;
  manifest.digest = candidate.digest;
  manifest.entries.reserve(base.entries.size() + candidate.changes.size());
  auto old_entry = base.entries.begin();
  for (const CandidateChange& change : candidate.changes) {
    for (; old_entry != base.entries.end() && key_of(*old_entry) < key_of(change); ++old_entry) {
      manifest.entries.push_back(*old_entry);
    }
    if (old_entry != base.entries.end() && key_of(*old_entry) == key_of(change)) ++old_entry;
    if (!change.hash.empty()) manifest.entries.push_back({change.kind, change.name, change.hash});
  }
  manifest.entries.insert(manifest.entries.end(), old_entry, base.entries.end());
  if (manifest_digest(manifest.entries) != candidate.digest) return fail("the candidate is not what its digest says");
  return manifest;
}

ObjectSource::ObjectSource(const StateStore& store, const CandidateVersion* candidate) : store_(store) {
  if (candidate == nullptr) return;
  for (const CandidateChange& change : candidate->changes) {
    if (change.bytes != nullptr || change.withheld) brought_.emplace(change.hash, &change);
  }
}

Result<std::string> ObjectSource::object(const std::string& hash) const {
  const auto brought = brought_.find(hash);
  if (brought == brought_.end()) return store_.object(hash);
  if (brought->second->bytes == nullptr) return fail("object " + hash + " is a private key, and none are read here");
  return *brought->second->bytes;
}

bool ObjectSource::withholds(const std::string& hash) const {
  const auto brought = brought_.find(hash);
  return brought == brought_.end() ? store_.withholds(hash) : brought->second->withheld;
}

Result<std::vector<ConfigObject>> ObjectSource::objects(const Manifest& manifest) const {
  if (brought_.empty()) return store_.objects(manifest);
  std::vector<ConfigObject> out;
  out.reserve(manifest.entries.size());
  for (const ManifestEntry& entry : manifest.entries) {
    if (withholds(entry.hash)) {
      out.push_back({entry.kind, entry.name, {}, true});
      continue;
    }
    Result<std::string> bytes = object(entry.hash);
    if (!bytes) return fail(entry.kind + " '" + entry.name + "': " + bytes.error().message);
    out.push_back({entry.kind, entry.name, *std::move(bytes)});
  }
  return out;
}

}  // namespace tidegate
