// SPDX-License-Identifier: Apache-2.0
#include "l7/route/router.h"
#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/route.h"
#include "l7/route/patterns.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <random>

#include <nlohmann/json.hpp>

#include "conf/route_pattern.h"
#include "l7/exchange/conditions.h"
#include "l7/route/text_table.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::router_test {

Route route(const std::string& name, std::vector<std::string> hosts, const std::string& path) {
  Route out;
  out.name = name;
  out.hosts = std::move(hosts);
  out.path = path;
  out.what = RouteToPool{0};
  return out;
}

std::string matched(const Model& model, const Router& router, std::string_view host, std::string_view path,
                    std::string_view method = "GET", uint32_t listener = 0) {
  RouteParameters parameters;
  const RouteMatch match = router.match(listener, method, host, path, parameters);
  if (match.route == kNone) return match.method_refused ? "405" : "404";
  std::string out = model.routes[match.route].name;
  for (size_t i = 0; i < parameters.count; ++i) {
    out += " " + std::string(parameters.items[i].first) + "=" + std::string(parameters.items[i].second);
  }
  return out;
}

TEST(Router, PrefersExactHostsThenLongestWildcardsThenAnyHost) {
  auto model = std::make_shared<Model>();
  model->routes = {route("any", {}, "/*"), route("wide", {"*.test"}, "/*"), route("narrow", {"*.a.test"}, "/*"),
                   route("exact", {"www.a.test"}, "/*")};
  const Router router(model, {1, 2});
  EXPECT_EQ(matched(*model, router, "www.a.test", "/"), "exact");
  EXPECT_EQ(matched(*model, router, "x.y.a.test", "/"), "narrow");
  EXPECT_EQ(matched(*model, router, "a.test", "/"), "wide");
  EXPECT_EQ(matched(*model, router, "test", "/"), "any");
  EXPECT_EQ(matched(*model, router, ".test", "/"), "any");  // a label has at least one character
  EXPECT_EQ(matched(*model, router, "", "/"), "any");
}

TEST(Router, PrefersLiteralsThenParametersThenTheRestAndGoesBackWhenADeadEndIsMet) {
  auto model = std::make_shared<Model>();
  model->routes = {route("rest", {}, "/a/*"), route("parameter", {}, "/a/{id}/b"), route("literal", {}, "/a/x/c"),
                   route("exact", {}, "/a")};
  const Router router(model, {1, 2});
  EXPECT_EQ(matched(*model, router, "h", "/a/x/c"), "literal");
  EXPECT_EQ(matched(*model, router, "h", "/a/x/b"), "parameter id=x");
  EXPECT_EQ(matched(*model, router, "h", "/a/x/d"), "rest");
  EXPECT_EQ(matched(*model, router, "h", "/a//b"), "rest");
  EXPECT_EQ(matched(*model, router, "h", "/a"), "exact");
  EXPECT_EQ(matched(*model, router, "h", "/b"), "404");
}

TEST(Router, TellsAWrongMethodFromAWrongPathAndFallsToALessSpecificRouteThatTakesIt) {
  auto model = std::make_shared<Model>();
  model->routes = {route("read", {}, "/a"), route("all", {}, "/b/*"), route("read-b", {}, "/b/c")};
  model->routes[0].methods = {"GET"};
  model->routes[2].methods = {"GET"};
  const Router router(model, {1, 2});
  EXPECT_EQ(matched(*model, router, "h", "/a", "POST"), "405");
  EXPECT_EQ(matched(*model, router, "h", "/c", "POST"), "404");
  EXPECT_EQ(matched(*model, router, "h", "/b/c", "POST"), "all");
  EXPECT_EQ(matched(*model, router, "h", "/b/c", "GET"), "read-b");
}

TEST(Router, KeepsRoutesToTheirListeners) {
  auto model = std::make_shared<Model>();
  model->routes = {route("everywhere", {}, "/*"), route("inside", {}, "/*")};
  model->routes[1].listeners = {1};
  const Router router(model, {1, 2});
  EXPECT_EQ(matched(*model, router, "h", "/", "GET", 0), "everywhere");
  EXPECT_EQ(matched(*model, router, "h", "/", "GET", 1), "inside");
}

