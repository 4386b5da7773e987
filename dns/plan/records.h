// SPDX-License-Identifier: Apache-2.0
// Records of a zone file, one set at a time, for the records API. The file stays the only source. A change edits its
// text, and does not change anything else in it: comments, order, included files between their marks
// (conf/zone_includes.h).
//
// Pure: any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/fault.h"
#include "dns/wire/wire.h"

namespace tidegate::dns {

// All records of one name and type.
struct RecordSet {
  std::string name;  // absolute, lower case, with the final dot
  std::string type;
  uint32_t ttl_s = 0;
  std::vector<std::string> data;  // in presentation form, names absolute; in the file's order
  std::string file;               // the file of the first record
  uint32_t line = 0;
};

// The sets to list.
struct RecordFilter {
  std::optional<Name> name;
  uint16_t type = 0;  // 0: any
};

struct ListedRecords {
  std::vector<RecordSet> sets;  // at most `limit` sets, from `offset` on, in the file's order
  size_t total = 0;             // number of sets that match
};
// `text` must be a zone file without faults.
ListedRecords list_records(const Name& apex, std::string_view file_name, std::string_view text,
                           const RecordFilter& filter, size_t offset, size_t limit);

// A name below the apex ("www"), the apex ("@"), or an absolute name with its final dot. Nothing if it is malformed, or
// not within the zone.
std::optional<Name> record_name(const Name& apex, std::string_view text);
// 0 if a zone cannot have this type.
uint16_t record_type(std::string_view text);

struct RecordChange {
  Name name;
  uint16_t type = 0;
  std::optional<uint32_t> ttl_s;  // not set: the TTL of the existing set, or kDefaultTtlS
  std::vector<std::string> data;  // in presentation form, relative to the apex; empty: the set is removed
};

struct EditedZone {
  std::string text;           // valid if there is no fault
  bool existed = false;       // the set existed before
  bool changed = false;       // false: the zone already has exactly this, and the text is the same
  std::vector<Fault> faults;  // faults of the data, with "/data/INDEX" and the column in it
};
// Removes the set, puts the new one in its place (or at the end of the file), and raises the SOA's serial by one (RFC
// 1982), unless the SOA itself is changed. The result may still be refused as a zone: it has not been built.
EditedZone edit_records(const Name& apex, std::string_view file_name, std::string_view text,
                        const RecordChange& change);

// The text as one file: each included file is inserted, with the origins that it had.
std::string without_include_marks(const Name& apex, std::string_view file_name, std::string_view text);

}  // namespace tidegate::dns
