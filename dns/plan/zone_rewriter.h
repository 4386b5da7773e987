// SPDX-License-Identifier: Apache-2.0
// ZoneRewriter: writes the text of a zone file again, entry by entry, without some of its records. If a record took its
// owner or its TTL from a record that is left out, it now states it itself.
//
// Pure: one call, one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "dns/wire/wire.h"
#include "dns/zone/master_file.h"
#include "dns/zone/master_lexer.h"

namespace tidegate::dns {

class ZoneRewriter {
 public:
  // Everything is borrowed. `file` was read from `text` without faults.
  ZoneRewriter(const Name& apex, const MasterFile& file, std::string_view text);

  // Leaves these records out. `instead` is whole lines that state owner and TTL. It replaces the first of them, or
  // comes at the end.
  void replace(std::vector<bool> left_out, std::string instead);
  void raise_serial() { raises_serial_ = true; }
  // Writes the origins of included files instead of their marks.
  void drop_marks() { drops_marks_ = true; }

  std::string write();

 private:
  // State that ends with a file, as in master_file.cc.
  struct Scope {
    Name origin;
    bool owner_lost = false;  // a record that begins with a blank would now take a wrong owner
  };

  void write_directive(std::string_view region);
  void write_record(const MasterRecord& record, std::string_view region, size_t region_at);
  void put_instead();

  const Name& apex_;
  const MasterFile& file_;
  std::string_view text_;
  std::vector<bool> left_out_;
  std::string instead_;
  bool raises_serial_ = false, drops_marks_ = false;

  MasterLexer lexer_;
  MasterEntry entry_;
  std::vector<Scope> scopes_;
  bool has_default_ttl_ = false;  // from $TTL, which stays in force after an included file
  bool ttl_lost_ = false;         // without $TTL, a record without a TTL would now take a wrong one
  std::string out_;
};

}  // namespace tidegate::dns
