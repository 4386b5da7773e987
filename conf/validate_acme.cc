// SPDX-License-Identifier: Apache-2.0
// Cross checks of ordered certificates.
#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "conf/checks.h"
#include "conf/limits.h"
#include "conf/model.h"
#include "conf/model/certificate.h"
#include "conf/model/zone.h"
#include "conf/names.h"
#include "core/crypto.h"
#include "core/tls.h"

namespace tidegate {
namespace {

constexpr std::string_view kHttps = "https://", kMailto = "mailto:";

void check_authority(Checks& checks) {
  const Acme& acme = checks.model().acme;
  if (!checks.written({"acme"}) || !checks.sound({"acme"})) return;
  if (!acme.directory.starts_with(kHttps) || acme.directory.size() == kHttps.size()) {
    checks.refuse({"acme", "directory"}, {"invalid_url",
                                          fmt::format("directory is {}", in_quotes(acme.directory)),
                                          "a URL that begins with https://",
                                          {}});
  }
  for (size_t i = 0; i < acme.contact.size(); ++i) {
    if (acme.contact[i].starts_with(kMailto) && acme.contact[i].size() > kMailto.size()) continue;
    checks.refuse(
        {"acme", "contact", i},
        {"invalid_url", fmt::format("contact is {}", in_quotes(acme.contact[i])), "mailto:, then an address", {}});
  }
  if (acme.eab_key_id.empty() != acme.eab_key.empty()) {
    const char* missing = acme.eab_key.empty() ? "eab_key" : "eab_key_id";
    checks.refuse({"acme"}, {"missing_key", fmt::format("an account at the authority needs {} too", missing), {}, {}});
  } else if (!acme.eab_key.empty() && !base64url_decode(acme.eab_key)) {
    checks.refuse({"acme", "eab_key"}, {"invalid_value", "eab_key is not base64url", "base64url without padding", {}});
  }
  if (acme.ca.bytes == nullptr) return;
  const auto context = acme.ca.bytes->empty() ? Result<std::shared_ptr<TlsContext>>(fail("it is empty"))
                                              : TlsContext::client({{}, true, *acme.ca.bytes});
  if (context) return;
  checks.refuse({"acme", "ca_file"},
                {"unusable_certificate",
                 fmt::format("ca_file {} cannot be used: {}", in_quotes(acme.ca.name), context.error().message),
                 "certificates in PEM",
                 {}});
}

// `name` without a final dot.
bool in_a_zone(const Model& model, const std::string& name) {
  const std::string absolute = name + ".";
  return std::any_of(model.zones.begin(), model.zones.end(), [&](const Zone& zone) {
    return zone.name == "." || absolute == zone.name || absolute.ends_with("." + zone.name);
  });
}

void check_order(Checks& checks, size_t index) {
  const CertificateOrder& order = checks.model().certificates[index].order;
  if (order.names.size() > kMaxOrderedNames) {
    checks.refuse({"certificates", index, "acme", "names"},
                  {"too_many", fmt::format("the certificate has {} names", order.names.size()),
                   fmt::format("at most {}", kMaxOrderedNames), "order several certificates"});
  }
  for (size_t n = 0; n < order.names.size() && !checks.full(); ++n) {
    const std::string& name = order.names[n];
    const std::string bare = name.starts_with("*.") ? name.substr(2) : name;
    if (order.challenge == AcmeChallenge::dns01 && !in_a_zone(checks.model(), bare)) {
      checks.refuse(
          {"certificates", index, "acme", "names", n},
          {"outside_zones",
           fmt::format("{} is in no zone of this document, so its name servers cannot show it", in_quotes(name)),
           "a name in one of the zones",
           {}});
    } else if (name.starts_with("*.") && order.challenge != AcmeChallenge::dns01) {
      checks.refuse({"certificates", index, "acme", "names", n},
                    {"wildcard_needs_dns", fmt::format("{} cannot be shown by a proxy", in_quotes(name)),
                     "a name without a wildcard", "challenge: dns-01 shows it by the name servers"});
    } else if (name.find('.') == std::string::npos) {
      checks.refuse({"certificates", index, "acme", "names", n},
                    {"invalid_name", fmt::format("{} is no public name", in_quotes(name)), "a name with a dot", {}});
    }
  }
}

// Checks that the certificate comes from files or from an order, and not from both.
void check_source(Checks& checks, size_t index) {
  const Certificate& certificate = checks.model().certificates[index];
  const bool ordered = checks.written({"certificates", index, "acme"});
  for (const char* key : {"certificate_file", "key_file"}) {
    if (checks.written({"certificates", index, key}) != ordered) continue;
    if (ordered) {
      checks.refuse({"certificates", index, key},
                    {"contradiction",
                     fmt::format("certificate '{}' has both {} and acme", certificate.name, key),
                     "either files or acme",
                     {}});
    } else {
      checks.refuse({"certificates", index}, {"missing_key", fmt::format("a certificate has no {}", key),
                                              fmt::format("'{}', a file", key), "or acme, to have it ordered"});
    }
  }
}

}  // namespace

void check_acme(Checks& checks) {
  check_authority(checks);
  const Model& model = checks.model();
  size_t ordered = 0;
  for (size_t c = 0; c < model.certificates.size() && !checks.full(); ++c) {
    if (!checks.sound({"certificates", c})) continue;
    check_source(checks, c);
    if (!model.certificates[c].is_ordered()) continue;
    check_order(checks, c);
    if (++ordered == kMaxOrderedCertificates + 1) {
      checks.refuse({"certificates", c, "acme"}, {"too_many",
                                                  "this is one ordered certificate too many",
                                                  fmt::format("at most {}", kMaxOrderedCertificates),
                                                  {}});
    }
    if (!checks.written({"acme"})) {
      checks.refuse({"certificates", c, "acme"}, {"missing_section",
                                                  "no authority is named from which it could be ordered",
                                                  "a section acme with its directory",
                                                  {}});
    } else if (!model.acme.terms_agreed && checks.sound({"acme"})) {
      checks.refuse({"acme"}, {"terms_not_agreed",
                               "an authority issues certificates only to those who agree to its terms",
                               "terms_agreed: true",
                               {}});
    }
  }
}

}  // namespace tidegate
