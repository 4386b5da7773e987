// SPDX-License-Identifier: Apache-2.0
#include "core/log.h"

#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <string>

#include "core/clock.h"
#include "core/limits.h"
#include "core/metrics.h"

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

Counter& dropped_lines() {
  static Counter& counter =
      metrics().counter("tidegate_log_lines_dropped_total", "Log lines that standard error did not take whole");
  return counter;
}

}  // namespace

void set_log_level(LogLevel level) { g_level.store(level, std::memory_order_relaxed); }
void set_log_component(std::string_view component) {
  g_component = component;
  dropped_lines();  // registers the counter, so that a scrape shows it from the start
}
bool log_enabled(LogLevel level) { return level >= g_level.load(std::memory_order_relaxed); }

std::string printable(std::string_view message) {
  static constexpr char kHex[] = "0123456789abcdef";
  static constexpr std::string_view kCut = " [cut]";
  std::string out;
  for (const char c : message) {
    const auto byte = static_cast<unsigned char>(c);
    if (out.size() > kLogMessageBytes) return out += kCut;
    if (c == '\n') {
      out += "\n    ";
    } else if (byte < 0x20 || byte == 0x7f) {
      out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    } else {
      out += c;
    }
  }
  return out;
}

void log_line(LogLevel level, std::string_view message) {
  if (!log_enabled(level)) return;
  const uint64_t now_ns = realtime_ns();
  const auto seconds = static_cast<time_t>(now_ns / kNsPerS);
  tm utc{};
  ::gmtime_r(&seconds, &utc);
  const std::string line = fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z {} {}: {}\n", utc.tm_year + 1900,
                                       utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
                                       now_ns % kNsPerS / kNsPerMs, level_name(level), g_component, printable(message));
  // A line that stderr does not take is lost on purpose: logging never blocks its caller and never fails.
  if (::write(STDERR_FILENO, line.data(), line.size()) != static_cast<ssize_t>(line.size())) dropped_lines().add();
}

}  // namespace tidegate
