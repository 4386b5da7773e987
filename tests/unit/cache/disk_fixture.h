// SPDX-License-Identifier: Apache-2.0
// A cache whose disk tier is in a directory of the test.
#pragma once

#include "tests/unit/cache/cache_fixture.h"

namespace tidegate::cache::testing {

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
    ASSERT_EQ(hit.outcome, LookupOutcome::hit) << path;
    EXPECT_TRUE(read_all(hit.answer) == body) << path;
  }

  TempDir directory;
};

}  // namespace tidegate::cache::testing
