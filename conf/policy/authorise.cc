// SPDX-License-Identifier: Apache-2.0
#include "conf/policy/authorise.h"

#include <fmt/format.h>

#include <algorithm>

#include "conf/field_builders.h"
#include "conf/model.h"
#include "conf/names.h"
#include "conf/policy/kind.h"

namespace tidegate {
namespace {

using namespace fields;

const Section& claim_section() {
  static const Section section{
      "claim",
      {
          required(
              text("name", &AuthoriseClaim::name,
                   "A claim of the token: `department`, or a path into nested objects: `realm_access.roles`. A claim "
                   "of that very name comes first.",
                   256)),
          required(text("values", &AuthoriseClaim::values, "It is one of them, or a list that has one.", 256)),
      }};
  return section;
}

const Section& rule_section() {
  static const Section section{
      "rule",
      {
          row("methods", FieldType::method, &AuthoriseRule::methods, "Of requests that it is for. Without it any."),
          row("roles", FieldType::name, &AuthoriseRule::roles,
              "One of them is enough. Without it, everybody who has shown who they are."),
          nested("claims", &AuthoriseRule::claims, claim_section(),
                 "Claims of the client's token (JWT) that it needs beside the role, all of them."),
      }};
  return section;
}

const Section& places_section() {
  static const Section section{
      "places section",
      {
          enabled<AuthorisePlaces>(),
          text("allow_countries", &AuthorisePlaces::allow_countries,
               "Countries (ISO 3166-1, `DE`) whose clients may come. A client of an unknown country may not.", 2),
          text("deny_countries", &AuthorisePlaces::deny_countries, "Countries whose clients may not.", 2),
          bounded("allow_asns", FieldType::integer, &AuthorisePlaces::allow_asns, {1, UINT32_MAX},
                  "Numbers of autonomous systems whose clients may come, whatever their country is."),
          bounded("deny_asns", FieldType::integer, &AuthorisePlaces::deny_asns, {1, UINT32_MAX},
                  "Autonomous systems whose clients may not, whatever their country is."),
      }};
  return section;
}

const Section& authorise_section() {
  static const Section section{
      "authorise section",
      {
          row("allow", FieldType::cidr, &AuthorisePolicy::allow,
              "Networks whose clients may come. Without it, all that `deny` does not name."),
          row("deny", FieldType::cidr, &AuthorisePolicy::deny,
              "Networks whose clients may not. Of two networks that contain the client the longer one decides; `deny` "
              "wins a tie."),
          nested(
              "places", &AuthorisePolicy::places, places_section(),
              "Where clients may come from, by the databases of `geo` (`mmdb`). An autonomous system decides before a "
              "country, and `deny` before `allow`. The files are read when a version is applied, if they have "
              "changed."),
          nested("rules", &AuthorisePolicy::rules, rule_section(),
                 "What roles may do. The first rule that is for the request's method decides; if there is none, the "
                 "request is refused."),
      }};
  return section;
}

void check_countries(Checks& checks, size_t p, const char* key, const std::vector<std::string>& countries) {
  for (size_t i = 0; i < countries.size(); ++i) {
    const std::string& each = countries[i];
    if (each.size() == 2 && std::all_of(each.begin(), each.end(), [](char c) { return c >= 'A' && c <= 'Z'; }))
      continue;
    checks.refuse({"policies", p, "authorise", "places", key, i},
                  {"bad_value", fmt::format("{} is no country", in_quotes(each)), "two capitals, as 'DE'", {}});
  }
}

void check_places(Checks& checks, size_t p, const AuthorisePlaces& places) {
  if (!places.any()) {
    checks.refuse({"policies", p, "authorise", "places"},
                  {"missing_key", "a places section that names none", "countries or asns", {}});
  }
  check_countries(checks, p, "allow_countries", places.allow_countries);
  check_countries(checks, p, "deny_countries", places.deny_countries);
  if (!checks.model().geo.mmdb.empty()) return;
  checks.refuse({"policies", p, "authorise", "places"},
                {"missing_key", "nothing tells where clients are", "'geo' with 'mmdb'", {}});
}

void check_authorise(Checks& checks, size_t p) {
  const AuthorisePolicy& authorise = *checks.model().policies[p].part<AuthorisePolicy>("authorise");
  if (authorise.allow.empty() && authorise.deny.empty() && authorise.rules.empty() && !authorise.places.enabled) {
    checks.refuse({"policies", p, "authorise"},
                  {"missing_key", "an authorise section that asks for nothing", "allow, deny, places or rules", {}});
  }
  if (authorise.places.enabled) check_places(checks, p, authorise.places);
  for (size_t r = 0; r + 1 < authorise.rules.size(); ++r) {
    if (!authorise.rules[r].methods.empty()) continue;
    checks.refuse({"policies", p, "authorise", "rules", r + 1},
                  {"without_effect", "the rule before it is for every method", {}, "put that one last"});
    break;
  }
}

}  // namespace

PolicyKind authorise_policy_kind() {
  return policy_kind<AuthorisePolicy>("authorise", "Who may do what: by network and by role. Others get 403.",
                                      authorise_section(), check_authorise);
}

}  // namespace tidegate
