// SPDX-License-Identifier: Apache-2.0
// The decoder against the examples of RFC 7541, against malformed blocks, and against nghttp2's decoder.
#include "l7/h2/hpack_decoder.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "l7/h2/hpack.h"
#include "l7/h2/huffman.h"
#include "tests/unit/l7/hpack_reader.h"

namespace tidegate::l7::hpack_decoder_test {

std::string bytes_of(std::string_view hex) {
  std::string out;
  int high = -1;
  for (const char c : hex) {
    if (c == ' ') continue;
    const int digit = c <= '9' ? c - '0' : c - 'a' + 10;
    if (high >= 0) out.push_back(static_cast<char>(high * 16 + digit));
    high = high < 0 ? digit : -1;
  }
  return out;
}

std::optional<ReadFields> read_hex(HpackDecoder& decoder, std::string_view hex) {
  return read_block(decoder, bytes_of(hex));
}

struct Example {
  const char* plain;
  const char* coded;  // with Huffman's code
  ReadFields fields;
  size_t table_bytes;
};

// Both forms of the examples of a connection.
void expect_examples(const std::vector<Example>& examples, const std::string& first_resize) {
  for (const bool coded : {false, true}) {
    for (const size_t piece : {SIZE_MAX, size_t{1}, size_t{7}}) {
      HpackDecoder decoder;
      std::string resize = first_resize;
      for (const Example& each : examples) {
        const std::string block = resize + bytes_of(coded ? each.coded : each.plain);
        EXPECT_EQ(read_block(decoder, block, piece), each.fields);
        EXPECT_EQ(decoder.table_bytes(), each.table_bytes);
        resize.clear();
      }
    }
  }
}

TEST(HpackDecoder, ReadsTheRequestsOfTheRfc) {  // C.3, C.4
  const ReadFields first{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "www.example.com"}};
  ReadFields second = first, third{{":method", "GET"},
                                   {":scheme", "https"},
                                   {":path", "/index.html"},
                                   {":authority", "www.example.com"},
                                   {"custom-key", "custom-value"}};
  second.emplace_back("cache-control", "no-cache");
  expect_examples({{"828684410f7777772e6578616d706c652e636f6d", "828684418cf1e3c2e5f23a6ba0ab90f4ff", first, 57},
                   {"828684be58086e6f2d6361636865", "828684be5886a8eb10649cbf", second, 110},
                   {"828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
                    "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", third, 164}},
                  "");
}

TEST(HpackDecoder, ReadsTheAnswersOfTheRfcInASmallTable) {  // C.5, C.6
  const std::string date = "Mon, 21 Oct 2013 20:13:21 GMT", later = "Mon, 21 Oct 2013 20:13:22 GMT";
  const ReadFields first{
      {":status", "302"}, {"cache-control", "private"}, {"date", date}, {"location", "https://www.example.com"}};
  const ReadFields second{
      {":status", "307"}, {"cache-control", "private"}, {"date", date}, {"location", "https://www.example.com"}};
  const ReadFields third{{":status", "200"},
                         {"cache-control", "private"},
                         {"date", later},
                         {"location", "https://www.example.com"},
                         {"content-encoding", "gzip"},
                         {"set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"}};
  expect_examples(
      {{"4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f"
        "77"
        "77772e6578616d706c652e636f6d",
        "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
        first, 222},
       {"4803333037c1c0bf", "4883640effc1c0bf", second, 222},
       {"88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b42"
        "5a58"
        "4f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
        "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f"
        "36"
        "72c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
        third, 215}},
      bytes_of("3fe101"));  // 256 bytes, as the RFC's peer has agreed on
}

TEST(HpackDecoder, ReadsTheFormsOfTheRfc) {  // C.2
  HpackDecoder decoder;
  EXPECT_EQ(read_hex(decoder, "400a637573746f6d2d6b65790d637573746f6d2d686561646572"),
            (ReadFields{{"custom-key", "custom-header"}}));
  EXPECT_EQ(decoder.table_bytes(), 55u);
  EXPECT_EQ(read_hex(decoder, "040c2f73616d706c652f70617468"), (ReadFields{{":path", "/sample/path"}}));
  EXPECT_EQ(read_hex(decoder, "100870617373776f726406736563726574"), (ReadFields{{"password", "secret"}}));
  EXPECT_EQ(read_hex(decoder, "82"), (ReadFields{{":method", "GET"}}));
  EXPECT_EQ(decoder.table_bytes(), 55u);
}

