#include "control/openapi.h"

#include <set>

#include "tests/unit/control/host.h"

namespace tidegate::testing {
namespace {

TEST(OpenApi, ListsExactlyTheRoutesThatAreDispatched) {
  EventLoop loop;
  Host host(loop);
  host.start();
  const nlohmann::json document = body_of(host.call("GET", "/v1/openapi.json"));
  EXPECT_EQ(document["openapi"], "3.1.0");
  std::set<std::string> documented, dispatched;
  for (const auto& [path, methods] : document["paths"].items()) {
    for (const auto& [method, operation] : methods.items()) {
      documented.insert(method + " " + path);
      EXPECT_FALSE(operation["summary"].get<std::string>().empty()) << path;
      EXPECT_TRUE(operation.contains("x-tidegate-role")) << path;
    }
  }
  for (const ApiRoute& route : host.control->routes().routes()) {
    std::string method = route.method;
    for (char& c : method) c = static_cast<char>(std::tolower(c));
    EXPECT_TRUE(dispatched.insert(method + " " + route.pattern).second) << route.pattern << " stands twice";
  }
  EXPECT_EQ(documented, dispatched);
}

TEST(RouteTable, PatternsBindDecodedSegments) {
  std::map<std::string, std::string> bound;
  EXPECT_TRUE(match_pattern("/v1/config/{kind}/{name}", "/v1/config/pools/a%20b", bound));
  EXPECT_EQ(bound["kind"], "pools");
  EXPECT_EQ(bound["name"], "a b");
  EXPECT_FALSE(match_pattern("/v1/config/{kind}", "/v1/config/", bound));
  EXPECT_FALSE(match_pattern("/v1/config/{kind}", "/v1/config/a/b", bound));
  EXPECT_FALSE(match_pattern("/v1/config", "/v1/config/", bound));
  EXPECT_FALSE(match_pattern("/v1/config/{kind}", "/v1/config/%zz", bound));
}

TEST(Meta, MetricsAndHealthAnswer) {
  EventLoop loop;
  Host host(loop);
  host.start();
  EXPECT_EQ(host.call_as("", "GET", "/healthz").status, 200);
  EXPECT_THAT(host.call("GET", "/metrics").body,
              ::testing::HasSubstr("# TYPE tidegate_control_api_calls_total counter"));
}

}  // namespace
}  // namespace tidegate::testing
