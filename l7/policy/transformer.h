// SPDX-License-Identifier: Apache-2.0
// Transformer: a transform of the document (conf/policy/transform.h), compiled. Pure: heads in, heads out; texts are in
// the arena or belong to the Transformer. What would make a message that is read in two ways is a fault, and nothing of
// it goes out.
//
// Threads: any; immutable.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/policy/template.h"
#include "conf/policy/transform.h"
#include "core/regex.h"
#include "l7/policy/template_text.h"
#include "l7/wire/message.h"

namespace tidegate::l7::policy {

// Why a message cannot be transformed. The first is none.
enum class TransformFault : uint8_t {
  none,
  bad_value,         // of a field: it has a control character
  bad_path,          // it would not begin with '/', have a dot segment, or be refused of a client too
  bad_query,         // it has a control character, a space or a '#'
  bad_host,          // it would be no host
  value_too_large,   // kTransformValueBytes
  target_too_large,  // kTransformTargetBytes
  too_many_fields,
  count_,
};
const char* name(TransformFault fault);

class Transformer {
 public:
  // The part was checked: its texts and patterns are good.
  explicit Transformer(const TransformPolicy& transform);

  bool changes_requests() const {
    return path_.has_value() || host_.has_value() || !query_.empty() || !request_.empty();
  }
  bool changes_answers() const { return !answer_.empty(); }

  // `head`: a copy of the client's, which earlier transforms may have changed. After a fault it is not to be used.
  // `host`: what the backend is asked for instead of the client's host; left as it is without the key.
  TransformFault change_request(const TemplateValues& values, RequestHead& head, std::string_view& host,
                                Arena& arena) const;
  // An edit that fails is left out, and the others are made. Returns the last fault.
  TransformFault change_answer(const TemplateValues& values, FieldList& fields, Arena& arena) const;

 private:
  struct Edit {
    TransformEdit::Action action;
    std::string name, lower_name;  // of a parameter: both as it is
    TextTemplate value;
    std::optional<Regex> match;
    std::string to, lower_to;
  };
  struct PathEdit {
    TextTemplate value;
    std::string prefix;
    std::optional<Regex> match;
  };
  static std::vector<Edit> compile(const std::vector<TransformEdit>& edits);
  TransformFault change_path(const TemplateValues& values, RequestHead& head, Arena& arena) const;
  TransformFault change_query(const TemplateValues& values, RequestHead& head, Arena& arena) const;
  static TransformFault change_parameter(const Edit& edit, const TemplateValues& values, std::string_view& query,
                                         Arena& arena);
  static TransformFault change_field(const Edit& edit, const TemplateValues& values, FieldList& fields, bool of_request,
                                     size_t& room, Arena& arena);

  std::optional<PathEdit> path_;
  std::optional<TextTemplate> host_;
  std::vector<Edit> query_, request_, answer_;
};

}  // namespace tidegate::l7::policy