TEST(Router, TakesPathsDeeperThanItSplits) {
  auto model = std::make_shared<Model>();
  model->routes = {route("rest", {}, "/*")};
  const Router router(model, {1, 2});
  std::string deep;
  for (int i = 0; i < 500; ++i) deep += "/x";
  EXPECT_EQ(matched(*model, router, "h", deep), "rest");
}

TEST(Router, PatternsMayBeAsDeepAsTheyLike) {
  std::string deep;
  for (int i = 0; i < 200; ++i) deep += "/" + std::to_string(i);
  auto model = std::make_shared<Model>();
  model->routes = {route("deep", {}, deep + "/{last}"), route("rest", {}, "/*")};
  const Router router(model, {1, 2});
  EXPECT_EQ(matched(*model, router, "h", deep + "/x"), "deep last=x");
  EXPECT_EQ(matched(*model, router, "h", deep), "rest");
}

TEST(TextTable, FindsWhatAMapFinds) {
  std::mt19937 random(11);
  TextTable table({1, 2});
  std::map<std::pair<uint32_t, std::string>, uint32_t> twin;
  EXPECT_EQ(table.find(0, ""), TextTable::kAbsent);
  // Lengths around the capacity of a slot, and few letters, so that texts share their beginnings.
  const auto some_text = [&] {
    std::string text(random() % 30, 'a');
    for (char& c : text) c = static_cast<char>('a' + random() % 2);
    return text;
  };
  for (uint32_t i = 0; i < 5'000; ++i) {
    const auto key = std::pair(static_cast<uint32_t>(random() % 3), some_text());
    if (twin.emplace(key, i).second) table.add(key.first, key.second, i);
  }
  for (const auto& [key, value] : twin) EXPECT_EQ(table.find(key.first, key.second), value) << key.second;
  for (int i = 0; i < 5'000; ++i) {
    const auto key = std::pair(static_cast<uint32_t>(random() % 4), some_text());
    const auto known = twin.find(key);
    EXPECT_EQ(table.find(key.first, key.second), known == twin.end() ? TextTable::kAbsent : known->second);
  }
}

// For a request that has only fields, as "name=value".
class SomeFields final : public ConditionJudge {
 public:
  explicit SomeFields(std::map<std::string, std::string> fields) : fields_(std::move(fields)) {}
  bool meets(const RouteConditions& conditions, const RoutePatterns*) const override {
    return std::all_of(conditions.headers.begin(), conditions.headers.end(), [&](const auto& wanted) {
      const auto found = fields_.find(wanted.first);
      return found != fields_.end() && found->second == wanted.second;
    });
  }

 private:
  const std::map<std::string, std::string> fields_;
};

