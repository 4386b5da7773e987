// SPDX-License-Identifier: Apache-2.0
#include "dns/zone/master_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "conf/zone_includes.h"
#include "dns/zone/master_lexer.h"
#include "dns/zone/master_rdata.h"

namespace tidegate::dns {
namespace {

constexpr uint32_t kDefaultTtlS = 3'600;  // where neither $TTL nor an earlier record gives one

bool equals_ignore_case(std::string_view text, std::string_view upper) {
  return std::equal(text.begin(), text.end(), upper.begin(), upper.end(),
                    [](char a, char b) { return (a >= 'a' && a <= 'z' ? a - 32 : a) == b; });
}

// The class that a field names; nothing where it names none.
std::optional<uint16_t> parse_class(std::string_view text) {
  if (equals_ignore_case(text, "IN")) return kClassIn;
  if (equals_ignore_case(text, "CH") || equals_ignore_case(text, "HS") || equals_ignore_case(text, "CS")) return 0;
  if (text.size() > 5 && equals_ignore_case(text.substr(0, 5), "CLASS")) return text.substr(5) == "1" ? 1 : 0;
  return std::nullopt;
}

// What one file has set, and what ends with it.
struct Scope {
  Name origin;
  uint32_t previous_owner = 0;            // as MasterRecord::owner
  uint8_t previous_owner_bytes = 0;       // 0: none yet
  std::optional<uint32_t> default_ttl_s;  // $TTL (RFC 2308 §4)
  std::optional<uint32_t> stated_ttl_s;   // the last that a record stated (RFC 1035 §5.1)
  uint8_t file = 0;
  uint32_t begins_at = 0;    // the line of the whole text on which its mark stands
  uint32_t other_lines = 0;  // of the whole text, up to here, that are not this file's
};

class Reader {
 public:
  Reader(const Name& apex, std::string_view file_name, std::string_view text) : lexer_(text) {
    scopes_.emplace_back();
    scopes_.back().origin = apex;
    file_.files.emplace_back(file_name);
    file_.records.reserve(text.size() / 48);
    file_.bytes.reserve(text.size());
  }

  Result<MasterFile> read() {
    while (lexer_.next(entry_)) {
      const std::string fault = is_directive() ? directive() : record();
      if (!fault.empty()) return fault_at(entry_.line, fault);
    }
    if (lexer_.fault() != nullptr) return fault_at(lexer_.line(), lexer_.fault());
    return std::move(file_);
  }

 private:
  Scope& scope() { return scopes_.back(); }

  bool is_directive() const {
    return !entry_.starts_blank && !entry_.tokens[0].quoted && entry_.tokens[0].text[0] == '$';
  }

  std::string directive() {
    const std::string_view name = entry_.tokens[0].text;
    const size_t arguments = entry_.tokens.size() - 1;
    if (name == kIncludeBegins) return enter_file();
    if (name == kIncludeEnds) return leave_file();
    if (equals_ignore_case(name, "$ORIGIN")) {
      if (arguments != 1 || !parse_name(entry_.tokens[1].text, scope().origin)) return "$ORIGIN wants a domain name";
      return {};
    }
    if (equals_ignore_case(name, "$TTL")) {
      scope().default_ttl_s = arguments == 1 ? parse_ttl(entry_.tokens[1].text) : std::nullopt;
      return scope().default_ttl_s ? "" : "$TTL wants a number of seconds";
    }
    if (equals_ignore_case(name, "$INCLUDE")) return "$INCLUDE: that file did not come with the zone";
    return fmt::format("{} is not known here; $ORIGIN, $TTL and $INCLUDE are", name);
  }

  // Its origin and its last owner end with the included file (RFC 1035 §5.1); $TTL goes on, as in BIND and NSD.
  std::string enter_file() {
    if (file_.files.size() > UINT8_MAX) return "too many files are included";
    Scope inner = scope();
    if (entry_.tokens.size() > 2 && !parse_name(entry_.tokens[2].text, inner.origin)) {
      return "$INCLUDE: its origin is no domain name";
    }
    inner.file = static_cast<uint8_t>(file_.files.size());
    inner.begins_at = inner.other_lines = entry_.line;
    file_.files.emplace_back(entry_.tokens.size() > 1 ? entry_.tokens[1].text : "");
    scopes_.push_back(std::move(inner));
    return {};
  }

