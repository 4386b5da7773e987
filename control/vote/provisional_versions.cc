// SPDX-License-Identifier: Apache-2.0
#include "control/vote/provisional_versions.h"

#include <utility>

#include "control/api/json_bounds.h"
#include "core/clock.h"
#include "core/log.h"

namespace tidegate {

namespace {

constexpr uint64_t kRevertAgainNs = 1'000'000'000;

}  // namespace

nlohmann::json to_json(const ProvisionalVersion& provisional) {
  return {{"version", provisional.version},
          {"digest", provisional.digest},
          {"back_to", provisional.back_to},
          {"confirm_ms", provisional.confirm_ms},
          {"went_back", provisional.went_back}};
}

std::optional<ProvisionalVersion> provisional_from_json(const nlohmann::json& json) {
  ProvisionalVersion provisional{number_member(json, "version"), string_member(json, "digest"),
                                 number_member(json, "back_to"), number_member(json, "confirm_ms"), false};
  if (provisional.version == 0 || provisional.back_to >= provisional.version) return std::nullopt;
  return provisional;
}

ProvisionalVersions::ProvisionalVersions(EventLoop& loop, HostState& host_state, std::string state_dir, bool leads)
    : host_state_(host_state), state_dir_(std::move(state_dir)), leads_(leads), timer_(loop, [this] { on_time(); }) {
  host_state_.subscribe([this](const HostStateChange& change) {
    if (change.version && probation_.on_version(host_state_.head().version)) end("another version came");
  });
}

void ProvisionalVersions::start(Revert revert) {
  revert_ = std::move(revert);
  const std::optional<ProvisionalVersion> left = read_provisional(state_dir_);
  if (!left) return;
  const Manifest& head = host_state_.manifest();
  // The process before ended between the announcement and the commit, or another version came.
  if (left->version != head.version || left->digest != head.digest) return end("it is not in force");
  log_warn("version {} is provisional: it must be confirmed within {} ms", left->version, left->confirm_ms);
  probation_.begin(*left, leads_, monotonic_ns());
  arm();
}

Result<void> ProvisionalVersions::announce(const ProvisionalVersion& provisional) {
  if (Result<void> written = write_provisional(state_dir_, provisional); !written) return written;
  probation_.begin(provisional, leads_, monotonic_ns());
  arm();
  return {};
}

void ProvisionalVersions::withdraw() {
  probation_ = {};
  end("it was not committed");
}

bool ProvisionalVersions::confirm(uint64_t version) {
  const bool was_back = current() && current()->went_back;
  if (!probation_.confirm(version, monotonic_ns())) return false;
  end(was_back ? "the leader had it confirmed: this host follows again" : "it was confirmed");
  return true;
}

void ProvisionalVersions::on_time() {
  const std::optional<ProvisionalVersion> provisional = current();
  switch (probation_.on_time(monotonic_ns())) {
    case Probation::Due::nothing:
      break;
    case Probation::Due::revert:
      log_warn("version {} was not confirmed within {} ms: version {} comes back", provisional->version,
               provisional->confirm_ms, provisional->back_to);
      return revert_(*provisional, [this](bool done) {
        if (done) return;
        probation_.try_again_at(monotonic_ns() + kRevertAgainNs);
        arm();
      });
    case Probation::Due::go_back:
      log_warn("no word from the leader about version {}: this host goes back to version {} alone",
               provisional->version, provisional->back_to);
      if (Result<void> written = write_provisional(state_dir_, *current()); !written) {
        log_error("{}", written.error().message);
      }
  }
  arm();
}

void ProvisionalVersions::arm() {
  timer_.cancel();
  if (probation_.deadline_ns() != UINT64_MAX) timer_.arm_at_ns(probation_.deadline_ns());
}

void ProvisionalVersions::end(const char* why) {
  timer_.cancel();
  log_info("the provisional version is over: {}", why);
  if (Result<void> removed = remove_provisional(state_dir_); !removed) log_error("{}", removed.error().message);
}

nlohmann::json ProvisionalVersions::describe() const {
  return current() ? to_json(*current()) : nlohmann::json(nullptr);
}

}  // namespace tidegate
