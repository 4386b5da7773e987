// SPDX-License-Identifier: Apache-2.0
#include "control/announce/route_announcer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "conf/model.h"
#include "conf/model/node.h"
#include "control/limits.h"
#include "core/clock.h"
#include "core/log.h"

namespace tidegate {

using nlohmann::json;

namespace {

constexpr uint64_t kFirstBirdPauseMs = 200;
constexpr uint64_t kLongestBirdPauseMs = 2'000;
constexpr uint64_t kReturnLookMs = 100;
// If more protocols change at once, BIRD reads the file again.
constexpr size_t kMaxCommandsAtOnce = 8;
constexpr const char* kAllProtocols = "\"tidegate_*\"";
constexpr const char* kAnnounceChangesHelp = "Addresses of VIPs that were announced or withdrawn, as decided.";

bool same(const AnnouncedAddress& a, const AnnouncedAddress& b) {
  return a.address == b.address && a.next_hop == b.next_hop && a.announced == b.announced && a.vip == b.vip &&
         a.why == b.why;
}

// Writes a new file and renames it to `path`. So BIRD never reads a half-written file.
Result<void> replace_file(const std::string& path, const std::string& text) {
  const std::string fresh = path + ".new";
  UniqueFd fd(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!fd) return fail(fresh + ": " + std::strerror(errno));
  ::fchmod(fd.get(), 0644);  // BIRD runs as another user
  for (size_t at = 0; at < text.size();) {
    const ssize_t put = ::write(fd.get(), text.data() + at, text.size() - at);
    if (put <= 0) return fail(fresh + ": " + std::strerror(errno));
    at += static_cast<size_t>(put);
  }
  if (::rename(fresh.c_str(), path.c_str()) != 0) return fail(path + ": " + std::strerror(errno));
  return {};
}

}  // namespace

RouteAnnouncer::RouteAnnouncer(EventLoop& loop, HostState& host_state, const Fleet& fleet, const OwnPlanes& own,
                               const std::string& socket, std::string file)
    : loop_(loop),
      host_state_(host_state),
      fleet_(fleet),
      own_(own),
      file_(std::move(file)),
      bird_(loop, socket, [this] { on_bird(); }),
      retry_(loop, [this] { step(); }),
      return_(loop, [this] { update(); }),
      announced_count_(
          metrics().counter("tidegate_control_announce_changes_total", kAnnounceChangesHelp, {{"to", "announced"}})),
      withdrawn_count_(
          metrics().counter("tidegate_control_announce_changes_total", kAnnounceChangesHelp, {{"to", "withdrawn"}})),
      failures_(metrics().counter("tidegate_control_bird_failures_total",
                                  "Attempts to tell BIRD what was decided that failed.")) {}

// The verdict on this host's forwarder. Nothing before the first verdict.
std::optional<HealthVerdict> RouteAnnouncer::forwarder() {
  const OwnPlanes::Verdicts verdicts = own_.verdicts();
  const auto found = verdicts.find("l4");
  if (found == verdicts.end()) return counted_;
  const uint64_t now_ns = loop_.now_ns();
  if (!counted_) return counted_ = found->second;
  if (badness(found->second) > badness(*counted_)) guard_.on_worse(now_ns);
  if (badness(found->second) < badness(*counted_) && !guard_.may_return(now_ns)) {
    return_.arm_after_ms(kReturnLookMs);
    return counted_;
  }
  return counted_ = found->second;
}

void RouteAnnouncer::update() {
  const std::shared_ptr<const Model> model = host_state_.model();
  const std::string node = fleet_.own_node(model.get());
  const std::optional<HealthVerdict> own = forwarder();
  if (!model) return;
  const bool forwards = std::any_of(model->nodes.begin(), model->nodes.end(),
                                    [&](const Node& each) { return each.name == node && each.l4.enabled; });
  if (forwards && !own) return;
  std::vector<AnnouncedAddress> wanted =
      plan_announcements(*model, *host_state_.live_state(), node, own.value_or(HealthVerdict{}));
  if (wanted_ && std::equal(wanted.begin(), wanted.end(), wanted_->begin(), wanted_->end(), same)) return;
  note_changes(wanted);
  wanted_ = std::move(wanted);
  decided_ns_ = monotonic_ns();
  if (retry_.armed() && bird_.answers()) retry_.cancel();  // news are told at once
  step();
}

void RouteAnnouncer::note_changes(const std::vector<AnnouncedAddress>& wanted) {
  for (const AnnouncedAddress& each : wanted) {
    bool was_announced = false;
    for (const AnnouncedAddress& before : wanted_.value_or(std::vector<AnnouncedAddress>{})) {
      if (before.address == each.address) was_announced = before.announced;
    }
    if (wanted_ && was_announced == each.announced) continue;
    if (each.announced) {
      announced_count_.add();
      log_info("{} of vip {} is announced", each.address.to_string(), each.vip);
    } else if (wanted_) {
      withdrawn_count_.add();
      log_warn("{} of vip {} is withdrawn: {}", each.address.to_string(), each.vip, each.why);
    }
  }
}

bool RouteAnnouncer::write_file() {
  std::string text = bird_file(*wanted_);
  if (text == written_) return true;
  if (Result<void> put = replace_file(file_, text); !put) return fail_for_now(put.error().message), false;
  written_ = std::move(text);
  return true;
}

// Does the next necessary step, if no command is in progress.
void RouteAnnouncer::step() {
  if (!wanted_ || busy_) return;
  if (!write_file()) return;
  if (!bird_.answers()) {
    if (Result<void> connected = bird_.connect(); !connected) return fail_for_now(connected.error().message);
    return;  // on_bird()
  }
  bool is_same_set = told_.size() == wanted_->size();
  std::vector<std::string> to_enable, to_disable;
  bool any_announced = false;
  for (const AnnouncedAddress& each : *wanted_) {
    const std::string protocol = bird_protocol(each.address);
    const auto told = told_.find(protocol);
    is_same_set = is_same_set && told != told_.end();
    any_announced = any_announced || each.announced;
    if (told != told_.end() && told->second != each.announced)
      (each.announced ? to_enable : to_disable).push_back(protocol);
  }
  if (needs_configure_ || !is_same_set) return configure();
  if (to_enable.empty() && to_disable.empty()) return;
  if (!any_announced) return tell(std::string("disable ") + kAllProtocols, to_disable, false);
  if (to_enable.size() + to_disable.size() > kMaxCommandsAtOnce) return configure();
  if (!to_disable.empty()) return tell("disable " + to_disable.front(), {to_disable.front()}, false);
  tell("enable " + to_enable.front(), {to_enable.front()}, true);
}

// Makes BIRD read its configuration again, with the file.
void RouteAnnouncer::configure() {
  busy_ = true;
  std::map<std::string, bool> written;
  for (const AnnouncedAddress& each : *wanted_) written[bird_protocol(each.address)] = each.announced;
  bird_.ask("configure soft", [this, written = std::move(written)](const Result<std::string>& text) {
    busy_ = false;
    if (!text) return fail_for_now("configure: " + text.error().message);
    told_ = written;
    needs_configure_ = false;
    look_for_protocols();
  });
}

// BIRD gives no error if bird.conf does not include the file.
void RouteAnnouncer::look_for_protocols() {
  if (told_.empty()) return step();
  busy_ = true;
  bird_.ask("show protocols " + told_.begin()->first, [this](const Result<std::string>& text) {
    busy_ = false;
    if (!text) return fail_for_now(fmt::format("its configuration does not include {}", file_));
    if (!trouble_.empty()) log_info("bird has the routes again");
    trouble_.clear();
    pause_ms_ = 0;
    log_info("bird has {} of {} addresses, {} ms after the decision", announced(), told_.size(),
             (monotonic_ns() - decided_ns_) / kNsPerMs);
    step();
  });
}

void RouteAnnouncer::tell(const std::string& command, const std::vector<std::string>& protocols, bool enabled) {
  busy_ = true;
  bird_.ask(command, [this, command, protocols, enabled](const Result<std::string>& text) {
    busy_ = false;
    if (!text) {
      needs_configure_ = true;
      return fail_for_now(command + ": " + text.error().message);
    }
    for (const std::string& protocol : protocols) told_[protocol] = enabled;
    log_info("bird: {}, {} ms after the decision", command, (monotonic_ns() - decided_ns_) / kNsPerMs);
    step();
  });
}

// Called when BIRD has connected or is gone. After that its state is not known.
void RouteAnnouncer::on_bird() {
  needs_configure_ = true;
  if (bird_.answers()) return step();
  if (!retry_.armed()) fail_for_now("the connection is lost");
}

void RouteAnnouncer::fail_for_now(const std::string& why) {
  failures_.add();
  needs_configure_ = true;
  if (trouble_ != why) log_error("bird cannot be told which addresses to announce, trying until it can be: {}", why);
  trouble_ = why;
  pause_ms_ = std::clamp(2 * pause_ms_, kFirstBirdPauseMs, kLongestBirdPauseMs);
  retry_.arm_after_ms(pause_ms_);
}

json RouteAnnouncer::describe() const {
  json addresses = json::array();
  for (const AnnouncedAddress& each : wanted_.value_or(std::vector<AnnouncedAddress>{})) {
    json row = {{"vip", each.vip}, {"address", each.address.to_string()}, {"announced", each.announced}};
    if (!each.why.empty()) row["why"] = each.why;
    addresses.push_back(std::move(row));
  }
  json out = {{"by", "bird"}, {"answers", bird_answers()}, {"addresses", std::move(addresses)}};
  if (!trouble_.empty()) out["trouble"] = trouble_;
  return out;
}

size_t RouteAnnouncer::announced() const {
  if (!wanted_) return 0;
  return static_cast<size_t>(
      std::count_if(wanted_->begin(), wanted_->end(), [](const AnnouncedAddress& each) { return each.announced; }));
}

}  // namespace tidegate
