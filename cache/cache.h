// SPDX-License-Identifier: Apache-2.0
// Cache: the facade that proxy workers use. One instance a process, shared by all workers; every method may be called
// from any worker's thread and none blocks on disk or on another transaction.
//
// One request's way:
//
//   auto found = cache.lookup(request, route.cache, realtime_ms, loop, on_found);
//     bypass   -> ask a backend, stream to the client; the cache is out of it
//     hit      -> found.answer: send it
//     stale    -> found.answer: send it; if found.fill holds a ticket, *also* fetch in the background with it
//     lead     -> you fetch for everybody: found.fill (below)
//     join     -> found.answer follows another transaction's fetch as it arrives: send it like a hit
//     refuse   -> only-if-cached and nothing usable: 504 (RFC 9111 §5.2.1.7)
//     failed   -> the transaction that led could not reach a backend: answer 502/504, found.status.detail says why
//     pending  -> keep found.pending; on_found brings one of the above on your loop
//
//   Leading. The fetch and the leader's client are two things: the fetch fills, clients read. Strip from the backend
//   request the client's Range and conditional fields and add fill.conditional_fields(). Then
//     fill.on_head(response)  -> store:     read the body for your client from decision.answer; append() what arrives,
//     then finish()
//                                pass:      not storable: stream to your client yourself; the Fill is spent
//                                freshened: 304 for our stored response: send decision.answer; the Fill is spent.
//                                `reason`: why what it said is not kept for others
//                                serve_stale: a 5xx, and stale-if-error allows the stored one: send decision.answer;
//                                spent
//     fill.append(bytes)      -> more | pause (stop reading the backend until on_resume is called) | stop (nobody wants
//     it: abort) fill.finish() | fill.fail(...)
//   A Fill that is destroyed unfinished fails by itself (leader_gone): a waiter is promoted to lead if the head had not
//   come. When the leader's client goes away, drop its answer and go on filling while append() says more.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/body.h"
#include "cache/message.h"
#include "cache/status.h"
#include "cache/stored.h"
#include "conf/model.h"
#include "conf/state_store.h"
#include "core/event_loop.h"
#include "core/metrics.h"
#include "core/result.h"

namespace tidegate::cache {

struct Options {
  std::string directory;  // the LMDB environment, created if absent; empty: memory only
  uint64_t disk_bytes = uint64_t{1} << 30;
  uint64_t ram_bytes = uint64_t{64} << 20;
  uint64_t max_object_bytes = uint64_t{256} << 20;
  uint64_t writer_queue_bytes = uint64_t{64} << 20;  // waiting for the writer; beyond it responses are not stored
  uint64_t commit_bytes = uint64_t{8} << 20;         // a transaction commits at this size ...
  uint64_t commit_interval_ms = 150;                 // ... or at this age
  unsigned reader_threads = 2;
  // Where nothing goes to disk, readers of one fetch wait that long for the slowest of them, then go on without it.
  uint64_t laggard_ms = 5'000;
};
Options make_options(const CacheNode& node, const std::string& state_dir);

// What to send to the client. Move-only.
struct Answer {
  std::shared_ptr<const StoredHead> head;
  uint16_t status = 0;  // the stored one; or 206, 304, 416 as the request's own conditions and Range decide
  uint64_t age_s = 0;   // the Age field (RFC 9111 §5.1)
  std::optional<uint64_t>
      content_length;  // of what `body` gives; absent: not known yet, send chunked or by DATA frames
  ByteRange range;     // what of the body, when status is 206
  BodyReader body;     // end at once for HEAD, 304 and 416
};

// Calls fn(name, value) for each field of the answer: the stored ones that this status may carry, content-length,
// content-range, age. The caller adds its own (Cache-Status, X-Request-Id, Connection, Transfer-Encoding).
void for_each_field(const Answer& answer, const std::function<void(std::string_view name, std::string_view value)>& fn);

enum class FillFailure : uint8_t {
  leader_gone,     // the leader stops for reasons of its own: a waiter takes over
  backend_failed,  // no backend answered: waiters are answered at once (stale if allowed, else `failed`)
  // One was asked and broke off without an answer, which this one request may have provoked: before the head a waiter
  // takes over, and only when it meets the same the others are told.
  backend_broke_off,
};

enum class FillStep : uint8_t {
  more,
  pause,  // readers or the writer are behind by the flight's bound: on_resume will be called
  stop,   // nobody reads and it is not worth finishing, or it grew past max_object_bytes with no reader
};

struct FillDecision {
  enum class Kind : uint8_t { store, pass, freshened, serve_stale };
  Kind kind = Kind::pass;
  const char* reason = "";  // why not storable: a token for Cache-Status detail and the metrics
  std::optional<Answer>
      answer;  // store, freshened, serve_stale: for the leader's own client (absent for a background fetch)
  std::optional<int64_t> ttl_s;  // of what was stored
};

// The right and duty to fetch one response for everybody who waits for it. Move-only; belongs to the leading loop's
// thread.
class Fill {
 public:
  Fill();
  Fill(Fill&&) noexcept;
  Fill& operator=(Fill&&) noexcept;
  ~Fill();  // unfinished: fail(leader_gone)
  explicit operator bool() const { return flight_ != nullptr; }

