// SPDX-License-Identifier: Apache-2.0
#include "l7/plan/certificates.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "core/clock.h"
#include "core/crypto.h"
#include "core/signing_key.h"
#include "core/tls.h"

namespace tidegate::l7 {
namespace {

constexpr std::string_view kWellKnown = "/.well-known/acme-challenge/", kHttpProof = "http/", kAlpnProof = "alpn/";
constexpr int64_t kDayS = 86'400, kSelfMadeS = 3'650 * kDayS;  // nobody trusts it, so a short lifetime protects nobody

Blob blob_of(std::string name, std::string bytes) {
  std::string hash = sha256_hex(bytes);
  return {std::move(name), std::move(hash), std::make_shared<const std::string>(std::move(bytes))};
}

}  // namespace

Result<ServedCertificate> make_certificate(const Certificate& certificate) {
  const auto now_s = static_cast<int64_t>(realtime_ns() / kNsPerS);
  const Result<SigningKey> key = SigningKey::make();
  if (!key) return key.error();
  Result<std::string> chain =
      key->certify_itself({certificate.order.names, now_s - kDayS, now_s + kSelfMadeS, std::nullopt});
  if (!chain) return chain.error();
  Result<std::string> key_pem = key->to_pem();
  if (!key_pem) return key_pem.error();
  return ServedCertificate{blob_of(certificate.name, *std::move(chain)), blob_of(certificate.name, *std::move(key_pem)),
                           true};
}

namespace {

// The earlier certificate of this name, if its names are still the same or it was issued.
const ServedCertificate* shown_before(const Certificate& certificate,
                                      const std::unordered_map<std::string_view, size_t>& places,
                                      const Model* before_model, const std::vector<ServedCertificate>* before) {
  const auto place = places.find(certificate.name);
  if (place == places.end()) return nullptr;
  const Certificate& old = before_model->certificates[place->second];
  const ServedCertificate& shown = (*before)[place->second];
  if (!old.is_ordered() || (shown.self_made && old.order.names != certificate.order.names)) return nullptr;
  return &shown;
}

// What was shown (may be null). If nothing was, the proxy has to make one.
ServedCertificate as_before(const ServedCertificate* shown) {
  if (shown == nullptr) return {{}, {}, true};
  ServedCertificate same = *shown;
  same.trouble.clear();
  return same;
}

ServedCertificate choose(const Certificate& certificate, const LiveState& live_state, const ServedCertificate* shown) {
  const auto record = live_state.certificates.find(certificate.name);
  if (record != live_state.certificates.end() && record->second.certificate && record->second.key) {
    const IssuedCertificate& issued = record->second;
    if (shown != nullptr && shown->certificate.hash == issued.certificate_hash) return as_before(shown);
    const auto info = inspect_identity({*issued.certificate, *issued.key});
    if (info) {
      return {{certificate.name, issued.certificate_hash, issued.certificate},
              {certificate.name, issued.key_hash, issued.key},
              false};
    }
    ServedCertificate instead = as_before(shown);
    instead.trouble = fmt::format("what was issued cannot be used: {}", info.error().message);
    return instead;
  }
  return as_before(shown);
}

// The OCSP answer for the shown certificate. Control has checked it, and a handshake checks its end.
std::shared_ptr<const Staple> staple_for(const Certificate& certificate, const ServedCertificate& served,
                                         const LiveState& live_state, const ServedCertificate* before) {
  if (!certificate.ocsp.enabled) return nullptr;
  const auto record = live_state.staples.find(certificate.name);
  if (record == live_state.staples.end()) return nullptr;
  const StapleRecord& staple = record->second;
  if (!staple.answer || staple.certificate_hash != served.certificate.hash) return nullptr;
  if (before != nullptr && before->staple && before->staple->until_s == staple.next_update_s &&
      before->staple->answer == *staple.answer) {
    return before->staple;
  }
  return std::make_shared<const Staple>(Staple{*staple.answer, staple.next_update_s});
}

}  // namespace

std::vector<ServedCertificate> served_certificates(const Snapshot& snapshot, const Model* before_model,
                                                   const std::vector<ServedCertificate>* before) {
  const Model& model = *snapshot.model;
  std::unordered_map<std::string_view, size_t> places;
  if (before_model != nullptr && before != nullptr) {
    for (size_t i = 0; i < before_model->certificates.size(); ++i) {
      places.emplace(before_model->certificates[i].name, i);
    }
  }
  std::vector<ServedCertificate> served;
  served.reserve(model.certificates.size());
  for (const Certificate& certificate : model.certificates) {
    if (!certificate.is_ordered()) {
      served.push_back({certificate.certificate, certificate.key, false});
    } else {
      served.push_back(
          choose(certificate, *snapshot.live_state, shown_before(certificate, places, before_model, before)));
    }
    const auto place = places.find(certificate.name);
    served.back().staple = staple_for(certificate, served.back(), *snapshot.live_state,
                                      place == places.end() ? nullptr : &(*before)[place->second]);
  }
  return served;
}

size_t missing_staples(const Model& model, const std::vector<ServedCertificate>& served, int64_t now_s) {
  size_t missing = 0;
  for (size_t c = 0; c < served.size(); ++c) {
    const bool shown = served[c].staple && served[c].staple->until_s > now_s;
    missing += model.certificates[c].ocsp.enabled && !shown ? 1 : 0;
  }
  return missing;
}

AcmeAnswers acme_answers(const LiveState& live_state) {
  AcmeAnswers answers;
  for (const auto& [key, text] : live_state.proofs) {
    if (key.starts_with(kHttpProof)) answers.emplace(std::string_view(key).substr(kHttpProof.size()), text);
  }
  return answers;
}

std::vector<AcmeIdentity> acme_identities(const LiveState& live_state, const std::vector<AcmeIdentity>* before) {
  std::vector<AcmeIdentity> identities;
  for (auto proof = live_state.proofs.lower_bound(std::string(kAlpnProof)); proof != live_state.proofs.end(); ++proof) {
    const auto& [key, digest] = *proof;
    if (!key.starts_with(kAlpnProof)) break;
    std::string known_by = key + " " + digest;
    const AcmeIdentity* known = nullptr;
    for (size_t i = 0; before != nullptr && i < before->size() && known == nullptr; ++i) {
      if ((*before)[i].proof == known_by) known = &(*before)[i];
    }
    if (known != nullptr) {
      identities.push_back(*known);
      continue;
    }
    const std::optional<std::string> raw = hex_decode(digest);
    AcmeIdentity wanted{std::move(known_by), key.substr(kAlpnProof.size()), {}, {}};
    if (!raw || raw->size() != wanted.digest.size()) continue;
    std::copy(raw->begin(), raw->end(), wanted.digest.begin());
    identities.push_back(std::move(wanted));
  }
  return identities;
}

std::optional<std::string_view> acme_token(std::string_view path) {
  if (!path.starts_with(kWellKnown)) return std::nullopt;
  return path.substr(kWellKnown.size());
}

}  // namespace tidegate::l7
