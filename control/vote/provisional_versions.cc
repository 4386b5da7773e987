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
  // The previous process ended between the announcement and the commit, or another version came.
  if (left->version != head.version || left->digest != head.digest) return end("it is not in force");
  if (host_state_.has_journal()) {
    const Result<std::optional<std::string>> record = host_state_.store().provisional();
    if (record && !*record) return end("it was confirmed");
  }
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

void ProvisionalVersions::take_confirmation(uint64_t version) {
  if (!current() || current()->version != version) return;
  const bool was_back = current()->went_back;
  probation_ = {};
  end(was_back ? "it was confirmed: this host follows again" : "it was confirmed");
}

bool ProvisionalVersions::may_confirm(uint64_t version) const {
  Probation copy = probation_;
  return copy.confirm(version, monotonic_ns());
}

void ProvisionalVersions::set_leads(bool leads) {
  leads_ = leads;
  probation_.set_leads(leads);
  arm();
}

Result<void> ProvisionalVersions::before_adopting(const WriteSet& set) {
  for (const WriteSet::Change& change : set.changes) {
    if (change.db != kSysDatabase || change.key != kProvisionalRecord || !change.value) continue;
    const Result<nlohmann::json> record = parse_json(*change.value);
    const auto announced = record ? provisional_from_json(*record) : std::nullopt;
    // A checkpoint has the record too. If the version is known already, its time does not begin again.
    if (announced && !(current() && current()->version == announced->version)) return announce(*announced);
  }
  return {};
}

void ProvisionalVersions::after_adopting() {
  if (!current()) return;
  const uint64_t version = current()->version;
  const Result<std::optional<std::string>> record = host_state_.store().provisional();
  if (!record || *record) return;
  if (host_state_.head().version == version) {
    take_confirmation(version);
  } else if (host_state_.head().version > version) {
    probation_ = {};
    end("another version came");
  }
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
