// SPDX-License-Identifier: Apache-2.0
// Views: what a running forwarder holds, as JSON for the admin socket: /services, /neighbours and /flows. Each answer
// is one page of `limit` entries (of flows, up to three more); `next` says where the next page begins, or is null. A
// worker's data is read between two bursts, in slices of microseconds. Control thread.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "core/http_server.h"
#include "l4/dataplane.h"

namespace tidegate::l4 {

// The answer to a request for a view, also to an invalid request. Nothing if the path is not one of a view.
std::optional<HttpResponse> answer_view(const HttpRequest& request, const Dataplane& dataplane,
                                        const BackendIds& backends);

}  // namespace tidegate::l4
