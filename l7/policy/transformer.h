// SPDX-License-Identifier: Apache-2.0
// Transformer: a compiled transform of the document (conf/policy/transform.h). Pure: heads in, heads out; texts are in
// the arena or belong to the Transformer. If the result could be read in two ways, it is a fault, and nothing is sent.
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
#include "l7/plan/policy_content.h"
#include "l7/policy/template_text.h"
#include "l7/wire/message.h"

namespace tidegate::l7::policy {

// Why a message cannot be transformed. The first value means no fault.
enum class TransformFault : uint8_t {
  none,
  bad_value,         // a field's value has a control character
  bad_path,          // it would not begin with '/', would have a dot segment, or would be refused from a client too
  bad_query,         // it has a control character, a space or a '#'
  bad_host,          // it would not be a valid host
  value_too_large,   // longer than kTransformValueBytes
  target_too_large,  // longer than kTransformTargetBytes
  too_many_fields,
  count_,
};
const char* name(TransformFault fault);

class Transformer {
 public:
  // `content`: what read_content() made of the part.
  Transformer(const TransformPolicy& transform, const TransformContent& content);

  bool changes_requests() const {
    return path_.has_value() || host_.has_value() || !query_.empty() || !request_.empty();
  }
  bool changes_answers() const { return !answer_.empty(); }

  // `head`: a copy of the client's, possibly changed by earlier transforms. After a fault it must not be used. `host`:
  // the host that the backend is asked for instead of the client's. It is not changed if the transform does not set it.
  TransformFault change_request(const TemplateValues& values, RequestHead& head, std::string_view& host,
                                Arena& arena) const;
  // Leaves out an edit that fails, and makes the others. Returns the last fault.
  TransformFault change_answer(const TemplateValues& values, FieldList& fields, Arena& arena) const;

 private:
  struct Edit {
    TransformEdit::Action action;
    std::string name, lower_name;  // for a parameter both are the name as written
    TextTemplate value;
    std::optional<Regex> match;
    std::string to, lower_to;
  };
  struct PathEdit {
    TextTemplate value;
    std::string prefix;
    std::optional<Regex> match;
  };
  static std::vector<Edit> compile(const std::vector<TransformEdit>& edits,
                                   const std::vector<TransformContent::Edit>& content);
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
