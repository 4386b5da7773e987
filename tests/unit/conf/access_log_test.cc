// SPDX-License-Identifier: Apache-2.0
// The access log's keys: where it goes, and the template of its lines.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "conf/log_target.h"
#include "conf/log_template.h"
#include "tests/unit/conf/documents.h"

namespace tidegate::access_log_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::load_text;
using testing::Loaded;

Loaded node(const std::string& keys) { return load_text("nodes:\n  - name: a\n    l7:\n" + keys); }

LogTemplate parsed(std::string_view text) {
  LogTemplate out;
  EXPECT_EQ(LogTemplate::parse(text, out).detail, "") << text;
  return out;
}

TEST(LogTemplate, HasTextsAndVariables) {
  const LogTemplate log = parsed("{client} \"{header.User-Agent}\" {cookie.Sid}{response_header.ETag}");
  ASSERT_EQ(log.parts.size(), 6u);
  EXPECT_EQ(log.parts[0].what, LogVariable::client);
  EXPECT_EQ(log.parts[1].text, " \"");
  EXPECT_EQ(log.parts[2].what, LogVariable::header);
  EXPECT_EQ(log.parts[2].text, "user-agent") << "names of fields have no case";
  EXPECT_EQ(log.parts[4].text, "Sid") << "names of cookies have";
  EXPECT_EQ(log.parts[5].what, LogVariable::response_header);
}

TEST(LogTemplate, ADoubledBraceIsABrace) {
  const LogTemplate log = parsed("{{\"path\":\"{path}\"}}");
  ASSERT_EQ(log.parts.size(), 3u);
  EXPECT_EQ(log.parts[0].text, "{\"path\":\"");
  EXPECT_EQ(log.parts[2].text, "\"}");
}

TEST(LogTemplate, EachVariableOfTheTableIsReadAndStandsInTheReference) {
  const std::string reference = log_variable_reference();
  for (size_t i = 0; i < kPlainLogVariables; ++i) {
    const std::string word(name(static_cast<LogVariable>(i)));
    const LogTemplate log = parsed("{" + word + "}");
    ASSERT_EQ(log.parts.size(), 1u);
    EXPECT_EQ(static_cast<size_t>(log.parts[0].what), i);
    EXPECT_THAT(reference, HasSubstr("| `{" + word + "}` | "));
  }
}

TEST(AccessLogKeys, AnUnknownVariableIsShownWithItsPlaceAndWhatWasMeant) {
  const Loaded loaded = node("      access_log_format: '{client} {stauts} {path}'\n");
  EXPECT_THAT(loaded.rendered(), HasSubstr("edge.yaml:4:37: there is no variable 'stauts'"));
  EXPECT_THAT(loaded.rendered(), HasSubstr("did you mean 'status'?"));
}

TEST(AccessLogKeys, AnOpenBraceIsShownWithItsPlace) {
  EXPECT_THAT(node("      access_log_format: \"a {client\"\n").rendered(),
              HasSubstr("edge.yaml:4:29: a '{' is not closed"));
  EXPECT_THAT(node("      access_log_format: \"a} b\"\n").rendered(),
              HasSubstr("edge.yaml:4:28: a '}' without its '{'"));
  EXPECT_THAT(node("      access_log_format: \"{header.a b}\"\n").rendered(), HasSubstr("'a b' is no name of a field"));
}

// If escapes make the written text differ from the value, the place is the value's beginning.
TEST(AccessLogKeys, APlaceBehindAnEscapeIsTheValuesBeginning) {
  EXPECT_THAT(node("      access_log_format: \"\\\"{nothing_like_it}\\\"\"\n").rendered(),
              HasSubstr("edge.yaml:4:26: "));
}

TEST(AccessLogKeys, ATemplateHasABoundOfParts) {
  std::string many;
  for (int i = 0; i < 70; ++i) many += "{path} ";
  EXPECT_THAT(node("      access_log_format: '" + many + "'\n").rendered(), HasSubstr("more than 128 parts"));
}

TEST(AccessLogKeys, TakeFilesStandardOutputAndSyslog) {
  for (const char* target :
       {"/var/log/a.log", "'-'", "syslog:/dev/log", "'syslog:192.0.2.5:514'", "'syslog:[2001:db8::1]:514'"}) {
    EXPECT_THAT(node(std::string("      access_log: ") + target + "\n").codes(), IsEmpty()) << target;
  }
  const auto target = [](std::string_view text) { return LogTarget::parse(text); };
  EXPECT_EQ(target("")->kind, LogTarget::Kind::none);
  EXPECT_EQ(target("-")->kind, LogTarget::Kind::standard_output);
  EXPECT_EQ(target("syslog")->kind, LogTarget::Kind::file) << "a file of that name";
  EXPECT_EQ(target("syslog:/dev/log")->path, "/dev/log");
  EXPECT_EQ(target("syslog:192.0.2.5:514")->collector, *Endpoint::parse("192.0.2.5:514"));
}

TEST(AccessLogKeys, RefuseWhatIsNoPlaceForSyslog) {
  for (const char* target : {"'syslog:'", "'syslog:dev/log'", "'syslog:192.0.2.5'", "'syslog:192.0.2.5:0'",
                             "'syslog:collector.example:514'"}) {
    EXPECT_THAT(node(std::string("      access_log: ") + target + "\n").codes(), ElementsAre("bad_value")) << target;
  }
  const std::string long_path = "syslog:/" + std::string(110, 'x');
  EXPECT_THAT(node("      access_log: " + long_path + "\n").codes(), ElementsAre("bad_value"));
}

TEST(AccessLogKeys, SyslogsKeysNeedSyslog) {
  EXPECT_THAT(node("      access_log: '-'\n      access_log_tag: web\n").codes(), ElementsAre("without_effect"));
  EXPECT_THAT(
      node("      access_log: syslog:/dev/log\n      access_log_facility: local3\n      access_log_tag: web\n").codes(),
      IsEmpty());
  EXPECT_THAT(node("      access_log: syslog:/dev/log\n      access_log_tag: 'a b'\n").codes(),
              ElementsAre("bad_value"));
  EXPECT_THAT(node("      access_log: syslog:/dev/log\n      access_log_facility: local9\n").rendered(),
              HasSubstr("did you mean"));
}

}  // namespace tidegate::access_log_test
