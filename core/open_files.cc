#include "core/open_files.h"

#include <sys/resource.h>

#include <cerrno>
#include <cstring>

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

}  // namespace tidegate
