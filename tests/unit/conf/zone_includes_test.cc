// SPDX-License-Identifier: Apache-2.0
#include "conf/zone_includes.h"
#include "conf/model.h"
#include "conf/model/zone.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "conf/document.h"

namespace tidegate::zone_includes_test {

using ::testing::HasSubstr;

using Files = std::map<std::string, std::string>;

struct Put {
  std::string text, error;
};

Put put(const Files& files) {
  Put out;
  const auto whole = put_includes_in(
      "z.zone", files.at("z.zone"),
      [&](const std::string& path, std::string& error) -> std::shared_ptr<const std::string> {
        const auto found = files.find(path);
        if (found != files.end()) return std::make_shared<const std::string>(found->second);
        error = "there is no such file";
        return nullptr;
      },
      out.error);
  if (whole != nullptr) out.text = *whole;
  return out;
}

TEST(ZoneIncludes, StandInThePlaceOfTheirDirectives) {
  const Put whole =
      put({{"z.zone", "a A 192.0.2.1\n$INCLUDE \"sub/b.zone\" b ; theirs\n$include c.zone\r\nz A 192.0.2.9"},
           {"sub/b.zone", "b A 192.0.2.2"},
           {"c.zone", "$INCLUDE sub/b.zone\n"}});
  EXPECT_EQ(whole.error, "");
  EXPECT_EQ(
      whole.text,
      "a A 192.0.2.1\n"
      "$BEGIN-INCLUDED \"sub/b.zone\" b\nb A 192.0.2.2\n$END-INCLUDED\n"
      "$BEGIN-INCLUDED \"c.zone\" \n$BEGIN-INCLUDED \"sub/b.zone\" \nb A 192.0.2.2\n$END-INCLUDED\n$END-INCLUDED\n"
      "z A 192.0.2.9\n");
  EXPECT_FALSE(has_includes(whole.text)) << "once, and no more";
}

TEST(ZoneIncludes, AreFoundOnlyWhereALineBeginsWithThem) {
  EXPECT_TRUE(has_includes("$INCLUDE x"));
  EXPECT_TRUE(has_includes("a\n$include\tx"));
  EXPECT_FALSE(has_includes(" $INCLUDE x"));
  EXPECT_FALSE(has_includes("; $INCLUDE x"));
  EXPECT_FALSE(has_includes("$INCLUDED x"));
  EXPECT_FALSE(has_includes("$INCLUDE"));
}

TEST(ZoneIncludes, AreRefusedWithFileAndLine) {
  const auto error = [](const std::string& directive, const std::string& inner = "") {
    return put({{"z.zone", "a A 192.0.2.1\n" + directive + "\n"}, {"b.zone", inner}}).error;
  };
  EXPECT_THAT(error("$INCLUDE none.zone"), HasSubstr("z.zone:2: $INCLUDE: 'none.zone': there is no such file"));
  EXPECT_THAT(error("$INCLUDE /etc/passwd"), HasSubstr("'/etc/passwd' is not below the document's folder"));
  EXPECT_THAT(error("$INCLUDE ../x"), HasSubstr("is not below"));
  EXPECT_THAT(error("$INCLUDE sub/../../x"), HasSubstr("is not below"));
  EXPECT_THAT(error("$INCLUDE  "), HasSubstr("no file is named"));
  EXPECT_THAT(error("$INCLUDE b.zone origin more"), HasSubstr("something stands behind"));
  EXPECT_THAT(error("$INCLUDE b\"c.zone"), HasSubstr("a quote or a backslash in a file's name"));
  EXPECT_THAT(error("$INCLUDE b\\c.zone"), HasSubstr("a quote or a backslash in a file's name"));
  EXPECT_THAT(error("$INCLUDE z.zone"), HasSubstr("'z.zone' includes itself"));
  EXPECT_THAT(error("$INCLUDE b.zone", "\n\n$INCLUDE z.zone\n"),
              HasSubstr("b.zone:3: $INCLUDE: 'z.zone' includes itself"));
}

TEST(ZoneIncludes, AreBounded) {
  Files deep, many;
  for (size_t i = 0; i < 20; ++i) deep[fmt::format("{}.zone", i)] = fmt::format("$INCLUDE {}.zone\n", i + 1);
  deep["20.zone"] = "";
  deep["z.zone"] = "$INCLUDE 0.zone\n";
  EXPECT_THAT(put(deep).error, HasSubstr("9.zone:1: $INCLUDE: the files include each other too deeply"));
  deep["7.zone"] = "x A 192.0.2.1\n";
  EXPECT_EQ(put(deep).error, "");
  // Each of ten levels included twice would give a thousand files.
  for (size_t i = 0; i < 9; ++i)
    many[fmt::format("{}.zone", i)] = fmt::format("$INCLUDE {0}.zone\n$INCLUDE {0}.zone\n", i + 1);
  many["9.zone"] = "";
  many["z.zone"] = "$INCLUDE 0.zone\n";
  EXPECT_THAT(put(many).error, HasSubstr("more than 200 files are included"));
}

TEST(ZoneIncludes, ComeWithTheZoneThatADocumentNames) {
  const std::filesystem::path folder =
      std::filesystem::path(::testing::TempDir()) / fmt::format("includes-{}", ::getpid());
  std::filesystem::create_directories(folder / "sub");
  std::ofstream(folder / "edge.yaml") << "zones: [{name: example.test, file: z.zone}]\n";
  std::ofstream(folder / "z.zone") << "@ 60 IN SOA ns h 1 2 3 4 5\n@ 60 NS ns\n$INCLUDE sub/b.zone\n";
  std::ofstream(folder / "sub" / "b.zone") << "b 60 A 192.0.2.2\n";
  const LoadedFile loaded = load_file((folder / "edge.yaml").string());
  ASSERT_NE(loaded.model, nullptr);
  const std::string before = loaded.model->zones[0].file.hash;
  EXPECT_THAT(*loaded.model->zones[0].file.bytes, HasSubstr("b 60 A 192.0.2.2"));
  std::ofstream(folder / "sub" / "b.zone") << "b 60 A 192.0.2.3\n";
  EXPECT_NE(load_file((folder / "edge.yaml").string()).model->zones[0].file.hash, before)
      << "a change of what it includes";
  std::filesystem::remove(folder / "sub" / "b.zone");
  const LoadedFile missing = load_file((folder / "edge.yaml").string());
  ASSERT_EQ(missing.faults.size(), 1U);
  EXPECT_THAT(missing.faults[0].detail, HasSubstr("z.zone:3: $INCLUDE: 'sub/b.zone': there is no such file"));
  std::filesystem::remove_all(folder);
}

}  // namespace tidegate::zone_includes_test