  // If-None-Match / If-Modified-Since from the stored response, when there is one to validate (RFC 9111 §4.3.1); or
  // nothing. The views live as long as the Fill.
  Fields conditional_fields() const;
  // Whether the request may carry that field of the client's. What is fetched in the background is for everybody: it
  // carries no credentials (Authorization, Cookie), except those that the stored response's Vary selects it by.
  bool sends(std::string_view field_name) const;

  // Once, with the final (not 1xx) response head. Decides whether it may be stored and tells every waiter.
  FillDecision on_head(const ResponseView& response, uint64_t now_ms);
  FillStep append(std::string_view bytes);
  // `fn` is called when the leader may read on, and when the last reader has left: ask wanted() then.
  void on_resume(std::function<void()> fn);
  // False: nobody reads any more and it is not worth finishing. Drop the Fill.
  bool wanted() const;
  // Complete: the body is whole as its framing said. Publishes the object.
  void finish();
  // `reason` for log and Cache-Status detail. Readers of an arrived head get BodyStep::error.
  void fail(FillFailure failure, const char* reason);
  // The stale response that stale-if-error permits when no backend can be reached: ask before fail(backend_failed).
  std::optional<Answer> stale_answer(uint64_t now_ms);

 private:
  friend class Engine;
  friend class Flight;
  explicit Fill(std::shared_ptr<Flight> flight);
  void abandon();
  class LaggardWatch;
  std::unique_ptr<LaggardWatch> watch_;  // made by the first pause
  std::shared_ptr<Flight> flight_;
};

// Keeps an unanswered lookup alive: destroying it (the client went away) guarantees that on_found is not called.
class Pending {
 public:
  struct Waiter;
  Pending() = default;
  explicit Pending(std::shared_ptr<Waiter> waiter) : waiter_(std::move(waiter)) {}
  Pending(Pending&&) noexcept = default;
  Pending& operator=(Pending&& other) noexcept;
  ~Pending();
  explicit operator bool() const { return waiter_ != nullptr; }

 private:
  friend class Engine;
  void cancel();
  void release() { waiter_ = nullptr; }  // the waiter lives on with another Pending
  std::shared_ptr<Waiter> waiter_;
};

enum class Outcome : uint8_t { bypass, hit, stale, lead, join, refuse, failed, pending };
const char* name(Outcome outcome);

struct Lookup {
  Outcome outcome = Outcome::bypass;
  CacheStatus status;  // complete for hit and stale; the caller adds forward_status and stored otherwise
  Answer answer;       // hit, stale, join
  Fill fill;           // lead; and stale when the caller is the one who must revalidate
  Pending pending;     // pending
};
using OnFound = std::function<void(Lookup)>;

struct Explanation {
  Outcome outcome = Outcome::bypass;
  CacheStatus status;
  std::string key;
  std::optional<uint64_t> age_s;
};

class Cache {
 public:
  // Returns while the index is still being read from disk: an object not read yet is a miss. An environment that cannot
  // be used is set aside and a new one made; where none can be had, because another process uses the directory or for
  // any other reason, the cache works from memory alone and says so (log, Totals, tidegate_cache_disk_working).
  // Errors: only nonsensical options.
  static Result<std::unique_ptr<Cache>> open(const Options& options, Metrics& metrics);
  ~Cache();  // after the last worker's last transaction; commits what is queued

  // `now_ms`: realtime. `on_found` is called at most once, on `loop`, only after `pending` was returned; what it is
  // given is never pending. `request` and `policy` need not outlive the call.
  Lookup lookup(const RequestView& request, const RouteCache& policy, uint64_t now_ms, EventLoop& loop,
                OnFound on_found);

  // After a backend answered an unsafe request: RFC 9111 §4.4 (the target, and Location and Content-Location of the
  // same host).
  void invalidate(const RequestView& request, const RouteCache& policy, const ResponseView& response);

  // In force for lookups when it returns, durable with the writer's next commit. Sequences that were applied before are
  // ignored. A url purge names "scheme://host/path?query" and takes every variant; of `keys` too, which are the names
  // that its routes' query options and its other spellings give it.
  void purge(const Purge& purge, const std::vector<std::string>& keys = {});
  // Where a plane's follower resumes (PlaneHooks::prepare): the last sequence that is durable.
  PurgePosition last_applied_purge() const;

  // What lookup() would do now, changing nothing.
  Explanation explain(const RequestView& request, const RouteCache& policy, uint64_t now_ms) const;

  struct Totals {
    uint64_t objects = 0, ram_bytes = 0, disk_bytes = 0, writer_queue_bytes = 0;
    bool loading = false;
    // That there is no disk tier though one is wanted, or that it is frozen, and why. Empty: nothing is wrong.
    std::string disk_trouble;
    uint64_t fill_bytes = 0;  // of bodies that arrive
  };
  Totals totals() const;
  // Returns when everything queued so far is committed (tests, orderly shutdown).
  void flush();
  // Returns when the index has been read from disk.
  void wait_loaded();

 private:
  Cache();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidegate::cache
