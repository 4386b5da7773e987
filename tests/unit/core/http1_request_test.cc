// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "core/http1.h"

namespace tidegate::http1::http1_request_test {

struct Parsed {
  ParseResult result;
  Head head;
};

Parsed parse(std::string_view bytes, const Limits& limits = {}) {
  Parsed parsed;
  size_t scanned = 0;
  parsed.result = parse_request(bytes, limits, scanned, parsed.head);
  return parsed;
}

Parsed accepted(std::string_view bytes) {
  Parsed parsed = parse(bytes);
  EXPECT_EQ(parsed.result.status, Status::complete) << fault_info(parsed.result.fault).name << "\n" << bytes;
  return parsed;
}

void expect_refused(std::string_view bytes, Fault fault, const Limits& limits = {}) {
  const Parsed parsed = parse(bytes, limits);
  EXPECT_EQ(parsed.result.status, Status::error) << bytes;
  EXPECT_STREQ(fault_info(parsed.result.fault).name, fault_info(fault).name) << bytes;
}

// The head of a GET with these field lines after Host.
std::string with(std::string_view field_lines) {
  return "GET / HTTP/1.1\r\nHost: a\r\n" + std::string(field_lines) + "\r\n";
}
std::string for_target(std::string_view target, std::string_view host = "a", std::string_view method = "GET") {
  return std::string(method) + " " + std::string(target) + " HTTP/1.1\r\nHost: " + std::string(host) + "\r\n\r\n";
}

TEST(Http1Request, ReadsLineAndFields) {
  const std::string bytes =
      "POST /a/b?x=1&y=%20 HTTP/1.1\r\nHost: www.example.test:8080\r\nAccept:\t text/html \t\r\nEmpty:\r\n\r\nrest";
  const auto [result, head] = accepted(bytes);
  EXPECT_EQ(result.consumed, bytes.size() - 4);
  EXPECT_EQ(head.method, "POST");
  EXPECT_EQ(head.target, "/a/b?x=1&y=%20");
  EXPECT_EQ(head.path, "/a/b");
  EXPECT_EQ(head.query, "x=1&y=%20");
  EXPECT_EQ(head.authority, "www.example.test:8080");
  EXPECT_EQ(head.minor_version, 1);
  ASSERT_EQ(head.field_count, 3u);
  EXPECT_EQ(head.fields[1].name, "Accept");
  EXPECT_EQ(head.fields[1].value, "text/html");
  EXPECT_EQ(head.find("empty")->value, "");
  EXPECT_EQ(head.find("absent"), nullptr);
  EXPECT_EQ(head.framing, Framing::none);
  EXPECT_TRUE(head.keep_alive);
}

TEST(Http1Request, ViewsBorrowTheBuffer) {
  const std::string bytes = for_target("/x");
  const Parsed parsed = accepted(bytes);
  EXPECT_EQ(parsed.head.target.data(), bytes.data() + 4);
}

TEST(Http1Request, NeedsMoreUntilTheEmptyLine) {
  const std::string bytes = with("X: y\r\n");
  for (size_t n = 0; n < bytes.size(); ++n) {
    EXPECT_EQ(parse(std::string_view(bytes).substr(0, n)).result.status, Status::incomplete) << n;
  }
}

TEST(Http1Request, SkipsAFewLeadingEmptyLines) {  // RFC 9112 §2.2
  EXPECT_EQ(accepted("\r\n\r\n" + for_target("/")).result.consumed, for_target("/").size() + 4);
  std::string many;
  for (size_t i = 0; i <= kMaxLeadingLines; ++i) many += "\r\n";
  expect_refused(many + for_target("/"), Fault::bad_request_line);
  expect_refused("\n" + for_target("/"), Fault::bad_line_ending);
}

TEST(Http1Request, RefusesAMalformedRequestLine) {  // RFC 9112 §3
  const std::string rest = "\r\nHost: a\r\n\r\n";
  expect_refused("GET /" + rest, Fault::bad_request_line);
  expect_refused("GET" + rest, Fault::bad_request_line);
  expect_refused("GET  / HTTP/1.1" + rest, Fault::bad_request_line);
  expect_refused(" GET / HTTP/1.1" + rest, Fault::bad_request_line);
  expect_refused("GET /  HTTP/1.1" + rest, Fault::bad_version);
  expect_refused("GET / HTTP/1.1 " + rest, Fault::bad_version);
  expect_refused("GET\t/ HTTP/1.1" + rest, Fault::bad_method);
  expect_refused("G(T / HTTP/1.1" + rest, Fault::bad_method);
  expect_refused("\x16\x03\x01", Fault::bad_method);  // a TLS client on a plain port
  expect_refused("GET / HTTP/1.1\nHost: a\n\n", Fault::bad_line_ending);
}

TEST(Http1Request, RefusesVersionsItDoesNotSpeak) {  // RFC 9112 §2.3
  const auto line = [](std::string_view version) { return "GET / " + std::string(version) + "\r\nHost: a\r\n\r\n"; };
  expect_refused(line("HTTP/2.0"), Fault::unsupported_version);
  expect_refused(line("HTTP/0.9"), Fault::unsupported_version);
  for (const char* version :
       {"http/1.1", "HTTP/1", "HTTP/1.", "HTTP/1.10", "HTTP/11.1", "HTTP /1.1", "HTTQ/1.1", "X"}) {
    expect_refused(line(version), Fault::bad_version);
  }
  EXPECT_EQ(fault_info(Fault::unsupported_version).status, 505);
  EXPECT_EQ(accepted(line("HTTP/1.0")).head.minor_version, 0);
  EXPECT_EQ(accepted(line("HTTP/1.7")).head.minor_version, 1);  // RFC 9110 §2.5
}

TEST(Http1Request, RefusesBytesNoTargetHolds) {
  for (const char* target : {"/a#b", "/\x01", "/\x7f", "/\t", "/\xc3\xa9"})
    expect_refused(for_target(target), Fault::bad_target);
  expect_refused(std::string("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 29), Fault::bad_target);
  EXPECT_EQ(accepted(for_target("/%zz|{}\"^`<>\\")).head.path, "/%zz|{}\"^`<>\\");  // never decoded here
}

TEST(Http1Request, ReadsEachTargetFormWhereItsMethodAllowsIt) {  // RFC 9112 §3.2
  EXPECT_EQ(accepted(for_target("*", "a", "OPTIONS")).head.path, "*");
  expect_refused(for_target("*"), Fault::bad_target);
  expect_refused(for_target("a"), Fault::bad_target);
  expect_refused(for_target("a/b"), Fault::bad_target);

  const std::string connect_bytes = for_target("a.test:443", "a.test:443", "CONNECT");
  const Parsed connect = accepted(connect_bytes);
  EXPECT_EQ(connect.head.authority, "a.test:443");
  EXPECT_EQ(connect.head.path, "");
  expect_refused(for_target("a.test", "a.test", "CONNECT"), Fault::bad_target);
  expect_refused(for_target("/", "a", "CONNECT"), Fault::bad_target);
  expect_refused(for_target("http://a/", "a", "CONNECT"), Fault::bad_target);
  expect_refused(for_target("a.test:443", "b.test:443", "CONNECT"), Fault::bad_host);
}

TEST(Http1Request, TakesAnAbsoluteTargetApart) {  // RFC 9112 §3.2.2
  const std::string bytes = for_target("HTTP://A.test:80/p?q", "a.TEST:80");
  const Parsed parsed = accepted(bytes);
  EXPECT_EQ(parsed.head.path, "/p");
  EXPECT_EQ(parsed.head.query, "q");
  EXPECT_EQ(parsed.head.authority, "A.test:80");
  EXPECT_EQ(accepted(for_target("https://a")).head.path, "/");
  EXPECT_EQ(accepted(for_target("https://a?q")).head.path, "/");
  EXPECT_EQ(accepted(for_target("http://a", "a", "OPTIONS")).head.path, "*");  // §3.2.4
  // RFC 9112 §3.2.2: the target's authority wins; Host must be well formed all the same.
  EXPECT_EQ(accepted(for_target("http://a/", "b")).head.authority, "a");
  EXPECT_EQ(accepted(for_target("http://a:80/", "a")).head.authority, "a:80");
  expect_refused(for_target("http://a/", "a b"), Fault::bad_host);
  expect_refused(for_target("http://user@a/", "a"), Fault::bad_target);  // RFC 9110 §4.2.4
  expect_refused(for_target("http:///p"), Fault::bad_target);
  expect_refused(for_target("ftp://a/"), Fault::bad_target);
  expect_refused(for_target("http:/a"), Fault::bad_target);
}

TEST(Http1Request, NeedsExactlyOneValidHost) {  // RFC 9112 §3.2
  expect_refused("GET / HTTP/1.1\r\n\r\n", Fault::missing_host);
  expect_refused("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", Fault::duplicate_host);
  EXPECT_EQ(accepted("GET / HTTP/1.0\r\n\r\n").head.authority, "");
  expect_refused("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", Fault::duplicate_host);
  for (const char* host :
       {"",          "a b",    "a/b", "a@b", ":",    "a::",      "a:x", "a:65536", "a:123456", "[::1",
        "[1.2.3.4]", "[::1]x", "[]",  "::1", "a%41", "\xc3\xa9", ":80", "a:80:80", "a?b",      "a\\b"}) {
    expect_refused(for_target("/", host), Fault::bad_host);
  }
  for (const char* host : {"a", "a:", "[::1]:", "A.b-c_d~e", "1.2.3.4:8080", "[::1]", "[2001:db8::1]:443", "a:65535"}) {
    EXPECT_EQ(parse(for_target("/", host)).result.status, Status::complete) << host;
  }
}

TEST(Http1Request, RefusesBrokenFieldLines) {  // RFC 9112 §5
  expect_refused(with("Name : x\r\n"), Fault::space_before_colon);
  expect_refused(with("Name\t: x\r\n"), Fault::space_before_colon);
  expect_refused(with(": x\r\n"), Fault::bad_field_name);
  expect_refused(with("Name\r\n"), Fault::bad_field_name);
  expect_refused(with("Na(me: x\r\n"), Fault::bad_field_name);
  expect_refused(with("N\xc3\xa9: x\r\n"), Fault::bad_field_name);
  expect_refused(with("X: a\r\n b\r\n"), Fault::obs_fold);
  expect_refused(with("X: a\r\n\tb\r\n"), Fault::obs_fold);
  expect_refused("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Fault::obs_fold);
  expect_refused(with("X: a\rb\r\n"), Fault::bad_line_ending);
  expect_refused(with("X: a\nY: b\r\n"), Fault::bad_line_ending);
  expect_refused(with("X: a\r\r\n"), Fault::bad_line_ending);
  expect_refused(with("X: a\n"), Fault::bad_line_ending);
  expect_refused("GET / HTTP/1.1\r\nHost: a\r\n\n", Fault::bad_line_ending);
  expect_refused("GET / HTTP/1.1\r\nHost: a\r\n\rX", Fault::bad_line_ending);
}

TEST(Http1Request, RefusesEveryControlByteInAValueWhereverItStands) {
  for (int c = 0; c < 256; ++c) {
    const bool fine = c == '\t' || (c >= 0x20 && c != 0x7f);
    for (const size_t position : {0, 1, 15, 16, 17, 40}) {  // around the width of the vector
      std::string value(48, 'v');
      value[position] = static_cast<char>(c);
      const ParseResult result = parse(with("X: " + value + "\r\n")).result;
      EXPECT_EQ(result.status, fine ? Status::complete : Status::error) << c << '@' << position;
      if (!fine) {
        EXPECT_EQ(result.fault, c == '\r' || c == '\n' ? Fault::bad_line_ending : Fault::bad_field_value) << c;
      }
    }
  }
}

TEST(Http1Request, FramesTheBody) {  // RFC 9112 §6.3
  EXPECT_EQ(accepted(with("Content-Length: 5\r\n")).head.framing, Framing::length);
  EXPECT_EQ(accepted(with("content-length: 0005\r\n")).head.content_length, 5u);
  EXPECT_EQ(accepted(with("Content-Length: 9223372036854775807\r\n")).head.content_length, uint64_t{INT64_MAX});
  EXPECT_EQ(accepted(with("Transfer-Encoding: Chunked\r\n")).head.framing, Framing::chunked);
}

TEST(Http1Request, RefusesEveryLengthThatTwoReadersCouldTakeDifferently) {
  for (const char* value :
       {"", "5, 5", "5,5", "+5", "-5", "0x5", "5 5", "5;", "9223372036854775808", "18446744073709551621"}) {
    expect_refused(with("Content-Length: " + std::string(value) + "\r\n"), Fault::bad_content_length);
  }
  expect_refused(with("Content-Length: 5\r\nContent-Length: 5\r\n"), Fault::bad_content_length);
  expect_refused(with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), Fault::both_length_and_chunked);
  expect_refused(with("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"), Fault::both_length_and_chunked);
}

TEST(Http1Request, RefusesEveryCodingButOneFinalChunked) {  // RFC 9112 §6.1
  for (const char* value : {"", "identity", "gzip", "chunked, gzip", "chunked, chunked", "chunked,", "x chunked",
                            "\"chunked\"", "chunked;q=1", "xchunked"}) {
    expect_refused(with("Transfer-Encoding: " + std::string(value) + "\r\n"), Fault::bad_transfer_encoding);
  }
  expect_refused(with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), Fault::bad_transfer_encoding);
  expect_refused(with("Transfer-Encoding: gzip, chunked\r\n"), Fault::unsupported_transfer_encoding);
  EXPECT_EQ(fault_info(Fault::unsupported_transfer_encoding).status, 501);
  expect_refused("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::bad_transfer_encoding);
}

TEST(Http1Request, KeepsTheConnectionAsVersionAndTokensSay) {  // RFC 9112 §9.3
  const auto keep_alive = [](std::string_view version, std::string_view connection) {
    return accepted("GET / HTTP/" + std::string(version) + "\r\nHost: a\r\nConnection: " + std::string(connection) +
                    "\r\n\r\n")
        .head.keep_alive;
  };
  EXPECT_TRUE(keep_alive("1.1", ""));
  EXPECT_TRUE(keep_alive("1.1", "x, y"));
  EXPECT_FALSE(keep_alive("1.1", "x, CLOSE"));
  EXPECT_FALSE(keep_alive("1.1", "keep-alive, close"));
  EXPECT_TRUE(keep_alive("1.1", "closed"));
  EXPECT_FALSE(keep_alive("1.0", ""));
  EXPECT_TRUE(keep_alive("1.0", "Keep-Alive"));
  EXPECT_FALSE(keep_alive("1.0", "keep-alive, close"));
  EXPECT_FALSE(accepted(with("Connection: x\r\nConnection: close\r\n")).head.keep_alive);
  expect_refused(with("Connection: \"close\"\r\n"), Fault::bad_field_value);
  expect_refused(with("Connection: a b\r\n"), Fault::bad_field_value);
}

TEST(Http1Request, SeesUpgradesOnlyWithBothFields) {
  EXPECT_TRUE(accepted(with("Connection: Upgrade\r\nUpgrade: websocket\r\n")).head.upgrade);
  EXPECT_FALSE(accepted(with("Upgrade: websocket\r\n")).head.upgrade);
  EXPECT_FALSE(accepted(with("Connection: upgrade\r\n")).head.upgrade);
}

TEST(Http1Request, ExpectsOnlyContinue) {  // RFC 9110 §10.1.1
  EXPECT_TRUE(accepted(with("Expect: 100-Continue\r\nContent-Length: 1\r\n")).head.expect_continue);
  EXPECT_FALSE(accepted(with("Expect: 100-continue\r\n")).head.expect_continue);
  EXPECT_FALSE(
      accepted("POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n").head.expect_continue);
  expect_refused(with("Expect: a pony\r\n"), Fault::unsupported_expectation);
  const std::string upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
  EXPECT_TRUE(accepted(with("Expect: 100-continue\r\n" + upgrade)).head.expect_continue) << "a tunnel may follow";
}

TEST(Http1Request, BoundsEverything) {
  Limits limits;
  limits.target_bytes = 10;
  limits.head_bytes = 100;
  limits.fields = 3;
  EXPECT_EQ(parse(for_target("/123456789"), limits).result.status, Status::complete);
  expect_refused(for_target("/1234567890"), Fault::target_too_long, limits);
  expect_refused("GET /1234567890", Fault::target_too_long, limits);
  expect_refused(with("A: 1\r\nB: 2\r\nC: 3\r\n"), Fault::too_many_fields, limits);
  EXPECT_EQ(parse(with("A: 1\r\nB: 2\r\n"), limits).result.status, Status::complete);
  const std::string cookies = "Cookie: a=1\r\nA: 1\r\ncookie: b=2\r\nCookie: c=3\r\n";
  EXPECT_EQ(parse(with(cookies), limits).result.status, Status::complete) << "all Cookie fields count as one";
  expect_refused(with(cookies + "B: 2\r\n"), Fault::too_many_fields, limits);

  const std::string frame = with("X: \r\n");
  const std::string fits = with("X: " + std::string(100 - frame.size(), 'x') + "\r\n");
  const std::string exceeds = with("X: " + std::string(101 - frame.size(), 'x') + "\r\n");
  EXPECT_EQ(parse(fits, limits).result.status, Status::complete);
  EXPECT_EQ(parse(fits + "body", limits).result.status, Status::complete);
  expect_refused(exceeds, Fault::head_too_large, limits);
  expect_refused(exceeds.substr(0, 100), Fault::head_too_large, limits);

  Limits generous;
  generous.fields = 1000;  // the array's size is still the limit
  std::string many;
  for (size_t i = 0; i < kMaxFields; ++i) many += "F: 1\r\n";
  expect_refused(with(many), Fault::too_many_fields, generous);
  many.clear();
  for (size_t i = 0; i < kMaxFields; ++i) many += "Cookie: 1\r\n";
  expect_refused(with(many), Fault::too_many_fields, generous);
}

TEST(Http1Request, AHeadIsReusedWithoutLeavings) {
  Head head;
  size_t scanned = 0;
  const std::string first =
      "POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\nConnection: close, upgrade\r\nUpgrade: x\r\nExpect: "
      "100-continue\r\n\r\n";
  ASSERT_EQ(parse_request(first, {}, scanned, head).status, Status::complete);
  scanned = 0;
  const std::string second = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
  ASSERT_EQ(parse_request(second, {}, scanned, head).status, Status::complete);
  EXPECT_EQ(head.query, "");
  EXPECT_EQ(head.authority, "");
  EXPECT_EQ(head.framing, Framing::none);
  EXPECT_EQ(head.content_length, 0u);
  EXPECT_TRUE(head.keep_alive);
  EXPECT_FALSE(head.upgrade);
  EXPECT_FALSE(head.expect_continue);
  EXPECT_EQ(head.field_count, 1u);
}

TEST(Http1Faults, EachHasAClientErrorStatusAndASentence) {
  for (size_t i = 1; i < static_cast<size_t>(Fault::count_); ++i) {
    const FaultInfo& info = fault_info(static_cast<Fault>(i));
    EXPECT_GE(info.status, 400);
    EXPECT_FALSE(reason_phrase(info.status).empty()) << info.name;
    EXPECT_GT(std::string_view(info.sentence).size(), 10u);
  }
}

TEST(Http1Text, DecodesQueryParameters) {
  EXPECT_EQ(query_parameter("a=1&b=x%20y+z&a=2&c", "a"), "1");
  EXPECT_EQ(query_parameter("a=1&b=x%20y+z", "b"), "x y z");
  EXPECT_EQ(query_parameter("c&d=", "c"), "");
  EXPECT_EQ(query_parameter("%61=1", "a"), "1");
  EXPECT_EQ(query_parameter("a=b=c&", "a"), "b=c");
  EXPECT_FALSE(query_parameter("ab=1", "a"));
  EXPECT_FALSE(query_parameter("a=%4", "a"));
  EXPECT_FALSE(query_parameter("", "a"));
}

TEST(Http1Text, SplitsListsAtCommasOutsideQuotes) {
  std::vector<std::string_view> elements;
  for_each_element(" a ,, \"b,c\" ,\t\"d\\\",e\",f", [&](std::string_view element) { elements.push_back(element); });
  EXPECT_EQ(elements, (std::vector<std::string_view>{"a", "\"b,c\"", "\"d\\\",e\"", "f"}));
  elements.clear();
  for_each_element("\"open, ended\\", [&](std::string_view element) { elements.push_back(element); });
  EXPECT_EQ(elements, (std::vector<std::string_view>{"\"open, ended\\"}));
}

}  // namespace tidegate::http1::http1_request_test
