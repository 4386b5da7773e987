// SPDX-License-Identifier: Apache-2.0
// A proxy before one HTTP/2 backend.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "conf/model.h"
#include "conf/model/pool.h"
#include "l7/exchange/failure.h"
#include "tests/unit/l7/http2_client.h"
#include "tests/unit/l7/http2_origin.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test {

using Request = Http2Origin::Request;
using Reply = Http2Origin::Answer;

inline Reply says(std::string body) {
  Reply reply;
  reply.body = std::move(body);
  return reply;
}

class Http2Backend : public ::testing::Test {
 protected:
  void start(
      const Endpoint& origin, const std::function<void(Pool&)>& set = [](Pool&) {}) {
    const uint32_t pool = edge_.add_pool("p", {origin});
    edge_.model.pools[pool].protocol = BackendProtocol::h2;
    set(edge_.model.pools[pool]);
    edge_.add_route("/*", pool);
    edge_.start();
  }
  // The worker has the version when a route that is new in it answers.
  void publish_and_wait() { publish_and_wait(edge_); }
  void publish_and_wait(Edge& edge) {
    const std::string path = "/version" + std::to_string(++versions_);
    edge.add_fixed(path, 204);
    ASSERT_TRUE(edge.publish());
    ASSERT_TRUE(edge_.run_until([&] { return ask(edge_.endpoint(), get(path)).status == 204; }));
  }
  uint64_t failures(Failure failure) const {
    return edge_.metric(std::string("tidegate_l7_failures_total{reason=\"") + info(failure).name + "\"}");
  }
  uint64_t charged() const { return edge_.metric("tidegate_l7_backend_failures_total{pool=\"p\",backend=\"b1\"}"); }
  uint64_t connections() const { return edge_.metric("tidegate_l7_backend_http2_connections_total"); }
  Edge edge_;
  int versions_ = 0;
};

}  // namespace tidegate::l7::test
