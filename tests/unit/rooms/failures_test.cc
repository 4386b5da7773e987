// SPDX-License-Identifier: Apache-2.0
// l7's README prints the table of failures (l7/exchange/failure.def), exactly as the proxy uses it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "l7/exchange/failure.h"

namespace tidegate::l7::failures_test {

const std::filesystem::path kPage = std::filesystem::path(TIDEGATE_SOURCE_ROOT) / "l7/README.md";
const std::string kBegin = "<!-- failures: made of failure.def -->\n", kEnd = "<!-- end of failures -->";

std::string table() {
  std::string out =
      "| reason | the client is told | who is charged | tried again | who shares the fetch |\n|---|---|---|---|---|\n";
  const auto row = [&](const char* name, int status, Blame blame, Retry retry, Sharers sharers, const char* sentence) {
    out += "| `" + std::string(name) + "` | " + (status == 499 ? "nothing: it is gone" : std::to_string(status)) +
           (status == 499 ? "" : ": " + std::string(sentence)) + " | " + words(blame) + " | " + words(retry) + " | " +
           words(sharers) + " |\n";
  };
#define TIDEGATE_FAILURE(name, status, blame, retry, sharers, sentence) \
  row(#name, status, Blame::blame, Retry::retry, Sharers::sharers, sentence);
#include "l7/exchange/failure.def"
#undef TIDEGATE_FAILURE
  return out;
}

// TIDEGATE_UPDATE=1 writes it again.
TEST(Failures, ArePrintedAsTheTableSays) {
  std::ifstream stream(kPage, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  std::string page = text.str();
  const size_t begin = page.find(kBegin), end = page.find(kEnd);
  ASSERT_TRUE(begin != std::string::npos && end != std::string::npos);
  const size_t first = begin + kBegin.size();
  if (std::getenv("TIDEGATE_UPDATE") != nullptr) {
    std::ofstream(kPage, std::ios::binary) << page.substr(0, first) + table() + page.substr(end);
    return;
  }
  EXPECT_EQ(page.substr(first, end - first), table()) << "run rooms_test with TIDEGATE_UPDATE=1 to write it anew";
}

}  // namespace tidegate::l7::failures_test
