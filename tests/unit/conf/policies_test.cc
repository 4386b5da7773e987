// SPDX-License-Identifier: Apache-2.0
// Policies in a document: where they are bound, and what each kind refuses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "conf/policy/limit.h"
#include "conf/validate.h"
#include "conf/warnings.h"
#include "tests/unit/conf/documents.h"

namespace tidegate {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::load_text;
using testing::Loaded;

Loaded with_limit(const std::string& keys) { return load_text("policies:\n  - {name: q, limit: {" + keys + "}}\n"); }

TEST(Policies, AreNamedByListenersAndRoutes) {
  const Loaded loaded = load_text(
      "policies:\n"
      "  - {name: a, limit: {requests: 5}}\n"
      "  - {name: b, everywhere: true, limit: {requests: 7, per: 1m, by: [client, 'header:X-Key']}}\n"
      "listeners: [{name: l, bind: ['127.0.0.1:80'], policies: [a]}]\n"
      "routes: [{name: r, status: 204, policies: [b, a]}]\n");
  ASSERT_NE(loaded.model, nullptr) << loaded.rendered();
  EXPECT_THAT(loaded.model->listeners[0].policies, ElementsAre(0));
  EXPECT_THAT(loaded.model->routes[0].policies, ElementsAre(1, 0));
  const auto* limit = loaded.model->policies[1].part<LimitPolicy>("limit");
  ASSERT_NE(limit, nullptr);
  EXPECT_EQ(limit->requests, 7u);
  EXPECT_EQ(limit->per_ms, 60'000u);
  EXPECT_TRUE(loaded.model->policies[1].everywhere);
}

TEST(Policies, RefuseAMisspeltNameWithAHint) {
  const Loaded loaded = load_text(
      "policies: [{name: per-client, limit: {requests: 5}}]\n"
      "routes: [{name: r, status: 204, policies: [per-clinet]}]\n");
  ASSERT_THAT(loaded.codes(), ElementsAre("no_such_name"));
  EXPECT_EQ(loaded.faults[0].line, 2u);
  EXPECT_EQ(loaded.faults[0].hint, "did you mean 'per-client'?");
}

TEST(Policies, RefuseAMisspeltKindAndAPolicyThatDoesNothing) {
  const Loaded misspelt = load_text("policies: [{name: q, limt: {requests: 5}}]\n");
  ASSERT_THAT(misspelt.codes(), ElementsAre("unknown_key"));
  EXPECT_EQ(misspelt.faults[0].hint, "did you mean 'limit'?");
  EXPECT_THAT(load_text("policies: [{name: q}]\n").codes(), ElementsAre("missing_key"));
}

TEST(Policies, WarnOfOneThatNothingUses) {
  const auto warned = [](const std::string& text) {
    const Loaded loaded = load_text(text);
    std::vector<std::string> codes;
    for (const Fault& fault : find_warnings(*loaded.document, *loaded.model, 0)) codes.push_back(fault.code);
    return codes;
  };
  EXPECT_THAT(warned("policies: [{name: q, limit: {requests: 5}}]\n"), ElementsAre("unused"));
  EXPECT_THAT(warned("policies: [{name: q, everywhere: true, limit: {requests: 5}}]\n"), IsEmpty());
}

TEST(LimitKeys, RefuseWhatCannotBeCounted) {
  EXPECT_THAT(with_limit("requests: 5").codes(), IsEmpty());
  EXPECT_THAT(with_limit("requests: 5, by: [client, route, host, 'header:A', 'cookie:b']").codes(), IsEmpty());
  EXPECT_THAT(with_limit("per: 1m").codes(), ElementsAre("missing_key"));
  EXPECT_THAT(with_limit("requests: 0").codes(), ElementsAre("out_of_range"));
  for (const char* word : {"clients", "'header:'", "'header:a b'", "'cookie'", "''", "'query:x'"}) {
    const Loaded loaded = with_limit(std::string("requests: 5, by: [route, ") + word + "]");
    ASSERT_THAT(loaded.codes(), ElementsAre("bad_value")) << word;
    EXPECT_EQ(loaded.faults[0].pointer, "/policies/0/limit/by/1");
  }
  EXPECT_EQ(with_limit("requests: 5, by: [clients]").faults[0].hint, "did you mean 'client'?");
  EXPECT_THAT(with_limit("requests: 5, by: ['header:a', 'header:b', 'header:c', 'header:d', 'header:e', 'header:f', "
                         "'header:g', 'header:h', 'header:i']")
                  .codes(),
              ElementsAre("out_of_range"));
}

TEST(LimitKeys, RefuseQuotasBeyondTheirAlgorithm) {
  EXPECT_THAT(with_limit("requests: 1000000").codes(), IsEmpty());
  EXPECT_THAT(with_limit("requests: 1000001").codes(), ElementsAre("out_of_range"));
  EXPECT_THAT(with_limit("requests: 1, per: 1d, burst: 30").codes(), IsEmpty());
  EXPECT_THAT(with_limit("requests: 1, per: 1d, burst: 31").codes(), ElementsAre("out_of_range"));
  EXPECT_THAT(with_limit("requests: 1, per: 1d, burst: 1000000000").codes(), ElementsAre("out_of_range"));
  EXPECT_THAT(with_limit("requests: 2000000, algorithm: sliding_window").codes(), IsEmpty());
  EXPECT_THAT(with_limit("requests: 2000001, algorithm: sliding_window").codes(), ElementsAre("out_of_range"));
  EXPECT_THAT(with_limit("requests: 5, algorithm: sliding_window, burst: 5, wait: 1s").codes(),
              ElementsAre("without_effect", "without_effect"));
}

}  // namespace
}  // namespace tidegate
