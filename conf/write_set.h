// SPDX-License-Identifier: Apache-2.0
// WriteSet: one write of the state as the records that it puts and erases. Where writes are decided outside of a host
// (control/etcd), this is what is decided, and every host adopts the same write sets in the same order.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/result.h"

namespace tidegate {

// The record of sys that says that the version in force is provisional. A host that adopts a write set looks for it.
inline constexpr const char *kSysDatabase = "sys", *kProvisionalRecord = "provisional";

struct WriteSet {
  struct Change {
    std::string db;                    // a sub-database of the state, see conf/state_store_impl.h
    std::string key;                   // 1 to 511 bytes
    std::optional<std::string> value;  // nothing: the record is erased
  };
  bool whole = false;  // the changes make the whole state; the earlier state is removed
  std::vector<Change> changes;
  std::vector<std::pair<std::string, std::string>> secrets;  // SHA-256 (32 bytes) and bytes of new private keys

  bool empty() const { return !whole && changes.empty() && secrets.empty(); }
};

// The binary form. It contains private keys in plain form: seal it before storing it elsewhere.
std::string encode_write_set(const WriteSet& set);
// Takes any bytes. An Error names the fault in the bytes.
Result<WriteSet> decode_write_set(std::string_view bytes);

}  // namespace tidegate
