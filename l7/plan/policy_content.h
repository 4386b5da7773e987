// SPDX-License-Identifier: Apache-2.0
// PolicyContent: what is made of a policy's own text, before anything that the process has learned: patterns, texts
// with variables, schemas, keys, and tables of clients. The rules (l7/policy) are made of it. A policy that has not
// changed keeps its content, so a version makes what is new in it, and once.
//
// Threads: any; immutable.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "conf/model/policy.h"
#include "conf/policy/aggregate.h"
#include "conf/policy/authenticate.h"
#include "conf/policy/jwks.h"
#include "conf/policy/template.h"
#include "conf/policy/transform.h"
#include "core/protobuf.h"
#include "core/regex.h"
#include "core/result.h"
#include "l7/plan/known_clients.h"

namespace tidegate::l7 {

struct JsonContent {
  TextTemplate body;
  std::vector<TextTemplate> values;                        // parallel to TransformJson::edits
  std::shared_ptr<const ProtobufSchema> schema = nullptr;  // null: no Protobuf
};

struct TransformContent {
  struct Edit {
    TextTemplate value;
    std::optional<Regex> match;
  };
  std::optional<Edit> path;
  TextTemplate host;
  std::vector<Edit> query, request_headers, response_headers;  // each parallel to the list of the same name
  std::optional<JsonContent> request_json, response_json;
};

struct AuthenticateContent {
  std::vector<Jwk> token_keys, signature_keys;      // those in the document
  std::shared_ptr<const KnownClients> keys, users;  // null: none are taken
};

struct PolicyContent {
  std::optional<TransformContent> transform;
  std::optional<AuthenticateContent> authenticate;
  std::vector<TransformContent> aggregate;  // parallel to AggregatePolicy::parts
};

using PolicyContents = std::vector<std::shared_ptr<const PolicyContent>>;  // parallel to Model::policies

// Each gives an Error in one sentence if there is something that cannot be used. `check` has found this before, and
// says where.
Result<JsonContent> read_content(const TransformJson& json);
Result<TransformContent> read_content(const TransformPolicy& transform);
Result<std::shared_ptr<const PolicyContent>> read_content(const Policy& policy);

// The request for one part of an aggregate, as a change of an empty request.
TransformPolicy request_of(const AggregatePart& part);

}  // namespace tidegate::l7
