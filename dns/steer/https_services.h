// SPDX-License-Identifier: Apache-2.0
// The ports at which our own listeners serve a name by HTTPS, by the configuration. So the HTTPS record of the name
// stays correct.
#pragma once

#include <string_view>
#include <vector>

#include "conf/model.h"
#include "dns/steer/steer.h"

namespace tidegate::dns {

// Port 443 if the name is served there, otherwise each port where it is served. `name`: the name of a steer, with the
// final dot.
std::vector<HttpsService> https_services(const Model& model, std::string_view name);

}  // namespace tidegate::dns
