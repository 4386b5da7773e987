// SPDX-License-Identifier: Apache-2.0
// OCSP (RFC 6960): the question to the authority of a certificate, and the check of its answer. Pure: the time is an
// argument. Chains are trusted input; an answer may be any bytes, because it comes from a server elsewhere.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/result.h"

namespace tidegate {

// The facts about OCSP in a certificate.
struct OcspFacts {
  std::string responder;     // the first URL that it names, with http or https; empty: none
  bool must_staple = false;  // clients refuse it without a staple (RFC 7633)
  bool has_issuer = false;   // the chain has the certificate that issued it, which questions and answers need
};
// The facts of the first certificate of a chain in PEM.
Result<OcspFacts> ocsp_facts(const std::string& chain_pem);

// The question about the chain's first certificate, in DER. It has no nonce. So a responder may send an answer that it
// has signed earlier (RFC 5019 §4). An Error if the chain does not have the issuer.
Result<std::string> ocsp_question(const std::string& chain_pem);

enum class OcspVerdict : uint8_t {
  good,
  revoked,
  unknown,            // the authority does not know the certificate
  refused,            // the responder gives no status: "try later", "unauthorized"
  malformed,          // this is no answer of OCSP
  other_certificate,  // it says nothing about this certificate
  wrong_signature,    // neither the issuer signed it nor a responder that the issuer named
  outdated,           // it is not valid yet, not valid any more, or does not say until when it is valid
};
inline constexpr size_t kOcspVerdicts = 8;
const char* name(OcspVerdict verdict);

struct OcspJudgement {
  OcspVerdict verdict = OcspVerdict::malformed;
  std::string why;                               // a sentence; empty if it is good
  int64_t this_update_s = 0, next_update_s = 0;  // epoch; of good and revoked
};
OcspJudgement judge_ocsp(const std::string& chain_pem, std::string_view answer, int64_t now_s);

}  // namespace tidegate
