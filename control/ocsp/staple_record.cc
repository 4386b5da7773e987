// SPDX-License-Identifier: Apache-2.0
#include "control/ocsp/staple_record.h"

#include <algorithm>

#include "control/limits.h"
#include "core/crypto.h"

namespace tidegate::ocsp {

uint64_t pause_after_answer_s(int64_t left_s, double random) {
  const uint64_t half_s = left_s <= 0 ? 0 : static_cast<uint64_t>(left_s) / 2;
  const uint64_t pause_s = std::clamp<uint64_t>(half_s, kOcspShortestPauseS, kOcspLongestPauseS);
  return pause_s - static_cast<uint64_t>(static_cast<double>(pause_s) * 0.1 * random);
}

uint64_t pause_after_failure_s(uint32_t failures, uint64_t retry_after_s, double random) {
  constexpr uint64_t kDayS = 86'400;
  const uint32_t doublings = std::min<uint32_t>(failures == 0 ? 0 : failures - 1, 20);
  const uint64_t pause_s = std::min(kOcspFirstFailurePauseS << doublings, kOcspLongestFailurePauseS);
  const auto jitter_s = static_cast<uint64_t>(static_cast<double>(pause_s) * 0.25 * random);
  return std::max(pause_s + jitter_s, std::min(retry_after_s, kDayS));
}

StapleRecord record_after(const StapleRecord* before, const std::string& certificate_hash, const StapleOutcome& outcome,
                          int64_t now_s, double random) {
  StapleRecord record;
  if (before != nullptr && before->certificate_hash == certificate_hash) record = *before;
  record.certificate_hash = certificate_hash;
  const OcspJudgement& judgement = outcome.judgement;
  const bool judged = outcome.kind == StapleOutcome::Kind::judged;
  const bool good = judged && judgement.verdict == OcspVerdict::good;
  if (good || (judged && judgement.verdict == OcspVerdict::revoked)) {
    record.status = good ? RevocationStatus::good : RevocationStatus::revoked;
    record.answer_hash = good ? sha256_hex(outcome.answer) : std::string();
    record.this_update_s = judgement.this_update_s;
    record.next_update_s = judgement.next_update_s;
    record.failures = 0;
    record.error = judgement.why;
    record.next_try_s = now_s + static_cast<int64_t>(pause_after_answer_s(judgement.next_update_s - now_s, random));
    return record;
  }
  if (record.status == RevocationStatus::good && record.next_update_s <= now_s) {
    record.status = RevocationStatus::not_known;
    record.answer_hash.clear();
  }
  ++record.failures;
  record.error = (judged ? judgement.why : outcome.why).substr(0, kMaxProblemBytes);
  record.next_try_s =
      now_s + static_cast<int64_t>(pause_after_failure_s(record.failures, outcome.retry_after_s, random));
  return record;
}

const char* state_word(const StapleRecord* record, const std::string& certificate_hash, int64_t now_s) {
  if (record == nullptr || record->certificate_hash != certificate_hash) return "waiting";
  if (record->status == RevocationStatus::revoked) return "revoked";
  if (record->next_update_s == 0) return "failed";
  return record->status == RevocationStatus::good && record->next_update_s > now_s ? "good" : "ended";
}

std::string shown_chain_hash(const Certificate& certificate, const LiveState& live_state) {
  if (!certificate.is_ordered()) return certificate.certificate.hash;
  const auto issued = live_state.certificates.find(certificate.name);
  return issued == live_state.certificates.end() ? std::string() : issued->second.certificate_hash;
}

}  // namespace tidegate::ocsp
