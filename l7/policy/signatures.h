// SPDX-License-Identifier: Apache-2.0
// Requests that are signed by HMAC: HTTP Message Signatures (RFC 9421) with hmac-sha256 (§3.3.3), one signature per
// request. Supported parts of the RFC: the components @method, @authority, @scheme, @path, @query and @target-uri, and
// fields without parameters; the parameters created, expires, nonce, keyid, alg and tag. `created` and `keyid` must be
// there. Both fields must be in the canonical form of their serialisation (RFC 8941 §4.1), as clients write them.
//
// Threads: any; a verifier is never changed.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "conf/policy/authenticate.h"
#include "l7/plan/known_clients.h"
#include "l7/policy/credentials.h"
#include "l7/policy/seen_signatures.h"
#include "l7/policy/table_memory.h"
#include "l7/wire/arena.h"
#include "l7/wire/message.h"

namespace tidegate::l7::policy {

enum class SignatureFault : uint8_t {
  none,
  malformed,
  covers_too_little,  // it does not cover all of `covers`
  missing_component,  // it covers a component that the request does not have
  algorithm,
  no_key,
  too_old,
  too_early,
  wrong,
  replayed,
  memory_full,  // the request itself has no fault
};
const char* name(SignatureFault fault);  // for the log: "signature_wrong"

class SignatureVerifier {
 public:
  SignatureVerifier(const SignatureRules& rules, std::shared_ptr<const Signers> signers, Compiling& out);

  static bool is_signed(const RequestHead& request) { return request.fields.find("signature-input") != nullptr; }
  // `scheme`: how the client asked. `now_s`: from the real-time clock. `who`: set if the signature is good.
  SignatureFault verify(const RequestHead& request, std::string_view scheme, uint64_t now_s, Arena& arena,
                        const Known*& who) const;

 private:
  struct Input;
  SignatureFault check_time(const Input& input, uint64_t now_s) const;
  bool covers_enough(const Input& input) const;

  const SignatureRules rules_;
  const std::shared_ptr<const Signers> signers_;   // not null
  const std::shared_ptr<TableMemories> memories_;  // kept, so that the next process finds what was seen in them
  const std::shared_ptr<SeenSignatures> seen_;
};

}  // namespace tidegate::l7::policy
