// SPDX-License-Identifier: Apache-2.0
// The certificates that the proxy shows, and its answers to an authority that checks whether a name is ours.
//
// A certificate of the configuration comes from files, or is ordered. An ordered one is in the live state once it is
// issued; until then the proxy shows one that it signs itself, so that clients which do not check are served at once.
// These functions are pure, except make_certificate(): they say what the proxy has to make, and OwnCertificates
// (l7/own_certificates.h) makes it.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/model.h"
#include "conf/model/certificate.h"
#include "conf/snapshot.h"
#include "core/crypto.h"
#include "core/result.h"
#include "core/tls.h"

namespace tidegate::l7 {

struct ServedCertificate {
  Blob certificate, key;                           // PEM; without bytes if the proxy has to make it
  bool self_made = false;                          // the proxy makes it
  std::shared_ptr<const Staple> staple = nullptr;  // its authority's OCSP answer; null: nothing is shown
  std::string trouble = {};                        // why what was issued is not shown; empty: it is, or nothing was
};
// The result is parallel to Model::certificates. Earlier certificates stay if they still fit: `before` is the previous
// result and belongs to the model `before_model`; both may be null. If a certificate of the live state cannot be used,
// `trouble` says why, and the earlier one stays.
std::vector<ServedCertificate> served_certificates(const Snapshot& snapshot, const Model* before_model,
                                                   const std::vector<ServedCertificate>* before);

// Makes a certificate that the proxy signs itself, for the names of an order. Draws a key.
Result<ServedCertificate> make_certificate(const Certificate& certificate);

// Certificates that should have an OCSP answer of their authority, and have none now.
size_t missing_staples(const Model& model, const std::vector<ServedCertificate>& served, int64_t now_s);

// Answers to http-01 (RFC 8555 §8.3) by token. The texts are the live state's.
using AcmeAnswers = std::map<std::string_view, std::string_view>;
AcmeAnswers acme_answers(const LiveState& live_state);

// The certificate that is shown to an authority for tls-alpn-01 (RFC 8737).
struct AcmeIdentity {
  std::string proof;  // key in the live state, "alpn/NAME", and the digest
  std::string name;
  Sha256 digest{};
  TlsIdentity identity;  // empty if the proxy has to make it
};
// Identities in `before` (may be null) that are still needed are used again.
std::vector<AcmeIdentity> acme_identities(const LiveState& live_state, const std::vector<AcmeIdentity>* before);

// The token in the path of an http-01 request. Nothing if it is another path.
std::optional<std::string_view> acme_token(std::string_view path);

}  // namespace tidegate::l7
