// SPDX-License-Identifier: Apache-2.0
// The rooms may include each other in one direction only. This test reads every #include of the source tree.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

// The folders of each room, and which other folders of the room each may include. All may include the files next to the
// folders.
const std::map<std::string, std::set<std::string>> kMayInclude = {
    {"core", {}},
    {"conf", {"core"}},
    {"cache", {"core", "conf"}},
    {"l7", {"core", "conf", "cache"}},
    {"dns", {"core", "conf"}},
    {"control", {"core", "conf", "dns/plan", "l4/plan", "l7/plan"}},
    {"l4", {"core", "conf"}},
};

// Folders of a room that has them, and which other folders of the room each may include. The files beside the folders
// may be included by all.
const std::map<std::string, std::set<std::string>> kFolderMayInclude = {
    {"dns/wire", {}},
    {"dns/zone", {"dns/wire"}},
    {"dns/steer", {"dns/wire"}},
    {"dns/plan", {"dns/wire", "dns/zone", "dns/steer"}},
    {"dns/query", {"dns/wire", "dns/zone", "dns/steer", "dns/plan"}},
    {"dns/httpdns", {"dns/wire", "dns/zone", "dns/steer", "dns/plan", "dns/query"}},
    {"dns/xdp", {"dns/wire", "dns/zone", "dns/steer", "dns/plan", "dns/query"}},
    {"dns/server", {"dns/wire", "dns/zone", "dns/steer", "dns/plan", "dns/query", "dns/httpdns", "dns/xdp"}},
    {"l4/plan", {}},
    {"l7/wire", {}},
    {"l7/route", {}},
    {"l7/plan", {"l7/route"}},
};

struct Include {
  std::string line;    // "conf/plane.cc:12"
  std::string file;    // "conf/plane.cc"
  std::string target;  // "core/clock.h"
};

std::string room_of(const std::string& path) { return path.substr(0, path.find('/')); }

// "dns/wire" for "dns/wire/edns.h"; only the room for a file next to the folders.
std::string folder_of(const std::string& path) { return path.substr(0, path.rfind('/')); }

// Every #include "..." of a file. Those with <...> are not ours.
std::vector<Include> includes_of(const fs::path& root, const fs::path& path) {
  std::vector<Include> out;
  std::ifstream file(path);
  const std::string name = fs::relative(path, root).string();
  int number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    const size_t hash = line.find_first_not_of(" \t");
    if (hash == std::string::npos || line[hash] != '#') continue;
    const size_t word = line.find_first_not_of(" \t", hash + 1);
    if (word == std::string::npos || line.compare(word, 7, "include") != 0) continue;
    const size_t begin = line.find('"', word);
    const size_t end = begin == std::string::npos ? begin : line.find('"', begin + 1);
    if (end == std::string::npos) continue;
    out.push_back({name + ":" + std::to_string(number), name, line.substr(begin + 1, end - begin - 1)});
  }
  return out;
}

std::vector<Include> includes_of_rooms(const fs::path& root) {
  std::vector<Include> out;
  for (const auto& [room, may_include] : kMayInclude) {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(root / room)) {
      const std::string extension = entry.path().extension().string();
      if (extension != ".h" && extension != ".cc" && extension != ".def") continue;
      for (Include& include : includes_of(root, entry.path())) out.push_back(std::move(include));
    }
  }
  return out;
}

const fs::path kRoot = TIDEGATE_SOURCE_ROOT;

TEST(Rooms, IncludeOnlyWhatStandsBelowThem) {
  const std::vector<Include> includes = includes_of_rooms(kRoot);
  ASSERT_GT(includes.size(), 100U) << "found too little to judge in " << kRoot;
  for (const Include& include : includes) {
    const std::string from = room_of(include.file), to = room_of(include.target);
    const std::set<std::string>& allowed = kMayInclude.at(from);
    EXPECT_TRUE(from == to || allowed.count(to) == 1 || allowed.count(folder_of(include.target)) == 1)
        << include.line << " includes " << include.target << ": " << from << " may not know of " << to;
  }
}

