// SPDX-License-Identifier: Apache-2.0
// The compress policy: its encoders beside the decoders of zlib, brotli and zstd, the choice by Accept-Encoding, and
// what clients of the proxy see.
#include <brotli/decode.h>
#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <nlohmann/json.hpp>
#include <random>

#include "conf/policy/authenticate.h"
#include "core/http_server.h"
#include "l7/policy/accept_encoding.h"
#include "l7/policy/encoder.h"
#include "tests/unit/l7/http2_client.h"
#include "tests/unit/l7/state_dir.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::compress_test {

// --- the libraries' decoders, which read a stream in pieces

class Decoder {
 public:
  explicit Decoder(Coding coding) : coding_(coding) {
    if (coding == Coding::gzip) EXPECT_EQ(inflateInit2(&inflate_, 16 + MAX_WBITS), Z_OK);
  }
  ~Decoder() {
    if (coding_ == Coding::gzip) inflateEnd(&inflate_);
    BrotliDecoderDestroyInstance(brotli_);
    ZSTD_freeDCtx(zstd_);
  }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  // Returns false if these bytes are not part of such a stream.
  bool feed(std::string_view bytes) {
    if (bytes.empty()) return true;  // zstd treats many calls without bytes as an error
    if (coding_ == Coding::gzip) return feed_gzip(bytes);
    return coding_ == Coding::br ? feed_brotli(bytes) : feed_zstd(bytes);
  }
  bool ended() const { return ended_; }
  std::string text;

 private:
  bool feed_gzip(std::string_view bytes) {
    inflate_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
    inflate_.avail_in = static_cast<uInt>(bytes.size());
    for (;;) {
      inflate_.next_out = reinterpret_cast<Bytef*>(room_.data());
      inflate_.avail_out = static_cast<uInt>(room_.size());
      const int result = inflate(&inflate_, Z_SYNC_FLUSH);
      text.append(room_.data(), room_.size() - inflate_.avail_out);
      ended_ = result == Z_STREAM_END;
      if (ended_) return inflate_.avail_in == 0;
      if (result != Z_OK && result != Z_BUF_ERROR) return false;
      if (inflate_.avail_in == 0 && inflate_.avail_out > 0) return true;
    }
  }
  bool feed_brotli(std::string_view bytes) {
    size_t left = bytes.size();
    const auto* next = reinterpret_cast<const uint8_t*>(bytes.data());
    for (;;) {
      size_t room = room_.size();
      auto* out = reinterpret_cast<uint8_t*>(room_.data());
      const BrotliDecoderResult result = BrotliDecoderDecompressStream(brotli_, &left, &next, &room, &out, nullptr);
      text.append(room_.data(), room_.size() - room);
      ended_ = result == BROTLI_DECODER_RESULT_SUCCESS;
      if (ended_) return left == 0;
      if (result == BROTLI_DECODER_RESULT_ERROR) return false;
      if (result == BROTLI_DECODER_RESULT_NEEDS_MORE_INPUT) return true;
    }
  }
  bool feed_zstd(std::string_view bytes) {
    ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
    for (;;) {
      ZSTD_outBuffer out{room_.data(), room_.size(), 0};
      const size_t result = ZSTD_decompressStream(zstd_, &out, &in);
      text.append(room_.data(), out.pos);
      if (ZSTD_isError(result) != 0) return false;
      ended_ = result == 0;
      if (in.pos == in.size && out.pos < out.size) return true;
    }
  }

  const Coding coding_;
  std::string room_ = std::string(64 * 1024, '\0');
  z_stream inflate_{};
  BrotliDecoderState* const brotli_ = BrotliDecoderCreateInstance(nullptr, nullptr, nullptr);
  ZSTD_DCtx* const zstd_ = ZSTD_createDCtx();
  bool ended_ = false;
};

std::string decoded(Coding coding, std::string_view bytes) {
  Decoder decoder(coding);
  EXPECT_TRUE(decoder.feed(bytes) && decoder.ended()) << name(coding);
  return decoder.text;
}

struct Collect final : Encoder::Sink {
  void take(std::string_view bytes) override {
    EXPECT_LE(bytes.size(), kBlockBytes);
    out += bytes;
  }
  std::string out;
};

