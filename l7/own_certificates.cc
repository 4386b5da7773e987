// SPDX-License-Identifier: Apache-2.0
#include "l7/own_certificates.h"

#include <set>
#include <utility>

#include "conf/model.h"
#include "conf/model/certificate.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/signing_key.h"

namespace tidegate::l7 {
namespace {

constexpr int64_t kProofS = 86'400;  // before and after now

std::string made_for(const Certificate& certificate) {
  std::string key = certificate.name;
  for (const std::string& name : certificate.order.names) key += " " + name;
  return key;
}

Result<TlsIdentity> make_proof(const AcmeIdentity& wanted) {
  const auto now_s = static_cast<int64_t>(realtime_ns() / kNsPerS);
  const Result<SigningKey> key = SigningKey::make();
  if (!key) return key.error();
  const Result<std::string> certificate =
      key->certify_itself({{wanted.name}, now_s - kProofS, now_s + kProofS, wanted.digest});
  if (!certificate) return certificate.error();
  const Result<std::string> pem = key->to_pem();
  if (!pem) return pem.error();
  return TlsIdentity{*certificate, *pem};
}

}  // namespace

void OwnCertificates::complete(Description& description) {
  const Model& model = description.model();
  for (size_t c = 0; c < description.certificates.size(); ++c) {
    complete(model.certificates[c], description.certificates[c]);
  }
  std::erase_if(description.acme_identities, [this](AcmeIdentity& wanted) {
    if (!wanted.identity.certificate_pem.empty()) return false;
    const auto known = proofs_.find(wanted.proof);
    if (known != proofs_.end()) {
      wanted.identity = known->second;
      return false;
    }
    Result<TlsIdentity> made = make_proof(wanted);
    if (!made) {
      log_error("the proof for {} cannot be made: {}", wanted.name, made.error().message);
      return true;
    }
    wanted.identity = proofs_[wanted.proof] = *std::move(made);
    return false;
  });
}

void OwnCertificates::complete(const Certificate& certificate, ServedCertificate& served) {
  if (!served.trouble.empty()) {
    std::string& last = troubles_[certificate.name];
    if (last != served.trouble) log_error("certificate {}: {}", certificate.name, served.trouble);
    last = served.trouble;
  }
  if (!served.self_made || served.certificate.bytes) return;
  ServedCertificate& known = made_[made_for(certificate)];
  if (!known.certificate.bytes) {
    Result<ServedCertificate> made = make_certificate(certificate);
    if (!made) return log_error("certificate {}: {}", certificate.name, made.error().message);
    log_info("certificate {}: a self-made one is shown until one is issued", certificate.name);
    known = *std::move(made);
  }
  served.certificate = known.certificate;
  served.key = known.key;
}

void OwnCertificates::trim(const Description& in_force) {
  std::set<std::string> needed, troubled;
  const Model& model = in_force.model();
  for (size_t c = 0; c < in_force.certificates.size(); ++c) {
    if (in_force.certificates[c].self_made) needed.insert(made_for(model.certificates[c]));
    if (!in_force.certificates[c].trouble.empty()) troubled.insert(model.certificates[c].name);
  }
  for (const AcmeIdentity& identity : in_force.acme_identities) needed.insert(identity.proof);
  std::erase_if(made_, [&](const auto& entry) { return !needed.contains(entry.first); });
  std::erase_if(proofs_, [&](const auto& entry) { return !needed.contains(entry.first); });
  std::erase_if(troubles_, [&](const auto& entry) { return !troubled.contains(entry.first); });
}

}  // namespace tidegate::l7
