// SPDX-License-Identifier: Apache-2.0
// Backends that are found by a name. Control looks up the names of some pools and keeps what it finds in the live
// state. Every plane replaces the backend that has the name by those servers. So forwarder, proxy, DNS and probes see
// the same servers, each with its own verdict. A change of addresses does not make a new version.
//
// The proxy looks up all other names by itself (conf/backend_names.h). It does the same for a name that control looks
// up, until control has found something. A backend whose name control looks up is down until a server was found. An
// override on it counts for each of its servers. Without control (a plane that runs from a file) only the proxy looks
// up names.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "conf/fault.h"
#include "conf/live_state.h"
#include "conf/model.h"
#include "conf/model/pool.h"
#include "conf/snapshot.h"

namespace tidegate {

// The pools whose names control looks up, by index: those with a probe, of a service, or of a steer. Ascending.
std::vector<uint32_t> pools_looked_up(const Model& model);

// The name of a server that was found: "<backend>/<address>:<port>".
std::string found_name(const Backend& backend, const Endpoint& endpoint);

// The model in which found servers replace their backends, in the order of their names. They have all other keys of the
// backend, and their weight is a multiple of its weight (SRV). A server with a later SRV priority is a backup. A server
// that the name no longer leads to has weight 0. A backend stays as it is if nothing was found for its name. The pools
// of services and steers get at most kFoundServers together, and no server at the address of a VIP, which would be a
// loop. Returns the same object if nothing is replaced.
std::shared_ptr<const Model> with_found_backends(std::shared_ptr<const Model> model, const NameBook& names);

// Faults of a file for the plane l4 or dns that runs without control. Only control looks up names. So such a plane
// cannot use a pool whose backends have names.
std::vector<Fault> faults_without_control(const Model& model, std::string_view plane);

// Why a server of the snapshot's pool gets no new work from forwarder and DNS: SRV gives it a later priority than
// another usable server (RFC 2782). The proxy treats it as a backup.
inline constexpr const char* kStandbyWhy = "its SRV priority comes after that of a server which may be used";
bool is_on_standby(const Snapshot& snapshot, uint32_t pool, uint32_t backend);

}  // namespace tidegate
