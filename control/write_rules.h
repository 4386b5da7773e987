// SPDX-License-Identifier: Apache-2.0
// The rules that every write of the configuration keeps: a precondition before, one form of answer after.
#pragma once

#include <optional>
#include <string>

#include "control/apply.h"
#include "control/route_table.h"

namespace tidegate {

// The tag that names a version in answers to writes: its manifest's digest, quoted. Empty before the first version.
std::string entity_tag(const Manifest& manifest);
// The strong entity tag of what a GET answers (RFC 9110 §8.8.3): two representations of one version never share it.
// `form` is "yaml" or "json"; redacted: without the secrets.
std::string entity_tag(const Manifest& manifest, std::string_view form, bool redacted);
// Whether If-None-Match holds `tag`, or "*" (weak comparison, §13.1.2).
bool is_unchanged(const HttpRequest& request, std::string_view tag);

// What a write is to change: the whole configuration, or one object of it.
struct WriteTarget {
  std::string kind, name;  // both empty: the whole
};

// The refusal of a write whose precondition is missing (428) or stale (412); nothing when it may go on. `If-Match`
// takes every tag of the version in force, whatever its representation; `*` means "whatever is in force", and is how
// the first version is written (§13.1.1 would refuse that one). `If-None-Match: *` lets a write go on where its target
// is not there yet.
std::optional<HttpResponse> check_precondition(const HttpRequest& request, const Manifest& in_force,
                                               const WriteTarget& target = {});

// 200 with version, digest, changes; 422 with all faults; 412 after a lost race; 500 when the store refused.
HttpResponse answer_write(const ApplyOutcome& outcome);

// Who, comment and dry_run of a call, and the answer to be committed where it came with an Idempotency-Key.
ApplyRequest apply_request(const ApiCall& call);

// The parameters that apply_request() reads, for the route table.
std::vector<QueryParameter> write_parameters();

}  // namespace tidegate
