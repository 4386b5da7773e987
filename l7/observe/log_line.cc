// SPDX-License-Identifier: Apache-2.0
#include "l7/observe/log_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <ctime>

#include "conf/limits.h"
#include "core/clock.h"
#include "l7/exchange/sticky.h"
#include "l7/limits.h"

namespace tidegate::l7 {
namespace {

constexpr size_t kLongestOwnText = 768;  // names from the configuration, and a request id of 128 bytes, as escaped
constexpr size_t kHeaderBytes = 512;     // for syslog: a node's name, a tag, numbers
constexpr size_t kTexts = 13, kNumbersBytes = 1'024;
static_assert(kHeaderBytes + kLoggedMethodBytes + 2 * kLoggedHostBytes + kLoggedPolicyBytes + 4 * kLoggedTextBytes +
                  kTexts * (kLongestOwnText + 32) + kNumbersBytes <=
              kLongestLogLine);
// Room for a template's own texts, and for the "-" of empty values.
constexpr size_t kTemplateRoomBytes = kLogTemplateBytes + kLogTemplateParts + 16;
static_assert(kHeaderBytes + kTemplateRoomBytes < kLongestLogLine / 2);
constexpr size_t kMostCut = 24;  // names of values that were cut; a line of JSON has fewer texts

// Appends to kLongestLogLine bytes. Foreign values are cut one by one, so that a line always fits.
class LineWriter {
 public:
  explicit LineWriter(char* out) : next_(out), begin_(out), end_(out + kLongestLogLine) {}
  size_t size() const { return static_cast<size_t>(next_ - begin_); }
  size_t room() const { return static_cast<size_t>(end_ - next_); }
  void raw(std::string_view text) {
    assert(text.size() <= static_cast<size_t>(end_ - next_));
    next_ = std::copy(text.begin(), text.end(), next_);
  }
  // Appends at most `limit` bytes of the value, counted after escaping.
  void text(std::string_view name, std::string_view value, size_t limit = kLongestOwnText) {
    if (value.empty()) return;
    raw(",\"");
    raw(name);
    raw("\":\"");
    if (!escaped(value, limit)) note_cut(name);
    raw("\"");
  }
  // Names the fields that were cut.
  void cut() {
    for (size_t i = 0; i < cut_count_; ++i) {
      raw(i == 0 ? ",\"cut\":[\"" : "\",\"");
      raw(cut_[i]);
    }
    if (cut_count_ > 0) raw("\"]");
  }
  void number(std::string_view key, uint64_t value) {
    raw(key);
    const fmt::format_int digits(value);
    raw({digits.data(), digits.size()});
  }
  // As milliseconds, with microseconds after the point.
  void milliseconds(uint64_t ns) {
    number({}, ns / kNsPerMs);
    char fraction[4] = {'.'};
    const uint64_t us = ns / 1000 % 1000;
    fraction[1] = static_cast<char>('0' + us / 100);
    fraction[2] = static_cast<char>('0' + us / 10 % 10);
    fraction[3] = static_cast<char>('0' + us % 10);
    raw({fraction, sizeof fraction});
  }
  void duration(std::string_view key, uint64_t ns) {
    if (ns == 0) return;
    raw(key);
    milliseconds(ns);
  }
  // In UTC: 2026-01-31T12:00:00.123Z (RFC 3339).
  void timestamp(uint64_t realtime_ns) {
    const tm utc = utc_of(realtime_ns);
    char out[40];
    const auto end = fmt::format_to_n(out, sizeof out, "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", utc.tm_year + 1900,
                                      utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
                                      realtime_ns / kNsPerMs % 1000);
    raw({out, end.size});
  }
  // 31/Jan/2026:12:00:00 +0000
  void common_time(uint64_t realtime_ns) {
    static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                              "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    const tm utc = utc_of(realtime_ns);
    char out[40];
    const auto end = fmt::format_to_n(out, sizeof out, "{:02}/{}/{:04}:{:02}:{:02}:{:02} +0000", utc.tm_mday,
                                      kMonths[utc.tm_mon], utc.tm_year + 1900, utc.tm_hour, utc.tm_min, utc.tm_sec);
    raw({out, end.size});
  }
  void header(const LogLineHeader& header, uint64_t realtime_ns) {
    if (header.begin.empty()) return;
    raw(header.begin);
    timestamp(realtime_ns);
    raw(header.middle);
  }
  // For templates: only the value, within `limit` and the line's room for values. Returns false if it was cut.
  bool value(std::string_view value, size_t limit) { return escaped(value, std::min(limit, room_for_values())); }
  void note_cut(std::string_view name) {
    if (cut_count_ < kMostCut) cut_[cut_count_++] = name;
  }
  const std::string_view* cut_begin() const { return cut_.data(); }
  const std::string_view* cut_end() const { return cut_.data() + cut_count_; }

