// SPDX-License-Identifier: Apache-2.0
// The encoder against nghttp2's decoder.
#include "l7/h2/hpack.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "tests/unit/l7/hpack_peer.h"

namespace tidegate::l7::hpack_test {

using Peer = HpackPeer;
using Fields = HpackPeer::Fields;

TEST(HpackEncoder, ASecondHeadIsAsLongAsItsNumberOfFields) {
  HpackEncoder encoder;
  Peer peer;
  const Fields fields{{":status", "200"},
                      {"content-type", "text/html; charset=utf-8"},
                      {"cache-control", "no-store"},
                      {"x-own", "some text"},
                      {"via", "1.1 bench"},
                      {"empty", ""}};
  EXPECT_EQ(peer.sent(encoder, fields), fields);
  EXPECT_EQ(peer.sent(encoder, fields), fields);
  EXPECT_EQ(peer.block().size(), fields.size());
}

TEST(HpackEncoder, EveryByteAndEveryLengthComesThrough) {
  HpackEncoder encoder;
  Peer peer;
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  EXPECT_EQ(peer.sent(encoder, {{"all", all}}), (Fields{{"all", all}}));
  for (int byte = 0; byte < 256; ++byte) {
    for (const size_t count : {1u, 7u}) {
      const Fields fields{{"x", std::string(count, static_cast<char>(byte))}};
      EXPECT_EQ(peer.sent(encoder, fields), fields) << byte;
    }
  }
  for (size_t length = 0; length < 700; ++length) {
    for (const char byte : {'0', '~', '\x7f'}) {
      const Fields fields{{std::string(length % 150 + 1, 'n'), std::string(length, byte)}};
      EXPECT_EQ(peer.sent(encoder, fields), fields) << length;
    }
  }
  for (const size_t length : {4'096u, 16'383u, 16'511u, 60'000u}) {
    const Fields fields{{"long", std::string(length, 'a')}, {"longer", std::string(length, '\x01')}};
    EXPECT_EQ(peer.sent(encoder, fields), fields) << length;
  }
}

TEST(HpackEncoder, HuffmansCodeIsUsedWhereItIsShorter) {
  HpackEncoder encoder;
  Peer peer;
  // RFC 7541 C.4.1, of which the name is in the static table
  ASSERT_EQ(peer.sent(encoder, {{":authority", "www.example.com"}})->size(), 1u);
  EXPECT_EQ(peer.block(), "\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff");
  ASSERT_EQ(peer.sent(encoder, {{":path", "/~~"}})->size(), 1u);
  EXPECT_EQ(peer.block(), std::string("\x04\x03/~~"));
}

TEST(HpackEncoder, OftenChangingValuesDisplaceNothing) {
  HpackEncoder encoder;
  Peer peer;
  const Fields lasting{{"x-lasting", "value"}};
  peer.sent(encoder, lasting);
  peer.sent(encoder, {{"x-request-id", "first"}}, Indexing::name_only);
  const size_t table_bytes = peer.table_bytes();
  for (int i = 0; i < 1'000; ++i) {
    const std::string number = std::to_string(i);
    const Fields changing{
        {"content-length", number}, {"etag", number}, {"age", number}, {":path", "/" + number}, {"set-cookie", number}};
    ASSERT_EQ(peer.sent(encoder, changing), changing);
    ASSERT_EQ(peer.sent(encoder, {{"x-request-id", "id" + number}}, Indexing::name_only)->size(), 1u);
    ASSERT_LE(peer.block().size(), number.size() + 5) << "the name is a number";
  }
  EXPECT_EQ(peer.table_bytes(), table_bytes);
  peer.sent(encoder, lasting);
  EXPECT_EQ(peer.block().size(), 1u);
}

TEST(HpackEncoder, SecretsGoIntoNoTable) {
  HpackEncoder encoder;
  Peer peer;
  peer.sent(encoder, {{"authorization", "Basic YTpi"}, {"proxy-authorization", "x"}, {"cookie", "a=short"}});
  EXPECT_EQ(peer.never_indexed(), std::vector<bool>({true, true, true}));
  EXPECT_EQ(peer.table_bytes(), 0u);
}

TEST(HpackEncoder, ThePeersLimitHoldsFromTheNextBlockOn) {
  HpackEncoder encoder;
  Peer peer;
  const Fields fields{{"x-first", "first value"}, {"x-second", "second value"}};
  peer.sent(encoder, fields);
  peer.limit(encoder, 60);
  EXPECT_EQ(peer.sent(encoder, fields), fields) << "each fits alone, but is too large a part";
  EXPECT_LE(peer.table_bytes(), 60u);
  peer.limit(encoder, 0);
  EXPECT_EQ(peer.sent(encoder, fields), fields);
  EXPECT_EQ(peer.table_bytes(), 0u);
  peer.limit(encoder, 65'536);
  EXPECT_EQ(peer.sent(encoder, fields), fields);
  EXPECT_EQ(peer.sent(encoder, fields), fields);
  EXPECT_EQ(peer.block().size(), 2u);
  peer.limit(encoder, 0);
  peer.limit(encoder, 4'096);
  EXPECT_EQ(peer.sent(encoder, fields), fields) << "the peer has dropped all";
  EXPECT_EQ(peer.block().substr(0, 1), std::string("\x20"));
}

TEST(HpackEncoder, WhateverIsSentIsRead) {
  std::mt19937 random(7);
  const auto below = [&](size_t bound) { return std::uniform_int_distribution<size_t>(0, bound - 1)(random); };
  for (int connection = 0; connection < 40; ++connection) {
    HpackEncoder encoder;
    Peer peer;
    const size_t kinds = 1 + below(120);
    for (int block = 0; block < 300; ++block) {
      if (below(40) == 0) peer.limit(encoder, below(6'000));
      Fields fields;
      for (size_t count = below(20); count > 0; --count) {
        const size_t kind = below(kinds);
        const size_t length = below(50) == 0 ? below(3'500) : kind % 60;
        fields.emplace_back("name-" + std::to_string(kind % 37),
                            std::string(length, static_cast<char>('a' + kind % 26)));
      }
      const Indexing indexing = below(10) == 0 ? Indexing::name_only : Indexing::by_name;
      ASSERT_EQ(peer.sent(encoder, fields, indexing), fields) << connection << ' ' << block;
    }
  }
}

}  // namespace tidegate::l7::hpack_test
