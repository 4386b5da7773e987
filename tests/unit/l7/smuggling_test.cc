// SPDX-License-Identifier: Apache-2.0
// Requests that two readers could understand differently are refused, and no part of them reaches a backend.
#include <gtest/gtest.h>

#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::smuggling_test {

struct Attack {
  const char* name;
  std::string request;
  int status = 400;
};

std::string with(const std::string& fields, const std::string& body = "") {
  return "POST /x HTTP/1.1\r\nHost: a.test\r\n" + fields + "\r\n" + body;
}

const Attack kAttacks[] = {
    {"both_length_and_chunked", with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nGET /")},
    {"bad_content_length", with("Content-Length: 5\r\nContent-Length: 5\r\n", "hello")},
    {"bad_content_length", with("Content-Length: 5, 5\r\n", "hello")},
    {"bad_content_length", with("Content-Length: +5\r\n", "hello")},
    {"bad_content_length", with("Content-Length: 0x5\r\n", "hello")},
    {"unsupported_transfer_encoding", with("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), 501},
    {"bad_transfer_encoding", with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")},
    {"bad_transfer_encoding", with("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n")},
    {"bad_transfer_encoding", "POST /x HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
    {"bad_line_ending", "GET /x HTTP/1.1\nHost: a.test\n\n"},
    {"bad_line_ending", "GET /x HTTP/1.1\r\nHost: a.test\r\nA: b\rC: d\r\n\r\n"},
    {"obs_fold", "GET /x HTTP/1.1\r\nHost: a.test\r\nA: b\r\n c\r\n\r\n"},
    {"space_before_colon", "GET /x HTTP/1.1\r\nHost : a.test\r\n\r\n"},
    {"bad_field_value", std::string("GET /x HTTP/1.1\r\nHost: a.test\r\nA: b").append(1, '\0').append("c\r\n\r\n")},
    {"missing_host", "GET /x HTTP/1.1\r\nA: b\r\n\r\n"},
    {"duplicate_host", "GET /x HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n"},
    {"bad_host", "GET http://b.test/x HTTP/1.1\r\nHost: a test\r\n\r\n"},
    {"unsupported_version", "GET /x HTTP/2.0\r\nHost: a.test\r\n\r\n", 505},
    {"head_too_large", "GET /x HTTP/1.1\r\nHost: a.test\r\nA: " + std::string(40'000, 'a') + "\r\n\r\n", 431},
};

class Smuggling : public ::testing::Test {
 protected:
  Smuggling() {
    edge_.add_route("/*", edge_.add_pool("p", {origin_.endpoint()}));
    edge_.start();
  }
  Origin origin_{Origin::says("reached")};
  Edge edge_;
};

TEST_F(Smuggling, EveryAmbiguityIsRefusedCountedAndCutOff) {
  for (const Attack& attack : kAttacks) {
    const std::string series =
        std::string("tidegate_l7_requests_refused_total{protocol=\"h1\",reason=\"") + attack.name + "\"}";
    const uint64_t before = edge_.metric(series);
    Wire wire = Wire::connect(edge_.endpoint());
    // The request hidden behind the attack must not be answered either.
    wire.send(attack.request + get("/hidden"));
    const Answer answer = read_answer(wire);
    EXPECT_EQ(answer.status, attack.status) << attack.name << "\n" << attack.request.substr(0, 200);
    EXPECT_EQ(answer.field("connection"), "close") << attack.name;
    EXPECT_EQ(wire.read_to_end(), "") << attack.name;
    EXPECT_EQ(edge_.metric(series), before + 1) << attack.request.substr(0, 200);
  }
  EXPECT_EQ(origin_.requests(), 0u);
}

TEST_F(Smuggling, ABodyWithBrokenChunksEndsTheExchange) {
  for (const char* body : {"5\r\nhelloX", "xyz\r\n",
                           "5;"
                           "\r\nhello\n0\r\n\r\n",
                           "ffffffffffffffffff\r\n"}) {
    Wire wire = Wire::connect(edge_.endpoint());
    wire.send(with("Transfer-Encoding: chunked\r\n", body));
    const Answer answer = read_answer(wire);
    EXPECT_TRUE(answer.status == 400 || answer.status == 0) << answer.status << " " << body;
    wire.read_to_end();
  }
}

TEST_F(Smuggling, ConnectIsRefused) {
  const Answer answer = ask(edge_.endpoint(), "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n");
  EXPECT_TRUE(answer.status == 405 || answer.status == 400) << answer.status;
  EXPECT_EQ(origin_.requests(), 0u);
}

TEST_F(Smuggling, AnAnswerThatIsAmbiguousIsNotPassedOn) {
  Origin bad([](const std::string&, Wire& wire) {
    wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    return false;
  });
  edge_.add_route("/bad", edge_.add_pool("bad", {bad.endpoint()}));
  ASSERT_TRUE(edge_.publish());
  // The worker adopts a new version a little later, so ask until it is in force.
  Answer answer;
  for (int i = 0; i < 1000 && bad.requests() == 0; ++i) answer = ask(edge_.endpoint(), get("/bad"));
  EXPECT_EQ(answer.status, 502);
}

}  // namespace tidegate::l7::test::smuggling_test
