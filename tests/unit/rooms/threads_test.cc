// SPDX-License-Identifier: Apache-2.0
// The TSan tree builds only the tests in which several threads run. A new test that starts a thread must be among them.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace tidegate::threads_test {

namespace fs = std::filesystem;

std::string text_of(const fs::path& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(Threads, TestsThatStartThreadsAreBuiltForTsan) {
  size_t found = 0;
  for (const fs::directory_entry& room : fs::directory_iterator(TIDEGATE_SOURCE_ROOT "/tests/unit")) {
    if (!room.is_directory()) continue;
    const std::string build = text_of(room.path() / "meson.build");
    const size_t list = build.find("_threads_test'");
    for (const fs::directory_entry& entry : fs::directory_iterator(room.path())) {
      const std::string name = entry.path().filename();
      if (!name.ends_with("_test.cc") || entry.path().parent_path().filename() == "rooms") continue;
      const std::string text = text_of(entry.path());
      if (text.find("std::thread") == std::string::npos && text.find("std::jthread") == std::string::npos) continue;
      ++found;
      EXPECT_NE(list == std::string::npos ? list : build.find("'" + name + "'", list), std::string::npos)
          << entry.path() << " starts a thread: name it in the list of " << room.path().filename().string()
          << "_threads_test in " << (room.path() / "meson.build");
    }
  }
  EXPECT_GT(found, 5u);
}

}  // namespace tidegate::threads_test
