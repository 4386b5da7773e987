// SPDX-License-Identifier: Apache-2.0
// Backends that are found by a name. Control looks up the names of some pools, keeps what it finds in the live state,
// and every plane puts those servers in the place of the backend with the name. So forwarder, proxy, DNS and probes see
// the same servers, each with a verdict of its own, and a change of addresses is no version.
//
// The proxy looks up all other names by itself (conf/backend_names.h). It does the same for a name of control until
// control has found something.
// A backend whose name control looks up is down until a server was found. An override on it counts for each of its
// servers. Without control (a plane that runs from a file) nobody but the proxy looks names up.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "conf/live_state.h"
#include "conf/model.h"

namespace tidegate {

// The pools whose names control looks up, by index: those with a probe, of a service, or of a steer. Ascending.
std::vector<uint32_t> pools_looked_up(const Model& model);

// The name of a server that was found: "<backend>/<address>:<port>".
std::string found_name(const Backend& backend, const Endpoint& endpoint);

// The model with the servers that were found in the place of their backends, in the order of their names. They have all
// other keys of the backend, and their weight is a multiple of its weight (SRV). What SRV gives a later priority is a
// backup. A backend of whose name nothing was found stays as it is. The same object if nothing is replaced.
std::shared_ptr<const Model> with_found_backends(std::shared_ptr<const Model> model, const NameBook& names);

}  // namespace tidegate
