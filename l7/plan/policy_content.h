// SPDX-License-Identifier: Apache-2.0
// PolicyContent: what is made of a policy's own text, before anything that the process has learned: patterns, texts
// with variables, schemas, keys, tables of clients, and the words that say what a request is counted or chosen by. The
// rules (l7/policy) are made of it. A policy that has not changed keeps its content, so a version makes what is new in
// it, and once.
//
// Threads: any; immutable.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "conf/model/policy.h"
#include "conf/policy/aggregate.h"
#include "conf/policy/authenticate.h"
#include "conf/policy/concurrency.h"
#include "conf/policy/jwks.h"
#include "conf/policy/limit.h"
#include "conf/policy/respond.h"
#include "conf/policy/split.h"
#include "conf/policy/template.h"
#include "conf/policy/transform.h"
#include "core/protobuf.h"
#include "core/regex.h"
#include "core/result.h"
#include "l7/plan/certificate_names.h"
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
  std::vector<Jwk> token_keys;                           // those in the document
  std::shared_ptr<const KnownClients> keys, users;       // null: none are taken
  std::shared_ptr<const Signers> signers;                // null: no signatures are taken
  std::shared_ptr<const CertificateNames> certificates;  // null: no certificates are taken
  std::vector<ForwardCacheBy> forward_cache_by;          // empty: no answers are remembered
};

struct ConcurrencyContent {
  std::vector<LimitBy> by;        // empty: all requests are counted as one
  std::optional<LimitBy> tenant;  // nothing: there are no lanes
};

struct SplitContent {
  std::vector<std::optional<SplitCondition>> when;  // parallel to SplitPolicy::variants; nothing: by weight alone
  std::vector<LimitBy> sticky;                      // empty: each request has its own choice
};

struct PolicyContent {
  std::optional<TransformContent> transform;
  std::optional<AuthenticateContent> authenticate;
  std::vector<TransformContent> aggregate;  // parallel to AggregatePolicy::parts
  std::vector<LimitBy> limit_by;            // of the limit; not empty if there is one
  std::optional<ConcurrencyContent> concurrency;
  std::optional<SplitContent> split;
  std::vector<OriginPattern> cors_origins;
};

using PolicyContents = std::vector<std::shared_ptr<const PolicyContent>>;  // parallel to Model::policies

// Each gives an Error in one sentence if there is something that cannot be used. `check` has found this before, and
// says where.
Result<JsonContent> read_content(const TransformJson& json);
Result<TransformContent> read_content(const TransformPolicy& transform);
Result<std::shared_ptr<const PolicyContent>> read_content(const Policy& policy);

// What remembered answers of the service are looked up by, as words of `cache_by`: without any, all that it is told.
std::vector<std::string> cache_words(const ForwardAuth& forward);

// The request for one part of an aggregate, as a change of an empty request.
TransformPolicy request_of(const AggregatePart& part);

}  // namespace tidegate::l7
