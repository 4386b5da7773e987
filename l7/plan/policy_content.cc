// SPDX-License-Identifier: Apache-2.0
#include "l7/plan/policy_content.h"

#include <fmt/format.h>

#include <string>
#include <utility>

#include "conf/limits.h"
#include "conf/names.h"
#include "conf/text.h"

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
  // `parse` returns nothing for what is no such word.
  template <class Word>
  std::vector<Word> words(const std::vector<std::string>& texts, std::optional<Word> (*parse)(std::string_view)) {
    std::vector<Word> out;
    out.reserve(texts.size());
    for (const std::string& text : texts) {
      if (std::optional<Word> read = word(text, parse)) out.push_back(*std::move(read));
    }
    return out;
  }
  template <class Word>
  std::optional<Word> word(const std::string& text, std::optional<Word> (*parse)(std::string_view)) {
    std::optional<Word> read = parse(text);
    if (!read && !trouble_) trouble_ = fail(fmt::format("{} is no word that can stand here", in_quotes(text)));
    return read;
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
  if (authenticate.signatures.enabled) {
    out.signers = known_signers(authenticate.signatures, reader.keys(authenticate.signatures.keys));
  }
  if (authenticate.api_keys.enabled) out.keys = known_by_key(authenticate.api_keys);
  if (authenticate.basic.enabled) out.users = known_by_name(authenticate.basic);
  if (authenticate.certificates.enabled) {
    out.certificates = std::make_shared<const CertificateNames>(authenticate.certificates);
  }
  const ForwardAuth& forward = authenticate.forward;
  if (forward.enabled && forward.cache_ttl_ms != 0) {
    out.forward_cache_by = reader.words(cache_words(forward), parse_forward_cache_by);
  }
  return reader.done(std::move(out));
}

Result<ConcurrencyContent> read_content(const ConcurrencyPolicy& concurrency) {
  ContentReader reader;
  ConcurrencyContent out;
  out.by = reader.words(concurrency.by, parse_limit_by);
  if (!concurrency.lanes.empty()) out.tenant = reader.word(concurrency.tenant, parse_limit_by);
  return reader.done(std::move(out));
}

Result<SplitContent> read_content(const SplitPolicy& split) {
  ContentReader reader;
  SplitContent out;
  for (const SplitVariant& variant : split.variants) {
    out.when.push_back(variant.when.empty() ? std::nullopt : reader.word(variant.when, parse_split_condition));
  }
  out.sticky = reader.words(split.sticky, parse_limit_by);
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
  ContentReader reader;
  PolicyContent out;
  if (const auto* part = policy.part<TransformPolicy>("transform")) out.transform = reader.take(read_content(*part));
  if (const auto* part = policy.part<AuthenticatePolicy>("authenticate")) {
    out.authenticate = reader.take(read_content(*part));
  }
  if (const auto* part = policy.part<AggregatePolicy>("aggregate")) {
    for (const AggregatePart& each : part->parts) out.aggregate.push_back(reader.take(read_content(request_of(each))));
  }
  if (const auto* part = policy.part<LimitPolicy>("limit")) {
    out.limit_by = reader.words(part->by, parse_limit_by);
    if (part->by.empty()) out.limit_by.push_back({LimitBy::What::client, {}});
  }
  if (const auto* part = policy.part<ConcurrencyPolicy>("concurrency")) {
    out.concurrency = reader.take(read_content(*part));
  }
  if (const auto* part = policy.part<SplitPolicy>("split")) out.split = reader.take(read_content(*part));
  if (const auto* part = policy.part<RespondPolicy>("respond"); part != nullptr && part->cors.enabled) {
    out.cors_origins = reader.words(part->cors.origins, parse_origin_pattern);
  }
  return reader.done(std::shared_ptr<const PolicyContent>(std::make_shared<PolicyContent>(std::move(out))));
}

std::vector<std::string> cache_words(const ForwardAuth& forward) {
  if (!forward.cache_by.empty()) return forward.cache_by;
  std::vector<std::string> all = {"method", "host", "path", "query", "client"};
  for (const std::string& header : forward.request_headers) all.push_back("header:" + lower_case(header));
  return all;
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
