// SPDX-License-Identifier: Apache-2.0
#include "core/http1.h"

#include <cstring>

#include "core/http1_chars.h"
#include "core/ip.h"

namespace tidegate::http1 {
namespace {

constexpr uint64_t kMaxContentLength = INT64_MAX;  // the sum of two such lengths still fits

// The result of one parsing step: it went on, it needs more bytes, or it refused them.
struct Outcome {
  Status status = Status::complete;
  Fault fault = Fault::none;
};
constexpr Outcome kMoved{};
constexpr Outcome kIncomplete{Status::incomplete, Fault::none};
constexpr Outcome refuse(Fault fault) { return {Status::error, fault}; }

// The framing and connection fields found while the field lines were read. They are checked together after the last
// one.
struct SeenFields {
  const Field* host = nullptr;
  bool has_length = false;
  bool has_coding = false;
  bool close = false;
  bool keep_alive = false;
  bool upgrade_option = false;
  bool upgrade_field = false;
  bool expect_continue = false;
  bool cookie = false;
  size_t more_cookies = 0;  // Cookie fields after the first
};

class HeadParser {
 public:
  HeadParser(std::string_view window, const Limits& limits, Head& head)
      : begin_(window.data()), at_(begin_), end_(begin_ + window.size()), limits_(limits), head_(head) {
    head_.method = head_.target = head_.path = head_.query = head_.authority = head_.reason = {};
    head_.status = 0;
    head_.field_count = 0;
    head_.framing = Framing::none;
    head_.content_length = 0;
    head_.expect_continue = head_.upgrade = false;
  }

  Outcome request();
  Outcome response(bool to_head);
  size_t consumed() const { return static_cast<size_t>(at_ - begin_); }

 private:
  Outcome skip_leading_lines();
  Outcome request_line();
  Outcome status_line();
  Outcome version(Fault malformed);
  Outcome line_end(Fault otherwise);
  Outcome field_lines();
  Outcome field_name(Field& field);
  Outcome field_value(Field& field);
  Fault note(const Field& field);
  Fault note_connection(std::string_view value);
  Fault note_content_length(std::string_view value);
  Fault note_transfer_encoding(std::string_view value);
  Fault split_target();
  Fault split_absolute_target();
  Fault check_host();
  Fault check_framing();
  void decide_connection();

