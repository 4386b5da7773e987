// SPDX-License-Identifier: Apache-2.0
// Flight: one fetch under way, and everybody who reads what it brings. One leader fills it; clients of any worker wait
// for its head and then follow its body as it arrives.
//
// What it holds: chunks of the body, oldest first. Of an object small enough for the memory tier all of them; of a
// larger one at most kWindowBytes: chunks that the writer has committed are let go and read back from disk by those who
// lag, and where nothing goes to disk they are let go when every reader has passed them. Beyond the window the leader
// is told to pause, so a fast backend never outruns both the disk and the slowest reader by more than that. A reader
// for whom others, who have read all there is, have waited so for Options::laggard_ms is waited for no longer: it ends
// with an error once what it needs is gone.
//
// Threads: on_head, append, finish and fail are the leader's; everything else may come from any worker, reader or
// writer thread. The mutex is never held while a shard's is taken.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cache/engine.h"
#include "cache/limits.h"
#include "cache/loop_call.h"
#include "cache/validation.h"

namespace tidegate::cache {

constexpr uint64_t kWorthFinishingBytes = 1 << 20;  // what may still come of an object nobody reads any more

class Flight final : public StoreListener, public std::enable_shared_from_this<Flight> {
 public:
  struct Origin {  // what the flight is for
    KeyHash key;
    std::string key_text;
    std::string vary;  // by which requests are told apart until the head says it
    uint64_t variant = 0;
    bool solo = false;                               // nobody waits for it: its key or place proved uncacheable
    bool background = false;                         // revalidation without a client
    std::shared_ptr<const StoredObject> validating;  // the stored response, if there is one
    Freshness validating_freshness;
  };
  Flight(Engine& engine, Origin origin, const Asker& asker, uint64_t generation);
  ~Flight() override;

  // --- joining
  enum class Joined : uint8_t { no, waits, follows };
  // `follows`: `found` was filled in. `waits`: asker's waiter is kept until the head is known.
  Joined join(Asker& asker, const CacheControl& control, Lookup& found);
  bool is_same_variant(Fields request_fields) const;
  // The stored object it would replace was purged: what arrives is for those who read it already, and is not kept.
  // False: that was known.
  bool disown();
  bool is_disowned() const;
  bool waiting_for_head() const;

  // --- the leader (Fill)
  Fields conditional_fields() const { return {conditional_.fields.data(), conditional_.count}; }
  bool sends(std::string_view field_name) const;
  FillDecision on_head(const ResponseView& response, uint64_t now_ms);
  FillStep append(std::string_view bytes);
  void on_resume(std::function<void()> fn);
  // Looks for readers that hold up the others; to be called every laggard_ms while the leader pauses. False: it does
  // not pause any more.
  bool give_up_laggards();
  bool wanted() const;
  EventLoop& leading_loop() { return *loop_; }
  void finish();
  void fail(FillFailure failure, const char* reason);
  std::optional<Answer> stale_answer(const RequestView& request, uint64_t now_ms, EventLoop& loop) const;
  std::optional<Answer> stale_answer(uint64_t now_ms) const { return stale_answer(request_.view(), now_ms, *loop_); }

  // --- readers (BodyReader)
  uint64_t attach(uint64_t position);
  void detach(uint64_t reader);
  // Up to `max_bytes` at `position`. `wait`: `call` is notified when more has come. `on_disk`: they must be read from
  // there.
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
    uint64_t behind_since_ns = 0;  // nearly a window behind ever since; 0: it is not
    bool is_waited_for = true;     // what it has not read yet is kept
  };
  using Waiters = std::vector<std::shared_ptr<Pending::Waiter>>;

  // flight_head.cc: what becomes of a head
  FillDecision refuse(Refusal refusal, uint16_t status, uint64_t now_ms);
  void learn(Scope scope, uint64_t now_ms);
  void let_go_on(Refusal refusal, Scope scope);
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
  void adopt_variant(StoredHead& head);
  void hand_out(Waiters& waiters, uint64_t now_ms);
  void release(Waiters& waiters, const char* reason);
  void answer_all(Waiters& waiters, const std::shared_ptr<const StoredObject>& object, const Freshness& freshness,
                  bool stale);
  Waiters take_waiters(State next);
  // Follows the body. `own`: the head for this client alone; null: the one that is stored.
  Answer answer(const RequestView& request, uint64_t now_ms, EventLoop& loop,
                std::shared_ptr<const StoredHead> own = nullptr);

  // flight.cc: the body
  void leave_index();
  bool promote_waiter(const char* reason, State if_none);
  void put_bytes(std::string_view bytes);
  void seal_tail();
  void offer_chunk(uint32_t index, const Slice& slice);
  void stop_storing();
  void let_go();
  void judge_laggards();
  void wake_readers();
  bool is_wanted() const;
  uint64_t held_bytes() const;
  void count_in(uint64_t bytes);
  void count_out(uint64_t bytes);
  bool fits_in_memory() const { return total_ <= kMaxResidentBytes; }
  void publish_whole();

  Engine& engine_;
  const std::shared_ptr<FillBudget> fills_;
  const KeyHash key_;
  const std::string key_text_;
  const uint64_t generation_;
  const bool solo_;

  // The leader's: changed only between heads, when leadership passes.
  bool background_;        // it has no client
  unsigned refusals_ = 0;  // answers so far that could be for nobody but who asked
  OwnedRequest request_;
  RouteCache policy_;
  EventLoop* loop_;
  std::shared_ptr<const StoredObject> validating_;
  Freshness validating_freshness_;
  ConditionalFields conditional_;
  uint64_t received_ms_ = 0;

  mutable std::mutex mutex_;  // guards all below
  State state_ = State::head;
  std::string vary_;
  uint64_t variant_ = 0;
  bool joinable_ = true;
  bool disowned_ = false;
  Waiters waiters_;
  std::shared_ptr<const StoredHead> head_;
  std::deque<Slice> chunks_;  // full ones, from index first_chunk_
  uint32_t first_chunk_ = 0;
  std::shared_ptr<char[]> tail_;  // the chunk being filled
  size_t tail_bytes_ = 0, tail_capacity_ = 0;
  uint64_t counted_bytes_ = 0;  // of the engine's fill budget
  uint64_t total_ = 0;
  bool to_disk_ = false;
  std::shared_ptr<DiskBody> disk_;
  uint32_t committed_chunks_ = 0;
  std::vector<Reader> readers_;
  uint64_t next_reader_ = 1;
  bool paused_ = false;
  std::shared_ptr<LoopCall> resume_;
};

}  // namespace tidegate::cache
