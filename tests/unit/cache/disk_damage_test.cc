// SPDX-License-Identifier: Apache-2.0
// The disk tier and damage: chunks, records, whole files, and files that a crash left.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "cache/disk/store.h"
#include "tests/unit/cache/disk_fixture.h"

namespace tidegate::cache::disk_damage_test {

using namespace testing;

// Overwrites every occurrence of `needle` in the data file.
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
  EXPECT_EQ(find(get("/a")).outcome, LookupOutcome::fetch);
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
  EXPECT_EQ(find(get("/a")).outcome, LookupOutcome::fetch);
  expect_hit("/b", "b");
}

size_t copies_in(const std::string& directory) {
  size_t copies = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    copies += entry.path().filename() == "data.mdb";
  }
  return copies - 1;  // except the copy in use
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
    EXPECT_EQ(find(get("/a")).outcome, LookupOutcome::fetch);
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
  EXPECT_EQ(find(get("/a")).outcome, LookupOutcome::fetch);
  EXPECT_EQ(copies_in(directory.path("")), 1U);
  EXPECT_EQ(cache->totals().disk_trouble, "");
  store("/b", fresh_minute(), "b");
  cache->flush();
  open(on_disk());
  expect_hit("/b", "b");
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
  std::ofstream(path + "/loading") << std::string(10, '.');  // ten in a row, so it is not chance
  open(on_disk());
  EXPECT_EQ(find(get("/a")).outcome, LookupOutcome::fetch);
}

// LMDB fails an assertion, and would abort, if it meets such pages while it writes.
TEST_F(CacheOnDisk, AFileGarbledWhileItIsUsedEndsTheDiskTierAndNotTheProcess) {
  open(on_disk());
  for (int i = 0; i < 400; ++i) store("/" + std::to_string(i), fresh_minute(), body_of(3'000, i));
  cache->flush();
  {
    std::fstream file(directory.path("cache") + "/data.mdb", std::ios::in | std::ios::out | std::ios::binary);
    const auto bytes = std::filesystem::file_size(directory.path("cache") + "/data.mdb");
    // Flags and offsets of every page except the two meta pages.
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
    open(options);  // only on disk
    expect_hit("/1", body(1));
    scribble(file, seed == 1 ? 0 : 8192, seed);
    for (int round = 0; round < 2; ++round) {
      for (int i = 0; i < kObjects; ++i) {
        Lookup found = find(get("/" + std::to_string(i)));
        if (found.outcome == LookupOutcome::fetch) {
          fill(found, 200, fresh_minute(), body(i));
        } else if (found.outcome == LookupOutcome::hit || found.outcome == LookupOutcome::attach) {
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
      if (found.outcome == LookupOutcome::fetch) {
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
  // Makes every leaf page with meta records (keys of 24 bytes) point outside.
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
  EXPECT_EQ(find(get("/a")).outcome, LookupOutcome::fetch);
}

TEST_F(CacheOnDisk, AFileCutShortIsMovedAsideAndNeverFaults) {
  open(on_disk());
  for (int i = 0; i < 50; ++i) store("/" + std::to_string(i), fresh_minute(), body_of(100'000, i));
  cache->flush();
  cache = nullptr;
  const std::string file = directory.path("cache") + "/data.mdb";
  std::filesystem::resize_file(file, std::filesystem::file_size(file) / 2);
  open(on_disk());
  for (int i = 0; i < 50; ++i) EXPECT_NE(find(get("/" + std::to_string(i))).outcome, LookupOutcome::hit);
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

}  // namespace tidegate::cache::disk_damage_test
