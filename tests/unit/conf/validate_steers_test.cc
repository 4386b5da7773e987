// SPDX-License-Identifier: Apache-2.0
// Cross checks of steers: types of targets, the clients of a map, steers within steers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "conf/model.h"
#include "conf/model/steer.h"
#include "tests/unit/conf/documents.h"

namespace tidegate::validate_steers_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::load_text;
using testing::Loaded;

class ValidateSteers : public ::testing::Test {
 protected:
  // `steers` are elements of the list, without their indentation.
  Loaded load(const std::vector<std::string>& steers, const std::string& more = "") {
    std::string text =
        "sites: [{name: eu, location: {latitude: 50, longitude: 8}}, {name: us, location: {latitude: 40, longitude: "
        "-70}}]\n"
        "vips: [{name: v1, site: eu, addresses: [192.0.2.1]}, {name: v2, site: us, addresses: [192.0.2.2]}]\n"
        "zones: [{name: example.test, file: z}]\n" +
        more + "steers:\n";
    for (const std::string& steer : steers) text += "  - " + steer + "\n";
    return load_text(text, {{"z", testing::content("@ IN SOA a b 1 2 3 4 5\n")}});
  }
  std::vector<std::string> codes(const std::vector<std::string>& steers) { return load(steers).codes(); }
};

TEST_F(ValidateSteers, ATargetIsOfEachType) {
  const Loaded loaded =
      load({"{name: a.example.test, policy: failover, targets: [{steer: B.example.test.}, {alias: cdn.example.net}]}",
            "{name: b.example.test, targets: [{vip: v1}]}"});
  ASSERT_THAT(loaded.codes(), IsEmpty());
  const Steer& steer = loaded.model->steers[0];
  EXPECT_EQ(steer.targets[0].steer(), 1U) << "the name's case and final dot do not matter";
  EXPECT_EQ(target_label(*loaded.model, steer.targets[0]), "steer:b.example.test");
  EXPECT_EQ(std::get<TargetAlias>(steer.targets[1].what).name, "cdn.example.net.");
  EXPECT_EQ(target_label(*loaded.model, steer.targets[1]), "alias:cdn.example.net");
  EXPECT_THAT(codes({"{name: a.example.test, targets: [{vip: v1, alias: x.test}]}"}), ElementsAre("exactly_one"));
  EXPECT_THAT(codes({"{name: a.example.test, targets: [{steer: no.example.test}]}"}), ElementsAre("no_such_name"));
  EXPECT_THAT(codes({"{name: a.example.test, targets: [{alias: x.test}, {alias: X.test.}]}"}),
              ElementsAre("missing_place", "duplicate_name", "missing_place"));
  EXPECT_THAT(codes({"{name: a.example.test, policy: failover, targets: [{alias: a.example.test}]}"}),
              ElementsAre("without_effect"));
}

TEST_F(ValidateSteers, AWildcardIsANameLikeAnyOther) {
  EXPECT_THAT(codes({"{name: '*.apps.example.test', targets: [{vip: v1}]}",
                     "{name: b.example.test, targets: [{steer: '*.apps.example.test'}]}"}),
              IsEmpty());
}

TEST_F(ValidateSteers, SteersAndAliasesNeedASiteForNearestAlone) {
  EXPECT_THAT(codes({"{name: a.example.test, targets: [{alias: x.test}, {vip: v1}]}"}), ElementsAre("missing_place"));
  EXPECT_THAT(codes({"{name: a.example.test, targets: [{alias: x.test, site: us}, {vip: v1}]}"}), IsEmpty());
  EXPECT_THAT(codes({"{name: a.example.test, targets: [{alias: x.test}]}"}), IsEmpty());
  EXPECT_THAT(codes({"{name: a.example.test, policy: multivalue, targets: [{alias: x.test}, {vip: v1}]}"}), IsEmpty());
  EXPECT_THAT(codes({"{name: a.example.test, targets: [{vip: v1, site: us}, {vip: v2}]}"}),
              ElementsAre("without_effect"));
}

