// SPDX-License-Identifier: Apache-2.0
// The encoders of the compress policy beside their libraries' decoders, and the choice by Accept-Encoding.
#include <gtest/gtest.h>

#include <random>

#include "l7/policy/accept_encoding.h"
#include "l7/policy/encoder.h"
#include "tests/unit/l7/decoder.h"

namespace tidegate::l7::test::encoders_test {

struct Collect final : Encoder::Sink {
  void take(std::string_view bytes) override {
    EXPECT_LE(bytes.size(), kBlockBytes);
    out += bytes;
  }
  std::string out;
};

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

}  // namespace tidegate::l7::test::encoders_test
