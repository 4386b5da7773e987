// SPDX-License-Identifier: Apache-2.0
// Compressed bodies that are stored beside the cached answer.
#include <gtest/gtest.h>

#include "tests/unit/l7/compressing_edge.h"

namespace tidegate::l7::test::stored_coding_test {

std::string accepting(Coding coding) { return std::string("Accept-Encoding: ") + name(coding) + "\r\n"; }

class StoredCodingTest : public CompressingEdge {
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

}  // namespace tidegate::l7::test::stored_coding_test
