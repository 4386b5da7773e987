// SPDX-License-Identifier: Apache-2.0
#include "l7/failure.h"

#include <iterator>

namespace tidegate::l7 {
namespace {

constexpr FailureInfo kTable[] = {
    {"none", 200, ""},
    {"bad_request", 400, "The request is not HTTP as this server accepts it."},
    {"no_route", 404, "No route is configured for this host and path."},
    {"method_not_allowed", 405, "The resource does not take this method."},
    {"body_too_large", 413, "The request's body is larger than this server takes."},
    {"request_timeout", 408, "The request's body stopped arriving."},
    {"request_late", 408, "The request's body did not arrive in the time that the request is given."},
    {"client_too_slow", 408, "The request's body arrived too slowly."},
    {"pool_down", 503, "No backend is in service for this resource."},
    {"pool_busy", 503, "Every backend for this resource is at its limit of connections."},
    {"connect_failed", 502, "No connection to a backend could be made."},
    {"connect_timeout", 504, "No backend accepted a connection in time."},
    {"tls_failed", 502, "No secure connection to a backend could be made."},
    {"backend_closed", 502, "The backend closed the connection without an answer."},
    {"bad_response", 502, "The backend's answer is not HTTP as this server accepts it."},
    {"too_many_interim", 502, "The backend sent interim answers and no final one."},
    {"first_byte_timeout", 504, "The backend did not begin its answer in time."},
    {"body_timeout", 504, "The backend's answer stopped arriving."},
    {"backend_truncated", 502, "The backend's answer ended early."},
    {"total_timeout", 504, "The request was not answered in the time it is given."},
    {"only_if_cached", 504, "Nothing usable is stored, and the request asks for nothing else."},
    {"shared_fetch_failed", 502, "The fetch that this request shared with others reached no backend."},
    {"client_gone", 499, "The client left before its answer was complete."},
    {"out_of_sockets", 503, "This server can open no more connections to backends."},
};
static_assert(std::size(kTable) == kFailures);

}  // namespace

const FailureInfo& info(Failure failure) { return kTable[static_cast<size_t>(failure)]; }

}  // namespace tidegate::l7
