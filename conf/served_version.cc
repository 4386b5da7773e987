// SPDX-License-Identifier: Apache-2.0
#include "conf/served_version.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "conf/text.h"
#include "core/fd.h"

namespace tidegate {
namespace {

constexpr mode_t kDirectoryMode = 02770;  // planes run as other users of the same group
constexpr mode_t kFileMode = 0640;
constexpr size_t kDigestBytes = 64;

std::string directory_of(const std::string& state_dir) { return state_dir + "/served"; }
std::string mark_of(const std::string& state_dir, const std::string& plane) {
  return directory_of(state_dir) + "/." + plane + ".trying";
}

// "7 <digest>\n"
std::optional<ServedVersion> read_file(const std::string& path) {
  std::ifstream file(path);
  std::string number, digest, more;
  if (!(file >> number >> digest) || file >> more) return std::nullopt;
  const std::optional<uint64_t> version = parse_decimal(number);
  const bool hex = digest.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (!version || *version == 0 || digest.size() != kDigestBytes || !hex) return std::nullopt;
  return ServedVersion{*version, digest};
}

Error file_error(const std::string& path) { return fail("cannot write " + path + ": " + std::strerror(errno)); }

Result<void> make_directory(const std::string& directory) {
  if (::mkdir(directory.c_str(), kDirectoryMode) == 0) {
    ::chmod(directory.c_str(), kDirectoryMode);  // because the umask may have removed bits
    return {};
  }
  if (errno == EEXIST) return {};
  return file_error(directory);
}

Result<void> write_file(const std::string& path, const std::string& text) {
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, kFileMode));
  if (!file) return file_error(path);
  if (::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) return file_error(path);
  if (::fsync(file.get()) != 0) return file_error(path);
  return {};
}

}  // namespace

std::optional<ServedVersion> read_served(const std::string& state_dir, const std::string& plane) {
  return read_file(directory_of(state_dir) + "/" + plane);
}

Result<void> write_served(const std::string& state_dir, const std::string& plane, const ServedVersion& served) {
  const std::string directory = directory_of(state_dir);
  if (Result<void> made = make_directory(directory); !made) return made;
  const std::string path = directory + "/" + plane, next = directory + "/." + plane + ".new";
  if (Result<void> written = write_file(next, fmt::format("{} {}\n", served.version, served.digest)); !written) {
    return written;
  }
  if (std::rename(next.c_str(), path.c_str()) != 0) return file_error(path);
  const UniqueFd folder(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder || ::fsync(folder.get()) != 0) return file_error(directory);
  return {};
}

uint64_t read_trying(const std::string& state_dir, const std::string& plane) {
  std::ifstream file(mark_of(state_dir, plane));
  uint64_t version = 0;
  return file >> version ? version : 0;
}

void mark_trying(const std::string& state_dir, const std::string& plane, uint64_t version) {
  if (make_directory(directory_of(state_dir))) {
    std::ofstream(mark_of(state_dir, plane), std::ios::trunc) << version << '\n';
  }
}

void unmark_trying(const std::string& state_dir, const std::string& plane) {
  ::unlink(mark_of(state_dir, plane).c_str());
}

std::vector<uint64_t> served_versions(const std::string& state_dir) {
  std::vector<uint64_t> versions;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory_of(state_dir), error)) {
    if (entry.path().filename().string().starts_with('.')) continue;
    if (const auto served = read_file(entry.path().string())) versions.push_back(served->version);
  }
  std::sort(versions.begin(), versions.end());
  return versions;
}

}  // namespace tidegate
