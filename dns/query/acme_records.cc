// SPDX-License-Identifier: Apache-2.0
#include "dns/query/acme_records.h"

#include <optional>
#include <string_view>

#include "dns/wire/wire.h"

namespace tidegate::dns {

namespace {

constexpr std::string_view kDnsProof = "dns/";
constexpr size_t kMaxTextBytes = 255;  // maximum length of one string in a TXT record

}  // namespace

AcmeRecords acme_records(const LiveState& live_state) {
  AcmeRecords records;
  for (auto proof = live_state.proofs.lower_bound(std::string(kDnsProof)); proof != live_state.proofs.end(); ++proof) {
    const std::string_view key = proof->first;
    if (!key.starts_with(kDnsProof)) break;
    const size_t slash = key.rfind('/');
    const std::string_view value = key.substr(slash + 1);
    if (slash < kDnsProof.size() || value.empty() || value.size() > kMaxTextBytes) continue;
    const std::string_view name = key.substr(kDnsProof.size(), slash - kDnsProof.size());
    const std::optional<Name> owner = Name::from_text("_acme-challenge." + std::string(name));
    if (!owner) continue;
    const std::string wire(owner->wire().begin(), owner->wire().end());
    records[wire].push_back(static_cast<char>(value.size()) + std::string(value));
  }
  return records;
}

}  // namespace tidegate::dns
