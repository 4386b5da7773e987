// SPDX-License-Identifier: Apache-2.0
#include "dns/plan/zone_rewriter.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "conf/zone_includes.h"
#include "core/assert.h"
#include "dns/zone/master_rdata.h"
#include "dns/zone/master_text.h"

namespace tidegate::dns {
namespace {

bool parse_name(std::string_view text, const Name& origin, Name& name) {
  std::vector<uint8_t> wire;
  return append_name_text(text, origin, wire) && name.parse(wire);
}

// The token that is the serial of a SOA written in the usual form; null if it is written otherwise.
const MasterToken* serial_of(const MasterEntry& entry) {
  for (size_t i = entry.starts_blank ? 0 : 1; i + 3 < entry.tokens.size(); ++i) {
    if (!entry.tokens[i].quoted && equals_ignore_case(entry.tokens[i].text, "SOA")) {
      return entry.tokens[i + 1].text == "\\#" ? nullptr : &entry.tokens[i + 3];
    }
  }
  return nullptr;
}

}  // namespace

ZoneRewriter::ZoneRewriter(const Name& apex, const MasterFile& file, std::string_view text)
    : apex_(apex), file_(file), text_(text), left_out_(file.records.size(), false), lexer_(text) {
  scopes_.push_back({apex, false});
}

void ZoneRewriter::replace(std::vector<bool> left_out, std::string instead) {
  TIDEGATE_ASSERT(left_out.size() == file_.records.size(), "each record stays or goes");
  left_out_ = std::move(left_out);
  instead_ = std::move(instead);
}

std::string ZoneRewriter::write() {
  out_.reserve(text_.size() + instead_.size() + 64);
  size_t index = 0, written = 0;  // index of the record; offset in the text
  while (lexer_.next(entry_)) {
    const size_t at_newline = text_.rfind('\n', entry_.at);
    const size_t line_at = at_newline == std::string_view::npos ? 0 : at_newline + 1;
    const size_t from = std::max(written, line_at);
    const size_t end = std::min(lexer_.position() + 1, text_.size());
    out_.append(text_.substr(written, from - written));  // comments and empty lines
    const std::string_view region = text_.substr(from, end - from);
    written = end;
    const bool is_record = index < file_.records.size() && file_.records[index].at == entry_.at;
    if (!is_record) {
      write_directive(region);
    } else if (left_out_[index]) {
      scopes_.back().owner_lost = scopes_.back().owner_lost || !entry_.starts_blank;
      ttl_lost_ = ttl_lost_ || file_.records[index].states_ttl;
      put_instead();
    } else {
      write_record(file_.records[index], region, from);
    }
    if (is_record) ++index;
  }
  out_.append(text_.substr(written));
  if (!out_.empty() && out_.back() != '\n' && !instead_.empty()) out_.push_back('\n');
  put_instead();
  return std::move(out_);
}

void ZoneRewriter::put_instead() {
  if (instead_.empty()) return;
  if (!out_.empty() && out_.back() != '\n') out_.push_back('\n');
  out_ += std::exchange(instead_, {});
  scopes_.back().owner_lost = true;
  ttl_lost_ = true;
}

void ZoneRewriter::write_directive(std::string_view region) {
  const std::string_view name = entry_.tokens[0].text;
  if (name == kIncludeBegins) {
    Scope inner = scopes_.back();
    if (entry_.tokens.size() > 2) parse_name(entry_.tokens[2].text, scopes_.back().origin, inner.origin);
    scopes_.push_back(std::move(inner));
    if (!drops_marks_) return void(out_.append(region));
    out_ += fmt::format("; from {}\n$ORIGIN {}\n", entry_.tokens.size() > 1 ? entry_.tokens[1].text : "",
                        owner_to_text(scopes_.back().origin.wire()));
    return;
  }
  if (name == kIncludeEnds && scopes_.size() > 1) {
    scopes_.pop_back();
    if (!drops_marks_) return void(out_.append(region));
    scopes_.back().owner_lost = true;  // the last owner is now the one of the included file
    out_ += fmt::format("; back again\n$ORIGIN {}\n", owner_to_text(scopes_.back().origin.wire()));
    return;
  }
  if (equals_ignore_case(name, "$ORIGIN") && entry_.tokens.size() > 1) {
    Name origin;
    if (parse_name(entry_.tokens[1].text, scopes_.back().origin, origin)) scopes_.back().origin = origin;
  }
  has_default_ttl_ = has_default_ttl_ || equals_ignore_case(name, "$TTL");
  out_.append(region);
}

void ZoneRewriter::write_record(const MasterRecord& record, std::string_view region, size_t region_at) {
  Scope& scope = scopes_.back();
  const MasterToken* const serial = raises_serial_ && record.type == rrtype::kSoa ? serial_of(entry_) : nullptr;
  std::string_view rest = region;  // text to write unchanged
  size_t rest_at = region_at;
  const auto write_up_to = [&](size_t at) {
    out_.append(rest.substr(0, at - rest_at));
    rest.remove_prefix(at - rest_at);
    rest_at = at;
  };
  const bool ttl_lost = ttl_lost_ && !has_default_ttl_ && !record.states_ttl;
  const std::string ttl = ttl_lost ? fmt::format("{} ", record.ttl_s) : std::string();
  if (entry_.starts_blank && scope.owner_lost) {
    out_ += owner_to_text(file_.owner(record)) + " " + ttl;
    rest.remove_prefix(entry_.at - rest_at);
    rest_at = entry_.at;
  } else if (!ttl.empty()) {
    const MasterToken& owner = entry_.tokens[0];
    write_up_to(entry_.starts_blank ? entry_.at
                                    : lexer_.at(owner) + owner.text.size() + (owner.quoted ? size_t{2} : 0));
    out_ += (entry_.starts_blank ? "" : " ") + ttl;
  }
  scope.owner_lost = false;
  if (record.states_ttl || !ttl.empty()) ttl_lost_ = false;
  if (serial != nullptr) {
    uint32_t number = 0;
    const auto [end, fault] = std::from_chars(serial->text.data(), serial->text.data() + serial->text.size(), number);
    if (fault == std::errc{} && end == serial->text.data() + serial->text.size()) {
      write_up_to(lexer_.at(*serial));
      out_ += fmt::format("{}", number + 1);  // RFC 1982 §3.1: it wraps around
      rest.remove_prefix(serial->text.size());
    }
  }
  out_.append(rest);
}

}  // namespace tidegate::dns