TEST(Router, TakesTheRouteOfTheHighestRankWhoseConditionsAreMet) {
  auto model = std::make_shared<Model>();
  model->routes = {route("plain", {}, "/a"),  route("one", {}, "/a"),   route("two", {}, "/a"),
                   route("first", {}, "/a"),  route("get", {}, "/a"),   route("below", {}, "/*"),
                   route("beta", {}, "/b/c"), route("get-b", {}, "/h"), route("any-h", {}, "/h")};
  model->routes[1].match.headers = {{"x", "1"}};
  model->routes[2].match.headers = {{"x", "1"}, {"y", "1"}};
  model->routes[3].match.headers = {{"z", "1"}};
  model->routes[3].priority = 5;
  model->routes[4].methods = {"GET"};
  model->routes[4].match.headers = {{"w", "1"}};
  model->routes[6].match.headers = {{"x", "1"}};
  model->routes[7].methods = {"GET"};
  model->routes[7].priority = 2;
  model->routes[8].methods = {"HEAD"};
  const Router router(model, {1, 2});
  const auto at = [&](std::map<std::string, std::string> fields, std::string_view path,
                      std::string_view method = "GET") {
    const SomeFields judge(std::move(fields));
    RouteParameters parameters;
    const RouteMatch match = router.match(0, method, "h", path, parameters, &judge);
    return match.route == kNone ? match.method_refused ? "405" : "404" : model->routes[match.route].name;
  };
  EXPECT_EQ(at({}, "/a"), "plain");
  EXPECT_EQ(at({{"x", "1"}}, "/a"), "one");
  EXPECT_EQ(at({{"x", "2"}}, "/a"), "plain");
  EXPECT_EQ(at({{"x", "1"}, {"y", "1"}}, "/a"), "two") << "more conditions";
  EXPECT_EQ(at({{"x", "1"}, {"y", "1"}, {"z", "1"}}, "/a"), "first") << "the priority";
  EXPECT_EQ(at({{"w", "1"}}, "/a"), "get");
  EXPECT_EQ(at({{"w", "1"}}, "/a", "HEAD"), "get");
  EXPECT_EQ(at({{"w", "1"}}, "/a", "POST"), "plain");
  EXPECT_EQ(at({{"x", "1"}}, "/b/c"), "beta");
  EXPECT_EQ(at({}, "/b/c"), "below") << "as if the route were not there";
  EXPECT_EQ(at({}, "/h", "HEAD"), "get-b") << "a route for GET takes HEAD before one of a lower priority";
  RouteParameters parameters;
  EXPECT_EQ(model->routes[router.match(0, "GET", "h", "/a", parameters).route].name, "plain") << "nobody to ask";
}

TEST(Router, TakesTheRouteWhoseExpressionTakesTheWholePath) {
  auto model = std::make_shared<Model>();
  model->routes = {route("all", {}, "/*"), route("version", {}, "/*"), route("numbers", {}, "/items/{id}"),
                   route("item", {}, "/items/{id}"), route("other", {}, "/other")};
  model->routes[1].match.path_regex = "/v[0-9]+(/.*)?";
  model->routes[2].match.path_regex = "/items/[0-9]+";
  const Router router(model, {1, 2});
  const SomeFields judge({});
  const auto at = [&](std::string_view path, const ConditionJudge* by) {
    RouteParameters parameters;
    const RouteMatch match = router.match(0, "GET", "h", path, parameters, by);
    return match.route == kNone ? "404" : model->routes[match.route].name;
  };
  EXPECT_EQ(at("/v1", &judge), "version");
  EXPECT_EQ(at("/v12/x/y", &judge), "version");
  EXPECT_EQ(at("/v1x", &judge), "all") << "the whole path, not its beginning";
  EXPECT_EQ(at("/x/v1", &judge), "all") << "nor its end";
  EXPECT_EQ(at("/items/7", &judge), "numbers");
  EXPECT_EQ(at("/items/seven", &judge), "item");
  EXPECT_EQ(at("/other", &judge), "other");
  EXPECT_EQ(at("/v1", nullptr), "all") << "nobody to ask";
}

