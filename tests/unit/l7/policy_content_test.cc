// SPDX-License-Identifier: Apache-2.0
// What is made of the text of policies: once for each text, and judged by the function that makes it.
#include "l7/plan/policy_content.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "conf/live_state.h"
#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/policy.h"
#include "conf/policy/aggregate.h"
#include "conf/policy/authenticate.h"
#include "conf/policy/transform.h"
#include "conf/snapshot.h"
#include "l7/plan/description.h"
#include "l7/plan/judge.h"

namespace tidegate::l7::policy_content_test {

Policy transforming(const std::string& name, const std::string& pattern) {
  Policy policy;
  policy.name = name;
  auto part = std::make_shared<TransformPolicy>();
  part->path = TransformPath{"/b", "", pattern};
  policy.parts["transform"] = std::move(part);
  return policy;
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

  for (const Policy& bad : {transforming("bad", "^/(a"), bad_set, bad_part}) {
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

}  // namespace tidegate::l7::policy_content_test
