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

// The class that a field names. Nothing if it names none.
std::optional<uint16_t> parse_class(std::string_view text) {
  if (equals_ignore_case(text, "IN")) return kClassIn;
  if (equals_ignore_case(text, "CH") || equals_ignore_case(text, "HS") || equals_ignore_case(text, "CS")) return 0;
  if (text.size() > 5 && equals_ignore_case(text.substr(0, 5), "CLASS")) return text.substr(5) == "1" ? 1 : 0;
  return std::nullopt;
}

// The settings of one file. They end with the file.
struct Scope {
  Name origin;
  uint32_t previous_owner = 0;            // as MasterRecord::owner
  uint8_t previous_owner_bytes = 0;       // 0: none yet
  bool owner_was_refused = false;         // the last owner is not known, and records without an owner belong to it
  std::optional<uint32_t> default_ttl_s;  // $TTL (RFC 2308 §4)
  std::optional<uint32_t> stated_ttl_s;   // the last TTL that a record stated (RFC 1035 §5.1)
  uint32_t file = 0;
  uint32_t mark_line = 0;  // the line of its mark in the whole text
};

class Reader {
 public:
  Reader(const Name& apex, std::string_view file_name, std::string_view text, std::vector<Fault>& faults)
      : faults_(faults), lexer_(text) {
    scopes_.emplace_back();
    scopes_.back().origin = apex;
    file_.text = text;
    file_.files.emplace_back(file_name);
    file_.runs.emplace_back();
    file_.records.reserve(text.size() / 48);
    file_.bytes.reserve(text.size());
  }

  MasterFile read() {
    bool more = true;
    while (more) {
      if (lexer_.next(entry_)) {
        fault_at_ = entry_.at;
        const std::string cause = is_directive() ? directive() : record();
        if (!cause.empty()) more = refuse(fault_at_, cause) && !lost_;
      } else if (lexer_.fault() != nullptr) {
        more = refuse(lexer_.fault_at(), lexer_.fault()) && lexer_.recover();
      } else {
        more = false;
      }
    }
    return std::move(file_);
  }

