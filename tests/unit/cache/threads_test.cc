// SPDX-License-Identifier: Apache-2.0
// Eight workers, each with its own loop, share one cache.
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "conf/model/route.h"
#include "tests/unit/cache/cache_fixture.h"

namespace tidegate::cache::threads_test {

using namespace testing;

constexpr size_t kKeys = 24;

size_t size_of(size_t key) { return key % 6 == 0 ? 400'000 : 500 + key * 3'000; }

// A worker that asks, fetches when it leads, reads what it gets and checks every byte.
class Worker {
 public:
  Worker(Cache& cache, unsigned seed) : cache_(cache), random_(seed) { policy_.enabled = true; }

  void run(int requests) {
    for (int i = 0; i < requests; ++i) {
      const size_t key = random_() % kKeys;
      std::optional<Lookup> found;
      const std::string path = "/" + std::to_string(key);
      Lookup now =
          cache_.lookup(get(path), policy_, now_ms(), loop_, [&found](Lookup later) { found = std::move(later); });
      Pending pending;
      if (now.outcome == LookupOutcome::wait) {
        pending = std::move(now.pending);
        if (random_() % 16 == 0) continue;  // the client leaves
        while (!found) loop_.run_once(kNsPerS);
      } else {
        found = std::move(now);
      }
      handle(*found, key);
      if (random_() % 64 == 0) purge(path);
    }
    loop_.run_once(0);
  }
  uint64_t wrong = 0, leads = 0, served = 0;

 private:
  void handle(Lookup& found, size_t key) {
    if (found.outcome == LookupOutcome::fetch) return lead(found, key);
    if (found.outcome == LookupOutcome::hit || found.outcome == LookupOutcome::attach) check(found.answer, key);
  }

  void lead(Lookup& found, size_t key) {
    ++leads;
    if (random_() % 8 == 0) return;  // gone before the head, so another one takes over
    const std::string body = body_of(size_of(key), key);
    FillDecision decision = found.fill.on_head({200, fresh_minute(), now_ms(), now_ms(), body.size()}, now_ms());
    if (decision.kind != FillDecision::Kind::store) return;
    const bool breaks = random_() % 16 == 0;
    for (size_t at = 0; at < body.size(); at += 50'000) {
      if (breaks && at > 0) return;  // the end of the Fill gives an error to the readers
      if (found.fill.append(std::string_view(body).substr(at, 50'000)) == FillStep::stop) return;
    }
    found.fill.finish();
    check(*decision.answer, key);
  }

  void check(Answer& answer, size_t key) {
    const std::string expected = body_of(size_of(key), key);
    std::string body;
    bool ready = false;
    answer.body.on_ready([&ready] { ready = true; });
    for (;;) {
      Slice slice;
      const BodyStep step = answer.body.next(slice);
      if (step == BodyStep::data) body += slice.bytes;
      if (step == BodyStep::error) return;
      if (step == BodyStep::end) break;
      if (step != BodyStep::wait) continue;
      while (!ready) loop_.run_once(kNsPerS);
      ready = false;
    }
    ++served;
    wrong += body != expected;
  }

  void purge(const std::string& path) {
    Purge purge;
    purge.kind = PurgeKind::url;
    purge.value = "https://www.example.test" + path;
    purge.soft = random_() % 2 == 0;
    cache_.purge(purge);
  }

  Cache& cache_;
  EventLoop loop_;
  RouteCache policy_;
  std::mt19937 random_;
};

class CacheThreads : public CacheFixture {};

TEST_F(CacheThreads, EightWorkersReadWhatWasStoredWhileItIsStoredEvictedAndPurged) {
  const TempDir directory;
  Options options;
  options.directory = directory.path("cache");
  options.disk_bytes = 32 << 20;
  options.ram_bytes = 512 << 10;  // small, so that much must come back from disk
  options.commit_interval_ms = 2;
  open(options);
  std::vector<std::unique_ptr<Worker>> workers;
  for (unsigned i = 0; i < 8; ++i) workers.push_back(std::make_unique<Worker>(*cache, i));
  std::vector<std::thread> threads;
  for (auto& worker : workers) threads.emplace_back([&worker] { worker->run(300); });
  for (auto& thread : threads) thread.join();
  uint64_t wrong = 0, leads = 0, served = 0;
  for (const auto& worker : workers) {
    wrong += worker->wrong;
    leads += worker->leads;
    served += worker->served;
  }
  EXPECT_EQ(wrong, 0U);
  EXPECT_GT(served, 1'500U);
  EXPECT_LT(leads, served);
  cache = nullptr;  // destroyed before the workers' loops
}

}  // namespace tidegate::cache::threads_test
