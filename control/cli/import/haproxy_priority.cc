// SPDX-License-Identifier: Apache-2.0
#include "control/cli/import/haproxy_priority.h"

#include <fmt/format.h>

#include "control/cli/import/imported.h"

namespace tidegate::cli {
namespace {

constexpr int64_t kMostClass = 2'047;  // HAProxy's own bounds are this and its negative

// Where the name of the rule is.
size_t begin_of(const HaproxyLine& line) { return line.word(0) == "tcp-request" ? 2 : 1; }

// `int(-5)`; nothing if it is another expression.
std::optional<int64_t> constant_of(const std::string& text) {
  if (!text.starts_with("int(") || !text.ends_with(')')) return std::nullopt;
  const bool negative = text.starts_with("int(-");
  const size_t begin = negative ? 5 : 4;
  const std::optional<uint64_t> number = number_of(text.substr(begin, text.size() - begin - 1));
  if (!number || *number > kMostClass) return std::nullopt;
  return negative ? -static_cast<int64_t>(*number) : static_cast<int64_t>(*number);
}

std::optional<int64_t> class_of(const HaproxyLine& line) {
  const size_t begin = begin_of(line);
  return line.word(begin) == "set-priority-class" ? constant_of(line.word(begin + 1)) : std::nullopt;
}

}  // namespace

HaproxyPriorities::HaproxyPriorities(const std::vector<HaproxySection>& sections) {
  for (const HaproxySection& section : sections) {
    for (const HaproxyLine& line : section.lines) {
      const std::optional<int64_t> set = is_rule(line) ? class_of(line) : std::nullopt;
      if (!set || *set == 0) continue;
      std::optional<First>& first = *set < 0 ? before_ : behind_;
      if (!first) first = First{*set, line.number};
    }
  }
}

bool HaproxyPriorities::is_rule(const HaproxyLine& line) {
  return (line.word(0) == "http-request" || line.word(0) == "tcp-request") &&
         line.word(begin_of(line)).starts_with("set-priority-");
}

Result<std::string> HaproxyPriorities::read(const HaproxyLine& line) {
  if (line.word(begin_of(line)) != "set-priority-class")
    return fail("requests wait by their priority, not by a time: see queue_priority of routes");
  const std::optional<int64_t> set = class_of(line);
  if (!set) return fail("a route has one priority, as int(-1) says one: see queue_priority");
  return std::string(*set < 0 ? "high" : *set > 0 ? "low" : "normal");
}

Result<void> HaproxyPriorities::keeps_order(const HaproxyLine& line) const {
  const std::optional<int64_t> set = class_of(line);
  if (!set || *set == 0) return {};
  const std::optional<First>& first = *set < 0 ? before_ : behind_;
  if (!first || first->set == *set) return {};
  return fail(fmt::format("its queue_priority is {}, as in line {}: there are three priorities",
                          *set < 0 ? "high" : "low", first->line));
}

}  // namespace tidegate::cli