TEST(Rooms, HaveFoldersThatIncludeInOneDirection) {
  std::set<std::string> seen;
  for (const Include& include : includes_of_rooms(kRoot)) {
    const std::string from = folder_of(include.file), to = folder_of(include.target);
    if (room_of(from) != room_of(to) || from == to) continue;
    if (to == room_of(to)) {  // a file next to the folders belongs to no layer, so it includes none
      if (kFolderMayInclude.count(from) == 1) seen.insert(include.target);
      continue;
    }
    const auto known = kFolderMayInclude.find(from);
    if (known == kFolderMayInclude.end()) continue;
    EXPECT_EQ(known->second.count(to), 1U) << include.line << " includes " << include.target;
  }
  EXPECT_EQ(seen.count("dns/limits.h"), 1U) << "found too little to judge";
  for (const Include& include : includes_of_rooms(kRoot)) {
    if (seen.count(include.file) == 1) {
      EXPECT_EQ(kFolderMayInclude.count(folder_of(include.target)), 0U)
          << include.line << " includes " << include.target;
    }
  }
}

TEST(Rooms, NameEveryHeaderFromTheRoot) {
  for (const Include& include : includes_of_rooms(kRoot)) {
    EXPECT_TRUE(fs::is_regular_file(kRoot / include.target)) << include.line << " includes " << include.target;
  }
}

// Depth first; `path` is the path from the start. Returns the cycle if it finds one, else an empty string.
std::string find_cycle(const std::string& file, const std::map<std::string, std::vector<std::string>>& graph,
                       std::vector<std::string>& path, std::set<std::string>& done) {
  const auto on_path = std::find(path.begin(), path.end(), file);
  if (on_path != path.end()) {
    std::string cycle;
    for (auto at = on_path; at != path.end(); ++at) cycle += *at + " -> ";
    return cycle + file;
  }
  if (!done.insert(file).second) return {};
  path.push_back(file);
  if (const auto node = graph.find(file); node != graph.end()) {
    for (const std::string& next : node->second) {
      if (std::string cycle = find_cycle(next, graph, path, done); !cycle.empty()) return cycle;
    }
  }
  path.pop_back();
  return {};
}

TEST(Rooms, HaveNoCircleOfHeaders) {
  std::map<std::string, std::vector<std::string>> graph;
  for (const Include& include : includes_of_rooms(kRoot)) graph[include.file].push_back(include.target);
  std::set<std::string> done;
  for (const auto& [file, targets] : graph) {
    std::vector<std::string> path;
    EXPECT_EQ(find_cycle(file, graph, path, done), "");
  }
}

TEST(Rooms, SayTheirLicence) {
  size_t sources = 0;
  for (const char* folder : {"core", "conf", "cache", "l7", "dns", "control", "l4", "tests", "bench"}) {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(kRoot / folder)) {
      const std::string extension = entry.path().extension().string();
      if (extension != ".h" && extension != ".cc" && extension != ".def" && extension != ".py") continue;
      ++sources;
      std::ifstream file(entry.path());
      std::string first, second;
      std::getline(file, first);
      std::getline(file, second);
      EXPECT_NE((first + second).find("SPDX-License-Identifier: Apache-2.0"), std::string::npos) << entry.path();
    }
  }
  EXPECT_GT(sources, 400U);
}

TEST(Rooms, WouldBeCaughtCheating) {
  const fs::path root = fs::path(::testing::TempDir()) / "rooms_test_tree";
  fs::create_directories(root / "core");
  std::ofstream(root / "core/a.h")
      << "#pragma once\n  #  include \"conf/model.h\"\n#include <vector>\n// #include \"x.h\"\n";
  const std::vector<Include> includes = includes_of(root, root / "core/a.h");
  ASSERT_EQ(includes.size(), 1U);
  EXPECT_EQ(includes[0].line, "core/a.h:2");
  EXPECT_EQ(includes[0].target, "conf/model.h");
  EXPECT_EQ(kMayInclude.at(room_of(includes[0].file)).count(room_of(includes[0].target)), 0U);
  EXPECT_EQ(kMayInclude.at("control").count(folder_of("dns/zone/zone.h")), 0U);
  std::vector<std::string> path;
  std::set<std::string> done;
  EXPECT_EQ(find_cycle("a", {{"a", {"b"}}, {"b", {"c"}}, {"c", {"b"}}}, path, done), "b -> c -> b");
  fs::remove_all(root);
}

}  // namespace