std::string words(size_t bytes, uint64_t seed) {
  constexpr const char* kWords[] = {"{\"id\":", "\"name\":\"", "tide", "gate", "\",",
                                    "\n",       " the ",       "of ",  "and ", "0"};
  std::mt19937_64 random(seed);
  std::string text;
  while (text.size() < bytes) {
    text += kWords[random() % std::size(kWords)];
    if (random() % 8 == 0) text += std::to_string(random() % 100'000);
  }
  text.resize(bytes);
  return text;
}
std::string noise(size_t bytes, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string text(bytes, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

class Encoders : public ::testing::TestWithParam<Coding> {};

// Random pieces with random flushes. After each flush the client has everything so far. One encoder serves one answer
// after another, even after one that broke off.
TEST_P(Encoders, GiveWhatTheLibrarysDecoderReadsBack) {
  EncoderPool pool;
  std::mt19937_64 random(7);
  for (int round = 0; round < 40; ++round) {
    const size_t bytes = round == 0 ? 0 : random() % (round % 10 == 9 ? 400'000 : 30'000);
    const std::string content = round % 3 == 0   ? noise(bytes, random())
                                : round % 3 == 1 ? words(bytes, random())
                                                 : std::string(bytes, 'a');
    EncoderPool::Lease encoder = pool.lease(GetParam());
    Decoder decoder(GetParam());
    Collect sink;
    size_t at = 0;
    while (at < content.size()) {
      const std::string_view piece =
          std::string_view(content).substr(at, 1 + random() % (round % 2 == 0 ? 65'536 : 700));
      at += piece.size();
      const bool flush = random() % 4 == 0;
      sink.out.clear();
      encoder->encode(piece, Encoder::End::none, sink);
      if (flush) encoder->encode({}, Encoder::End::flush, sink);
      ASSERT_LE(sink.out.size(), Encoder::kBurstBytes);
      ASSERT_TRUE(decoder.feed(sink.out));
      ASSERT_FALSE(decoder.ended());
      if (flush) ASSERT_EQ(decoder.text.size(), at) << "a flush brings all of it";
    }
    if (round % 7 == 6) continue;  // it breaks off
    sink.out.clear();
    encoder->encode({}, Encoder::End::finish, sink);
    ASSERT_TRUE(decoder.feed(sink.out) && decoder.ended()) << round;
    ASSERT_TRUE(decoder.text == content) << round;
  }
  EXPECT_EQ(pool.leased(), 0u);
}

// Worst cases of held-back bytes: noise that does not shrink, and content that shrinks very much.
TEST_P(Encoders, HoldBackNoMoreThanTheClientsQueueTakes) {
  for (const std::string& content : {noise(500'000, 1), words(600'000, 2), std::string(2'000'000, 'x')}) {
    EncoderPool pool;
    const EncoderPool::Lease encoder = pool.lease(GetParam());
    size_t most = 0;
    for (size_t at = 0; at < content.size(); at += kBlockBytes) {
      Collect sink;
      encoder->encode(std::string_view(content).substr(at, kBlockBytes), Encoder::End::none, sink);
      most = std::max(most, sink.out.size());
    }
    Collect sink;
    encoder->encode({}, Encoder::End::finish, sink);
    EXPECT_LE(std::max(most, sink.out.size()), Encoder::kBurstBytes);
  }
}

TEST_P(Encoders, MakeTextAThirdAsLarge) {
  const std::string content = words(20'000, 3);
  EncoderPool pool;
  Collect sink;
  pool.lease(GetParam())->encode(content, Encoder::End::finish, sink);
  EXPECT_LT(sink.out.size(), content.size() / 2);
  EXPECT_EQ(decoded(GetParam(), sink.out), content);
}

INSTANTIATE_TEST_SUITE_P(, Encoders, ::testing::Values(Coding::gzip, Coding::br, Coding::zstd),
                         [](const auto& parameter) { return name(parameter.param); });

TEST(EncoderPool, HasABoundAndTakesEncodersBack) {
  EncoderPool pool;
  std::vector<EncoderPool::Lease> leases;
  while (pool.has_room()) leases.push_back(pool.lease(Coding::gzip));
  EXPECT_EQ(leases.size(), kWorkerEncoders);
  leases.pop_back();
  EXPECT_TRUE(pool.has_room());
  leases.clear();
  EXPECT_EQ(pool.leased(), 0u);
}

// --- Accept-Encoding

TEST(AcceptEncoding, ChoosesByWeightAndThenByPreference) {
  const std::vector<Coding> all = {Coding::zstd, Coding::br, Coding::gzip};
  const auto chosen = [&](std::string_view value, const std::vector<Coding>& preference) {
    FieldList fields;
    fields.add({"accept-encoding", value, FieldKind::other});
    return std::string(name(policy::choose_coding(fields, preference)));
  };
  EXPECT_EQ(policy::choose_coding(FieldList(), all), Coding::identity);
  struct Row {
    const char *value, *coding;
  };
  for (const Row& row : std::initializer_list<Row>{{"gzip", "gzip"},
                                                   {"GZip", "gzip"},
                                                   {"x-gzip", "gzip"},
                                                   {"gzip, br", "br"},
                                                   {"gzip, deflate, br, zstd", "zstd"},
                                                   {"gzip;q=1, br;q=0.9", "gzip"},
                                                   {"gzip ; q=0.5 , br; Q=0.501", "br"},
                                                   {"zstd;q=0, br;q=0.000, gzip;q=0.001", "gzip"},
                                                   {"gzip;q=0", "identity"},
                                                   {"identity", "identity"},
                                                   {"identity, gzip", "gzip"},
                                                   {"identity;q=1, gzip;q=0.5", "identity"},
                                                   {"identity;q=0.5, gzip;q=0.5", "gzip"},
                                                   {"identity;q=0", "identity"},
                                                   {"*", "zstd"},
                                                   {"*;q=0", "identity"},
                                                   {"gzip, *;q=0", "gzip"},
                                                   {"zstd;q=0, *", "br"},
                                                   {"*;q=0.5, gzip", "gzip"},
                                                   {"identity;q=0, *;q=0.1", "zstd"},
                                                   {"deflate, compress", "identity"},
                                                   {"", "identity"},
                                                   {",, ,gzip,", "gzip"},
                                                   // Malformed members do not count.
                                                   {"gzip;q=2", "identity"},
                                                   {"gzip;q=1.001", "identity"},
                                                   {"gzip;q=0.5555", "identity"},
                                                   {"gzip;q=-1", "identity"},
                                                   {"gzip;q=", "identity"},
                                                   {"gzip;level=9", "identity"},
                                                   {"gzip;", "identity"},
                                                   {"gzip;q=1;q=0", "identity"},
                                                   {"g zip, br;q=0.3", "br"},
                                                   {"\"gzip\"", "identity"}}) {
    EXPECT_EQ(chosen(row.value, all), row.coding) << row.value;
  }
  EXPECT_EQ(chosen("gzip, br, zstd", {Coding::gzip, Coding::br}), "gzip");
  FieldList lines;
  lines.add({"accept-encoding", "br;q=0.1", FieldKind::other});
  lines.add({"accept-encoding", "gzip", FieldKind::other});
  EXPECT_EQ(policy::choose_coding(lines, all), Coding::gzip) << "the lines are one list";
}

// --- through the proxy

struct Page {
  std::string status = "200 OK";
  std::string type = "text/html; charset=utf-8";
  std::string fields;
  std::string body = words(20'000, 11);
};

class CompressTest : public ::testing::Test {
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

TEST_F(CompressTest, EachCodingIsSentAsItsDecoderReadsIt) {
  page_.fields = "ETag: \"v1\"\r\nAccept-Ranges: bytes\r\nVary: Accept\r\n";
  start();
  for (const Coding coding : {Coding::gzip, Coding::br, Coding::zstd}) {
    const std::string accept = std::string("Accept-Encoding: ") + name(coding) + "\r\n";
    const Answer answer = get_page(accept);
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.field("content-encoding"), name(coding));
    EXPECT_EQ(answer.field("content-length"), "");
    EXPECT_EQ(answer.field("transfer-encoding"), "chunked");
    EXPECT_EQ(answer.field("etag"), "w/\"v1\"");
    EXPECT_EQ(answer.field("accept-ranges"), "");
    EXPECT_NE(answer.head.find("\r\nvary: accept-encoding\r\n"), std::string::npos) << answer.head;
    EXPECT_NE(answer.head.find("\r\nvary: accept\r\n"), std::string::npos) << answer.head;
    EXPECT_LT(answer.body.size(), page_.body.size() / 2);
    EXPECT_TRUE(decoded(coding, answer.body) == page_.body);
    const std::string labels = std::string("{policy=\"small\",coding=\"") + name(coding) + "\"}";
    EXPECT_EQ(edge_.metric("tidegate_l7_compress_answers_total" + labels), 1u);
    EXPECT_EQ(edge_.metric("tidegate_l7_compress_bytes_in_total" + labels), page_.body.size());
    EXPECT_EQ(edge_.metric("tidegate_l7_compress_bytes_out_total" + labels), answer.body.size());

    // HEAD gets the same as GET.
    Wire wire = Wire::connect(edge_.endpoint());
    wire.send("HEAD / HTTP/1.1\r\nHost: a\r\n" + accept + "\r\n");
    const Answer head = read_answer(wire, true);
    EXPECT_EQ(head.field("content-encoding"), name(coding));
    EXPECT_EQ(head.field("content-length"), "");
    EXPECT_EQ(head.field("etag"), "w/\"v1\"");
    wire.send(get("/", "a"));
    expect_as_it_is(read_answer(wire), "nothing followed the answer to HEAD");
  }
  const Answer plain = get_page("");
  expect_as_it_is(plain, "the client asks for nothing");
  EXPECT_EQ(plain.field("etag"), "\"v1\"");
  EXPECT_NE(plain.head.find("\r\nvary: accept-encoding\r\n"), std::string::npos) << "caches must know";
  EXPECT_EQ(left("not_asked"), 4u);
}

TEST_F(CompressTest, ClientsOfHttp10AndHttp2GetItWithTheirFraming) {
  start();
  const Answer old =
      ask(edge_.endpoint(), "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nAccept-Encoding: gzip\r\n\r\n");
  EXPECT_EQ(old.field("connection"), "close") << "its end is the connection's";
  EXPECT_EQ(old.field("transfer-encoding"), "");
  EXPECT_TRUE(decoded(Coding::gzip, old.body) == page_.body);
  for (const Coding coding : {Coding::gzip, Coding::br, Coding::zstd}) {
    Http2Client client(edge_.endpoint());
    const StreamResult answer = get_over_http2(client, coding);
    EXPECT_EQ(answer.fields.at("content-encoding"), name(coding));
    EXPECT_EQ(answer.fields.count("content-length"), 0u);
    EXPECT_TRUE(decoded(coding, answer.body) == page_.body);
  }
}

TEST_F(CompressTest, LargeContentStreamsThroughASmallClient) {
  page_.body = noise(700'000, 5) + words(700'000, 6);
  start();
  for (const Coding coding : {Coding::gzip, Coding::br, Coding::zstd}) {
    Wire wire = Wire::connect(edge_.endpoint(), 16 * 1024);
    wire.send(get("/", "a", std::string("Accept-Encoding: ") + name(coding) + "\r\n"));
    const Answer answer = read_answer(wire);
    ASSERT_TRUE(answer.complete);
    EXPECT_TRUE(decoded(coding, answer.body) == page_.body);
    Http2Client client(edge_.endpoint());
    EXPECT_TRUE(decoded(coding, get_over_http2(client, coding).body) == page_.body);
  }
}

TEST_F(CompressTest, WhatMayNotBeCompressedIsLeftAsItIs) {
  start();
  const std::string gzip = "Accept-Encoding: gzip\r\n";
  const Page usual = page_;
  const auto left_as_it_is = [&](const std::string& why, const std::function<void(Page&)>& change,
                                 const std::string& fields = "") {
    page_ = usual;
    change(page_);
    const Answer answer = get_page(gzip + fields);
    EXPECT_TRUE(answer.body == page_.body) << why;
    EXPECT_EQ(answer.field("content-length"), std::to_string(page_.body.size())) << why;
    return answer;
  };
  left_as_it_is("a coding", [](Page& page) { page.fields = "Content-Encoding: br\r\n"; });
  left_as_it_is("a digest", [](Page& page) { page.fields = "Repr-Digest: sha-256=:AAAA:\r\n"; });
  EXPECT_EQ(left("coded"), 2u);
  left_as_it_is("no-transform", [](Page& page) { page.fields = "Cache-Control: max-age=1, No-Transform\r\n"; });
  EXPECT_EQ(left("no_transform"), 1u);
  left_as_it_is(
      "the client's own no-transform", [](Page&) {}, "Cache-Control: no-transform\r\n");
  EXPECT_EQ(left("not_asked"), 1u);
  left_as_it_is("small", [](Page& page) { page.body.resize(1'023); });
  EXPECT_EQ(left("small"), 1u);
  EXPECT_EQ(left_as_it_is("a picture", [](Page& page) { page.type = "image/png"; }).field("vary"), "");
  const Answer part = left_as_it_is(
      "a part",
      [](Page& page) {
        page.status = "206 Partial Content";
        page.fields = "Content-Range: bytes 0-19999/30000\r\nETag: \"v1\"\r\n";
      },
      "Range: bytes=0-19999\r\n");
  EXPECT_EQ(part.status, 206);
  EXPECT_EQ(part.field("etag"), "\"v1\"");
  EXPECT_EQ(part.field("vary"), "accept-encoding");
  left_as_it_is(
      "BREACH", [](Page&) {}, "Authorization: Bearer x\r\n");
  EXPECT_EQ(left("authenticated"), 1u);
  page_ = usual;
  page_.fields = "Cache-Control: public, max-age=60\r\n";
  EXPECT_EQ(get_page(gzip + "Authorization: Bearer x\r\n").field("content-encoding"), "gzip") << "public";
  page_ = usual;
  page_.fields = "Content-Encoding: identity\r\n";
  EXPECT_EQ(get_page(gzip).field("content-encoding"), "gzip") << "identity is no coding";
  page_ = usual;
  page_.body.resize(1'024);
  EXPECT_EQ(get_page(gzip).field("content-encoding"), "gzip") << "as large as the minimum";
}

// Nothing in the request shows its sender: the forward service has identified the client by other means.
TEST_F(CompressTest, WhatAuthenticateHasLetInIsLeftAsItIs) {
  auto part = std::make_shared<AuthenticatePolicy>();
  part->optional = true;
  edge_.model.policies.push_back({"who", true, {{"authenticate", part}}});
  start();
  expect_as_it_is(get_page("Accept-Encoding: gzip\r\n"), "BREACH");
  EXPECT_EQ(left("authenticated"), 1u);
  page_.fields = "Cache-Control: public\r\n";
  EXPECT_EQ(get_page("Accept-Encoding: gzip\r\n").field("content-encoding"), "gzip");
}

TEST_F(CompressTest, TypesCodingsAndTheMinimumAreThoseOfTheKeys) {
  page_.type = "application/vnd.shop+json";
  page_.body = words(100, 1);
  start([](CompressPolicy& part) {
    part.types = {"application/*+json"};
    part.codings = {"gzip", "br"};
    part.minimum = 0;
  });
  EXPECT_EQ(get_page("Accept-Encoding: zstd, br, gzip\r\n").field("content-encoding"), "gzip");
  EXPECT_EQ(get_page("Accept-Encoding: zstd\r\n").field("content-encoding"), "");
  page_.body.clear();
  EXPECT_EQ(get_page("Accept-Encoding: gzip\r\n").field("content-encoding"), "") << "nothing";
  page_.body = words(5'000, 1);
  page_.type = "text/html";
  EXPECT_EQ(get_page("Accept-Encoding: gzip\r\n").field("content-encoding"), "");
}

// A 304 keeps the client's own validator, and the cache answers it.
TEST_F(CompressTest, HitsAreCompressedForEachClientAndRevalidateByTheWeakTag) {
  page_.fields = "ETag: \"v1\"\r\nCache-Control: max-age=600\r\n";
  start({}, true);
  for (const char* coding : {"gzip", "br", "zstd", "gzip"}) {
    const Answer answer = get_page(std::string("Accept-Encoding: ") + coding + "\r\n");
    EXPECT_EQ(answer.field("content-encoding"), coding);
    EXPECT_TRUE(decoded(*parse_coding(coding), answer.body) == page_.body);
  }
  expect_as_it_is(get_page(""), "what is stored is as it came");
  EXPECT_EQ(origin_.requests(), 1u);
  const Answer weak = get_page("Accept-Encoding: gzip\r\nIf-None-Match: \"v0\", W/\"v1\"\r\n");
  EXPECT_EQ(weak.status, 304);
  EXPECT_EQ(weak.field("etag"), "w/\"v1\"");
  EXPECT_EQ(weak.field("vary"), "accept-encoding");
  const Answer strong = get_page("If-None-Match: \"v1\"\r\n");
  EXPECT_EQ(strong.status, 304);
  EXPECT_EQ(strong.field("etag"), "\"v1\"");
  const Answer part = get_page("Accept-Encoding: gzip\r\nRange: bytes=5-9\r\n");
  EXPECT_EQ(part.status, 206);
  EXPECT_EQ(part.body, page_.body.substr(5, 5));
  EXPECT_EQ(part.field("content-encoding"), "");
  EXPECT_EQ(origin_.requests(), 1u);
}

// --- stored beside the answer

std::string accepting(Coding coding) { return std::string("Accept-Encoding: ") + name(coding) + "\r\n"; }

class StoredCodingTest : public CompressTest {
 protected:
  void start_cached(const std::function<void(CompressPolicy&)>& set = {}) {
    page_.fields = "ETag: \"v1\"\r\nCache-Control: max-age=600\r\n";
    start(set, true);
    expect_as_it_is(get_page(""), "it is stored");
  }
  // Number of bytes given to encoders.
  uint64_t compressed(Coding coding) {
    return edge_.metric(std::string("tidegate_l7_compress_bytes_in_total{policy=\"small\",coding=\"") + name(coding) +
                        "\"}");
  }
  void purge() {
    Purge purge;
    purge.kind = PurgeKind::url;
    purge.value = "http://a.test/";
    edge_.proxy().purge(purge);
  }
};

TEST_F(StoredCodingTest, AHitIsCompressedOnceForEachCoding) {
  start_cached();
  for (const Coding coding : {Coding::gzip, Coding::br, Coding::zstd}) {
    const Answer first = get_page(accepting(coding));
    EXPECT_EQ(first.field("content-length"), "") << "compressed on its way";
    const Answer second = get_page(accepting(coding));
    EXPECT_EQ(second.field("content-length"), std::to_string(second.body.size())) << "stored";
    EXPECT_TRUE(decoded(coding, second.body) == page_.body);
    EXPECT_EQ(second.field("content-encoding"), name(coding));
    EXPECT_EQ(second.field("etag"), "w/\"v1\"");
    EXPECT_EQ(second.field("vary"), "accept-encoding");
    EXPECT_EQ(second.field("accept-ranges"), "");
    EXPECT_EQ(compressed(coding), page_.body.size()) << "once";
    Http2Client client(edge_.endpoint());
    const StreamResult over_http2 = get_over_http2(client, coding);
    EXPECT_TRUE(over_http2.body == second.body);
    EXPECT_EQ(over_http2.fields.at("content-length"), std::to_string(second.body.size()));
    Wire wire = Wire::connect(edge_.endpoint());
    wire.send("HEAD / HTTP/1.1\r\nHost: a.test\r\n" + accepting(coding) + "\r\n");
    EXPECT_EQ(read_answer(wire, true).field("content-length"), std::to_string(second.body.size()));
  }
  EXPECT_EQ(origin_.requests(), 1u);
  EXPECT_EQ(edge_.metric("tidegate_cache_coded_stored_total"), 3u);
  EXPECT_EQ(edge_.metric("tidegate_cache_coded_objects"), 3u);
  expect_as_it_is(get_page(""), "and beside them what came");
}

// A part and a validator belong to one coding: parts are of the backend's bytes, with its strong tag.
TEST_F(StoredCodingTest, PartsAndTagsBelongToOneCoding) {
  start_cached();
  const Coding coding = Coding::gzip;
  get_page(accepting(coding));
  const std::string whole = get_page(accepting(coding)).body;
  const Answer part = get_page(accepting(coding) + "Range: bytes=5-9\r\n");
  EXPECT_EQ(part.status, 206);
  EXPECT_EQ(part.body, page_.body.substr(5, 5));
  EXPECT_EQ(part.field("content-encoding"), "");
  EXPECT_EQ(part.field("etag"), "\"v1\"");
  const Answer again = get_page(accepting(coding) + "Range: bytes=5-9\r\nIf-Range: W/\"v1\"\r\n");
  EXPECT_EQ(again.status, 200) << "who has the compressed body gets the whole of it";
  EXPECT_TRUE(again.body == whole);
  const Answer same = get_page(accepting(coding) + "If-None-Match: W/\"v1\"\r\n");
  EXPECT_EQ(same.status, 304);
  EXPECT_EQ(same.field("etag"), "w/\"v1\"");
}

TEST_F(StoredCodingTest, APurgeReachesEveryCoding) {
  start_cached();
  for (int i = 0; i < 2; ++i) {
    for (const Coding coding : {Coding::gzip, Coding::br, Coding::zstd}) get_page(accepting(coding));
  }
  EXPECT_EQ(edge_.metric("tidegate_cache_coded_objects"), 3u);
  purge();
  EXPECT_EQ(edge_.metric("tidegate_cache_coded_objects"), 0u);
  page_.body = words(20'000, 12);
  for (const Coding coding : {Coding::gzip, Coding::br, Coding::zstd}) {
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(decoded(coding, get_page(accepting(coding)).body) == page_.body);
  }
  EXPECT_EQ(origin_.requests(), 2u);
}

TEST_F(StoredCodingTest, ThePolicyCanLeaveItOut) {
  start_cached([](CompressPolicy& part) { part.store = false; });
  for (int i = 0; i < 3; ++i) EXPECT_EQ(get_page(accepting(Coding::gzip)).field("content-length"), "");
  EXPECT_EQ(compressed(Coding::gzip), 3 * page_.body.size());
  EXPECT_EQ(edge_.metric("tidegate_cache_coded_stored_total"), 0u);
}

// A client that leaves in the middle of its answer leaves nothing behind. A body that is too long is compressed for
// each client.
TEST_F(StoredCodingTest, OnlyWholeBodiesWithinTheBoundAreStored) {
  page_.body = noise(12'000'000, 5);  // more than the kernel takes for a client that does not read
  start_cached();
  for (int i = 0; i < 2; ++i) {
    const Answer answer = get_page(accepting(Coding::gzip));
    EXPECT_EQ(answer.field("content-length"), "");
    EXPECT_TRUE(decoded(Coding::gzip, answer.body) == page_.body);
  }
  {
    Wire leaves = Wire::connect(edge_.endpoint(), 16 * 1024);
    leaves.send(get("/", "a.test", accepting(Coding::gzip)));
    leaves.read_until("\r\n\r\n");
    leaves.reset();
  }
  EXPECT_TRUE(edge_.run_until([&] { return edge_.metric("tidegate_l7_failures_total{reason=\"client_gone\"}") == 1; }));
  EXPECT_EQ(edge_.metric("tidegate_cache_coded_objects"), 0u);
}

// Each event reaches the client before the next one is sent.
TEST_F(CompressTest, EventsArriveAsTheyAreSent) {
  for (const bool cached : {false, true}) {
    std::atomic<int> read{0};
    Origin events([&](const std::string&, Wire& wire) {
      const std::string cache = cached ? "Cache-Control: max-age=60\r\n" : "";
      wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n" + cache + "\r\n");
      for (int i = 0; i < 5; ++i) {
        wire.send("data: " + std::to_string(i) + "\n\n");
        while (read.load() <= i) std::this_thread::yield();
      }
      return false;
    });
    const StateDir state;
    Edge edge;
    edge.model.policies.push_back({"small", true, {{"compress", std::make_shared<CompressPolicy>()}}});
    if (cached) {
      edge.state_dir = state.path;
      edge.model.nodes[0].cache.enabled = true;
    }
    edge.add_route("/*", edge.add_pool("p", {events.endpoint()})).cache.enabled = cached;
    edge.start();
    for (const Coding coding : {Coding::gzip, Coding::br, Coding::zstd}) {
      read = 0;
      Wire wire = Wire::connect(edge.endpoint());
      wire.send("GET /" + std::string(name(coding)) + " HTTP/1.0\r\nHost: a\r\nAccept-Encoding: " + name(coding) +
                "\r\n\r\n");
      EXPECT_NE(wire.read_until("\r\n\r\n").find(std::string("Content-Encoding: ") + name(coding)), std::string::npos);
      Decoder decoder(coding);
      for (int i = 0; i < 5; ++i) {
        const std::string mark = "data: " + std::to_string(i) + "\n\n";
        while (!decoder.text.ends_with(mark)) {
          const std::string bytes = wire.read_some();
          ASSERT_FALSE(bytes.empty()) << "event " << i;
          ASSERT_TRUE(decoder.feed(bytes));
        }
        ++read;
      }
      ASSERT_TRUE(decoder.feed(wire.read_to_end()) && decoder.ended());
    }
  }
}

// If a client leaves or a backend breaks off, the encoder is returned, and no client considers the answer complete.
TEST_F(CompressTest, ABodyThatBreaksOffIsNotEndedAsWhole) {
  Origin broken([](const std::string&, Wire& wire) {
    wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 50000\r\n\r\n" + words(30'000, 1));
    return false;
  });
  edge_.model.policies.push_back({"small", true, {{"compress", std::make_shared<CompressPolicy>()}}});
  edge_.add_route("/*", edge_.add_pool("p", {broken.endpoint()}));
  edge_.start();
  for (int i = 0; i < 3; ++i) {
    const Answer answer = get_page("Accept-Encoding: gzip\r\n");
    EXPECT_EQ(answer.field("content-encoding"), "gzip");
    EXPECT_FALSE(answer.complete);
  }
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"backend_truncated\"}"), 3u);
}

TEST_F(CompressTest, ManySlowClientsLeaveTheOthersUncompressed) {
  std::atomic<bool> over{false};
  Origin endless([&](const std::string&, Wire& wire) {
    wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nbegun");
    over.wait(false);
    return false;
  });
  edge_.add_route("/endless", edge_.add_pool("endless", {endless.endpoint()})).policies = {0};
  start();
  std::vector<Wire> slow;
  for (size_t i = 0; i < kWorkerEncoders; ++i) {
    slow.push_back(Wire::connect(edge_.endpoint()));
    slow.back().send(get("/endless", "a", "Accept-Encoding: gzip\r\n"));
    EXPECT_NE(slow.back().read_until("\r\n\r\n").find("Content-Encoding: gzip"), std::string::npos);
  }
  const Answer answer = get_page("Accept-Encoding: gzip\r\n");
  expect_as_it_is(answer, "no encoder is free");
  EXPECT_EQ(answer.field("vary"), "accept-encoding");
  EXPECT_EQ(left("no_room"), 1u);
  over = true;
  over.notify_all();
  slow.clear();
  EXPECT_TRUE(
      edge_.run_until([&] { return get_page("Accept-Encoding: gzip\r\n").field("content-encoding") == "gzip"; }));
}

TEST_F(CompressTest, ExplainTellsWhatAClientWouldGet) {
  start([](CompressPolicy& part) { part.codings = {"br", "gzip"}; });
  HttpRequest request;
  request.query = "client=192.0.2.1&url=http://a.test/";
  const nlohmann::json entry = (*edge_.proxy().explain(request))["policies"][0];
  EXPECT_EQ(entry["kind"], "compress");
  EXPECT_EQ(entry["coding"], "identity") << "explain's request has no Accept-Encoding";
  EXPECT_EQ(entry["codings"], nlohmann::json({"br", "gzip"}));
  EXPECT_EQ(entry["minimum"], 1'024);
}

}  // namespace tidegate::l7::test::compress_test
