// SPDX-License-Identifier: Apache-2.0
// What is made of the text of policies: once for each text, and judged by the function that makes it.
#include "l7/plan/policy_content.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "conf/live_state.h"
#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/policy.h"
#include "conf/model/route.h"
#include "conf/policy/aggregate.h"
#include "conf/policy/authenticate.h"
#include "conf/policy/concurrency.h"
#include "conf/policy/limit.h"
#include "conf/policy/respond.h"
#include "conf/policy/split.h"
#include "conf/policy/transform.h"
#include "conf/snapshot.h"
#include "l7/plan/description.h"
#include "l7/plan/judge.h"
#include "l7/policy/policy.h"

namespace tidegate::l7::policy_content_test {

Policy with_part(const std::string& name, std::string_view kind, std::shared_ptr<const PolicyPart> part) {
  Policy policy;
  policy.name = name;
  policy.parts[kind] = std::move(part);
  return policy;
}

Policy transforming(const std::string& name, const std::string& pattern) {
  auto part = std::make_shared<TransformPolicy>();
  part->path = TransformPath{"/b", "", pattern};
  return with_part(name, "transform", std::move(part));
}

Policy limiting(const std::string& name, uint64_t requests) {
  auto part = std::make_shared<LimitPolicy>();
  part->requests = requests;
  return with_part(name, "limit", std::move(part));
}

Blob blob_of(const std::string& text) { return {"keys.json", text, std::make_shared<const std::string>(text)}; }

std::shared_ptr<Model> with_policies(const std::vector<Policy>& policies) {
  auto model = std::make_shared<Model>();
  model->nodes.emplace_back().name = "box";
  for (const Policy& policy : policies) model->policies.push_back(policy);
  return model;
}

Result<Description> described(const std::shared_ptr<const Model>& model, const Description* previous = nullptr) {
  return describe({make_snapshot(1, "d", model, std::make_shared<LiveState>()), 0, {1, 2}, {3, 4}}, previous);
}

TEST(PolicyContents, AreMadeOfWhatHasChangedAlone) {
  const auto model = with_policies({transforming("one", "^/a+"), transforming("two", "^/b+")});
  const Result<Description> first = described(model);
  ASSERT_TRUE(first.has_value()) << first.error().message;
  ASSERT_EQ(first->policy_contents.size(), 2U);
  EXPECT_TRUE(first->policy_contents[0]->transform->path->match->takes_whole("/aa"));

  auto changed = std::make_shared<Model>(*model);
  changed->policies[1] = transforming("two", "^/c+");
  const Result<Description> second = described(changed, &*first);
  EXPECT_EQ(second->policy_contents[0], first->policy_contents[0]) << "its policy has not changed";
  EXPECT_NE(second->policy_contents[1], first->policy_contents[1]);
  EXPECT_TRUE(second->policy_contents[1]->transform->path->match->takes_whole("/cc"));
}

// `check` finds these at their place in the document. Here they come without its rules.
TEST(PolicyContents, ThatCannotBeMadeAreRefusedByTheJudgeAndByThePlaneInTheSameWords) {
  Policy bad_set;
  bad_set.name = "bad";
  auto authenticate = std::make_shared<AuthenticatePolicy>();
  authenticate->jwt.enabled = true;
  authenticate->jwt.keys = blob_of("{]");
  bad_set.parts["authenticate"] = std::move(authenticate);
  Policy bad_part;
  bad_part.name = "bad";
  auto aggregate = std::make_shared<AggregatePolicy>();
  aggregate->parts.emplace_back().path = "/{no.such}";
  bad_part.parts["aggregate"] = std::move(aggregate);
  auto limit = std::make_shared<LimitPolicy>();
  limit->by = {"client", "shoe size"};
  auto concurrency = std::make_shared<ConcurrencyPolicy>();
  concurrency->by = {"colour"};
  auto lanes = std::make_shared<ConcurrencyPolicy>();
  lanes->tenant = "colour";
  lanes->lanes.emplace_back().name = "red";
  auto split = std::make_shared<SplitPolicy>();
  split->variants.emplace_back().when = "hat:";
  auto sticky = std::make_shared<SplitPolicy>();
  sticky->sticky = {"colour"};
  auto respond = std::make_shared<RespondPolicy>();
  respond->cors.enabled = true;
  respond->cors.origins = {"nowhere"};
  auto forward = std::make_shared<AuthenticatePolicy>();
  forward->forward.enabled = true;
  forward->forward.cache_ttl_ms = 1;
  forward->forward.cache_by = {"colour"};

  for (const Policy& bad : {transforming("bad", "^/(a"), bad_set, bad_part, with_part("bad", "limit", limit),
                            with_part("bad", "concurrency", concurrency), with_part("bad", "concurrency", lanes),
                            with_part("bad", "split", split), with_part("bad", "split", sticky),
                            with_part("bad", "respond", respond), with_part("bad", "authenticate", forward)}) {
    const auto model = with_policies({transforming("good", "^/a"), bad});
    const std::vector<Fault> faults = judge(*model, nullptr);
    ASSERT_EQ(faults.size(), 1U) << bad.parts.begin()->first;
    EXPECT_EQ(faults[0].pointer, "/policies/1");
    const Result<Description> refused = described(model);
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().message, "policy bad: " + faults[0].detail);
    EXPECT_TRUE(judge(*model, model.get()).empty()) << "what serves already is not judged again";
  }
}

