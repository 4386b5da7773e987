// SPDX-License-Identifier: Apache-2.0
#include "l7/plan/certificate_names.h"

#include <utility>

namespace tidegate::l7 {
namespace {

const std::string PeerCertificate::*name_member(std::string_view name_from) {
  constexpr std::pair<std::string_view, std::string PeerCertificate::*> kMembers[] = {
      {"dns", &PeerCertificate::dns},
      {"email", &PeerCertificate::email},
      {"common_name", &PeerCertificate::common_name},
      {"subject", &PeerCertificate::subject},
      {"fingerprint", &PeerCertificate::fingerprint},
  };
  for (const auto& [word, member] : kMembers) {
    if (word == name_from) return member;
  }
  return &PeerCertificate::spiffe;
}

}  // namespace

CertificateNames::CertificateNames(const CertificateClients& rules)
    : name_from_(name_member(rules.name_from)), everybody_(rules.clients.empty()) {
  for (const CertificateClient& client : rules.clients) {
    const bool below = client.name.ends_with("/*");
    auto& clients = below ? below_ : exact_;
    const std::string name = below ? client.name.substr(0, client.name.size() - 1) : client.name;
    Known& known = clients.emplace(name, Known{client.name, {}, client.roles, {}}).first->second;
    known.role_views.assign(known.roles.begin(), known.roles.end());
  }
}

// Finds the client of the certificate's name: by the exact name, or else by the longest listed prefix of the name that
// ends with a slash. The prefixes cost one lookup for each slash.
CertificateNames::Found CertificateNames::find(const PeerCertificate& certificate) const {
  const std::string_view name = certificate.*name_from_;
  if (name.empty()) return {Outcome::nameless};
  if (everybody_) return {Outcome::known, name};
  if (const auto found = exact_.find(name); found != exact_.end()) return {Outcome::known, name, &found->second};
  if (below_.empty()) return {Outcome::unknown, name};
  for (size_t slash = name.rfind('/'); slash != std::string_view::npos && slash > 0;
       slash = name.rfind('/', slash - 1)) {
    if (slash + 1 == name.size()) continue;  // "/*" covers the names below, but not the name itself
    const auto found = below_.find(name.substr(0, slash + 1));
    if (found != below_.end()) return {Outcome::known, name, &found->second};
  }
  return {Outcome::unknown, name};
}

}  // namespace tidegate::l7
