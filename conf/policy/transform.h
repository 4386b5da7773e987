// SPDX-License-Identifier: Apache-2.0
// The keys of transform: what is changed in requests on their way to the backend, and in the fields of answers.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/policy_model.h"

namespace tidegate {

// One change in a list of fields, or in the parameters of a query. Exactly one of the first five is set: the name that
// the change is about.
struct TransformEdit {
  std::string set, add, remove, rename, replace;
  std::string value;  // set, add, replace: a text with variables
  std::string match;  // replace: a regular expression
  std::string to;     // rename: the new name

  enum class Action : uint8_t { set, add, remove, rename, replace };
  // The first that is written.
  Action action() const;
  const std::string& name() const;
};

// Neither `prefix` nor `match`: the whole path becomes `value`.
struct TransformPath {
  std::string value;   // a text with variables
  std::string prefix;  // whole segments at the beginning
  std::string match;   // a regular expression: what it takes becomes `value`
};

struct TransformPolicy final : PolicyPart {
  std::optional<TransformPath> path;
  std::string host;  // a text with variables; empty: as the client sent it
  std::vector<TransformEdit> query, request_headers, response_headers;
};

// Fields that a transform may not touch, in lower case: those that frame a message or that the proxy writes itself.
// `of_answer`: of answers, else of requests.
bool is_own_field(std::string_view lower_name, bool of_answer);

}  // namespace tidegate
