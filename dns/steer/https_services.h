// SPDX-License-Identifier: Apache-2.0
// Where our own listeners serve a name by HTTPS, read from the configuration, so that an HTTPS record of it stays true.
#pragma once

#include <string_view>
#include <vector>

#include "conf/model.h"
#include "dns/steer/steer.h"

namespace tidegate::dns {

// Port 443 if it is served there, otherwise each port at which it is. `name` is a steer's, with the final dot.
std::vector<HttpsService> https_services(const Model& model, std::string_view name);

}  // namespace tidegate::dns
