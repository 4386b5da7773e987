// SPDX-License-Identifier: Apache-2.0
#include "control/hosts/replica_source.h"

#include "conf/candidate.h"
#include "conf/state_records.h"
#include "control/api/parameters.h"
#include "control/api/shapes.h"
#include "control/apply.h"
#include "control/hosts/many_objects.h"
#include "control/limits.h"
#include "core/assert.h"
#include "core/crypto.h"
#include "core/log.h"

namespace tidegate {

using nlohmann::json;

ReplicaSource::ReplicaSource(EventLoop& loop, HostState& host_state, const ProvisionalVersions& provisionals,
                             std::string node)
    : host_state_(host_state),
      provisionals_(provisionals),
      node_(std::move(node)),
      alive_(loop, [this] { keep_alive(); }),
      // A stream needs at most two jobs: a line of a version, and an answer with objects. A stream that has just ended
      // may still have its two jobs.
      lines_(loop, "control-replicas", 4 * kHttpStreams) {
  host_state_.subscribe([this](const HostStateChange&) { push_all(); });
  alive_.arm_after_ms(kAliveMs);
}

void ReplicaSource::add_routes(RouteTable& table) {
  table.add({"GET",
             "/v1/replica",
             Role::replica,
             Effect::reads,
             "The stream that another host's control follows: versions, words and purges as NDJSON",
             {QueryParameter::number("version", "what the follower has (0)"),
              {"digest", "of that version"},
              QueryParameter::number("words", "the sequence it has (0)"),
              QueryParameter::number("purge", "the last purge it has (0)")},
             {},
             [this](const ApiCall& call) { open(call); }});
  table.add({"GET",
             "/v1/objects/{hash}",
             Role::replica,
             Effect::reads,
             "An object's bytes by its content hash",
             {},
             {},
             [this](const ApiCall& call) {
               Result<std::string> bytes = host_state_.store().object(call.path.at("hash"));
               if (!bytes) return call.respond(problem(404, "no_such_object", bytes.error().message));
               call.respond(HttpResponse::text(200, std::move(*bytes), "application/octet-stream"));
             }});
  ApiRoute many = {"POST",
                   "/v1/objects",
                   Role::replica,
                   Effect::reads,
                   "Many objects by their content hashes, a JSON list: the first of them, as many as fit",
                   {},
                   {"application/json"},
                   [this](const ApiCall& call) { send_objects(call); }};
  many.body_bytes = kMaxObjectsAskedBytes;
  table.add(std::move(many));
}

void ReplicaSource::send_objects(const ApiCall& call) {
  auto read = [&store = host_state_.store(), body = call.exchange->take_body()]() -> HttpResponse {
    const Result<std::vector<std::string>> hashes = decode_hashes(body);
    if (!hashes) return problem(400, "bad_hashes", hashes.error().message);
    std::string answer;
    for (const std::string& hash : *hashes) {
      const Result<std::string> bytes = store.object(hash);
      if (!bytes || (!answer.empty() && answer.size() + bytes->size() > kObjectsAtOnceBytes)) break;
      append_object(answer, hash, *bytes);
    }
    return HttpResponse::text(200, std::move(answer), "application/octet-stream");
  };
  const bool begun = lines_.run(std::move(read), [call](std::optional<HttpResponse> answer) {
    call.respond(answer ? *std::move(answer)
                        : problem(500, "failed", "the objects could not be read; the log says why"));
  });
  if (begun) return;
  HttpResponse busy = problem(503, "busy", "as many calls of this kind wait as may; try again");
  busy.headers.emplace_back("Retry-After", "1");
  call.respond(std::move(busy));
}

void ReplicaSource::open(const ApiCall& call) {
  const uint64_t version = number_parameter(call, "version", 0);
  const auto stream = std::make_shared<Stream>();
  stream->exchange = call.exchange;
  stream->sent = {version, number_parameter(call, "words", 0), number_parameter(call, "purge", 0)};
  stream->reads_changes = call.request().header("tidegate-replica") == kFormChanges;
  // If the follower has this number with another content, it gets this version again.
  const std::string digest = call.request().parameter("digest").value_or("");
  if (version == host_state_.head().version) {
    if (digest == host_state_.manifest().digest) {
      stream->sent_manifest = host_state_.shared_manifest();
    } else {
      stream->sent.version = 0;
    }
  } else if (version < host_state_.head().version) {
    stream->has_digest = digest;
  }
  stream->exchange->begin_stream(200, {{"Content-Type", "application/x-ndjson"}, {"Cache-Control", "no-store"}});
  stream->exchange->on_close([weak = std::weak_ptr<Stream>(stream)] {
    if (const auto closed = weak.lock()) closed->gone = true;
  });
  streams_[next_id_++] = stream;
  write(*stream, {{"type", "hello"}, {"node", node_}, {"head", to_json(host_state_.head())}});
  // The follower may have missed the confirmation of this version. So push() sends the confirmation.
  const bool has_head = stream->sent.version == host_state_.head().version;
  if (has_head && !provisionals_.current()) stream->confirmed = stream->sent.version;
  push(stream);
  sweep();
}

void ReplicaSource::say_confirmed() {
  for (auto& [id, stream] : streams_) {
    stream->confirmed = host_state_.head().version;
    push(stream);
  }
  sweep();
}

void ReplicaSource::push_all() {
  for (auto& [id, stream] : streams_) push(stream);
  sweep();
}

void ReplicaSource::push(const StreamPtr& to) {
  Stream& stream = *to;
  if (stream.gone || stream.writing) return;
  const StateHead& head = host_state_.head();
  if (stream.sent.version != head.version) {
    push_version(to);
    if (stream.gone || stream.writing) return;
  }
  if (const uint64_t confirmed = std::exchange(stream.confirmed, 0); confirmed != 0) {
    write(stream, {{"type", "confirmed"}, {"version", confirmed}});
  }
  if (stream.sent.live_state != head.live_state) {
    push_live_state(stream);
    stream.sent.live_state = head.live_state;
  }
  while (!stream.gone && stream.sent.purge < head.purge) {
    const Result<std::vector<Purge>> purges = host_state_.store().purges_after(stream.sent.purge, kPurgesAtOnce);
    if (!purges || purges->empty()) break;  // older purges were trimmed; the follower continues with the next one
    for (const Purge& purge : *purges) write(stream, {{"type", "purge"}, {"purge", to_json(purge)}});
    stream.sent.purge = purges->back().sequence;
  }
}

void ReplicaSource::push_live_state(Stream& stream) {
  const LiveState& live_state = *host_state_.live_state();
  json line = {{"type", "words"}, {"words", to_json(live_state)}, {"issued", json::object()}};
  std::set<std::string> named;
  for (const auto& [key, record] : encode_issued(live_state)) {
    line["issued"][key] = record;
    for (const std::string& hash : objects_of_issued(key, record)) named.insert(hash);
  }
  for (const std::string& hash : named) {
    if (stream.sent_objects.count(hash) != 0) continue;
    if (const Result<std::string> bytes = host_state_.store().object(hash)) {
      line["objects"][hash] = base64_encode(*bytes);
    }
  }
  stream.sent_objects = std::move(named);
  write(stream, line);
}

// Any thread. Null if the store cannot be read.
ReplicaSource::Line ReplicaSource::write_line(const StateStore& store, const VersionLine& version) {
  constexpr size_t kMostMisfits = 100;  // bound for objects that are read in vain, because they do not fit any more
  size_t inline_bytes = 0, misfits = 0;
  const auto inlined = [&](const std::string& hash) -> std::shared_ptr<const std::string> {
    if (misfits == kMostMisfits) return nullptr;
    Result<std::string> bytes = store.object(hash);
    if (!bytes || inline_bytes + bytes->size() > kMaxInlineBytes) {
      ++misfits;
      return nullptr;
    }
    inline_bytes += bytes->size();
    return std::make_shared<const std::string>(*std::move(bytes));
  };
  json line = {{"type", "version"}, {"manifest", to_json(*version.to, !version.as_changes)}};
  if (version.as_changes) {
    line["changes"] =
        encode_candidate(candidate_between(version.to->version, *version.from, version.to->entries,
                                           [&](const ManifestEntry& entry) { return inlined(entry.hash); }),
                         true);
  } else {
    json objects = json::object();
    const std::vector<ManifestEntry> none;
    for (const ObjectChange& change : compare(version.from ? version.from->entries : none, version.to->entries)) {
      if (change.new_hash.empty()) continue;
      if (const auto bytes = inlined(change.new_hash)) objects[change.new_hash] = base64_encode(*bytes);
    }
    line["objects"] = std::move(objects);
  }
  TIDEGATE_ASSERT(inline_bytes <= kMaxInlineBytes, "a line of the stream has a bound");
  if (version.provisional) line["provisional"] = to_json(*version.provisional);
  return std::make_shared<const std::string>(dump(line) + "\n");
}

// Any thread. The version that the streams have by their own word, if this host keeps it with that content.
std::shared_ptr<const Manifest> ReplicaSource::kept_manifest(const StateStore& store, const VersionLine& version) {
  if (version.has_digest.empty()) return nullptr;
  Result<Manifest> kept = store.manifest(version.has_version);
  if (!kept || kept->digest != version.has_digest) return nullptr;
  return std::make_shared<const Manifest>(*std::move(kept));
}

void ReplicaSource::push_version(const StreamPtr& stream) {
  VersionLine version{stream->sent_manifest, host_state_.shared_manifest(), false, provisionals_.current(), {stream}};
  const size_t entries = version.to->entries.size() + (version.from ? version.from->entries.size() : 0);
  version.as_changes = stream->reads_changes;
  if (version.from == nullptr && !stream->has_digest.empty()) {
    version.has_version = stream->sent.version;
    version.has_digest = stream->has_digest;
  } else if (entries <= kEntriesWrittenAtOnce) {
    version.as_changes = version.as_changes && version.from != nullptr;
    return send_version(version, write_line(host_state_.store(), version));
  }
  stream->writing = true;
  for (const std::shared_ptr<VersionLine>& other : writing_) {
    if (other->from == version.from && other->to == version.to && other->as_changes == version.as_changes &&
        other->has_version == version.has_version && other->has_digest == version.has_digest) {
      return other->streams.push_back(stream);
    }
  }
  const auto kept = std::make_shared<VersionLine>(std::move(version));
  auto write = [&store = host_state_.store(), kept]() -> Line {
    // Works on a copy, because the loop reads the original meanwhile.
    VersionLine line{kept->from, kept->to, false, kept->provisional, {}};
    if (line.from == nullptr) line.from = kept_manifest(store, *kept);
    line.as_changes =
        kept->as_changes && line.from != nullptr && compare(line.from->entries, line.to->entries).size() <= kMaxChanges;
    return write_line(store, line);
  };
  writing_.push_back(kept);
  const bool begun = lines_.run(std::move(write), [this, kept](const std::optional<Line>& line) {
    std::erase(writing_, kept);
    send_version(*kept, line ? *line : nullptr);
    for (const StreamPtr& waits : kept->streams) push(waits);
    sweep();
  });
  if (begun) return;
  std::erase(writing_, kept);
  stream->gone = true;  // it comes back
}

void ReplicaSource::send_version(VersionLine& version, const Line& line) {
  for (const StreamPtr& stream : version.streams) {
    stream->writing = false;
    if (!stream->gone && (!line || !stream->exchange->write_shared(line))) stream->gone = true;
    stream->sent.version = version.to->version;
    stream->sent_manifest = version.to;
  }
}

void ReplicaSource::write(Stream& stream, const json& line) {
  if (!stream.gone && !stream.exchange->write(dump(line) + "\n")) stream.gone = true;
}

void ReplicaSource::sweep() {
  for (auto stream = streams_.begin(); stream != streams_.end();) {
    stream = stream->second->gone ? streams_.erase(stream) : std::next(stream);
  }
}

void ReplicaSource::keep_alive() {
  for (auto& [id, stream] : streams_) write(*stream, {{"type", "alive"}});
  sweep();
  alive_.arm_after_ms(kAliveMs);
}

}  // namespace tidegate
