// SPDX-License-Identifier: Apache-2.0
// The keys of transform: changes of requests on their way to the backend, and of the fields of answers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/model/common.h"
#include "conf/model/policy.h"

namespace tidegate {

class Checks;    // checks.h
struct Section;  // fields.h

// One change in a list of fields, or in the parameters of a query. Exactly one of the first five is set: it names the
// field or parameter.
struct TransformEdit {
  std::string set, add, remove, rename, replace;
  std::string value;  // set, add, replace: a text with variables
  std::string match;  // replace: a regular expression
  std::string to;     // rename: the new name

  enum class Action : uint8_t { set, add, remove, rename, replace };
  // The action whose member is set.
  Action action() const;
  const std::string& name() const;
};

// If neither `prefix` nor `match` is set, the whole path becomes `value`.
struct TransformPath {
  std::string value;   // a text with variables
  std::string prefix;  // whole segments at the beginning
  std::string match;   // a regular expression: the part that it matches becomes `value`
};

// One change of a JSON body. Exactly one of the first four is set. It is a path of names with dots between them, and
// goes through every item of a list on its way.
struct TransformJsonEdit {
  std::string set, remove, rename, redact;
  std::string value;  // set: a text with variables, which becomes a string; {json.PATH} alone: that value
  std::string to;     // rename: the new name, without the way to it

  enum class Action : uint8_t { set, remove, rename, redact };
  Action action() const;
  const std::string& path() const;
};

enum class BodyForm : uint8_t { json, xml, protobuf };

struct TransformJson {
  std::vector<std::string> pick;         // paths to keep; empty: everything stays
  std::vector<TransformJsonEdit> edits;  // changes of the picked value
  std::string body;                      // a text with variables that is the whole new body; empty: none
  uint64_t most = 256 * 1024;            // bytes of a body before and after; more is refused
  BodyForm from = BodyForm::json;        // form of the received body; a body of another form is not changed
  BodyForm to = BodyForm::json;          // form of the body that is sent
  std::string root = "root";             // to XML: the document's element, where the body does not name one
  Blob schema;                           // from or to Protobuf: a set of descriptors (core/protobuf.h)
  std::string message;                   // full name of the type in it
};

struct TransformPolicy final : PolicyPart {
  std::optional<TransformPath> path;
  std::string host;  // a text with variables; empty: as the client sent it
  std::vector<TransformEdit> query, request_headers, response_headers;
  std::optional<TransformJson> request_json, response_json;
};

// Fields that a transform may not touch, in lower case: those that frame a message or that the proxy writes itself.
// `of_answer`: of answers, else of requests.
bool is_own_field(std::string_view lower_name, bool of_answer);

// The names in a path. Empty if the text is not a path (an empty name, or too many names).
std::vector<std::string> json_path_of(std::string_view path);

// The checks of a JSON section (transform_json.cc); `key`: request_json or response_json.
void check_transform_json(Checks& checks, size_t p, const char* key, const TransformJson& json);
const Section& transform_json_section();

}  // namespace tidegate