TEST(RequestConditions, LookAtWholeValuesByRegularExpressions) {
  Arena arena;
  RequestHead request;
  request.query = "v=1%2E0&w=x+y&bad=%zz&empty=&v=2";
  request.fields.add({"x-beta", "yes-7", FieldKind::other, false, "x-beta"});
  request.fields.add({"x-twice", "yes", FieldKind::other, false, "x-twice"});
  request.fields.add({"x-twice", "no", FieldKind::other, false, "x-twice"});
  request.fields.add({"cookie", "a=b", FieldKind::cookie, false, "cookie"});
  request.fields.add({"cookie", "c=d", FieldKind::cookie, false, "cookie"});
  const RequestConditions judge(request, "10.1.2.3");
  const auto meets = [&](const RouteConditions::Pairs& headers, const RouteConditions::Pairs& query = {}) {
    RouteConditions wanted;
    wanted.headers_regex = headers;
    wanted.query_regex = query;
    return judge.meets(wanted, RoutePatterns::of(wanted)->get());
  };
  EXPECT_TRUE(meets({{"X-Beta", "yes-[0-9]"}}));
  EXPECT_FALSE(meets({{"X-Beta", "yes"}})) << "the whole value";
  EXPECT_FALSE(meets({{"X-Twice", "yes"}})) << "all values count";
  EXPECT_FALSE(meets({{"X-Twice", "no"}}));
  EXPECT_TRUE(meets({{"X-Twice", "yes, no"}, {"X-Beta", "yes-7"}}));
  EXPECT_TRUE(meets({{"Cookie", "a=b; c=d"}})) << "as their own syntax joins them";
  EXPECT_FALSE(meets({{"X-Alpha", ".*"}})) << "it is not there";
  EXPECT_TRUE(meets({}, {{"v", "1\\.0"}})) << "decoded";
  EXPECT_TRUE(meets({}, {{"w", "x y"}}));
  EXPECT_TRUE(meets({}, {{"empty", ""}, {"empty", ".*"}}));
  EXPECT_FALSE(meets({}, {{"v", "2"}}));
  EXPECT_FALSE(meets({}, {{"bad", ".*"}})) << "malformed";
  EXPECT_FALSE(meets({}, {{"missing", ".*"}}));
  EXPECT_FALSE(meets({{"X-Beta", "yes-7"}}, {{"v", "2"}})) << "all of them";
  RouteConditions none;
  none.headers = {{"X-Beta", "yes-7"}};
  EXPECT_EQ(*RoutePatterns::of(none), nullptr);
}

// The naive twin: tries every pattern and keeps the most specific.
std::optional<uint32_t> naive_match(const Model& model, const std::string& host, const std::string& path) {
  std::optional<uint32_t> best;
  std::optional<HostPattern> best_host;
  PathPattern best_path;
  for (uint32_t i = 0; i < model.routes.size(); ++i) {
    const PathPattern pattern = *PathPattern::parse(model.routes[i].path);
    if (!pattern.matches(path)) continue;
    std::vector<std::optional<HostPattern>> hosts;
    for (const std::string& text : model.routes[i].hosts) hosts.emplace_back(*HostPattern::parse(text));
    if (hosts.empty()) hosts.emplace_back();
    for (const std::optional<HostPattern>& candidate : hosts) {
      if (candidate && !candidate->matches(host)) continue;
      const auto by_host =
          best ? compare_specificity(candidate ? &*candidate : nullptr, best_host ? &*best_host : nullptr)
               : std::strong_ordering::greater;
      const bool better = by_host > 0 || (by_host == 0 && compare_specificity(pattern, best_path) > 0);
      if (!better) continue;
      best = i;
      best_host = candidate;
      best_path = pattern;
    }
  }
  return best;
}

void compare_with_naive_twin(int rounds) {
  std::mt19937 random(7);
  const auto pick = [&](auto& from) { return from[random() % from.size()]; };
  std::vector<std::string> hosts{"a.test", "b.test", "*.test", "*.a.test", "*.b.a.test", "w.a.test", ""};
  std::vector<std::string> segments{"a", "b", "{p}", "{q}", "c"};
  std::vector<std::string> asked_hosts{"a.test", "w.a.test", "x.b.a.test", "q.test", "other"};
  std::vector<std::string> asked_segments{"a", "b", "c", "d", ""};
  for (int round = 0; round < rounds; ++round) {
    auto model = std::make_shared<Model>();
    std::map<std::string, bool> shapes;
    for (int i = 0; i < 30; ++i) {
      std::string path;
      for (size_t depth = 1 + random() % 4; depth > 0; --depth) path += "/" + pick(segments);
      if (random() % 3 == 0) path += "/*";
      const Result<PathPattern> pattern = PathPattern::parse(path);
      if (!pattern) continue;  // the same parameter twice
      const std::string host = pick(hosts);
      if (!shapes.emplace(host + pattern->shape(), true).second) continue;  // a conflict, which validation refuses
      model->routes.push_back(
          route("r" + std::to_string(i), host.empty() ? std::vector<std::string>{} : std::vector{host}, path));
    }
    const Router router(model, {3, 4});
    for (int i = 0; i < 100; ++i) {
      std::string path;
      for (size_t depth = 1 + random() % 5; depth > 0; --depth) path += "/" + pick(asked_segments);
      const std::string host = pick(asked_hosts);
      RouteParameters parameters;
      const RouteMatch match = router.match(0, "GET", host, path, parameters);
      const std::optional<uint32_t> expected = naive_match(*model, host, path);
      ASSERT_EQ(match.route, expected.value_or(kNone)) << host << path;
    }
  }
}

