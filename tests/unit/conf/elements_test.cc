// SPDX-License-Identifier: Apache-2.0
// Elements of the Model that versions share: what a change copies, and that nothing else sees it.
#include "conf/elements.h"
#include "conf/model.h"
#include "conf/model/route.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "conf/working_copy.h"
#include "tests/unit/conf/documents.h"

namespace tidegate::elements_test {

using testing::load_text;

TEST(Elements, ACopySharesAllButWhatOneOfTheTwoChanges) {
  Elements<std::string> first{"a", "b", "c"};
  Elements<std::string> second = first;
  const Elements<std::string>&was = first, &is = second;
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(is.shares(i, was)) << i;
  second[1] = "x";
  EXPECT_EQ(was[1], "b");
  EXPECT_EQ(is[1], "x");
  EXPECT_TRUE(is.shares(0, was));
  EXPECT_FALSE(is.shares(1, was));
  const std::string* const own = &is[1];
  second[1] = "y";
  EXPECT_EQ(&is[1], own) << "it is its own already";
  second.renew(2);
  EXPECT_EQ(is[2], "");
  EXPECT_EQ(was[2], "c");
  EXPECT_FALSE(is.shares(3, was)) << "there is none";
}

TEST(Elements, ReadsLikeAVector) {
  Elements<int> list{3, 1, 2};
  list.push_back(5);
  list.emplace_back() = 4;
  const Elements<int>& read = list;
  EXPECT_EQ(std::vector<int>(read.begin(), read.end()), (std::vector<int>{3, 1, 2, 5, 4}));
  EXPECT_EQ(*std::max_element(read.begin(), read.end()), 5);
  EXPECT_EQ(std::find(read.begin(), read.end(), 2) - read.begin(), 2);
  for (int& each : list) each += 10;
  list.erase(list.begin() + 1);
  list.resize(3);
  EXPECT_EQ(std::vector<int>(read.begin(), read.end()), (std::vector<int>{13, 12, 15}));
  EXPECT_EQ(read.front() + read.back() + read.at(1), 40);
  EXPECT_THROW(static_cast<void>(read.at(3)), std::out_of_range);
  list = {1};
  EXPECT_EQ(read.size(), 1u);
  list.pop_back();
  EXPECT_TRUE(read.empty());
}

std::string edge_with(const std::vector<std::string>& routes) {
  std::string text = "listeners: [{name: l, bind: ['0.0.0.0:80']}]\nroutes:\n";
  for (size_t i = 0; i < routes.size(); ++i) text += fmt::format("  - {{name: r{}, status: 200, {}}}\n", i, routes[i]);
  return text;
}

std::multiset<std::string> told(const std::vector<Fault>& faults) {
  std::multiset<std::string> out;
  for (const Fault& fault : faults) out.insert(fault.code + " " + fault.pointer + " " + fault.detail);
  return out;
}

TEST(WorkingCopy, AChangedElementIsTheOnlyOneOfItsOwn) {
  auto loaded = load_text(edge_with({"path: /a", "path: /b", "path: /c"}));
  ASSERT_TRUE(loaded.model) << loaded.rendered();
  const auto before = loaded.model;
  WorkingCopy copy(std::move(loaded.document), before);
  std::vector<Fault> faults;
  const auto tried =
      copy.try_element("routes", "r1", Document::parse("e", "{name: r1, path: /d, status: 200}", faults));
  ASSERT_TRUE(tried && tried->model);
  EXPECT_TRUE(tried->model->routes.shares(0, before->routes));
  EXPECT_FALSE(tried->model->routes.shares(1, before->routes));
  EXPECT_TRUE(tried->model->routes.shares(2, before->routes));
  EXPECT_EQ(before->routes[1].path, "/b");
  EXPECT_EQ(tried->model->routes[1].path, "/d");
}

// The twin: the document with the changed element in it, judged as a whole.
TEST(WorkingCopy, FindsTheConflictsThatTheWholeDocumentHas) {
  std::mt19937 random(11);
  const auto pick = [&](const std::vector<std::string>& from) { return from[random() % from.size()]; };
  const auto some_route = [&] {
    return fmt::format(
        "path: '{}', hosts: [{}], methods: [{}], priority: {}, match: {{{}}}",
        pick({"/a", "/a/{x}", "/a/{y}", "/{x}/a", "/b/*"}), pick({"", "", "a.test", "'*.test'", "a.test, b.test"}),
        pick({"", "GET", "POST"}), random() % 2,
        pick({"", "", "headers: {A: x}", "headers: {A: y}", "path_regex: '/a/[0-9]+'", "headers_regex: {A: 'x+'}"}));
  };
  size_t good = 0, refused = 0;
  for (int round = 0; round < 80; ++round) {
    std::vector<std::string> routes;
    while (routes.size() < 4) {
      routes.push_back(some_route());
      if (!load_text(edge_with(routes)).model) routes.pop_back();
    }
    auto loaded = load_text(edge_with(routes));
    ASSERT_TRUE(loaded.model) << loaded.rendered();
    WorkingCopy copy(std::move(loaded.document), loaded.model);
    const size_t at = random() % routes.size();
    routes[at] = some_route();
    std::vector<Fault> faults;
    const auto tried =
        copy.try_element("routes", fmt::format("r{}", at),
                         Document::parse("e", fmt::format("{{name: r{}, status: 200, {}}}", at, routes[at]), faults));
    ASSERT_TRUE(tried);
    const auto whole = load_text(edge_with(routes));
    EXPECT_EQ(told(tried->faults), told(whole.faults)) << whole.text;
    EXPECT_EQ(tried->model != nullptr, whole.model != nullptr) << whole.text;
    ++(whole.model ? good : refused);
  }
  EXPECT_GT(good, 10u);
  EXPECT_GT(refused, 5u);
}

// If a pool or a listener changes, the routes that name it are judged again, although the routes have not changed.
TEST(WorkingCopy, JudgesARouteAgainWhenWhatItNamesChanges) {
  const auto try_one = [](const char* kind, const char* name, const std::string& element) {
    auto loaded = load_text(
        "listeners: [{name: l, bind: ['0.0.0.0:80'], merge_slashes: false}]\n"
        "pools: [{name: p, protocol: h2, backends: [{name: b, addresses: [192.0.2.1], port: 80, labels: [new]}]}]\n"
        "routes:\n  - {name: grpc, path: /a, pool: p, grpc_web: true}\n  - {name: part, path: /b, pool: p, labels: "
        "[new]}\n"
        "  - {name: slashes, path: /c//d, status: 200}\n");
    EXPECT_TRUE(loaded.model) << loaded.rendered();
    WorkingCopy copy(std::move(loaded.document), loaded.model);
    std::vector<Fault> faults;
    const auto tried = copy.try_element(kind, name, Document::parse("e", element, faults));
    std::vector<std::string> places;
    for (const Fault& fault : tried->faults) places.push_back(fault.pointer);
    return places;
  };
  using Places = std::vector<std::string>;
  EXPECT_EQ(try_one("listeners", "l", "{name: l, bind: ['0.0.0.0:81'], merge_slashes: false}"), Places{});
  EXPECT_EQ(try_one("listeners", "l", "{name: l, bind: ['0.0.0.0:80']}"), Places{"/routes/2/path"});
  EXPECT_EQ(try_one("pools", "p", "{name: p, protocol: h2, backends: [{name: b, addresses: [192.0.2.1], port: 80}]}"),
            Places{"/routes/1/labels"});
  EXPECT_EQ(try_one("pools", "p", "{name: p, backends: [{name: b, addresses: [192.0.2.1], port: 80, labels: [new]}]}"),
            Places{"/routes/0/grpc_web"});
}

}  // namespace tidegate::elements_test
