// SPDX-License-Identifier: Apache-2.0
#include "control/health/own_planes.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "conf/model.h"
#include "conf/model/node.h"
#include "control/api/json_bounds.h"
#include "control/api/shapes.h"
#include "control/limits.h"
#include "core/clock.h"
#include "core/log.h"

namespace tidegate {

namespace {

using nlohmann::json;

constexpr size_t kMaxAliveBytes = 64 << 10;

// Only two errors say something about the plane: nobody listens at its socket, or the time was over.
PlaneAnswer of_error(const std::string& sentence) {
  PlaneAnswer answer;
  const auto says = [&](const char* words) { return sentence.find(words) != std::string::npos; };
  if (says("Connection refused") || says("No such file")) answer.kind = PlaneAnswer::Kind::gone;
  return answer;
}

PlaneAnswer of_response(const HttpResponse& response) {
  PlaneAnswer answer;
  const Result<json> body = parse_json(response.body);
  if (response.status != 200 || !body || !body->is_object()) return answer;
  answer.version = number_member(*body, "version");
  answer.live_state = number_member(*body, "words");
  answer.why = string_member(*body, "why");
  const std::string state = string_member(*body, "state");
  for (const auto& [word, kind] : {std::pair{"up", PlaneAnswer::Kind::up},
                                   {"draining", PlaneAnswer::Kind::draining},
                                   {"down", PlaneAnswer::Kind::down}}) {
    if (state == word) answer.kind = kind;
  }
  return answer;
}

}  // namespace

OwnPlanes::OwnPlanes(EventLoop& loop, HostState& host_state, Fleet& fleet, std::string run_dir)
    : loop_(loop),
      host_state_(host_state),
      fleet_(fleet),
      run_dir_(std::move(run_dir)),
      timer_(loop, [this] { tick(); }),
      report_timer_(loop, [this] { report(); }) {
  host_state_.subscribe([this](const HostStateChange& change) {
    if (change.version) update();
  });
  update();
}

OwnPlanes::~OwnPlanes() = default;

void OwnPlanes::add_routes(RouteTable& table) {
  table.add({"GET",
             "/v1/node/planes",
             Role::viewer,
             Effect::reads,
             "How this host's planes are, as NDJSON: a line for each change, and several a second",
             {},
             {},
             [this](const ApiCall& call) { open(call); }});
}

OwnPlanes::Verdicts OwnPlanes::verdicts() const {
  Verdicts verdicts;
  for (const auto& [plane, watched] : watched_) {
    if (watched.judge.verdict()) verdicts[plane] = *watched.judge.verdict();
  }
  return verdicts;
}

void OwnPlanes::update() {
  std::vector<std::string> planes;
  if (const std::shared_ptr<const Model> model = host_state_.model()) {
    const uint32_t own = model->node_index(fleet_.own_node());
    if (own != kNone) planes = Fleet::planes_of(model->nodes[own]);
  }
  std::erase_if(watched_,
                [&](const auto& each) { return std::find(planes.begin(), planes.end(), each.first) == planes.end(); });
  for (const std::string& plane : planes) watched_.try_emplace(plane, loop_.now_ns());
  if (watched_.empty()) return timer_.cancel();
  if (!timer_.armed()) timer_.arm_after_ms(kPlaneLookMs);
}

void OwnPlanes::tick() {
  timer_.arm_after_ms(kPlaneLookMs);
  for (auto& [plane, watched] : watched_) {
    if (!watched.asked) ask(plane, watched);
  }
}

void OwnPlanes::ask(const std::string& plane, Watched& watched) {
  HttpTarget socket;
  socket.unix_path = run_dir_ + "/" + plane + ".sock";
  HttpClientRequest request;
  request.target = "/alive";
  request.host = plane;
  request.headers = {{"Tidegate-Hears-Leader", !hears_leader_ || hears_leader_() ? "yes" : "no"}};
  request.timeout_ms = kPlaneSilentMs;
  request.max_body_bytes = kMaxAliveBytes;
  const uint64_t asked_ns = loop_.now_ns();
  watched.asked = true;
  watched.call = http_call(
      loop_, socket, std::move(request), [this, plane, &watched, asked_ns](const Result<HttpResponse>& response) {
        watched.asked = false;
        PlaneAnswer answer = response ? of_response(*response) : of_error(response.error().message);
        const bool timed_out = loop_.now_ns() - asked_ns >= kPlaneSilentMs * kNsPerMs;
        if (!response && timed_out) answer.kind = PlaneAnswer::Kind::silent;
        if (watched.call->failed_for_own_limit()) answer = {};
        take(plane, answer);
      });
}

void OwnPlanes::take(const std::string& plane, const PlaneAnswer& answer) {
  PlaneJudge& judge = watched_.at(plane).judge;
  if (!judge.observe(answer, host_state_.head(), loop_.now_ns())) return;
  const HealthVerdict& verdict = *judge.verdict();
  if (!verdict.up) log_warn("{} is {}: {}", plane, verdict.drains ? "to get no new work" : "down", verdict.reason);
  if (verdict.up) log_info("{} is up", plane);
  report();
  for (const auto& listener : listeners_) listener();
}

void OwnPlanes::open(const ApiCall& call) {
  call.exchange->begin_stream(200, {{"Content-Type", "application/x-ndjson"}, {"Cache-Control", "no-store"}});
  streams_.push_back(call.exchange);
  report();
}

// Writes to every stream. Streams whose peer is gone are removed.
void OwnPlanes::report() {
  json planes = json::object();
  for (const auto& [plane, verdict] : verdicts()) planes[plane] = to_json(verdict);
  const std::string line = dump({{"node", fleet_.own_node()}, {"planes", std::move(planes)}}) + "\n";
  std::erase_if(streams_, [&](const HttpExchangePtr& stream) { return !stream->write(line); });
  if (streams_.empty()) return report_timer_.cancel();
  report_timer_.arm_after_ms(kPlaneReportMs);
}

}  // namespace tidegate
