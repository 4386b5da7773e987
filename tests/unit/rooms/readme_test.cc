// SPDX-License-Identifier: Apache-2.0
// The READMEs name functions and types. Every one of them must exist.
#include <gtest/gtest.h>

#include <cctype>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

const fs::path kRoot = TIDEGATE_SOURCE_ROOT;
const std::vector<std::string> kRooms = {"core", "conf", "cache", "l7", "dns", "control", "l4"};

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

std::string text_of(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

std::set<std::string> words_of(const std::string& text) {
  std::set<std::string> out;
  for (size_t at = 0; at < text.size();) {
    size_t end = at;
    while (end < text.size() && is_word(text[end])) ++end;
    if (end > at) out.insert(text.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

std::set<std::string> words_of_sources() {
  std::set<std::string> out;
  for (const std::string& room : kRooms) {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(kRoot / room)) {
      const std::string extension = entry.path().extension().string();
      if (extension == ".h" || extension == ".cc" || extension == ".def") out.merge(words_of(text_of(entry.path())));
    }
  }
  return out;
}

// The texts between back-quotes that are names of the code: `Type::member`, `Type::member()`, `function()`, `TypeName`,
// `some_function`. Commands, keys with dots or spaces, and metrics do not count.
std::vector<std::string> code_names(const std::string& text) {
  std::vector<std::string> out;
  for (size_t begin = text.find('`'); begin != std::string::npos; begin = text.find('`', begin)) {
    const size_t end = text.find('`', begin + 1);
    if (end == std::string::npos) break;
    std::string span = text.substr(begin + 1, end - begin - 1);
    begin = end + 1;
    const bool called = span.size() > 2 && span.compare(span.size() - 2, 2, "()") == 0;
    if (called) span.resize(span.size() - 2);
    const bool qualified = span.find("::") != std::string::npos;
    bool plain = !span.empty();
    for (const char c : span) plain = plain && (is_word(c) || c == ':');
    if (plain && (qualified || called)) out.push_back(span);
  }
  return out;
}

TEST(Pages, NameFunctionsThatExist) {
  const std::set<std::string> known = words_of_sources();
  std::vector<fs::path> pages = {kRoot / "README.md", kRoot / "ARCHITECTURE.md"};
  for (const std::string& room : kRooms) pages.push_back(kRoot / room / "README.md");
  size_t checked = 0;
  for (const fs::path& page : pages) {
    for (const std::string& name : code_names(text_of(page))) {
      ++checked;
      for (const std::string& word : words_of(name)) {
        EXPECT_EQ(known.count(word), 1U) << fs::relative(page, kRoot).string() << " names " << name;
      }
    }
  }
  EXPECT_GT(checked, 100U) << "found too few names to judge";
}

TEST(Pages, WouldBeCaughtNamingWhatIsGone) {
  EXPECT_EQ(code_names("`Worker::receive` and `answer()`, `l7.listen`, `./run test`, `Nope::gone()`"),
            (std::vector<std::string>{"Worker::receive", "answer", "Nope::gone"}));
  EXPECT_EQ(words_of("Nope::gone"), (std::set<std::string>{"Nope", "gone"}));
}

}  // namespace
