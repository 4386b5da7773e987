// SPDX-License-Identifier: Apache-2.0
// Finds redirects that lead a client in a circle.
#pragma once

#include <cstddef>

#include "conf/model.h"
#include "conf/model/route.h"

namespace tidegate {

// True if requests to this listener may take the route.
bool serves(const Route& route, size_t listener);

// Whether a client that followed the redirect of this route would come to the same listener and route again. Follows a
// sample request of the route: its parameters and its rest are "x". Returns false if this is not certain: another route
// takes the second request, or a condition of the route may not hold for the second request. Pure.
bool leads_back(const Model& model, size_t route, size_t listener);

}  // namespace tidegate
