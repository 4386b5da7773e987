// SPDX-License-Identifier: Apache-2.0
#include "control/hosts/replica_source.h"

#include "conf/state_records.h"
#include "control/api/parameters.h"
#include "control/api/shapes.h"
#include "control/apply.h"
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
      alive_(loop, [this] { keep_alive(); }) {
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
}

void ReplicaSource::open(const ApiCall& call) {
  const uint64_t version = number_parameter(call, "version", 0);
  const auto stream = std::make_shared<Stream>();
  stream->exchange = call.exchange;
  stream->sent = {version, number_parameter(call, "words", 0), number_parameter(call, "purge", 0)};
  // The follower has this number with another content, so it gets this version again.
  const std::string digest = call.request().parameter("digest").value_or("");
  if (version == host_state_.head().version) {
    if (digest == host_state_.manifest().digest) {
      stream->sent_entries = host_state_.manifest().entries;
    } else {
      stream->sent.version = 0;
    }
  }
  stream->exchange->begin_stream(200, {{"Content-Type", "application/x-ndjson"}, {"Cache-Control", "no-store"}});
  stream->exchange->on_close([weak = std::weak_ptr<Stream>(stream)] {
    if (const auto closed = weak.lock()) closed->gone = true;
  });
  streams_[next_id_++] = stream;
  write(*stream, {{"type", "hello"}, {"node", node_}, {"head", to_json(host_state_.head())}});
  // A confirmation that the follower did not get.
  const bool has_head = stream->sent.version == host_state_.head().version;
  if (has_head && !provisionals_.current()) write(*stream, {{"type", "confirmed"}, {"version", stream->sent.version}});
  push(*stream);
  sweep();
}

void ReplicaSource::say_confirmed() {
  for (auto& [id, stream] : streams_) {
    write(*stream, {{"type", "confirmed"}, {"version", host_state_.head().version}});
  }
  sweep();
}

void ReplicaSource::push_all() {
  for (auto& [id, stream] : streams_) push(*stream);
  sweep();
}

void ReplicaSource::push(Stream& stream) {
  const StateHead& head = host_state_.head();
  if (stream.sent.version != head.version) push_version(stream);
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

void ReplicaSource::push_version(Stream& stream) {
  const Manifest& manifest = host_state_.manifest();
  json objects = json::object();
  size_t inline_bytes = 0;
  for (const ObjectChange& change : compare(stream.sent_entries, manifest.entries)) {
    if (change.new_hash.empty()) continue;
    const Result<std::string> bytes = host_state_.store().object(change.new_hash);
    if (!bytes || inline_bytes + bytes->size() > kMaxInlineBytes) continue;
    inline_bytes += bytes->size();
    objects[change.new_hash] = base64_encode(*bytes);
  }
  TIDEGATE_ASSERT(inline_bytes <= kMaxInlineBytes, "a line of the stream has a bound");
  json line = {{"type", "version"}, {"manifest", to_json(manifest, true)}, {"objects", std::move(objects)}};
  if (provisionals_.current()) line["provisional"] = to_json(*provisionals_.current());
  write(stream, line);
  stream.sent.version = manifest.version;
  stream.sent_entries = manifest.entries;
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
