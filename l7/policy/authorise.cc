// SPDX-License-Identifier: Apache-2.0
// The authorise policy (conf/policy/authorise.h): the rules networks, places and roles. They are separate rules, so
// counters and logs name the rule that refused. Networks and places are asked before authenticate, because they cost
// less. A request without a client (a revalidation, a mirror's copy) is not judged: the one that it repeats has passed.
// Runtime: the databases of places, which are read again when they have changed.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "conf/model.h"
#include "conf/model/policy.h"
#include "conf/policy/authorise.h"
#include "l7/exchange/exchange.h"
#include "l7/policy/claims.h"
#include "l7/policy/kinds.h"
#include "l7/policy/places.h"

namespace tidegate::l7::policy {
namespace {

// The length of the longest network that contains the address; -1 if none does.
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

  bool allows() const override { return !allow_.empty(); }
  RuleDecision on_request(Exchange& exchange, Arena&, Note&, uint64_t) const override {
    if (may_come(exchange.client_address)) return {};
    return {.verdict = RuleVerdict::refused, .failure = Failure::forbidden, .detail = "network"};
  }
  void on_answer(Exchange&, Arena&, const Note&) const override {}
  void explain(const Subject& subject, uint64_t, nlohmann::json& out) const override {
    out["verdict"] = name(may_come(subject.client) ? RuleVerdict::passed : RuleVerdict::refused);
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

class PlacesRule final : public Rule {
 public:
  PlacesRule(const AuthorisePlaces& rules, Compiling& out)
      : Rule(Stage::networks, out.policy, "places", out.registry),
        rules_(rules),
        files_(place_files(out.model->geo, out.registry)),
        places_(files_->read(out.model->geo)),
        trouble_(files_->trouble()) {}

  bool allows() const override { return rules_.allows(); }
  RuleDecision on_request(Exchange& exchange, Arena&, Note&, uint64_t) const override {
    const char* const why = refusal_of(exchange.client_address);
    if (why == nullptr) return {};
    return {.verdict = RuleVerdict::refused, .failure = Failure::forbidden, .detail = why};
  }
  void on_answer(Exchange&, Arena&, const Note&) const override {}
  void explain(const Subject& subject, uint64_t, nlohmann::json& out) const override {
    const char* const why = refusal_of(subject.client);
    out["verdict"] = name(why == nullptr ? RuleVerdict::passed : RuleVerdict::refused);
    if (why != nullptr) out["because_of"] = why;
    const Place place = place_of(subject.client);
    out["country"] = place.country;
    out["asn"] = place.asn;
    if (!trouble_.empty()) out["trouble"] = trouble_;
  }
  void add_samples(std::vector<Sample>& out) const override {
    out.push_back({"tidegate_l7_places_unread", "gauge", "1 while a database of places cannot be read",
                   trouble_.empty() ? uint64_t{0} : uint64_t{1}});
  }

 private:
  Place place_of(std::string_view client) const {
    const std::optional<IpAddress> address = IpAddress::parse(client);
    return address && places_ != nullptr ? places_->of(*address) : Place{};
  }
  // Null if the client may come.
  const char* refusal_of(std::string_view client) const {
    if (places_ == nullptr) return "no_database";
    const auto has = [](const auto& list, const auto& value) {
      return std::find(list.begin(), list.end(), value) != list.end();
    };
    const Place place = place_of(client);
    if (has(rules_.deny_asns, place.asn)) return "asn";
    if (has(rules_.allow_asns, place.asn)) return nullptr;
    if (has(rules_.deny_countries, place.country)) return "country";
    if (has(rules_.allow_countries, place.country)) return nullptr;
    if (!rules_.allow_countries.empty()) return "country";
    return rules_.allow_asns.empty() ? nullptr : "asn";
  }

  const AuthorisePlaces rules_;
  const std::shared_ptr<PlaceFiles> files_;
  const std::shared_ptr<const Places> places_;  // null: no database could be read
  const std::string trouble_;
};

class RolesRule final : public Rule {
 public:
  RolesRule(const AuthorisePolicy& authorise, Compiling& out)
      : Rule(Stage::authorise, out.policy, "roles", out.registry), rules_(authorise.rules) {}

  bool allows() const override { return true; }
  RuleDecision on_request(Exchange& exchange, Arena& arena, Note&, uint64_t) const override {
    const Identity& identity = exchange.policies.identity;
    if (identity.name.empty()) return refuse("nobody");
    const AuthoriseRule* const rule = find(exchange.request.method);
    if (rule == nullptr) return refuse("method");
    if (!has_one_of(identity, rule->roles)) return refuse("role");
    return has_claims(identity, rule->claims, arena) ? RuleDecision{} : refuse("claim");
  }
  void on_answer(Exchange&, Arena&, const Note&) const override {}
  void explain(const Subject& subject, uint64_t, nlohmann::json& out) const override {
    const AuthoriseRule* const rule = find(subject.request.method);
    if (rule == nullptr) {
      out["verdict"] = name(RuleVerdict::refused);
    } else {
      out["asks_for"] = rule->roles;
      for (const AuthoriseClaim& claim : rule->claims) out["claims"][claim.name] = claim.values;
    }
  }

 private:
  static RuleDecision refuse(const char* detail) {
    return {.verdict = RuleVerdict::refused, .failure = Failure::forbidden, .detail = detail};
  }
  // A rule for GET also matches HEAD, as in routes.
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
  static bool has_claims(const Identity& identity, const std::vector<AuthoriseClaim>& claims, Arena& arena) {
    return std::all_of(claims.begin(), claims.end(), [&](const AuthoriseClaim& wanted) {
      const std::optional<JsonView> claim = find_claim(identity.claims, wanted.name, arena);
      return claim && claim_has(*claim, wanted.values, arena);
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
  if (authorise.places.any()) {
    out.reads_files = true;
    out.rules.push_back(std::make_unique<PlacesRule>(authorise.places, out));
  }
  if (!authorise.rules.empty()) out.rules.push_back(std::make_unique<RolesRule>(authorise, out));
}

}  // namespace tidegate::l7::policy