 private:
  static tm utc_of(uint64_t realtime_ns) {
    const auto seconds = static_cast<time_t>(realtime_ns / kNsPerS);
    tm utc{};
    ::gmtime_r(&seconds, &utc);
    return utc;
  }
  size_t room_for_values() const {
    const auto room = static_cast<size_t>(end_ - next_);
    return room > kTemplateRoomBytes ? room - kTemplateRoomBytes : 0;
  }
  // Returns false if it was cut.
  bool escaped(std::string_view value, size_t limit) {
    static constexpr char kHex[] = "0123456789abcdef";
    const char* const end = next_ + limit;
    size_t from = 0;
    for (size_t i = 0; i < value.size(); ++i) {
      const auto byte = static_cast<unsigned char>(value[i]);
      // Bytes may not be valid UTF-8. They are escaped as the code points with their values, so that a line is always
      // JSON.
      const bool plain = byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\';
      const char escape[6] = {'\\', 'u', '0', '0', kHex[byte >> 4], kHex[byte & 15]};
      if (i - from + (plain ? 1 : sizeof escape) > static_cast<size_t>(end - next_)) {
        raw(value.substr(from, i - from));
        return false;
      }
      if (plain) continue;
      raw(value.substr(from, i - from));
      raw({escape, sizeof escape});
      from = i + 1;
    }
    raw(value.substr(from));
    return true;
  }
  char* next_;
  char* begin_;
  char* end_;
  std::array<std::string_view, kMostCut> cut_;
  size_t cut_count_ = 0;
};

// One value of a template. An empty value is written as "-".
class TemplateValue {
 public:
  TemplateValue(LineWriter& line, std::string_view variable) : line_(line), variable_(variable) {}
  // Appends a piece. Several pieces can make one value.
  void piece(std::string_view text, size_t limit = kLoggedTextBytes) {
    if (text.empty()) return;
    written_ = true;
    if (!line_.value(text, limit) && !cut_) {
      cut_ = true;
      line_.note_cut(variable_);
    }
  }
  void number(uint64_t value) {
    const fmt::format_int digits(value);
    piece({digits.data(), digits.size()});
  }
  void end() {
    if (!written_) line_.raw("-");
  }

