// SPDX-License-Identifier: Apache-2.0
// ModelBuilder compared with its naive twin: a builder that has seen no earlier version, and so builds each one whole.
#include "conf/model_builder.h"
#include "conf/model.h"
#include "conf/model/pool.h"
#include "conf/model/route.h"
#include "conf/model/zone.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "tests/unit/conf/documents.h"
#include "tests/unit/conf/forked.h"

namespace tidegate::model_builder_test {

// Every field of the Model that these documents set, as text.
std::string told(const Model& model) {
  std::string out;
  for (const Pool& pool : model.pools) {
    out += fmt::format("pool {} {} {}:", pool.name, pool.policy == PoolPolicy::least_requests, pool.probe);
    for (const Backend& backend : pool.backends) {
      out +=
          fmt::format(" {} {} {} {}", backend.name, backend.addresses.at(0).to_string(), backend.port, backend.weight);
    }
    out += '\n';
  }
  for (const Route& route : model.routes) {
    const RouteRedirect redirect = route.redirect() != nullptr ? *route.redirect() : RouteRedirect{{}, 0};
    const RouteAnswer answer = route.answer() != nullptr ? *route.answer() : RouteAnswer{};
    out += fmt::format("route {} {} {} '{}' {} {} '{}' {}\n", route.name, route.path, route.pool(), redirect.location,
                       redirect.status, answer.status, answer.body, route.cache.enabled);
  }
  for (const Zone& zone : model.zones) out += fmt::format("zone {} {}\n", zone.name, *zone.file.bytes);
  return out;
}

class ModelBuilderTest : public ::testing::Test {
 protected:
  // The YAML text of the elements, by list and name.
  using Elements = std::map<std::string, std::map<std::string, std::string>>;

  void commit() {
    std::string text;
    for (const auto& [list, by_name] : elements_) {
      text += list + ":\n";
      for (const auto& [name, element] : by_name) text += "  - {name: " + name + ", " + element + "}\n";
    }
    std::vector<Fault> faults;
    const auto document = Document::parse("test.yaml", text, faults);
    ASSERT_TRUE(document && faults.empty()) << text;
    const auto manifest = store_->commit_version(split_objects(*document, files_from(files_)), version_, "t", "");
    ASSERT_TRUE(manifest) << manifest.error().message;
    version_ = manifest->version;
  }
  // Compares the builder that goes from version to version with one that starts at this version.
  void expect_twins_agree() {
    const Manifest manifest = *store_->manifest(version_);
    const auto model = builder_.build(*store_, manifest);
    const auto whole = ModelBuilder().build(*store_, manifest);
    ASSERT_TRUE(model) << model.error().message;
    ASSERT_TRUE(whole) << whole.error().message;
    EXPECT_EQ(told(**model), told(**whole));
  }

  const TempDir directory_;
  std::unique_ptr<StateStore> store_ = *StateStore::open(directory_.path(), StateStore::Mode::read_write);
  ModelBuilder builder_;
  uint64_t version_ = 0;
  std::map<std::string, std::shared_ptr<const std::string>> files_;
  Elements elements_{
      {"probes", {{"alive", "type: tcp, port: 80"}}},
      {"pools",
       {{"web", "probe: alive, backends: [{name: a, addresses: [10.0.0.1], port: 80}]"},
        {"api", "backends: [{name: b, addresses: [10.0.0.2], port: 81}]"}}},
      {"routes", {{"all", "path: /*, pool: web"}, {"old", "path: /old, redirect: /new"}}},
  };
};

TEST_F(ModelBuilderTest, DecodesWhatChangedOverWhatStood) {
  commit();
  expect_twins_agree();
  elements_["routes"]["all"] = "path: /*, pool: api, cache: {enabled: true}";
  elements_["pools"]["web"] =
      "backends: [{name: c, addresses: [10.0.0.3], port: 82, weight: 7}], policy: least_requests";
  commit();
  expect_twins_agree();
  elements_["routes"]["all"] = "path: /everything/*, redirect: /there";
  commit();
  expect_twins_agree();
}

TEST_F(ModelBuilderTest, TheModelBeforeStaysAsItWas) {
  commit();
  const auto before = *builder_.build(*store_, *store_->manifest(version_));
  const std::string said = told(*before);
  elements_["routes"]["old"] = "path: /old, status: 404";
  commit();
  expect_twins_agree();
  EXPECT_EQ(told(*before), said);
}

TEST_F(ModelBuilderTest, AModelSharesWhatDidNotChangeWithTheOneBefore) {
  commit();
  const auto before = *builder_.build(*store_, *store_->manifest(version_));
  elements_["routes"]["old"] = "path: /old, status: 404";
  commit();
  const auto model = *builder_.build(*store_, *store_->manifest(version_));
  EXPECT_TRUE(model->routes.shares(0, before->routes));
  EXPECT_FALSE(model->routes.shares(1, before->routes));
  for (size_t p = 0; p < 2; ++p) EXPECT_TRUE(model->pools.shares(p, before->pools)) << p;
}

TEST_F(ModelBuilderTest, AChangeOfElementsThatTheReleaseDoesNotKnowIsRefusedAndTheNextOneIsBuilt) {
  commit();
  expect_twins_agree();
  const std::string good = elements_["pools"]["web"];
  elements_["pools"]["web"] += ", novelty: 1";
  commit();
  const auto refused = builder_.build(*store_, *store_->manifest(version_));
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("a pool has no key 'novelty'"), std::string::npos) << refused.error().message;
  elements_["pools"]["web"] = good;
  elements_["routes"]["old"] = "path: /old, status: 410";
  commit();
  expect_twins_agree();
}

TEST_F(ModelBuilderTest, AFileThatChangedIsReadAnew) {
  files_["a.zone"] = testing::content("$ORIGIN a.test.\n@ 60 IN SOA ns h 1 1 1 1 1\n@ IN NS ns\nns IN A 192.0.2.1\n");
  elements_["zones"]["a.test"] = "file: a.zone";
  commit();
  expect_twins_agree();
  files_["a.zone"] = testing::content("$ORIGIN a.test.\n@ 60 IN SOA ns h 2 1 1 1 1\n@ IN NS ns\nns IN A 192.0.2.9\n");
  commit();
  expect_twins_agree();
}

TEST_F(ModelBuilderTest, AgreesWithItsTwinThroughAnyChanges) {
  std::mt19937 random(1);  // NOLINT(cert-msc51-cpp): the same changes each time
  const auto upto = [&random](unsigned count) { return static_cast<unsigned>(random() % count); };
  for (int round = 0; round < 200 && !HasFailure(); ++round) {
    for (unsigned changes = 1 + upto(3); changes > 0; --changes) {
      const std::string name = fmt::format("r{}", upto(12));
      switch (upto(5)) {
        case 0:
          elements_["routes"].erase(name);
          break;
        case 1:
          elements_["routes"][name] = fmt::format("path: /{}, redirect: /to-{}", name, round);
          break;
        case 2:
          elements_["routes"][name] = fmt::format("path: /{}, status: 200, body: '{}'", name, round);
          break;
        case 3:
          elements_["pools"]["api"] =
              fmt::format("backends: [{{name: b, addresses: [10.0.0.2], port: {}}}]", 1 + upto(1000));
          break;
        default:
          elements_["routes"][name] = fmt::format("path: /{}, pool: {}", name, upto(2) == 0 ? "web" : "api");
      }
    }
    commit();
    expect_twins_agree();
  }
}

}  // namespace tidegate::model_builder_test
