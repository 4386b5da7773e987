// SPDX-License-Identifier: Apache-2.0
#include "conf/state_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "core/fd.h"

namespace tidegate {

Result<void> make_state_folder(const std::string& path) {
  if (::mkdir(path.c_str(), kStateFolderMode) == 0) {
    ::chmod(path.c_str(), kStateFolderMode);  // because the umask may have removed bits
    return {};
  }
  if (errno == EEXIST) return {};
  return fail("cannot create " + path + ": " + std::strerror(errno));
}

Result<void> sync_folder(const std::string& path) {
  const UniqueFd folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder || ::fsync(folder.get()) != 0) return fail("cannot sync " + path + ": " + std::strerror(errno));
  return {};
}

Result<void> replace_file(const std::string& folder, const std::string& name, const std::string& next,
                          const std::string& content, mode_t mode) {
  const std::string path = folder + "/" + name, fresh = folder + "/" + next;
  const auto failed = [](const std::string& file) {
    return fail("cannot write " + file + ": " + std::strerror(errno));
  };
  {
    const UniqueFd file(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode));
    if (!file) return failed(fresh);
    const ssize_t written = ::write(file.get(), content.data(), content.size());
    if (written != static_cast<ssize_t>(content.size()) || ::fsync(file.get()) != 0) return failed(fresh);
  }
  if (std::rename(fresh.c_str(), path.c_str()) != 0) return failed(path);
  return sync_folder(folder);
}

}  // namespace tidegate