TEST(Router, AgreesWithANaiveTwin) { compare_with_naive_twin(20); }
TEST(LongRouter, AgreesWithANaiveTwin) { compare_with_naive_twin(1'000); }

// One of the routes is changed: its tries are compiled again only if some request may find another route now.
TEST(Router, CompilesAgainOnlyWhatRequestsAreMatchedBy) {
  auto before = std::make_shared<Model>();
  before->routes = {route("a", {}, "/a"), route("b", {"b.test"}, "/b/{id}")};
  const Router old(before, {5, 6});
  const auto changed = [&](auto change) {
    auto model = std::make_shared<Model>(*before);
    change(model->routes[1]);
    return model;
  };
  const auto other_answer = changed([](Route& r) { r.what = RouteAnswer{404, "none"}; });
  const Router same(other_answer, {5, 6}, &old);
  EXPECT_TRUE(same.shares_tries(old));
  EXPECT_EQ(&same.model(), other_answer.get());
  EXPECT_EQ(matched(same.model(), same, "b.test", "/b/7"), "b id=7");

  EXPECT_TRUE(Router(changed([](Route&) {}), {5, 6}, &same).shares_tries(old)) << "equal is enough";
  const auto compiled_again = [&](auto change) { return !Router(changed(change), {5, 6}, &old).shares_tries(old); };
  EXPECT_TRUE(compiled_again([](Route& r) { r.path = "/c"; }));
  EXPECT_TRUE(compiled_again([](Route& r) { r.hosts = {}; }));
  EXPECT_TRUE(compiled_again([](Route& r) { r.methods = {"GET"}; }));
  EXPECT_TRUE(compiled_again([](Route& r) { r.listeners = {0}; }));
  EXPECT_TRUE(compiled_again([](Route& r) { r.priority = 1; }));
  EXPECT_TRUE(compiled_again([](Route& r) { r.match.headers = {{"x", "1"}}; }));
  EXPECT_TRUE(compiled_again([](Route& r) { r.match.query = {{"x", "1"}}; }));
  EXPECT_TRUE(compiled_again([](Route& r) { r.match.cookies = {{"x", "1"}}; }));
  EXPECT_TRUE(compiled_again([](Route& r) { r.match.clients = {*Cidr::parse("10.0.0.0/8")}; }));
  EXPECT_TRUE(compiled_again([](Route& r) { r.match.path_regex = "/b/[0-9]+"; }));
  EXPECT_TRUE(compiled_again([](Route& r) { r.match.headers_regex = {{"x", "1+"}}; }));
  EXPECT_TRUE(compiled_again([](Route& r) { r.match.query_regex = {{"x", "1+"}}; }));
  auto more = std::make_shared<Model>(*before);
  more->routes.push_back(route("c", {}, "/c"));
  EXPECT_FALSE(Router(more, {5, 6}, &old).shares_tries(old));
}

// --- conditions on a request

TEST(RequestConditions, LookAtFieldsQueryCookiesAndTheClient) {
  Arena arena;
  RequestHead request;
  request.query = "a=1&b=x%20y+z&a=2&%63=&bad=%zz&flag";
  const auto add = [&](std::string_view name, std::string_view value, FieldKind kind = FieldKind::other) {
    request.fields.add({name, value, kind, false, name});
  };
  add("x-beta", "1");
  add("x-twice", "1");
  add("x-twice", "2");
  add("cookie", "g=b; h=c", FieldKind::cookie);
  const RequestConditions judge(request, "10.1.2.3");
  using Pairs = RouteConditions::Pairs;
  const auto meets = [&](const Pairs& headers, const Pairs& query = {}, const Pairs& cookies = {},
                         std::vector<Cidr> clients = {}) {
    RouteConditions wanted;
    wanted.headers = headers;
    wanted.query = query;
    wanted.cookies = cookies;
    wanted.clients = std::move(clients);
    return judge.meets(wanted, nullptr);
  };
  EXPECT_TRUE(meets({{"X-Beta", "1"}}));
  EXPECT_TRUE(meets({{"X-Beta", "*"}}));
  EXPECT_FALSE(meets({{"X-Twice", "1"}})) << "all values count";
  EXPECT_FALSE(meets({{"X-Twice", "2"}}));
  EXPECT_TRUE(meets({{"X-Twice", "1, 2"}}));
  EXPECT_FALSE(meets({{"X-Alpha", "*"}}));
  EXPECT_TRUE(meets({}, {{"a", "1"}, {"b", "x y z"}, {"flag", "*"}, {"c", "*"}}));
  EXPECT_FALSE(meets({}, {{"a", "2"}}));
  EXPECT_FALSE(meets({}, {{"A", "1"}}));
  EXPECT_FALSE(meets({}, {{"b", "x y"}}));
  EXPECT_FALSE(meets({}, {{"bad", "%zz"}}));
  EXPECT_TRUE(meets({}, {}, {{"g", "b"}, {"h", "*"}}));
  EXPECT_FALSE(meets({}, {}, {{"g", "c"}}));
  EXPECT_TRUE(meets({}, {}, {}, {*Cidr::parse("192.0.2.0/24"), *Cidr::parse("10.0.0.0/8")}));
  EXPECT_FALSE(meets({}, {}, {}, {*Cidr::parse("192.0.2.0/24")}));
  EXPECT_FALSE(meets({{"X-Beta", "1"}}, {{"a", "2"}})) << "all of them";
}

// For a client of the proxy: conditions choose the route, also next to a cached route, and explain says the same.
TEST(RequestConditions, ChooseTheRouteOfARequest) {
  test::Edge edge;
  edge.add_fixed("/a", 200, "plain");
  Route& beta = edge.add_fixed("/a", 200, "beta");
  beta.match.cookies = {{"group", "beta"}};
  Route& inside = edge.add_fixed("/a", 200, "inside");
  inside.match.clients = {*Cidr::parse("127.0.0.0/8")};
  inside.match.query = {{"inside", "*"}};
  edge.start();
  const auto body = [&](const std::string& target, const std::string& fields = {}) {
    return test::ask(edge.endpoint(), test::get(target, "a.test", fields)).body;
  };
  EXPECT_EQ(body("/a"), "plain");
  EXPECT_EQ(body("/a", "Cookie: x=y; group=beta\r\n"), "beta");
  EXPECT_EQ(body("/a?inside"), "inside");
  EXPECT_EQ(body("/a?inside", "Cookie: group=beta\r\n"), "inside") << "more conditions";
  const auto explained = [&](const std::string& more) {
    HttpRequest request;
    request.query = "client=127.0.0.1&url=http://a.test/a" + more;
    return *edge.proxy().explain(request);
  };
  EXPECT_EQ(explained("")["route"], edge.model.routes[0].name);
  const nlohmann::json chosen = explained("&headers=X-A:%201%0ACookie:%20group%3Dbeta");
  EXPECT_EQ(chosen["route"], edge.model.routes[1].name);
  EXPECT_EQ(chosen["match"]["cookies"]["group"], "beta");
  EXPECT_EQ(explained("%3Finside")["route"], edge.model.routes[2].name);
}

}  // namespace tidegate::l7::router_test
