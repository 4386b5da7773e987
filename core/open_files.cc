// SPDX-License-Identifier: Apache-2.0
#include "core/open_files.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/limits.h"
#include "core/log.h"

namespace tidegate {

uint64_t open_files_limit() {
  rlimit limit{};
  return ::getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 0;
}

void raise_open_files_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  if (::setrlimit(RLIMIT_NOFILE, &limit) == 0) return;
  log_warn("no more than {} files can be open at once: {}", open_files_limit(), std::strerror(errno));
}

bool is_reserved_file(int fd) {
  const uint64_t limit = open_files_limit();
  return fd >= 0 && static_cast<uint64_t>(fd) >= limit - std::min(kReservedFiles, limit / 8);
}

UniqueFd under_lowest_number(UniqueFd fd) {
  UniqueFd lower(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  return lower && lower.get() < fd.get() ? std::move(lower) : std::move(fd);
}

bool is_own_limit(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM || error == EADDRNOTAVAIL;
}

bool connection_waits(int listener) {
  pollfd waiting{listener, POLLIN, 0};
  return ::poll(&waiting, 1, 0) == 1 && (waiting.revents & POLLIN) != 0;
}

}  // namespace tidegate
