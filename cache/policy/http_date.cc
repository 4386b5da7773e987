// SPDX-License-Identifier: Apache-2.0
#include "cache/policy/http_date.h"

#include <array>
#include <ctime>

#include "cache/policy/fields.h"

namespace tidegate::cache {
namespace {

constexpr std::array<std::string_view, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                      "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
constexpr std::array<std::string_view, 7> kDays = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
constexpr std::array<std::string_view, 7> kLongDays = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                                       "Thursday", "Friday", "Saturday"};

// Takes the expected text off the front. After the first mismatch everything fails.
class DateReader {
 public:
  explicit DateReader(std::string_view text) : text_(text) {}

  void expect(std::string_view literal) {
    ok_ = ok_ && begins_with(literal);
    if (ok_) text_.remove_prefix(literal.size());
  }
  int digits(size_t count) {
    int value = 0;
    for (size_t i = 0; i < count; ++i) {
      ok_ = ok_ && !text_.empty() && text_.front() >= '0' && text_.front() <= '9';
      if (!ok_) return 0;
      value = value * 10 + (text_.front() - '0');
      text_.remove_prefix(1);
    }
    return value;
  }
  template <size_t N>
  int one_of(const std::array<std::string_view, N>& words) {
    for (size_t i = 0; i < N; ++i) {
      if (!ok_ || !begins_with(words[i])) continue;
      text_.remove_prefix(words[i].size());
      return static_cast<int>(i);
    }
    ok_ = false;
    return 0;
  }
  // RFC 9111 §4.2: a cache should match dates without case.
  bool begins_with(std::string_view word) const { return same_name(text_.substr(0, word.size()), word); }
  bool next_is(char c) const { return !text_.empty() && text_.front() == c; }
  bool complete() const { return ok_ && text_.empty(); }

  void time_of_day(tm& out) {
    out.tm_hour = digits(2);
    expect(":");
    out.tm_min = digits(2);
    expect(":");
    out.tm_sec = digits(2);
  }

 private:
  std::string_view text_;
  bool ok_ = true;
};

bool read_imf_fixdate(std::string_view text, tm& out) {  // Sun, 06 Nov 1994 08:49:37 GMT
  DateReader in(text);
  in.one_of(kDays);
  in.expect(", ");
  out.tm_mday = in.digits(2);
  in.expect(" ");
  out.tm_mon = in.one_of(kMonths);
  in.expect(" ");
  out.tm_year = in.digits(4) - 1900;
  in.expect(" ");
  in.time_of_day(out);
  in.expect(" GMT");
  return in.complete();
}

bool read_rfc850(std::string_view text, uint64_t now_ms, tm& out) {  // Sunday, 06-Nov-94 08:49:37 GMT
  DateReader in(text);
  in.one_of(kLongDays);
  in.expect(", ");
  out.tm_mday = in.digits(2);
  in.expect("-");
  out.tm_mon = in.one_of(kMonths);
  in.expect("-");
  const int short_year = in.digits(2);
  in.expect(" ");
  in.time_of_day(out);
  in.expect(" GMT");
  const auto now_s = static_cast<time_t>(now_ms / 1000);
  tm now{};
  ::gmtime_r(&now_s, &now);
  const int this_year = now.tm_year + 1900;
  int year = this_year - this_year % 100 + short_year;
  if (year > this_year + 50) year -= 100;
  out.tm_year = year - 1900;
  return in.complete();
}

bool read_asctime(std::string_view text, tm& out) {  // Sun Nov  6 08:49:37 1994
  DateReader in(text);
  in.one_of(kDays);
  in.expect(" ");
  out.tm_mon = in.one_of(kMonths);
  in.expect(" ");
  if (in.next_is(' ')) {
    in.expect(" ");
    out.tm_mday = in.digits(1);
  } else {
    out.tm_mday = in.digits(2);
  }
  in.expect(" ");
  in.time_of_day(out);
  in.expect(" ");
  out.tm_year = in.digits(4) - 1900;
  return in.complete();
}

bool plausible(const tm& t) {
  return t.tm_mday >= 1 && t.tm_mday <= 31 && t.tm_hour <= 23 && t.tm_min <= 59 && t.tm_sec <= 60;
}

}  // namespace

std::optional<uint64_t> parse_http_date(std::string_view text, uint64_t now_ms) {
  tm fixdate{}, rfc850{}, asctime{};
  tm* read = nullptr;
  if (read_imf_fixdate(text, fixdate)) {
    read = &fixdate;
  } else if (read_rfc850(text, now_ms, rfc850)) {
    read = &rfc850;
  } else if (read_asctime(text, asctime)) {
    read = &asctime;
  }
  if (read == nullptr || !plausible(*read)) return std::nullopt;
  const time_t seconds = ::timegm(read);
  if (seconds < 0) return std::nullopt;
  return static_cast<uint64_t>(seconds) * 1000;
}

}  // namespace tidegate::cache
