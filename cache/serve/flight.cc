// SPDX-License-Identifier: Apache-2.0
// The body of a flight: filling, following, dropping chunks, ending.
#include "cache/serve/flight.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "cache/policy/fields.h"
#include "core/assert.h"
#include "core/clock.h"

namespace tidegate::cache {

Flight::Flight(Engine& engine, Origin origin, const Asker& asker, uint64_t generation)
    : engine_(engine),
      fills_(engine.fills),
      key_(origin.key),
      key_text_(std::move(origin.key_text)),
      generation_(generation),
      solo_(origin.solo),
      background_(origin.background),
      request_(asker.request, origin.background ? &origin.vary : nullptr),
      policy_(asker.policy),
      loop_(&asker.loop),
      validating_(std::move(origin.validating)),
      validating_freshness_(origin.validating_freshness),
      vary_(std::move(origin.vary)),
      variant_(origin.variant) {
  if (validating_ != nullptr) conditional_ = cache::conditional_fields(*validating_->head);
}

Flight::~Flight() { fills_->remove(counted_bytes_); }

void Flight::count_in(uint64_t bytes) {
  counted_bytes_ += bytes;
  fills_->add(bytes);
}

void Flight::count_out(uint64_t bytes) {
  TIDEGATE_ASSERT(counted_bytes_ >= bytes, "a flight gives back more than it counted");
  counted_bytes_ -= bytes;
  fills_->remove(bytes);
}

bool Flight::waiting_for_head() const {
  const MutexLock lock(mutex_);
  return state_ == State::head;
}

bool Flight::sends(std::string_view field_name) const {
  return !background_ || !is_credential(field_name) || find_field(request_.view().fields, field_name) != nullptr;
}

std::shared_ptr<DiskBody> Flight::disk() const {
  const MutexLock lock(mutex_);
  return disk_;
}

uint64_t Flight::variant() const {
  const MutexLock lock(mutex_);
  return variant_;
}

std::shared_ptr<const StoredHead> Flight::head() const {
  const MutexLock lock(mutex_);
  return head_;
}

// --- the leader

FillStep Flight::append(std::string_view bytes) {
  const MutexLock lock(mutex_);
  if (state_ != State::body) return FillStep::stop;
  put_bytes(bytes);
  if (total_ > engine_.options.max_object_bytes) stop_storing();
  wake_readers();
  if (!is_wanted()) return FillStep::stop;
  drop_chunks();
  check_laggards();
  paused_ = held_bytes() > fills_->window_bytes();
  return paused_ ? FillStep::pause : FillStep::more;
}

void Flight::put_bytes(std::string_view bytes) {
  while (!bytes.empty()) {
    if (tail_ == nullptr) {
      const uint64_t expected =
          head_->body_bytes == UINT64_MAX || head_->body_bytes <= total_ ? kChunkBytes : head_->body_bytes - total_;
      tail_capacity_ = static_cast<size_t>(std::min<uint64_t>(kChunkBytes, expected));
      tail_.reset(new char[tail_capacity_]);
      count_in(tail_capacity_);
    }
    const size_t n = std::min(bytes.size(), tail_capacity_ - tail_bytes_);
    TIDEGATE_ASSERT(n <= tail_capacity_ - tail_bytes_, "a piece must fit into the chunk");
    std::memcpy(tail_.get() + tail_bytes_, bytes.data(), n);  // readers were given only bytes before this position
    tail_bytes_ += n;
    total_ += n;
    bytes.remove_prefix(n);
    if (tail_bytes_ == kChunkBytes)
      seal_tail();
    else if (tail_bytes_ == tail_capacity_ && !bytes.empty())
      seal_tail();  // longer than announced: finish() will refuse it
  }
}

void Flight::seal_tail() {
  if (tail_bytes_ == 0) return;
  TIDEGATE_ASSERT(tail_bytes_ <= kChunkBytes, "a chunk has a bounded size");
  Slice slice{tail_, {tail_.get(), tail_bytes_}};
  const auto index = first_chunk_ + static_cast<uint32_t>(chunks_.size());
  chunks_.push_back(slice);
  tail_ = nullptr;
  tail_bytes_ = tail_capacity_ = 0;
  offer_chunk(index, slice);
}

void Flight::offer_chunk(uint32_t index, const Slice& slice) {
  if (!to_disk_) return;
  if (engine_.writer().offer({disk_, index, slice, shared_from_this()})) return;
  engine_.counters.queue_full.add();
  stop_storing();
}

// From now on no chunk goes to disk. Chunks that are on the disk stay there for slow readers, and are erased at the end
// of the flight.
void Flight::stop_storing() {
  if (!to_disk_) return;
  TIDEGATE_ASSERT(disk_ != nullptr, "what goes to disk has a disk body");
  to_disk_ = false;
  disk_->doomed.store(true, std::memory_order_release);
}

uint64_t Flight::held_bytes() const { return chunks_.size() * kChunkBytes + tail_bytes_; }

// While more than half of the window is held, drops chunks that are on disk. If nothing goes to disk, drops chunks that
// every reader has passed.
void Flight::drop_chunks() {
  const uint64_t window = fills_->window_bytes();
  while (!chunks_.empty() && held_bytes() > window / 2) {
    const uint64_t end = (uint64_t{first_chunk_} + 1) * kChunkBytes;
    const bool on_disk = disk_ != nullptr && first_chunk_ < committed_chunks_;
    const bool passed = std::all_of(readers_.begin(), readers_.end(),
                                    [end](const Reader& r) { return r.position >= end || !r.is_waited_for; });
    if (!on_disk && (to_disk_ || !passed)) break;
    if (!on_disk) attachable_ = false;  // its beginning is gone
    count_out(chunks_.front().bytes.size());
    chunks_.pop_front();
    ++first_chunk_;
  }
  if (paused_ && held_bytes() <= window && resume_ != nullptr) {
    paused_ = false;
    resume_->notify();
  }
}

// A reader that is nearly a window behind makes others wait, if there are others near the end.
void Flight::check_laggards() {
  if (to_disk_) return;
  const uint64_t now_ns = monotonic_ns();
  const uint64_t window = fills_->window_bytes();
  const uint64_t patience_ns = engine_.options.laggard_ms * kNsPerMs;
  const auto lag = [total = total_](const Reader& r) { return total - std::min(total, r.position); };
  const bool others_wait =
      std::any_of(readers_.begin(), readers_.end(), [&](const Reader& r) { return lag(r) <= window / 4; });
  for (Reader& reader : readers_) {
    const bool is_behind = lag(reader) > window / 4 * 3;
    if (!is_behind) {
      reader.behind_since_ns = 0;
    } else if (reader.behind_since_ns == 0) {
      reader.behind_since_ns = now_ns;
    } else if (reader.is_waited_for && others_wait && held_bytes() > window &&
               now_ns - reader.behind_since_ns >= patience_ns) {
      reader.is_waited_for = false;
      engine_.counters.laggards.add();
    }
  }
  drop_chunks();
}

bool Flight::drop_laggards() {
  const MutexLock lock(mutex_);
  if (paused_) check_laggards();
  return paused_;
}

void Flight::wake_readers() {
  for (Reader& reader : readers_) {
    if (reader.waiting == nullptr) continue;
    reader.waiting->notify();
    reader.waiting = nullptr;
  }
}

bool Flight::wanted() const {
  const MutexLock lock(mutex_);
  if (state_ == State::head) return is_awaited();
  return state_ != State::body || is_wanted();
}

// True if a client other than the leader's waits for the head, or if the fetch is for the cache itself.
bool Flight::is_awaited() const {
  return background_ ||
         std::any_of(waiters_.begin(), waiters_.end(), [](const auto& w) { return w->loop() != nullptr; });
}

// True if a client reads the flight or waits for it, or if the object will be stored and is nearly complete.
bool Flight::is_wanted() const {
  const uint64_t first_held = uint64_t{first_chunk_} * kChunkBytes;
  const auto can_go_on = [first_held](const Reader& r) { return r.is_waited_for || r.position >= first_held; };
  if (background_ || std::any_of(readers_.begin(), readers_.end(), can_go_on) || !waiters_.empty()) return true;
  if (disowned_ || !(to_disk_ || fits_in_memory())) return false;
  if (head_->body_bytes == UINT64_MAX) return total_ <= kWorthFinishingBytes;
  const uint64_t missing = head_->body_bytes - std::min(total_, head_->body_bytes);
  return missing <= std::max(kWorthFinishingBytes, total_);
}

void Flight::on_resume(std::function<void()> fn) {
  const MutexLock lock(mutex_);
  if (resume_ != nullptr) resume_->cancel();
  resume_ = std::make_shared<LoopCall>(*loop_, std::move(fn));
}

void Flight::finish() {
  bool is_short = false;
  {
    const MutexLock lock(mutex_);
    if (resume_ != nullptr) resume_->cancel();
    if (state_ != State::body) return;
    is_short = head_->body_bytes != UINT64_MAX && head_->body_bytes != total_;
    if (!is_short) {
      seal_tail();
      state_ = State::whole;
      if (head_->body_bytes == UINT64_MAX) {  // readers keep the head without length; the object gets one with it
        auto head = std::make_shared<StoredHead>(*head_);
        head->body_bytes = total_;
        index_head(*head, received_ms_);
        head_ = std::move(head);
      }
      wake_readers();
    }
  }
  if (is_short) return fail(FillFailure::backend_failed, "length-mismatch");
  publish_whole();
}

// A small object goes into the index at once, and to disk later. A large one goes into the index when it is on disk;
// until then requests attach to the flight.
void Flight::publish_whole() {
  std::shared_ptr<const StoredObject> object;
  std::shared_ptr<DiskBody> disk;
  PutMeta put;
  uint64_t variant = 0;
  bool leave = false;
  {
    const MutexLock lock(mutex_);
    variant = variant_;
    if (to_disk_ && !disowned_) {
      disk = disk_;
      put = {key_, variant_, head_, received_ms_, disk_, nullptr, shared_from_this(), false};
    }
    if (fits_in_memory() && !disowned_ && first_chunk_ == 0) {
      object = std::make_shared<StoredObject>(StoredObject{head_, {chunks_.begin(), chunks_.end()}, nullptr, true});
    }
    leave = object != nullptr || disk == nullptr;
    if (disk == nullptr) stop_storing();
  }
  if (object != nullptr) {
    engine_.counters.stored_memory.add();
    engine_.publish(*this, key_, variant, object, disk);
  }
  if (leave) leave_index();
  put.object = std::move(object);
  if (disk != nullptr) engine_.writer().submit(std::move(put));
}

void Flight::on_chunks_committed(uint32_t chunks) {
  const MutexLock lock(mutex_);
  TIDEGATE_ASSERT(chunks <= first_chunk_ + chunks_.size(), "only chunks that exist are committed");
  committed_chunks_ = std::max(committed_chunks_, chunks);
  drop_chunks();
}

// The held chunks were meant for the disk. From here on the slowest reader limits the backend's speed.
void Flight::on_chunk_given_up() {
  const MutexLock lock(mutex_);
  stop_storing();
  drop_chunks();
}

void Flight::on_stored(bool stored) {
  std::shared_ptr<const StoredObject> object;
  std::shared_ptr<DiskBody> disk;
  uint64_t variant = 0;
  bool small = false;
  {
    const MutexLock lock(mutex_);
    small = fits_in_memory();
    disk = disk_;
    variant = variant_;
    if (!small && stored) object = std::make_shared<StoredObject>(StoredObject{head_, {}, disk_, false});
    if (!small && !stored) disk_->doomed.store(true, std::memory_order_release);
  }
  if (small && !stored) engine_.disk_copy_lost(key_, variant, disk.get());
  if (object != nullptr)
    engine_.publish(*this, key_, variant, object, disk);  // if disowned meanwhile, publish erases it
  if (!small) leave_index();
}

void Flight::leave_index() {
  Shard& shard = engine_.index.shard(key_);
  const MutexLock lock(shard.mutex);
  shard.erase_flight(key_, this);
}

bool Flight::is_disowned() const {
  const MutexLock lock(mutex_);
  return disowned_;
}

bool Flight::disown() {
  const MutexLock lock(mutex_);
  attachable_ = false;
  return !std::exchange(disowned_, true);
}

void Flight::fail(FillFailure failure, const char* reason) {
  bool before_head = false;
  {
    const MutexLock lock(mutex_);
    if (resume_ != nullptr) resume_->cancel();
    if (state_ != State::head && state_ != State::body) return;
    before_head = state_ == State::head;
    if (!before_head) {
      state_ = State::failed;
      stop_storing();
      wake_readers();
    }
  }
  if (!before_head) {
    engine_.counters.abandoned.add();
    leave_index();
  } else if (failure == FillFailure::leader_gone ||
             (failure == FillFailure::backend_broke_off && ++refusals_ < kMaxRefusals)) {
    promote_waiter(reason, State::failed);
  } else {
    leave_index();
    Waiters waiters = take_waiters(State::failed);
    for (const auto& waiter : waiters) {
      Lookup found;
      found.outcome = LookupOutcome::failed;
      found.status.forward = Forward::miss;
      found.status.collapsed = true;
      found.status.detail = reason;
      EventLoop* loop = waiter->loop();
      if (loop == nullptr) continue;
      if (auto stale = stale_answer(waiter->request.view(), waiter->now_ms(), *loop)) {
        found.outcome = LookupOutcome::stale;
        found.answer = std::move(*stale);
        found.status.hit = true;
      }
      waiter->deliver(std::move(found));
    }
  }
}

// Makes a waiter the leader. If there is none left, the flight ends as `if_none`.
bool Flight::promote_waiter(const char* reason, State if_none) {
  std::shared_ptr<Pending::Waiter> next;
  EventLoop* loop = nullptr;
  {
    const MutexLock lock(mutex_);
    while (!waiters_.empty() && loop == nullptr) {
      next = waiters_.front();
      waiters_.erase(waiters_.begin());
      loop = next->loop();
    }
    if (loop == nullptr) state_ = if_none;
  }
  if (loop == nullptr) {
    leave_index();
    return false;
  }
  engine_.counters.promoted.add();
  background_ = false;
  request_ = OwnedRequest(next->request.view());
  policy_ = next->policy;
  loop_ = loop;
  Lookup found;
  found.outcome = LookupOutcome::fetch;
  found.status.forward = validating_ != nullptr ? Forward::stale : Forward::uri_miss;
  found.status.detail = reason;
  found.fill = Fill(shared_from_this());
  next->deliver(std::move(found));
  return true;
}

// --- readers

uint64_t Flight::add_reader(uint64_t position) {
  const MutexLock lock(mutex_);
  readers_.push_back({next_reader_, position, nullptr, 0, true});
  return next_reader_++;
}

void Flight::remove_reader(uint64_t reader) {
  const MutexLock lock(mutex_);
  std::erase_if(readers_, [reader](const Reader& r) { return r.id == reader; });
  drop_chunks();
  // The last reader has gone. Wakes the leader, so that it calls wanted() now, and not when the backend sends more.
  if (state_ == State::body && !is_wanted() && resume_ != nullptr) {
    paused_ = false;
    resume_->notify();
  }
}

BodyStep Flight::read(uint64_t reader, uint64_t position, uint64_t max_bytes, const std::shared_ptr<LoopCall>& call,
                      Slice& slice, bool& on_disk) {
  const MutexLock lock(mutex_);
  on_disk = false;
  const auto self =
      std::find_if(readers_.begin(), readers_.end(), [reader](const Reader& r) { return r.id == reader; });
  if (position >= total_) {
    if (state_ == State::whole) return BodyStep::end;
    if (state_ != State::body) return BodyStep::error;
    if (self != readers_.end()) self->waiting = call;
    return BodyStep::wait;
  }
  TIDEGATE_ASSERT(max_bytes > 0, "a reader asks for bytes");
  const auto index = static_cast<uint32_t>(position / kChunkBytes);
  const size_t offset = position % kChunkBytes;
  if (index < first_chunk_) {
    on_disk = disk_ != nullptr && index < committed_chunks_;
    return on_disk ? BodyStep::wait : BodyStep::error;
  }
  const bool in_tail = index - first_chunk_ >= chunks_.size();
  const Slice whole = in_tail ? Slice{tail_, {tail_.get(), tail_bytes_}} : chunks_[index - first_chunk_];
  TIDEGATE_ASSERT(offset < whole.bytes.size(), "a position before the end lies in its chunk");
  slice = {whole.owner,
           whole.bytes.substr(offset, static_cast<size_t>(std::min<uint64_t>(max_bytes, whole.bytes.size() - offset)))};
  if (self != readers_.end()) self->position = position + slice.bytes.size();
  if (paused_) drop_chunks();
  return BodyStep::data;
}

}  // namespace tidegate::cache