TEST(PolicyContents, ClientsAreFoundByTheHashOfTheirKeyAndByName) {
  ApiKeys keys;
  keys.keys = {{"amy", std::string(64, 'a'), {"admin", "staff"}}, {"bob", std::string(64, 'b'), {}}};
  const auto by_key = known_by_key(keys);
  const Known& amy = by_key->at(std::string(32, '\xaa'));
  EXPECT_EQ(amy.name, "amy");
  EXPECT_EQ(amy.role_views, (std::vector<std::string_view>{"admin", "staff"}));
  EXPECT_EQ(amy.role_views[1].data(), amy.roles[1].data()) << "of its own text";
  BasicUsers users;
  users.users = {{"amy", "$6$x", {}}, {"amy", "$6$y", {}}};
  EXPECT_EQ(known_by_name(users)->at("amy").hash, "$6$x") << "the first one counts";
}

// Everything that a rule reads of its policy's text is made here, so `check` makes it too.
TEST(PolicyContents, HaveTheWordsThatRequestsAreCountedAndChosenBy) {
  auto limit = std::make_shared<LimitPolicy>();
  limit->by = {"route", "header:X-Key"};
  const auto counted = *read_content(with_part("p", "limit", limit));
  ASSERT_EQ(counted->limit_by.size(), 2U);
  EXPECT_EQ(counted->limit_by[1].what, LimitBy::What::header);
  EXPECT_EQ(counted->limit_by[1].name, "x-key");
  EXPECT_EQ((*read_content(limiting("p", 1)))->limit_by.at(0).what, LimitBy::What::client)
      << "without words: the client";

  auto concurrency = std::make_shared<ConcurrencyPolicy>();
  concurrency->tenant = "claim:org";
  concurrency->lanes.emplace_back().name = "acme";
  const auto lanes = *read_content(with_part("p", "concurrency", concurrency));
  EXPECT_TRUE(lanes->concurrency->by.empty()) << "all are counted as one";
  EXPECT_EQ(lanes->concurrency->tenant->name, "org");

  auto split = std::make_shared<SplitPolicy>();
  split->variants.emplace_back().when = "cookie:beta";
  split->variants.emplace_back().weight = 1;
  split->sticky = {"client"};
  const auto chosen = *read_content(with_part("p", "split", split));
  ASSERT_EQ(chosen->split->when.size(), 2U) << "parallel to the variants";
  EXPECT_EQ(chosen->split->when[0]->what, SplitCondition::What::cookie);
  EXPECT_FALSE(chosen->split->when[1]);
  EXPECT_EQ(chosen->split->sticky.size(), 1U);

  auto respond = std::make_shared<RespondPolicy>();
  respond->cors.enabled = true;
  respond->cors.origins = {"https://*.a.test"};
  const auto cors = *read_content(with_part("p", "respond", respond));
  EXPECT_TRUE(cors->cors_origins.at(0).matches("https://www.a.test"));
}

TEST(PolicyContents, HaveTheClientsOfCertificatesAndSignatures) {
  auto part = std::make_shared<AuthenticatePolicy>();
  part->certificates.enabled = true;
  part->certificates.clients = {{"spiffe://o/*", {"any"}}};
  part->signatures.enabled = true;
  part->signatures.keys =
      blob_of(R"({"keys": [{"kty": "oct", "kid": "partner", "k": ")" + std::string(43, 'A') + R"("}]})");
  part->signatures.clients = {{"partner", {"writer"}}, {"nobody", {"x"}}};
  const auto content = *read_content(with_part("p", "authenticate", part));
  PeerCertificate certificate;
  certificate.spiffe = "spiffe://o/billing";
  EXPECT_EQ(content->authenticate->certificates->find(certificate).known->role_views.at(0), "any");
  ASSERT_EQ(content->authenticate->signers->size(), 1U) << "of those in the set of keys";
  const Signer& partner = content->authenticate->signers->at("partner");
  EXPECT_EQ(partner.known.role_views.at(0), "writer");
  EXPECT_EQ(partner.secrets.size(), 1U);
}

void add_routes(Model& model) {
  for (const char* path : {"/a", "/b"}) model.routes.emplace_back().path = path;
}

