// SPDX-License-Identifier: Apache-2.0
// The facade: Cache, Fill and Pending over the engine and its flights.
#include "cache/cache.h"

#include "cache/serve/engine.h"
#include "cache/serve/flight.h"
#include "core/assert.h"
#include "core/clock.h"

namespace tidegate::cache {

Options make_options(const CacheNode& node, const std::string& state_dir) {
  Options options;
  options.directory = node.path.empty() ? state_dir + "/cache" : node.path;
  options.disk_bytes = node.disk_bytes;
  options.ram_bytes = node.ram_bytes;
  options.max_object_bytes = node.max_object_bytes;
  return options;
}

const char* name(LookupOutcome outcome) {
  // The access log and /explain print these words. They are older than the enumerators and stay as they are.
  constexpr const char* kNames[] = {"bypass", "hit", "stale", "lead", "join", "refuse", "failed", "pending"};
  static_assert(std::size(kNames) == static_cast<size_t>(LookupOutcome::wait) + 1);
  TIDEGATE_ASSERT(outcome <= LookupOutcome::wait, "an outcome has a name");
  return kNames[static_cast<size_t>(outcome)];
}

// --- Pending

Pending::Waiter::Waiter(const RequestView& request_, const RouteCache& policy_, uint64_t now, EventLoop& loop_,
                        OnFound on_found_)
    : request(request_),
      policy(policy_),
      asked_ms(now),
      asked_ns(monotonic_ns()),
      alive_loop(&loop_),
      on_found(std::move(on_found_)) {}

uint64_t Pending::Waiter::now_ms() const { return asked_ms + (monotonic_ns() - asked_ns) / kNsPerMs; }

EventLoop* Pending::Waiter::loop() {
  const MutexLock lock(mutex);
  return alive_loop;
}

void Pending::Waiter::deliver(Lookup found) {
  TIDEGATE_ASSERT(found.outcome != LookupOutcome::wait, "a waiter is given a result");
  // On the heap, because the loop's mailbox copies what it holds. If nobody takes the result, its destructor passes the
  // Fill on.
  const auto shared = std::make_shared<Lookup>(std::move(found));
  const MutexLock lock(mutex);
  if (alive_loop == nullptr) return;
  alive_loop->post([waiter = shared_from_this(), shared] {
    if (waiter->loop() != nullptr) waiter->on_found(std::move(*shared));
  });
}

Pending& Pending::operator=(Pending&& other) noexcept {
  if (this != &other) {
    cancel();
    waiter_ = std::move(other.waiter_);
  }
  return *this;
}

Pending::~Pending() { cancel(); }

void Pending::cancel() {
  if (waiter_ == nullptr) return;
  std::shared_ptr<Flight> flight;
  {
    const MutexLock lock(waiter_->mutex);
    waiter_->alive_loop = nullptr;
    flight = waiter_->flight.lock();
  }
  if (flight != nullptr) flight->on_waiter_left();  // takes the flight's mutex, which comes before a waiter's
}

std::shared_ptr<Pending::Waiter> Asker::wait() {
  if (waiter == nullptr)
    waiter = std::make_shared<Pending::Waiter>(request, policy, now_ms, loop, std::move(*on_found));
  return waiter;
}

// --- Fill

// Calls drop_laggards while the leader pauses. Destroyed with the Fill, on its loop's thread.
class Fill::LaggardTimer {
 public:
  explicit LaggardTimer(std::shared_ptr<Flight> flight)
      : flight_(std::move(flight)), timer_(flight_->leading_loop(), [this] { look(); }) {}
  void begin() {
    if (!timer_.armed()) timer_.arm_after_ms(flight_->engine().options.laggard_ms);
  }