 private:
  LineWriter& line_;
  const std::string_view variable_;
  bool written_ = false, cut_ = false;
};

std::string_view field_value(const FieldList* fields, std::string_view lower_name) {
  const Field* const field = fields == nullptr ? nullptr : fields->find(lower_name);
  return field == nullptr ? std::string_view() : field->value;
}

std::string_view field_value(std::span<const Field> fields, std::string_view lower_name) {
  for (const Field& field : fields) {
    if (field.name == lower_name) return field.value;
  }
  return {};
}

std::string_view cookie_value(const FieldList* fields, std::string_view cookie) {
  if (fields == nullptr) return {};
  for (const Field& field : *fields) {
    if (field.name != "cookie") continue;
    if (const std::string_view value = cookie_of(field.value, cookie); !value.empty()) return value;
  }
  return {};
}

std::string_view true_if(bool condition) { return condition ? "true" : ""; }

void write_uri(const AccessRecord& r, TemplateValue& value) {
  value.piece(r.path);
  if (r.query.empty()) return;
  value.piece("?");
  value.piece(r.query);
}

void write_request(const AccessRecord& r, TemplateValue& value) {
  if (r.method.empty()) return value.piece(r.request_line);
  value.piece(r.method, kLoggedMethodBytes);
  value.piece(" ");
  write_uri(r, value);
  value.piece(" ");
  value.piece(name(r.version));
}

uint64_t duration_of(const AccessRecord& r, LogVariable what) {
  switch (what) {
    case LogVariable::handshake_ms:
      return r.handshake_ns;
    case LogVariable::policies_ms:
      return r.policies_ns;
    case LogVariable::queued_ms:
      return r.queued_ns;
    case LogVariable::connect_ms:
      return r.connect_ns;
    case LogVariable::backend_tls_ms:
      return r.backend_tls_ns;
    case LogVariable::connected_ms:
      return r.connected_ns;
    case LogVariable::first_byte_ms:
      return r.first_byte_ns;
    default:
      return std::max<uint64_t>(r.total_ns, 1);
  }
}

// Variables that are one text of the record, with their bounds.
struct RecordText {
  std::string_view text;
  size_t limit = kLongestOwnText;
};
RecordText text_of_record(const AccessRecord& r, const LogPart& part) {
  switch (part.what) {
    case LogVariable::request_id:
      return {r.request_id};
    case LogVariable::client:
      return {r.client};
    case LogVariable::peer:
      return {r.peer};
    case LogVariable::listener:
      return {r.listener};
    case LogVariable::protocol:
      return {name(r.version)};
    case LogVariable::tls:
      return {r.tls_version};
    case LogVariable::tls_resumed:
      return {true_if(r.tls_resumed)};
    case LogVariable::certificate:
      return {r.certificate, kLoggedHostBytes};
    case LogVariable::certificate_serial:
      return {r.certificate_serial, kLoggedMethodBytes};
    case LogVariable::method:
      return {r.method, kLoggedMethodBytes};
    case LogVariable::host:
      return {r.host, kLoggedHostBytes};
    case LogVariable::path:
      return {r.path, kLoggedTextBytes};
    case LogVariable::query:
      return {r.query, kLoggedTextBytes};
    case LogVariable::request_line:
      return {r.request_line, kLoggedTextBytes};
    case LogVariable::upgrade:
      return {r.upgrade, kLoggedMethodBytes};
    case LogVariable::failure:
      return {r.failure == Failure::none ? "" : info(r.failure).name};
    case LogVariable::failure_detail:
      return {r.failure_detail, kLoggedHostBytes};
    case LogVariable::route:
      return {r.route};
    case LogVariable::identity:
      return {r.identity, kLoggedHostBytes};
    case LogVariable::policies:
      return {r.policies, kLoggedPolicyBytes};
    case LogVariable::backend_path:
      return {r.backend_path, kLoggedTextBytes};
    case LogVariable::variant:
      return {r.variant};
    case LogVariable::pool:
      return {r.pool};
    case LogVariable::backend:
      return {r.backend};
    case LogVariable::cache:
      return {r.cache};
    case LogVariable::coding:
      return {r.content_coding};
    case LogVariable::coding_stored:
      return {true_if(r.coding_stored)};
    case LogVariable::background:
      return {true_if(r.background)};
    case LogVariable::user_agent:
      return {r.user_agent, kLoggedTextBytes};
    case LogVariable::header:
      return {field_value(r.request_fields, part.text), kLoggedTextBytes};
    case LogVariable::response_header:
      return {field_value(r.response_fields, part.text), kLoggedTextBytes};
    case LogVariable::cookie:
      return {cookie_value(r.request_fields, part.text), kLoggedTextBytes};
    default:
      return {};
  }
}

void write_part(const AccessRecord& r, const LogPart& part, LineWriter& line) {
  const bool is_plain = static_cast<size_t>(part.what) < kPlainLogVariables;
  TemplateValue value(line, is_plain ? name(part.what) : std::string_view(part.text));
  switch (part.what) {
    case LogVariable::literal:
      return line.raw(part.text);
    case LogVariable::time:
      return line.timestamp(r.realtime_ns);
    case LogVariable::time_common:
      return line.common_time(r.realtime_ns);
    case LogVariable::time_unix:
      line.number({}, r.realtime_ns / kNsPerS);
      line.raw(".");
      return line.raw(fmt::format_int(1000 + r.realtime_ns / kNsPerMs % 1000).c_str() + 1);
    case LogVariable::uri:
      write_uri(r, value);
      break;
    case LogVariable::request:
      write_request(r, value);
      break;
    case LogVariable::status:
      value.number(r.status);
      break;
    case LogVariable::request_bytes:
      value.number(r.request_bytes);
      break;
    case LogVariable::response_bytes:
      value.number(r.response_bytes);
      break;
    case LogVariable::tries:
      value.number(r.tries);
      break;
    case LogVariable::version:
      value.number(r.config_version);
      break;
    case LogVariable::handshake_ms:
    case LogVariable::policies_ms:
    case LogVariable::queued_ms:
    case LogVariable::connect_ms:
    case LogVariable::backend_tls_ms:
    case LogVariable::connected_ms:
    case LogVariable::first_byte_ms:
    case LogVariable::total_ms:
      if (const uint64_t ns = duration_of(r, part.what); ns != 0) return line.milliseconds(ns);
      break;
    case LogVariable::cut:
      for (const std::string_view* each = line.cut_begin(); each != line.cut_end(); ++each) {
        if (each != line.cut_begin()) value.piece(",");
        value.piece(*each);
      }
      break;
    default: {
      const RecordText text = text_of_record(r, part);
      value.piece(text.text, text.limit);
      break;
    }
  }
  value.end();
}

}  // namespace

size_t write_json_line(const AccessRecord& r, const LogLineHeader& header, char* out) {
  LineWriter line(out);
  line.header(header, r.realtime_ns);
  line.raw("{\"time\":\"");
  line.timestamp(r.realtime_ns);
  line.raw("\"");
  line.text("request_id", r.request_id);
  line.text("client", r.client);
  if (r.peer != r.client) line.text("peer", r.peer);
  line.text("listener", r.listener);
  line.text("protocol", name(r.version));
  line.text("tls", r.tls_version);
  if (r.tls_resumed) line.raw(",\"tls_resumed\":true");
  line.text("certificate", r.certificate, kLoggedHostBytes);
  line.text("certificate_serial", r.certificate_serial, kLoggedMethodBytes);
  line.text("method", r.method, kLoggedMethodBytes);
  line.text("host", r.host, kLoggedHostBytes);
  line.text("path", r.path, kLoggedTextBytes);
  line.text("query", r.query, kLoggedTextBytes);
  line.number(",\"status\":", r.status);
  line.text("upgrade", r.upgrade, kLoggedMethodBytes);
  if (r.failure != Failure::none) line.text("failure", info(r.failure).name);
  line.text("failure_detail", r.failure_detail, kLoggedHostBytes);
  line.text("request_line", r.request_line, kLoggedTextBytes);
  line.number(",\"request_bytes\":", r.request_bytes);
  line.number(",\"response_bytes\":", r.response_bytes);
  line.text("route", r.route);
  line.text("identity", r.identity, kLoggedHostBytes);
  line.text("policies", r.policies, kLoggedPolicyBytes);
  line.text("backend_path", r.backend_path, kLoggedTextBytes);
  line.text("variant", r.variant);
  line.text("pool", r.pool);
  line.text("backend", r.backend);
  if (r.tries > 1) line.number(",\"tries\":", r.tries);
  line.text("cache", r.cache);
  if (r.background) line.raw(",\"background\":true");
  line.text("coding", r.content_coding);
  if (r.coding_stored) line.raw(",\"coding_stored\":true");
  line.duration(",\"handshake_ms\":", r.handshake_ns);
  line.duration(",\"policies_ms\":", r.policies_ns);
  line.duration(",\"queued_ms\":", r.queued_ns);
  line.duration(",\"connect_ms\":", r.connect_ns);
  line.duration(",\"backend_tls_ms\":", r.backend_tls_ns);
  line.duration(",\"connected_ms\":", r.connected_ns);
  line.duration(",\"first_byte_ms\":", r.first_byte_ns);
  line.duration(",\"total_ms\":", r.total_ns == 0 ? 1 : r.total_ns);
  line.number(",\"version\":", r.config_version);
  line.text("user_agent", r.user_agent, kLoggedTextBytes);
  line.cut();
  line.raw("}\n");
  return line.size();
}

size_t write_template_line(const AccessRecord& r, const LogTemplate& format, const LogLineHeader& header, char* out) {
  LineWriter line(out);
  line.header(header, r.realtime_ns);
  for (const LogPart& part : format.parts) write_part(r, part, line);
  line.raw("\n");
  return line.size();
}

}  // namespace tidegate::l7
