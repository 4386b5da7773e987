// SPDX-License-Identifier: Apache-2.0
// The disk tier: warm restarts, purges, one writer, churn.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <future>

#include "cache/disk/store.h"
#include "tests/unit/cache/disk_fixture.h"

namespace tidegate::cache::disk_test {

using namespace testing;

TEST_F(CacheOnDisk, WhatWasStoredIsThereAfterARestart) {
  open(on_disk());
  const std::string large = body_of(1'000'000), chunk = body_of(65'516, 3), edge = body_of(262'144, 4);
  store("/small", {{"Cache-Control", "max-age=60"}, {"ETag", "\"v1\""}, {"X-Long", std::string(3'000, 'x')}}, "hello");
  store("/empty", fresh_minute(), "");
  store("/large", fresh_minute(), large);
  store("/chunk", fresh_minute(), chunk);
  store("/edge", fresh_minute(), edge);
  cache->flush();
  open(on_disk());
  EXPECT_EQ(cache->totals().objects, 5U);
  expect_hit("/small", "hello");
  expect_hit("/empty", "");
  expect_hit("/large", large);
  expect_hit("/chunk", chunk);
  expect_hit("/edge", edge);
  EXPECT_EQ(find(get("/small")).answer.head->fields.back().value.size(), 3'000U);
  Lookup range = find(get("/large", FieldList{{"Range", "bytes=500000-500099"}}));
  EXPECT_EQ(range.answer.status, 206);
  EXPECT_EQ(read_all(range.answer), large.substr(500'000, 100));
}

TEST_F(CacheOnDisk, ALargeObjectIsJoinedUntilTheDiskHasItAndThenRead) {
  open(on_disk());
  const std::string large = body_of(20'000'000);
  Lookup leader = find(get("/large"));
  FillDecision decision = leader.fill.on_head(response(200, fresh_minute(), large.size()), now_ms());
  std::string read;
  bool resumed = true;
  leader.fill.on_resume([&resumed] { resumed = true; });
  for (size_t at = 0; at < large.size(); at += 100'000) {
    while (!resumed) loop.run_once(kNsPerS);  // meanwhile the writer commits and releases chunks
    const FillStep step = leader.fill.append(std::string_view(large).substr(at, 100'000));
    ASSERT_NE(step, FillStep::stop);
    resumed = step == FillStep::more;
  }
  leader.fill.finish();
  Lookup late = find(get("/large"));
  EXPECT_TRUE(late.outcome == LookupOutcome::attach || late.outcome == LookupOutcome::hit);
  EXPECT_TRUE(read_all(late.answer) == large) << "a latecomer";
  EXPECT_TRUE(read_all(*decision.answer) == large) << "the laggard reads back from disk what was let go";
  cache->flush();
  expect_hit("/large", large);
}

TEST_F(CacheOnDisk, WithoutAMemoryTierEveryHitComesFromDiskAndNothingIsFetchedTwice) {
  Options options = on_disk();
  options.ram_bytes = 0;
  options.commit_interval_ms = 60'000;  // until flush() a stored object exists only in memory
  open(options);
  const std::string small = body_of(100'000), large = body_of(1'000'000);
  store("/small", fresh_minute(), small);
  expect_hit("/small", small);
  store("/large", fresh_minute(), large);
  cache->flush();
  for (int i = 0; i < 3; ++i) {
    expect_hit("/small", small);
    expect_hit("/large", large);
  }
  auto first = ask(get("/small"));
  auto second = ask(get("/small"));
  Lookup one = settle(std::move(first)), other = settle(std::move(second));
  EXPECT_TRUE(read_all(one.answer) == small);
  EXPECT_TRUE(read_all(other.answer) == small);
  EXPECT_EQ(metric("tidegate_cache_memory_bytes"), 0);
}

TEST_F(CacheOnDisk, PurgesAreDurable) {
  open(on_disk());
  store("/url", fresh_minute(), "x");
  store("/tag", {{"Cache-Control", "max-age=60"}, {"Cache-Tag", "news"}}, "x");
  store("/soft", {{"Cache-Control", "max-age=60"}, {"ETag", "\"v1\""}}, "x");
  store("/kept", fresh_minute(), "kept");
  Purge purge;
  purge.kind = PurgeKind::url;
  purge.value = "https://www.example.test/url";
  purge.sequence = 1;
  cache->purge(purge);
  purge.kind = PurgeKind::tag;
  purge.value = "news";
  purge.sequence = 2;
  cache->purge(purge);
  purge.kind = PurgeKind::url;
  purge.value = "https://www.example.test/soft";
  purge.soft = true;
  purge.sequence = 3;
  cache->purge(purge);
  cache->flush();
  EXPECT_EQ(cache->last_applied_purge().sequence, 3U);
  open(on_disk());
  EXPECT_EQ(cache->last_applied_purge().sequence, 3U);
  EXPECT_EQ(find(get("/url")).outcome, LookupOutcome::fetch);
  EXPECT_EQ(find(get("/tag")).outcome, LookupOutcome::fetch);
  EXPECT_EQ(find(get("/soft")).status.forward, Forward::stale);
  expect_hit("/kept", "kept");
  purge.kind = PurgeKind::all;
  purge.soft = false;
  purge.sequence = 4;
  cache->purge(purge);
  cache->flush();
  open(on_disk());
  EXPECT_EQ(find(get("/kept")).outcome, LookupOutcome::fetch);
}

TEST_F(CacheOnDisk, ALogMadeAnewCountsFromItsOwnBeginning) {
  open(on_disk());
  Purge purge;
  purge.kind = PurgeKind::tag;
  purge.value = "news";
  purge.sequence = 57;
  purge.at_ns = 1'000;
  cache->purge(purge);
  store("/a", fresh_minute(), "a");
  Purge everything;
  everything.kind = PurgeKind::all;
  everything.sequence = 1;
  everything.at_ns = 2'000;
  everything.anew = true;
  cache->purge(everything);
  EXPECT_EQ(find(get("/a")).outcome, LookupOutcome::fetch);
  cache->flush();
  EXPECT_EQ(cache->last_applied_purge(), (PurgePosition{1, 2'000}));
  open(on_disk());
  EXPECT_EQ(cache->last_applied_purge(), (PurgePosition{1, 2'000}));
  store("/a", {{"Cache-Control", "max-age=60"}, {"Cache-Tag", "news"}}, "a");
  purge.sequence = 2;
  purge.at_ns = 3'000;
  cache->purge(purge);
  EXPECT_EQ(find(get("/a")).outcome, LookupOutcome::fetch) << "a number that the old log had used";
  everything.sequence = 0;  // once more, from a log that is still empty
  everything.at_ns = 0;
  cache->purge(everything);
  cache->flush();
  open(on_disk());
  EXPECT_EQ(cache->last_applied_purge(), PurgePosition());
}

class PurgedWhileLoading : public CacheOnDisk {
 protected:
  void start(int times);
};
class LongPurgedWhileLoading : public PurgedWhileLoading {};

void PurgedWhileLoading::start(int times) {
  constexpr int kObjects = 500;
  const auto path = [](int i) { return "/" + std::to_string(i); };
  for (int n = 0; n < times; ++n) {
    open(on_disk());
    for (int i = 0; i < kObjects; ++i) store(path(i), fresh_minute(), "x");
    cache->flush();
    cache = nullptr;
    auto opened = Cache::open(on_disk(), metrics);
    ASSERT_TRUE(opened) << opened.error().message;
    cache = std::move(*opened);
    for (int i = 0; i < kObjects; ++i) {  // while the index loads
      Purge purge;
      purge.kind = PurgeKind::url;
      purge.value = "https://www.example.test" + path(i);
      cache->purge(purge);
    }
    cache->wait_loaded();
    for (int i = 0; i < kObjects; ++i) {
      const std::string target = path(i);
      ASSERT_EQ(cache->explain(get(target), policy, now_ms()).outcome, LookupOutcome::fetch) << target;
    }
  }
}

TEST_F(PurgedWhileLoading, AUrlDoesNotComeBack) { start(2); }
TEST_F(LongPurgedWhileLoading, AUrlDoesNotComeBack) { start(20); }

TEST_F(CacheOnDisk, AFloodOfUnsafeRequestsGivesTheWriterNothingToDo) {
  Options options = on_disk();
  options.commit_interval_ms = 600'000;  // queued writes wait for a flush
  open(options);
  store("/held", fresh_minute(), "x");
  Lookup leader = find(get("/arriving"));
  FillDecision decision = leader.fill.on_head(response(200, fresh_minute(), 10), now_ms());
  cache->flush();
  const auto queued = [this] { return cache->totals().writer_queue_bytes; };
  const auto flood = [this](const std::string& path) {
    cache->invalidate(get(path, {}, "POST"), policy, response(200, {}));
  };
  const uint64_t before = queued();
  for (int i = 0; i < 1'000; ++i) flood("/unknown" + std::to_string(i));
  EXPECT_EQ(queued(), before);
  for (const char* path : {"/held", "/arriving"}) {
    flood(path);
    const uint64_t once = queued();
    EXPECT_GT(once, before) << path << ": what was there leaves the disk";
    for (int i = 0; i < 1'000; ++i) flood(path);
    EXPECT_EQ(queued(), once) << path;
    cache->flush();
  }
}

TEST_F(CacheOnDisk, AReplacedResponseDoesNotComeBack) {
  open(on_disk());
  store("/a", {{"Cache-Control", "max-age=1"}, {"ETag", "\"v1\""}}, "old");
  Lookup leader = find(get("/a"), now_ms() + 5'000);
  fill(leader, 200, fresh_minute(), "new");
  cache->flush();
  open(on_disk());
  expect_hit("/a", "new");
}

TEST_F(CacheOnDisk, AFreshenedHeadIsDurable) {
  open(on_disk());
  store("/a", {{"Cache-Control", "max-age=1"}, {"ETag", "\"v1\""}}, "body");
  Lookup leader = find(get("/a"), now_ms() + 5'000);
  leader.fill.on_head(response(304, FieldList{{"Cache-Control", "max-age=600"}}), now_ms());
  cache->flush();
  open(on_disk());
  Lookup hit = find(get("/a"), now_ms() + 60'000);
  ASSERT_EQ(hit.outcome, LookupOutcome::hit);
  EXPECT_EQ(read_all(hit.answer), "body");
}

TEST_F(CacheOnDisk, OneDirectoryHasOneWriterAndTheOtherSaysSo) {
  open(on_disk());
  store("/a", fresh_minute(), "a");
  Metrics other_metrics;
  auto other = Cache::open(on_disk(), other_metrics);
  ASSERT_TRUE(other) << "it serves all the same";
  EXPECT_NE((*other)->totals().disk_trouble.find("used by another process"), std::string::npos);
  EXPECT_NE(other_metrics.prometheus_text().find("tidegate_cache_disk_working 0"), std::string::npos);
  EXPECT_EQ(metric("tidegate_cache_disk_working"), 1);
  std::swap(cache, *other);
  EXPECT_EQ(find(get("/a")).outcome, LookupOutcome::fetch);
  store("/b", fresh_minute(), "b");
  expect_hit("/b", "b");
  cache = nullptr;
  cache = std::move(*other);
  cache->flush();
  expect_hit("/a", "a");
  open(on_disk());  // what the first cache stored is there, and its space can be used again
  EXPECT_EQ(cache->totals().disk_trouble, "");
  expect_hit("/a", "a");
  EXPECT_EQ(find(get("/b")).outcome, LookupOutcome::fetch);
}

class Churn : public CacheOnDisk {
 protected:
  void fill_five_times(uint64_t disk_bytes);
};
class LongChurn : public Churn {};

void Churn::fill_five_times(uint64_t disk_bytes) {
  Options options = on_disk(disk_bytes);
  options.ram_bytes = 1 << 20;
  open(options);
  uint64_t written = 0;
  for (uint64_t i = 0; written < 5 * options.disk_bytes; ++i) {
    const size_t bytes = i % 7 == 0 ? 600'000 : 1'000 + i * 7'919 % 90'000;
    store("/" + std::to_string(i), fresh_minute(), body_of(bytes, i));
    written += bytes;
    if (i % 20 == 0) cache->flush();
  }
  cache->flush();
  EXPECT_EQ(metric("tidegate_cache_commit_failures_total"), 0);
  EXPECT_GT(metric("tidegate_cache_evicted_total{tier=\"disk\"}"), disk_bytes / 320'000);
  EXPECT_LE(cache->totals().disk_bytes, options.disk_bytes * 90 / 100);
  EXPECT_GT(cache->totals().disk_bytes, options.disk_bytes / 2);
  EXPECT_GT(metric("tidegate_cache_stored_total{tier=\"disk\"}"), disk_bytes / 65'536);
}

TEST_F(Churn, AtTheHighWaterMarkEvictsAndNeverFailsACommit) { fill_five_times(8 << 20); }
TEST_F(LongChurn, AtTheHighWaterMarkEvictsAndNeverFailsACommit) { fill_five_times(32 << 20); }

TEST_F(CacheOnDisk, AMemoryTierLargerThanTheDiskTierHoldsMore) {
  Options options = on_disk(16 << 20);
  options.ram_bytes = 64 << 20;
  open(options);
  for (uint64_t i = 0; i < 300; ++i) {
    store("/" + std::to_string(i), fresh_minute(), body_of(100'000, i));
    if (i % 20 == 0) cache->flush();
  }
  cache->flush();
  EXPECT_GT(metric("tidegate_cache_evicted_total{tier=\"disk\"}"), 100);
  for (uint64_t i = 0; i < 300; ++i) {
    Lookup hit = find(get("/" + std::to_string(i)));
    ASSERT_EQ(hit.outcome, LookupOutcome::hit) << i;
    EXPECT_TRUE(read_all(hit.answer) == body_of(100'000, i)) << i;
  }
  Purge all;
  all.kind = PurgeKind::all;
  cache->purge(all);
  cache->flush();
  EXPECT_EQ(find(get("/0")).outcome, LookupOutcome::fetch);
}

TEST_F(CacheOnDisk, AFullQueueMeansNotStoredAndNobodyWaits) {
  Options options = on_disk();
  options.writer_queue_bytes = 100'000;
  open(options);
  const std::string large = body_of(2'000'000);
  Lookup leader = find(get("/large"));
  FillDecision decision = leader.fill.on_head(response(200, fresh_minute(), large.size()), now_ms());
  ASSERT_EQ(leader.fill.append(large), FillStep::more);
  leader.fill.finish();
  EXPECT_TRUE(read_all(*decision.answer) == large);
  EXPECT_EQ(metric("tidegate_cache_queue_full_total"), 1);
}

UniqueFd handed_over(Cache& cache) {
  std::promise<int> promised;
  cache.let_go([&](UniqueFd lock) { promised.set_value(lock.release()); });
  return UniqueFd(promised.get_future().get());
}

TEST_F(CacheOnDisk, WhatIsHandedOverIsDurableReadOnAndNeverWrittenAgain) {
  Options options = on_disk();
  options.ram_bytes = 0;  // every hit comes from the disk
  open(options);
  const std::string large = body_of(1'000'000);
  store("/large", fresh_minute(), large);
  store("/queued", fresh_minute(), "queued");
  const UniqueFd lock = handed_over(*cache);
  ASSERT_TRUE(lock);
  EXPECT_NE(::flock(UniqueFd(::open(options.directory.c_str(), O_RDONLY | O_CLOEXEC)).get(), LOCK_EX | LOCK_NB), 0)
      << "the lock is held for as long as anybody has it";
  const auto files = [&] {
    std::string all;
    for (const auto& file : std::filesystem::directory_iterator(options.directory)) {
      const std::string name = file.path().filename();
      if (name == "lock.mdb") continue;
      std::ifstream in(file.path(), std::ios::binary);
      all += name + std::string{std::istreambuf_iterator<char>(in), {}};
    }
    return std::hash<std::string>{}(all);
  };
  const size_t before = files();
  expect_hit("/large", large);
  expect_hit("/queued", "queued");
  store("/after", fresh_minute(), "after");
  Purge purge;
  purge.kind = PurgeKind::url;
  purge.value = "https://www.example.test/queued";
  purge.sequence = 7;
  cache->purge(purge);
  EXPECT_NE(find(get("/queued")).outcome, LookupOutcome::hit) << "a purge is in force here too";
  cache->flush();
  EXPECT_EQ(cache->last_applied_purge().sequence, 0U) << "it is the other process's to keep";
  EXPECT_FALSE(cache->totals().disk_trouble.empty());
  cache.reset();
  EXPECT_EQ(files(), before) << "nothing was written, at the end neither";
}

// The other process opens the tier and is killed before it serves. So it closes nothing in order.
void open_and_die(const std::string& directory, uint64_t disk_bytes, const UniqueFd& lock, uint64_t generation) {
  const pid_t child = ::fork();
  if (child == 0) {
    auto store = Store::open(directory, disk_bytes, UniqueFd(::dup(lock.get())));
    if (!store) ::_exit(1);
    auto txn = lmdb::Txn::begin((*store)->env(), lmdb::Access::write);
    const bool written = txn && (*store)->put_progress(*txn, generation, {}) && txn->commit();
    ::_exit(written ? 0 : 2);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
}

TEST_F(CacheOnDisk, WhatTheOtherProcessDidNotKeepIsTakenBackWithThePurgesOfTheMeantime) {
  Options options = on_disk();
  options.ram_bytes = 0;  // every hit comes from the disk
  open(options);
  const std::string large = body_of(1'000'000);
  store("/large", fresh_minute(), large);
  store("/purged", fresh_minute(), "purged");
  for (uint64_t turn = 0; turn < 2; ++turn) {  // also after another process that failed
    const UniqueFd lock = handed_over(*cache);
    ASSERT_TRUE(lock);
    Purge purge;
    purge.kind = PurgeKind::url;
    purge.value = "https://www.example.test/purged";
    purge.sequence = 7 + turn;
    cache->purge(purge);
    store("/meanwhile", fresh_minute(), "not on the disk");
    ASSERT_NO_FATAL_FAILURE(open_and_die(options.directory, options.disk_bytes, lock, 1'000 + turn));
    cache->take_back();
    cache->flush();
    EXPECT_EQ(cache->totals().disk_trouble, "");
    EXPECT_EQ(cache->last_applied_purge().sequence, 7 + turn) << "it is durable";
    expect_hit("/large", large);
    const std::string after = "/after/" + std::to_string(turn);
    store(after, fresh_minute(), after);
    cache->flush();
    expect_hit(after, after);
  }
  open(options);
  cache->wait_loaded();
  EXPECT_EQ(cache->totals().disk_trouble, "");
  expect_hit("/large", large);
  expect_hit("/after/0", "/after/0");
  expect_hit("/after/1", "/after/1");
  EXPECT_NE(find(get("/purged")).outcome, LookupOutcome::hit);
  EXPECT_NE(find(get("/meanwhile")).outcome, LookupOutcome::hit);
}

TEST_F(CacheOnDisk, AFileThatTheOtherProcessReplacedIsNotWrittenTo) {
  const Options options = on_disk();
  open(options);
  store("/a", fresh_minute(), "a");
  const UniqueFd lock = handed_over(*cache);
  const std::string data = options.directory + "/data.mdb";
  std::filesystem::copy_file(data, data + ".new");
  std::filesystem::rename(data + ".new", data);
  cache->take_back();
  cache->flush();
  EXPECT_NE(cache->totals().disk_trouble.find("put another file in its place"), std::string::npos)
      << cache->totals().disk_trouble;
  expect_hit("/a", "a");
}

TEST_F(CacheOnDisk, AHandOverThatIsTakenBackInTimeChangesNothing) {
  open(on_disk());
  cache->wait_loaded();
  cache->take_back();  // without an earlier let_go()
  store("/a", fresh_minute(), "a");
  cache->flush();
  EXPECT_TRUE(cache->totals().disk_trouble.empty());
}

}  // namespace tidegate::cache::disk_test
