// SPDX-License-Identifier: Apache-2.0
// What the directives around a location mean for it. A level that has a directive of some name does not inherit those
// of this name from outside, whatever they say: that is so for lists (add_header, allow) as for single values.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "control/cli/import/cases.h"
#include "control/cli/import/nginx_syntax.h"

namespace tidegate::cli {

struct NginxScope {
  std::map<std::string, std::vector<const NginxDirective*>> of;  // by name; allow and deny together as "access"
  std::vector<const NginxDirective*> guards;  // what protects and cannot be said: all below is closed

  const std::vector<const NginxDirective*>& all(const std::string& name) const;
  const NginxDirective* one(const std::string& name) const;  // null: there is none
};

// The name under which a directive is inherited.
std::string nginx_list_of(const std::string& name);
// Whether a directive can keep requests away in a way that is not known here.
bool nginx_guards(const NginxDirective& directive);
// Whether allow, deny, auth_basic and their like are read by nginx_guarded().
bool nginx_is_access(const std::string& name);

// What an auth_request's location asks.
struct NginxQuestion {
  std::string pool, path;  // empty pool: it cannot be asked
};

// The cases of a location whose content is `normal`: with what its scope protects it by. Each directive's outcome goes
// to `note`.
using NginxNote = std::function<void(const NginxDirective&, const Result<void>&)>;
Cases nginx_guarded(const NginxScope& scope, const nlohmann::json& normal, Imported& into,
                    const std::function<NginxQuestion(const std::string& uri)>& question, const NginxNote& note);
// Whether the scope lets nobody in.
bool nginx_denies_all(const NginxScope& scope);

// `if (…) { return …; }`: its condition. Error: why it is none of a route.
struct NginxCondition {
  When when;
  bool negative = false;
  std::string scheme;  // http or https: the listeners are the caller's
  bool never = false;  // no request has it
};
// `underscores`: fields whose names have them are read too.
Result<NginxCondition> nginx_condition(const NginxDirective& directive, bool underscores);
// Whether a block of `if` changes nothing that decides where a request goes.
bool nginx_is_harmless(const NginxDirective& directive);

}  // namespace tidegate::cli
