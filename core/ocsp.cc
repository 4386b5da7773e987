// SPDX-License-Identifier: Apache-2.0
#include "core/ocsp.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <openssl/ocsp.h>

#include <ctime>
#include <optional>
#include <utility>

#include "core/limits.h"
#include "core/tls_openssl.h"

namespace tidegate {
namespace {

using OcspRequestPtr = std::unique_ptr<OCSP_REQUEST, OpensslFree<OCSP_REQUEST_free>>;
using OcspResponsePtr = std::unique_ptr<OCSP_RESPONSE, OpensslFree<OCSP_RESPONSE_free>>;
using OcspBasicPtr = std::unique_ptr<OCSP_BASICRESP, OpensslFree<OCSP_BASICRESP_free>>;
using OcspIdPtr = std::unique_ptr<OCSP_CERTID, OpensslFree<OCSP_CERTID_free>>;
using StorePtr = std::unique_ptr<X509_STORE, OpensslFree<X509_STORE_free>>;

// The stack owns nothing: the chain does.
inline void free_stack_alone(STACK_OF(X509) * stack) { sk_X509_free(stack); }
using BorrowedStackPtr = std::unique_ptr<STACK_OF(X509), OpensslFree<free_stack_alone>>;

constexpr long kStatusRequest = 5;  // the TLS extension (RFC 6066 §8) as a TLS feature (RFC 7633 §4.1)

std::string time_text(int64_t epoch_s) {
  return fmt::format("{:%Y-%m-%d %H:%M:%S} UTC", fmt::gmtime(static_cast<std::time_t>(epoch_s)));
}

// Borrowed from the chain; null: it is not there.
X509* issuer_in(const X509StackPtr& chain) {
  X509* const certificate = sk_X509_value(chain.get(), 0);
  for (int i = 1; i < sk_X509_num(chain.get()); ++i) {
    X509* const candidate = sk_X509_value(chain.get(), i);
    if (X509_check_issued(candidate, certificate) == X509_V_OK) return candidate;
  }
  return nullptr;
}

bool has_must_staple(const X509* certificate) {
  auto* features = static_cast<TLS_FEATURE*>(X509_get_ext_d2i(certificate, NID_tlsfeature, nullptr, nullptr));
  bool found = false;
  for (int i = 0; i < sk_ASN1_INTEGER_num(features) && !found; ++i) {
    found = ASN1_INTEGER_get(sk_ASN1_INTEGER_value(features, i)) == kStatusRequest;
  }
  TLS_FEATURE_free(features);
  return found;
}

std::string responder_of(X509* certificate) {
  STACK_OF(OPENSSL_STRING)* urls = X509_get1_ocsp(certificate);
  std::string found;
  for (int i = 0; i < sk_OPENSSL_STRING_num(urls) && found.empty(); ++i) {
    const std::string_view url = sk_OPENSSL_STRING_value(urls, i);
    if (url.starts_with("http://") || url.starts_with("https://")) found = url;
  }
  X509_email_free(urls);
  return found;
}

// The name under which OCSP knows the chain's first certificate (RFC 6960 §4.1.1): with SHA-1, as RFC 5019 §2.1.1 wants
// it. No secret depends on it.
OcspIdPtr id_of(const X509StackPtr& chain, X509* issuer) {
  return OcspIdPtr(OCSP_cert_to_id(EVP_sha1(), sk_X509_value(chain.get(), 0), issuer));
}

// RFC 6960 §4.2.2.2: signed by the issuer itself, or by a certificate that the issuer signed for this purpose. Such a
// certificate comes with the answer.
bool is_signed_for(OCSP_BASICRESP* answer, X509* issuer, int64_t now_s) {
  const StorePtr store(X509_STORE_new());
  const BorrowedStackPtr issuers(sk_X509_new_null());
  if (!store || !issuers || sk_X509_push(issuers.get(), issuer) == 0) return false;
  X509_STORE_add_cert(store.get(), issuer);
  X509_VERIFY_PARAM* const rules = X509_STORE_get0_param(store.get());
  X509_VERIFY_PARAM_set_flags(rules, X509_V_FLAG_PARTIAL_CHAIN);
  X509_VERIFY_PARAM_set_time(rules, static_cast<std::time_t>(now_s));
  // TRUSTOTHER: what the issuer's own key signed needs no chain. NOEXPLICIT: only the issuer can name a responder.
  const bool good = OCSP_basic_verify(answer, issuers.get(), store.get(), OCSP_TRUSTOTHER | OCSP_NOEXPLICIT) == 1;
  ERR_clear_error();
  return good;
}

OcspJudgement judged(OcspVerdict verdict, std::string why) { return {verdict, std::move(why), 0, 0}; }

// RFC 6960 §3.2. Nobody can see that an answer without an end is old (RFC 5019 §2.2.4 wants an end).
std::optional<std::string> fault_of_times(const OcspJudgement& times, int64_t now_s) {
  if (times.this_update_s > now_s + static_cast<int64_t>(kOcspClockSkewS)) {
    return fmt::format("it holds from {} on; this host's clock may be wrong", time_text(times.this_update_s));
  }
  if (times.next_update_s == 0) return "it does not say how long it holds";
  if (times.next_update_s <= now_s) return fmt::format("it held until {}", time_text(times.next_update_s));
  if (times.next_update_s <= times.this_update_s) return "it ends before it begins";
  return std::nullopt;
}

OcspJudgement judge_status(OCSP_BASICRESP* answer, OCSP_CERTID* id, X509* issuer, int64_t now_s) {
  int status = 0, reason = 0;
  ASN1_GENERALIZEDTIME *revoked_at = nullptr, *this_update = nullptr, *next_update = nullptr;
  if (OCSP_resp_find_status(answer, id, &status, &reason, &revoked_at, &this_update, &next_update) != 1) {
    return judged(OcspVerdict::other_certificate, "the answer does not speak of this certificate");
  }
  if (!is_signed_for(answer, issuer, now_s)) {
    return judged(OcspVerdict::wrong_signature, "the certificate's issuer did not sign the answer, nor name who did");
  }
  OcspJudgement judgement;
  judgement.this_update_s = this_update == nullptr ? 0 : epoch_of(this_update);
  judgement.next_update_s = next_update == nullptr ? 0 : epoch_of(next_update);
  if (const auto fault = fault_of_times(judgement, now_s)) {
    return judged(OcspVerdict::outdated, "the answer cannot be used: " + *fault);
  }
  switch (status) {
    case V_OCSP_CERTSTATUS_GOOD:
      judgement.verdict = OcspVerdict::good;
      return judgement;
    case V_OCSP_CERTSTATUS_REVOKED:
      judgement.verdict = OcspVerdict::revoked;
      judgement.why = fmt::format("the authority revoked the certificate on {}{}{}",
                                  revoked_at == nullptr ? "an unknown day" : time_text(epoch_of(revoked_at)),
                                  reason < 0 ? "" : ": ", reason < 0 ? "" : OCSP_crl_reason_str(reason));
      return judgement;
    default:
      return judged(OcspVerdict::unknown, "the authority does not know the certificate");
  }
}

Result<OcspIdPtr> asked_id(const X509StackPtr& chain) {
  X509* const issuer = issuer_in(chain);
  if (issuer == nullptr) return fail("the chain does not have the certificate of its issuer");
  OcspIdPtr id = id_of(chain, issuer);
  if (!id) return fail("no question can be made of the certificate: " + take_openssl_error());
  return id;
}

}  // namespace

const char* name(OcspVerdict verdict) {
  switch (verdict) {
    case OcspVerdict::good:
      return "good";
    case OcspVerdict::revoked:
      return "revoked";
    case OcspVerdict::unknown:
      return "unknown";
    case OcspVerdict::refused:
      return "refused";
    case OcspVerdict::malformed:
      return "malformed";
    case OcspVerdict::other_certificate:
      return "other_certificate";
    case OcspVerdict::wrong_signature:
      return "wrong_signature";
    case OcspVerdict::outdated:
      return "outdated";
  }
  return "?";
}

Result<OcspFacts> ocsp_facts(const std::string& chain_pem) {
  Result<X509StackPtr> chain = parse_certificates(chain_pem);
  if (!chain) return chain.error();
  X509* const certificate = sk_X509_value(chain->get(), 0);
  return OcspFacts{responder_of(certificate), has_must_staple(certificate), issuer_in(*chain) != nullptr};
}

Result<std::string> ocsp_question(const std::string& chain_pem) {
  Result<X509StackPtr> chain = parse_certificates(chain_pem);
  if (!chain) return chain.error();
  Result<OcspIdPtr> id = asked_id(*chain);
  if (!id) return id.error();
  const OcspRequestPtr request(OCSP_REQUEST_new());
  if (!request || OCSP_request_add0_id(request.get(), id->get()) == nullptr) {
    return fail("no question can be made of the certificate: " + take_openssl_error());
  }
  (void)id->release();  // the request has it
  unsigned char* der = nullptr;
  const int bytes = i2d_OCSP_REQUEST(request.get(), &der);
  if (bytes <= 0) return fail("no question can be made of the certificate: " + take_openssl_error());
  std::string question(reinterpret_cast<char*>(der), static_cast<size_t>(bytes));
  OPENSSL_free(der);
  return question;
}

OcspJudgement judge_ocsp(const std::string& chain_pem, std::string_view answer, int64_t now_s) {
  Result<X509StackPtr> chain = parse_certificates(chain_pem);
  if (!chain) return judged(OcspVerdict::other_certificate, chain.error().message);
  Result<OcspIdPtr> id = asked_id(*chain);
  if (!id) return judged(OcspVerdict::other_certificate, id.error().message);
  if (answer.size() > kMaxOcspAnswerBytes) return judged(OcspVerdict::malformed, "the answer is too long");
  const auto* at = reinterpret_cast<const unsigned char*>(answer.data());
  const unsigned char* const end = at + answer.size();
  const OcspResponsePtr response(d2i_OCSP_RESPONSE(nullptr, &at, static_cast<long>(answer.size())));
  if (!response || at != end) {
    ERR_clear_error();
    return judged(OcspVerdict::malformed, "this is no answer of OCSP");
  }
  const int status = OCSP_response_status(response.get());
  if (status != OCSP_RESPONSE_STATUS_SUCCESSFUL) {
    return judged(OcspVerdict::refused,
                  fmt::format("the responder gives no status: {}", OCSP_response_status_str(status)));
  }
  const OcspBasicPtr basic(OCSP_response_get1_basic(response.get()));
  ERR_clear_error();
  if (!basic) return judged(OcspVerdict::malformed, "the answer is of an unknown type");
  return judge_status(basic.get(), id->get(), issuer_in(*chain), now_s);
}

}  // namespace tidegate
