// SPDX-License-Identifier: Apache-2.0
// Cache: what a proxy worker uses. One instance serves all workers of a process. Every method may be called from any
// worker's thread. None waits for the disk or for another transaction.
//
// clang-format off
// A request asks with lookup(request, route.cache, realtime_ms, loop, on_found). The outcome says what to do:
//   bypass   ask a backend and stream its answer to the client; the cache takes no part
//   hit      send found.answer
//   stale    send found.answer; if found.fill is set, also fetch in the background with it
//   fetch    fetch for everybody who waits, with found.fill (see below)
//   attach   send found.answer; it follows the body of another transaction's fetch as it arrives
//   refuse   answer 504: the request says only-if-cached and nothing usable is stored (RFC 9111 §5.2.1.7)
//   failed   answer 502 or 504: another transaction's fetch reached no backend; found.status.detail says why
//   wait     keep found.pending; on_found brings one of the other outcomes on your loop
//
// The one that fetches is the leader. Its fetch fills the cache; clients, its own included, read from the cache. The
// leader drops its client's Range and conditional fields from the backend request and adds fill.conditional_fields().
//   fill.on_head(response) decides:
//     store        read your client's body from decision.answer; append() what arrives; then finish()
//     pass         not storable: stream to your client yourself; the Fill is used up
//     freshened    304 for the stored response: send decision.answer; the Fill is used up
//                  (`reason` says why the 304 was not kept for others)
//     serve_stale  a 5xx, and stale-if-error allows the stored response: send decision.answer; the Fill is used up
//   fill.append(bytes) says:
//     more         go on
//     pause        stop reading the backend until on_resume is called
//     stop         nobody wants it any more: end the fetch
//   fill.finish() or fill.fail(...) ends it.
// clang-format on
//
// A Fill that is destroyed unfinished fails with leader_gone: if the head had not come, a waiter becomes the leader.
// When the leader's client goes away, the leader drops its answer and goes on while wanted() is true.
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
#include "conf/model/node.h"
#include "conf/model/route.h"
#include "conf/policy/compress.h"
#include "conf/state_store.h"
#include "core/event_loop.h"
#include "core/fd.h"
#include "core/metrics.h"
#include "core/result.h"

namespace tidegate::cache {

struct Options {
  std::string directory;  // the LMDB environment, created if absent; empty: memory only
  uint64_t disk_bytes = uint64_t{1} << 30;
  uint64_t ram_bytes = uint64_t{64} << 20;
  uint64_t max_object_bytes = uint64_t{256} << 20;
  uint64_t writer_queue_bytes = uint64_t{64} << 20;  // if more waits for the writer, responses are not stored
  uint64_t commit_bytes = uint64_t{8} << 20;         // a transaction commits at this size
  uint64_t commit_interval_ms = 150;                 // or when it is this old
  unsigned reader_threads = 2;
  // Where nothing goes to disk, the readers of one fetch wait this long for the slowest reader, and then go on without
  // it.
  uint64_t laggard_ms = 5'000;
};
Options make_options(const CacheNode& node, const std::string& state_dir);

// The answer to send to the client. Move-only.
struct Answer {
  std::shared_ptr<const StoredHead> head;
  uint16_t status = 0;  // the stored status; or 206, 304, 412, 416 by the request's conditions and Range
  uint64_t age_s = 0;   // the Age field (RFC 9111 §5.1)
  // the length of `body`. Not set: the length is not known yet, so send chunked or DATA frames
  std::optional<uint64_t> content_length;
  ByteRange range;  // the part of the body, when status is 206
  BodyReader body;  // empty for HEAD, 304, 412 and 416
};

// Calls fn(name, value) for each field of the answer: the stored fields that this status may carry, content-length,
// content-range, age. The caller adds Cache-Status, X-Request-Id, Connection and Transfer-Encoding. `name` is in lower
// case; `spelt` is the name for HTTP/1, and empty if that is the same.
void for_each_field(
    const Answer& answer,
    const std::function<void(std::string_view name, std::string_view value, std::string_view spelt)>& fn);

enum class FillFailure : uint8_t {
  leader_gone,     // the leader ends for its own reasons: a waiter takes over
  backend_failed,  // no backend answered: waiters are answered at once, stale where allowed, else `failed`
  // A backend closed without an answer. This one request may have caused it, so a waiter takes over. The second such
  // failure is told to all waiters.
  backend_broke_off,
};

enum class FillStep : uint8_t {
  more,
  pause,  // readers or the writer are too far behind: on_resume will be called
  stop,   // nobody reads and the rest is not worth fetching, or it grew past max_object_bytes
};

struct FillDecision {
  enum class Kind : uint8_t { store, pass, freshened, serve_stale };
  Kind kind = Kind::pass;
  const char* reason = "";       // why it is not storable: a token for Cache-Status and the metrics
  std::optional<Answer> answer;  // for the leader's own client; absent for a background fetch
  std::optional<int64_t> ttl_s;  // of the stored response
};

// The right and duty to fetch one response for everybody who waits for it. Move-only; for the leader's thread.
class Fill {
 public:
  Fill();
  Fill(Fill&&) noexcept;
  Fill& operator=(Fill&&) noexcept;
  ~Fill();  // unfinished: fail(leader_gone)
  explicit operator bool() const { return flight_ != nullptr; }

  // If-None-Match and If-Modified-Since, when a stored response can be validated (RFC 9111 §4.3.1). The views live as
  // long as the Fill.
  Fields conditional_fields() const;
  // True if the backend request may carry this field of the client's request. A background fetch is for all clients. So
  // it sends no credentials (Authorization, Cookie), unless the stored response's Vary names them.
  bool sends(std::string_view field_name) const;