 private:
  bool refuse(size_t at, std::string_view cause) {
    file_.incomplete = true;
    return file_.refuse(at, cause, faults_);
  }
  // Sets the entry's fault to this token.
  std::string at_token(size_t token, std::string cause) {
    fault_at_ = lexer_.at(entry_.tokens[std::min(token, entry_.tokens.size() - 1)]);
    return cause;
  }

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
      if (arguments == 1 && parse_name(entry_.tokens[1].text, scope().origin)) return {};
      lost_ = true;
      return at_token(1, "$ORIGIN wants a domain name");
    }
    if (equals_ignore_case(name, "$TTL")) {
      scope().default_ttl_s = arguments == 1 ? parse_ttl(entry_.tokens[1].text) : std::nullopt;
      return scope().default_ttl_s ? std::string() : at_token(1, "$TTL wants a number of seconds");
    }
    if (equals_ignore_case(name, "$INCLUDE")) return "$INCLUDE: that file did not come with the zone";
    return fmt::format("{} is not known here; $ORIGIN, $TTL and $INCLUDE are", name);
  }

  // The origin and the last owner of the included file end with that file (RFC 1035 §5.1). $TTL stays in force, as in
  // BIND and NSD. Anybody can write such a mark into a zone file, so it is checked like any other directive.
  std::string enter_file() {
    const std::string_view name = entry_.tokens.size() > 1 ? entry_.tokens[1].text : std::string_view();
    if (name.empty() || entry_.tokens.size() > 3) {
      lost_ = true;
      return fmt::format("{} wants the name of a file, and perhaps an origin", kIncludeBegins);
    }
    Scope inner = scope();
    if (entry_.tokens.size() > 2 && !parse_name(entry_.tokens[2].text, inner.origin)) {
      lost_ = true;
      return at_token(2, "$INCLUDE: its origin is no domain name");
    }
    inner.file = static_cast<uint32_t>(file_.files.size());
    inner.mark_line = entry_.line;
    file_.files.emplace_back(name);
    file_.runs.push_back({entry_.line + 1, 1, inner.file});
    scopes_.push_back(std::move(inner));
    return {};
  }

  std::string leave_file() {
    if (scopes_.size() == 1) return fmt::format("{} is not known here", kIncludeEnds);
    const Scope inner = std::move(scope());
    scopes_.pop_back();
    scope().default_ttl_s = inner.default_ttl_s;
    scope().stated_ttl_s = inner.stated_ttl_s;
    file_.runs.push_back({entry_.line + 1, file_line(inner.mark_line, scope().file) + 1, scope().file});
    return {};
  }

  // The line number in a file for this line of the whole text.
  uint32_t file_line(uint32_t line, uint32_t file) const {
    for (auto run = file_.runs.rbegin(); run != file_.runs.rend(); ++run) {
      if (run->file == file && run->first_line <= line) return run->first_file_line + (line - run->first_line);
    }
    return line;
  }

  std::string record() {
    const std::span<const MasterToken> tokens(entry_.tokens);
    size_t at = 0;
    MasterRecord record;
    record.at = static_cast<uint32_t>(entry_.at);
    if (!entry_.starts_blank) {
      scope().owner_was_refused = !take_owner(tokens[at++].text);
      if (scope().owner_was_refused) return "the owner name is malformed";
    } else if (scope().previous_owner_bytes == 0 && !scope().owner_was_refused) {
      return "no owner name stands before this record";
    }
    record.owner = scope().previous_owner;
    record.owner_bytes = scope().previous_owner_bytes;
    std::optional<uint32_t> ttl_s;
    std::optional<uint16_t> klass;
    for (; at < tokens.size() && !tokens[at].quoted; ++at) {  // TTL and class, in either order (RFC 1035 §5.1)
      if (!klass && (klass = parse_class(tokens[at].text))) {
        if (*klass != kClassIn) return at_token(at, "only class IN is served");
        continue;
      }
      if (ttl_s || tokens[at].text[0] < '0' || tokens[at].text[0] > '9') break;
      ttl_s = parse_ttl(tokens[at].text);
      if (!ttl_s) return at_token(at, fmt::format("the TTL '{}' is malformed", tokens[at].text.substr(0, 40)));
    }
    if (at == tokens.size()) return at_token(at, "the record has no type");
    record.type = parse_type(tokens[at].text);
    if (record.type == 0) {
      return at_token(at, fmt::format("'{}' is no type of a zone's records", tokens[at].text.substr(0, 40)));
    }
    record.states_ttl = ttl_s.has_value();
    record.ttl_s = ttl_of(ttl_s);
    return append(record, at);
  }

  // `type_at` is the index of the type's token. The data follows.
  std::string append(MasterRecord record, size_t type_at) {
    if (file_.bytes.size() > UINT32_MAX - 2 * kMaxMessageBytes) return "the zone is too large";
    const std::span<const MasterToken> data = std::span<const MasterToken>(entry_.tokens).subspan(type_at + 1);
    record.rdata = static_cast<uint32_t>(file_.bytes.size());
    size_t wrong = 0;
    std::string cause = append_rdata(record.type, data, scope().origin, file_.bytes, wrong);
    if (cause.empty() && file_.bytes.size() - record.rdata > UINT16_MAX) {
      cause = "the record's data is longer than 65535 bytes";
    }
    if (!cause.empty()) {
      file_.bytes.resize(record.rdata);
      return at_token(wrong < data.size() ? type_at + 1 + wrong : type_at, std::move(cause));
    }
    record.rdata_bytes = static_cast<uint16_t>(file_.bytes.size() - record.rdata);
    if (!scope().owner_was_refused) file_.records.push_back(record);
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

  // Stores the owner in the scope, and in the bytes unless it is the previous owner.
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

  std::vector<Fault>& faults_;
  MasterLexer lexer_;
  MasterEntry entry_;
  MasterFile file_;
  std::vector<Scope> scopes_;  // the files that are open; the last one is being read
  std::vector<uint8_t> scratch_;
  size_t fault_at_ = 0;  // offset of the entry in the text
  bool lost_ = false;    // the origin is not known any more, so later records cannot be checked
};

}  // namespace

MasterFile::Place MasterFile::place(size_t at) const {
  if (line_starts_.empty()) {
    line_starts_.push_back(0);
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] == '\n') line_starts_.push_back(i + 1);
    }
  }
  const auto after = std::upper_bound(line_starts_.begin(), line_starts_.end(), at);
  const size_t start = *(after - 1);
  const auto line = static_cast<uint32_t>(after - line_starts_.begin());
  std::string_view line_text = text.substr(start, text.find('\n', start) - start);
  if (line_text.ends_with('\r')) line_text.remove_suffix(1);
  auto run = std::upper_bound(runs.begin(), runs.end(), line,
                              [](uint32_t wanted, const Run& later) { return wanted < later.first_line; });
  --run;
  return {files[run->file], run->first_file_line + (line - run->first_line),
          shown_column(line_text, static_cast<uint32_t>(at - start) + 1), line_text};
}

bool MasterFile::refuse(size_t at, std::string_view cause, std::vector<Fault>& faults) const {
  const Place where = place(at);
  return add_fault(faults, {"bad_zone",
                            {},
                            where.file,
                            where.line,
                            where.column,
                            std::string(cause),
                            {},
                            {},
                            std::string(where.line_text.substr(0, kMaxShownLineBytes))});
}

MasterFile read_master_file(const Name& apex, std::string_view file_name, std::string_view text,
                            std::vector<Fault>& faults) {
  const size_t nul = text.find('\0');
  if (!text.empty() && nul == std::string_view::npos) return Reader(apex, file_name, text, faults).read();
  MasterFile file;
  file.text = text;
  file.files.emplace_back(file_name);
  file.runs.emplace_back();
  file.incomplete = true;
  file.refuse(text.empty() ? 0 : nul, text.empty() ? "the zone file is empty" : "the zone file holds a NUL byte",
              faults);
  return file;
}

}  // namespace tidegate::dns
