// SPDX-License-Identifier: Apache-2.0
// Reads on the loop's own thread: only of data in the page cache, and always with the same answer as the reader pool's.
#include "cache/disk/resident_reader.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "core/fd.h"
#include "tests/unit/cache/cache_fixture.h"

namespace tidegate::cache::resident_test {

using namespace testing;

class ResidentReads : public CacheFixture {
 protected:
  Options without_memory_tier() {
    Options options;
    options.directory = directory.path("cache");
    options.disk_bytes = 64 << 20;
    options.ram_bytes = 0;
    options.commit_interval_ms = 5;
    return options;
  }
  double hits_disk() { return metric("tidegate_cache_hits_total{tier=\"disk\"}"); }
  // The answer must be there without waiting, and be correct. It must also be read from disk: while the thread that
  // read it last still holds the object, the answer comes from that copy, so we repeat.
  void expect_at_once(std::string_view path, std::string_view body) {
    for (const double before = hits_disk(); hits_disk() == before;) {
      auto question = ask(get(path));
      ASSERT_TRUE(question->found) << path;
      ASSERT_EQ(question->found->outcome, LookupOutcome::hit) << path;
      EXPECT_TRUE(read_all(question->found->answer) == body) << path;
    }
  }
  void expect_by_the_pool(std::string_view path, std::string_view body) {
    const double before = hits_disk();
    auto question = ask(get(path));
    while (question->found) {
      ASSERT_EQ(hits_disk(), before) << path << " was read on the loop's thread";
      question = nullptr;
      question = ask(get(path));  // while another thread still holds the object, the answer comes from that copy
    }
    Lookup hit = settle(std::move(question));
    ASSERT_EQ(hit.outcome, LookupOutcome::hit) << path;
    EXPECT_TRUE(read_all(hit.answer) == body) << path;
  }
  void store_on_disk(std::string_view path, std::string_view body) {
    store(path, fresh_minute(), body);
    cache->flush();
    loop.run_once(0);
  }

