// SPDX-License-Identifier: Apache-2.0
// Log lines for people and machines, on stderr: each is one line, not JSON, with time, level, component and message.
// Never called on the hot path of packets, queries or requests. Thread-safe: a line is one write(2).
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace tidegate {

enum class LogLevel { debug, info, warn, error };

void set_log_level(LogLevel level);
void set_log_component(std::string_view component);  // "l7", "dns"; call once, at start
bool log_enabled(LogLevel level);
void log_line(LogLevel level, std::string_view message);
// The form that any `message` gets in a log line. Control bytes become \x1b, lines after the first are indented so that
// none looks like a line of its own, and it is cut at kLogMessageBytes.
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
