// SPDX-License-Identifier: Apache-2.0
#include "conf/provisional.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "conf/state_folder.h"
#include "conf/text.h"

namespace tidegate {
namespace {

std::string path_of(const std::string& state_dir) { return state_dir + "/provisional"; }

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
  if (found.version == 0 || found.back_to >= found.version || !is_version_digest(found.digest)) {
    return std::nullopt;
  }
  return found;
}

Result<void> write_provisional(const std::string& state_dir, const ProvisionalVersion& provisional) {
  constexpr mode_t kMode = 0644;  // planes of other users read it; it holds no secret
  const std::string text = fmt::format("{} {} {} {} {}\n", provisional.version, provisional.digest, provisional.back_to,
                                       provisional.confirm_ms, provisional.went_back ? 1 : 0);
  return replace_file(state_dir, "provisional", "provisional.new", text, kMode);
}

Result<void> remove_provisional(const std::string& state_dir) {
  const std::string path = path_of(state_dir);
  if (::unlink(path.c_str()) == 0) return sync_folder(state_dir);
  return errno == ENOENT ? Result<void>() : fail("cannot remove " + path + ": " + std::strerror(errno));
}

uint64_t version_to_serve(const std::string& state_dir, uint64_t head) {
  const std::optional<ProvisionalVersion> provisional = read_provisional(state_dir);
  return provisional && provisional->went_back && provisional->version == head ? provisional->back_to : head;
}

}  // namespace tidegate