TEST(PolicyBindings, AreEachPolicyOnceInTheOrderOfTheirPlaces) {
  auto model = with_policies({limiting("everywhere", 1), limiting("listener", 2), limiting("route", 3)});
  model->policies[0].everywhere = true;
  model->listeners.resize(2);
  model->listeners[0].policies = {1, 0};
  model->listeners[1].default_deny = true;
  add_routes(*model);
  model->routes[1].policies = {2, 1};
  const auto bindings = described(model)->policy_bindings;
  const auto policies = [&](uint32_t listener, uint32_t route) { return bindings->find(listener, route)->policies; };
  using List = std::vector<uint32_t>;
  EXPECT_EQ(policies(0, 0), (List{0, 1}));
  EXPECT_EQ(policies(0, 1), (List{0, 1, 2}));
  EXPECT_EQ(policies(1, 1), (List{0, 2, 1}));
  EXPECT_EQ(policies(kNone, kNone), (List{0}));
  EXPECT_EQ(bindings->find(0, 1)->of_every_route, 2U);
  EXPECT_TRUE(bindings->find(1, 0)->denies);
  EXPECT_FALSE(bindings->find(0, 0)->denies);
  EXPECT_EQ(described(with_policies({limiting("unbound", 1)}))->policy_bindings->find(kNone, kNone), nullptr);
}

TEST(PolicyBindings, AreThoseOfThePreviousVersionUntilOneChanges) {
  auto model = with_policies({limiting("one", 1), limiting("two", 2)});
  add_routes(*model);
  model->routes[0].policies = {0};
  const Result<Description> first = described(model);
  auto other = std::make_shared<Model>(*model);
  other->routes[0].path = "/elsewhere";
  other->policies[1] = limiting("two", 3);
  const Result<Description> second = described(other, &*first);
  EXPECT_EQ(second->policy_bindings, first->policy_bindings);
  auto bound = std::make_shared<Model>(*other);
  bound->routes[1].policies = {1};
  const Result<Description> third = described(bound, &*second);
  EXPECT_NE(third->policy_bindings, second->policy_bindings);
  EXPECT_EQ(third->policy_bindings->find(kNone, 1)->policies, std::vector<uint32_t>{1});
}

class SharedRules : public ::testing::Test {
 protected:
  void SetUp() override {
    model = with_policies({limiting("one", 1), limiting("two", 2)});
    for (uint32_t p = 0; p < 2; ++p) model->policies[p].everywhere = true;
  }
  policy::Policies made(const Result<Description>& of, const policy::Policies* previous = nullptr,
                        const Model* before = nullptr) {
    return {{of->model(), of->policy_contents, of->policy_bindings, *of->snapshot->live_state, of->hash_key},
            registry,
            previous,
            before};
  }
  static const policy::Rule* rule(const policy::Policies& policies, size_t index) {
    return policies.chain(kNone, kNone)->rules.at(index);
  }
  policy::Registry registry;
  std::shared_ptr<Model> model;
};

// A policy may have thousands of clients or a large schema. A change of another element must not cost it again.
TEST_F(SharedRules, AreMadeAgainWhenTheirOwnPolicyChanges) {
  const Result<Description> first = described(model);
  const policy::Policies serving = made(first);
  auto changed = std::make_shared<Model>(*model);
  changed->policies[1] = limiting("two", 3);
  changed->policies[1].everywhere = true;
  const Result<Description> second = described(changed, &*first);
  const policy::Policies next = made(second, &serving, &first->model());
  EXPECT_EQ(rule(next, 0), rule(serving, 0)) << "its policy has not changed";
  EXPECT_NE(rule(next, 1), rule(serving, 1));
}

TEST_F(SharedRules, AreMadeAgainWhenAnOperatorChangesTheirQuota) {
  const Result<Description> first = described(model);
  const policy::Policies serving = made(first);
  auto live_state = std::make_shared<LiveState>();
  live_state->overrides["limit/two"] = {.state = OverrideState::quota, .requests = 7, .burst = 7};
  const auto snapshot = make_snapshot(1, "d", model, live_state);
  const Result<Description> second = describe({snapshot, 0, {1, 2}, {3, 4}}, &*first);
  const policy::Policies next = made(second, &serving, &first->model());
  EXPECT_EQ(rule(next, 0), rule(serving, 0));
  EXPECT_NE(rule(next, 1), rule(serving, 1));
}

TEST_F(SharedRules, AreMadeAgainWhenPoolsHaveOtherPlaces) {
  model->pools.resize(2);
  model->pools[0].name = "a";
  model->pools[1].name = "b";
  const Result<Description> first = described(model);
  const policy::Policies serving = made(first);
  auto changed = std::make_shared<Model>(*model);
  changed->pools[0].name = "b";
  changed->pools[1].name = "a";
  const Result<Description> second = described(changed, &*first);
  const policy::Policies next = made(second, &serving, &first->model());
  EXPECT_NE(rule(next, 0), rule(serving, 0));
}

}  // namespace tidegate::l7::policy_content_test
