// SPDX-License-Identifier: Apache-2.0
#include "l7/wire/message.h"

#include <gtest/gtest.h>

#include "l7/exchange/forwarding.h"
#include "l7/wire/http2_field.h"

namespace tidegate::l7::message_test {

std::string normalised(std::string_view path) {
  Arena arena;
  return std::string(normalise_path(path, arena));
}

TEST(NormalisePath, DecodesOnlyWhatNeedsNoEscape) {
  EXPECT_EQ(normalised("/plain/path"), "/plain/path");
  EXPECT_EQ(normalised("/%61%2d%7E"), "/a-~");
  EXPECT_EQ(normalised("/a%2fb%3a"), "/a%2Fb%3A");
  EXPECT_EQ(normalised("/a%2"), "");
  EXPECT_EQ(normalised("/a%zz"), "");
  EXPECT_EQ(normalised("/a%00"), "");
}

TEST(NormalisePath, RemovesDotSegmentsHoweverTheyAreWritten) {
  EXPECT_EQ(normalised("/a/./b/../c"), "/a/c");
  EXPECT_EQ(normalised("/a/%2e%2E/b"), "/b");
  EXPECT_EQ(normalised("/a/."), "/a/");
  EXPECT_EQ(normalised("/a/b/.."), "/a/");
  EXPECT_EQ(normalised("/.hidden/..x"), "/.hidden/..x");
  EXPECT_EQ(normalised("/.."), "") << "climbs above its root";
  EXPECT_EQ(normalised("/a/../../b"), "");
}

TEST(NormalisePath, RefusesWhatReadersResolveDifferently) {
  for (const char* path : {"/a\\b", "/..;/a", "/a/..;x=1/b", "/.;/a", "/%2e%2e;/a", "/a/..;"})
    EXPECT_EQ(normalised(path), "") << path;
  for (const char* path : {"/a;x=1/b", "/..a;/b", "/a%5Cb", "/a/;/b"}) EXPECT_EQ(normalised(path), path);
}

TEST(PathForRoutes, MergesSlashesAndNothingElse) {
  Arena arena;
  const auto merged = [&](std::string_view path) { return path_for_routes(path, true, arena); };
  EXPECT_EQ(merged("/"), "/");
  EXPECT_EQ(merged("//"), "/");
  EXPECT_EQ(merged("///a//b///"), "/a/b/");
  EXPECT_EQ(merged("/a%2F/b"), "/a%2F/b");
  EXPECT_EQ(merged("*"), "*");
  EXPECT_EQ(path_for_routes("//a", false, arena), "//a");
  const std::string_view plain = "/a/b";
  EXPECT_EQ(merged(plain).data(), plain.data()) << "nothing to do, nothing copied";
}

class FromHttp1 : public ::testing::Test {
 protected:
  MessageFault read(const std::string& text) {
    size_t scanned = 0;
    const http1::ParseResult parsed = http1::parse_request(text_ = text, {}, scanned, head_);
    EXPECT_EQ(parsed.status, http1::Status::complete) << http1::fault_info(parsed.fault).name;
    return request_from_http1(head_, arena_, request_);
  }
  std::string text_;
  http1::Head head_;
  Arena arena_;
  RequestHead request_;
};

TEST_F(FromHttp1, DropsHopByHopFieldsAndWhatConnectionNominates) {
  ASSERT_EQ(read("GET /x?y HTTP/1.1\r\nHost: A.test:80\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\n"
                 "Keep-Alive: 5\r\nTE: trailers\r\nX-Yours: 2\r\n\r\n"),
            MessageFault::none);
  EXPECT_EQ(request_.host, "a.test");
  EXPECT_EQ(request_.path, "/x");
  EXPECT_EQ(request_.query, "y");
  ASSERT_EQ(request_.fields.size(), 1u);
  EXPECT_EQ(request_.fields.begin()->name, "x-yours");
}

TEST_F(FromHttp1, ConnectionCannotNominateWhoSentTheRequest) {
  ASSERT_EQ(read("GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Forwarded-For, via, Forwarded, X-Mine\r\nX-Mine: 1\r\n"
                 "X-Forwarded-For: 192.0.2.1\r\nVia: 1.1 p\r\nForwarded: for=192.0.2.1\r\n\r\n"),
            MessageFault::none);
  EXPECT_EQ(request_.fields.size(), 3u);
  EXPECT_EQ(request_.fields.find("x-mine"), nullptr);
}

TEST_F(FromHttp1, RefusesConnectAndHostsThatAreNone) {
  EXPECT_EQ(read("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n"), MessageFault::connect_method);
  EXPECT_EQ(read("GET /%2e%2e/x HTTP/1.1\r\nHost: a\r\n\r\n"), MessageFault::bad_path);
}

class FromHttp2 : public ::testing::Test {
 protected:
  using Fields = std::vector<std::pair<std::string, std::string>>;
  MessageFault read(const Fields& fields, bool end_of_stream = true) {
    builder_.start(arena_, request_, 8192, 100);
    for (const auto& [name, value] : fields) {
      if (const MessageFault fault = builder_.add(http2_field(name, value)); fault != MessageFault::none) return fault;
    }
    return builder_.finish(end_of_stream);
  }
  static Fields with(const Fields& more) {
    Fields fields{{":method", "GET"}, {":scheme", "https"}, {":authority", "a.test"}, {":path", "/x?y=1"}};
    fields.insert(fields.end(), more.begin(), more.end());
    return fields;
  }
  Arena arena_;
  RequestHead request_;
  Http2RequestBuilder builder_;
};

TEST_F(FromHttp2, TakesAWholeRequestAndJoinsItsCookies) {
  ASSERT_EQ(read(with({{"cookie", "a=1"}, {"accept", "*/*"}, {"cookie", "b=2"}, {"te", "trailers"}})),
            MessageFault::none);
  EXPECT_EQ(request_.path, "/x");
  EXPECT_EQ(request_.query, "y=1");
  EXPECT_EQ(request_.fields.find("cookie")->value, "a=1; b=2");
  EXPECT_EQ(request_.fields.find("te"), nullptr);
}

TEST_F(FromHttp2, RefusesWhatWouldBecomeAnotherRequestInHttp1) {
  EXPECT_EQ(read(with({{"transfer-encoding", "chunked"}})), MessageFault::connection_field);
  EXPECT_EQ(read(with({{"connection", "close"}})), MessageFault::connection_field);
  EXPECT_EQ(read(with({{"te", "gzip"}})), MessageFault::connection_field);
  EXPECT_EQ(read(with({{"x", "a\r\nb: c"}})), MessageFault::bad_field);
  EXPECT_EQ(read(with({{"x", std::string("a\0b", 3)}})), MessageFault::bad_field);
  EXPECT_EQ(read(with({{"x", " a"}})), MessageFault::bad_field);
  EXPECT_EQ(read(with({{"X-Upper", "a"}})), MessageFault::bad_field);
  EXPECT_EQ(read(with({{"a b", "c"}})), MessageFault::bad_field);
  EXPECT_EQ(read(with({{"host", "b.test"}})), MessageFault::bad_host);
  EXPECT_EQ(read(with({{"content-length", "1"}, {"content-length", "1"}}), false), MessageFault::bad_content_length);
  EXPECT_EQ(read(with({{"content-length", "+1"}}), false), MessageFault::bad_content_length);
  EXPECT_EQ(read(with({{"content-length", "5"}}), true), MessageFault::bad_content_length);
}

TEST_F(FromHttp2, AnAuthorityIsTheSameAsInHttp1) {
  for (const char* authority : {"%61.test", "u@a.test", "a..test", ".a.test", "[zz]", "a.test:99999", "[::1"}) {
    EXPECT_EQ(read({{":method", "GET"}, {":scheme", "https"}, {":authority", authority}, {":path", "/"}}),
              MessageFault::bad_host)
        << authority;
  }
}

TEST_F(FromHttp2, RefusesPseudoFieldsThatAreMissingRepeatedUnknownOrLate) {
  EXPECT_EQ(read({{":method", "GET"}, {":scheme", "https"}, {":path", "/"}}), MessageFault::bad_host);
  EXPECT_EQ(read({{":method", "GET"}, {":authority", "a"}, {":path", "/"}}), MessageFault::bad_pseudo_field);
  EXPECT_EQ(read(with({{":path", "/again"}})), MessageFault::bad_pseudo_field);
  EXPECT_EQ(read({{":method", "GET"}, {":protocol", "x"}}), MessageFault::bad_pseudo_field);
  EXPECT_EQ(read(with({{"x", "1"}, {":path", "/"}})), MessageFault::bad_pseudo_field);
  EXPECT_EQ(read({{":method", "GET"}, {":scheme", "https"}, {":authority", "a"}, {":path", "/a b"}}),
            MessageFault::bad_pseudo_field);
  EXPECT_EQ(read({{":method", "GET"}, {":scheme", "https"}, {":authority", "a"}, {":path", "x"}}),
            MessageFault::bad_pseudo_field);
}

TEST_F(FromHttp2, BoundsTheHeader) { EXPECT_EQ(read(with({{"x", std::string(9000, 'a')}})), MessageFault::too_large); }

class Forwarding : public FromHttp2 {
 protected:
  std::string head(bool trusted, const FieldEdits& edits = {}) {
    ClientFacts facts;
    facts.peer_text = "192.0.2.7";
    facts.peer_trusted = trusted;
    facts.tls_version = "TLSv1.3";
    return std::string(compose_http1_head({request_, facts, edits, "n1", "id1"}, arena_));
  }
};

TEST_F(Forwarding, ReplacesWhatAnUntrustedPeerSaysOfTheClient) {
  ASSERT_EQ(read(with({{"x-forwarded-for", "1.1.1.1"},
                       {"x-forwarded-proto", "ftp"},
                       {"x-forwarded-port", "1"},
                       {"forwarded", "for=x"},
                       {"x-real-ip", "2.2.2.2"},
                       {"x-request-id", "theirs"}})),
            MessageFault::none);
  EXPECT_EQ(head(false),
            "GET /x?y=1 HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n"
            "X-Forwarded-Host: a.test\r\nX-Request-Id: id1\r\nVia: 2.0 n1\r\n\r\n");
}

TEST_F(Forwarding, ContinuesWhatATrustedPeerSays) {
  ASSERT_EQ(read(with({{"x-forwarded-for", "1.1.1.1"}, {"x-forwarded-proto", "http"}, {"forwarded", "for=x"}})),
            MessageFault::none);
  const std::string text = head(true);
  EXPECT_NE(text.find("\r\nX-Forwarded-For: 1.1.1.1, 192.0.2.7\r\n"), std::string::npos) << text;
  EXPECT_NE(text.find("\r\nX-Forwarded-Proto: http\r\n"), std::string::npos);
  EXPECT_NE(text.find("\r\nforwarded: for=x\r\n"), std::string::npos);
}

TEST_F(Forwarding, OfSeveralTheLastFieldIsTheNearestProxys) {
  ASSERT_EQ(read(with({{"x-forwarded-proto", "https"},
                       {"x-forwarded-host", "forged.test"},
                       {"x-forwarded-proto", "http"},
                       {"x-forwarded-host", "a.test"}})),
            MessageFault::none);
  const std::string text = head(true);
  EXPECT_NE(text.find("\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a.test\r\n"), std::string::npos) << text;
  EXPECT_EQ(text.find("forged"), std::string::npos);
}

TEST_F(Forwarding, DropsWhatIsReadAsAFieldOfOursOverHttp2Too) {
  ASSERT_EQ(read(with({{"x_forwarded_for", "6.6.6.6"}, {"x_role", "root"}, {"x_mine", "1"}})), MessageFault::none);
  const std::string text = head(false, {{"X-Role", "guest"}});
  EXPECT_EQ(text.find("6.6.6.6"), std::string::npos) << text;
  EXPECT_EQ(text.find("root"), std::string::npos);
  EXPECT_NE(text.find("\r\nx_mine: 1\r\n"), std::string::npos);
}

TEST_F(Forwarding, AppliesARoutesEdits) {
  ASSERT_EQ(read(with({{"accept", "a"}, {"cookie", "secret"}})), MessageFault::none);
  const std::string text = head(false, {{"Cookie", ""}, {"X-Edge", "yes"}, {"Host", "inner"}});
  EXPECT_NE(text.find("\r\nHost: inner\r\n"), std::string::npos) << text;
  EXPECT_NE(text.find("\r\nX-Edge: yes\r\n"), std::string::npos);
  EXPECT_EQ(text.find("cookie"), std::string::npos);
  EXPECT_EQ(text.find("Host: inner"), text.rfind("Host: inner")) << "host once";
}

TEST_F(Forwarding, FindsTheClientBehindTrustedProxies) {
  ClientFacts facts;
  facts.peer = *Endpoint::parse("10.0.0.1:1");
  facts.peer_text = "10.0.0.1";
  const std::vector<Cidr> trusted{*Cidr::parse("10.0.0.0/8")};
  ASSERT_EQ(read(with({{"x-forwarded-for", "6.6.6.6, 203.0.113.9, 10.0.0.2"}})), MessageFault::none);
  EXPECT_EQ(client_address(request_, facts, trusted, arena_), "10.0.0.1") << "the peer is not trusted";
  facts.peer_trusted = true;
  EXPECT_EQ(client_address(request_, facts, trusted, arena_), "203.0.113.9");
  ASSERT_EQ(read(with({{"x-forwarded-for", "6.6.6.6"}, {"x-forwarded-for", "203.0.113.7"}})), MessageFault::none);
  EXPECT_EQ(client_address(request_, facts, trusted, arena_), "203.0.113.7") << "the field that the proxy added";
}

}  // namespace tidegate::l7::message_test
