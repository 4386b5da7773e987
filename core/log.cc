#include "core/log.h"

#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <string>

#include "core/clock.h"

namespace tidegate {
namespace {

std::atomic<LogLevel> g_level{LogLevel::info};
std::string g_component = "tidegate";

const char* level_name(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return "debug";
    case LogLevel::info:
      return "info";
    case LogLevel::warn:
      return "warn";
    case LogLevel::error:
      return "error";
  }
  return "?";
}

}  // namespace

void set_log_level(LogLevel level) { g_level.store(level, std::memory_order_relaxed); }
void set_log_component(std::string_view component) { g_component = component; }
bool log_enabled(LogLevel level) { return level >= g_level.load(std::memory_order_relaxed); }

void log_line(LogLevel level, std::string_view message) {
  if (!log_enabled(level)) return;
  const uint64_t now_ns = realtime_ns();
  const auto seconds = static_cast<time_t>(now_ns / kNsPerS);
  tm utc{};
  ::gmtime_r(&seconds, &utc);
  std::string line = fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z {} {}: {}\n", utc.tm_year + 1900,
                                 utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
                                 now_ns % kNsPerS / kNsPerMs, level_name(level), g_component, message);
  // A line that stderr does not take is lost on purpose: logging never blocks or fails its caller.
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace tidegate
