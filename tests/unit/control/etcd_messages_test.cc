// SPDX-License-Identifier: Apache-2.0
// Requests to etcd and its answers, as text; also text that no etcd sends.

#include "control/etcd/messages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "control/api/json_bounds.h"
#include "control/etcd/client.h"
#include "control/etcd/records.h"

namespace tidegate::etcd::etcd_messages_test {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(EtcdMessages, ATransactionSaysWhatMustHoldAndWhatItDoes) {
  Txn txn;
  txn.compares = {{Compare::Of::create_revision, "k", 7}, {Compare::Of::mod_revision, "h", 0}};
  txn.puts = {{"a", "b"}};
  txn.erases = {{"x", "y"}};
  txn.lease = UINT64_MAX / 2;
  txn.otherwise_get = {"h"};
  const json request = txn_request(txn);
  EXPECT_EQ(request["compare"][0],
            json::parse(R"({"key":"aw==","result":"EQUAL","target":"CREATE","create_revision":"7"})"));
  EXPECT_EQ(request["compare"][1], json::parse(R"({"key":"aA==","result":"EQUAL","target":"MOD","mod_revision":"0"})"));
  EXPECT_EQ(request["success"][0],
            json::parse(R"({"request_put":{"key":"YQ==","value":"Yg==","lease":"9223372036854775807"}})"));
  EXPECT_EQ(request["success"][1], json::parse(R"({"request_delete_range":{"key":"eA==","range_end":"eQ=="}})"));
  EXPECT_EQ(request["failure"][0], json::parse(R"({"request_range":{"key":"aA=="}})"));
}

TEST(EtcdMessages, TheEndOfAPrefix) {
  EXPECT_EQ(range_end_of("/a/"), "/a0");
  EXPECT_EQ(range_end_of("a\xff\xff"), "b");
  EXPECT_EQ(range_end_of("\xff"), std::string(1, '\0'));
}

TEST(EtcdMessages, AbsentMembersAreZeroAndNumbersAreStrings) {
  const Result<TxnAnswer> txn = parse_txn(json::parse(
      R"({"header":{"revision":"18446744073709551615"},"responses":[{"response_range":{"kvs":[{"key":"aA==","mod_revision":"5"}]}}]})"));
  ASSERT_TRUE(txn);
  EXPECT_FALSE(txn->succeeded);
  EXPECT_EQ(txn->revision, UINT64_MAX);
  EXPECT_EQ(txn->kvs[0].key, "h");
  EXPECT_EQ(txn->kvs[0].value, "");
  EXPECT_EQ(txn->kvs[0].mod_revision, 5u);
  const Result<Lease> ended = parse_keepalive(json::parse(R"({"result":{"header":{},"ID":"12"}})"));
  ASSERT_TRUE(ended);
  EXPECT_EQ(ended->ttl_s, 0u);
  const Result<WatchAnswer> watch = parse_watch(json::parse(
      R"({"result":{"canceled":true,"compact_revision":"9","events":[{"type":"DELETE","kv":{"key":"aA=="}}]}})"));
  ASSERT_TRUE(watch);
  EXPECT_TRUE(watch->canceled && watch->events[0].erased);
  EXPECT_EQ(watch->compact_revision, 9u);
}

TEST(EtcdMessages, WhatNoEtcdSendsIsRefused) {
  for (const char* text :
       {"[]", "7", "null", R"({"header":{"revision":-1}})", R"({"header":{"revision":"x"}})",
        R"({"header":{"revision":"18446744073709551616"}})", R"({"kvs":[{}]})", R"({"kvs":[{"key":"!"}]})",
        R"({"kvs":[{"key":"aA==","value":3}]})", R"({"kvs":[7]})", R"({"kvs":[{"key":"aA==","lease":[]}]})"}) {
    EXPECT_FALSE(parse_range(json::parse(text))) << text;
  }
  EXPECT_TRUE(parse_range(json::parse(R"({"header":7,"kvs":"x"})"))) << "absent, as far as anybody can tell";
  EXPECT_FALSE(parse_grant(json::parse("{}")));
  EXPECT_FALSE(parse_grant(json::parse(R"({"ID":"0","TTL":"2"})")));
  EXPECT_FALSE(parse_watch(json::parse("{}")));
  EXPECT_FALSE(parse_watch(json::parse(R"({"result":[]})")));
  EXPECT_FALSE(parse_watch(json::parse(R"({"result":{"events":[{}]}})")));
}

TEST(EtcdMessages, ErrorsAreSentences) {
  EXPECT_THAT(*error_in(json::parse(R"({"error":"etcdserver: no leader","code":14})")), HasSubstr("14"));
  EXPECT_THAT(*error_in(json::parse(R"({"error":{"grpc_code":16,"message":"invalid auth token"}})")),
              HasSubstr("invalid auth"));
  EXPECT_TRUE(error_in(json::parse(R"({"error":[]})")));
  EXPECT_TRUE(error_in(json::parse("[]")));
  EXPECT_FALSE(error_in(json::parse("{}")));
}

TEST(EtcdEndpoints, AreUrlsWithoutAPath) {
  EXPECT_THAT(*parse_endpoints("http://127.0.0.1:2379,https://etcd.example:2379/"),
              ElementsAre("http://127.0.0.1:2379", "https://etcd.example:2379"));
  EXPECT_TRUE(parse_endpoints("https://[2001:db8::1]:2379"));
  for (const char* bad :
       {"", ",", "127.0.0.1:2379", "ftp://a:1", "http://a:1,", "http://a:1/v3", "http://u:p@a:1", "http://a:1?x"}) {
    EXPECT_FALSE(parse_endpoints(bad)) << bad;
  }
  std::string many = "http://a:1";
  for (int i = 0; i < 16; ++i) many += ",http://a:1";
  EXPECT_FALSE(parse_endpoints(many));
}

TEST(EtcdRecords, AHeadReadsBackAndNothingElseIsOne) {
  Head head;
  head.position = {9, std::string(64, 'a')};
  head.first = 3;
  head.bytes = 100;
  head.checkpoint = {{5, std::string(64, 'b')}, 77};
  const Result<Head> read = parse_head(encode(head));
  ASSERT_TRUE(read);
  EXPECT_EQ(*read, head);
  Head ahead = head, gap = head;
  ahead.checkpoint.position.sequence = 10;
  gap.first = 7;
  for (const std::string& bad : {encode(ahead), encode(gap), std::string(), std::string("{}"), std::string("[]"),
                                 std::string("{\"sequence\":1}")}) {
    EXPECT_FALSE(parse_head(bad)) << bad;
  }
  EXPECT_EQ(parse_leader("nonsense").node, "");
}

TEST(EtcdRecords, KeysOfPieces) {
  const Keys keys("/t/");
  const std::string key = Keys::piece(keys.journal(255), 1, 3);
  EXPECT_EQ(key, "/t/journal/00000000000000ff/000001-000003");
  const auto piece = keys.parse_piece(key);
  ASSERT_TRUE(piece);
  EXPECT_EQ(piece->sequence, 255u);
  EXPECT_EQ(piece->index, 1u);
  EXPECT_EQ(piece->count, 3u);
  for (const char* bad : {"", "/t/", "/t/now/head", "/x/journal/00000000000000ff/000001-000003",
                          "/t/journal/00000000000000fg/000001-000003", "/t/journal/00000000000000ff/000003-000003"}) {
    EXPECT_FALSE(keys.parse_piece(bad)) << bad;
  }
}

TEST(EtcdRecords, AWriteIsSealedAndReadsBackWithTheSameSecretOnly) {
  Write write{std::string(64, 'c'), {}};
  write.set.changes = {{"sys", "head", "1"}, {"object", "key", std::nullopt}};
  write.set.secrets = {{std::string(32, 'h'), "-----BEGIN PRIVATE KEY-----"}};
  std::string digest, read_digest;
  const std::string sealed = seal_write(seal_key("secret"), write.previous, write.set, digest);
  EXPECT_EQ(sealed.find("PRIVATE KEY"), std::string::npos);
  const Result<Write> read = open_write(seal_key("secret"), sealed, read_digest);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->previous, write.previous);
  EXPECT_EQ(digest, read_digest);
  EXPECT_EQ(encode_write_set(read->set), encode_write_set(write.set));
  EXPECT_FALSE(open_write(seal_key("another"), sealed, read_digest));
  for (size_t cut = 0; cut < sealed.size(); cut += 7) {
    EXPECT_FALSE(open_write(seal_key("secret"), sealed.substr(0, cut), read_digest)) << cut;
  }
}

TEST(WriteSetForm, EveryCutAndEveryWrongByteIsAnErrorOrAnotherSet) {
  WriteSet set;
  set.whole = true;
  set.changes = {{"load", "k", "value"}, {"answered", "k2", std::nullopt}};
  set.secrets = {{std::string(32, 's'), "bytes"}};
  const std::string encoded = encode_write_set(set);
  const Result<WriteSet> read = decode_write_set(encoded);
  ASSERT_TRUE(read);
  EXPECT_EQ(encode_write_set(*read), encoded);
  for (size_t cut = 0; cut < encoded.size(); ++cut) EXPECT_FALSE(decode_write_set(encoded.substr(0, cut))) << cut;
  EXPECT_FALSE(decode_write_set(encoded + "x"));
  for (size_t at = 0; at < encoded.size(); ++at) {
    std::string wrong = encoded;
    wrong[at] = static_cast<char>(wrong[at] ^ 0x80);
    if (const Result<WriteSet> other = decode_write_set(wrong)) {
      EXPECT_NE(encode_write_set(*other), encoded) << at;
    }
  }
}

}  // namespace tidegate::etcd::etcd_messages_test