  const char* const begin_;
  const char* at_;
  const char* const end_;
  const Limits& limits_;
  Head& head_;
  SeenFields seen_;
};

std::string_view between(const char* from, const char* to) { return {from, static_cast<size_t>(to - from)}; }

// RFC 9112 §2.2: a server should ignore at least one empty line before the request line.
Outcome HeadParser::skip_leading_lines() {
  for (size_t lines = 0; at_ != end_ && *at_ == '\r'; ++lines) {
    if (lines == kMaxLeadingLines) return refuse(Fault::bad_request_line);
    if (const Outcome ended = line_end(Fault::bad_request_line); ended.status != Status::complete) return ended;
  }
  return kMoved;
}

// Takes CRLF. A bare CR or LF is its own fault: RFC 9112 §2.2 allows us to accept a bare LF, but readers differ, so we
// refuse it. Any other byte is the fault `otherwise`.
Outcome HeadParser::line_end(Fault otherwise) {
  if (at_ == end_) return kIncomplete;
  if (*at_ == '\n') return refuse(Fault::bad_line_ending);
  if (*at_ != '\r') return refuse(otherwise);
  if (end_ - at_ < 2) return kIncomplete;
  if (at_[1] != '\n') return refuse(Fault::bad_line_ending);
  at_ += 2;
  return kMoved;
}

// HTTP-version = "HTTP" "/" DIGIT "." DIGIT, case-sensitive (RFC 9112 §2.3). A minor version above ours is treated as
// ours (RFC 9110 §2.5).
Outcome HeadParser::version(Fault malformed) {
  static constexpr char kShape[] = "HTTP/d.d";
  for (size_t i = 0; kShape[i] != '\0'; ++i) {
    if (at_ + i == end_) return kIncomplete;
    const char c = at_[i];
    const bool fits = kShape[i] == 'd' ? c >= '0' && c <= '9' : c == kShape[i];
    if (!fits) return refuse(c == '\n' ? Fault::bad_line_ending : malformed);
  }
  if (at_[5] != '1') return refuse(Fault::unsupported_version);
  head_.minor_version = at_[7] == '0' ? 0 : 1;
  at_ += 8;
  return kMoved;
}

// request-line = method SP request-target SP HTTP-version CRLF (RFC 9112 §3), with exactly one SP each.
Outcome HeadParser::request_line() {
  const char* const method = at_;
  at_ = skip_class(at_, end_, kToken);
  if (at_ == end_) return kIncomplete;
  if (*at_ == '\n') return refuse(Fault::bad_line_ending);
  if (*at_ != ' ') return refuse(*at_ == '\r' ? Fault::bad_request_line : Fault::bad_method);
  if (at_ == method) return refuse(Fault::bad_request_line);
  head_.method = between(method, at_++);

  const char* const target = at_;
  at_ = skip_class(at_, end_, kTarget);
  if (static_cast<size_t>(at_ - target) > limits_.target_bytes) return refuse(Fault::target_too_long);
  if (at_ == end_) return kIncomplete;
  if (*at_ == '\n') return refuse(Fault::bad_line_ending);
  if (*at_ != ' ') return refuse(*at_ == '\r' ? Fault::bad_request_line : Fault::bad_target);
  if (at_ == target) return refuse(Fault::bad_request_line);
  head_.target = between(target, at_++);

  if (const Outcome read = version(Fault::bad_version); read.status != Status::complete) return read;
  return line_end(Fault::bad_version);
}

// status-line = HTTP-version SP 3DIGIT SP [ reason-phrase ] CRLF (RFC 9112 §4). Many servers leave out the phrase
// and the SP before it.
Outcome HeadParser::status_line() {
  if (const Outcome read = version(Fault::bad_status_line); read.status != Status::complete) return read;
  static constexpr char kShape[] = " ddd";
  for (size_t i = 0; kShape[i] != '\0'; ++i) {
    if (at_ + i == end_) return kIncomplete;
    const char c = at_[i];
    const bool fits = kShape[i] == 'd' ? c >= '0' && c <= '9' : c == kShape[i];
    if (!fits) return refuse(c == '\n' ? Fault::bad_line_ending : Fault::bad_status_line);
  }
  head_.status = static_cast<uint16_t>((at_[1] - '0') * 100 + (at_[2] - '0') * 10 + (at_[3] - '0'));
  // RFC 9110 §15 has 100 to 599. A client treats others as 5xx, and some servers use them.
  if (head_.status < 100) return refuse(Fault::bad_status_line);
  at_ += 4;
  if (at_ == end_) return kIncomplete;
  if (*at_ != ' ') return line_end(Fault::bad_status_line);
  const char* const reason = ++at_;
  at_ = skip_field_value(at_, end_);
  head_.reason = between(reason, at_);
  return line_end(Fault::bad_status_line);
}

// *( field-line CRLF ) CRLF (RFC 9112 §2.1, §5).
Outcome HeadParser::field_lines() {
  for (;;) {
    if (at_ == end_) return kIncomplete;
    if (*at_ == '\r' || *at_ == '\n') return line_end(Fault::bad_line_ending);
    // §5.2 (obs-fold) and §2.2 (white space before the first field line).
    if (*at_ == ' ' || *at_ == '\t') return refuse(Fault::obs_fold);
    if (head_.field_count == kMaxFields) return refuse(Fault::too_many_fields);
    Field& field = head_.fields[head_.field_count];
    if (const Outcome read = field_name(field); read.status != Status::complete) return read;
    if (const Outcome read = field_value(field); read.status != Status::complete) return read;
    if (const Fault fault = note(field); fault != Fault::none) return refuse(fault);
    if (++head_.field_count - seen_.more_cookies > limits_.fields) return refuse(Fault::too_many_fields);
  }
}

// field-name ":" without anything between them (RFC 9112 §5.1).
Outcome HeadParser::field_name(Field& field) {
  const char* const name = at_;
  at_ = skip_class(at_, end_, kToken);
  if (at_ == end_) return kIncomplete;
  if (*at_ == '\n') return refuse(Fault::bad_line_ending);
  if (at_ != name && (*at_ == ' ' || *at_ == '\t')) return refuse(Fault::space_before_colon);
  if (at_ == name || *at_ != ':') return refuse(Fault::bad_field_name);
  field.name = between(name, at_++);
  return kMoved;
}

// OWS field-value OWS CRLF (RFC 9112 §5, RFC 9110 §5.5).
Outcome HeadParser::field_value(Field& field) {
  while (at_ != end_ && (*at_ == ' ' || *at_ == '\t')) ++at_;
  const char* const value = at_;
  at_ = skip_field_value(at_, end_);
  const char* last = at_;
  while (last != value && (last[-1] == ' ' || last[-1] == '\t')) --last;
  field.value = between(value, last);
  return line_end(Fault::bad_field_value);
}

Fault HeadParser::note(const Field& field) {
  switch (field.name.size()) {
    case 4:
      if (!equals_ignore_case(field.name, "host")) break;
      if (seen_.host != nullptr) return Fault::duplicate_host;
      seen_.host = &field;
      break;
    case 6:
      // All Cookie fields count as one, as in HTTP/2, where each pair may be a field (RFC 9113 §8.2.3).
      if (equals_ignore_case(field.name, "cookie")) {
        if (seen_.cookie) ++seen_.more_cookies;
        seen_.cookie = true;
        break;
      }
      // RFC 9110 §10.1.1
      if (!equals_ignore_case(field.name, "expect")) break;
      if (!equals_ignore_case(field.value, "100-continue")) return Fault::unsupported_expectation;
      seen_.expect_continue = true;
      break;
    case 7:
      if (equals_ignore_case(field.name, "upgrade")) seen_.upgrade_field = true;
      break;
    case 10:
      if (equals_ignore_case(field.name, "connection")) return note_connection(field.value);
      break;
    case 14:
      if (equals_ignore_case(field.name, "content-length")) return note_content_length(field.value);
      break;
    case 17:
      if (equals_ignore_case(field.name, "transfer-encoding")) return note_transfer_encoding(field.value);
      break;
    default:
      break;
  }
  return Fault::none;
}

// Connection = #connection-option, each a token (RFC 9110 §7.6.1).
Fault HeadParser::note_connection(std::string_view value) {
  bool all_tokens = true;
  for_each_element(value, [&](std::string_view option) {
    all_tokens = all_tokens && is_token(option);
    if (equals_ignore_case(option, "close")) seen_.close = true;
    if (equals_ignore_case(option, "keep-alive")) seen_.keep_alive = true;
    if (equals_ignore_case(option, "upgrade")) seen_.upgrade_option = true;
  });
  return all_tokens ? Fault::none : Fault::bad_field_value;
}

// 1*DIGIT, once. RFC 9110 §8.6 allows a recipient to take "5, 5" as 5, or to refuse it; we refuse it.
Fault HeadParser::note_content_length(std::string_view value) {
  if (seen_.has_length || value.empty()) return Fault::bad_content_length;
  uint64_t length = 0;
  for (const char c : value) {
    if (c < '0' || c > '9') return Fault::bad_content_length;
    const auto digit = static_cast<uint64_t>(c - '0');
    if (length > (kMaxContentLength - digit) / 10) return Fault::bad_content_length;
    length = length * 10 + digit;
  }
  seen_.has_length = true;
  head_.content_length = length;
  return Fault::none;
}

// RFC 9112 §6.1: an unknown coding before a final chunked is answered 501. §6.3: anything else that does not end in
// chunked cannot be framed.
Fault HeadParser::note_transfer_encoding(std::string_view value) {
  if (seen_.has_coding) return Fault::bad_transfer_encoding;
  seen_.has_coding = true;
  if (equals_ignore_case(value, "chunked")) return Fault::none;
  std::string_view last;
  size_t codings = 0, chunked = 0;
  for_each_element(value, [&](std::string_view coding) {
    last = coding;
    ++codings;
    if (equals_ignore_case(coding, "chunked")) ++chunked;
  });
  const bool only_unknown_before = codings > 1 && chunked == 1 && equals_ignore_case(last, "chunked");
  return only_unknown_before ? Fault::unsupported_transfer_encoding : Fault::bad_transfer_encoding;
}

// The four forms of a request target (RFC 9112 §3.2). The method decides which form is allowed.
Fault HeadParser::split_target() {
  const std::string_view target = head_.target;
  if (head_.method == "CONNECT") {  // §3.2.3 authority-form, the only one for CONNECT
    head_.authority = target;
    return is_authority(target, true) ? Fault::none : Fault::bad_target;
  }
  if (target == "*") {  // §3.2.4 asterisk-form
    head_.path = target;
    return head_.method == "OPTIONS" ? Fault::none : Fault::bad_target;
  }
  if (target.front() != '/') return split_absolute_target();
  const size_t mark = target.find('?');  // §3.2.1 origin-form
  head_.path = target.substr(0, mark);
  if (mark != std::string_view::npos) head_.query = target.substr(mark + 1);
  return Fault::none;
}

// §3.2.2 absolute-form: a server must accept it, although only clients of proxies send it.
Fault HeadParser::split_absolute_target() {
  const size_t colon = head_.target.find("://");
  if (colon == std::string_view::npos) return Fault::bad_target;
  const std::string_view scheme = head_.target.substr(0, colon);
  if (!equals_ignore_case(scheme, "http") && !equals_ignore_case(scheme, "https")) return Fault::bad_target;
  const std::string_view rest = head_.target.substr(colon + 3);
  const size_t authority_bytes = std::min(rest.find_first_of("/?"), rest.size());
  head_.authority = rest.substr(0, authority_bytes);
  if (!is_authority(head_.authority, false)) return Fault::bad_target;
  const std::string_view path_and_query = rest.substr(authority_bytes);
  const size_t mark = path_and_query.find('?');
  head_.path = path_and_query.substr(0, mark);
  if (mark != std::string_view::npos) head_.query = path_and_query.substr(mark + 1);
  // An empty path means "/" (RFC 9110 §4.2.3). For OPTIONS it means "*" (RFC 9112 §3.2.4).
  if (head_.path.empty()) head_.path = head_.method == "OPTIONS" && mark == std::string_view::npos ? "*" : "/";
  return Fault::none;
}

// RFC 9112 §3.2: HTTP/1.1 needs exactly one valid Host. If the target has an authority, the target wins (§3.2.2), and a
// recipient behind us never sees the Host field. The target of CONNECT must be equal to Host.
Fault HeadParser::check_host() {
  if (seen_.host == nullptr) return head_.minor_version == 0 ? Fault::none : Fault::missing_host;
  const std::string_view host = seen_.host->value;
  if (!is_authority(host, false)) return Fault::bad_host;
  const bool connect = head_.method == "CONNECT";
  if (connect && !equals_ignore_case(head_.authority, host)) return Fault::bad_host;
  if (head_.authority.empty()) head_.authority = host;
  return Fault::none;
}

// RFC 9112 §6.3: the rules that requests and responses share.
Fault HeadParser::check_framing() {
  if (seen_.has_coding && seen_.has_length) return Fault::both_length_and_chunked;
  if (seen_.has_coding && head_.minor_version == 0) return Fault::bad_transfer_encoding;  // §6.1
  if (seen_.has_coding) head_.framing = Framing::chunked;
  if (seen_.has_length) head_.framing = Framing::length;
  return Fault::none;
}

// RFC 9112 §9.3, in the RFC's order.
void HeadParser::decide_connection() {
  head_.keep_alive = !seen_.close && (head_.minor_version >= 1 || seen_.keep_alive);
  head_.upgrade = seen_.upgrade_option && seen_.upgrade_field;
}

Outcome HeadParser::request() {
  if (const Outcome skipped = skip_leading_lines(); skipped.status != Status::complete) return skipped;
  if (const Outcome read = request_line(); read.status != Status::complete) return read;
  if (const Fault fault = split_target(); fault != Fault::none) return refuse(fault);
  if (const Outcome read = field_lines(); read.status != Status::complete) return read;
  if (const Fault fault = check_host(); fault != Fault::none) return refuse(fault);
  if (const Fault fault = check_framing(); fault != Fault::none) return refuse(fault);
  decide_connection();
  // RFC 9110 §10.1.1: ignored from an HTTP/1.0 client, and if neither content nor a tunnel follows.
  const bool more_follows = head_.framing != Framing::none || head_.upgrade;
  head_.expect_continue = seen_.expect_continue && head_.minor_version >= 1 && more_follows;
  return kMoved;
}

Outcome HeadParser::response(bool to_head) {
  if (const Outcome read = status_line(); read.status != Status::complete) return read;
  if (const Outcome read = field_lines(); read.status != Status::complete) return read;
  if (const Fault fault = check_framing(); fault != Fault::none) return refuse(fault);
  decide_connection();
  // RFC 9112 §6.3: rule 1 (these have no body) and rule 8 (the body ends when the connection closes).
  const bool bodiless = to_head || head_.status < 200 || head_.status == 204 || head_.status == 304;
  if (bodiless) {
    head_.framing = Framing::none;
    head_.content_length = 0;
  } else if (head_.framing == Framing::none) {
    head_.framing = Framing::until_close;
    head_.keep_alive = false;
  }
  return kMoved;
}

// True if the bytes from `scanned` on contain the empty line or a bare LF, so that parsing has a result. Advances
// `scanned`.
bool worth_parsing(std::string_view buffer, size_t& scanned) {
  while (scanned < buffer.size()) {
    const void* found = std::memchr(buffer.data() + scanned, '\n', buffer.size() - scanned);
    if (found == nullptr) break;
    const auto lf = static_cast<size_t>(static_cast<const char*>(found) - buffer.data());
    scanned = lf + 1;
    if (lf == 0 || buffer[lf - 1] != '\r') return true;
    if (lf >= 2 && buffer[lf - 2] == '\n') return true;
  }
  scanned = buffer.size();
  return false;
}

// A head that came complete is read in one pass. A head that came in pieces is parsed again only when its end has
// arrived, so a client that sends byte by byte costs O(n).
template <class Parse>
ParseResult parse_head(std::string_view buffer, const Limits& limits, size_t& scanned, Head& head, Parse&& parse) {
  const bool full = buffer.size() >= limits.head_bytes;
  if (scanned != 0 && !full && !worth_parsing(buffer, scanned)) return {};
  HeadParser parser(buffer.substr(0, limits.head_bytes), limits, head);
  const Outcome outcome = parse(parser);
  if (outcome.status == Status::complete) return {Status::complete, parser.consumed(), Fault::none};
  if (outcome.status == Status::error) return {Status::error, 0, outcome.fault};
  if (full) return {Status::error, 0, Fault::head_too_large};
  if (scanned == 0) scanned = buffer.size();
  return {};
}

}  // namespace

bool is_authority(std::string_view text, bool port_required) {
  const bool literal = !text.empty() && text.front() == '[';
  const size_t host_bytes = literal ? text.find(']') + 1 : std::min(text.find(':'), text.size());
  if (host_bytes == 0) return false;  // the host is empty, or '[' has no ']' (npos + 1)
  const std::string_view host = text.substr(0, host_bytes);
  if (literal) {
    const auto address = IpAddress::parse(host.substr(1, host.size() - 2));
    if (!address || !address->is_v6()) return false;
  } else if (skip_class(host.data(), host.data() + host.size(), kHostName) != host.data() + host.size()) {
    return false;
  }
  if (host_bytes == text.size()) return !port_required;
  const std::string_view digits = text.substr(host_bytes + 1);
  if (text[host_bytes] != ':' || digits.size() > 5) return false;
  if (digits.empty()) return !port_required;
  unsigned port = 0;
  for (const char c : digits) {
    if (c < '0' || c > '9') return false;
    port = port * 10 + static_cast<unsigned>(c - '0');
  }
  return port <= 65535;
}

ParseResult parse_request(std::string_view buffer, const Limits& limits, size_t& scanned, Head& head) {
  return parse_head(buffer, limits, scanned, head, [](HeadParser& parser) { return parser.request(); });
}

ParseResult parse_response(std::string_view buffer, const Limits& limits, size_t& scanned, bool to_head, Head& head) {
  return parse_head(buffer, limits, scanned, head, [to_head](HeadParser& parser) { return parser.response(to_head); });
}

const Field* Head::find(std::string_view lower_name) const {
  for (const Field& field : *this) {
    if (equals_ignore_case(field.name, lower_name)) return &field;
  }
  return nullptr;
}

}  // namespace tidegate::http1
