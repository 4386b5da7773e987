// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "core/http1.h"

namespace tidegate::http1::http1_response_test {

struct Parsed {
  ParseResult result;
  Head head;
};

Parsed parse(std::string_view bytes, bool to_head = false) {
  Parsed parsed;
  size_t scanned = 0;
  parsed.result = parse_response(bytes, {}, scanned, to_head, parsed.head);
  return parsed;
}

Parsed accepted(std::string_view bytes, bool to_head = false) {
  Parsed parsed = parse(bytes, to_head);
  EXPECT_EQ(parsed.result.status, Status::complete) << fault_info(parsed.result.fault).name << "\n" << bytes;
  return parsed;
}

void expect_refused(std::string_view bytes, Fault fault) {
  const Parsed parsed = parse(bytes);
  EXPECT_EQ(parsed.result.status, Status::error) << bytes;
  EXPECT_STREQ(fault_info(parsed.result.fault).name, fault_info(fault).name) << bytes;
}

TEST(Http1Response, ReadsLineAndFields) {
  const std::string bytes = "HTTP/1.1 404 Not \xc3\xa0 Found\r\nContent-Length: 3\r\n\r\nabc";
  const auto [result, head] = accepted(bytes);
  EXPECT_EQ(result.consumed, bytes.size() - 3);
  EXPECT_EQ(head.status, 404);
  EXPECT_EQ(head.reason, "Not \xc3\xa0 Found");
  EXPECT_EQ(head.framing, Framing::length);
  EXPECT_EQ(head.content_length, 3u);
  EXPECT_TRUE(head.keep_alive);
  EXPECT_EQ(accepted("HTTP/1.1 200 \r\n\r\n").head.reason, "");
}

TEST(Http1Response, RefusesAMalformedStatusLine) {  // RFC 9112 §4
  for (const char* line :
       {"HTTP/1.1 200OK", "HTTP/1.1 ", "HTTP/1.1  200 OK", "HTTP/1.1 20 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 099 Low",
        "HTTP/1.1 2x0 OK", "HTTP/1.1\t200 OK", "http/1.1 200 OK", "ICY 200 OK", "HTTP/1.1 200 a\x01"}) {
    expect_refused(std::string(line) + "\r\n\r\n", Fault::bad_status_line);
  }
  expect_refused("HTTP/2.0 200 OK\r\n\r\n", Fault::unsupported_version);
  expect_refused("HTTP/1.1 200 OK\n\n", Fault::bad_line_ending);
  expect_refused("HTTP/1.1 200\n\n", Fault::bad_line_ending);
  expect_refused("\r\nHTTP/1.1 200 OK\r\n\r\n", Fault::bad_status_line);
}

TEST(Http1Response, TakesAStatusLineWithoutAPhraseAndStatusesInUseBeyondTheRegisteredOnes) {
  const auto [result, head] = accepted("HTTP/1.1 200\r\nContent-Length: 3\r\n\r\nabc");
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.reason, "");
  EXPECT_EQ(head.content_length, 3u);
  EXPECT_EQ(parse("HTTP/1.1 200").result.status, Status::incomplete);
  for (const int status : {600, 700, 999}) {
    const std::string line = "HTTP/1.1 " + std::to_string(status);
    EXPECT_EQ(accepted(line + " Odd\r\n\r\n").head.status, status);
    EXPECT_EQ(accepted(line + "\r\n\r\n").head.framing, Framing::until_close);
  }
}

TEST(Http1Response, HasNoBodyWhereNoneMayFollow) {  // RFC 9112 §6.3, 1
  for (const char* status : {"100", "103", "204", "304"}) {
    EXPECT_EQ(accepted("HTTP/1.1 " + std::string(status) + " x\r\nContent-Length: 9\r\n\r\n").head.framing,
              Framing::none);
  }
  EXPECT_EQ(accepted("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", true).head.framing, Framing::none);
  EXPECT_EQ(accepted("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true).head.framing, Framing::none);
  EXPECT_TRUE(accepted("HTTP/1.1 200 OK\r\n\r\n", true).head.keep_alive);
}

TEST(Http1Response, RunsUntilCloseWithoutFraming) {  // §6.3, 8
  const Parsed parsed = accepted("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_EQ(parsed.head.framing, Framing::until_close);
  EXPECT_FALSE(parsed.head.keep_alive);
}

TEST(Http1Response, RefusesAmbiguousFraming) {
  const auto with = [](std::string_view lines) { return "HTTP/1.1 200 OK\r\n" + std::string(lines) + "\r\n"; };
  expect_refused(with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), Fault::both_length_and_chunked);
  expect_refused(with("Content-Length: 5\r\nContent-Length: 5\r\n"), Fault::bad_content_length);
  expect_refused(with("Transfer-Encoding: gzip\r\n"), Fault::bad_transfer_encoding);
  expect_refused("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::bad_transfer_encoding);
  EXPECT_EQ(accepted(with("Transfer-Encoding: chunked\r\n")).head.framing, Framing::chunked);
}

TEST(Http1Response, KeepsTheConnectionAsVersionAndTokensSay) {
  EXPECT_FALSE(accepted("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n").head.keep_alive);
  EXPECT_TRUE(accepted("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n").head.keep_alive);
  EXPECT_FALSE(accepted("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").head.keep_alive);
}

}  // namespace tidegate::http1::http1_response_test
