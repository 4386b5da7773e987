// SPDX-License-Identifier: Apache-2.0
// The probe of type grpc: one call of grpc.health.v1.Health/Check over HTTP/2, with or without TLS.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "control/health/probe.h"

namespace tidegate {

// A HealthCheckRequest for a service, as a gRPC message (flag, length, protobuf). Pure.
std::string grpc_health_request(std::string_view service);
// The fault in a HealthCheckResponse (a gRPC message). An empty text means SERVING. Pure.
std::string grpc_health_fault(std::string_view message);

std::unique_ptr<ProbeAttempt> start_grpc_probe(EventLoop& loop, const ProbeTarget& target, ProbeDone done);

}  // namespace tidegate
