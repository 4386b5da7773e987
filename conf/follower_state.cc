// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>

#include "conf/follower_base.h"
#include "conf/holding.h"
#include "conf/model.h"
#include "conf/model/certificate.h"
#include "conf/model_builder.h"
#include "conf/provisional.h"
#include "conf/served_version.h"
#include "core/fd.h"
#include "core/log.h"

namespace tidegate {
namespace {

constexpr uint64_t kPollMs = 1'000;
constexpr uint64_t kLongestRetryMs = 60'000;
constexpr size_t kPurgesAtOnce = 256;

// Watches the directory of the notify file, so that the file may be replaced. If that directory does not exist, watches
// the nearest parent that does.
class NotifyWatch {
 public:
  explicit NotifyWatch(std::string state_dir) : state_dir_(std::move(state_dir)) {}

  Result<void> open() {
    fd_.reset(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    if (!fd_) return fail(std::string("inotify: ") + std::strerror(errno));
    aim();
    return {};
  }
  int fd() const { return fd_.get(); }

  // Reads all events. Returns true if one of them may mean a commit.
  bool take_events() {
    bool touched = false;
    alignas(inotify_event) std::array<char, 4096> buffer;
    for (ssize_t got; (got = ::read(fd_.get(), buffer.data(), buffer.size())) > 0;) {
      for (ssize_t at = 0; at < got;) {
        const char* start = buffer.data() + at;
        inotify_event event;
        std::memcpy(&event, start, sizeof event);
        touched |= !at_notify_file_ || matters(event, start + offsetof(inotify_event, name));
        at += static_cast<ssize_t>(sizeof event + event.len);
      }
    }
    aim();
    return touched;
  }

  // Moves the watch to the state directory once that exists.
  void aim() {
    if (at_notify_file_) return;
    at_notify_file_ = watch(state_dir_);
    for (std::filesystem::path parent = std::filesystem::absolute(state_dir_).parent_path(); !at_notify_file_;
         parent = parent.parent_path()) {
      if (watch(parent) || parent == parent.parent_path()) break;
    }
  }

 private:
  bool watch(const std::string& directory) {
    constexpr uint32_t kEvents = IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
    return ::inotify_add_watch(fd_.get(), directory.c_str(), kEvents) >= 0;
  }

  bool matters(const inotify_event& event, const char* name) {
    // The directory is gone: start again.
    if ((event.mask & (IN_IGNORED | IN_DELETE_SELF | IN_MOVE_SELF)) != 0) at_notify_file_ = false;
    if ((event.mask & IN_Q_OVERFLOW) != 0) return true;
    return event.len > 0 && std::strcmp(name, kNotifyFile.c_str()) == 0;
  }

  std::string state_dir_;
  UniqueFd fd_;
  bool at_notify_file_ = false;
};

class StateFollower final : public FollowerBase, private IoHandler {
 public:
  StateFollower(EventLoop& loop, std::string state_dir, FollowerHooks hooks)
      : FollowerBase(std::move(hooks)), loop_(loop), state_dir_(std::move(state_dir)), notify_(state_dir_) {}
  ~StateFollower() override { loop_.remove(notify_.fd()); }

  Result<void> start() {
    if (Result<void> opened = notify_.open(); !opened) return opened;
    loop_.add(notify_.fd(), EPOLLIN, this);
    tick();
    return {};
  }

  uint64_t newest() const override { return newest_; }

  Vote hold(const CandidateVersion& candidate) override;
  void release(uint64_t candidate) override {
    if (holding_.on_release(candidate)) let_go("control gave it up");
  }
  uint64_t held() const override { return holding_.id(); }

  Result<void> reload() override {
    tried_.version = 0;  // try again, even a version that was refused
    look();
    return {};
  }

 private:
  void on_io(uint32_t) override {
    if (notify_.take_events()) look();
  }

  // The fallback for everything that inotify does not report.
  void tick() {
    notify_.aim();
    if (is_time_to_retry()) tried_.version = 0;
    look();
    look_for_another();
    poll_.arm_after_ms(kPollMs);
  }

