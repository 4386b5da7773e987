// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/table_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "core/assert.h"
#include "core/log.h"

namespace tidegate::l7::policy {

// The first page. Only the process that makes the memory writes it, before another process gets the memory.
struct TableMemory::Head {
  char magic[8];
  uint64_t fingerprint;
  uint64_t key_bytes;
  char key[kHeadBytes - 24];
};

namespace {

constexpr std::string_view kTableMagic = "TGTABLE1";
// The seals fix the size. So no other process can shorten the file and thereby crash this one.
constexpr int kTableSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

}  // namespace

// Keys are spread over the table, so each access would miss the TLB. So a large table asks for huge pages. If the
// kernel has none, nothing changes.
TableMemory::TableMemory(UniqueFd fd, void* map, size_t map_bytes)
    : fd_(std::move(fd)), map_(map), map_bytes_(map_bytes) {
  constexpr size_t kHugePageBytes = size_t{2} << 20;
  if (map_bytes > kHugePageBytes) ::madvise(map, map_bytes, MADV_HUGEPAGE);
}

TableMemory::~TableMemory() { ::munmap(map_, map_bytes_); }

std::shared_ptr<TableMemory> TableMemory::make(const std::string& key, uint64_t fingerprint, size_t bytes) {
  static_assert(sizeof(Head) == kHeadBytes);
  TIDEGATE_ASSERT(key.size() <= sizeof(Head::key), "a policy's name is bounded");
  const size_t map_bytes = kHeadBytes + bytes;
  UniqueFd fd(key.empty() ? -1 : ::memfd_create("tidegate-table", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (fd &&
      (::ftruncate(fd.get(), static_cast<off_t>(map_bytes)) != 0 || ::fcntl(fd.get(), F_ADD_SEALS, kTableSeals) != 0)) {
    fd.reset();
  }
  const int sharing = fd ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
  void* const map = ::mmap(nullptr, map_bytes, PROT_READ | PROT_WRITE, sharing, fd.get(), 0);
  TIDEGATE_ASSERT(map != MAP_FAILED, "there is memory for a table");
  std::shared_ptr<TableMemory> memory(new TableMemory(std::move(fd), map, map_bytes));
  Head& head = *static_cast<Head*>(map);
  std::memcpy(head.magic, kTableMagic.data(), kTableMagic.size());
  head.fingerprint = fingerprint;
  head.key_bytes = key.size();
  std::memcpy(head.key, key.data(), key.size());
  memory->key_ = key;
  memory->fingerprint_ = fingerprint;
  return memory;
}

Result<std::shared_ptr<TableMemory>> TableMemory::adopt(UniqueFd fd) {
  struct stat facts {};
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & kTableSeals) != kTableSeals) return fail("it is no sealed memory");
  if (::fstat(fd.get(), &facts) != 0 || facts.st_size <= static_cast<off_t>(kHeadBytes)) return fail("it is too small");
  const auto map_bytes = static_cast<size_t>(facts.st_size);
  void* const map = ::mmap(nullptr, map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (map == MAP_FAILED) return fail(std::string("it cannot be mapped: ") + std::strerror(errno));
  std::shared_ptr<TableMemory> memory(new TableMemory(std::move(fd), map, map_bytes));
  const Head& head = *static_cast<const Head*>(map);
  if (std::string_view(head.magic, sizeof head.magic) != kTableMagic || head.key_bytes > sizeof head.key) {
    return fail("it is no table of this program");
  }
  memory->key_.assign(head.key, head.key_bytes);
  memory->fingerprint_ = head.fingerprint;
  return memory;
}

void TableMemories::inherit(UniqueFd fd) {
  Result<std::shared_ptr<TableMemory>> memory = TableMemory::adopt(std::move(fd));
  if (!memory) return log_warn("a table of the process before cannot be used: {}", memory.error().message);
  const std::string key = (*memory)->key();
  inherited_[key] = *std::move(memory);
}

std::shared_ptr<TableMemory> TableMemories::take(const std::string& key, uint64_t fingerprint, size_t bytes) {
  std::shared_ptr<TableMemory> memory;
  if (const auto found = inherited_.find(key); found != inherited_.end()) {
    if (found->second->fingerprint() == fingerprint && found->second->bytes() == bytes) memory = found->second;
    inherited_.erase(found);
  }
  if (memory == nullptr) memory = TableMemory::make(key, fingerprint, bytes);
  std::erase_if(in_use_, [](const auto& each) { return each.expired(); });
  in_use_.push_back(memory);
  return memory;
}

std::vector<int> TableMemories::descriptors() {
  std::vector<int> descriptors;
  for (const auto& each : in_use_) {
    if (const auto memory = each.lock(); memory && memory->fd() >= 0) descriptors.push_back(memory->fd());
  }
  return descriptors;
}

}  // namespace tidegate::l7::policy
