// SPDX-License-Identifier: Apache-2.0
#include "conf/provisional.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "core/fd.h"

namespace tidegate {
namespace {

constexpr mode_t kFileMode = 0644;  // planes of other users read it; it holds no secret
constexpr size_t kDigestBytes = 64;

std::string path_of(const std::string& state_dir) { return state_dir + "/provisional"; }

Error file_error(const std::string& path) { return fail("cannot write " + path + ": " + std::strerror(errno)); }

Result<void> sync_directory(const std::string& directory) {
  const UniqueFd folder(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder || ::fsync(folder.get()) != 0) return file_error(directory);
  return {};
}

}  // namespace

// "7 <digest> 6 60000 0\n"
std::optional<ProvisionalVersion> read_provisional(const std::string& state_dir) {
  std::ifstream file(path_of(state_dir));
  ProvisionalVersion found;
  std::string more;
  if (!(file >> found.version >> found.digest >> found.back_to >> found.confirm_ms >> found.went_back) ||
      file >> more) {
    return std::nullopt;
  }
  const bool hex = found.digest.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (found.version == 0 || found.back_to >= found.version || found.digest.size() != kDigestBytes || !hex) {
    return std::nullopt;
  }
  return found;
}

Result<void> write_provisional(const std::string& state_dir, const ProvisionalVersion& provisional) {
  const std::string path = path_of(state_dir), next = path + ".new";
  const std::string text = fmt::format("{} {} {} {} {}\n", provisional.version, provisional.digest, provisional.back_to,
                                       provisional.confirm_ms, provisional.went_back ? 1 : 0);
  {
    const UniqueFd file(::open(next.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, kFileMode));
    if (!file || ::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
        ::fsync(file.get()) != 0) {
      return file_error(next);
    }
  }
  if (std::rename(next.c_str(), path.c_str()) != 0) return file_error(path);
  return sync_directory(state_dir);
}

Result<void> remove_provisional(const std::string& state_dir) {
  const std::string path = path_of(state_dir);
  if (::unlink(path.c_str()) == 0) return sync_directory(state_dir);
  return errno == ENOENT ? Result<void>() : file_error(path);
}

uint64_t version_to_serve(const std::string& state_dir, uint64_t head) {
  const std::optional<ProvisionalVersion> provisional = read_provisional(state_dir);
  return provisional && provisional->went_back && provisional->version == head ? provisional->back_to : head;
}

}  // namespace tidegate
