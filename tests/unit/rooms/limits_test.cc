// SPDX-License-Identifier: Apache-2.0
// LIMITS.md must match the rooms' tables of limits, and each counter that a row names must exist in its room.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "cache/limits.h"
#include "conf/limits.h"
#include "control/limits.h"
#include "core/limits.h"
#include "dns/limits.h"
#include "l4/limits.h"
#include "l7/limits.h"

namespace tidegate::limits_test {

namespace fs = std::filesystem;

struct Limit {
  std::string room, constant, value, unit, reason, at_limit, counter;
};

// "262,144": digits in groups of three.
std::string grouped(uint64_t value) {
  std::string out = std::to_string(value);
  for (size_t at = out.size(); at > 3;) out.insert(at -= 3, 1, ',');
  return out;
}

#define TIDEGATE_LIMIT(constant, type, expression, unit, reason, at_limit, counter) \
  out.push_back({room, #constant, grouped(static_cast<uint64_t>(constant)), unit, reason, at_limit, counter});

std::vector<Limit> all_limits() {
  std::vector<Limit> out;
  {
    const std::string room = "core";
#include "core/limits.def"
  }
  {
    const std::string room = "conf";
#include "conf/limits.def"
  }
  {
    const std::string room = "control";
#include "control/limits.def"
  }
  {
    using namespace l4;
    const std::string room = "l4";
#include "l4/limits.def"
  }
  {
    using namespace l7;
    const std::string room = "l7";
#include "l7/limits.def"
  }
  {
    using namespace cache;
    const std::string room = "cache";
#include "cache/limits.def"
  }
  {
    using namespace dns;
    const std::string room = "dns";
#include "dns/limits.def"
  }
  return out;
}

#undef TIDEGATE_LIMIT

std::string page() {
  std::string out =
      "# Limits\n\n"
      "Every bound on what a client, a backend or another peer can use, from the tables that the code itself uses\n"
      "(`*/limits.def`). Bounds that an operator sets are in [conf/REFERENCE.md](conf/REFERENCE.md).\n";
  std::string room;
  for (const Limit& limit : all_limits()) {
    if (limit.room != room) {
      room = limit.room;
      out += "\n## " + room + "\n\n| limit | value | why | what happens at it | counter |\n|---|---|---|---|---|\n";
    }
    const std::string counter = limit.counter == "-" ? "" : "`" + limit.counter + "`";
    out += "| `" + limit.constant + "` | " + limit.value + " " + limit.unit + " | " + limit.reason + " | " +
           limit.at_limit + " | " + counter + " |\n";
  }
  return out;
}

std::string text_of(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

const fs::path kRoot = TIDEGATE_SOURCE_ROOT;

// TIDEGATE_UPDATE=1 rewrites the page.
TEST(Limits, ArePrintedAsTheTablesSay) {
  const fs::path path = kRoot / "LIMITS.md";
  if (std::getenv("TIDEGATE_UPDATE") != nullptr) std::ofstream(path, std::ios::binary) << page();
  EXPECT_EQ(text_of(path), page()) << "run rooms_test with TIDEGATE_UPDATE=1 to write it anew";
}

TEST(Limits, SayTheirReasonAndWhatHappens) {
  std::set<std::string> seen;
  for (const Limit& limit : all_limits()) {
    EXPECT_TRUE(seen.insert(limit.room + "." + limit.constant).second) << limit.constant;
    EXPECT_FALSE(limit.unit.empty() || limit.reason.empty() || limit.at_limit.empty() || limit.counter.empty())
        << limit.constant;
    EXPECT_EQ((limit.reason + limit.at_limit).find('|'), std::string::npos) << limit.constant;
  }
}

// A counter is "-", or a metric whose whole name occurs in the sources of the room.
TEST(Limits, NameCountersThatExist) {
  for (const Limit& limit : all_limits()) {
    if (limit.counter == "-") continue;
    const std::string name = limit.counter.substr(0, limit.counter.find('{'));
    bool found = false;
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(kRoot / limit.room)) {
      if (entry.path().extension() != ".cc" && entry.path().extension() != ".h") continue;
      found = found || text_of(entry.path()).find('"' + name + '"') != std::string::npos;
    }
    EXPECT_TRUE(found) << limit.room << "/limits.def: no source registers " << name;
  }
}

}  // namespace tidegate::limits_test
