// SPDX-License-Identifier: Apache-2.0
// TableMemory: the memory of a table that processes can share, behind a descriptor (memfd). Another process that gets
// the descriptor has the same table. After an upgrade, both processes use it until the old one has ended. After a
// crash, the next process continues with it. So the content must be valid after each single store: entries are single
// atomic words (LimitTable), or are guarded by a SharedMutex (SeenSignatures).
//
// TableMemories: the memories of one proxy. It is itself a Runtime, so that rules find it in their registry.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/fd.h"
#include "core/result.h"
#include "l7/policy/policy.h"

namespace tidegate::l7::policy {

class TableMemory {
 public:
  // Makes zeroed memory. `key` says what it is for; without a key it stays in this process. `fingerprint`: of
  // everything else that must be equal for the content to make sense.
  static std::shared_ptr<TableMemory> make(const std::string& key, uint64_t fingerprint, size_t bytes);
  // Takes any descriptor, and returns an Error if it is not such memory.
  static Result<std::shared_ptr<TableMemory>> adopt(UniqueFd fd);
  ~TableMemory();
  TableMemory(const TableMemory&) = delete;
  TableMemory& operator=(const TableMemory&) = delete;

  void* data() const { return static_cast<std::byte*>(map_) + kHeadBytes; }  // aligned to a page
  size_t bytes() const { return map_bytes_ - kHeadBytes; }
  const std::string& key() const { return key_; }
  uint64_t fingerprint() const { return fingerprint_; }
  int fd() const { return fd_.get(); }  // -1: the system has no such memory, so it is private to this process

 private:
  static constexpr size_t kHeadBytes = 4'096;
  struct Head;
  TableMemory(UniqueFd fd, void* map, size_t map_bytes);

  UniqueFd fd_;
  void* const map_;
  const size_t map_bytes_;
  std::string key_;
  uint64_t fingerprint_ = 0;
};

// Main thread.
class TableMemories final : public Runtime {
 public:
  static constexpr const char* kRegistryKey = "tables";

  // Takes a table's memory from the previous process. If it is not valid, ignores it and logs that.
  void inherit(UniqueFd fd);
  // Returns the inherited memory of this key if it fits, and forgets it here. Otherwise returns new memory.
  std::shared_ptr<TableMemory> take(const std::string& key, uint64_t fingerprint, size_t bytes);
  // Forgets memory that no rule has taken.
  void forget_inherited() { inherited_.clear(); }
  std::vector<int> descriptors();  // descriptors of the tables in use; borrowed

 private:
  std::map<std::string, std::shared_ptr<TableMemory>> inherited_;
  std::vector<std::weak_ptr<TableMemory>> in_use_;
};

}  // namespace tidegate::l7::policy
