// SPDX-License-Identifier: Apache-2.0
#include "dns/zone/master_rdata.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "dns/zone/ldns_pointers.h"

namespace tidegate::dns {
namespace {

constexpr size_t kMaxTextBytes = 64'000;  // the most text that ldns is given
constexpr uint16_t kTxt = 16, kNull = 10, kApl = 42;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

template <class T>
bool parse_number(std::string_view text, T& number, int base = 10) {
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  return fault == std::errc{} && end == text.data() + text.size() && !text.empty();
}

// The byte that the escaped or plain character at `at` stands for; -1 if it is malformed. Moves `at` past it.
int unescape(std::string_view text, size_t& at) {
  if (text[at] != '\\') return static_cast<uint8_t>(text[at++]);
  if (++at == text.size()) return -1;
  if (!is_digit(text[at])) return static_cast<uint8_t>(text[at++]);
  if (text.size() - at < 3 || !is_digit(text[at + 1]) || !is_digit(text[at + 2])) return -1;
  const int byte = (text[at] - '0') * 100 + (text[at + 1] - '0') * 10 + (text[at + 2] - '0');
  at += 3;
  return byte > 255 ? -1 : byte;
}

// RFC 1035 §3.3: a length and that many bytes.
bool append_string(std::string_view text, std::vector<uint8_t>& out) {
  const size_t length_at = out.size();
  out.push_back(0);
  for (size_t at = 0; at < text.size();) {
    const int byte = unescape(text, at);
    if (byte < 0) return false;
    out.push_back(static_cast<uint8_t>(byte));
  }
  const size_t bytes = out.size() - length_at - 1;
  out[length_at] = static_cast<uint8_t>(bytes);
  return bytes <= UINT8_MAX;
}

bool append_address(int family, std::string_view text, std::vector<uint8_t>& out) {
  char terminated[INET6_ADDRSTRLEN];
  if (text.size() >= sizeof terminated) return false;
  *std::copy(text.begin(), text.end(), terminated) = '\0';
  uint8_t bytes[16];
  if (::inet_pton(family, terminated, bytes) != 1) return false;
  out.insert(out.end(), bytes, bytes + (family == AF_INET ? 4 : 16));
  return true;
}

constexpr const char* kBadName = "the domain name in its data is malformed";
const char* wrong_count(size_t tokens, size_t wanted) {
  return tokens < wanted ? "its data is incomplete" : "its data has too many parts";
}

// For types that are read here. Null if it is right, otherwise `wrong` is set.
const char* append_common(uint16_t type, std::span<const MasterToken> tokens, const Name& origin,
                          std::vector<uint8_t>& out, size_t& wrong) {
  const size_t wanted = type == rrtype::kMx ? 2 : 1;
  wrong = std::min(tokens.size(), wanted);
  if (type == kTxt ? tokens.empty() : tokens.size() != wanted) return wrong_count(tokens.size(), wanted);
  wrong = 0;
  switch (type) {
    case rrtype::kA:
      return append_address(AF_INET, tokens[0].text, out) ? nullptr : "not an IPv4 address";
    case rrtype::kAaaa:
      return append_address(AF_INET6, tokens[0].text, out) ? nullptr : "not an IPv6 address";
    case rrtype::kMx: {
      uint16_t preference = 0;
      if (!parse_number(tokens[0].text, preference)) return "the preference is not a number up to 65535";
      out.insert(out.end(), {static_cast<uint8_t>(preference >> 8), static_cast<uint8_t>(preference)});
      wrong = 1;
      return append_name_text(tokens[1].text, origin, out) ? nullptr : kBadName;
    }
    case kTxt:
      for (; wrong < tokens.size(); ++wrong) {
        if (!append_string(tokens[wrong].text, out)) return "a text is malformed or longer than 255 bytes";
      }
      return nullptr;
    default:  // NS, CNAME, PTR, DNAME
      return append_name_text(tokens[0].text, origin, out) ? nullptr : kBadName;
  }
}

bool is_common(uint16_t type) {
  switch (type) {
    case rrtype::kA:
    case rrtype::kAaaa:
    case rrtype::kMx:
    case kTxt:
    case rrtype::kNs:
    case rrtype::kCname:
    case rrtype::kPtr:
    case rrtype::kDname:
      return true;
    default:
      return false;
  }
}

void append_fields(const ldns_rr* rr, std::vector<uint8_t>& out) {
  for (size_t i = 0; i < ldns_rr_rd_count(rr); ++i) {
    const ldns_rdf* field = ldns_rr_rdf(rr, i);
    out.insert(out.end(), ldns_rdf_data(field), ldns_rdf_data(field) + ldns_rdf_size(field));
  }
}

std::string append_by_ldns(uint16_t type, std::span<const MasterToken> tokens, const Name& origin,
                           std::vector<uint8_t>& out) {
  char* type_text = ldns_rr_type2str(static_cast<ldns_rr_type>(type));
  std::string text = fmt::format(". 0 IN {}", type_text);
  std::free(type_text);
  for (const MasterToken& token : tokens) {
    const char* quote = token.quoted ? "\"" : "";
    text += fmt::format(" {}{}{}", quote, token.text, quote);
  }
  if (text.size() > kMaxTextBytes) return "its data is longer than a record can hold";
  const RdfPtr below(ldns_dname_new_frm_data(static_cast<uint16_t>(origin.bytes()), origin.wire().data()));
  ldns_rr* raw = nullptr;
  const ldns_status status = ldns_rr_new_frm_str(&raw, text.c_str(), 0, below.get(), nullptr);
  const RrPtr rr(raw);
  if (status != LDNS_STATUS_OK) return ldns_get_errorstr_by_id(status);
  if (ldns_rr_rd_count(raw) == 0 && type != kApl && type != kNull) return wrong_count(0, 1);
  append_fields(raw, out);
  return {};
}

// True if data in wire form is valid to ldns, for a type that ldns knows: no truncated names, no extra fields.
bool is_wire_form(uint16_t type, std::span<const uint8_t> rdata) {
  const ldns_rr_descriptor* shape = ldns_rr_descript(type);
  if (shape == nullptr || shape->_name == nullptr) return true;
  if (rdata.empty()) return type == kApl || type == kNull;
  std::vector<uint8_t> record(11, 0);
  store_u16(&record[1], type);
  store_u16(&record[3], kClassIn);
  store_u16(&record[9], static_cast<uint16_t>(rdata.size()));
  record.insert(record.end(), rdata.begin(), rdata.end());
  ldns_rr* raw = nullptr;
  size_t at = 0;
  const ldns_status status = ldns_wire2rr(&raw, record.data(), record.size(), &at, LDNS_SECTION_ANSWER);
  const RrPtr rr(raw);
  if (status != LDNS_STATUS_OK || at != record.size()) return false;
  std::vector<uint8_t> again;
  append_fields(raw, again);
  // ldns would read a compressed name differently
  return std::equal(again.begin(), again.end(), rdata.begin(), rdata.end());
}

std::string append_generic(uint16_t type, std::span<const MasterToken> tokens, std::vector<uint8_t>& out) {
  uint16_t bytes = 0;
  if (tokens.empty() || !parse_number(tokens[0].text, bytes)) return "\\# wants a length up to 65535";
  const size_t start = out.size();
  std::string digits;  // the hexadecimal digits may be split anywhere
  for (const MasterToken& token : tokens.subspan(1)) digits += token.text;
  if (digits.size() != size_t{bytes} * 2) return "\\# and its length contradict each other";
  for (size_t i = 0; i < digits.size(); i += 2) {
    uint8_t byte = 0;
    if (!parse_number(std::string_view(digits).substr(i, 2), byte, 16)) return "\\# wants hexadecimal digits";
    out.push_back(byte);
  }
  if (!is_wire_form(type, std::span(out).subspan(start))) return "\\# does not hold what its type has";
  return {};
}

}  // namespace

bool append_name_text(std::string_view text, const Name& origin, std::vector<uint8_t>& out) {
  const size_t start = out.size();
  const auto end_in = [&](std::span<const uint8_t> suffix) {
    out.insert(out.end(), suffix.begin(), suffix.end());
    return out.size() - start <= Name::kMaxBytes;
  };
  if (text == "@") return end_in(origin.wire());
  if (text == ".") return end_in(origin.suffix(0));
  if (text.empty()) return false;
  size_t label_at = out.size();
  out.push_back(0);
  for (size_t at = 0; at < text.size();) {
    if (text[at] != '.') {
      const int byte = unescape(text, at);
      if (byte < 0 || out.size() - label_at > 63) return false;
      out.push_back(static_cast<uint8_t>(byte));
      continue;
    }
    const size_t bytes = out.size() - label_at - 1;
    if (bytes == 0) return false;
    out[label_at] = static_cast<uint8_t>(bytes);
    if (++at == text.size()) return end_in(origin.suffix(0));  // the name is absolute
    label_at = out.size();
    out.push_back(0);
  }
  out[label_at] = static_cast<uint8_t>(out.size() - label_at - 1);
  return end_in(origin.wire());
}

std::optional<uint32_t> parse_ttl(std::string_view text) {
  if (text.empty() || !is_digit(text[0])) return std::nullopt;
  uint64_t sum_s = 0, number = 0;
  bool digits = false;  // digits since the last unit
  for (const char c : text) {
    if (is_digit(c)) {
      number = number * 10 + static_cast<uint64_t>(c - '0');
      digits = true;
    } else {
      uint64_t unit_s = 0;
      switch (c | 0x20) {
        case 's':
          unit_s = 1;
          break;
        case 'm':
          unit_s = 60;
          break;
        case 'h':
          unit_s = 3'600;
          break;
        case 'd':
          unit_s = 86'400;
          break;
        case 'w':
          unit_s = 604'800;
          break;
        default:
          return std::nullopt;
      }
      if (!digits) return std::nullopt;
      sum_s += number * unit_s;
      number = 0;
      digits = false;
    }
    if (number > UINT32_MAX || sum_s > UINT32_MAX) return std::nullopt;
  }
  sum_s += number;
  if (sum_s > UINT32_MAX) return std::nullopt;
  return sum_s > INT32_MAX ? 0 : static_cast<uint32_t>(sum_s);
}

uint16_t parse_type(std::string_view text) {
  if (text == "A") return rrtype::kA;
  if (text == "AAAA") return rrtype::kAaaa;
  if (text == "NS") return rrtype::kNs;
  if (text == "CNAME") return rrtype::kCname;
  if (text == "TXT") return kTxt;
  const std::string terminated(text);
  const auto type = static_cast<unsigned>(ldns_get_rr_type_by_name(terminated.c_str()));
  const bool only_in_messages = type == rrtype::kOpt || (type >= 128 && type <= 255);
  return only_in_messages || type > UINT16_MAX ? uint16_t{0} : static_cast<uint16_t>(type);
}

std::string append_rdata(uint16_t type, std::span<const MasterToken> tokens, const Name& origin,
                         std::vector<uint8_t>& out, size_t& wrong) {
  wrong = 0;
  if (!tokens.empty() && !tokens[0].quoted && tokens[0].text == "\\#") {
    return append_generic(type, tokens.subspan(1), out);
  }
  if (!is_common(type)) return append_by_ldns(type, tokens, origin, out);
  const char* fault = append_common(type, tokens, origin, out, wrong);
  return fault == nullptr ? std::string() : fault;
}

}  // namespace tidegate::dns
