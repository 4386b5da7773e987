// SPDX-License-Identifier: Apache-2.0
// History: versions, differences, the audit trail.

#include "tests/unit/control/host.h"

namespace tidegate::testing::versions_test {

using ::testing::Contains;
using ::testing::HasSubstr;

TEST(Versions, ListNewestFirstWithWhoAndWhy) {
  EventLoop loop;
  Host host(loop);
  host.start();
  ASSERT_EQ(host.put_config(edge_yaml(), "*", "?comment=one").status, 200);
  ASSERT_EQ(host.put_config(edge_yaml("7"), "*", "?comment=two").status, 200);
  const nlohmann::json list = body_of(host.call("GET", "/v1/versions"));
  ASSERT_EQ(list["versions"].size(), 2u);
  EXPECT_EQ(list["in_force"], 2);
  EXPECT_EQ(list["versions"][0]["comment"], "two");
  EXPECT_THAT(list["versions"][0]["author"].get<std::string>(), HasSubstr("uid:"));
  EXPECT_THAT(host.call("GET", "/v1/versions/1/config").body, HasSubstr("weight: 100"));
  EXPECT_EQ(host.call("GET", "/v1/versions/9").status, 404);
  EXPECT_EQ(host.call("GET", "/v1/versions/x").status, 400);
  EXPECT_EQ(host.call("GET", "/v1/versions/1x/config").status, 400);
}

TEST(Versions, ADiffShowsTheChangedLineOfTheChangedObject) {
  EventLoop loop;
  Host host(loop);
  host.start();
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  ASSERT_EQ(host.put_config(edge_yaml("7")).status, 200);
  const nlohmann::json diff = body_of(host.call("GET", "/v1/diff"));
  EXPECT_EQ(diff["from"], 1);
  EXPECT_EQ(diff["to"], 2);
  ASSERT_EQ(diff["changes"].size(), 1u);
  const auto lines = diff["changes"][0]["lines"].get<std::vector<std::string>>();
  EXPECT_THAT(lines, Contains(HasSubstr("weight: 7")));
  EXPECT_THAT(lines, Contains(::testing::StartsWith("+ ")));
  EXPECT_EQ(host.call("GET", "/v1/diff?from=1&to=44").status, 404);
}

TEST(Versions, TheAuditTrailRemembersEveryWriteAndWho) {
  EventLoop loop;
  Host host(loop);
  host.start();
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  ASSERT_EQ(host.call_as(kOperatorToken, "PUT", "/v1/admin/backend/origins/origin1",
                         R"({"state": "drained", "note": "disk"})", {{"Content-Type", "application/json"}})
                .status,
            200);
  const std::string audit = host.call("GET", "/v1/audit").body;
  EXPECT_THAT(audit, HasSubstr("origins/origin1"));
  EXPECT_THAT(audit, HasSubstr("\"ops\""));
  EXPECT_THAT(audit, HasSubstr("uid:"));
}

}  // namespace tidegate::testing::versions_test
