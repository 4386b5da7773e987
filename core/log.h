// SPDX-License-Identifier: Apache-2.0
// Log lines for people and machines, one JSON-free line each on stderr: time, level, component, message.
// Never called on a packet, query or request hot path. Thread-safe: a line is one write(2).
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace tidegate {

enum class LogLevel { debug, info, warn, error };

void set_log_level(LogLevel level);
void set_log_component(std::string_view component);  // "l7", "dns"; once, at start
bool log_enabled(LogLevel level);
void log_line(LogLevel level, std::string_view message);
// `message` as a line shows it, whoever it came from: control bytes as \\x1b, lines after the first indented, so that
// none looks like a line of its own, and cut at kLogMessageBytes.
std::string printable(std::string_view message);

template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(LogLevel::debug)) log_line(LogLevel::debug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::info, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warn(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::warn, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::error, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace tidegate
