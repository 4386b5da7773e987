// SPDX-License-Identifier: Apache-2.0
// Flight: one fetch in progress, and all its readers. One leader fills it. Clients of any worker wait for its head, and
// then read its body as it arrives.
//
// It holds chunks of the body, oldest first. An object that fits the memory tier is held whole. Of a larger object at
// most kWindowBytes are held: chunks that the writer committed are dropped, and slow readers read them from disk. Where
// nothing goes to disk, chunks are dropped when every reader has passed them. When the window is full, the leader is
// told to pause. So a fast backend is ahead of the disk and of the slowest reader by at most one window. If the other
// readers have waited for a slow reader for Options::laggard_ms, they go on without it. The slow reader ends with an
// error when it needs a chunk that was dropped.
//
// Threads: on_head, append, finish and fail belong to the leader. The others may be called by any worker, reader or
// writer thread. The flight's mutex is never held while a shard's is taken.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "cache/limits.h"
#include "cache/policy/validation.h"
#include "cache/serve/engine.h"
#include "cache/serve/loop_call.h"
#include "conf/model/route.h"
#include "core/mutex.h"

namespace tidegate::cache {

constexpr uint64_t kWorthFinishingBytes = 1 << 20;  // if no more than this is missing, a fetch goes on without readers

class Flight final : public StoreListener, public std::enable_shared_from_this<Flight> {
 public:
  struct Origin {  // the request that the flight is for
    KeyHash key;
    std::string key_text;
    std::string vary;  // distinguishes requests until the head is there
    uint64_t variant = 0;
    bool solo = false;                               // nobody waits for it: its key or place proved uncacheable
    bool background = false;                         // revalidation without a client
    std::shared_ptr<const StoredObject> validating;  // the stored response, if there is one
    Freshness validating_freshness;
  };
  Flight(Engine& engine, Origin origin, const Asker& asker, uint64_t generation);
  ~Flight() override;

  // --- attaching
  enum class Attached : uint8_t { no, waits, follows };
  // `follows`: `found` was filled in. `waits`: the flight keeps the asker's waiter until the head is known.
  Attached attach(Asker& asker, const CacheControl& control, Lookup& found);
  bool is_same_variant(const RequestView& request) const;
  // A waiting client has gone and is forgotten. The leader is told when nobody waits any more.
  void on_waiter_left();
  // The stored object was purged. What arrives is only for clients that read it already, and is not kept. Returns false
  // if the flight was disowned before.
  bool disown();
  bool is_disowned() const;
  bool waiting_for_head() const;

  // --- the leader (Fill)
  Fields conditional_fields() const { return {conditional_.fields.data(), conditional_.count}; }
  bool sends(std::string_view field_name) const;
  FillDecision on_head(const ResponseView& response, uint64_t now_ms);
  FillStep append(std::string_view bytes);
  void on_resume(std::function<void()> fn);
  // Stops waiting for readers that delay the other readers. Call it every laggard_ms while the leader pauses. Returns
  // false if the leader does not pause any more.
  bool drop_laggards();
  bool wanted() const;
  EventLoop& leading_loop() { return *loop_; }
  void finish();
  void fail(FillFailure failure, const char* reason);
  std::optional<Answer> stale_answer(const RequestView& request, uint64_t now_ms, EventLoop& loop) const;
  std::optional<Answer> stale_answer(uint64_t now_ms) const { return stale_answer(request_.view(), now_ms, *loop_); }

  // --- readers (BodyReader)
  uint64_t add_reader(uint64_t position);
  void remove_reader(uint64_t reader);
  // Reads up to `max_bytes` at `position`. `wait`: `call` is notified when more has come. `on_disk`: read the bytes
  // from disk.
  BodyStep read(uint64_t reader, uint64_t position, uint64_t max_bytes, const std::shared_ptr<LoopCall>& call,
                Slice& slice, bool& on_disk);
  std::shared_ptr<DiskBody> disk() const;
  Engine& engine() { return engine_; }

  // --- StoreListener
  void on_chunks_committed(uint32_t chunks) override;
  void on_chunk_given_up() override;
  void on_stored(bool stored) override;

 private:
  enum class State : uint8_t { head, body, whole, passed, failed };
  struct Reader {
    uint64_t id = 0;
    uint64_t position = 0;
    std::shared_ptr<LoopCall> waiting;
    uint64_t behind_since_ns = 0;  // since when it is nearly a window behind; 0: it is not behind
    bool is_waited_for = true;     // its unread bytes are kept
  };
  using Waiters = std::vector<std::shared_ptr<Pending::Waiter>>;

