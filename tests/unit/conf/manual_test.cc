// SPDX-License-Identifier: Apache-2.0
#include "conf/manual.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>

#include "conf/fields.h"

namespace tidegate::manual_test {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST(Manual, OfAProgramHasItsCommandsAndOptions) {
  std::string file;
  bool secret = false;
  CLI::App app("Does things.\n.dots and 'quotes' begin no request");
  app.add_option("--state-dir", file, "where it's kept, as in C:\\x")->type_name("DIR")->default_str("/var");
  app.add_flag("--hidden", secret, "nobody's business")->group("");
  CLI::App* command = app.add_subcommand("drain", "Give it no new work");
  command->add_option("NAME", file, "of the backend")->required();
  command->footer("Example: x drain a");
  const std::string page = manual_of(app, {"x-y", 1, "does things"});
  EXPECT_THAT(page, StartsWith(".TH \"x\\-y\" 1 "));
  EXPECT_THAT(page, HasSubstr("\n.SH NAME\nx\\-y \\- does things\n"));
  EXPECT_THAT(page, HasSubstr("\n\\&.dots and 'quotes' begin no request\n"));
  EXPECT_THAT(
      page,
      HasSubstr(".TP\n\\fB\\-\\-state\\-dir\\fR \\fIDIR\\fR\nwhere it's kept, as in C:\\ex The default is /var.\n"));
  EXPECT_THAT(page, HasSubstr("\n.SH COMMANDS\n.SS drain NAME\nGive it no new work.\n"));
  EXPECT_THAT(page, HasSubstr("\n.PP\nExample: x drain a\n"));
  EXPECT_THAT(page, Not(HasSubstr("hidden")));
}

void expect_keys(const Section& section, const std::string& page) {
  for (const Field& field : section.fields) {
    std::string key(field.key);
    for (size_t at = 0; (at = key.find('-', at)) != std::string::npos; at += 2) key.insert(at, "\\");
    EXPECT_THAT(page, HasSubstr(".TP\n\\fB" + key + "\\fR: "));
    if (field.section != nullptr) expect_keys(*field.section, page);
  }
}

TEST(Manual, OfTheConfigurationHasEveryKey) {
  const std::string page = manual_of_keys();
  EXPECT_THAT(page, StartsWith(".TH \"edge.yaml\" 5 "));
  for (const Field& field : root_section().fields) {
    EXPECT_THAT(page, HasSubstr("\n.SH " + std::string(field.key) + "\n"));
    expect_keys(*field.section, page);
  }
  EXPECT_THAT(page, HasSubstr("\n.SH Variables of access_log_format\n"));
  EXPECT_THAT(page, HasSubstr("\n.TP\n\\fB{client}\\fR\nThe client's address.\n"));
  for (const char* leftover : {"`", "|---", "](#", "\n\n"}) EXPECT_THAT(page, Not(HasSubstr(leftover)));
}

}  // namespace tidegate::manual_test
