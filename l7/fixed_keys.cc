// SPDX-License-Identifier: Apache-2.0
#include "l7/fixed_keys.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "cache/cache.h"
#include "conf/log_target.h"
#include "conf/worker_count.h"

namespace tidegate::l7 {
namespace {

namespace fs = std::filesystem;

// Checks that a file can be created in the directory. If the directory does not exist, checks that the nearest existing
// parent allows to create it.
Result<void> check_directory(const char* key, const fs::path& directory) {
  std::error_code ignored;
  fs::path there = directory.empty() ? fs::path(".") : directory;
  while (!fs::exists(there, ignored) && there.has_parent_path() && there != there.parent_path()) {
    there = there.parent_path();
  }
  if (!fs::is_directory(there, ignored)) return fail(fmt::format("{}: {} is no directory", key, there.string()));
  if (::access(there.c_str(), W_OK | X_OK) == 0) return {};
  return fail(fmt::format("{}: cannot write to {}: {}", key, there.string(), std::strerror(errno)));
}

Result<void> check_log(const std::string& access_log) {
  const std::optional<LogTarget> target = LogTarget::parse(access_log);
  if (!target || target->kind != LogTarget::Kind::file) return {};  // a syslog collector need not exist yet
  const std::string& path = target->path;
  std::error_code ignored;
  if (!fs::exists(path, ignored)) {
    const fs::path directory = fs::path(path).parent_path();
    if (!directory.empty() && !fs::exists(directory, ignored)) {
      return fail(fmt::format("l7.access_log: there is no directory {}", directory.string()));
    }
    return check_directory("l7.access_log", directory);
  }
  if (fs::is_directory(path, ignored)) return fail(fmt::format("l7.access_log: {} is a directory", path));
  if (::access(path.c_str(), W_OK) == 0) return {};
  return fail(fmt::format("l7.access_log: cannot write to {}: {}", path, std::strerror(errno)));
}

}  // namespace

// The keys of a node that are read only when the workers and the cache are made.
std::vector<std::string> differences_fixed_at_start(const Node& then, const Node& now) {
  const std::pair<const char*, bool> keys[] = {
      {"l7.workers", worker_count(then.l7.workers) != worker_count(now.l7.workers)},
      {"l7.access_log", then.l7.access_log != now.l7.access_log},
      {"l7.access_log_format", then.l7.access_log_format != now.l7.access_log_format},
      {"l7.access_log_facility", then.l7.access_log_facility != now.l7.access_log_facility},
      {"l7.access_log_tag", then.l7.access_log_tag != now.l7.access_log_tag},
      {"l7.remember_requests", then.l7.remember_requests_ms != now.l7.remember_requests_ms},
      {"l7.remember_requests_memory", then.l7.remember_requests_bytes != now.l7.remember_requests_bytes},
      {"cache.enabled", then.cache.enabled != now.cache.enabled},
      {"cache.path", then.cache.path != now.cache.path},
      {"cache.disk", then.cache.disk_bytes != now.cache.disk_bytes},
      {"cache.ram", then.cache.ram_bytes != now.cache.ram_bytes},
      {"cache.max_object", then.cache.max_object_bytes != now.cache.max_object_bytes},
  };
  std::vector<std::string> changed;
  for (const auto& [key, differs] : keys) {
    if (differs) changed.emplace_back(key);
  }
  return changed;
}

Result<void> check_paths(const Node& running, const Node& node, const std::string& state_dir) {
  if (node.l7.access_log != running.l7.access_log) {
    if (Result<void> log = check_log(node.l7.access_log); !log) return log;
  }
  const bool same_cache = running.cache.enabled && running.cache.path == node.cache.path;
  if (!node.cache.enabled || same_cache) return {};
  return check_directory("cache.path", cache::make_options(node.cache, state_dir).directory);
}

}  // namespace tidegate::l7
