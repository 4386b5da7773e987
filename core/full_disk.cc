// SPDX-License-Identifier: Apache-2.0
#include "core/full_disk.h"

#include <lmdb.h>
#include <sys/statvfs.h>

#include <cerrno>
#include <cstdint>

namespace tidegate {
namespace {

constexpr uint64_t kScarceBytes = 1 << 20;  // with less free space than this, the disk counts as full

}  // namespace

bool disk_is_full(const std::string& message, const std::string& directory) {
  for (const int number : {ENOSPC, EDQUOT, EFBIG, MDB_MAP_FULL}) {
    if (message.ends_with(mdb_strerror(number))) return true;
  }
  struct statvfs disk {};
  return message.ends_with(mdb_strerror(EIO)) && ::statvfs(directory.c_str(), &disk) == 0 &&
         disk.f_bavail * disk.f_frsize < kScarceBytes;
}

}  // namespace tidegate
