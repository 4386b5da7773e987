// SPDX-License-Identifier: Apache-2.0
// The authorise policy (conf/policy/authorise.h): two rules, networks and roles, so that counters and logs tell which
// of them refused. Networks are asked before authenticate, because they cost less. Nothing is kept.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "conf/policy/authorise.h"
#include "l7/exchange/exchange.h"
#include "l7/policy/kinds.h"

namespace tidegate::l7::policy {
namespace {

// The length of the longest network that contains the address; -1: none does.
int longest(const std::vector<Cidr>& networks, const IpAddress& address) {
  int length = -1;
  for (const Cidr& network : networks) {
    if (network.contains(address)) length = std::max<int>(length, network.prefix);
  }
  return length;
}

class NetworksRule final : public Rule {
 public:
  NetworksRule(const AuthorisePolicy& authorise, Compiling& out)
      : Rule(Stage::networks, out.policy, "networks", out.registry), allow_(authorise.allow), deny_(authorise.deny) {}

  Decision on_request(Exchange& exchange, Arena&, Note&, uint64_t) const override {
    if (may_come(exchange.client_address)) return {};
    return {.verdict = Verdict::refused, .failure = Failure::forbidden, .detail = "network"};
  }
  void on_answer(Exchange&, Arena&, const Note&) const override {}
  void explain(const Subject& subject, uint64_t, nlohmann::json& out) const override {
    out["verdict"] = name(may_come(subject.client) ? Verdict::passed : Verdict::refused);
  }

 private:
  bool may_come(std::string_view client) const {
    const std::optional<IpAddress> address = IpAddress::parse(client);
    if (!address) return allow_.empty();
    const int allowed = allow_.empty() ? 0 : longest(allow_, *address);
    const int denied = longest(deny_, *address);
    return allowed >= 0 && (denied < 0 || allowed > denied);
  }
  const std::vector<Cidr> allow_, deny_;
};

class RolesRule final : public Rule {
 public:
  RolesRule(const AuthorisePolicy& authorise, Compiling& out)
      : Rule(Stage::authorise, out.policy, "roles", out.registry), rules_(authorise.rules) {}

  Decision on_request(Exchange& exchange, Arena&, Note&, uint64_t) const override {
    const Identity& identity = exchange.policies.identity;
    if (identity.name.empty()) return refuse("nobody");
    const AuthoriseRule* const rule = find(exchange.request.method);
    if (rule == nullptr) return refuse("method");
    return has_one_of(identity, rule->roles) ? Decision{} : refuse("role");
  }
  void on_answer(Exchange&, Arena&, const Note&) const override {}
  void explain(const Subject& subject, uint64_t, nlohmann::json& out) const override {
    const AuthoriseRule* const rule = find(subject.request.method);
    if (rule == nullptr) {
      out["verdict"] = name(Verdict::refused);
    } else {
      out["asks_for"] = rule->roles;
    }
  }

 private:
  static Decision refuse(const char* detail) {
    return {.verdict = Verdict::refused, .failure = Failure::forbidden, .detail = detail};
  }
  // GET takes HEAD, as in routes.
  const AuthoriseRule* find(std::string_view method) const {
    const auto is_for = [method](const AuthoriseRule& rule) {
      return rule.methods.empty() ||
             std::any_of(rule.methods.begin(), rule.methods.end(), [&](const std::string& each) {
               return each == method || (each == "GET" && method == "HEAD");
             });
    };
    const auto found = std::find_if(rules_.begin(), rules_.end(), is_for);
    return found == rules_.end() ? nullptr : &*found;
  }
  static bool has_one_of(const Identity& identity, const std::vector<std::string>& roles) {
    if (roles.empty()) return true;
    return std::any_of(identity.roles, identity.roles + identity.role_count, [&](std::string_view role) {
      return std::find(roles.begin(), roles.end(), role) != roles.end();
    });
  }
  const std::vector<AuthoriseRule> rules_;
};

}  // namespace

void compile_authorise(const Policy& policy, Compiling& out) {
  const auto& authorise = *policy.part<AuthorisePolicy>("authorise");
  if (!authorise.allow.empty() || !authorise.deny.empty()) {
    out.rules.push_back(std::make_unique<NetworksRule>(authorise, out));
  }
  if (!authorise.rules.empty()) out.rules.push_back(std::make_unique<RolesRule>(authorise, out));
}

}  // namespace tidegate::l7::policy
