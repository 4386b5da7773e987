// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "core/http1.h"

namespace tidegate::http1::http1_chunked_test {

struct Decoded {
  Status status = Status::incomplete;
  Fault fault = Fault::none;
  std::string body;
  size_t consumed = 0;
};

void feed(ChunkedDecoder& decoder, std::string_view bytes, Decoded& decoded) {
  while (decoded.status == Status::incomplete) {
    const ChunkedDecoder::Step step = decoder.decode(bytes);
    decoded.status = step.status;
    decoded.fault = step.fault;
    decoded.body += step.data;
    decoded.consumed += step.consumed;
    bytes.remove_prefix(step.consumed);
    if (step.consumed == 0) return;
  }
}

Decoded decode(std::string_view bytes, const Limits& limits = {}) {
  ChunkedDecoder decoder(limits);
  Decoded decoded;
  feed(decoder, bytes, decoded);
  return decoded;
}

void expect_refused(std::string_view bytes, Fault fault, const Limits& limits = {}) {
  const Decoded decoded = decode(bytes, limits);
  EXPECT_EQ(decoded.status, Status::error) << bytes;
  EXPECT_STREQ(fault_info(decoded.fault).name, fault_info(fault).name) << bytes;
}

TEST(Http1Chunked, TakesTheFramingOff) {  // RFC 9112 §7.1
  const std::string bytes = "4\r\nWiki\r\n00A;x=\"y\"\r\n0123456789\r\n0\r\n\r\nNEXT";
  const Decoded decoded = decode(bytes);
  EXPECT_EQ(decoded.status, Status::complete);
  EXPECT_EQ(decoded.body, "Wiki0123456789");
  EXPECT_EQ(decoded.consumed, bytes.size() - 4);
}

TEST(Http1Chunked, DropsTrailers) {
  const Decoded decoded = decode("1\r\na\r\n0\r\nX-Sum: 12\r\nEmpty:\r\n\r\n");
  EXPECT_EQ(decoded.status, Status::complete);
  EXPECT_EQ(decoded.body, "a");
}

TEST(Http1Chunked, SplittingTheInputAnywhereChangesNothing) {
  for (const std::string bytes : {"4\r\nWiki\r\nA;x=y\r\n0123456789\r\n0;z\r\nT: v\r\n\r\nNEXT", "3\r\nabcX", "g\r\n",
                                  "1;\x01\r\n", "1\r\na\r\n0\r\nT : v\r\n\r\n"}) {
    const Decoded whole = decode(bytes);
    for (size_t split = 0; split <= bytes.size(); ++split) {
      ChunkedDecoder decoder;
      Decoded parts;
      feed(decoder, std::string_view(bytes).substr(0, split), parts);
      feed(decoder, std::string_view(bytes).substr(split), parts);
      EXPECT_EQ(parts.status, whole.status) << bytes << '@' << split;
      EXPECT_EQ(parts.fault, whole.fault);
      EXPECT_EQ(parts.body, whole.body);
      EXPECT_EQ(parts.consumed, whole.consumed);
    }
  }
}

TEST(Http1Chunked, NeedsMoreUntilTheEnd) {
  const std::string bytes = "1\r\na\r\n0\r\n\r\n";
  for (size_t n = 0; n < bytes.size(); ++n)
    EXPECT_EQ(decode(std::string_view(bytes).substr(0, n)).status, Status::incomplete);
}

TEST(Http1Chunked, RefusesMalformedSizes) {
  for (const char* size : {"g", "", "0x1", "-1", "+1", " 1", "1 ", "1 ;x", "1\t", "8000000000000000",
                           "FFFFFFFFFFFFFFFF", "10000000000000000"}) {
    expect_refused(std::string(size) + "\r\na\r\n0\r\n\r\n", Fault::bad_chunk);
  }
  EXPECT_EQ(decode("7fffffffffffffff\r\na").status, Status::incomplete);
}

TEST(Http1Chunked, RefusesBareLineEndings) {
  expect_refused("1\na\r\n0\r\n\r\n", Fault::bad_line_ending);
  expect_refused("1\rXa\r\n0\r\n\r\n", Fault::bad_line_ending);
  expect_refused("1;x\na\r\n0\r\n\r\n", Fault::bad_line_ending);
  expect_refused("1\r\na\n0\r\n\r\n", Fault::bad_line_ending);
  expect_refused("1\r\na\rX", Fault::bad_line_ending);
  expect_refused("0\r\n\n", Fault::bad_line_ending);
  expect_refused("0\r\nT: v\n\r\n", Fault::bad_line_ending);
}

TEST(Http1Chunked, RefusesDataWithoutItsEnd) {
  expect_refused("1\r\nab\r\n0\r\n\r\n", Fault::bad_chunk);
  expect_refused("2\r\na0\r\n\r\n0\r\n\r\n", Fault::bad_chunk);
}

TEST(Http1Chunked, HoldsTrailersToTheRulesOfFields) {
  expect_refused("0\r\n T: v\r\n\r\n", Fault::obs_fold);
  expect_refused("0\r\nT : v\r\n\r\n", Fault::space_before_colon);
  expect_refused("0\r\nT\r\n\r\n", Fault::bad_field_name);
  expect_refused("0\r\n: v\r\n\r\n", Fault::bad_field_name);
  expect_refused(std::string("0\r\nT: \0\r\n\r\n", 11), Fault::bad_field_value);
}

TEST(Http1Chunked, BoundsExtensionsAndTrailers) {
  Limits limits;
  limits.chunk_line_bytes = 16;
  limits.chunk_extension_bytes = 20;
  limits.trailer_bytes = 20;
  expect_refused("1;" + std::string(20, 'x') + "\r\na\r\n0\r\n\r\n", Fault::chunk_extension_too_long, limits);
  expect_refused(std::string(20, '0') + "1\r\na\r\n0\r\n\r\n", Fault::bad_chunk, limits);
  std::string many;
  for (int i = 0; i < 3; ++i) many += "1;xxxxxxxx\r\na\r\n";
  expect_refused(many + "0\r\n\r\n", Fault::chunk_extension_too_long, limits);
  expect_refused("0\r\nT: " + std::string(20, 'v') + "\r\n\r\n", Fault::trailers_too_large, limits);
}

TEST(Http1Chunked, EncodesWhatItDecodes) {
  for (const uint64_t bytes : {uint64_t{0}, uint64_t{1}, uint64_t{15}, uint64_t{16}, uint64_t{0x1a2b}, UINT64_MAX}) {
    char header[18];
    const std::string text(header, encode_chunk_header(bytes, header));
    EXPECT_EQ(std::stoull(text, nullptr, 16), bytes);
    EXPECT_EQ(text.substr(text.size() - 2), "\r\n");
  }
  char header[18];
  EXPECT_EQ(std::string(header, encode_chunk_header(0x1a2b, header)), "1a2b\r\n");
}

}  // namespace tidegate::http1::http1_chunked_test
