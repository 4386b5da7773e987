#include "dns/master_file.h"

#include <fmt/format.h>
#include <ldns/ldns.h>
#include <stdio_ext.h>

#include <algorithm>
#include <cstdio>
#include <memory>

namespace tidegate::dns {
namespace {

struct RdfDeleter {
  void operator()(ldns_rdf* rdf) const { ldns_rdf_deep_free(rdf); }
};
struct RrDeleter {
  void operator()(ldns_rr* rr) const { ldns_rr_free(rr); }
};
struct FileDeleter {
  void operator()(FILE* file) const { std::fclose(file); }
};
using RrPtr = std::unique_ptr<ldns_rr, RrDeleter>;
using FilePtr = std::unique_ptr<FILE, FileDeleter>;

constexpr uint32_t kDefaultTtlS = 3'600;  // where neither $TTL nor an earlier record gives one

// What ldns carries from one record to the next: it replaces both names as it reads.
struct ReaderState {
  uint32_t ttl_s = kDefaultTtlS;
  ldns_rdf* origin = nullptr;
  ldns_rdf* previous_owner = nullptr;

  ReaderState() = default;
  ReaderState(const ReaderState&) = delete;
  ReaderState& operator=(const ReaderState&) = delete;
  ~ReaderState() {
    ldns_rdf_deep_free(origin);
    ldns_rdf_deep_free(previous_owner);
  }
};

// The line on which what ldns reads next begins. ldns counts lines too, but not those that it skips on the way.
class LineCounter {
 public:
  explicit LineCounter(std::string_view text) : text_(text) {}

  // `offset` never goes back.
  uint32_t line_at(size_t offset) {
    advance_to(std::min(offset, text_.size()));
    for (;;) {  // over blank lines and lines that are comments
      const size_t end = text_.find('\n', at_);
      const size_t first = text_.find_first_not_of(" \t\r", at_);
      if (end == std::string_view::npos || first == std::string_view::npos) return line_;
      if (first < end && text_[first] != ';') return line_;
      advance_to(end + 1);
    }
  }

 private:
  void advance_to(size_t offset) {
    if (offset <= at_) return;
    line_ += static_cast<uint32_t>(
        std::count(text_.begin() + static_cast<ptrdiff_t>(at_), text_.begin() + static_cast<ptrdiff_t>(offset), '\n'));
    at_ = offset;
  }

  std::string_view text_;
  size_t at_ = 0;
  uint32_t line_ = 1;
};

uint32_t append(std::vector<uint8_t>& bytes, std::span<const uint8_t> piece) {
  const auto at = static_cast<uint32_t>(bytes.size());
  bytes.insert(bytes.end(), piece.begin(), piece.end());
  return at;
}

std::span<const uint8_t> rdf_bytes(const ldns_rdf* rdf) { return {ldns_rdf_data(rdf), ldns_rdf_size(rdf)}; }

// Null, or what is wrong with the record.
const char* append_record(MasterFile& file, const ldns_rr* rr, uint32_t line) {
  if (ldns_rr_get_class(rr) != LDNS_RR_CLASS_IN) return "only class IN is served";
  Name owner;
  if (!owner.parse(rdf_bytes(ldns_rr_owner(rr)))) return "the owner name is malformed";
  MasterRecord record;
  record.line = line;
  record.type = static_cast<uint16_t>(ldns_rr_get_type(rr));
  record.ttl_s = ldns_rr_ttl(rr);
  if (record.ttl_s > INT32_MAX) return "the TTL is greater than 2147483647 (RFC 2181 §8)";
  if (ldns_rr_is_question(rr) || ldns_rr_rd_count(rr) == 0) return "the record has no data";
  const MasterRecord* previous = file.records.empty() ? nullptr : &file.records.back();
  const auto owner_wire = owner.wire();
  const bool same_owner = previous != nullptr && previous->owner_bytes == owner_wire.size() &&
                          std::memcmp(&file.bytes[previous->owner], owner_wire.data(), owner_wire.size()) == 0;
  record.owner = same_owner ? previous->owner : append(file.bytes, owner_wire);
  record.owner_bytes = static_cast<uint8_t>(owner_wire.size());
  record.rdata = static_cast<uint32_t>(file.bytes.size());
  for (size_t i = 0; i < ldns_rr_rd_count(rr); ++i) append(file.bytes, rdf_bytes(ldns_rr_rdf(rr, i)));
  const size_t rdata_bytes = file.bytes.size() - record.rdata;
  if (rdata_bytes > UINT16_MAX) return "the record's data is longer than 65535 bytes";
  if (file.bytes.size() > UINT32_MAX - kMaxMessageBytes) return "the zone is too large";
  record.rdata_bytes = static_cast<uint16_t>(rdata_bytes);
  file.records.push_back(record);
  return nullptr;
}

Error fault_at(std::string_view file_name, uint32_t line, std::string_view cause) {
  return fail(fmt::format("{}:{}: {}", file_name, line, cause));
}

}  // namespace

Result<MasterFile> read_master_file(const Name& apex, std::string_view file_name, std::string_view text) {
  MasterFile file;
  if (text.empty()) return fail(fmt::format("{}: the zone file is empty", file_name));
  if (text.find('\0') != std::string_view::npos)
    return fail(fmt::format("{}: the zone file holds a NUL byte", file_name));
  std::string terminated(text);
  if (terminated.back() != '\n') terminated += '\n';
  const FilePtr stream(::fmemopen(terminated.data(), terminated.size(), "r"));
  if (!stream) return fail(fmt::format("{}: out of memory", file_name));
  ::__fsetlocking(stream.get(), FSETLOCKING_BYCALLER);  // one thread reads it, a byte at a time
  file.records.reserve(terminated.size() / 48);
  file.bytes.reserve(terminated.size());

  LineCounter lines(terminated);
  ReaderState state;
  state.origin = ldns_dname_new_frm_data(static_cast<uint16_t>(apex.bytes()), apex.wire().data());
  while (std::feof(stream.get()) == 0) {
    ldns_rr* raw = nullptr;
    const uint32_t line = lines.line_at(static_cast<size_t>(std::ftell(stream.get())));
    const ldns_status status =
        ldns_rr_new_frm_fp(&raw, stream.get(), &state.ttl_s, &state.origin, &state.previous_owner);
    const RrPtr rr(raw);
    switch (status) {
      case LDNS_STATUS_OK:
        if (const char* cause = append_record(file, rr.get(), line)) return fault_at(file_name, line, cause);
        break;
      case LDNS_STATUS_SYNTAX_EMPTY:
      case LDNS_STATUS_SYNTAX_TTL:
      case LDNS_STATUS_SYNTAX_ORIGIN:
        break;
      case LDNS_STATUS_SYNTAX_INCLUDE:
      case LDNS_STATUS_SYNTAX_INCLUDE_ERR_NOTIMPL:
        return fault_at(file_name, line, "$INCLUDE is not supported: put the records into this file");
      default:
        return fault_at(file_name, line, ldns_get_errorstr_by_id(status));
    }
  }
  return file;
}

}  // namespace tidegate::dns