TEST(HpackDecoder, RefusesEachMalformedForm) {
  const char* const malformed[] = {
      "80",                        // index 0
      "be",                        // an entry that is not there
      "ff808080801f",              // an index far beyond
      "ffffffffffff",              // a number without end
      "ff80808080808000",          // a number with too many bytes
      "40",                        // a literal without a name
      "4001",                      // a name that ends early
      "400161",                    // without a value
      "40016105616263",            // a value that ends early
      "7f",                        // an index of a name that ends early
      "7f00",                      // a name of an entry that is not there
      "0f2f00",                    // 62 in a literal that is not indexed
      "3fe21f",                    // a table of 4097 bytes
      "8220",                      // a new size after a field
      "3f",                        // a size that ends early
      "418ff1e3c2e5f23a6ba0ab90",  // Huffman's code that ends early
      "0001618100",                // five zeros are '0', and three zeros fill the byte
      "00016182ffff",              // more than seven ones fill it
      "00016184ffffffff",          // the end of the string
      "0001618400fffffc",          // a zero among the ones
      "0001617f82ff03",            // a value longer than all that is allowed
      "007f82ff03",                // a name likewise
  };
  for (const char* const hex : malformed) {
    HpackDecoder decoder;
    NgHttp2Reader other;
    EXPECT_EQ(read_hex(decoder, hex), std::nullopt) << hex;
    EXPECT_EQ(other.read(bytes_of(hex)), std::nullopt) << hex;
    HpackDecoder slow;
    EXPECT_EQ(read_block(slow, bytes_of(hex), 1), std::nullopt) << hex;
  }
}

TEST(HpackDecoder, AnEmptyBlockAndEmptyTextsAreRight) {
  HpackDecoder decoder;
  EXPECT_EQ(read_hex(decoder, ""), ReadFields());
  EXPECT_EQ(read_hex(decoder, "000080"), (ReadFields{{"", ""}}));
  EXPECT_EQ(read_hex(decoder, "3fe11f20"), ReadFields()) << "sizes alone";
}

TEST(HpackDecoder, EveryByteIsReadFromHuffmansCode) {
  HpackEncoder encoder;
  HpackDecoder decoder;
  for (int byte = 0; byte < 256; ++byte) {
    for (const size_t count : {1u, 2u, 3u, 40u}) {
      const ReadFields fields{
          {"x" + std::string(count, 'a'), "aaaaaaaaaaaaaaa" + std::string(count, static_cast<char>(byte))}};
      std::string room(HpackEncoder::room_for(200, 1), '\0');
      char* const begin = encoder.begin(room.data());
      const char* const end = encoder.add(begin, fields[0].first, fields[0].second);
      EXPECT_EQ(read_block(decoder, {room.data(), static_cast<size_t>(end - room.data())}), fields) << byte;
    }
  }
}

TEST(HpackDecoder, AFieldLargerThanTheTableEmptiesIt) {
  HpackDecoder decoder;
  EXPECT_TRUE(read_hex(decoder, "4001610162"));
  EXPECT_EQ(decoder.table_bytes(), 34u);
  const std::string large = bytes_of("400163") + bytes_of("7f811f") + std::string(4096, 'v');
  EXPECT_EQ(read_block(decoder, large), (ReadFields{{"c", std::string(4096, 'v')}}));
  EXPECT_EQ(decoder.table_bytes(), 0u);
  EXPECT_EQ(read_hex(decoder, "be"), std::nullopt);
}

