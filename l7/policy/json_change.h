// SPDX-License-Identifier: Apache-2.0
// JsonChange: the compiled changes of JSON bodies by a transform, and of XML and Protobuf that it reads as JSON or
// writes (conf/policy/transform.h). Pure: a whole body in, a whole body out. A body is read as views of its text
// (json_scan.h), so numbers and texts stay as they were written.
//
// Threads: any; immutable.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "conf/policy/template.h"
#include "conf/policy/transform.h"
#include "core/protobuf.h"
#include "l7/plan/policy_content.h"
#include "l7/policy/json_scan.h"
#include "l7/policy/template_text.h"

namespace tidegate::l7::policy {

// Why a body cannot be changed. The first value means no fault.
enum class JsonFault : uint8_t {
  none,
  no_json,         // it is malformed JSON, or nested too deeply
  body_coded,      // it has a content coding
  body_too_large,  // it is too large before or after the change
  body_cut,        // the backend did not send all of it
  bad_text,        // a value is not UTF-8, or the new body is not JSON
  no_xml,          // it is malformed XML, or nested too deeply
  xml_not_taken,   // it has a document type, a processing instruction, another entity or another encoding
  not_as_xml,      // a name is not valid in XML, or there is a list in a list
  no_protobuf,     // it is no message of the type, or nested too deeply
  not_as_message,  // the JSON has a name or value that the message's type does not have
};
const char* name(JsonFault fault);

class JsonChange {
 public:
  // `content`: what read_content() made of the section.
  JsonChange(const TransformJson& json, const JsonContent& content);

  uint64_t most() const { return most_; }
  // True if bodies with this Content-Type are changed.
  bool takes(std::string_view content_type) const;
  // A body of no bytes is changed too: it is a message of Protobuf whose fields all have their default values.
  bool takes_empty() const { return from_ == BodyForm::protobuf; }
  // The Content-Type of the new body. Empty: the Content-Type stays.
  std::string_view new_content_type() const;
  // The conversion as text for people: "json to protobuf (shop.v1.Order)". Empty if bodies keep their format.
  std::string conversion() const;
  // Writes the new body into `out`, which must be empty. After a fault `out` must not be used. The arena is used during
  // the call.
  JsonFault change(std::string_view body, const TemplateValues& values, std::string& out, Arena& arena) const;

 private:
  // The changes at one name, and at the names below it.
  struct Node {
    std::map<std::string, Node, std::less<>> below;
    bool removed = false, redacted = false, set = false;
    bool taken = false;  // of picks: with everything below it
    std::string renamed;
    TextTemplate value;
  };
  struct Run;
  // Converts the received body to JSON.
  JsonFault read(std::string_view body, std::string& json) const;
  // Converts JSON to the format of the body that is sent.
  JsonFault write(std::string_view json, std::string& out, Arena& arena) const;
  JsonFault change_json(std::string_view body, const TemplateValues& values, std::string& out, Arena& arena) const;
  bool leaves_json() const { return !makes_anew_ && !picks_some_ && edits_.below.empty(); }
  static Node& at(Node& root, const std::string& path);

  Node edits_, picks_;
  bool picks_some_ = false, makes_anew_ = false;
  TextTemplate body_;
  uint64_t most_;
  BodyForm from_, to_;
  std::string root_;
  std::shared_ptr<const ProtobufSchema> schema_;  // null: no Protobuf
  std::string message_;
};

}  // namespace tidegate::l7::policy
