// SPDX-License-Identifier: Apache-2.0
// Files that people copy from: the examples must have no faults, and the key reference must be true.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "conf/model.h"
#include "tests/unit/conf/documents.h"

namespace tidegate::examples_test {

const std::filesystem::path kConf = std::filesystem::path(TIDEGATE_SOURCE_DIR) / "conf";

TEST(Examples, AreAllWithoutFaultsAndComeBackFromTheirCanonicalForm) {
  size_t examples = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kConf / "examples")) {
    if (entry.path().extension() != ".yaml") continue;
    ++examples;
    const LoadedFile loaded = load_file(entry.path());
    ASSERT_NE(loaded.model, nullptr) << render_faults(loaded.faults, loaded.text, false);
    std::vector<Fault> faults;
    const auto again = Document::parse("again", loaded.document->to_yaml(), faults);
    ASSERT_NE(again, nullptr) << render_faults(faults, loaded.document->to_yaml(), false);
    EXPECT_EQ(again->to_json(), loaded.document->to_json()) << entry.path();
  }
  EXPECT_EQ(examples, 18U);
}

// TIDEGATE_UPDATE=1 rewrites the file.
TEST(KeyReference, IsWhatTheTableSays) {
  const auto path = kConf / "REFERENCE.md";
  if (std::getenv("TIDEGATE_UPDATE") != nullptr) std::ofstream(path, std::ios::binary) << key_reference();
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream written;
  written << stream.rdbuf();
  EXPECT_EQ(written.str(), key_reference()) << "run the conf tests with TIDEGATE_UPDATE=1 to write it anew";
}

}  // namespace tidegate::examples_test
