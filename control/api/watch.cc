// SPDX-License-Identifier: Apache-2.0
#include "control/api/watch.h"

#include <fmt/format.h>

#include <algorithm>

#include "control/api/json_bounds.h"
#include "control/api/parameters.h"
#include "control/api/shapes.h"
#include "core/clock.h"

namespace tidegate {

using nlohmann::json;

std::string event_id(const StateHead& head) {
  return fmt::format("{}.{}.{}", head.version, head.live_state, head.purge);
}

std::optional<StateHead> parse_event_id(std::string_view text) {
  uint64_t numbers[3] = {};
  for (size_t i = 0; i < 3; ++i) {
    const size_t end = i == 2 ? text.size() : text.find('.');
    if (end == std::string_view::npos) return std::nullopt;
    const std::optional<uint64_t> number = parse_number(text.substr(0, end));
    if (!number) return std::nullopt;
    numbers[i] = *number;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return StateHead{numbers[0], numbers[1], numbers[2]};
}

Watch::Watch(EventLoop& loop, HostState& host_state, Fleet& fleet)
    : host_state_(host_state),
      fleet_(fleet),
      heartbeat_(loop, [this] { heartbeat(); }),
      applied_(loop, [this] { ask_applied(); }) {
  host_state_.subscribe([this](const HostStateChange&) { on_change(); });
  heartbeat_.arm_after_ms(kHeartbeatMs);
}

void Watch::add_routes(RouteTable& table) {
  table.add({"GET",
             "/v1/watch",
             Role::viewer,
             Effect::reads,
             "Server-sent events: version, words, purge, applied; resumable by Last-Event-ID",
             {},
             {},
             [this](const ApiCall& call) { open(call); }});
}

void Watch::open(const ApiCall& call) {
  const auto stream = std::make_shared<Stream>();
  stream->exchange = call.exchange;
  stream->sent = host_state_.head();
  const std::string_view last_seen = call.request().header("last-event-id");
  if (!last_seen.empty()) {
    const std::optional<StateHead> head = parse_event_id(last_seen);
    if (!head) return call.respond(problem(400, "bad_event_id", "Last-Event-ID is not one of ours"));
    stream->sent = *head;
  }
  stream->exchange->begin_stream(200, {{"Content-Type", "text/event-stream"}, {"Cache-Control", "no-store"}});
  stream->exchange->on_close([weak = std::weak_ptr<Stream>(stream)] {
    if (const auto closed = weak.lock()) closed->gone = true;
  });
  streams_[next_id_++] = stream;
  // Sent at once, so that the client knows that the watch has begun, and after which event.
  send(*stream, "hello", {{"head", to_json(host_state_.head())}});
  push(*stream);
  sweep();
}

void Watch::on_change() {
  for (auto& [id, stream] : streams_) push(*stream);
  sweep();
  if (streams_.empty()) return;
  applied_until_ns_ = monotonic_ns() + kAppliedPatienceMs * kNsPerMs;
  if (!asking_) applied_.arm_after_ns(0);
}

void Watch::push(Stream& stream) {
  const StateHead& head = host_state_.head();
  if (stream.sent.version < head.version) {
    const size_t missed = static_cast<size_t>(std::min<uint64_t>(head.version - stream.sent.version, kMaxReplayed));
    Result<std::vector<Manifest>> versions = host_state_.store().list_versions(missed);
    if (versions) {
      for (auto manifest = versions->rbegin(); manifest != versions->rend(); ++manifest) {
        if (manifest->version <= stream.sent.version) continue;
        stream.sent.version = manifest->version;
        send(stream, "version", to_json(*manifest, false));
      }
    }
  }
  if (stream.sent.live_state < head.live_state) {
    stream.sent.live_state = head.live_state;
    send(stream, "words", to_json(*host_state_.live_state()));
  }
  if (stream.sent.purge < head.purge) {
    const Result<std::vector<Purge>> purges = host_state_.store().purges_after(stream.sent.purge, kMaxReplayed);
    if (purges) {
      for (const Purge& purge : *purges) {
        stream.sent.purge = purge.sequence;
        send(stream, "purge", to_json(purge));
      }
    }
  }
  stream.sent = head;
}

void Watch::send(Stream& stream, const char* event, const json& data) {
  if (stream.gone) return;
  const std::string text = fmt::format("id: {}\nevent: {}\ndata: {}\n\n", event_id(stream.sent), event, dump(data));
  if (!stream.exchange->write(text)) stream.gone = true;
}

void Watch::heartbeat() {
  for (auto& [id, stream] : streams_) {
    if (!stream->gone && !stream->exchange->write(": alive\n\n")) stream->gone = true;
  }
  sweep();
  heartbeat_.arm_after_ms(kHeartbeatMs);
}

void Watch::sweep() {
  for (auto stream = streams_.begin(); stream != streams_.end();) {
    stream = stream->second->gone ? streams_.erase(stream) : std::next(stream);
  }
}

void Watch::ask_applied() {
  if (streams_.empty() || asking_) return;
  asking_ = true;
  fleet_.status([this](const json& status) {
    asking_ = false;
    push_applied(status);
    if (!bool_member(status, "converged") && monotonic_ns() < applied_until_ns_) applied_.arm_after_ms(kAppliedPollMs);
  });
}

void Watch::push_applied(const json& status) {
  for (const json& node : status.at("nodes")) {
    if (!bool_member(node, "reachable")) continue;
    for (const json& plane : node.at("planes")) {
      const StateHead head{number_member(plane, "version"), number_member(plane, "words"),
                           number_member(plane, "purge")};
      const std::string node_name = string_member(node, "name"), plane_name = string_member(plane, "plane");
      StateHead& told = applied_heads_[node_name + "/" + plane_name];
      if (told == head) continue;
      told = head;
      const json event = {{"node", node_name},
                          {"plane", plane_name},
                          {"head", to_json(head)},
                          {"applied_at_ns", number_member(plane, "applied_at_ns")},
                          {"digest", string_member(plane, "digest")}};
      for (auto& [id, stream] : streams_) send(*stream, "applied", event);
    }
  }
  sweep();
}

}  // namespace tidegate
