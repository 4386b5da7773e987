// SPDX-License-Identifier: Apache-2.0
// Owners of objects that ldns allocates.
#pragma once

#include <ldns/ldns.h>

#include <memory>

namespace tidegate::dns {

struct RrDeleter {
  void operator()(ldns_rr* rr) const { ldns_rr_free(rr); }
};
using RrPtr = std::unique_ptr<ldns_rr, RrDeleter>;

struct RdfDeleter {
  void operator()(ldns_rdf* rdf) const { ldns_rdf_deep_free(rdf); }
};
using RdfPtr = std::unique_ptr<ldns_rdf, RdfDeleter>;

}  // namespace tidegate::dns
