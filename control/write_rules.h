// The rules that every write of the configuration keeps: a precondition before, one form of answer after.
#pragma once

#include <optional>
#include <string>

#include "control/apply.h"
#include "control/route_table.h"

namespace tidegate {

// The strong entity tag of a version (RFC 9110 §8.8.3): its manifest's digest, quoted. Empty before the first version.
std::string entity_tag(const Manifest& manifest);

// The refusal of a write whose precondition is missing (428) or stale (412); nothing when it may go on. `If-Match: *`
// means "whatever is in force", and is how the first version is written (§13.1.1 would refuse that one; `If-None-Match:
// *` also serves).
std::optional<HttpResponse> check_precondition(const HttpRequest& request, const Manifest& in_force);

// 200 with version, digest, changes; 422 with all faults; 412 after a lost race; 500 when the store refused.
HttpResponse answer_write(const ApplyOutcome& outcome);

// Who, comment and dry_run of a call, and the answer to be committed where it came with an Idempotency-Key.
ApplyRequest apply_request(const ApiCall& call);

// The parameters that apply_request() reads, for the route table.
std::vector<QueryParameter> write_parameters();

}  // namespace tidegate