 private:
  void look() {
    if (flight_->drop_laggards()) begin();
  }
  const std::shared_ptr<Flight> flight_;
  Timer timer_;
};

Fill::Fill() = default;
Fill::Fill(std::shared_ptr<Flight> flight) : flight_(std::move(flight)) {}
Fill::Fill(Fill&&) noexcept = default;
Fill::~Fill() { abandon(); }

Fill& Fill::operator=(Fill&& other) noexcept {
  if (this != &other) {
    abandon();
    watch_ = std::move(other.watch_);
    flight_ = std::move(other.flight_);
  }
  return *this;
}

void Fill::abandon() {
  if (flight_ == nullptr && watch_ == nullptr) return;  // the usual case
  if (flight_ != nullptr) flight_->fail(FillFailure::leader_gone, "leader-gone");
  watch_ = nullptr;
  flight_ = nullptr;
}

Fields Fill::conditional_fields() const { return flight_->conditional_fields(); }
bool Fill::sends(std::string_view field_name) const { return flight_->sends(field_name); }
bool Fill::wanted() const { return flight_->wanted(); }
void Fill::on_resume(std::function<void()> fn) { flight_->on_resume(std::move(fn)); }
std::optional<Answer> Fill::stale_answer(uint64_t now_ms) { return flight_->stale_answer(now_ms); }

FillDecision Fill::on_head(const ResponseView& response, uint64_t now_ms) {
  TIDEGATE_ASSERT(flight_ != nullptr, "the Fill is not used up");
  FillDecision decision = flight_->on_head(response, now_ms);
  if (decision.kind != FillDecision::Kind::store) flight_ = nullptr;  // the Fill is used up
  return decision;
}

FillStep Fill::append(std::string_view bytes) {
  TIDEGATE_ASSERT(flight_ != nullptr, "the Fill is not used up");
  const FillStep step = flight_->append(bytes);
  if (step == FillStep::pause) {
    if (watch_ == nullptr) watch_ = std::make_unique<LaggardTimer>(flight_);
    watch_->begin();
  }
  return step;
}

void Fill::finish() {
  TIDEGATE_ASSERT(flight_ != nullptr, "the Fill is not used up");
  flight_->finish();
  watch_ = nullptr;
  flight_ = nullptr;
}

void Fill::fail(FillFailure failure, const char* reason) {
  TIDEGATE_ASSERT(flight_ != nullptr && reason != nullptr, "the Fill is not used up");
  flight_->fail(failure, reason);
  watch_ = nullptr;
  flight_ = nullptr;
}

// --- Cache

struct Cache::Impl {
  Impl(const Options& options, Metrics& metrics, UniqueFd lock) : engine(options, metrics, std::move(lock)) {}
  mutable Engine engine;
};

Cache::Cache() = default;
Cache::~Cache() = default;

Result<std::unique_ptr<Cache>> Cache::open(const Options& options, Metrics& metrics, UniqueFd lock) {
  constexpr uint64_t kMinDiskBytes = 8 << 20;
  if (!options.directory.empty() && options.disk_bytes < kMinDiskBytes)
    return tidegate::fail("cache: disk must be at least 8MB");
  if (options.commit_bytes == 0) return tidegate::fail("cache: commit_bytes must not be 0");
  auto cache = std::unique_ptr<Cache>(new Cache());
  cache->impl_ = std::make_unique<Impl>(options, metrics, std::move(lock));
  return cache;
}

Lookup Cache::lookup(const RequestView& request, const RouteCache& policy, uint64_t now_ms, EventLoop& loop,
                     OnFound on_found) {
  Asker asker{request, policy, now_ms, loop, &on_found, nullptr, false};
  return impl_->engine.lookup(asker);
}

void Cache::invalidate(const RequestView& request, const RouteCache& policy, const ResponseView& response) {
  impl_->engine.invalidate(request, policy, response);
}

std::optional<CodedBody> Cache::find_coded(const StoredHead& head, Coding coding, EventLoop& loop) {
  return impl_->engine.find_coded(head, coding, loop);
}

void Cache::store_coded(const StoredHead& head, Coding coding, std::string body) {
  impl_->engine.store_coded(head, coding, std::move(body));
}

void Cache::purge(const Purge& purge, const std::vector<std::string>& keys) { impl_->engine.purge(purge, keys); }
PurgePosition Cache::last_applied_purge() const { return impl_->engine.durable_purge(); }

Explanation Cache::explain(const RequestView& request, const RouteCache& policy, uint64_t now_ms) const {
  return impl_->engine.explain(request, policy, now_ms);
}

Cache::Totals Cache::totals() const { return impl_->engine.totals(); }
void Cache::flush() { impl_->engine.flush(); }
void Cache::let_go(std::function<void(UniqueFd lock)> done) { impl_->engine.let_go(std::move(done)); }
void Cache::take_back() { impl_->engine.take_back(); }
std::string Cache::disk_format() { return std::string(kStoreFormat); }
void Cache::wait_loaded() { impl_->engine.wait_loaded(); }

}  // namespace tidegate::cache
