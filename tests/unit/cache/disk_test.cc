// SPDX-License-Identifier: Apache-2.0
// The disk tier: warm restarts, kill -9, damage, churn.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <random>
#include <thread>

#include "cache/disk/store.h"
#include "tests/unit/cache/cache_fixture.h"

namespace tidegate::cache {
namespace {

using namespace testing;

constexpr const char* kChildDirectory = "TIDEGATE_CACHE_TEST_CHILD";

class CacheOnDisk : public CacheFixture {
 protected:
  Options on_disk(uint64_t disk_bytes = 64 << 20) {
    Options options;
    options.directory = directory.path("cache");
    options.disk_bytes = disk_bytes;
    options.commit_interval_ms = 5;
    return options;
  }
  void expect_hit(std::string_view path, std::string_view body) {
    Lookup hit = find(get(path));
    ASSERT_EQ(hit.outcome, Outcome::hit) << path;
    EXPECT_TRUE(read_all(hit.answer) == body) << path;
  }

  TempDir directory;
};

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
  EXPECT_TRUE(late.outcome == Outcome::attach || late.outcome == Outcome::hit);
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
  EXPECT_EQ(find(get("/url")).outcome, Outcome::fetch);
  EXPECT_EQ(find(get("/tag")).outcome, Outcome::fetch);
  EXPECT_EQ(find(get("/soft")).status.forward, Forward::stale);
  expect_hit("/kept", "kept");
  purge.kind = PurgeKind::all;
  purge.soft = false;
  purge.sequence = 4;
  cache->purge(purge);
  cache->flush();
  open(on_disk());
  EXPECT_EQ(find(get("/kept")).outcome, Outcome::fetch);
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
  EXPECT_EQ(find(get("/a")).outcome, Outcome::fetch);
  cache->flush();
  EXPECT_EQ(cache->last_applied_purge(), (PurgePosition{1, 2'000}));
  open(on_disk());
  EXPECT_EQ(cache->last_applied_purge(), (PurgePosition{1, 2'000}));
  store("/a", {{"Cache-Control", "max-age=60"}, {"Cache-Tag", "news"}}, "a");
  purge.sequence = 2;
  purge.at_ns = 3'000;
  cache->purge(purge);
  EXPECT_EQ(find(get("/a")).outcome, Outcome::fetch) << "a number that the old log had used";
  everything.sequence = 0;  // once more, from a log that is still empty
  everything.at_ns = 0;
  cache->purge(everything);
  cache->flush();
  open(on_disk());
  EXPECT_EQ(cache->last_applied_purge(), PurgePosition());
}

TEST_F(CacheOnDisk, AUrlThatIsPurgedWhileItsRecordIsBeingReadDoesNotComeBack) {
  constexpr int kObjects = 500, kStarts = 8;
  const auto path = [](int i) { return "/" + std::to_string(i); };
  for (int start = 0; start < kStarts; ++start) {
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
      ASSERT_EQ(cache->explain(get(target), policy, now_ms()).outcome, Outcome::fetch) << target;
    }
  }
}

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
  ASSERT_EQ(hit.outcome, Outcome::hit);
  EXPECT_EQ(read_all(hit.answer), "body");
}

// Overwrites the first occurrence of `needle` in the data file.
bool damage(const std::string& directory, const std::string& needle) {
  std::fstream file(directory + "/data.mdb", std::ios::in | std::ios::out | std::ios::binary);
  const std::string all((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  file.clear();
  bool found = false;
  for (size_t at = all.find(needle); at != std::string::npos; at = all.find(needle, at + 1)) {
    file.seekp(static_cast<std::streamoff>(at));
    file.write("DAMAGED!", 8);
    found = true;
  }
  return found;
}

TEST_F(CacheOnDisk, ADamagedChunkIsAMissAndIsErased) {
  open(on_disk());
  const std::string body = body_of(50'000);
  store("/a", fresh_minute(), body);
  store("/b", fresh_minute(), "b");
  cache->flush();
  cache = nullptr;
  ASSERT_TRUE(damage(directory.path("cache"), body.substr(20'000, 64)));
  open(on_disk());
  EXPECT_EQ(find(get("/a")).outcome, Outcome::fetch);
  EXPECT_EQ(metric("tidegate_cache_corrupt_total"), 1);
  expect_hit("/b", "b");
  store("/a", fresh_minute(), "again");
  expect_hit("/a", "again");
}

TEST_F(CacheOnDisk, ADamagedRecordIsLeftOutAndTheOthersAreServed) {
  open(on_disk());
  store("/a", {{"Cache-Control", "max-age=60"}, {"X-Mark", "find-this-record-please"}}, "a");
  store("/b", fresh_minute(), "b");
  cache->flush();
  cache = nullptr;
  ASSERT_TRUE(damage(directory.path("cache"), "find-this-record-please"));
  open(on_disk());
  EXPECT_EQ(find(get("/a")).outcome, Outcome::fetch);
  expect_hit("/b", "b");
}

size_t copies_in(const std::string& directory) {
  size_t copies = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    copies += entry.path().filename() == "data.mdb";
  }
  return copies - 1;  // without the copy in use
}

TEST_F(CacheOnDisk, AnEnvironmentThatCannotBeUsedIsSetAsideUntilTheNextStart) {
  for (int again = 0; again < 2; ++again) {
    open(on_disk());
    store("/a", fresh_minute(), "a");
    cache->flush();
    cache = nullptr;
    {
      std::ofstream file(directory.path("cache") + "/data.mdb", std::ios::binary | std::ios::trunc);
      file << std::string(100'000, 'z');
    }
    open(on_disk());
    EXPECT_EQ(find(get("/a")).outcome, Outcome::fetch);
    store("/b", fresh_minute(), "b");
    cache->flush();
    EXPECT_EQ(copies_in(directory.path("")), 1U) << "one, however often it happens";
  }
  open(on_disk());
  expect_hit("/b", "b");
  EXPECT_EQ(copies_in(directory.path("")), 0U);
}

TEST_F(CacheOnDisk, AnotherFormatIsSetAside) {
  open(on_disk());
  store("/a", fresh_minute(), "a");
  cache->flush();
  cache = nullptr;
  ASSERT_TRUE(damage(directory.path("cache"), "tidegate-cache 2"));
  open(on_disk());
  EXPECT_EQ(find(get("/a")).outcome, Outcome::fetch);
  EXPECT_EQ(copies_in(directory.path("")), 1U);
  EXPECT_EQ(cache->totals().disk_trouble, "");
  store("/b", fresh_minute(), "b");
  cache->flush();
  open(on_disk());
  expect_hit("/b", "b");
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
  EXPECT_EQ(find(get("/a")).outcome, Outcome::fetch);
  store("/b", fresh_minute(), "b");
  expect_hit("/b", "b");
  cache = nullptr;
  cache = std::move(*other);
  cache->flush();
  expect_hit("/a", "a");
  open(on_disk());  // what the first cache stored is there, and its space is free again
  EXPECT_EQ(cache->totals().disk_trouble, "");
  expect_hit("/a", "a");
  EXPECT_EQ(find(get("/b")).outcome, Outcome::fetch);
}

TEST_F(CacheOnDisk, AStartThatWasKilledWhileItReadTheIndexKeepsTheCache) {
  open(on_disk());
  store("/a", fresh_minute(), "a");
  cache->flush();
  cache = nullptr;
  const std::string path = directory.path("cache");
  for (const char* mark : {"/loading", "/in-use"}) std::ofstream(path + mark) << '.';
  open(on_disk());
  expect_hit("/a", "a");
  cache = nullptr;
  std::ofstream(path + "/loading") << "...";  // three in a row, so it is not by chance
  open(on_disk());
  EXPECT_EQ(find(get("/a")).outcome, Outcome::fetch);
}

// LMDB fails an assertion, and would abort, if it meets such pages while it writes.
TEST_F(CacheOnDisk, AFileGarbledWhileItIsUsedEndsTheDiskTierAndNotTheProcess) {
  open(on_disk());
  for (int i = 0; i < 400; ++i) store("/" + std::to_string(i), fresh_minute(), body_of(3'000, i));
  cache->flush();
  {
    std::fstream file(directory.path("cache") + "/data.mdb", std::ios::in | std::ios::out | std::ios::binary);
    const auto bytes = std::filesystem::file_size(directory.path("cache") + "/data.mdb");
    // Flags and bounds of every page except the two meta pages.
    constexpr char kBranchOfOneKey[] = {1, 0, 18, 0, 18, 0};
    for (uint64_t at = 8192; at < bytes; at += 4096) {
      file.seekp(static_cast<std::streamoff>(at + 10));
      file.write(kBranchOfOneKey, sizeof kBranchOfOneKey);
    }
  }
  for (int i = 0; i < 400; ++i) store("/new-" + std::to_string(i), fresh_minute(), body_of(3'000, i));
  cache->flush();
  EXPECT_NE(cache->totals().disk_trouble.find("frozen"), std::string::npos) << cache->totals().disk_trouble;
  expect_hit("/new-399", body_of(3'000, 399));
  cache = nullptr;
  open(on_disk());
  EXPECT_EQ(cache->totals().disk_trouble, "");
  store("/a", fresh_minute(), "a");
  cache->flush();
  open(on_disk());
  expect_hit("/a", "a");
}

// Random bytes over the file in place, as a stray program or a failing disk would leave them.
void scribble(const std::string& path, uint64_t from, unsigned seed) {
  std::mt19937 random(seed);
  const uint64_t bytes = std::filesystem::file_size(path);
  std::string noise(bytes - from, '\0');
  for (char& c : noise) c = static_cast<char>(random());
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(from));
  file.write(noise.data(), static_cast<std::streamsize>(noise.size()));
}

TEST_F(CacheOnDisk, AFileScribbledOnWhileItIsUsedGivesNoWrongByteAndEndsNoProcess) {
  const std::string file = directory.path("cache") + "/data.mdb";
  constexpr int kObjects = 40;
  const auto body = [](int i) { return body_of(i % 4 == 0 ? 400'000 : 3'000, static_cast<uint64_t>(i)); };
  for (const unsigned seed : {1U, 2U, 3U}) {
    Options options = on_disk();
    options.ram_bytes = 1 << 20;
    open(options);
    EXPECT_EQ(cache->totals().disk_trouble, "") << "each start comes to a sound cache";
    for (int i = 0; i < kObjects; ++i) store("/" + std::to_string(i), fresh_minute(), body(i));
    cache->flush();
    open(options);  // on disk alone
    expect_hit("/1", body(1));
    scribble(file, seed == 1 ? 0 : 8192, seed);
    for (int round = 0; round < 2; ++round) {
      for (int i = 0; i < kObjects; ++i) {
        Lookup found = find(get("/" + std::to_string(i)));
        if (found.outcome == Outcome::fetch) {
          fill(found, 200, fresh_minute(), body(i));
        } else if (found.outcome == Outcome::hit || found.outcome == Outcome::attach) {
          std::string read;
          const bool whole = read_to_end(found.answer, read);
          EXPECT_TRUE(!whole || read == body(i)) << "whole and right, or an error";
        }
      }
      cache->flush();
    }
    EXPECT_NE(cache->totals().disk_trouble, "") << "and it says so";
    cache = nullptr;
  }
}

TEST_F(CacheOnDisk, AFileScribbledOnBetweenTwoRunsIsReplacedAndEndsNoProcess) {
  const std::string file = directory.path("cache") + "/data.mdb";
  for (unsigned seed = 0; seed < 6; ++seed) {
    open(on_disk());
    EXPECT_EQ(cache->totals().disk_trouble, "");
    for (int i = 0; i < 20; ++i)
      store("/" + std::to_string(i), fresh_minute(), body_of(3'000, static_cast<uint64_t>(i)));
    cache->flush();
    cache = nullptr;
    if (seed % 2 == 0) {
      scribble(file, 8192, seed);
    } else {  // a single page
      std::fstream data(file, std::ios::in | std::ios::out | std::ios::binary);
      data.seekp(static_cast<std::streamoff>((2 + seed * 7 % 30) * 4096));
      data.write(body_of(4096, seed).data(), 4096);
    }
    open(on_disk());
    EXPECT_EQ(cache->totals().disk_trouble, "") << seed;
    for (int i = 0; i < 20; ++i) {
      Lookup found = find(get("/" + std::to_string(i)));
      const std::string body = body_of(3'000, static_cast<uint64_t>(i));
      if (found.outcome == Outcome::fetch) {
        fill(found, 200, fresh_minute(), body);
      } else {
        EXPECT_TRUE(read_all(found.answer) == body) << seed;
      }
    }
    cache->flush();
    EXPECT_EQ(cache->totals().disk_trouble, "") << seed;
    Purge all;
    all.kind = PurgeKind::all;
    cache->purge(all);
  }
}

TEST_F(CacheOnDisk, AFileThatACrashLeftIsCheckedBesideServing) {
  const std::string file = directory.path("cache") + "/data.mdb", mark = directory.path("cache") + "/in-use";
  open(on_disk());
  for (int i = 0; i < 50; ++i) store("/" + std::to_string(i), fresh_minute(), body_of(3'000, static_cast<uint64_t>(i)));
  Purge purge;
  purge.kind = PurgeKind::tag;
  purge.value = "news";
  purge.sequence = 7;
  cache->purge(purge);
  cache->flush();
  cache = nullptr;
  {
    std::ofstream in_use(mark);  // as a killed process leaves it
  }
  open(on_disk());
  expect_hit("/7", body_of(3'000, 7));
  cache = nullptr;
  { std::ofstream in_use(mark); }
  // Every leaf page with meta records (keys of 24 bytes) says that its entries lie outside.
  std::fstream data(file, std::ios::in | std::ios::out | std::ios::binary);
  const uint64_t pages = std::filesystem::file_size(file) / 4096;
  for (uint64_t page = 2; page < pages; ++page) {
    char bytes[4096];
    data.seekg(static_cast<std::streamoff>(page * 4096));
    data.read(bytes, sizeof bytes);
    uint16_t flags = 0, node = 0, key_bytes = 0;
    std::memcpy(&flags, bytes + 10, 2);
    std::memcpy(&node, bytes + 16, 2);
    if (flags != 2 || node + 8U > sizeof bytes) continue;
    std::memcpy(&key_bytes, bytes + node + 6, 2);
    if (key_bytes != 24) continue;
    data.seekp(static_cast<std::streamoff>(page * 4096 + 16));
    data.write("\xff\xff", 2);
  }
  data.close();
  auto store = Store::open(directory.path("cache"), 64 << 20);
  ASSERT_TRUE(store);
  EXPECT_TRUE((*store)->must_check()) << "not yet looked at";
  EXPECT_FALSE((*store)->check());
  store->reset();
  { std::ofstream in_use(mark); }
  open(on_disk());
  EXPECT_EQ(cache->totals().objects, 0U);
  EXPECT_EQ(cache->totals().disk_trouble, "");
  EXPECT_EQ(cache->last_applied_purge().sequence, 7U) << "the purges that were missed are known";
  EXPECT_TRUE(std::filesystem::exists(directory.path("cache") + "/set-aside/data.mdb"));
  CacheFixture::store("/new", fresh_minute(), "new");
  cache->flush();
  open(on_disk());
  expect_hit("/new", "new");
  EXPECT_EQ(cache->last_applied_purge().sequence, 7U);
}

TEST_F(CacheOnDisk, AHeaderThatDoesNotFitItsSealIsNotBelieved) {
  const std::string file = directory.path("cache") + "/data.mdb";
  open(on_disk());
  store("/a", fresh_minute(), "a");
  Purge purge;
  purge.kind = PurgeKind::tag;
  purge.value = "news";
  purge.sequence = 0x5ea1ed0badcafe01;
  cache->purge(purge);
  cache->flush();
  cache = nullptr;
  std::string text;
  {
    std::ifstream in(file, std::ios::binary);
    text.assign(std::istreambuf_iterator<char>(in), {});
  }
  char number[8];
  std::memcpy(number, &purge.sequence, 8);
  size_t changed = 0;
  for (size_t at = text.find({number, 8}); at != std::string::npos; at = text.find({number, 8}, at + 1)) {
    text[at] = '\x7f';
    ++changed;
  }
  ASSERT_GE(changed, 2U);
  std::ofstream(file, std::ios::binary) << text;
  open(on_disk());
  EXPECT_EQ(cache->last_applied_purge().sequence, 0U) << "a wrong one would hide purges";
  EXPECT_EQ(find(get("/a")).outcome, Outcome::fetch);
}

TEST_F(CacheOnDisk, AFileCutShortIsMovedAsideAndNeverFaults) {
  open(on_disk());
  for (int i = 0; i < 50; ++i) store("/" + std::to_string(i), fresh_minute(), body_of(100'000, i));
  cache->flush();
  cache = nullptr;
  const std::string file = directory.path("cache") + "/data.mdb";
  std::filesystem::resize_file(file, std::filesystem::file_size(file) / 2);
  open(on_disk());
  for (int i = 0; i < 50; ++i) EXPECT_NE(find(get("/" + std::to_string(i))).outcome, Outcome::hit);
  store("/0", fresh_minute(), "anew");
  expect_hit("/0", "anew");
}

TEST_F(CacheOnDisk, AnUnusableDirectoryMeansMemoryOnly) {
  Options options;
  options.directory = "/proc/no-such-place/cache";
  open(options);
  store("/a", fresh_minute(), "a");
  expect_hit("/a", "a");
}

TEST_F(CacheOnDisk, ChurnAtTheHighWaterMarkEvictsAndNeverFailsACommit) {
  Options options = on_disk(32 << 20);
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
  EXPECT_GT(metric("tidegate_cache_evicted_total{tier=\"disk\"}"), 100);
  EXPECT_LE(cache->totals().disk_bytes, options.disk_bytes * 90 / 100);
  EXPECT_GT(cache->totals().disk_bytes, options.disk_bytes / 2);
  EXPECT_GT(metric("tidegate_cache_stored_total{tier=\"disk\"}"), 500);
}

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
    ASSERT_EQ(hit.outcome, Outcome::hit) << i;
    EXPECT_TRUE(read_all(hit.answer) == body_of(100'000, i)) << i;
  }
  Purge all;
  all.kind = PurgeKind::all;
  cache->purge(all);
  cache->flush();
  EXPECT_EQ(find(get("/0")).outcome, Outcome::fetch);
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

// --- kill -9

class CacheChild : public CacheOnDisk {};

// The test below runs this in its own process and kills it while it stores.
TEST_F(CacheChild, DISABLED_StoresUntilKilled) {
  Options options = on_disk(32 << 20);
  options.directory = std::getenv(kChildDirectory);
  open(options);
  for (uint64_t i = 0;; ++i) {
    store("/" + std::to_string(i), fresh_minute(), body_of(1'000 + i * 7'919 % 150'000, i));
    if (i % 10 != 9) continue;
    cache->flush();
    ASSERT_EQ(::write(STDOUT_FILENO, ".", 1), 1);
  }
}

TEST_F(CacheOnDisk, AfterKillNineWhatIsThereIsWholeAndWhatWasFlushedIsThere) {
  const std::string child_directory = directory.path("child");
  int pipe_ends[2];
  ASSERT_EQ(::pipe(pipe_ends), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::dup2(pipe_ends[1], STDOUT_FILENO);
    ::close(pipe_ends[0]);
    ::setenv(kChildDirectory, child_directory.c_str(), 1);
    ::setenv("TMPDIR", directory.path("").c_str(), 1);  // what the killed process leaves is removed with our directory
    ::execl("/proc/self/exe", "cache_test", "--gtest_filter=CacheChild.DISABLED_StoresUntilKilled",
            "--gtest_also_run_disabled_tests", "--gtest_brief=1", nullptr);
    ::_exit(127);
  }
  ::close(pipe_ends[1]);
  int dots = 0;
  for (char byte = 0; dots < 12 && ::read(pipe_ends[0], &byte, 1) == 1;) dots += byte == '.';
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  ::close(pipe_ends[0]);
  ASSERT_EQ(dots, 12) << "the child ended by itself";

  Options options = on_disk(32 << 20);
  options.directory = child_directory;
  open(options);
  const auto flushed = static_cast<uint64_t>(dots) * 10;
  for (uint64_t i = 0; i < flushed + 20; ++i) {
    Lookup found = find(get("/" + std::to_string(i)));
    if (i < flushed) {
      ASSERT_EQ(found.outcome, Outcome::hit) << i;
    }
    if (found.outcome == Outcome::hit) {
      EXPECT_TRUE(read_all(found.answer) == body_of(1'000 + i * 7'919 % 150'000, i)) << i;
    }
  }
  EXPECT_EQ(metric("tidegate_cache_corrupt_total"), 0);
}

}  // namespace
}  // namespace tidegate::cache
