// SPDX-License-Identifier: Apache-2.0
// Where our own listeners serve a name by HTTPS, according to the configuration, so that its HTTPS record stays
// correct.
#pragma once

#include <string_view>
#include <vector>

#include "conf/model.h"
#include "dns/steer/steer.h"

namespace tidegate::dns {

// Port 443 if the name is served there, otherwise each port where it is served. `name` is a steer's, with the final
// dot.
std::vector<HttpsService> https_services(const Model& model, std::string_view name);

}  // namespace tidegate::dns
