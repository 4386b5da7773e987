// SPDX-License-Identifier: Apache-2.0
// The rules for every write of the configuration: the precondition, and the form of the answer.
#pragma once

#include <optional>
#include <string>

#include "control/api/route_table.h"
#include "control/apply.h"

namespace tidegate {

// The entity tag of a version in answers to writes: its manifest's digest, quoted. Empty before the first version.
std::string entity_tag(const Manifest& manifest);
// The strong entity tag of an answer to GET (RFC 9110 §8.8.3). Two representations of one version have different tags.
// `form` is "yaml" or "json". `redacted`: without the secrets.
std::string entity_tag(const Manifest& manifest, std::string_view form, bool redacted);
// True if If-None-Match contains `tag` or "*" (weak comparison, §13.1.2).
bool is_unchanged(const HttpRequest& request, std::string_view tag);

// The target of a write: the whole configuration, or one object.
struct WriteTarget {
  std::string kind, name;  // both empty: the whole configuration
};

// Returns the refusal of a write whose precondition is missing (428) or stale (412), or nothing. `If-Match` accepts the
// tag of any representation of the version in force. `If-Match: *` accepts any version, and also allows the first one
// (§13.1.1 would refuse that). `If-None-Match: *` allows a write whose target does not exist yet.
std::optional<HttpResponse> check_precondition(const HttpRequest& request, const Manifest& in_force,
                                               const WriteTarget& target = {});

// 200 with version, digest and changes; 422 with all faults; 412 if another write came first; 500 if the store refused.
HttpResponse answer_write(const ApplyOutcome& outcome);

// Takes author, comment and dry_run from a call. If it has an Idempotency-Key, also the answer to commit.
ApplyRequest apply_request(const ApiCall& call);

// The parameters that apply_request() reads, for the route table.
std::vector<QueryParameter> write_parameters();

}  // namespace tidegate
