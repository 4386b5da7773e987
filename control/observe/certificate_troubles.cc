// SPDX-License-Identifier: Apache-2.0
#include "control/observe/certificate_troubles.h"

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "control/limits.h"
#include "control/ocsp/staple_record.h"

namespace tidegate {

using nlohmann::json;

namespace {

struct Trouble {
  std::string what;  // empty: there is no trouble
  int64_t next_try_s = 0;
};

Trouble trouble_of_order(const Certificate& certificate, const LiveState& live_state, int64_t now_s) {
  if (!certificate.is_ordered()) return {};
  const auto found = live_state.certificates.find(certificate.name);
  if (found == live_state.certificates.end()) return {"it is not issued yet", 0};
  const IssuedCertificate& record = found->second;
  const std::string because = record.error.empty() ? std::string() : ": " + record.error;
  if (!record.is_issued()) return {"it is not issued yet" + because, record.next_try_s};
  if (record.not_after_s <= now_s) return {"it has ended" + because, record.next_try_s};
  if (record.failures > 0) return {"the last order failed" + because, record.next_try_s};
  return {};
}

Trouble trouble_of_staple(const Certificate& certificate, const LiveState& live_state, int64_t now_s) {
  if (!certificate.ocsp.enabled) return {};
  const std::string chain_hash = ocsp::shown_chain_hash(certificate, live_state);
  if (chain_hash.empty()) return {};
  const auto found = live_state.staples.find(certificate.name);
  const StapleRecord* const record = found == live_state.staples.end() ? nullptr : &found->second;
  const std::string_view state = ocsp::state_word(record, chain_hash, now_s);
  if (state == "revoked") return {record->error, record->next_try_s};
  if (state == "ended") return {"its OCSP answer has ended: " + record->error, record->next_try_s};
  if (state == "failed") return {"it has no OCSP answer: " + record->error, record->next_try_s};
  if (state == "good" && record->failures > 0) {
    return {"its OCSP answer cannot be renewed: " + record->error, record->next_try_s};
  }
  return {};
}

}  // namespace

json certificate_troubles(const Model& model, const LiveState& live_state, int64_t now_s) {
  size_t ordered = 0, stapled = 0, in_trouble = 0;
  json troubles = json::array();
  for (const Certificate& certificate : model.certificates) {
    ordered += certificate.is_ordered() ? 1 : 0;
    stapled += certificate.ocsp.enabled ? 1 : 0;
    for (const Trouble& trouble :
         {trouble_of_order(certificate, live_state, now_s), trouble_of_staple(certificate, live_state, now_s)}) {
      if (trouble.what.empty()) continue;
      ++in_trouble;
      if (troubles.size() == kMaxCertificateTroubles) continue;
      troubles.push_back(
          {{"certificate", certificate.name}, {"what", trouble.what}, {"next_try_s", trouble.next_try_s}});
    }
  }
  return {{"ordered", ordered}, {"stapled", stapled}, {"in_trouble", in_trouble}, {"troubles", std::move(troubles)}};
}

json describe_staple(const Certificate& certificate, const LiveState& live_state, int64_t now_s) {
  const std::string chain_hash = ocsp::shown_chain_hash(certificate, live_state);
  const auto found = live_state.staples.find(certificate.name);
  const bool known = found != live_state.staples.end() && found->second.certificate_hash == chain_hash;
  json told = {{"state", ocsp::state_word(known ? &found->second : nullptr, chain_hash, now_s)}};
  if (!known) return told;
  const StapleRecord& record = found->second;
  if (record.next_update_s != 0) {
    told["this_update_s"] = record.this_update_s;
    told["next_update_s"] = record.next_update_s;
  }
  told["next_try_s"] = record.next_try_s;
  told["failures"] = record.failures;
  if (!record.error.empty()) told["error"] = record.error;
  return told;
}

}  // namespace tidegate