  std::string leave_file() {
    if (scopes_.size() == 1) return fmt::format("{} is not known here", kIncludeEnds);
    const Scope inner = std::move(scope());
    scopes_.pop_back();
    scope().default_ttl_s = inner.default_ttl_s;
    scope().stated_ttl_s = inner.stated_ttl_s;
    scope().other_lines += entry_.line - inner.begins_at;  // its own line was the directive's
    return {};
  }

  std::string record() {
    const std::span<const MasterToken> tokens(entry_.tokens);
    size_t at = 0;
    MasterRecord record;
    record.line = entry_.line - scope().other_lines;
    record.file = scope().file;
    if (!entry_.starts_blank) {
      if (!take_owner(tokens[at++].text)) return "the owner name is malformed";
    } else if (scope().previous_owner_bytes == 0) {
      return "no owner name stands before this record";
    }
    record.owner = scope().previous_owner;
    record.owner_bytes = scope().previous_owner_bytes;
    std::optional<uint32_t> ttl_s;
    std::optional<uint16_t> klass;
    for (; at < tokens.size() && !tokens[at].quoted; ++at) {  // in either order (RFC 1035 §5.1)
      if (!klass && (klass = parse_class(tokens[at].text))) continue;
      if (ttl_s || tokens[at].text[0] < '0' || tokens[at].text[0] > '9') break;
      ttl_s = parse_ttl(tokens[at].text);
      if (!ttl_s) return fmt::format("the TTL '{}' is malformed", tokens[at].text.substr(0, 40));
    }
    if (at == tokens.size()) return "the record has no type";
    if (klass && *klass != kClassIn) return "only class IN is served";
    record.type = parse_type(tokens[at].text);
    if (record.type == 0) return fmt::format("'{}' is no type of a zone's records", tokens[at].text.substr(0, 40));
    record.ttl_s = ttl_of(ttl_s);
    return append(record, tokens.subspan(at + 1));
  }

  std::string append(MasterRecord record, std::span<const MasterToken> data) {
    if (file_.bytes.size() > UINT32_MAX - 2 * kMaxMessageBytes) return "the zone is too large";
    record.rdata = static_cast<uint32_t>(file_.bytes.size());
    const std::string fault = append_rdata(record.type, data, scope().origin, file_.bytes);
    if (!fault.empty()) return fault;
    const size_t bytes = file_.bytes.size() - record.rdata;
    if (bytes > UINT16_MAX) return "the record's data is longer than 65535 bytes";
    record.rdata_bytes = static_cast<uint16_t>(bytes);
    file_.records.push_back(record);
    return {};
  }

  uint32_t ttl_of(std::optional<uint32_t> stated_s) {
    if (stated_s) scope().stated_ttl_s = stated_s;
    if (stated_s) return *stated_s;
    if (scope().default_ttl_s) return *scope().default_ttl_s;
    return scope().stated_ttl_s.value_or(kDefaultTtlS);
  }

  bool parse_name(std::string_view text, Name& name) {
    scratch_.clear();
    return append_name_text(text, scope().origin, scratch_) && name.parse(scratch_);
  }

  // Into the scope, and into the bytes unless it is the owner before.
  bool take_owner(std::string_view text) {
    Name owner;
    if (!parse_name(text, owner)) return false;
    const auto wire = owner.wire();
    Scope& here = scope();
    const bool same = here.previous_owner_bytes == wire.size() &&
                      std::memcmp(&file_.bytes[here.previous_owner], wire.data(), wire.size()) == 0;
    if (same) return true;
    here.previous_owner = static_cast<uint32_t>(file_.bytes.size());
    here.previous_owner_bytes = static_cast<uint8_t>(wire.size());
    file_.bytes.insert(file_.bytes.end(), wire.begin(), wire.end());
    return true;
  }

  Error fault_at(uint32_t line, std::string_view cause) {
    return fail(fmt::format("{}:{}: {}", file_.files[scope().file], line - scope().other_lines, cause));
  }

  MasterLexer lexer_;
  MasterEntry entry_;
  MasterFile file_;
  std::vector<Scope> scopes_;  // the files that are open; the last is read
  std::vector<uint8_t> scratch_;
};

}  // namespace

Result<MasterFile> read_master_file(const Name& apex, std::string_view file_name, std::string_view text) {
  if (text.empty()) return fail(fmt::format("{}: the zone file is empty", file_name));
  if (text.find('\0') != std::string_view::npos)
    return fail(fmt::format("{}: the zone file holds a NUL byte", file_name));
  return Reader(apex, file_name, text).read();
}

}  // namespace tidegate::dns
