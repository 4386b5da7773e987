// SPDX-License-Identifier: Apache-2.0
// Certificates that tests make for themselves.
#pragma once

#include <string>

#include "conf/model/certificate.h"

namespace tidegate::l7::test {

// Self-signed, with a new P-256 key, for a DNS name (which is also its common name), valid for an hour.
Certificate certificate_for(const std::string& name);

}  // namespace tidegate::l7::test
