// SPDX-License-Identifier: Apache-2.0
#include "control/acme/renewal.h"

#include <algorithm>

#include "control/limits.h"
#include "core/crypto.h"

namespace tidegate::acme {

namespace {

// From 0 to 1, by the content of the certificate.
double share_of(const std::string& hash) {
  const Sha256 digest = sha256(hash + " renewal");
  return static_cast<double>(digest[0] << 8 | digest[1]) / 65'536.0;
}

}  // namespace

bool same_names(std::vector<std::string> names, std::vector<std::string> offered) {
  std::sort(names.begin(), names.end());
  std::sort(offered.begin(), offered.end());
  return names == offered;
}

int64_t due_at_s(const IssuedCertificate* record, const std::vector<std::string>& names,
                 const std::optional<RenewalInfo>& info) {
  if (record == nullptr) return 0;
  if (!record->is_issued() || !same_names(record->names, names)) return record->next_try_s;
  const int64_t life_s = std::max<int64_t>(0, record->not_after_s - record->not_before_s);
  int64_t start_s = record->not_before_s + life_s / 3 * 2, span_s = life_s / 30;
  if (info && info->end_s <= record->not_after_s) {
    start_s = info->start_s;
    span_s = info->end_s - info->start_s;
  }
  const auto jitter_s = static_cast<int64_t>(static_cast<double>(span_s) * share_of(record->certificate_hash));
  return std::max(start_s + jitter_s, record->next_try_s);
}

std::optional<RenewalInfo> window_in(const IssuedCertificate& record) {
  if (record.window_end_s == 0) return std::nullopt;
  return RenewalInfo{record.window_start_s, record.window_end_s};
}

uint64_t pause_after_failure_s(const Failure& failure, uint32_t failures, double random) {
  const bool unreachable = failure.kind == Failure::Kind::unreachable;
  const uint64_t first_s = unreachable ? kAcmeFirstSilencePauseS : kAcmeFirstPauseS;
  const uint64_t longest_s = unreachable ? kAcmeLongestSilencePauseS : kAcmeLongestPauseS;
  const uint32_t doublings = std::min<uint32_t>(failures == 0 ? 0 : failures - 1, 20);
  const uint64_t pause_s = std::min(first_s << doublings, longest_s);
  const auto jitter_s = static_cast<uint64_t>(static_cast<double>(pause_s) * 0.25 * random);
  return std::max(pause_s + jitter_s, std::min(failure.retry_after_s, kAcmeLongestPauseS * 7));
}

}  // namespace tidegate::acme
