// SPDX-License-Identifier: Apache-2.0
// The fields of an Answer, for clients of every HTTP version.
#include <fmt/format.h>

#include "cache/cache.h"
#include "cache/policy/fields.h"
#include "cache/policy/validation.h"

namespace tidegate::cache {
namespace {

// A 304 has no body to describe (RFC 9110 §15.4.5), and neither have our 412 and 416.
bool describes_body(std::string_view lower_name) {
  return lower_name == "content-type" || lower_name == "content-encoding" || lower_name == "content-language";
}

std::string_view text_of(const fmt::format_int& number) { return {number.data(), number.size()}; }

bool carries_body_fields(uint16_t status) { return status != 304 && status != 412 && status != 416; }

struct ContentRange {
  char text[80];
  size_t length;
  explicit ContentRange(const Answer& answer) {
    const uint64_t whole = answer.head->body_bytes;
    char* const end = answer.status == 416 ? fmt::format_to(text, "bytes */{}", whole)
                                           : fmt::format_to(text, "bytes {}-{}/{}", answer.range.first,
                                                            answer.range.first + answer.range.length - 1, whole);
    length = static_cast<size_t>(end - text);
  }
  operator std::string_view() const { return {text, length}; }  // NOLINT(google-explicit-constructor)
};

}  // namespace

void for_each_field(const Answer& answer,
                    const std::function<void(std::string_view, std::string_view, std::string_view)>& fn) {
  const bool whole = carries_body_fields(answer.status);
  SpeltNames spelt(*answer.head);
  for (const http1::Field& field : answer.head->fields) {
    const std::string_view name = spelt.next(field);
    if (whole || !describes_body(field.name)) fn(field.name, field.value, name);
  }
  const bool bodiless_status = answer.status == 304 || answer.status == 204;
  if (answer.content_length && !bodiless_status) {
    fn("content-length", text_of(fmt::format_int(*answer.content_length)), "Content-Length");
  }
  if (answer.status == 206 || answer.status == 416) fn("content-range", ContentRange(answer), "Content-Range");
  fn("age", text_of(fmt::format_int(answer.age_s)), "Age");
}

}  // namespace tidegate::cache