  TempDir directory;
};

TEST(PageCache, HoldsWhatWasWrittenAndNotTheHolesOfAFile) {
  const TempDir directory;
  const std::string path = directory.path("file");
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const UniqueFd fd(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  ASSERT_EQ(::ftruncate(fd.get(), static_cast<off_t>(64 * page)), 0);
  ASSERT_EQ(::pwrite(fd.get(), "x", 1, static_cast<off_t>(32 * page)), 1);
  void* const map = ::mmap(nullptr, 64 * page, PROT_READ, MAP_SHARED, fd.get(), 0);
  ASSERT_NE(map, MAP_FAILED);
  const char* const at = static_cast<const char*>(map);
  EXPECT_TRUE(is_in_page_cache(at + 32 * page, page));
  EXPECT_TRUE(is_in_page_cache(at + 32 * page + 100, 1));
  EXPECT_FALSE(is_in_page_cache(at, 1));
  EXPECT_FALSE(is_in_page_cache(at + 32 * page + 100, page)) << "one page of two";
  EXPECT_FALSE(is_in_page_cache(at + 31 * page + 100, page)) << "one page of two";
  ::munmap(map, 64 * page);
  EXPECT_FALSE(is_in_page_cache(at + 32 * page, page)) << "nothing is mapped there";
}

TEST_F(ResidentReads, AHitOnDiskIsAnsweredAtOnceOnceThePoolHasSeenWhereItLies) {
  open(without_memory_tier());
  const std::vector<std::pair<std::string, std::string>> objects{{"/empty", ""},
                                                                 {"/leaf", body_of(1'000)},
                                                                 {"/edge", body_of(2'050)},
                                                                 {"/pages", body_of(60'000)},
                                                                 {"/chunk", body_of(kChunkBytes)}};
  for (const auto& [path, body] : objects) store_on_disk(path, body);
  for (const auto& [path, body] : objects) expect_by_the_pool(path, body);
  for (int round = 0; round < 20; ++round) {
    for (const auto& [path, body] : objects) {
      loop.run_once(0);
      expect_at_once(path, body);
    }
  }
  EXPECT_EQ(hits_disk(), 105);
  EXPECT_GT(metric("tidegate_cache_oldest_read_seconds"), 0) << "a snapshot lasts until the turn ends";
  loop.run_once(0);
  EXPECT_EQ(metric("tidegate_cache_oldest_read_seconds"), 0);
}

TEST_F(ResidentReads, LargerObjectsAndHeadsOfTheirOwnAreLeftToThePool) {
  open(without_memory_tier());
  const std::string two_chunks = body_of(kChunkBytes + 1);
  store_on_disk("/two", two_chunks);
  store("/head", {{"Cache-Control", "max-age=60"}, {"X-Long", std::string(3'000, 'x')}}, "hello");
  cache->flush();
  for (int round = 0; round < 3; ++round) {
    loop.run_once(0);
    expect_by_the_pool("/two", two_chunks);
    expect_by_the_pool("/head", "hello");
  }
}

TEST_F(ResidentReads, AfterARestartThePoolIsTheFirstToLook) {
  open(without_memory_tier());
  store_on_disk("/a", "hello");
  open(without_memory_tier());
  expect_by_the_pool("/a", "hello");
  expect_at_once("/a", "hello");
}

TEST_F(ResidentReads, ACacheMayGoBeforeTheTurnInWhichItWasReadHasEnded) {
  open(without_memory_tier());
  store_on_disk("/a", "hello");
  expect_by_the_pool("/a", "hello");
  expect_at_once("/a", "hello");
  open(without_memory_tier());
  loop.run_once(0);
  expect_by_the_pool("/a", "hello");
  expect_at_once("/a", "hello");
}

TEST_F(ResidentReads, ATurnOfTheLoopReadsABoundedNumberOfBytes) {
  open(without_memory_tier());
  const std::string body = body_of(60'000);
  store_on_disk("/a", body);
  expect_by_the_pool("/a", body);
  loop.run_once(0);
  const double before = hits_disk();
  double after = before;
  std::unique_ptr<Ask> question;
  for (;;) {
    question = nullptr;  // releases the object, so that the next lookup must read it again
    question = ask(get("/a"));
    if (!question->found || after > before + 100) break;
    after = hits_disk();
  }
  EXPECT_EQ(after, before + 5) << "the one that passes the bound included";
  Lookup hit = settle(std::move(question));
  EXPECT_TRUE(read_all(hit.answer) == body);
  hit = Lookup();
  loop.run_once(0);
  expect_at_once("/a", body);
}

TEST_F(ResidentReads, NeighboursThatComeAndGoMoveTheRecordsAndNothingIsLost) {
  open(without_memory_tier());
  const auto body = [](int i) { return body_of(700 + static_cast<size_t>(i) * 13, static_cast<uint64_t>(i) + 1); };
  const auto path = [](int i) { return "/" + std::to_string(i); };
  for (int i = 0; i < 40; ++i) {
    store(path(i), fresh_minute(), body(i));
    if (i % 4 == 3) {
      Purge purge;
      purge.value = "https://www.example.test" + path(i - 2);
      cache->purge(purge);
    }
    cache->flush();
    loop.run_once(0);
    for (int seen = 0; seen <= i; ++seen) {
      const bool gone = seen % 4 == 1 && seen / 4 < (i + 1) / 4;
      if (gone) continue;
      Lookup hit = find(get(path(seen)));
      ASSERT_EQ(hit.outcome, LookupOutcome::hit) << seen << " after " << i;
      ASSERT_TRUE(read_all(hit.answer) == body(seen)) << seen << " after " << i;
    }
  }
  for (int i = 1; i < 40; i += 4) EXPECT_EQ(find(get(path(i))).outcome, LookupOutcome::fetch) << i;
  EXPECT_EQ(metric("tidegate_cache_corrupt_total"), 0);
}

TEST_F(ResidentReads, WhatWasPurgedIsAMiss) {
  open(without_memory_tier());
  store_on_disk("/url", "x");
  store("/tag", {{"Cache-Control", "max-age=60"}, {"Cache-Tag", "news"}}, "x");
  cache->flush();
  expect_by_the_pool("/url", "x");
  expect_by_the_pool("/tag", "x");
  Purge purge;
  purge.value = "https://www.example.test/url";
  cache->purge(purge);
  purge.kind = PurgeKind::tag;
  purge.value = "news";
  cache->purge(purge);
  EXPECT_EQ(find(get("/url")).outcome, LookupOutcome::fetch);
  EXPECT_EQ(find(get("/tag")).outcome, LookupOutcome::fetch);
}

// Overwrites the first occurrence of `needle` in the data file while the cache uses it.
bool damage(const std::string& directory, const std::string& needle) {
  std::fstream file(directory + "/data.mdb", std::ios::in | std::ios::out | std::ios::binary);
  const std::string all((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const size_t at = all.find(needle);
  if (at == std::string::npos) return false;
  file.clear();
  file.seekp(static_cast<std::streamoff>(at));
  file.write("DAMAGED!", 8);
  return true;
}

TEST_F(ResidentReads, DamageIsFoundCountedOnceAndErased) {
  open(without_memory_tier());
  const std::string body = body_of(50'000);
  store_on_disk("/a", body);
  expect_by_the_pool("/a", body);
  loop.run_once(0);
  expect_at_once("/a", body);
  ASSERT_TRUE(damage(directory.path("cache"), body.substr(20'000, 64)));
  EXPECT_EQ(find(get("/a")).outcome, LookupOutcome::fetch);
  EXPECT_EQ(metric("tidegate_cache_corrupt_total"), 1);
}

// The mapping of the data file in this process: where it begins, and its bytes.
std::pair<char*, size_t> map_of(const std::string& file) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find(file) == std::string::npos) continue;
    uintptr_t first = 0, end = 0;
    char dash = 0;
    std::istringstream(line) >> std::hex >> first >> dash >> end;
    return {reinterpret_cast<char*>(first), end - first};
  }
  return {nullptr, 0};
}

TEST_F(ResidentReads, APageThatIsColdIsLeftToThePool) {
  open(without_memory_tier());
  const std::string body = body_of(60'000);
  store_on_disk("/a", body);
  expect_by_the_pool("/a", body);
  loop.run_once(0);
  expect_at_once("/a", body);
  const std::string file = directory.path("cache") + "/data.mdb";
  const auto [map, bytes] = map_of(file);
  ASSERT_NE(map, nullptr);
  const UniqueFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_EQ(::fsync(fd.get()), 0);
  std::vector<const char*> warm;
  for (size_t at = 0; at < 2 << 20; at += 4096) {
    if (is_in_page_cache(map + at, 1)) warm.push_back(map + at);
  }
  ASSERT_GT(warm.size(), 15U);
  ::madvise(map, bytes, MADV_PAGEOUT);
  size_t still_warm = 0;
  for (const char* page : warm) still_warm += is_in_page_cache(page, 1);
  if (still_warm > 0) GTEST_SKIP() << "the kernel keeps " << still_warm << " pages";
  bool asks_again = false;
  Timer timer(loop, [&asks_again] { asks_again = true; });
  timer.arm_after_ns(ResidentReader::kTrustNs);
  while (!asks_again) loop.run_once(kNsPerS);
  loop.run_once(0);
  expect_by_the_pool("/a", body);
  loop.run_once(0);
  expect_at_once("/a", body);
}

}  // namespace tidegate::cache::resident_test
