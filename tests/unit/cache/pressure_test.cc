// SPDX-License-Identifier: Apache-2.0
// Too little disk or memory: no client hangs, answers stay correct, and the shortage is reported.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>

#include "cache/disk/format.h"
#include "cache/limits.h"
#include "tests/unit/cache/cache_fixture.h"

namespace tidegate::cache::pressure_test {

using namespace testing;

// While it exists, no file of this process can grow beyond `bytes`. LMDB sees that as a full disk (EFBIG instead of
// ENOSPC).
class FullDisk {
 public:
  explicit FullDisk(uint64_t bytes) : old_handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit now{bytes, old_.rlim_max};
    EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &now), 0);
  }
  ~FullDisk() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, old_handler_);
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;

 private:
  void (*old_handler_)(int);
  rlimit old_{};
};

class UnderPressure : public CacheFixture {
 protected:
  Options on_disk() {
    Options options;
    options.directory = directory.path("cache");
    options.disk_bytes = 256 << 20;
    return options;
  }

  // Sends `body` to the cache and reads it at once, as a leader with a fast client does. Returns what was read.
  std::string fill_and_read(Lookup& leader, Answer& answer, std::string_view body) {
    std::string out;
    bool resumed = true, ready = true;
    leader.fill.on_resume([&resumed] { resumed = true; });
    answer.body.on_ready([&ready] { ready = true; });
    const uint64_t deadline = monotonic_ns() + 20 * kNsPerS;
    for (bool ended = false; !ended && monotonic_ns() < deadline; loop.run_once(kNsPerMs)) {
      while (resumed && !body.empty()) {
        const size_t n = std::min<size_t>(body.size(), 60'000);
        const FillStep step = leader.fill.append(body.substr(0, n));
        body.remove_prefix(n);
        if (step == FillStep::stop) return out;
        resumed = step != FillStep::pause;
        if (body.empty()) leader.fill.finish();
      }
      for (Slice slice; !ended;) {
        const BodyStep step = answer.body.next(slice);
        if (step == BodyStep::wait) break;
        if (step == BodyStep::data) out += slice.bytes;
        ended = step != BodyStep::data;
      }
    }
    return out;
  }

  TempDir directory;
};

TEST_F(UnderPressure, ABodyThatTheDiskCannotTakePassesThroughAndTheTierComesBack) {
  open(on_disk());
  store("/small", fresh_minute(), "small");
  cache->flush();
  const std::string body = body_of(20 << 20);
  {
    const FullDisk full(std::filesystem::file_size(directory.path("cache") + "/data.mdb"));
    for (const char* path : {"/large", "/another"}) {
      Lookup leader = find(get(path));
      ASSERT_EQ(leader.outcome, LookupOutcome::fetch);
      FillDecision decision = leader.fill.on_head(response(200, fresh_minute(), body.size()), now_ms());
      ASSERT_EQ(decision.kind, FillDecision::Kind::store);
      EXPECT_TRUE(fill_and_read(leader, *decision.answer, body) == body) << path;
    }
    store("/in-memory", fresh_minute(), "in memory");
    cache->flush();
    EXPECT_NE(cache->totals().disk_trouble.find("frozen"), std::string::npos) << cache->totals().disk_trouble;
    EXPECT_NE(cache->totals().disk_trouble.find("is full"), std::string::npos) << cache->totals().disk_trouble;
    EXPECT_EQ(metric("tidegate_cache_disk_frozen"), 1);
    EXPECT_EQ(find(get("/small")).outcome, LookupOutcome::hit);
  }
  for (int i = 0; i < 100 && !cache->totals().disk_trouble.empty(); ++i) cache->flush();
  EXPECT_EQ(cache->totals().disk_trouble, "");
  EXPECT_EQ(metric("tidegate_cache_disk_frozen"), 0);
  Lookup leader = find(get("/large"));
  FillDecision decision = leader.fill.on_head(response(200, fresh_minute(), body.size()), now_ms());
  EXPECT_TRUE(fill_and_read(leader, *decision.answer, body) == body);
  cache->flush();
  open(on_disk());
  for (const auto& [path, wanted] : {std::pair<const char*, const std::string&>{"/large", body}}) {
    Lookup hit = find(get(path));
    ASSERT_EQ(hit.outcome, LookupOutcome::hit) << path;
    EXPECT_TRUE(read_all(hit.answer) == wanted);
  }
}

TEST_F(UnderPressure, TheBodiesOfAllFetchesShareOneBudget) {
  Options options;
  options.ram_bytes = 8 << 20;
  open(options);
  const std::string piece = body_of(60'000);
  constexpr uint64_t kBytes = 20 << 20;
  struct Slow {
    Lookup leader;
    FillDecision decision;
  };
  std::vector<Slow> fetches;
  for (int i = 0; i < 40; ++i) {
    Slow slow{find(get("/" + std::to_string(i))), {}};
    slow.decision = slow.leader.fill.on_head(response(200, fresh_minute(), kBytes), now_ms());
    ASSERT_EQ(slow.decision.kind, FillDecision::Kind::store);
    fetches.push_back(std::move(slow));
  }
  for (Slow& slow : fetches) {  // as much as the cache accepts, while nobody reads
    for (uint64_t sent = 0; sent < kBytes && slow.leader.fill.append(piece) == FillStep::more;) sent += piece.size();
  }
  EXPECT_LE(cache->totals().fill_bytes, kFillFloorBytes + kWindowBytes + 40 * (kSmallWindowBytes + 2 * kChunkBytes));
  EXPECT_GE(cache->totals().fill_bytes, kFillFloorBytes);

  Lookup one_more = find(get("/more"));
  auto waiter = ask(get("/more"));
  const FillDecision passed = one_more.fill.on_head(response(200, fresh_minute(), kBytes), now_ms());
  EXPECT_EQ(passed.kind, FillDecision::Kind::pass);
  EXPECT_STREQ(passed.reason, "no-memory");
  EXPECT_EQ(settle(std::move(waiter)).outcome, LookupOutcome::bypass);
  store("/small", fresh_minute(), "small objects are stored all the same");

  // A client that reads gets the whole body.
  const std::string rest = body_of(kBytes);
  fetches.erase(fetches.begin() + 1, fetches.end());
  EXPECT_LE(cache->totals().fill_bytes, kWindowBytes + 2 * kChunkBytes);
  fetches.clear();
  EXPECT_EQ(cache->totals().fill_bytes, 0U);
  Lookup leader = find(get("/more"));
  FillDecision decision = leader.fill.on_head(response(200, fresh_minute(), rest.size()), now_ms());
  ASSERT_EQ(decision.kind, FillDecision::Kind::store) << "nothing of it was remembered";
  EXPECT_TRUE(fill_and_read(leader, *decision.answer, rest) == rest);
}

TEST_F(UnderPressure, TheLastReaderThatLeavesEndsTheFetchAtOnce) {
  open();
  Lookup leader = find(get("/a"));
  auto waiter = ask(get("/a"));
  FillDecision decision = leader.fill.on_head(response(200, fresh_minute(), 20 << 20), now_ms());
  bool asked = false;
  leader.fill.on_resume([&asked] { asked = true; });
  ASSERT_EQ(leader.fill.append(body_of(1'000)), FillStep::more);
  Lookup attached = settle(std::move(waiter));
  decision.answer.reset();
  loop.run_once(0);
  EXPECT_TRUE(leader.fill.wanted()) << "another one reads";
  attached.answer = Answer();
  for (int i = 0; i < 4 && !asked; ++i) loop.run_once(kNsPerMs);
  EXPECT_TRUE(asked) << "the leader is told, though the backend says nothing";
  EXPECT_FALSE(leader.fill.wanted());
}

}  // namespace tidegate::cache::pressure_test
