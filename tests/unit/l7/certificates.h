// SPDX-License-Identifier: Apache-2.0
// Certificates that tests make for themselves.
#pragma once

#include <string>

#include "conf/model.h"

namespace tidegate::l7::test {

// Self-signed, with a fresh P-256 key, for a DNS name (its subject's common name, too), good for an hour.
Certificate certificate_for(const std::string& name);

}  // namespace tidegate::l7::test
