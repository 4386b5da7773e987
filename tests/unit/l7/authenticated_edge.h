// SPDX-License-Identifier: Apache-2.0
// An edge with one route that asks who a client is, for tests of authenticate and of what comes after it.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>

#include "conf/model.h"
#include "conf/model/policy.h"
#include "conf/model/route.h"
#include "conf/policy/authenticate.h"
#include "core/crypto.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test {

class AuthenticatedEdge : public ::testing::Test {
 protected:
  AuthenticatedEdge()
      : origin_([](const std::string&, Wire& wire) { return wire.send(Origin::ok("x")); }),
        part_(std::make_shared<AuthenticatePolicy>()) {}
  void add_keys() {
    part_->api_keys.enabled = true;
    part_->api_keys.keys = {{"shop", sha256_hex("open sesame"), {"reader"}}, {"ops", sha256_hex("xyzzy"), {"writer"}}};
  }
  void add_users() {
    part_->basic.enabled = true;
    // The password is "password". The low number of rounds is for tests, which guess often.
    part_->basic.users = {{"amy",
                           "$6$rounds=1000$salt$O0nhCLTaysO7YRx7RhswA9LUudDbe8n/29Fg0mCv48MlTSygeX82/"
                           "gn5a5m7.zIERei.MTm0LX6AbQbQLYGS5.",
                           {"reader"}}};
  }
  void start(const std::function<void(Route&)>& set = [](Route&) {}) {
    edge_.model.policies.push_back({"auth", false, {{"authenticate", part_}}});
    Route& route = edge_.add_route("/x", edge_.add_pool("p", {origin_.endpoint()}));
    route.policies = {static_cast<uint32_t>(edge_.model.policies.size() - 1)};
    set(route);
    edge_.start();
  }
  Answer with(const std::string& fields, const std::string& path = "/x") {
    return ask(edge_.endpoint(), get(path, "a.test", fields));
  }
  static std::string basic(const std::string& text) { return "Authorization: Basic " + base64_encode(text) + "\r\n"; }
  uint64_t refused() { return edge_.metric("tidegate_l7_failures_total{reason=\"unauthenticated\"}"); }
  Edge edge_;
  Origin origin_;
  std::shared_ptr<AuthenticatePolicy> part_;
};

}  // namespace tidegate::l7::test
