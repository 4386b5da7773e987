// SPDX-License-Identifier: Apache-2.0
// The disk tier and kill -9.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "cache/disk/store.h"
#include "tests/unit/cache/disk_fixture.h"

namespace tidegate::cache::disk_kill_test {

using namespace testing;

constexpr const char* kChildDirectory = "TIDEGATE_CACHE_TEST_CHILD";

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
    // files that the killed process leaves are removed with our directory
    ::setenv("TMPDIR", directory.path("").c_str(), 1);
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
      ASSERT_EQ(found.outcome, LookupOutcome::hit) << i;
    }
    if (found.outcome == LookupOutcome::hit) {
      EXPECT_TRUE(read_all(found.answer) == body_of(1'000 + i * 7'919 % 150'000, i)) << i;
    }
  }
  EXPECT_EQ(metric("tidegate_cache_corrupt_total"), 0);
}

}  // namespace tidegate::cache::disk_kill_test
