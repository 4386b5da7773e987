// SPDX-License-Identifier: Apache-2.0
// gRPC over HTTP/2: functions by which the proxy reports failures as a gRPC server does. Pure.
//
// Source: "gRPC over HTTP2" (PROTOCOL-HTTP2.md) and "HTTP to gRPC status code mapping" of the gRPC project.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "l7/exchange/failure.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

// Whether the client reads the answer as gRPC: content-type application/grpc, also with a suffix (+proto), but not
// gRPC-Web.
bool is_grpc(const RequestHead& request);

// The time limit that a request gives its call (grpc-timeout). Nothing if there is none, or no valid one.
std::optional<uint64_t> grpc_timeout_ns(const RequestHead& request);
// Writes such a time as text, rounded down, of at most kGrpcTimeoutBytes bytes. Returns its length.
constexpr size_t kGrpcTimeoutBytes = 9;
size_t write_grpc_timeout(uint64_t timeout_ns, char* out);

// The value of grpc-status for one of our failures.
std::string_view grpc_status_of(Failure failure);

}  // namespace tidegate::l7
