// SPDX-License-Identifier: Apache-2.0
#include "l7/route/router.h"

#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <random>

#include "conf/route_pattern.h"
#include "l7/route/text_table.h"

namespace tidegate::l7 {
namespace {

Route route(const std::string& name, std::vector<std::string> hosts, const std::string& path) {
  Route out;
  out.name = name;
  out.hosts = std::move(hosts);
  out.path = path;
  out.pool = 0;
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

TEST(Router, AgreesWithANaiveTwin) {
  std::mt19937 random(7);
  const auto pick = [&](auto& from) { return from[random() % from.size()]; };
  std::vector<std::string> hosts{"a.test", "b.test", "*.test", "*.a.test", "*.b.a.test", "w.a.test", ""};
  std::vector<std::string> segments{"a", "b", "{p}", "{q}", "c"};
  std::vector<std::string> asked_hosts{"a.test", "w.a.test", "x.b.a.test", "q.test", "other"};
  std::vector<std::string> asked_segments{"a", "b", "c", "d", ""};
  for (int round = 0; round < 200; ++round) {
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

}  // namespace
}  // namespace tidegate::l7
