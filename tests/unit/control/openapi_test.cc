// SPDX-License-Identifier: Apache-2.0
#include "control/api/openapi.h"
#include "conf/model/route.h"

#include <set>

#include "tests/unit/control/host.h"
#include "tests/unit/promlint.h"

namespace tidegate::testing::openapi_test {

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

TEST(Parameters, EveryRouteRefusesWhatItsTableDoesNotTakeAndWritesNothing) {
  EventLoop loop;
  Host host(loop);
  host.start();
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  const StateHead before = host.control->host_state().head();
  const auto refused = [&](const ApiRoute& route, const std::string& query) {
    std::string path = route.pattern;
    for (const auto& [from, to] : {std::pair<std::string, std::string>{"{kind}", "pools"}, {"{pool}", "origins"}}) {
      if (const size_t at = path.find(from); at != std::string::npos) path.replace(at, from.size(), to);
    }
    for (size_t at = path.find('{'); at != std::string::npos; at = path.find('{')) {
      path.replace(at, path.find('}') - at + 1, "origins");
    }
    const HttpResponse answer =
        host.call(route.method, path + query, R"({"state": "drained", "all": true, "to": 1})",
                  {{"Content-Type", "application/json"}, {"If-Match", "*"}, {"Idempotency-Key", "k" + query}});
    EXPECT_EQ(answer.status, 400) << route.method << " " << path << query << " " << answer.body;
  };
  size_t typed = 0;
  for (const ApiRoute& route : host.control->routes().routes()) {
    if (route.any_query) continue;
    refused(route, "?no_such_parameter=1");
    for (const QueryParameter& parameter : route.query) {
      refused(route, "?" + parameter.name + "=1&" + parameter.name + "=1");
      if (parameter.type == ParameterType::text) continue;
      ++typed;
      for (const char* value : {"", "=", "=maybe", "=TRUE", "=10x", "=-1"}) {
        refused(route, "?" + parameter.name + value);
      }
    }
  }
  EXPECT_GE(typed, 20u);
  EXPECT_EQ(host.control->host_state().head(), before);
}

TEST(OpenApi, SaysTheTypeOfEveryParameter) {
  EventLoop loop;
  Host host(loop);
  host.start();
  const nlohmann::json document = body_of(host.call("GET", "/v1/openapi.json"));
  const auto schema = [&](const char* path, const char* method, const std::string& wanted) {
    for (const nlohmann::json& parameter : document["paths"][path][method]["parameters"]) {
      if (parameter["name"] == wanted) return parameter["schema"];
    }
    return nlohmann::json();
  };
  EXPECT_EQ(schema("/v1/config", "put", "dry_run"), (nlohmann::json{{"type", "boolean"}}));
  EXPECT_EQ(schema("/v1/versions", "get", "limit"),
            (nlohmann::json{{"type", "integer"}, {"minimum", 1}, {"maximum", 1000}}));
  EXPECT_EQ(schema("/v1/config", "put", "comment"), (nlohmann::json{{"type", "string"}}));
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

TEST(Meta, MetricsAreAsPromtoolWantsThemAndTellTheStateOfTheEdge) {
  EventLoop loop;
  Host host(loop);
  host.start();
  ASSERT_EQ(host.put_config(edge_yaml("100", "  - {name: www, path: /www, status: 404}\n")).status, 200);
  const auto page = [&] { return host.call("GET", "/metrics").body; };
  EXPECT_THAT(lint_metrics(page()), ::testing::IsEmpty());
  const auto value = [&](const std::string& series) -> double {
    const std::string text = page();
    const size_t at = text.find("\n" + series + " ");
    if (at == std::string::npos) return -1;
    return std::stod(text.substr(at + series.size() + 2));
  };
  const std::string backend = R"({pool="origins",backend="origin1"})";
  EXPECT_EQ(value("tidegate_control_backend_up" + backend), 1);
  EXPECT_EQ(value(R"(tidegate_control_pool_up{pool="origins"})"), 1);
  EXPECT_EQ(value(R"(tidegate_control_site_up{site="eu"})"), 1);
  const double first = value("tidegate_control_backend_last_change_timestamp_seconds" + backend);
  EXPECT_NEAR(first, static_cast<double>(realtime_ns()) / 1e9, 60);
  ASSERT_EQ(host.call_json("PUT", "/v1/admin/pool/origins", {{"state", "down"}}).status, 200);
  EXPECT_EQ(value("tidegate_control_backend_up" + backend), 0);
  EXPECT_EQ(value(R"(tidegate_control_pool_up{pool="origins"})"), 0);
  EXPECT_GE(value("tidegate_control_backend_last_change_timestamp_seconds" + backend), first);
  const double down = value(R"(tidegate_control_pool_last_change_timestamp_seconds{pool="origins"})");
  ASSERT_EQ(host.put_config(edge_yaml("7")).status, 200);
  EXPECT_EQ(value(R"(tidegate_control_pool_last_change_timestamp_seconds{pool="origins"})"), down)
      << "a version that changes nothing of its state is no change of it";
  std::string moved = edge_yaml("7");
  moved.insert(moved.find("pools:\n") + 7,
               "  - {name: first, backends: [{name: origin1, addresses: [127.0.0.2], port: 80}]}\n");
  ASSERT_EQ(host.put_config(moved).status, 200);
  EXPECT_EQ(value(R"(tidegate_control_pool_last_change_timestamp_seconds{pool="origins"})"), down)
      << "nor is another place in the document";
  EXPECT_EQ(value(R"(tidegate_control_pool_up{pool="first"})"), 1);
  EXPECT_EQ(value("tidegate_control_backend_up" + backend), 0);
  EXPECT_GT(value("process_start_time_seconds"), 0);
  EXPECT_GT(value("process_open_fds"), 0);
  EXPECT_THAT(lint_metrics(page()), ::testing::IsEmpty());
}

}  // namespace tidegate::testing::openapi_test