  // Call it once, with the final (not 1xx) head. Decides whether the response is stored and tells every waiter.
  FillDecision on_head(const ResponseView& response, uint64_t now_ms);
  FillStep append(std::string_view bytes);
  // `fn` is called when the leader may read on, and when the last client that waits or reads has left. Call wanted()
  // then.
  void on_resume(std::function<void()> fn);
  // Returns false if nobody waits or reads, and the rest is not worth fetching. Then drop the Fill. Before the head,
  // the leader's own client is not counted. So call this only after that client has left.
  bool wanted() const;
  // The body is complete by its framing. Publishes the object.
  void finish();
  // `reason` is for the log and Cache-Status. Readers of a body that has begun get BodyStep::error.
  void fail(FillFailure failure, const char* reason);
  // The stale response that stale-if-error allows when no backend can be reached. Call it before fail(backend_failed).
  std::optional<Answer> stale_answer(uint64_t now_ms);

 private:
  friend class Engine;
  friend class Flight;
  explicit Fill(std::shared_ptr<Flight> flight);
  void abandon();
  class LaggardTimer;
  std::unique_ptr<LaggardTimer> watch_;  // made at the first pause
  std::shared_ptr<Flight> flight_;
};

// Keeps a waiting lookup alive. Destroy it when the client goes away: then on_found is not called.
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

enum class LookupOutcome : uint8_t { bypass, hit, stale, fetch, attach, refuse, failed, wait };
const char* name(LookupOutcome outcome);

struct Lookup {
  LookupOutcome outcome = LookupOutcome::bypass;
  CacheStatus status;  // complete for hit and stale; for others the caller adds forward_status and stored
  Answer answer;       // for hit, stale and attach
  Fill fill;           // for fetch, and for stale if the caller must revalidate
  Pending pending;     // for wait
};
using OnFound = std::function<void(Lookup)>;

// The whole body of a stored response in a content coding.
struct CodedBody {
  BodyReader body;
  uint64_t bytes = 0;
};

struct Explanation {
  LookupOutcome outcome = LookupOutcome::bypass;
  CacheStatus status;
  std::string key;
  std::optional<uint64_t> age_s;
};

class Cache {
 public:
  // Returns while the index is still read from disk: an object that is not read yet is a miss. An environment that
  // cannot be used is set aside, and a new one is made. If none can be made (another process uses the directory, for
  // example), the cache works from memory alone and says so in the log, in Totals and in tidegate_cache_disk_working.
  // Errors: impossible options. `lock`: from let_go() in another process; empty: none.
  static Result<std::unique_ptr<Cache>> open(const Options& options, Metrics& metrics, UniqueFd lock = {});
  ~Cache();  // call it after the last worker's last transaction; commits the queued work

  // `now_ms` is realtime. `on_found` is called at most once, on `loop`, and only after `wait` was returned; it never
  // gets `wait`. `request` and `policy` are not needed after the call.
  Lookup lookup(const RequestView& request, const RouteCache& policy, uint64_t now_ms, EventLoop& loop,
                OnFound on_found);

  // The body that store_coded() kept for this response. `head` is the head of an answer. A response that was fetched
  // again has a new head, so an older body is never found. The reader never waits.
  std::optional<CodedBody> find_coded(const StoredHead& head, Coding coding, EventLoop& loop);
  // Keeps `body`, the whole body of the response in `coding`, in the memory tier. It is evicted like other objects. It
  // is also removed when the response is replaced, purged or evicted. Nothing is kept if the response is gone already,
  // or if the body is longer than kCodedBytes.
  void store_coded(const StoredHead& head, Coding coding, std::string body);

  // Call it after a backend answered an unsafe request (RFC 9111 §4.4). Invalidates the target and, on the same host,
  // the URLs in Location and Content-Location.
  void invalidate(const RequestView& request, const RouteCache& policy, const ResponseView& response);

  // In force for lookups when it returns; durable with the writer's next commit. A sequence that was applied before is
  // ignored. A purge of a URL names "scheme://host/path?query" and removes every variant. `keys` are further keys of
  // the same URL, which the query options of its routes and its other spellings give.
  void purge(const Purge& purge, const std::vector<std::string>& keys = {});
  // The last durable sequence. A plane's follower resumes there (PlaneHooks::prepare).
  PurgePosition last_applied_purge() const;

  // The result that lookup() would have now. Changes nothing.
  Explanation explain(const RequestView& request, const RouteCache& policy, uint64_t now_ms) const;

  struct Totals {
    uint64_t objects = 0, ram_bytes = 0, disk_bytes = 0, writer_queue_bytes = 0;
    bool loading = false;
    // Why a configured disk tier does not work or is frozen. Empty if it works.
    std::string disk_trouble;
    uint64_t fill_bytes = 0;  // memory of bodies that are arriving
  };
  Totals totals() const;
  // Returns when everything queued so far is committed. For tests and an orderly end.
  void flush();
  // Hands the disk tier over to another process. Queued work is committed. After that nothing is written, no response
  // goes to the disk, and bodies are read from a snapshot of this moment (for kHandedOverSnapshotMs). Then `done` is
  // called, on another thread, with the lock for the other process; empty: there is no disk tier. It may be called
  // again.
  void let_go(std::function<void(UniqueFd lock)> done);
  // Takes the disk tier back: the other process has ended without serving. Purges that came meanwhile are written
  // first. Bodies that came meanwhile are not on the disk. If the other process replaced the file, nothing is written,
  // and Totals::disk_trouble says so.
  void take_back();
  // Names the format of the disk tier. A process that finds another one starts with an empty tier.
  static std::string disk_format();
  // Returns when the index has been read from disk.
  void wait_loaded();

 private:
  Cache();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidegate::cache
