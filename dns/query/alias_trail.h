// SPDX-License-Identifier: Apache-2.0
// AliasTrail: the CNAME and DNAME records that one query has followed.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "dns/limits.h"
#include "dns/wire/wire.h"

namespace tidegate::dns {

// An RRset may be in an answer only once (RFC 2181 §5). The answer ends if an alias leads back to an earlier name, or
// if a DNAME makes a name longer each time. A resolver that wants to continue asks for the last target.
class AliasTrail {
 public:
  // Returns false if the query has already been at `name`.
  bool enter(std::span<const uint8_t> name) {
    const uint64_t hash = name_hash(name);
    if (std::find(names_.begin(), names_.begin() + count_, hash) != names_.begin() + count_) return false;
    names_[count_++] = hash;
    return true;
  }

  enum class Dname : uint8_t { first, again, endless };
  // Notes the use of a DNAME, which is identified by the address of its owner's name, for a name of `name_bytes`.
  Dname take(const uint8_t* owner, size_t name_bytes) {
    for (int i = 0; i < dname_count_; ++i) {
      if (dnames_[i].owner == owner) return name_bytes > dnames_[i].name_bytes ? Dname::endless : Dname::again;
    }
    dnames_[dname_count_++] = {owner, name_bytes};
    return Dname::first;
  }

 private:
  struct TakenName {
    const uint8_t* owner;
    size_t name_bytes;
  };
  std::array<uint64_t, kMaxAliases + 2> names_;    // hashes; the first count_ are set
  std::array<TakenName, kMaxAliases + 1> dnames_;  // the first dname_count_ are set
  int count_ = 0;
  int dname_count_ = 0;
};

}  // namespace tidegate::dns
