// SPDX-License-Identifier: Apache-2.0
// The parser is compared with two twins: itself, fed in pieces, and http-parser 2.9.4, a lax reader that may stand
// behind us. That reader must accept what we accept, and read it in the same way. A difference would make smuggling
// possible.
#include <gtest/gtest.h>
#include <http_parser.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "core/ascii_words.h"
#include "core/http1.h"

namespace tidegate::http1::http1_oracle_test {

const std::vector<std::string>& request_seeds() {
  static const std::vector<std::string> seeds = {
      "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
      "GET /a/b?c=d&e HTTP/1.1\r\nHost: www.example.test:8080\r\nAccept: */*\r\nUser-Agent: curl/7.88.1\r\n\r\n",
      "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
      "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;e=f\r\nabc\r\n0\r\nT: "
      "v\r\n\r\n",
      "HEAD http://a.test/p?q HTTP/1.1\r\nHost: a.test\r\n\r\n",
      "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
      "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n",
      "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: [::1]:80\r\nConnection: Upgrade, x\r\nUpgrade: websocket\r\n\r\n",
      "PUT /p HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
      "\r\nDELETE /p HTTP/1.1\r\nHost: a\r\nX: \t y\xc3\xa9 \t\r\nEmpty:\r\n\r\n",
  };
  return seeds;
}

const std::vector<std::string>& bad_requests() {
  static const std::vector<std::string> seeds = {
      "GET / HTTP/1.1\nHost: a\n\n",
      "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n",
      "GET /\r\n\r\n",
      "GET / HTTP/3.0\r\nHost: a\r\n\r\n",
      "GET / HTTP/1.1\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
      "\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
  };
  return seeds;
}

const std::vector<std::string>& response_seeds() {
  static const std::vector<std::string> seeds = {
      "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
      "HTTP/1.0 404 Not Found\r\nContent-Type: text/plain\r\n\r\nuntil close",
      "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 9\r\n\r\n",
      "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
      "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello",
      "HTTP/1.1 777 Odd\r\nContent-Length: 5\r\n\r\nhello",
  };
  return seeds;
}

ParseResult whole(const std::string& bytes, Head& head) {
  size_t scanned = 0;
  return parse_request(bytes, {}, scanned, head);
}

std::string summary(const ParseResult& result, const Head& head) {
  std::string out = std::to_string(static_cast<int>(result.status)) + " " + std::to_string(result.consumed) + " " +
                    fault_info(result.fault).name;
  if (result.status != Status::complete) return out;
  for (const std::string_view part : {head.method, head.target, head.path, head.query, head.authority})
    out.append(" ").append(part);
  for (const Field& field : head) out.append("\n").append(field.name).append("=").append(field.value);
  return out;
}

TEST(Http1Incremental, EverySplitPointGivesWhatTheWholeGives) {
  std::vector<std::string> all = request_seeds();
  all.insert(all.end(), bad_requests().begin(), bad_requests().end());
  for (const std::string& bytes : all) {
    Head head;
    const std::string expected = summary(whole(bytes, head), head);
    for (size_t split = 0; split <= bytes.size(); ++split) {
      size_t scanned = 0;
      const std::string first = bytes.substr(0, split);  // another buffer, because nothing of the first may be kept
      ParseResult result = parse_request(first, {}, scanned, head);
      if (result.status == Status::incomplete) {
        result = parse_request(bytes, {}, scanned, head);
        EXPECT_EQ(summary(result, head), expected) << split;
      } else {
        EXPECT_EQ(summary(result, head), expected) << split;
      }
    }
  }
}

TEST(Http1Incremental, ByteByByteGivesWhatTheWholeGives) {
  std::vector<std::string> all = request_seeds();
  all.insert(all.end(), bad_requests().begin(), bad_requests().end());
  for (const std::string& bytes : all) {
    Head head;
    const std::string expected = summary(whole(bytes, head), head);
    size_t scanned = 0;
    ParseResult result;
    for (size_t n = 1; n <= bytes.size() && result.status == Status::incomplete; ++n) {
      result = parse_request(std::string_view(bytes).substr(0, n), {}, scanned, head);
    }
    EXPECT_EQ(summary(result, head), expected) << bytes;
  }
}

// The result of http-parser for the same bytes.
struct Oracle {
  explicit Oracle(bool request, bool to_head) : head_answer(to_head) {
    http_parser_init(&parser, request ? HTTP_REQUEST : HTTP_RESPONSE);
    parser.data = this;
    http_parser_settings_init(&settings);
    settings.on_url = [](http_parser* p, const char* at, size_t n) { return self(p).url.append(at, n), 0; };
    settings.on_header_field = [](http_parser* p, const char* at, size_t n) {
      Oracle& o = self(p);
      if (o.done_with_head) return 0;  // trailers
      if (!o.in_name) o.fields.emplace_back();
      o.in_name = true;
      o.fields.back().first.append(at, n);
      return 0;
    };
    settings.on_header_value = [](http_parser* p, const char* at, size_t n) {
      Oracle& o = self(p);
      if (o.done_with_head) return 0;
      o.in_name = false;
      o.fields.back().second.append(at, n);
      return 0;
    };
    settings.on_headers_complete = [](http_parser* p) {
      Oracle& o = self(p);
      o.done_with_head = true;
      o.method = p->type == HTTP_REQUEST ? http_method_str(static_cast<http_method>(p->method)) : "";
      o.keep_alive = http_should_keep_alive(p) != 0;
      // http-parser's caller must tell it when RFC 9112 §6.3 says that there is no body.
      const bool bodiless = p->type == HTTP_RESPONSE && (p->status_code == 204 || p->status_code == 304);
      return o.head_answer || bodiless ? 1 : 0;
    };
    settings.on_body = [](http_parser* p, const char* at, size_t n) { return self(p).body.append(at, n), 0; };
    settings.on_message_complete = [](http_parser* p) {
      self(p).complete = true;
      http_parser_pause(p, 1);
      return 0;
    };
  }
  static Oracle& self(http_parser* p) { return *static_cast<Oracle*>(p->data); }
  http_errno read(std::string_view bytes) {
    http_parser_execute(&parser, &settings, bytes.data(), bytes.size());
    const auto error = static_cast<http_errno>(parser.http_errno);
    return error == HPE_PAUSED ? HPE_OK : error;
  }

