// SPDX-License-Identifier: Apache-2.0
#include "cache/policy/validation.h"

#include <gtest/gtest.h>

#include "cache/cache.h"
#include "tests/unit/cache/fields_of.h"

namespace tidegate::cache::validation_test {

using testing::FieldList;
using testing::get;

constexpr uint64_t kNow = 784'111'777'000;  // Sun, 06 Nov 1994 08:49:37 GMT

std::shared_ptr<StoredHead> stored(const FieldList& fields, uint64_t body_bytes = 100) {
  return make_head({200, fields, kNow, kNow, body_bytes}, parse_cache_control(fields));
}

struct SelectCase {
  const char* sentence;
  uint16_t status;
  FieldList request;
};

TEST(Select, ConditionsAreEvaluatedInTheOrderOfRfc9110Section1322) {
  const auto head = stored({{"ETag", "\"v1\""},
                            {"Date", "Sun, 06 Nov 1994 08:49:37 GMT"},
                            {"Last-Modified", "Sun, 06 Nov 1994 07:00:00 GMT"}});
  const SelectCase cases[] = {
      {"no condition", 200, {}},
      {"If-None-Match matches", 304, {{"If-None-Match", "\"v1\""}}},
      {"weak comparison (§13.1.2)", 304, {{"If-None-Match", "W/\"v1\""}}},
      {"one of a list", 304, {{"If-None-Match", "\"a,b\", \"v1\""}}},
      {"a star", 304, {{"If-None-Match", "*"}}},
      {"another etag", 200, {{"If-None-Match", "\"v2\""}}},
      {"a comma in an etag does not split it", 200, {{"If-None-Match", "\"x,\"v1\"\""}}},
      {"If-None-Match makes If-Modified-Since mean nothing",
       200,
       {{"If-None-Match", "\"v2\""}, {"If-Modified-Since", "Sun, 06 Nov 1994 08:00:00 GMT"}}},
      {"not modified since", 304, {{"If-Modified-Since", "Sun, 06 Nov 1994 07:00:00 GMT"}}},
      {"modified since", 200, {{"If-Modified-Since", "Sun, 06 Nov 1994 06:59:59 GMT"}}},
      {"an unreadable date is ignored (§13.1.3)", 200, {{"If-Modified-Since", "yesterday"}}},
      {"a range", 206, {{"Range", "bytes=0-9"}}},
      {"a range behind the end", 416, {{"Range", "bytes=100-"}}},
      {"several ranges get the whole", 200, {{"Range", "bytes=0-1,5-6"}}},
      {"another unit gets the whole", 200, {{"Range", "lines=0-1"}}},
      {"304 goes before a range", 304, {{"Range", "bytes=0-9"}, {"If-None-Match", "\"v1\""}}},
      {"If-Range with the etag", 206, {{"Range", "bytes=0-9"}, {"If-Range", "\"v1\""}}},
      {"If-Range with another etag", 200, {{"Range", "bytes=0-9"}, {"If-Range", "\"v2\""}}},
      {"If-Range never matches weakly (§13.1.5)", 200, {{"Range", "bytes=0-9"}, {"If-Range", "W/\"v1\""}}},
      {"If-Range with the exact date", 206, {{"Range", "bytes=0-9"}, {"If-Range", "Sun, 06 Nov 1994 07:00:00 GMT"}}},
      {"If-Range with a later date", 200, {{"Range", "bytes=0-9"}, {"If-Range", "Sun, 06 Nov 1994 07:00:01 GMT"}}},
  };
  for (const SelectCase& c : cases) EXPECT_EQ(select(get("/", c.request), *head, kNow).status, c.status) << c.sentence;
}

TEST(Select, IfMatchComesFirstThenIfUnmodifiedSince) {  // RFC 9110 §13.2.2
  const auto head = stored({{"ETag", "\"v1\""}, {"Last-Modified", "Sun, 06 Nov 1994 07:00:00 GMT"}});
  const SelectCase cases[] = {
      {"it matches", 200, {{"If-Match", "\"v1\""}}},
      {"one of a list", 200, {{"If-Match", "\"a,b\", \"v1\""}}},
      {"a star", 200, {{"If-Match", "*"}}},
      {"another etag", 412, {{"If-Match", "\"v2\""}}},
      {"strong comparison (§13.1.1)", 412, {{"If-Match", "W/\"v1\""}}},
      {"before If-None-Match", 412, {{"If-Match", "\"v2\""}, {"If-None-Match", "\"v1\""}}},
      {"then If-None-Match", 304, {{"If-Match", "\"v1\""}, {"If-None-Match", "\"v1\""}}},
      {"then the range", 206, {{"If-Match", "\"v1\""}, {"Range", "bytes=0-1"}}},
      {"no range of what does not match", 412, {{"If-Match", "\"v2\""}, {"Range", "bytes=0-1"}}},
      {"not modified since", 200, {{"If-Unmodified-Since", "Sun, 06 Nov 1994 07:00:00 GMT"}}},
      {"modified since", 412, {{"If-Unmodified-Since", "Sun, 06 Nov 1994 06:59:59 GMT"}}},
      {"a date that is none", 200, {{"If-Unmodified-Since", "yesterday"}}},
      {"If-Match makes If-Unmodified-Since mean nothing",
       200,
       {{"If-Match", "\"v1\""}, {"If-Unmodified-Since", "Sun, 06 Nov 1994 06:59:59 GMT"}}},
  };
  for (const SelectCase& c : cases) EXPECT_EQ(select(get("/", c.request), *head, kNow).status, c.status) << c.sentence;
  const auto undated = stored({{"Cache-Control", "max-age=60"}});
  EXPECT_EQ(
      select(get("/", FieldList{{"If-Unmodified-Since", "Sun, 06 Nov 1994 06:59:59 GMT"}}), *undated, kNow).status, 200)
      << "no date, no condition (§13.1.4)";
}

TEST(Select, OnlyAStored200HasConditions) {
  const FieldList fields{{"ETag", "\"v1\""}};
  const auto head = make_head({404, fields, kNow, kNow, 5}, {});
  EXPECT_EQ(select(get("/", FieldList{{"If-None-Match", "\"v1\""}}), *head, kNow).status, 404);
}

TEST(Select, HeadHasNoRanges) {  // RFC 9110 §14.2
  const auto head = stored({});
  EXPECT_EQ(select(get("/", FieldList{{"Range", "bytes=0-9"}}, "HEAD"), *head, kNow).status, 200);
}

struct RangeCase {
  const char* value;
  bool understood;
  bool satisfiable;
  uint64_t first, length;
};

TEST(ParseRange, OneByteRangeOfRfc9110Section1412) {
  const RangeCase cases[] = {
      {"bytes=0-0", true, true, 0, 1},
      {"bytes=10-", true, true, 10, 90},
      {"bytes=90-1000", true, true, 90, 10},
      {"bytes=-10", true, true, 90, 10},
      {"bytes=-1000", true, true, 0, 100},
      {"BYTES=5-6", true, true, 5, 2},
      {"bytes=-0", true, false, 0, 0},
      {"bytes=100-", true, false, 0, 0},
      {"bytes=6-5", false, false, 0, 0},
      {"bytes=a-5", false, false, 0, 0},
      {"bytes=", false, false, 0, 0},
      {"bytes=5", false, false, 0, 0},
      {"bytes=-", false, false, 0, 0},
      {"bytes=0-1,2-3", false, false, 0, 0},
      {"bytes=99999999999999999999-", true, false, 0, 0},
      {"bytes=0-99999999999999999999", true, true, 0, 100},
      {"bytes=-99999999999999999999", true, true, 0, 100},
      {"bytes=0-3,", true, true, 0, 4},
      {"bytes= , 0-3 ,,", true, true, 0, 4},
      {"bytes=,", false, false, 0, 0},
  };
  for (const RangeCase& c : cases) {
    const auto range = parse_range(c.value, 100);
    ASSERT_EQ(range.has_value(), c.understood) << c.value;
    if (!range) continue;
    EXPECT_EQ(range->satisfiable, c.satisfiable) << c.value;
    if (!range->satisfiable) continue;
    EXPECT_EQ(range->range.first, c.first) << c.value;
    EXPECT_EQ(range->range.length, c.length) << c.value;
  }
}

TEST(MakeHead, LeavesOutWhatMustNotBeStored) {  // RFC 9111 §3.1
  const auto head = stored({{"Content-Type", "text/plain"},
                            {"Connection", "close, X-Hop"},
                            {"X-Hop", "1"},
                            {"Transfer-Encoding", "chunked"},
                            {"Age", "7"},
                            {"Content-Length", "100"},
                            {"Set-Cookie", "a=b"},
                            {"Cache-Control", "no-cache=\"set-cookie\""},
                            {"X-Kept", "yes"}});
  EXPECT_EQ(head->field_text, "content-type: text/plain\r\ncache-control: no-cache=\"set-cookie\"\r\nx-kept: yes\r\n");
}

TEST(Freshen, A304ReplacesStoredFieldsExceptThoseOfTheBody) {  // RFC 9111 §3.2, §4.3.4
  const auto head =
      stored({{"Content-Type", "text/plain"}, {"ETag", "\"v1\""}, {"X-A", "1"}, {"X-A", "2"}, {"X-B", "1"}});
  const FieldList fields{
      {"ETag", "\"v1\""}, {"X-A", "3"}, {"Content-Type", "text/html"}, {"Content-Length", "0"}, {"X-C", "1"}};
  const auto fresh = freshen_head(*head, {304, fields, kNow, kNow, {}});
  EXPECT_EQ(fresh->field_text, "content-type: text/plain\r\nx-b: 1\r\netag: \"v1\"\r\nx-a: 3\r\nx-c: 1\r\n");
  EXPECT_EQ(fresh->etag, "\"v1\"");
  EXPECT_EQ(fresh->body_bytes, 100U);
}

TEST(StoredHeads, KeepNamesAndReasonAsTheBackendWroteThem) {
  const FieldList fields{{"eTaG", "\"v1\""}, {"Connection", "X-Hop"}, {"X-Hop", "1"}, {"X-A", "1"}, {"x-b", "1"}};
  ResponseView response{200, fields, kNow, kNow, 100};
  response.reason = "Sure";
  const auto head = make_head(response, {});
  EXPECT_EQ(head->spelt_names, "eTaGX-Ax-b");
  EXPECT_EQ(head->reason, "Sure");
  const FieldList changes{{"X-a", "3"}, {"X-C", "1"}};
  const auto fresh = freshen_head(*head, {304, changes, kNow, kNow, {}});
  EXPECT_EQ(fresh->field_text, "etag: \"v1\"\r\nx-b: 1\r\nx-a: 3\r\nx-c: 1\r\n");
  EXPECT_EQ(fresh->spelt_names, "eTaGx-bX-aX-C");
  EXPECT_EQ(fresh->reason, "Sure");
  const FieldList lower{{"etag", "\"v1\""}};
  EXPECT_EQ(make_head({200, lower, kNow, kNow, 100, "OK"}, {})->spelt_names, "")
      << "nothing that lower case does not say";
  EXPECT_EQ(make_head({200, lower, kNow, kNow, 100, "OK"}, {})->reason, "");
}

TEST(Freshen, A304WithAnotherValidatorSpeaksOfAnotherResponse) {
  const auto head = stored({{"ETag", "\"v1\""}});
  EXPECT_TRUE(confirms(*head, {304, FieldList{{"ETag", "\"v1\""}}, kNow, kNow, {}}));
  EXPECT_TRUE(confirms(*head, {304, {}, kNow, kNow, {}}));
  EXPECT_FALSE(confirms(*head, {304, FieldList{{"ETag", "\"v2\""}}, kNow, kNow, {}}));
}

TEST(ConditionalFields, CarryBothValidators) {
  const auto head = stored({{"ETag", "\"v1\""}, {"Last-Modified", "Sun, 06 Nov 1994 07:00:00 GMT"}});
  const auto conditional = conditional_fields(*head);
  ASSERT_EQ(conditional.count, 2U);
  EXPECT_EQ(conditional.fields[0].value, "\"v1\"");
  EXPECT_EQ(conditional.fields[1].value, "Sun, 06 Nov 1994 07:00:00 GMT");
}

Answer answer_of(std::shared_ptr<const StoredHead> head, const FieldList& request) {
  Answer answer;
  const Selection selection = select(get("/", request), *head, kNow);
  answer.head = std::move(head);
  answer.status = selection.status;
  answer.range = selection.range;
  answer.content_length = selection.status == 416 ? 0 : selection.range.length;
  answer.age_s = 12;
  return answer;
}

TEST(AnswerHead, SaysLengthAgeAndRangeAsTheStatusWants) {
  const auto head = stored({{"Content-Type", "text/plain"}, {"ETag", "\"v1\""}});
  const auto text = [&](const FieldList& request) {
    const Answer answer = answer_of(head, request);
    std::string out = std::to_string(answer.status) + "\n";
    for_each_field(answer, [&out](std::string_view name, std::string_view value, std::string_view) {
      out.append(name).append(": ").append(value).append("\n");
    });
    return out;
  };
  EXPECT_EQ(text({}), "200\ncontent-type: text/plain\netag: \"v1\"\ncontent-length: 100\nage: 12\n");
  EXPECT_EQ(
      text({{"Range", "bytes=10-19"}}),
      "206\ncontent-type: text/plain\netag: \"v1\"\ncontent-length: 10\ncontent-range: bytes 10-19/100\nage: 12\n");
  EXPECT_EQ(text({{"If-None-Match", "\"v1\""}}), "304\netag: \"v1\"\nage: 12\n");
  EXPECT_EQ(text({{"Range", "bytes=500-"}}),
            "416\netag: \"v1\"\ncontent-length: 0\ncontent-range: bytes */100\nage: 12\n");
}

TEST(CacheStatusField, IsRenderedAsRfc9211Says) {
  const auto render = [](const CacheStatus& status) {
    std::string out;
    append_cache_status(out, "proxy1", status);
    return out;
  };
  CacheStatus hit;
  hit.hit = true;
  hit.ttl_s = 42;
  EXPECT_EQ(render(hit), "proxy1; hit; ttl=42");
  CacheStatus miss;
  miss.forward = Forward::uri_miss;
  miss.forward_status = 200;
  miss.stored = true;
  EXPECT_EQ(render(miss), "proxy1; fwd=uri-miss; fwd-status=200; stored");
  CacheStatus attached;
  attached.forward = Forward::miss;
  attached.collapsed = true;
  EXPECT_EQ(render(attached), "proxy1; fwd=miss; collapsed");
  CacheStatus refused;
  refused.forward = Forward::uri_miss;
  refused.detail = "set-cookie";
  EXPECT_EQ(render(refused), "proxy1; fwd=uri-miss; detail=set-cookie");
}

}  // namespace tidegate::cache::validation_test
