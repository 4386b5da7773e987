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
#include <string_view>
#include <vector>

#include "conf/fault.h"
#include "conf/live_state.h"
#include "conf/model.h"
#include "conf/snapshot.h"

namespace tidegate {

// The pools whose names control looks up, by index: those with a probe, of a service, or of a steer. Ascending.
std::vector<uint32_t> pools_looked_up(const Model& model);

// The name of a server that was found: "<backend>/<address>:<port>".
std::string found_name(const Backend& backend, const Endpoint& endpoint);

// The model with the servers that were found in the place of their backends, in the order of their names. They have all
// other keys of the backend, and their weight is a multiple of its weight (SRV). What SRV gives a later priority is a
// backup, and a server that the name no longer leads to has weight 0. A backend of whose name nothing was found stays
// as it is. Pools of services and steers get kFoundServers together, and none at the address of a VIP, which would be a
// loop. The same object if nothing is replaced.
std::shared_ptr<const Model> with_found_backends(std::shared_ptr<const Model> model, const NameBook& names);

// What the plane l4 or dns cannot do from a file, because control looks names up: forward to, or answer with, the
// servers of a pool with names.
std::vector<Fault> faults_without_control(const Model& model, std::string_view plane);

// Of a pool of the snapshot's model: SRV gives the server a later priority than one that may be used. Forwarder and DNS
// give it no new work then (RFC 2782). The proxy knows it as a backup.
inline constexpr const char* kStandbyWhy = "its SRV priority comes after that of a server which may be used";
bool is_on_standby(const Snapshot& snapshot, uint32_t pool, uint32_t backend);

}  // namespace tidegate
