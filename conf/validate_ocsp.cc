// SPDX-License-Identifier: Apache-2.0
// Cross checks of OCSP.
#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "conf/checks.h"
#include "conf/limits.h"
#include "conf/model.h"
#include "conf/model/certificate.h"
#include "conf/names.h"

namespace tidegate {
namespace {

// The URL becomes the target of a request, so it must not contain anything that ends a line.
bool is_responder_url(std::string_view url) {
  const size_t scheme = url.starts_with("http://") ? 7 : url.starts_with("https://") ? 8 : 0;
  return scheme != 0 && url.size() > scheme && url[scheme] != '/' &&
         std::all_of(url.begin(), url.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

}  // namespace

void check_ocsp(Checks& checks) {
  const Model& model = checks.model();
  size_t stapled = 0;
  for (size_t c = 0; c < model.certificates.size() && !checks.full(); ++c) {
    const CertificateOcsp& ocsp = model.certificates[c].ocsp;
    if (!checks.sound({"certificates", c})) continue;
    if (!ocsp.responder.empty() && !is_responder_url(ocsp.responder)) {
      checks.refuse({"certificates", c, "ocsp", "responder"},
                    {"invalid_url",
                     fmt::format("responder is {}", in_quotes(ocsp.responder)),
                     "a URL that begins with http:// or https://",
                     {}});
    }
    if (ocsp.enabled && ++stapled == kMaxStapledCertificates + 1) {
      checks.refuse({"certificates", c, "ocsp"}, {"too_many",
                                                  "this is one certificate with ocsp too many",
                                                  fmt::format("at most {}", kMaxStapledCertificates),
                                                  {}});
    }
  }
}

}  // namespace tidegate
