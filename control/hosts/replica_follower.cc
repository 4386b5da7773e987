// SPDX-License-Identifier: Apache-2.0
#include "control/hosts/replica_follower.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "conf/candidate.h"
#include "conf/state_records.h"
#include "control/api/bundle.h"
#include "control/api/json_bounds.h"
#include "control/api/shapes.h"
#include "control/hosts/many_objects.h"
#include "control/hosts/replica_source.h"
#include "control/limits.h"
#include "core/crypto.h"
#include "core/log.h"

namespace tidegate {

using nlohmann::json;

// Reads a line of the type "version": it finds which objects of it are here already. Any thread may call it.
Result<ReplicaFollower::ArrivingVersion> ReplicaFollower::read_version(const StateStore& store,
                                                                       const Manifest& in_force, const json& line) {
  json told = line.value("manifest", json());
  const bool has_changes = line.contains("changes");
  if (has_changes && told.is_object()) told["entries"] = json::array();
  Result<Manifest> manifest = manifest_from_json(told);
  if (!manifest) return manifest.error();
  ArrivingVersion arriving;
  arriving.manifest = std::move(*manifest);
  arriving.provisional = provisional_from_json(line.value("provisional", json::object()));
  const auto take = [&](const std::string& hash, std::optional<std::string> bytes) {
    if (store.has_object(hash)) return;
    if (bytes && sha256_hex(*bytes) == hash) {
      arriving.objects.emplace_back(hash, *std::move(bytes));
    } else {
      arriving.missing.push_back(hash);
    }
  };
  if (has_changes) {
    const Result<CandidateVersion> changes = decode_candidate(string_member(line, "changes"));
    if (!changes) return changes.error();
    Result<Manifest> changed = manifest_of(*changes, in_force);
    if (!changed) return changed.error();
    arriving.manifest.entries = std::move(changed->entries);
    for (const CandidateChange& change : changes->changes) {
      if (!change.hash.empty()) take(change.hash, change.bytes ? std::optional(*change.bytes) : std::nullopt);
    }
  } else {
    const auto objects = line.find("objects");
    for (const ManifestEntry& entry : arriving.manifest.entries) {
      const bool inlined = objects != line.end() && objects->contains(entry.hash);
      take(entry.hash, inlined ? base64_decode(string_member(*objects, entry.hash.c_str())) : std::nullopt);
    }
  }
  arriving.objects.reserve(arriving.objects.size() + arriving.missing.size());
  return arriving;
}

ReplicaFollower::ReplicaFollower(EventLoop& loop, HostState& host_state, ProvisionalVersions& provisionals,
                                 const Endpoint& leader, Peers peers)
    : loop_(loop),
      host_state_(host_state),
      provisionals_(provisionals),
      leader_(leader),
      peers_(std::move(peers)),
      pause_(loop, [this] { connect(); }),
      silence_(loop, [this] { reconnect(fmt::format("the leader said nothing for {} ms", kSilenceMs)); }),
      // A line and an answer with objects, and both of a connection before.
      reads_(loop, "control-replica", 4) {}

ReplicaFollower::~ReplicaFollower() { *self_ = nullptr; }

HttpClientRequest ReplicaFollower::request(std::string target) const {
  HttpClientRequest request = peers_.request(leader_);
  request.target = std::move(target);
  return request;
}

void ReplicaFollower::connect() {
  fetch_.reset();
  stream_.reset();
  arriving_.reset();
  lines_.clear();
  held_ = json();
  one_at_a_time_ = false;
  working_ = 0;
  ++stream_id_;
  giving_up_ = false;
  host_state_.settle();  // otherwise the version that is being stored would come again
  const StateHead& head = host_state_.head();
  // The leader's live state replaces this host's own verdicts.
  const uint64_t words = head.live_state < StateStore::kSiteWords ? head.live_state : 0;
  HttpClientRequest stream = request(fmt::format("/v1/replica?version={}&digest={}&words={}&purge={}", head.version,
                                                 host_state_.manifest().digest, words, head.purge));
  stream.timeout_ms = 0;
  stream.headers.emplace_back(ReplicaSource::kFormField, ReplicaSource::kFormChanges);
  silence_.arm_after_ms(kSilenceMs);
  stream_ = http_stream(
      loop_, target(), std::move(stream), [this](std::string_view bytes) { take(bytes); },
      [this](const Result<HttpResponse>& response) {
        give_up(!response                 ? response.error().message
                : response->status == 200 ? "the leader ended the stream"
                                          : fmt::format("the leader answered {}", response->status));
      });
}

void ReplicaFollower::give_up(const std::string& why) {
  if (giving_up_) return;
  giving_up_ = true;
  reconnect(why);
}

// Does not end the calls. connect() replaces them. Called by the timer, so never by one of their callbacks.
void ReplicaFollower::reconnect(const std::string& why) {
  if (connected_ || trouble_ != why) log_warn("replica of {}: {}", leader_.to_string(), why);
  connected_ = false;
  trouble_ = why;
  silence_.cancel();
  pause_.arm_after_ms(pause_ms_);
  pause_ms_ = std::min(pause_ms_ * 2, kLongestPauseMs);
}

void ReplicaFollower::take(std::string_view bytes) {
  if (giving_up_) return;
  silence_.arm_after_ms(kSilenceMs);
  lines_.append(bytes);
  take_lines();
  if (lines_.size() > kMaxLineBytes) give_up("the leader sent a line longer than 64 MB");
}

void ReplicaFollower::take_lines() {
  if (std::exchange(taking_, true)) return;
  while (!giving_up_ && working_ == 0 && held_.is_null() && lines_.has_line()) {
    LongLines::Line line = lines_.take();
    if (line.size > kLineReadAtOnceBytes) {
      read_beside([&store = host_state_.store(), in_force = host_state_.shared_manifest(),
                   line = std::move(line)]() -> ReadLine {
        Result<json> read = parse_json(line.joined());
        if (!read || string_member(*read, "type") != "version") return {std::move(read), {}};
        return {json(), read_version(store, *in_force, *read)};
      });
      continue;
    }
    const Result<json> read = parse_json(line.joined());
    read ? take_line(*read) : give_up("the leader sent what is not JSON: " + read.error().message);
  }
  taking_ = false;
}

void ReplicaFollower::read_beside(std::function<ReadLine()> read) {
  ++working_;
  const bool begun = reads_.run(std::move(read), [this, stream = stream_id_](std::optional<ReadLine> line) {
    if (stream != stream_id_ || giving_up_) return;
    --working_;
    if (!line) return give_up("a line could not be read; the log says why");
    if (!line->json) return give_up("the leader sent what is not JSON: " + line->json.error().message);
    if (line->version) {
      take_version(*std::move(line->version));
    } else {
      take_line(*line->json);
      if (arriving_ && arriving_->missing.empty()) store_version();  // it has come meanwhile
    }
    take_lines();
  });
  if (!begun) give_up("lines of earlier connections are still being read");
}

void ReplicaFollower::take_line(const json& line) {
  const std::string type = string_member(line, "type");
  if (type == "hello") {
    const Result<StateHead> head = head_from_json(line.value("head", json()));
    if (!head) return give_up(head.error().message);
    if (head->version < host_state_.head().version) {
      // The leader lost its state, or belongs to another edge. This state stays in use, and a person must decide.
      return give_up(
          fmt::format("the leader is at version {}, behind ours ({})", head->version, host_state_.head().version));
    }
    log_info("replica of {} ({}): connected", leader_.to_string(), string_member(line, "node"));
    connected_ = true;
    trouble_.clear();
    pause_ms_ = kFirstPauseMs;
  } else if (type == "version") {
    const bool has_changes = line.contains("changes");
    if (has_changes && arriving_) {
      held_ = line;  // they are changes of the version that is being fetched
    } else if (has_changes && host_state_.manifest().entries.size() > kEntriesReadAtOnce) {
      read_beside([&store = host_state_.store(), in_force = host_state_.shared_manifest(), line]() -> ReadLine {
        return {json(), read_version(store, *in_force, line)};
      });
    } else {
      take_version(read_version(host_state_.store(), host_state_.manifest(), line));
    }
  } else if (type == "confirmed") {
    (void)provisionals_.confirm(number_member(line, "version"));
  } else if (type == "words") {
    take_live_state(line);
  } else if (type == "purge") {
    const Result<Purge> purge = purge_from_json(line.value("purge", json()));
    if (!purge) return give_up(purge.error().message);
    if (Result<void> replicated = host_state_.replicate_purge(*purge); !replicated) give_up(replicated.error().message);
  }
  // Other types come from later releases and are ignored.
}

void ReplicaFollower::take_live_state(const json& line) {
  Result<LiveState> live_state = live_state_from_json(line.value("words", json()));
  if (!live_state) return give_up(live_state.error().message);
  IssuedRecords issued;  // a leader of an earlier release sends none
  const json records = line.value("issued", json::object()), bytes_by_hash = line.value("objects", json::object());
  for (const auto& [key, record] : records.items()) {
    if (!record.is_string()) return give_up("the record " + key + " is no text");
    issued[key] = record.get<std::string>();
  }
  if (Result<void> decoded = decode_issued(issued, *live_state); !decoded) return give_up(decoded.error().message);
  std::vector<std::string> objects;
  for (const auto& [hash, bytes] : bytes_by_hash.items()) {
    std::optional<std::string> decoded = bytes.is_string() ? base64_decode(bytes.get<std::string>()) : std::nullopt;
    if (!decoded) return give_up("object " + hash + " is not in base64");
    objects.push_back(*std::move(decoded));
  }
  if (Result<void> replicated = host_state_.replicate_live_state(*live_state, objects); !replicated)
    give_up(replicated.error().message);
}

void ReplicaFollower::take_version(Result<ArrivingVersion> version) {
  if (!version) return give_up(version.error().message);
  // A newer version replaces one that is still being fetched.
  fetch_.reset();
  arriving_ = *std::move(version);
  ++arrivals_;
  fetch_next();
}

void ReplicaFollower::fetch_next() {
  const std::vector<std::string>& missing = arriving_->missing;
  if (missing.empty()) return working_ == 0 ? store_version() : void();
  if (one_at_a_time_) return fetch_one(missing.back());
  const size_t count = std::min(missing.size(), kMaxObjectsAsked);
  fetch({missing.rbegin(), missing.rbegin() + static_cast<ptrdiff_t>(count)});
}

// `asked`: the end of what is missing, from its end on.
void ReplicaFollower::fetch(std::vector<std::string> asked) {
  HttpClientRequest many = request("/v1/objects");
  many.method = "POST";
  many.timeout_ms = kObjectsMs;
  many.headers.emplace_back("Content-Type", "application/json");
  many.body = encode_hashes(asked);
  fetch_ = http_call(loop_, target(), std::move(many), [this, asked = std::move(asked)](Result<HttpResponse> response) {
    if (giving_up_) return;
    if (!response) return give_up("objects: " + response.error().message);
    if (response->status == 404 || response->status == 405) {
      one_at_a_time_ = true;
      return fetch_next();  // this replaces the call, here and below
    }
    if (response->status != 200) return give_up(fmt::format("objects: the leader answered {}", response->status));
    take_objects(asked, std::move(response->body));
  });
}

void ReplicaFollower::take_objects(const std::vector<std::string>& asked, std::string answer) {
  auto read = [asked, answer = std::move(answer)] { return decode_objects(answer, asked); };
  const bool begun = reads_.run(
      std::move(read), [this, stream = stream_id_, arrival = arrivals_](std::optional<Result<HashedObjects>> objects) {
        if (stream != stream_id_ || giving_up_ || !arriving_ || arrival != arrivals_) return;
        if (!objects) return give_up("objects could not be read; the log says why");
        if (!*objects) return give_up(objects->error().message);
        arriving_->missing.resize(arriving_->missing.size() - (*objects)->size());
        std::move((*objects)->begin(), (*objects)->end(), std::back_inserter(arriving_->objects));
        fetch_next();
      });
  if (!begun) give_up("objects of earlier connections are still being read");
}

// Fetches a single object. Leaders of earlier releases cannot send many objects in one answer.
void ReplicaFollower::fetch_one(const std::string& hash) {
  fetch_ =
      http_call(loop_, target(), request("/v1/objects/" + hash), [this, hash](const Result<HttpResponse>& response) {
        if (giving_up_) return;
        if (!response) return give_up("object " + hash + ": " + response.error().message);
        if (response->status != 200)
          return give_up(fmt::format("object {}: the leader answered {}", hash, response->status));
        if (sha256_hex(response->body) != hash)
          return give_up("object " + hash + ": the content is not what its hash says");
        arriving_->objects.emplace_back(hash, response->body);
        arriving_->missing.pop_back();
        fetch_next();
      });
}

void ReplicaFollower::store_version() {
  ArrivingVersion arrived = std::move(*arriving_);
  arriving_.reset();
  if (arrived.provisional) {
    if (Result<void> said = provisionals_.announce(*arrived.provisional); !said) return give_up(said.error().message);
  }
  ++working_;
  const uint64_t version = arrived.manifest.version;
  host_state_.replicate_version(std::move(arrived.manifest), std::move(arrived.objects),
                                [self = self_, stream = stream_id_, version](const Result<void>& result) {
                                  if (*self != nullptr) (*self)->stored(stream, version, result);
                                });
}

// `stream`: the connection that brought the version.
void ReplicaFollower::stored(uint64_t stream, uint64_t version, const Result<void>& result) {
  if (result) log_info("replica of {}: version {} replicated", leader_.to_string(), version);
  if (stream != stream_id_ || giving_up_) return;
  --working_;
  if (!result) return give_up(fmt::format("version {}: {}", version, result.error().message));
  if (const json line = std::exchange(held_, json()); !line.is_null()) take_line(line);
  take_lines();
}

}  // namespace tidegate