  void look();
  bool open_store();
  bool follow_live_state(uint64_t sequence);
  void read_certificates(LiveState& live_state) const;
  void read_staples(LiveState& live_state) const;
  void follow_version(uint64_t version);
  bool serve_the_last(uint64_t refused_version);
  void remember();
  bool is_time_to_retry() const;
  Result<void> put_in_force(uint64_t version);
  Vote prepare(const CandidateVersion& candidate);
  Result<Manifest> manifest_after(const CandidateVersion& candidate) const;
  void let_go(const char* why);
  Result<void> catch_up(const std::shared_ptr<const Snapshot>& snapshot);
  void follow_purges(uint64_t sequence);
  Result<void> tell_purges(uint64_t sequence);
  Result<bool> log_continues(uint64_t sequence) const;
  void deliver(const Purge& purge);
  void refuse(std::string why);
  void look_for_another();
  std::string data_path() const { return state_dir_ + "/state/data.mdb"; }

  EventLoop& loop_;
  std::string state_dir_;
  NotifyWatch notify_;
  Timer poll_{loop_, [this] { tick(); }};
  std::unique_ptr<StateStore> store_;
  ino_t inode_ = 0;            // inode of the open environment
  bool another_log_ = false;   // the environment was replaced, so the purge log may be another one
  uint64_t purged_at_ns_ = 0;  // time at which the purge applied_.purge was ordered; 0: not known
  StateHead tried_;            // the last head that was processed, in force or not
  uint64_t newest_ = 0;        // the version of the last head
  ServedVersion remembered_;   // what the file of the last served version says
  uint64_t refused_version_ = 0, retry_after_ms_ = 0, retry_at_ns_ = 0;
  std::shared_ptr<const LiveState> live_state_;
  ModelBuilder models_;
  Holding holding_;
  std::shared_ptr<const Model> held_model_;  // of the candidate that is held
  Timer hold_timer_{loop_, [this] {
                      if (holding_.on_time(loop_.now_ns())) let_go("control said nothing more");
                    }};
};

// Compares the head with the last one seen, and follows what changed.
void StateFollower::look() {
  if (!store_ && !open_store()) return;
  Result<StateHead> head = store_->head();
  if (!head) return refuse(head.error().message);
  if (head->version == 0) return;
  head->version = version_to_serve(state_dir_, head->version);
  const bool readable = (live_state_ && head->live_state == tried_.live_state) || follow_live_state(head->live_state);
  if (live_state_ && head->version != tried_.version) follow_version(head->version);
  // The live state applies to whichever Model is in force, even if a newer version was refused.
  if (current_ && current_->live_state != live_state_) {
    const Result<void> taken = offer(
        make_snapshot(current_->version, current_->version_digest, current_->configured, live_state_, current_.get()));
    if (!taken) log_error("live state {} refused: {}", live_state_->sequence, taken.error().message);
  }
  // A fault of the store may pass. A refused version stays refused until it is accepted.
  if (readable && tried_.version == applied_.version) refused_.clear();
  // Before the first version there may be nothing that a purge could act on. catch_up() delivers the purges then.
  if (current_ && (head->purge != applied_.purge || another_log_)) follow_purges(head->purge);
}

// Content that the plane already has is kept. Content that cannot be read is left out: then the plane serves a
// certificate that it makes itself, which is better than to refuse the live state.
void StateFollower::read_certificates(LiveState& live_state) const {
  for (auto& [name, issued] : live_state.certificates) {
    if (!issued.is_issued()) continue;
    if (live_state_) {
      const auto known = live_state_->certificates.find(name);
      if (known != live_state_->certificates.end() && known->second.key &&
          known->second.certificate_hash == issued.certificate_hash && known->second.key_hash == issued.key_hash) {
        issued.certificate = known->second.certificate;
        issued.key = known->second.key;
        continue;
      }
    }
    Result<std::string> certificate = store_->object(issued.certificate_hash);
    Result<std::string> key = store_->object(issued.key_hash);
    if (!certificate || !key) {
      log_error("certificate {}: what was issued cannot be read: {}", name,
                certificate ? key.error().message : certificate.error().message);
      continue;
    }
    issued.certificate = std::make_shared<const std::string>(*std::move(certificate));
    issued.key = std::make_shared<const std::string>(*std::move(key));
  }
}

// Reads the OCSP answers of authorities. An answer that cannot be read is not shown to clients.
void StateFollower::read_staples(LiveState& live_state) const {
  for (auto& [name, staple] : live_state.staples) {
    if (staple.answer_hash.empty()) continue;
    if (live_state_) {
      const auto known = live_state_->staples.find(name);
      if (known != live_state_->staples.end() && known->second.answer &&
          known->second.answer_hash == staple.answer_hash) {
        staple.answer = known->second.answer;
        continue;
      }
    }
    Result<std::string> answer = store_->object(staple.answer_hash);
    if (answer) {
      staple.answer = std::make_shared<const std::string>(*std::move(answer));
    } else {
      log_error("certificate {}: its OCSP answer cannot be read: {}", name, answer.error().message);
    }
  }
}

// The notify file exists as soon as a writer has created the whole environment.
bool StateFollower::open_store() {
  if (::access((state_dir_ + "/" + kNotifyFile).c_str(), F_OK) != 0) return false;
  Result<std::unique_ptr<StateStore>> store =
      StateStore::open(state_dir_, hooks_.private_keys ? StateStore::Mode::read_only : StateStore::Mode::without_keys);
  if (!store) {
    refuse(store.error().message);
    return false;
  }
  store_ = *std::move(store);
  struct stat file {};
  if (::stat(data_path().c_str(), &file) == 0) inode_ = file.st_ino;
  return true;
}

bool StateFollower::follow_live_state(uint64_t sequence) {
  Result<LiveState> live_state = store_->live_state();
  if (!live_state) {
    refuse(live_state.error().message);
    return false;
  }
  tried_.live_state = sequence;
  if (hooks_.private_keys) {
    read_certificates(*live_state);
    read_staples(*live_state);
  }
  live_state_ = std::make_shared<const LiveState>(*std::move(live_state));
  return true;
}

void StateFollower::follow_version(uint64_t version) {
  tried_.version = version;
  newest_ = version;
  const bool first = !current_ && !hooks_.plane.empty();
  if (first && read_trying(state_dir_, hooks_.plane) == version && serve_the_last(version)) {
    unmark_trying(state_dir_, hooks_.plane);
    retry_after_ms_ = kPollMs;
    retry_at_ns_ = loop_.now_ns() + retry_after_ms_ * kNsPerMs;
    refused_version_ = version;
    return refuse(fmt::format("version {}: the process before ended when it began with it", version));
  }
  if (first) mark_trying(state_dir_, hooks_.plane, version);
  const Result<void> outcome = put_in_force(version);
  if (!outcome) {
    retry_after_ms_ = version == refused_version_ ? std::min(2 * retry_after_ms_, kLongestRetryMs) : kPollMs;
    retry_at_ns_ = loop_.now_ns() + retry_after_ms_ * kNsPerMs;
    refused_version_ = version;
    if (first && serve_the_last(version)) unmark_trying(state_dir_, hooks_.plane);
    return refuse(fmt::format("version {}: {}", version, outcome.error().message));
  }
  refused_.clear();
  remember();
  if (first) unmark_trying(state_dir_, hooks_.plane);
}

// After a start, if the newest version is refused: puts the version in force that this plane served last. Returns false
// if there is no such version that can be served.
bool StateFollower::serve_the_last(uint64_t refused_version) {
  const std::optional<ServedVersion> last = read_served(state_dir_, hooks_.plane);
  if (!last || last->version == refused_version) return false;
  const Result<Manifest> manifest = store_->manifest_without_entries(last->version);
  // Another state may have another version of that number.
  if (!manifest || manifest->digest != last->digest) {
    log_warn("version {}, which was served before, is not in the state any more", last->version);
    return false;
  }
  if (Result<void> outcome = put_in_force(last->version); !outcome) {
    log_error("version {}, which was served before, is refused too: {}", last->version, outcome.error().message);
    return false;
  }
  remembered_ = *last;
  log_warn("version {} is refused: version {}, which was served before, is in force", refused_version, last->version);
  return true;
}

void StateFollower::remember() {
  if (hooks_.plane.empty()) return;
  const ServedVersion served{current_->version, current_->version_digest};
  if (served == remembered_) return;
  remembered_ = served;
  if (Result<void> written = write_served(state_dir_, hooks_.plane, served); !written) {
    log_warn("{}; after a restart this plane does not know which version it served", written.error().message);
  }
}

// The reason for a refusal may go away: an address appears, or a disk has space again. So the plane is asked again
// after one second, two, four and so on.
bool StateFollower::is_time_to_retry() const {
  return tried_.version != 0 && tried_.version != applied_.version && loop_.now_ns() >= retry_at_ns_;
}

Result<void> StateFollower::put_in_force(uint64_t version) {
  const Result<Manifest> record = store_->manifest_without_entries(version);
  if (!record) return record.error();
  std::shared_ptr<const Model> model = holding_.holds(record->digest) ? held_model_ : nullptr;
  if (!model) {
    Result<Manifest> manifest = store_->manifest(version);
    if (!manifest) return manifest.error();
    Result<std::shared_ptr<const Model>> built = models_.build(*store_, *std::move(manifest));
    if (!built) return built.error();
    model = *std::move(built);
  }
  std::shared_ptr<const Snapshot> snapshot = make_snapshot(version, record->digest, model, live_state_);
  if (Result<void> caught_up = catch_up(snapshot); !caught_up) return caught_up;
  Result<void> offered = offer(std::move(snapshot));
  // The version is in force or refused. The plane need not hold anything for it any more.
  if (holding_.on_version(record->digest)) let_go(nullptr);
  return offered;
}

Vote StateFollower::hold(const CandidateVersion& candidate) {
  look();  // the base may have been committed a moment ago
  const Holding::Step step = holding_.on_prepare(candidate.id);
  if (step.release) let_go("a newer one came");
  if (step.kind == Holding::Step::Kind::refuse) return Vote::no(step.why);
  if (step.kind == Holding::Step::Kind::repeat) return holding_.last_vote();
  Vote vote = prepare(candidate);
  if (!vote.yes()) held_model_ = nullptr;
  holding_.prepared(candidate.id, candidate.digest, vote, loop_.now_ns());
  if (vote.yes()) hold_timer_.arm_at_ns(holding_.until_ns());
  return vote;
}

// In most cases the base is the manifest from which the last Model was built. Then nothing is read.
Result<Manifest> StateFollower::manifest_after(const CandidateVersion& candidate) const {
  if (candidate.base == 0) return manifest_of(candidate, {});
  const Manifest& last = models_.manifest();
  if (last.version == candidate.base && last.digest == candidate.base_digest) {
    const Result<Manifest> record = store_->manifest_without_entries(candidate.base);
    if (!record) return record.error();
    if (record->digest == last.digest) return manifest_of(candidate, last);
  }
  const Result<Manifest> base = store_->manifest(candidate.base);
  if (!base) return base.error();
  return manifest_of(candidate, *base);
}

Vote StateFollower::prepare(const CandidateVersion& candidate) {
  if (!store_) return Vote::behind(refused_.empty() ? "there is no state yet" : refused_);
  Result<Manifest> manifest = manifest_after(candidate);
  if (!manifest) return Vote::behind(manifest.error().message);
  const uint64_t version = manifest->version;
  const Result<std::shared_ptr<const Model>> model =
      models_.build(ObjectSource(*store_, &candidate), *std::move(manifest));
  if (!model) return Vote::no(model.error().message);
  held_model_ = *model;
  if (!hooks_.hold) return {};
  return hooks_.hold(make_snapshot(version, candidate.digest, *model,
                                   live_state_ ? live_state_ : std::make_shared<const LiveState>()));
}

// `why` is for the log. Null: the held candidate is in force now.
void StateFollower::let_go(const char* why) {
  hold_timer_.cancel();
  held_model_ = nullptr;
  if (hooks_.release) hooks_.release();
  if (why != nullptr) log_info("the candidate that was prepared is let go: {}", why);
}

// Delivers the purges that came while the plane was away, before the first Snapshot is in force.
Result<void> StateFollower::catch_up(const std::shared_ptr<const Snapshot>& snapshot) {
  if (current_) return {};
  const Result<StateHead> head = store_->head();
  if (!head) return head.error();
  if (hooks_.prepare) {
    const Result<PurgePosition> applied = hooks_.prepare(snapshot);
    if (!applied) return applied.error();
    applied_.purge = applied->sequence;
    purged_at_ns_ = applied->at_ns;
  }
  follow_purges(head->purge);
  return {};
}

Purge everything_up_to(uint64_t sequence) {
  Purge everything;
  everything.sequence = sequence;
  everything.kind = PurgeKind::all;
  everything.by = "follower";
  return everything;
}

void StateFollower::follow_purges(uint64_t sequence) {
  const Result<void> told = tell_purges(sequence);
  another_log_ = false;
  if (told) return;
  log_error("the purge log: {}; it may say anything, so everything is purged", told.error().message);
  Purge everything = everything_up_to(sequence);
  everything.anew = sequence < applied_.purge;
  deliver(everything);
}

Result<void> StateFollower::tell_purges(uint64_t sequence) {
  const Result<bool> continued = log_continues(sequence);
  if (!continued) return continued.error();
  if (!*continued) {
    // One Purge of kind `all` replaces the missed purges of the old log and all purges of the new one.
    const Result<std::vector<Purge>> last = store_->purges_after(sequence == 0 ? 0 : sequence - 1, 1);
    if (!last) return last.error();
    Purge everything = everything_up_to(sequence);
    if (!last->empty()) everything.at_ns = last->front().at_ns;
    everything.anew = true;
    log_warn("the purge log is another than the one followed up to {}: everything is purged", applied_.purge);
    deliver(everything);
    return {};
  }
  while (applied_.purge < sequence) {
    const Result<std::vector<Purge>> purges = store_->purges_after(applied_.purge, kPurgesAtOnce);
    if (!purges) return purges.error();
    if (purges->empty()) return {};
    for (const Purge& purge : *purges) {
      // The log was trimmed in between.
      if (purge.sequence > applied_.purge + 1) deliver(everything_up_to(purge.sequence - 1));
      deliver(purge);
    }
  }
  return {};
}

// Returns true if the log is the one that contains the plane's last purge. A new log begins at 1, and a log restored
// from a copy goes back. By now either may be past the old number, but the purge with that number was ordered at
// another time.
Result<bool> StateFollower::log_continues(uint64_t sequence) const {
  if (applied_.purge == 0) return true;
  if (sequence < applied_.purge) return false;
  if (purged_at_ns_ == 0) return true;
  const Result<std::vector<Purge>> there = store_->purges_after(applied_.purge - 1, 1);
  if (!there) return there.error();
  // Trimmed: tell_purges() will see the gap.
  if (there->empty() || there->front().sequence != applied_.purge) return true;
  return there->front().at_ns == purged_at_ns_;
}

void StateFollower::deliver(const Purge& purge) {
  if (hooks_.on_purge) hooks_.on_purge(purge);
  applied_.purge = purge.sequence;
  purged_at_ns_ = purge.at_ns;
}

void StateFollower::refuse(std::string why) {
  if (why == refused_) return;
  refused_ = std::move(why);
  log_error("{}; {}", refused_,
            current_ ? fmt::format("version {} stays in force", current_->version) : "nothing is in force yet");
}

// A control that found its state damaged, or a person, replaced the state. The new state counts from now on. While
// there is none, the last known state stays in force.
void StateFollower::look_for_another() {
  struct stat file {};
  if (!store_ || ::stat(data_path().c_str(), &file) != 0 || file.st_ino == inode_) return;
  log_warn("the state in {} was replaced: following the new one", state_dir_);
  store_.reset();
  another_log_ = true;
  tried_ = {};
  live_state_.reset();
  look();
}

}  // namespace

Result<std::unique_ptr<Follower>> Follower::of_state(EventLoop& loop, const std::string& state_dir,
                                                     FollowerHooks hooks) {
  auto follower = std::make_unique<StateFollower>(loop, state_dir, std::move(hooks));
  if (Result<void> started = follower->start(); !started) return started.error();
  return std::unique_ptr<Follower>(std::move(follower));
}

}  // namespace tidegate
