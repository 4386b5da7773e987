// SPDX-License-Identifier: Apache-2.0
// Each route with each role: the table says who may call it, and dispatch follows the table.

#include "conf/model/route.h"
#include "control/api/auth.h"
#include "tests/unit/control/host.h"

namespace tidegate::testing::roles_test {

using ::testing::HasSubstr;

std::string example_path(std::string pattern) {
  for (size_t open = pattern.find('{'); open != std::string::npos; open = pattern.find('{')) {
    pattern.replace(open, pattern.find('}') - open + 1, "1");
  }
  return pattern;
}

bool streams(const ApiRoute& route) {
  return route.pattern == "/v1/watch" || route.pattern == "/v1/replica" || route.pattern == "/v1/node/planes";
}

TEST(Roles, EveryRouteRefusesWhoeverTheTableDoesNotLetIn) {
  EventLoop loop;
  Host host(loop);
  host.start();
  const std::vector<std::pair<Role, const char*>> tokens = {{Role::viewer, kViewerToken},
                                                            {Role::operator_, kOperatorToken},
                                                            {Role::publisher, kPublisherToken},
                                                            {Role::admin, kAdminToken},
                                                            {Role::replica, kReplicaToken}};
  for (const ApiRoute& route : host.control->routes().routes()) {
    const std::string path = example_path(route.pattern);
    const int without = host.call_as("", route.method, path).status;
    if (route.role == Role::none) {
      EXPECT_EQ(without, 200) << route.pattern;
      continue;
    }
    EXPECT_EQ(without, 401) << route.method << " " << route.pattern;
    EXPECT_EQ(host.call_as("no-such-token-0123456789", route.method, path).status, 401) << route.pattern;
    for (const auto& [role, token] : tokens) {
      if (allows(role, route.role) && streams(route)) continue;  // it never ends; other tests open streams
      const int status = host.call_as(token, route.method, path).status;
      EXPECT_EQ(status == 403, !allows(role, route.role))
          << route.method << " " << route.pattern << " as " << name(role);
      EXPECT_NE(status, 401);
    }
  }
  EXPECT_EQ(host.control->host_state().head().version, 0u);
}

TEST(Roles, TheUnixSocketNeedsNoToken) {
  EventLoop loop;
  Host host(loop);
  host.start();
  EXPECT_EQ(host.call("GET", "/v1/versions").status, 200);
}

TEST(Roles, UnknownPathsAndMethodsSaySo) {
  EventLoop loop;
  Host host(loop);
  host.start();
  EXPECT_EQ(host.call("GET", "/v1/nowhere").status, 404);
  const HttpResponse wrong = host.call("DELETE", "/v1/versions");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(header(wrong, "allow"), "GET");
  EXPECT_EQ(host.call_as("", "GET", "/v1/nowhere").status, 401) << "strangers learn nothing of the paths";
}

TEST(Roles, TokensAreReadAgainWithoutARestart) {
  EventLoop loop;
  Host host(loop);
  host.start();
  host.directory.write("tokens", "viewer a-brand-new-token-99\n");
  ASSERT_TRUE(host.control->reload());
  EXPECT_EQ(host.call_as(kAdminToken, "GET", "/v1/versions").status, 401);
  EXPECT_EQ(host.call_as("a-brand-new-token-99", "GET", "/v1/versions").status, 200);
  host.directory.write("tokens", "nonsense\n");
  EXPECT_FALSE(host.control->reload());
  EXPECT_EQ(host.call_as("a-brand-new-token-99", "GET", "/v1/versions").status, 200) << "the tokens of before stand";
}

TEST(Roles, ABodyBeyondTheBoundIsRefused) {
  EventLoop loop;
  Host host(loop);
  host.start();
  const HttpResponse answer = host.put_config(std::string((16 << 20) + 1, '#'));
  EXPECT_EQ(answer.status, 413);
}

}  // namespace tidegate::testing::roles_test
