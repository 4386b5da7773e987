// SPDX-License-Identifier: Apache-2.0
#include "l7/plan/policy_content.h"

#include <fmt/format.h>

#include <string>
#include <utility>

#include "conf/limits.h"

namespace tidegate::l7 {
namespace {

// Reads one thing after the other, until the first Error.
class ContentReader {
 public:
  TextTemplate text(const std::string& text) { return take(parse_template(text)); }
  std::optional<Regex> pattern(const std::string& pattern) {
    if (pattern.empty() || trouble_) return std::nullopt;
    Result<Regex> regex = Regex::compile(pattern, kRegexMemoryBytes);
    if (!regex) {
      trouble_ = regex.error();
      return std::nullopt;
    }
    return *std::move(regex);
  }
  std::vector<Jwk> keys(const Blob& set) { return set.bytes ? take(parse_jwks(*set.bytes)) : std::vector<Jwk>(); }
  std::vector<TransformContent::Edit> edits(const std::vector<TransformEdit>& edits) {
    std::vector<TransformContent::Edit> out;
    out.reserve(edits.size());
    for (const TransformEdit& edit : edits) out.push_back({text(edit.value), pattern(edit.match)});
    return out;
  }
  template <class T>
  T take(Result<T> result) {
    if (result && !trouble_) return *std::move(result);
    if (!trouble_) trouble_ = result.error();
    return T();
  }
  template <class T>
  Result<T> done(T made) {
    if (trouble_) return *trouble_;
    return made;
  }

 private:
  std::optional<Error> trouble_;
};

Result<AuthenticateContent> read_content(const AuthenticatePolicy& authenticate) {
  ContentReader reader;
  AuthenticateContent out;
  if (authenticate.jwt.enabled) out.token_keys = reader.keys(authenticate.jwt.keys);
  if (authenticate.signatures.enabled) out.signature_keys = reader.keys(authenticate.signatures.keys);
  if (authenticate.api_keys.enabled) out.keys = known_by_key(authenticate.api_keys);
  if (authenticate.basic.enabled) out.users = known_by_name(authenticate.basic);
  return reader.done(std::move(out));
}

}  // namespace

Result<JsonContent> read_content(const TransformJson& json) {
  ContentReader reader;
  JsonContent out;
  out.body = reader.text(json.body);
  out.values.reserve(json.edits.size());
  for (const TransformJsonEdit& edit : json.edits) out.values.push_back(reader.text(edit.value));
  if (json.from == BodyForm::protobuf || json.to == BodyForm::protobuf) {
    if (!json.schema.bytes) return fail("the schema is missing");
    out.schema = reader.take(ProtobufSchema::shared(json.schema.hash, *json.schema.bytes));
  }
  return reader.done(std::move(out));
}

Result<TransformContent> read_content(const TransformPolicy& transform) {
  ContentReader reader;
  TransformContent out;
  if (transform.path) out.path = {reader.text(transform.path->value), reader.pattern(transform.path->match)};
  out.host = reader.text(transform.host);
  out.query = reader.edits(transform.query);
  out.request_headers = reader.edits(transform.request_headers);
  out.response_headers = reader.edits(transform.response_headers);
  if (transform.request_json) out.request_json = reader.take(read_content(*transform.request_json));
  if (transform.response_json) out.response_json = reader.take(read_content(*transform.response_json));
  return reader.done(std::move(out));
}

Result<std::shared_ptr<const PolicyContent>> read_content(const Policy& policy) {
  static const auto kNothing = std::make_shared<const PolicyContent>();
  ContentReader reader;
  PolicyContent out;
  if (const auto* part = policy.part<TransformPolicy>("transform")) out.transform = reader.take(read_content(*part));
  if (const auto* part = policy.part<AuthenticatePolicy>("authenticate")) {
    out.authenticate = reader.take(read_content(*part));
  }
  if (const auto* part = policy.part<AggregatePolicy>("aggregate")) {
    for (const AggregatePart& each : part->parts) out.aggregate.push_back(reader.take(read_content(request_of(each))));
  }
  if (!out.transform && !out.authenticate && out.aggregate.empty()) return kNothing;
  return reader.done(std::shared_ptr<const PolicyContent>(std::make_shared<PolicyContent>(std::move(out))));
}

TransformPolicy request_of(const AggregatePart& part) {
  TransformPolicy transform;
  transform.path = TransformPath{part.path, {}, {}};
  transform.host = part.host;
  for (const auto& [name, value] : part.query) {
    TransformEdit& edit = transform.query.emplace_back();
    edit.set = name;
    edit.value = value;
  }
  return transform;
}

}  // namespace tidegate::l7
