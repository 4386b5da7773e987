// SPDX-License-Identifier: Apache-2.0
#include "conf/unknown_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "conf/model/listener.h"
#include "conf/model/policy.h"
#include "conf/model/route.h"
#include "conf/policy/aggregate.h"
#include "conf/policy/authenticate.h"
#include "conf/policy/authorise.h"
#include "conf/policy/concurrency.h"
#include "conf/policy/kind.h"
#include "conf/policy/limit.h"
#include "conf/policy/split.h"
#include "conf/policy/template.h"
#include "conf/policy/transform.h"
#include "conf/redirect_circle.h"

namespace tidegate {
namespace {

// What a policy reads of the client that `authenticate` finds.
struct IdentityRead {
  std::string word;     // as the document has it
  bool of_token;        // a claim; otherwise the client's name or roles
  bool refuses;         // without it every request is refused
  const char* without;  // what happens without it
};

template <class Visit>
void visit_words(const std::vector<std::string>& words, const char* without, Visit visit) {
  for (size_t i = 0; i < words.size(); ++i) {
    if (needs_identity(words[i])) visit(i, IdentityRead{words[i], words[i] != "identity", false, without});
  }
}

template <class Visit>
void visit_text(const std::string& text, Visit visit) {
  const Result<TextTemplate> parsed = parse_template(text);
  if (!parsed) return;
  for (const TemplatePart& part : parsed->parts) {
    const bool of_token = part.what == TemplatePart::What::claim;
    if (!of_token && part.what != TemplatePart::What::identity) continue;
    visit(IdentityRead{fmt::format("{{{}}}", variable_name(part)), of_token, false, "it is empty"});
    return;
  }
}

// Calls visit(Way, IdentityRead) for each text with variables that reads such a thing.
template <class Visit>
void visit_texts(const Policy& policy, size_t p, Visit visit) {
  const auto at = [&](const std::string& text, Way way) {
    visit_text(text, [&](const IdentityRead& read) { visit(way, read); });
  };
  if (const auto* transform = policy.part<TransformPolicy>("transform")) {
    const auto edits = [&](const char* list, const std::vector<TransformEdit>& each) {
      for (size_t i = 0; i < each.size(); ++i) at(each[i].value, {"policies", p, "transform", list, i, "value"});
    };
    if (transform->path) at(transform->path->value, {"policies", p, "transform", "path", "value"});
    at(transform->host, {"policies", p, "transform", "host"});
    edits("query", transform->query);
    edits("request_headers", transform->request_headers);
    edits("response_headers", transform->response_headers);
    const auto json = [&](const char* key, const std::optional<TransformJson>& each) {
      if (!each) return;
      at(each->body, {"policies", p, "transform", key, "body"});
      for (size_t i = 0; i < each->edits.size(); ++i) {
        at(each->edits[i].value, {"policies", p, "transform", key, "edits", i, "value"});
      }
    };
    json("request_json", transform->request_json);
    json("response_json", transform->response_json);
  }
  if (const auto* aggregate = policy.part<AggregatePolicy>("aggregate")) {
    for (size_t i = 0; i < aggregate->parts.size(); ++i) {
      const AggregatePart& part = aggregate->parts[i];
      at(part.path, {"policies", p, "aggregate", "parts", i, "path"});
      at(part.host, {"policies", p, "aggregate", "parts", i, "host"});
      for (const auto& [name, value] : part.query) {
        at(value, {"policies", p, "aggregate", "parts", i, "query", std::string_view(name)});
      }
    }
  }
}

// Calls visit(Way, IdentityRead) for each place of the policy that reads such a thing.
template <class Visit>
void visit_identity_reads(const Policy& policy, size_t p, Visit visit) {
  constexpr const char* kByClient = "requests are told apart by their client's address";
  if (const auto* limit = policy.part<LimitPolicy>("limit")) {
    visit_words(limit->by, kByClient, [&](size_t i, const IdentityRead& read) {
      visit({"policies", p, "limit", "by", i}, read);
    });
  }
  if (const auto* concurrency = policy.part<ConcurrencyPolicy>("concurrency")) {
    visit_words(concurrency->by, kByClient, [&](size_t i, const IdentityRead& read) {
      visit({"policies", p, "concurrency", "by", i}, read);
    });
    visit_words({concurrency->tenant}, "no request has a lane", [&](size_t, const IdentityRead& read) {
      visit({"policies", p, "concurrency", "tenant"}, read);
    });
  }
  if (const auto* split = policy.part<SplitPolicy>("split")) {
    visit_words(split->sticky, kByClient, [&](size_t i, const IdentityRead& read) {
      visit({"policies", p, "split", "sticky", i}, read);
    });
    for (size_t v = 0; v < split->variants.size(); ++v) {
      visit_words({split->variants[v].when}, "no request has it", [&](size_t, const IdentityRead& read) {
        visit({"policies", p, "split", "variants", v, "when"}, read);
      });
    }
  }
  visit_texts(policy, p, visit);
  if (const auto* authorise = policy.part<AuthorisePolicy>("authorise")) {
    for (size_t r = 0; r < authorise->rules.size(); ++r) {
      const bool of_token = !authorise->rules[r].claims.empty();
      visit({"policies", p, "authorise", "rules", r},
            IdentityRead{of_token ? "a rule with claims" : "a rule", of_token, true, "the rule refuses every request"});
    }
  }
}

// Bits of what the policies of a request find out about its client.
constexpr unsigned kFindsName = 1, kFindsToken = 2;

unsigned found_by(const Model& model, const std::vector<uint32_t>& policies) {
  unsigned found = 0;
  for (const uint32_t p : policies) {
    const auto* authenticate = model.policies[p].part<AuthenticatePolicy>("authenticate");
    if (authenticate != nullptr) found |= kFindsName | (authenticate->jwt.enabled ? kFindsToken : 0);
  }
  return found;
}

// Where a policy holds: a route for whose requests less is found out than for those of others, and what is found out
// there and anywhere.
struct HoldsFor {
  unsigned least = kFindsName | kFindsToken, anywhere = 0;
  size_t route = SIZE_MAX;
};

}  // namespace

void warn_of_unknown_clients(Checks& warnings) {
  const Model& model = warnings.model();
  std::vector<uint32_t> everywhere;
  for (uint32_t p = 0; p < model.policies.size(); ++p) {
    if (model.policies[p].everywhere) everywhere.push_back(p);
  }
  std::vector<HoldsFor> holds(model.policies.size());
  for (size_t l = 0; l < model.listeners.size(); ++l) {
    const unsigned at_listener = found_by(model, everywhere) | found_by(model, model.listeners[l].policies);
    for (size_t r = 0; r < model.routes.size(); ++r) {
      if (!serves(model.routes[r], l)) continue;
      const unsigned found = at_listener | found_by(model, model.routes[r].policies);
      for (const auto* list : {&std::as_const(everywhere), &model.listeners[l].policies, &model.routes[r].policies}) {
        for (const uint32_t p : *list) {
          holds[p].anywhere |= found;
          if (found < holds[p].least || holds[p].route == SIZE_MAX) holds[p].route = r;
          holds[p].least = std::min(holds[p].least, found);
        }
      }
    }
  }
  for (size_t p = 0; p < model.policies.size() && !warnings.full(); ++p) {
    if (holds[p].route == SIZE_MAX) continue;
    visit_identity_reads(model.policies[p], p, [&](Way way, const IdentityRead& read) {
      const unsigned found = read.refuses ? holds[p].least : holds[p].anywhere;
      if ((found & (read.of_token ? kFindsToken : kFindsName)) != 0) return;
      warnings.refuse(
          way, {"unknown_client",
                fmt::format("{} needs {}, and no policy of route '{}' {}: {}", read.word,
                            read.of_token ? "the client's token" : "to know who the client is",
                            model.routes[holds[p].route].name, read.of_token ? "reads one" : "asks", read.without),
                {},
                read.of_token ? "a policy with authenticate: {jwt: ...} on that route"
                              : "a policy with authenticate: ... on that route"});
    });
  }
}

}  // namespace tidegate