TEST(HpackDecoder, ANameIsReadFromTheEntryThatItDisplaces) {
  HpackDecoder decoder;
  const std::string name(40, 'n');
  ASSERT_TRUE(read_block(decoder, bytes_of("4028") + name + bytes_of("0176")));
  for (int turn = 0; turn < 50; ++turn) {  // 4,000 bytes leave no room for the entry that has the name
    const std::string value(4'000, static_cast<char>('a' + turn % 26));
    ASSERT_EQ(read_block(decoder, bytes_of("7e7fa11e") + value), (ReadFields{{name, value}}));
    EXPECT_EQ(decoder.table_bytes(), 4'072u);
  }
}

TEST(HpackDecoder, ItsMemoryGrowsWithWhatIsPutIntoTheTable) {
  HpackDecoder decoder;
  EXPECT_EQ(decoder.room(), 0u);
  ASSERT_TRUE(read_hex(decoder, "828684"));
  EXPECT_EQ(decoder.room(), 0u);
  ASSERT_TRUE(read_hex(decoder, "4001610162"));
  EXPECT_EQ(decoder.room(), 1'024u);
  for (int i = 0; i < 1'000; ++i) ASSERT_TRUE(read_block(decoder, bytes_of("4001617fe906") + std::string(1'000, 'v')));
  EXPECT_EQ(decoder.room(), 8'192u);
}

TEST(HpackDecoder, KnowsWhatTextsSayWhetherTheyComeFromATableOrNot) {
  HpackDecoder decoder;
  const std::string block = bytes_of("8240") + std::string("\x04host\x05 a.b ") + bytes_of("be") +
                            std::string(
                                "\x41\x03"
                                "a:1");
  decoder.begin_block();
  decoder.set_input(block, true);
  HpackScratch scratch;
  Http2Field field;
  ASSERT_EQ(decoder.next(field, scratch), HpackDecoder::Step::field);
  EXPECT_EQ(field.traits.pseudo, PseudoName::method);
  EXPECT_TRUE(field.is(ValueClass::token));
  for (int turn = 0; turn < 2; ++turn) {
    ASSERT_EQ(decoder.next(field, scratch), HpackDecoder::Step::field);
    EXPECT_EQ(field.traits.kind, FieldKind::host);
    EXPECT_FALSE(field.is(ValueClass::field)) << "blanks at its ends";
  }
  ASSERT_EQ(decoder.next(field, scratch), HpackDecoder::Step::field);
  EXPECT_EQ(field.traits.pseudo, PseudoName::authority);
  EXPECT_TRUE(field.is(ValueClass::authority));
  EXPECT_FALSE(field.is(ValueClass::token));
  EXPECT_NE(field.static_name, 0);
  EXPECT_EQ(decoder.next(field, scratch), HpackDecoder::Step::end);
}

// Blocks that are right more often than not, and sometimes broken.
TEST(HpackDecoder, ReadsWhatNgHttp2Reads) {
  std::mt19937 random(11);
  const auto below = [&](size_t bound) { return std::uniform_int_distribution<size_t>(0, bound - 1)(random); };
  size_t whole = 0;
  for (int connection = 0; connection < 300; ++connection) {
    HpackDecoder decoder;
    NgHttp2Reader other;
    HpackEncoder encoder;
    for (int turn = 0; turn < 60; ++turn) {
      std::string block(HpackEncoder::room_for(40'000, 20), '\0');
      if (below(20) == 0) encoder.limit_table(below(4'097));
      char* out = encoder.begin(block.data());
      for (size_t count = below(12); count > 0; --count) {
        const std::string name = "name-" + std::to_string(below(30));
        const std::string value(below(20) == 0 ? below(3'000) : below(40), static_cast<char>(below(256)));
        out = encoder.add(out, name, value);
      }
      block.resize(static_cast<size_t>(out - block.data()));
      if (below(30) == 0 && !block.empty()) block[below(block.size())] = static_cast<char>(below(256));
      const std::optional<ReadFields> read = read_block(decoder, block, below(3) == 0 ? 1 + below(50) : SIZE_MAX);
      ASSERT_EQ(read, other.read(block)) << connection << ' ' << turn;
      if (!read) break;
      ++whole;
      ASSERT_EQ(decoder.table_bytes(), other.table_bytes()) << connection << ' ' << turn;
    }
  }
  EXPECT_GT(whole, 5'000u);
}

}  // namespace tidegate::l7::hpack_decoder_test
