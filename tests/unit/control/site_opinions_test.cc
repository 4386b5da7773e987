// SPDX-License-Identifier: Apache-2.0
#include "control/health/site_opinions.h"

#include <gtest/gtest.h>

namespace tidegate::site_opinions_test {

const std::string kOne = "backend/app/one";

std::string said(const SiteOpinions& opinions, const std::string& node = {}, bool patient = false) {
  const auto concluded = opinions.conclude(kOne, node, patient);
  if (!concluded) return "nothing";
  return (concluded->up ? "up" : "down") + (concluded->reason.empty() ? "" : ": " + concluded->reason);
}

TEST(SiteOpinions, NothingFollowsBeforeThisControlHasLooked) {
  SiteOpinions opinions;
  opinions.note_other("a", {{kOne, {true, ""}}});
  EXPECT_EQ(said(opinions), "nothing");
}

TEST(SiteOpinions, OwnSuccessDecides) {
  SiteOpinions opinions;
  opinions.note_own(kOne, {true, ""});
  opinions.note_other("a", {{kOne, {false, "refused"}}});
  EXPECT_EQ(said(opinions), "up");
}

TEST(SiteOpinions, AnotherControlThatReachesItDecidesAgainstOurFailure) {
  SiteOpinions opinions;
  opinions.note_own(kOne, {false, "no route"});
  EXPECT_EQ(said(opinions), "down: no route");
  opinions.note_other("a", {{kOne, {false, "refused"}}});
  EXPECT_EQ(said(opinions), "down: no route") << "all that look fail";
  opinions.note_other("b", {{kOne, {true, ""}}});
  EXPECT_EQ(said(opinions), "up: node b reaches it");
  opinions.note_other("b", {});  // it does not answer any more
  EXPECT_EQ(said(opinions), "down: no route");
}

TEST(SiteOpinions, OurFailureAloneWaitsForTheOthers) {
  SiteOpinions opinions;
  opinions.note_own(kOne, {false, "no route"});
  EXPECT_EQ(said(opinions, {}, true), "nothing");
  opinions.note_other("a", {{"backend/app/two", {true, ""}}});
  EXPECT_EQ(said(opinions, {}, true), "nothing") << "it has not looked at this one yet";
  opinions.note_other("a", {{kOne, {false, "refused"}}});
  EXPECT_EQ(said(opinions, {}, true), "down: no route");
}

TEST(SiteOpinions, ANodeSaysNothingOfItsOwnBackends) {
  SiteOpinions opinions;
  opinions.note_own(kOne, {false, "nothing for 500 ms"});
  opinions.note_other("a", {{kOne, {true, ""}}});
  EXPECT_EQ(said(opinions, "a"), "down: nothing for 500 ms");
  opinions.note_other("b", {{kOne, {true, ""}}});
  EXPECT_EQ(said(opinions, "a"), "up: node b reaches it");
}

}  // namespace tidegate::site_opinions_test
