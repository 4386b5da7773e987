// SPDX-License-Identifier: Apache-2.0
// The canonical form and the objects of a version.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "conf/model.h"
#include "conf/model/pool.h"
#include "conf/model/zone.h"
#include "tests/unit/conf/documents.h"

namespace tidegate::canonical_test {

using ::testing::ElementsAre;
using testing::load_text;

constexpr const char* kText = R"(# a comment
probes: [{name: p, interval: 60000ms, timeout: 1s}]
pools:
  - {probe: p, name: zebra, backends: [{port: 80, name: a, addresses: ['2001:DB8:0::1', 192.0.2.1]}], tls: false, hash_on: "header:X-User"}
  - name: ant
    backends: [{name: b, addresses: [192.0.2.2]}]
    tls_server_name: 'true'
routes:
  - {name: r, hosts: [WWW.example.TEST], status: 200, body: "a\nb: \"c\"\n", response_headers: {X-B: '1', X-A: ''}}
zones: [{name: Example.test., file: zone}]
geo: {networks: [{network: 192.0.2.0/24, location: {latitude: 50, longitude: -1.50}}]}
)";

std::map<std::string, std::shared_ptr<const std::string>> files() {
  return {{"zone", testing::content("@ IN SOA a b 1 2 3 4 5\n")}};
}

TEST(Canonical, SpellsEveryValueInOneWay) {
  const auto json = load_text(kText).document->to_json();
  EXPECT_EQ(json["probes"][0]["interval"], "1m");
  EXPECT_EQ(json["pools"][0]["backends"][0]["addresses"][0], "2001:db8::1");
  EXPECT_EQ(json["pools"][0]["tls"], false);
  EXPECT_EQ(json["routes"][0]["hosts"][0], "www.example.test");
  EXPECT_EQ(json["zones"][0]["name"], "example.test");
  EXPECT_EQ(json["geo"]["networks"][0]["location"].dump(), R"({"latitude":50.0,"longitude":-1.5})");
  EXPECT_FALSE(json["pools"][1].contains("probe"));
}

TEST(Canonical, ComesBackTheSameThroughYamlAndJson) {
  const auto loaded = load_text(kText);
  const auto json = loaded.document->to_json();
  const auto again = load_text(loaded.document->to_yaml());
  ASSERT_NE(again.document, nullptr) << again.rendered() << loaded.document->to_yaml();
  EXPECT_EQ(again.document->to_json(), json);
  EXPECT_EQ(again.document->to_yaml(), loaded.document->to_yaml());
  EXPECT_EQ(Document::from_json("", json)->to_json(), json);
}

TEST(Canonical, WritesYamlForPeople) {
  EXPECT_EQ(load_text("pools: [{backends: [{addresses: [192.0.2.1], name: a}], name: app}]\nsites: [{name: eu}]\n")
                .document->to_yaml(),
            "sites:\n  - {name: eu}\npools:\n  - {name: app, backends: [{name: a, addresses: [192.0.2.1]}]}\n");
  EXPECT_EQ(load_text("{}").document->to_yaml(), "{}\n");
}

TEST(Canonical, QuotesTextThatYamlWouldReadAsSomethingElse) {
  for (const char* body : {"true", "null", "~", "1.5", "010", "- a", "a: b", "#x", "", " lead", "*x", "&x", "é",
                           "tab\there", "1e5", "No"}) {
    const nlohmann::json json = {{"routes", {{{"name", "r"}, {"status", 200}, {"body", body}}}}};
    const std::string yaml = Document::from_json("", json)->to_yaml();
    const auto again = load_text(yaml);
    ASSERT_NE(again.document, nullptr) << yaml << again.rendered();
    EXPECT_EQ(again.document->to_json(), json) << yaml;
  }
}

TEST(Objects, SplitAndAssembleKeepTheDocumentAndItsOrder) {
  const auto loaded = load_text(kText, files());
  ASSERT_NE(loaded.model, nullptr) << loaded.rendered();
  auto objects = split_objects(*loaded.document, files_from(files()));
  std::reverse(objects.begin(), objects.end());
  FileReader reader;
  const auto again = assemble_document(objects, reader);
  ASSERT_NE(again, nullptr);
  EXPECT_EQ(again->to_json(), loaded.document->to_json());
  std::vector<Fault> faults;
  const auto model = load_model(*again, reader, faults);
  ASSERT_NE(model, nullptr) << render_faults(faults, "", false);
  EXPECT_EQ(model->pools[0].name, "zebra");
  EXPECT_EQ(*model->zones[0].file.bytes, "@ IN SOA a b 1 2 3 4 5\n");
}

std::vector<std::string> changed_objects(const std::string& before, const std::string& after) {
  std::map<std::pair<std::string, std::string>, std::string> old;
  for (const auto& object : split_objects(*load_text(before).document, files_from({})))
    old[{object.kind, object.name}] = object.bytes;
  std::vector<std::string> changed;
  for (const auto& object : split_objects(*load_text(after).document, files_from({}))) {
    const auto same = old.find({object.kind, object.name});
    if (same == old.end() || same->second != object.bytes) changed.push_back(object.kind + "/" + object.name);
  }
  return changed;
}

TEST(Objects, ChangeOnlyWhereTheDocumentChanges) {
  const std::string before = "probes: [{name: a}, {name: b}, {name: c}]\n";
  EXPECT_THAT(changed_objects(before, "probes: [{name: a}, {name: b, rise: 3}, {name: c}]\n"), ElementsAre("probes/b"));
  EXPECT_THAT(changed_objects(before, "probes:\n  - name: a\n  - name: b # the same\n  - {name: 'c'}\n"),
              ElementsAre());
  EXPECT_THAT(changed_objects(before, "probes: [{name: b}, {name: a}, {name: c}]\n"), ElementsAre("order/probes"));
}

TEST(Objects, AssembleNothingFromDamagedOrMissingOnes) {
  FileReader reader;
  EXPECT_EQ(assemble_document({{"order", "probes", R"(["a"])"}}, reader), nullptr);
  EXPECT_EQ(assemble_document({{"order", "probes", R"(["a"])"}, {"probes", "a", "{"}}, reader), nullptr);
  EXPECT_NE(assemble_document({}, reader), nullptr);
}

}  // namespace tidegate::canonical_test
