// SPDX-License-Identifier: Apache-2.0
#include "conf/served_version.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "conf/state_folder.h"
#include "conf/text.h"

namespace tidegate {
namespace {

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
  if (!version || *version == 0 || !is_version_digest(digest)) return std::nullopt;
  return ServedVersion{*version, digest};
}

}  // namespace

std::optional<ServedVersion> read_served(const std::string& state_dir, const std::string& plane) {
  return read_file(directory_of(state_dir) + "/" + plane);
}

Result<void> write_served(const std::string& state_dir, const std::string& plane, const ServedVersion& served) {
  const std::string directory = directory_of(state_dir);
  if (Result<void> made = make_state_folder(directory); !made) return made;
  constexpr mode_t kMode = 0640;
  return replace_file(directory, plane, "." + plane + ".new", fmt::format("{} {}\n", served.version, served.digest),
                      kMode);
}

uint64_t read_trying(const std::string& state_dir, const std::string& plane) {
  std::ifstream file(mark_of(state_dir, plane));
  uint64_t version = 0;
  return file >> version ? version : 0;
}

void mark_trying(const std::string& state_dir, const std::string& plane, uint64_t version) {
  if (make_state_folder(directory_of(state_dir))) {
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
