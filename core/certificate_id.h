// SPDX-License-Identifier: Apache-2.0
// The name under which an authority knows a certificate that it issued (RFC 9773 §4.1).
#pragma once

#include <string>

#include "core/result.h"

namespace tidegate {

// The identifier of the first certificate in PEM: its authority's key identifier and its serial number, in base64url.
// An Error if the certificate does not name its authority's key.
Result<std::string> renewal_identifier(const std::string& chain_pem);

}  // namespace tidegate
