// SPDX-License-Identifier: Apache-2.0
// Documents that become Models: types, units, defaults, references.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "conf/fields.h"
#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/service.h"
#include "conf/model/zone.h"
#include "tests/unit/conf/documents.h"

namespace tidegate::load_test {

using ::testing::ElementsAre;
using testing::load_text;

// One pool with these additional keys.
std::string pool_with(const std::string& keys) {
  return "pools:\n  - name: app\n    backends: [{name: a, addresses: [192.0.2.1], port: 80}]\n    " + keys + "\n";
}

// The only fault of a pool with these keys, as "detail; expected; hint".
std::string complaint_of(const std::string& keys) {
  const auto loaded = load_text(pool_with(keys));
  if (loaded.faults.size() != 1) return "faults: " + std::to_string(loaded.faults.size()) + "\n" + loaded.rendered();
  return loaded.faults[0].detail + "; " + loaded.faults[0].expected + "; " + loaded.faults[0].hint;
}

TEST(Load, KeepsTheDefaultsOfTheModelWhereNothingIsWritten) {
  const auto loaded = load_text(pool_with(""));
  ASSERT_NE(loaded.model, nullptr) << loaded.rendered();
  const Pool& pool = loaded.model->pools[0];
  EXPECT_EQ(pool.connect_timeout_ms, Pool{}.connect_timeout_ms);
  EXPECT_EQ(pool.policy, Pool{}.policy);
  EXPECT_EQ(pool.probe, kNone);
  EXPECT_EQ(pool.backends[0].weight, Backend{}.weight);
}

TEST(Load, AListThatStandsTwiceIsRefusedAndNothingPointsIntoTheOtherOne) {
  const std::string backends = "backends: [{name: a, addresses: [192.0.2.1], port: 80}]";
  const auto loaded = load_text("pools: [{name: one, " + backends + "}, {name: two, " + backends +
                                "}]\n"
                                "routes: [{name: all, pool: two}]\n"
                                "pools: [{name: three, " +
                                backends + "}]\n");
  EXPECT_EQ(loaded.model, nullptr);
  EXPECT_THAT(loaded.codes(), ElementsAre("duplicate_key"));
}

TEST(Load, ReadsDurationsAndSizesInEveryUnit) {
  const auto loaded = load_text(
      "nodes:\n  - name: n\n    cache: {ram: 64MB, disk: 2TB, max_object: 512KB}\n    l7: {drain_timeout: 1m}\n    l4: "
      "{memory: 1GB}\n"
      "zones: [{name: test, file: z}]\nsteers: []\n" +
          pool_with("connect_timeout: 250ms\n    eject: 2h\n    keepalive_timeout: 0"),
      {{"z", testing::content("@ IN SOA a b 1 2 3 4 5\n")}});
  ASSERT_NE(loaded.model, nullptr) << loaded.rendered();
  const Node& node = loaded.model->nodes[0];
  EXPECT_EQ(node.cache.ram_bytes, uint64_t{64} << 20);
  EXPECT_EQ(node.cache.disk_bytes, uint64_t{2} << 40);
  EXPECT_EQ(node.cache.max_object_bytes, uint64_t{512} << 10);
  EXPECT_EQ(node.l7.drain_timeout_ms, 60'000U);
  EXPECT_EQ(node.l4.memory_mb, 1024U);
  EXPECT_EQ(loaded.model->pools[0].connect_timeout_ms, 250U);
  EXPECT_EQ(loaded.model->pools[0].eject_ms, 7'200'000U);
  EXPECT_EQ(loaded.model->pools[0].keepalive_timeout_ms, 0U);
}

TEST(Load, TurnsSectionsOnByWritingThem) {
  const auto loaded = load_text("nodes:\n  - {name: a, l7: {}, cache: {enabled: false}}\n");
  ASSERT_NE(loaded.model, nullptr) << loaded.rendered();
  EXPECT_TRUE(loaded.model->nodes[0].l7.enabled);
  EXPECT_FALSE(loaded.model->nodes[0].cache.enabled);
  EXPECT_FALSE(loaded.model->nodes[0].dns.enabled);
}

TEST(Load, ResolvesReferencesForwardsAndBackwards) {
  const auto loaded = load_text(
      "services: [{name: s, vip: v, port: 443, pool: app, protocol: udp}]\nvips: [{name: v, addresses: [192.0.2.9, "
      "'2001:db8::9']}]\n" +
      pool_with("probe: alive") + "probes: [{name: other}, {name: alive, port: 81}]\n");
  ASSERT_NE(loaded.model, nullptr) << loaded.rendered();
  EXPECT_EQ(loaded.model->services[0].vip, 0U);
  EXPECT_EQ(loaded.model->services[0].protocol, Protocol::udp);
  EXPECT_EQ(loaded.model->pools[0].probe, 1U);
}

TEST(Load, StoresDomainsInLowerCaseWithTheFinalDot) {
  const auto loaded =
      load_text("zones: [{name: Example.TEST, file: z}]\n", {{"z", testing::content("@ IN SOA a b 1 2 3 4 5\n")}});
  ASSERT_NE(loaded.model, nullptr) << loaded.rendered();
  EXPECT_EQ(loaded.model->zones[0].name, "example.test.");
  EXPECT_EQ(loaded.model->zones[0].file.hash.size(), 64U);
}

TEST(Load, SaysWhatWasExpectedOfEachType) {
  EXPECT_EQ(complaint_of("tls: yes"), "tls is 'yes'; true or false; ");
  EXPECT_EQ(complaint_of("retry_attempts: 17"), "retry_attempts is 17; 0 to 16; ");
  EXPECT_EQ(complaint_of("retry_attempts: -1"), "retry_attempts is -1; 0 to 16; ");
  EXPECT_EQ(complaint_of("retry_attempts: '1'"), "retry_attempts is '1'; 0 to 16; remove the quotes");
  EXPECT_EQ(complaint_of("retry_attempts: 99999999999999999999"), "retry_attempts is 99999999999999999999; 0 to 16; ");
  EXPECT_EQ(complaint_of("retry_attempts:"), "retry_attempts is empty; 0 to 16; remove the key to have the default");
  EXPECT_EQ(complaint_of("retry_budget: .nan"), "retry_budget is '.nan'; 0 to 1; ");
  EXPECT_EQ(complaint_of("retry_budget: 1.5"), "retry_budget is 1.5; 0 to 1; ");
  EXPECT_EQ(complaint_of("connect_timeout: 5"),
            "connect_timeout is 5; a duration from 1ms to 5m; a unit is missing: 5s or 5ms?");
  EXPECT_EQ(complaint_of("connect_timeout: 2h"), "connect_timeout is '2h'; a duration from 1ms to 5m; ");
  EXPECT_EQ(complaint_of("policy: least_request"),
            "policy is 'least_request'; weighted_round_robin, least_requests, random_of_two, peak_ewma, "
            "consistent_hash or ring_hash; did you mean 'least_requests'?");
  std::string keys;
  for (const std::string_view key : pool_section().keys()) keys += (keys.empty() ? "" : ", ") + std::string(key);
  EXPECT_EQ(complaint_of("backends2: []"), "a pool has no key 'backends2'; ; the keys of a pool are " + keys);
  EXPECT_EQ(complaint_of("polcy: x"), "a pool has no key 'polcy'; ; did you mean 'policy'?");
  EXPECT_EQ(complaint_of("probe: [a]"), "probe is a list; a name from probes; ");
}

TEST(Load, TakesANumberOfWorkersOrAuto) {
  const auto workers = [](const std::string& written) {
    return load_text("nodes: [{name: a, l7: {workers: " + written + "}, dns: {workers: " + written + "}}]\n");
  };
  for (const auto& [written, number] : std::map<std::string, uint32_t>{{"auto", 0}, {"'auto'", 0}, {"3", 3}}) {
    const testing::Loaded loaded = workers(written);
    ASSERT_NE(loaded.model, nullptr) << written;
    EXPECT_EQ(loaded.model->nodes[0].l7.workers, number) << written;
    EXPECT_EQ(loaded.model->nodes[0].dns.workers, number) << written;
  }
  for (const auto& [written, hint] : std::map<std::string, std::string>{{"Auto", "did you mean 'auto'?"},
                                                                        {"atuo", "did you mean 'auto'?"},
                                                                        {"0", ""},
                                                                        {"257", ""},
                                                                        {"many", ""},
                                                                        {"'2'", "remove the quotes"}}) {
    const testing::Loaded loaded = workers(written);
    ASSERT_EQ(loaded.faults.size(), 2U) << written;
    EXPECT_EQ(loaded.faults[0].expected, "auto, or 1 to 256");
    EXPECT_EQ(loaded.faults[0].hint, hint) << written;
  }
}

TEST(Load, CountsAMisspeltRequiredKeyOnce) {
  EXPECT_THAT(load_text("pools:\n  - {name: a, bakends: []}\n").codes(), ElementsAre("unknown_key"));
  // A misspelled section is one fault: references into it are not reported again.
  EXPECT_THAT(load_text("pool:\n  - {name: a, backends: [{name: b, addresses: [192.0.2.1], port: 80}]}\n"
                        "vips: [{name: v, addresses: [192.0.2.9]}]\n"
                        "services: [{name: s, vip: v, port: 80, pool: a}]\n"
                        "routes:\n  - {name: r, path: /a, pool: a}\n  - {name: q, path: /b, pool: a}\n")
                  .codes(),
              ElementsAre("unknown_key"));
  EXPECT_THAT(load_text("pools: [{name: a, backends: [{name: b, addresses: [192.0.2.1], port: 80}]}]\n"
                        "pool: []\nroutes: [{name: r, pool: aa}]\n")
                  .codes(),
              ::testing::UnorderedElementsAre("unknown_key", "no_such_name"))
      << "the section is there: what it lacks is told";
}

TEST(Load, RefusesAnEmptyDocumentAndOneThatIsNoMap) {
  EXPECT_THAT(load_text("").codes(), ElementsAre("wrong_type"));
  EXPECT_THAT(load_text("- a\n").codes(), ElementsAre("wrong_type"));
  EXPECT_NE(load_text("{}").model, nullptr);
}

TEST(Load, BoundsTheNumberOfFaults) {
  std::string text = "pools:\n";
  for (int i = 0; i < 3'000; ++i) text += "  - {nam: a}\n";
  const auto loaded = load_text(text);
  EXPECT_EQ(loaded.model, nullptr);
  EXPECT_EQ(loaded.faults.size(), 1'001U);
  EXPECT_EQ(loaded.faults.back().code, "too_many");
}

TEST(Load, ReportsAFileThatCannotBeRead) {
  const auto loaded = load_text("zones: [{name: example.test, file: gone.zone}]\n");
  EXPECT_THAT(loaded.codes(), ElementsAre("unreadable_file"));
  EXPECT_EQ(load_file("/nonexistent/edge.yaml").faults.at(0).code, "unreadable_file");
  EXPECT_EQ(load_file("/dev/zero").faults.at(0).detail, "cannot read it: it is not a regular file");
}

}  // namespace tidegate::load_test
