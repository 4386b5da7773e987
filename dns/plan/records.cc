// SPDX-License-Identifier: Apache-2.0
#include "dns/plan/records.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "core/assert.h"
#include "dns/plan/zone_rewriter.h"
#include "dns/zone/master_file.h"
#include "dns/zone/master_lexer.h"
#include "dns/zone/master_rdata.h"
#include "dns/zone/master_text.h"

namespace tidegate::dns {
namespace {

bool is_of(const MasterFile& file, const MasterRecord& record, const Name& name, uint16_t type) {
  const auto owner = file.owner(record);
  return record.type == type && std::equal(owner.begin(), owner.end(), name.wire().begin(), name.wire().end());
}

bool ends_in(const Name& name, const Name& apex) {
  if (name.labels() < apex.labels()) return false;
  const auto suffix = name.suffix(apex.labels());
  return std::equal(suffix.begin(), suffix.end(), apex.wire().begin(), apex.wire().end());
}

// Reads one record's data as a line of a zone. The result must be exactly one record: the data must not contain other
// records or directives. Otherwise adds a fault.
std::optional<std::string> read_data(const Name& apex, const RecordChange& change, size_t index,
                                     std::vector<Fault>& faults) {
  const std::string& data = change.data[index];
  const std::string pointer = fmt::format("/data/{}", index);
  const auto refuse = [&](uint32_t column, std::string cause) {
    Fault fault{"bad_record", pointer, {}, 0, column, std::move(cause), {}, {}};
    fault.line_text = data.substr(0, kMaxShownLineBytes);
    add_fault(faults, std::move(fault));
    return std::nullopt;
  };
  const auto control = std::find_if(data.begin(), data.end(), [](unsigned char c) { return c < 0x20 && c != '\t'; });
  if (control != data.end()) {
    return refuse(static_cast<uint32_t>(control - data.begin()) + 1, "a record's data is one line of text");
  }
  const std::string before = fmt::format("@ 0 IN {} ", type_to_text(change.type));
  const std::string line = before + data + "\n";
  std::vector<Fault> found;
  const MasterFile file = read_master_file(apex, "", line, found);
  if (!found.empty()) {
    const size_t column = found.front().column;
    return refuse(static_cast<uint32_t>(column > before.size() ? column - before.size() : 1), found.front().detail);
  }
  if (file.records.size() != 1) return refuse(1, "the data is not that of one record");
  return rdata_to_text(change.type, file.rdata(file.records.front()));
}

// The records of a text, for comparison: owner, type, TTL and data.
using Known = std::multimap<std::tuple<std::string, uint16_t>, std::tuple<uint32_t, std::string>>;
Known known_of(const MasterFile& file) {
  Known known;
  const auto bytes = [](std::span<const uint8_t> span) { return std::string(span.begin(), span.end()); };
  for (const MasterRecord& record : file.records) {
    std::string data = bytes(file.rdata(record));
    // the serial is not compared
    if (record.type == rrtype::kSoa && data.size() > 20) data.replace(data.size() - 20, 4, 4, '\0');
    known.emplace(std::tuple(bytes(file.owner(record)), record.type), std::tuple(record.ttl_s, std::move(data)));
  }
  return known;
}

bool same_records(const Known& a, const Known& b) {
  if (a.size() != b.size()) return false;
  for (auto x = a.begin(), y = b.begin(); x != a.end();) {
    const auto x_end = a.upper_bound(x->first), y_end = b.upper_bound(y->first);
    std::vector<std::tuple<uint32_t, std::string>> of_x, of_y;
    if (x->first != y->first) return false;
    for (; x != x_end; ++x) of_x.push_back(x->second);
    for (; y != y_end; ++y) of_y.push_back(y->second);
    std::sort(of_x.begin(), of_x.end());
    std::sort(of_y.begin(), of_y.end());
    if (of_x != of_y) return false;
  }
  return true;
}

// The set in the file, and the new set.
struct Sets {
  std::vector<bool> left_out;  // parallel to the records: true for those of the set
  uint32_t ttl_s = kDefaultTtlS;
  std::vector<std::string> before;  // data, sorted
  bool one_ttl = true;              // all of them have the same TTL
};

Sets sets_of(const MasterFile& file, const RecordChange& change) {
  Sets sets;
  sets.left_out.assign(file.records.size(), false);
  for (size_t i = 0; i < file.records.size(); ++i) {
    const MasterRecord& record = file.records[i];
    if (!is_of(file, record, change.name, change.type)) continue;
    sets.one_ttl = sets.before.empty() || (sets.one_ttl && record.ttl_s == sets.ttl_s);
    if (sets.before.empty()) sets.ttl_s = record.ttl_s;
    sets.left_out[i] = true;
    sets.before.push_back(rdata_to_text(record.type, file.rdata(record)));
  }
  std::sort(sets.before.begin(), sets.before.end());
  sets.before.erase(std::unique(sets.before.begin(), sets.before.end()), sets.before.end());
  return sets;
}

}  // namespace

std::optional<Name> record_name(const Name& apex, std::string_view text) {
  std::vector<uint8_t> wire;
  Name name;
  if (text.find('\0') != std::string_view::npos) return std::nullopt;
  if (!append_name_text(text, apex, wire) || !name.parse(wire) || !ends_in(name, apex)) return std::nullopt;
  return name;
}

uint16_t record_type(std::string_view text) {
  std::string upper(text);
  std::transform(upper.begin(), upper.end(), upper.begin(), [](char c) { return c >= 'a' && c <= 'z' ? c - 32 : c; });
  return text.find('\0') == std::string_view::npos ? parse_type(upper) : 0;
}

ListedRecords list_records(const Name& apex, std::string_view file_name, std::string_view text,
                           const RecordFilter& filter, size_t offset, size_t limit) {
  std::vector<Fault> faults;
  const MasterFile file = read_master_file(apex, file_name, text, faults);
  ListedRecords listed;
  std::map<std::pair<std::string_view, uint16_t>, size_t> at;  // index of each set in the result
  for (const MasterRecord& record : file.records) {
    if (filter.type != 0 && record.type != filter.type) continue;
    const auto owner = file.owner(record);
    const std::string_view key(reinterpret_cast<const char*>(owner.data()), owner.size());
    if (filter.name && !is_of(file, record, *filter.name, record.type)) continue;
    const auto [known, added] = at.try_emplace({key, record.type}, listed.total);
    if (added) ++listed.total;
    const size_t index = known->second;
    if (index < offset || index - offset >= limit) continue;
    if (added) {
      const MasterFile::Place place = file.place(record.at);
      listed.sets.push_back(
          {owner_to_text(owner), type_to_text(record.type), record.ttl_s, {}, std::string(place.file), place.line});
    }
    std::vector<std::string>& data = listed.sets[index - offset].data;
    std::string datum = rdata_to_text(record.type, file.rdata(record));
    if (std::find(data.begin(), data.end(), datum) == data.end()) data.push_back(std::move(datum));
  }
  return listed;
}

EditedZone edit_records(const Name& apex, std::string_view file_name, std::string_view text,
                        const RecordChange& change) {
  EditedZone edited;
  std::vector<std::string> data;
  for (size_t i = 0; i < change.data.size(); ++i) {
    if (auto datum = read_data(apex, change, i, edited.faults)) data.push_back(*std::move(datum));
  }
  const MasterFile file = read_master_file(apex, file_name, text, edited.faults);
  if (!edited.faults.empty()) return edited;

  Sets sets = sets_of(file, change);
  edited.existed = !sets.before.empty();
  const uint32_t ttl_s = change.ttl_s.value_or(sets.ttl_s);
  std::vector<std::string> sorted = data;
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  if (sorted == sets.before && (sorted.empty() || (sets.one_ttl && sets.ttl_s == ttl_s))) {
    edited.text = text;
    return edited;
  }
  std::string instead;
  for (const std::string& datum : data) {
    instead +=
        fmt::format("{} {} IN {} {}\n", owner_to_text(change.name.wire()), ttl_s, type_to_text(change.type), datum);
  }
  std::vector<Fault> none;
  const MasterFile added = instead.empty() ? MasterFile() : read_master_file(apex, file_name, instead, none);
  Known wanted = known_of(file);
  wanted.erase(std::tuple(std::string(change.name.wire().begin(), change.name.wire().end()), change.type));
  wanted.merge(known_of(added));

  ZoneRewriter rewriter(apex, file, text);
  rewriter.replace(std::move(sets.left_out), instead);
  if (change.type != rrtype::kSoa) rewriter.raise_serial();
  edited.text = rewriter.write();
  edited.changed = true;
  // Checks that all other records are the same as before.
  const MasterFile again = read_master_file(apex, file_name, edited.text, none);
  if (!none.empty() || !same_records(known_of(again), wanted)) {
    add_fault(edited.faults, {"cannot_edit",
                              {},
                              std::string(file_name),
                              0,
                              0,
                              "the file is written so that this set cannot be changed alone",
                              {},
                              "change the file and import it"});
  }
  return edited;
}

std::string without_include_marks(const Name& apex, std::string_view file_name, std::string_view text) {
  std::vector<Fault> faults;
  const MasterFile file = read_master_file(apex, file_name, text, faults);
  if (file.files.size() < 2 || !faults.empty()) return std::string(text);
  ZoneRewriter rewriter(apex, file, text);
  rewriter.drop_marks();
  return rewriter.write();
}

}  // namespace tidegate::dns