  // flight_head.cc: what a head decides
  FillDecision refuse(Refusal refusal, uint16_t status, uint64_t now_ms);
  void remember_refusal(Scope scope, uint64_t now_ms);
  void release_or_promote(Refusal refusal, Scope scope);
  void release_those_with_authorization(const char* reason);
  FillDecision store(const ResponseView& response, const Freshness& freshness, std::vector<uint64_t> tags,
                     uint64_t now_ms);
  FillDecision freshened(const ResponseView& response, uint64_t now_ms);
  std::shared_ptr<const StoredObject> with_head(std::shared_ptr<const StoredHead> head) const;
  void keep_freshened(std::shared_ptr<const StoredHead> head, const ResponseView& response, uint64_t now_ms);
  void refuse_304(Refusal refusal, uint64_t now_ms);
  FillDecision mismatched(uint64_t now_ms);
  bool validates_fresh(uint64_t now_ms) const;
  FillDecision serve_stale(uint64_t now_ms, const char* reason);
  void set_variant(StoredHead& head);
  void attach_waiters(Waiters& waiters, uint64_t now_ms);
  void release(Waiters& waiters, const char* reason);
  void answer_all(Waiters& waiters, const std::shared_ptr<const StoredObject>& object, const Freshness& freshness,
                  bool stale);
  Waiters take_waiters(State next);
  uint64_t variant() const;
  std::shared_ptr<const StoredHead> head() const;
  // An answer that follows the body. `own`: a head for this client alone; null: the stored head.
  Answer answer(const RequestView& request, uint64_t now_ms, EventLoop& loop,
                std::shared_ptr<const StoredHead> own = nullptr);

  // flight.cc: the body
  void leave_index();
  bool promote_waiter(const char* reason, State if_none);
  void put_bytes(std::string_view bytes) TIDEGATE_REQUIRES(mutex_);
  void seal_tail() TIDEGATE_REQUIRES(mutex_);
  void offer_chunk(uint32_t index, const Slice& slice) TIDEGATE_REQUIRES(mutex_);
  void stop_storing() TIDEGATE_REQUIRES(mutex_);
  void drop_chunks() TIDEGATE_REQUIRES(mutex_);
  void check_laggards() TIDEGATE_REQUIRES(mutex_);
  void wake_readers() TIDEGATE_REQUIRES(mutex_);
  bool is_wanted() const TIDEGATE_REQUIRES(mutex_);
  bool is_awaited() const TIDEGATE_REQUIRES(mutex_);
  uint64_t held_bytes() const TIDEGATE_REQUIRES(mutex_);
  void count_in(uint64_t bytes) TIDEGATE_REQUIRES(mutex_);
  void count_out(uint64_t bytes) TIDEGATE_REQUIRES(mutex_);
  bool fits_in_memory() const TIDEGATE_REQUIRES(mutex_) { return total_ <= kMaxResidentBytes; }
  void publish_whole();

  Engine& engine_;
  const std::shared_ptr<FillBudget> fills_;
  const KeyHash key_;
  const std::string key_text_;
  const uint64_t generation_;
  const bool solo_;

  // Belongs to the leader. Changed only when leadership passes.
  bool background_;        // the fetch has no client
  unsigned refusals_ = 0;  // number of answers so far that only the asking client may have
  OwnedRequest request_;
  RouteCache policy_;
  EventLoop* loop_;
  std::shared_ptr<const StoredObject> validating_;
  Freshness validating_freshness_;
  ConditionalFields conditional_;
  uint64_t received_ms_ = 0;

  mutable Mutex mutex_;
  State state_ TIDEGATE_GUARDED_BY(mutex_) = State::head;
  std::string vary_ TIDEGATE_GUARDED_BY(mutex_);
  uint64_t variant_ TIDEGATE_GUARDED_BY(mutex_) = 0;
  bool attachable_ TIDEGATE_GUARDED_BY(mutex_) = true;
  bool disowned_ TIDEGATE_GUARDED_BY(mutex_) = false;
  Waiters waiters_ TIDEGATE_GUARDED_BY(mutex_);
  std::shared_ptr<const StoredHead> head_ TIDEGATE_GUARDED_BY(mutex_);
  std::deque<Slice> chunks_ TIDEGATE_GUARDED_BY(mutex_);  // full chunks, from index first_chunk_
  uint32_t first_chunk_ TIDEGATE_GUARDED_BY(mutex_) = 0;
  std::shared_ptr<char[]> tail_ TIDEGATE_GUARDED_BY(mutex_);  // the chunk that is being filled
  size_t tail_bytes_ TIDEGATE_GUARDED_BY(mutex_) = 0;
  size_t tail_capacity_ TIDEGATE_GUARDED_BY(mutex_) = 0;
  uint64_t counted_bytes_ TIDEGATE_GUARDED_BY(mutex_) = 0;  // counted in the engine's fill budget
  uint64_t total_ TIDEGATE_GUARDED_BY(mutex_) = 0;
  bool to_disk_ TIDEGATE_GUARDED_BY(mutex_) = false;
  std::shared_ptr<DiskBody> disk_ TIDEGATE_GUARDED_BY(mutex_);
  uint32_t committed_chunks_ TIDEGATE_GUARDED_BY(mutex_) = 0;
  std::vector<Reader> readers_ TIDEGATE_GUARDED_BY(mutex_);
  uint64_t next_reader_ TIDEGATE_GUARDED_BY(mutex_) = 1;
  bool paused_ TIDEGATE_GUARDED_BY(mutex_) = false;
  std::shared_ptr<LoopCall> resume_ TIDEGATE_GUARDED_BY(mutex_);
};

}  // namespace tidegate::cache