  http_parser parser{};
  http_parser_settings settings{};
  const bool head_answer;
  bool in_name = false, done_with_head = false, complete = false, keep_alive = false;
  std::string url, body, method;
  std::vector<std::pair<std::string, std::string>> fields;
};

// The body as our framing reads it. Nothing if it is cut short or refused.
std::optional<std::string> our_body(const Head& head, std::string_view rest) {
  switch (head.framing) {
    case Framing::none:
      return "";
    case Framing::until_close:
      return std::string(rest);
    case Framing::length:
      if (rest.size() < head.content_length) return std::nullopt;
      return std::string(rest.substr(0, head.content_length));
    case Framing::chunked:
      break;
  }
  ChunkedDecoder decoder;
  std::string body;
  for (;;) {
    const ChunkedDecoder::Step step = decoder.decode(rest);
    if (step.status == Status::error) return std::nullopt;
    body += step.data;
    if (step.status == Status::complete) return body;
    if (step.consumed == 0) return std::nullopt;
    rest.remove_prefix(step.consumed);
  }
}

void expect_same_fields(const Head& head, const Oracle& oracle) {
  ASSERT_EQ(head.field_count, oracle.fields.size());
  for (size_t i = 0; i < head.field_count; ++i) {
    EXPECT_EQ(head.fields[i].name, oracle.fields[i].first);
    std::string value = oracle.fields[i].second;  // it keeps trailing white space
    while (!value.empty() && (value.back() == ' ' || value.back() == '\t')) value.pop_back();
    EXPECT_EQ(head.fields[i].value, value);
  }
}

// http-parser treats a field as Transfer-Encoding even if its name only begins with that.
bool misreads_a_name(const Head& head) {
  static constexpr std::string_view kName = "transfer-encoding";
  for (const Field& field : head) {
    if (field.name.size() > kName.size() && equals_ignore_case(field.name.substr(0, kName.size()), kName)) return true;
  }
  return false;
}

// http-parser refuses a tab after "chunked" or a length, and RFC 9112 §5 strips it. A refusal is not a
// misunderstanding.
bool refuses_a_tab(http_errno error, const std::string& bytes) {
  const bool framing = error == HPE_INVALID_TRANSFER_ENCODING || error == HPE_INVALID_CONTENT_LENGTH;
  return framing && bytes.find('\t') != std::string::npos;
}

// Returns true if we accepted the message and therefore compared it.
bool compare_request(const std::string& bytes) {
  Head head;
  const ParseResult result = whole(bytes, head);
  if (result.status != Status::complete) return false;
  Oracle oracle(true, false);
  const http_errno error = oracle.read(bytes);
  if (error == HPE_INVALID_METHOD) return false;  // it knows only a fixed list of methods
  if (misreads_a_name(head)) return false;
  if (refuses_a_tab(error, bytes)) return false;
  const std::optional<std::string> body = our_body(head, std::string_view(bytes).substr(result.consumed));
  EXPECT_TRUE(oracle.done_with_head) << http_errno_description(error);
  EXPECT_EQ(head.method, oracle.method);
  EXPECT_EQ(head.target, oracle.url);
  EXPECT_EQ(head.minor_version, std::min<int>(oracle.parser.http_minor, 1));
  expect_same_fields(head, oracle);
  if (head.keep_alive && head.minor_version == 1) {  // for 1.0 it misses keep-alive after an empty list element
    EXPECT_TRUE(oracle.keep_alive);
  }
  if (body && head.method != "CONNECT" && !oracle.parser.upgrade) {
    EXPECT_TRUE(oracle.complete) << http_errno_description(error);
    EXPECT_EQ(*body, oracle.body);
  }
  return true;
}

bool compare_response(const std::string& bytes, bool to_head) {
  Head head;
  size_t scanned = 0;
  const ParseResult result = parse_response(bytes, {}, scanned, to_head, head);
  if (result.status != Status::complete || head.status < 200) return false;
  Oracle oracle(false, to_head);
  const http_errno error = oracle.read(bytes);
  if (misreads_a_name(head)) return false;
  if (refuses_a_tab(error, bytes)) return false;
  const std::optional<std::string> body = our_body(head, std::string_view(bytes).substr(result.consumed));
  EXPECT_TRUE(oracle.done_with_head) << http_errno_description(error);
  EXPECT_EQ(head.status, oracle.parser.status_code);
  expect_same_fields(head, oracle);
  if (body && !oracle.parser.upgrade) {
    EXPECT_EQ(*body, oracle.body) << http_errno_description(error);
  }
  return true;
}

// A seed with a few bytes changed, removed, doubled, or replaced by pieces that matter to framing.
std::string mutate(std::string bytes, std::mt19937& random) {
  static const std::vector<std::string> pieces = {"\r\n",
                                                  "\n",
                                                  "\r",
                                                  " ",
                                                  "\t",
                                                  ":",
                                                  ",",
                                                  ";",
                                                  "0",
                                                  "5",
                                                  "chunked",
                                                  "Content-Length: 5\r\n",
                                                  "Content-Length: 3\r\n",
                                                  "Transfer-Encoding: chunked\r\n",
                                                  "Transfer-Encoding: gzip, chunked\r\n",
                                                  "Connection: close\r\n",
                                                  "Host: b\r\n",
                                                  "Connection: keep-alive\r\n",
                                                  "Upgrade: x\r\n",
                                                  "HTTP/1.0",
                                                  "HTTP/1.2",
                                                  "http://a",
                                                  "?",
                                                  "%",
                                                  "\x80",
                                                  "*",
                                                  "close"};
  const size_t changes = 1 + random() % 3;
  for (size_t i = 0; i < changes && !bytes.empty(); ++i) {
    const size_t at = random() % bytes.size();
    switch (random() % 5) {
      case 0:
        bytes[at] = static_cast<char>(random());
        break;
      case 1:
        bytes.erase(at, 1 + random() % 3);
        break;
      case 2:
        bytes.insert(at, 1, bytes[random() % bytes.size()]);
        break;
      default: {  // mostly at the start of a line, where whole field lines fit
        size_t line = bytes.find("\r\n", at);
        line = random() % 2 == 0 && line != std::string::npos ? line + 2 : at;
        bytes.insert(line, pieces[random() % pieces.size()]);
      }
    }
  }
  return bytes;
}

TEST(Http1Oracle, UnderstandsEveryGoodRequestAlike) {
  for (const std::string& seed : request_seeds()) EXPECT_TRUE(compare_request(seed)) << seed;
}

TEST(Http1Oracle, UnderstandsEveryMutatedRequestWeAcceptAlike) {
  std::mt19937 random(11);
  size_t compared = 0;
  for (int i = 0; i < 60'000; ++i) {
    const std::string bytes = mutate(request_seeds()[random() % request_seeds().size()], random);
    SCOPED_TRACE(bytes);
    compared += compare_request(bytes) ? 1 : 0;
    if (HasFailure()) return;
  }
  EXPECT_GT(compared, 5'000u);
}

TEST(Http1Oracle, UnderstandsEveryMutatedResponseWeAcceptAlike) {
  std::mt19937 random(12);
  size_t compared = 0;
  for (int i = 0; i < 40'000; ++i) {
    const std::string bytes = mutate(response_seeds()[random() % response_seeds().size()], random);
    SCOPED_TRACE(bytes);
    compared += compare_response(bytes, random() % 4 == 0) ? 1 : 0;
    if (HasFailure()) return;
  }
  EXPECT_GT(compared, 5'000u);
}

bool equal_byte_by_byte(const std::string& a, const std::string& b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; };
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [&](char x, char y) { return lower(x) == lower(y); });
}

TEST(EqualsIgnoreCase, AgreesWithATwinForEveryByteAtEveryPlace) {
  size_t equal = 0;
  for (size_t bytes = 0; bytes <= 20; ++bytes) {
    const std::string text = std::string("x-Forwarded-For: Abc1").substr(0, bytes);
    for (size_t at = 0; at < bytes; ++at) {
      for (int byte = 0; byte < 256; ++byte) {
        for (const int other : {byte, byte ^ 0x20, byte ^ 0x80, byte ^ 0xa0, (byte + 1) & 0xff}) {
          std::string a = text, b = text;
          a[at] = static_cast<char>(byte);
          b[at] = static_cast<char>(other);
          b[bytes - 1 - at] ^= static_cast<char>(at % 2 == 0 ? 0 : 0x20);
          ASSERT_EQ(equals_ignore_case(a, b), equal_byte_by_byte(a, b))
              << bytes << " " << at << " " << byte << " " << other;
          equal += equals_ignore_case(a, b) ? 1 : 0;
        }
      }
    }
  }
  EXPECT_GT(equal, 1'000u);
  EXPECT_FALSE(equals_ignore_case("abc", "abcd"));
}

TEST(AsciiWords, CopyLowerAgreesWithATwinForEveryByteAtEveryPlace) {
  for (size_t bytes = 1; bytes <= 20; ++bytes) {
    for (size_t at = 0; at < bytes; ++at) {
      for (int byte = 0; byte < 256; ++byte) {
        std::string text = std::string("X-forwarded-FOR: Abc1").substr(0, bytes);
        text[at] = static_cast<char>(byte);
        std::string expected = text, copied(bytes + 1, '#');
        for (char& c : expected) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
        ascii::copy_lower(text.data(), bytes, copied.data());
        ASSERT_EQ(copied, expected + '#') << bytes << " " << at << " " << byte;
      }
    }
  }
}

}  // namespace tidegate::http1::http1_oracle_test
