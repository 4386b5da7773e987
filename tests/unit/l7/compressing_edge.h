// SPDX-License-Identifier: Apache-2.0
// An edge that compresses the page of one origin.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>

#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/policy.h"
#include "conf/model/route.h"
#include "conf/policy/compress.h"
#include "tests/unit/l7/decoder.h"
#include "tests/unit/l7/http2_client.h"
#include "tests/unit/l7/state_dir.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test {

struct Page {
  std::string status = "200 OK";
  std::string type = "text/html; charset=utf-8";
  std::string fields;
  std::string body = words(20'000, 11);
};

class CompressingEdge : public ::testing::Test {
 protected:
  // The page is the one set at that moment.
  void start(const std::function<void(CompressPolicy&)>& set = {}, bool cached = false) {
    auto part = std::make_shared<CompressPolicy>();
    if (set) set(*part);
    edge_.model.policies.push_back({"small", false, {{"compress", part}}});
    if (cached) {
      edge_.state_dir = state_.path;
      edge_.model.nodes[0].cache.enabled = true;
    }
    Route& route = edge_.add_route("/*", edge_.add_pool("p", {origin_.endpoint()}));
    route.policies = {static_cast<uint32_t>(edge_.model.policies.size() - 1)};
    route.cache.enabled = cached;
    edge_.start();
  }
  Answer get_page(const std::string& fields) { return ask(edge_.endpoint(), get("/", "a.test", fields)); }
  static StreamResult get_over_http2(Http2Client& client, Coding coding) {
    Http2Fields fields = Http2Client::request("/");
    fields.emplace_back("accept-encoding", name(coding));
    const int32_t id = client.submit(fields);
    EXPECT_TRUE(client.finish(id));
    return client.result(id);
  }
  uint64_t left(const std::string& reason) {
    return edge_.metric("tidegate_l7_compress_left_total{policy=\"small\",reason=\"" + reason + "\"}");
  }
  void expect_as_it_is(const Answer& answer, const std::string& why) {
    EXPECT_EQ(answer.field("content-encoding"), "") << why;
    EXPECT_TRUE(answer.body == page_.body) << why;
    EXPECT_EQ(answer.field("content-length"), std::to_string(page_.body.size())) << why;
  }

  const StateDir state_;
  Page page_;
  Edge edge_;
  Origin origin_{[this](const std::string& head, Wire& wire) {
    const bool no_body = head.starts_with("head ") || head.starts_with("HEAD ") || page_.status.starts_with("304");
    return wire.send("HTTP/1.1 " + page_.status + "\r\nContent-Type: " + page_.type + "\r\n" + page_.fields +
                     "Content-Length: " + std::to_string(page_.body.size()) + "\r\n\r\n" + (no_body ? "" : page_.body));
  }};
};

}  // namespace tidegate::l7::test