TEST_F(ValidateSteers, OnlyAMapNamesClients) {
  EXPECT_THAT(codes({"{name: a.example.test, policy: map, targets: [{vip: v1, networks: [10.0.0.0/8], asns: [64500], "
                     "regions: [US-CA], countries: [DE], continents: [EU]}, {vip: v2}]}"}),
              IsEmpty());
  EXPECT_THAT(codes({"{name: a.example.test, policy: failover, targets: [{vip: v1, countries: [DE]}]}"}),
              ElementsAre("without_effect"));
  const auto in_map = [&](const std::string& clients) {
    return codes({"{name: a.example.test, policy: map, targets: [{vip: v1, " + clients + "}]}"});
  };
  EXPECT_THAT(in_map("countries: [de]"), ElementsAre("bad_value"));
  EXPECT_THAT(in_map("countries: [DEU]"), ElementsAre("out_of_range"));
  EXPECT_THAT(in_map("regions: [California]"), ElementsAre("out_of_range"));
  EXPECT_THAT(in_map("regions: [USCA]"), ElementsAre("bad_value"));
  EXPECT_THAT(in_map("continents: [EA]"), ElementsAre("bad_value"));
  EXPECT_THAT(in_map("asns: [0]"), ElementsAre("out_of_range"));
  EXPECT_THAT(in_map("networks: ['2002::/24']"), ElementsAre("without_effect"));
  EXPECT_THAT(in_map("networks: [10.0.0.1/8]").size(), 1U);
}

TEST_F(ValidateSteers, ACycleIsAFault) {
  const Loaded self = load({"{name: a.example.test, targets: [{steer: a.example.test}]}"});
  EXPECT_THAT(self.codes(), ElementsAre("cycle"));
  const Loaded loaded =
      load({"{name: a.example.test, targets: [{steer: b.example.test}]}",
            "{name: b.example.test, targets: [{steer: c.example.test}]}",
            "{name: c.example.test, policy: failover, targets: [{vip: v1}, {steer: b.example.test}]}"});
  EXPECT_THAT(loaded.codes(), ElementsAre("cycle", "cycle")) << "a leads to the cycle, but is not in it";
  EXPECT_THAT(loaded.faults[0].detail, HasSubstr("through 'c.example.test.' the steer leads back to itself"));
}

TEST_F(ValidateSteers, NestingIsBounded) {
  std::vector<std::string> steers{"{name: s0.example.test, targets: [{vip: v1}]}"};
  for (int i = 1; i < 5; ++i)
    steers.push_back("{name: s" + std::to_string(i) + ".example.test, targets: [{steer: s" + std::to_string(i - 1) +
                     ".example.test}]}");
  EXPECT_THAT(codes(steers), IsEmpty());
  steers.push_back("{name: s5.example.test, targets: [{steer: s4.example.test}]}");
  EXPECT_THAT(codes(steers), ElementsAre("too_many"));
  // Three levels, each with 17 ways to the next: 4,913 addresses.
  std::vector<std::string> wide;
  for (int level = 0; level < 3; ++level) {
    for (int i = 0; i < 17; ++i) {
      std::string targets;
      for (int k = 0; k < 17; ++k) {
        if (level == 0 && k > 1) break;
        targets += (k == 0 ? "" : ", ") +
                   (level == 0 ? "{vip: v" + std::to_string(k + 1) + "}"
                               : "{steer: w" + std::to_string(level - 1) + "-" + std::to_string(k) + ".example.test}");
      }
      wide.push_back("{name: w" + std::to_string(level) + "-" + std::to_string(i) +
                     ".example.test, policy: failover, targets: [" + targets + "]}");
    }
  }
  EXPECT_THAT(codes(wide), IsEmpty()) << "578 addresses";
  std::string all;
  for (int k = 0; k < 17; ++k) all += (k == 0 ? "" : ", ") + ("{steer: w2-" + std::to_string(k) + ".example.test}");
  wide.push_back("{name: top.example.test, policy: failover, targets: [" + all + "]}");
  EXPECT_THAT(codes(wide), ElementsAre("too_many"));
}

// 2,000 steers in one chain and in one cycle: the check needs neither much time nor much stack.
TEST_F(ValidateSteers, LongChainsAndCyclesAreJudgedInTime) {
  std::vector<std::string> steers;
  constexpr int kCount = 2'000;
  for (int i = 0; i < kCount; ++i)
    steers.push_back("{name: s" + std::to_string(i) + ".example.test, targets: [{steer: s" +
                     std::to_string((i + 1) % kCount) + ".example.test}]}");
  EXPECT_THAT(codes(steers), ::testing::Each("cycle"));
  steers.back() = "{name: s" + std::to_string(kCount - 1) + ".example.test, targets: [{vip: v1}]}";
  EXPECT_THAT(codes(steers), ::testing::Each("too_many"));
}

TEST_F(ValidateSteers, DatabasesAreAtMostFour) {
  const auto codes_of = [](const std::string& geo) { return load_text("geo: {" + geo + "}\n").codes(); };
  EXPECT_THAT(codes_of("mmdb: /a, other_mmdbs: [/b, /c, /d]"), IsEmpty());
  EXPECT_THAT(codes_of("mmdb: /a, other_mmdbs: [/b, /c, /d, /e]"), ElementsAre("bad_value"));
  EXPECT_THAT(codes_of("other_mmdbs: [/b]"), ElementsAre("bad_value"));
}

}  // namespace tidegate::validate_steers_test
