// SPDX-License-Identifier: Apache-2.0
// JSON as views of its text (RFC 8259). It is for the heads and claims of tokens, which are small and read once.
// Nothing is allocated. Everything is checked before the first member is returned. Numbers, names and texts are not
// decoded.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "l7/wire/arena.h"

namespace tidegate::l7::policy {

struct JsonView {
  enum class Kind : uint8_t { object, array, string, number, literal };
  Kind kind = Kind::literal;
  std::string_view text;  // whole: with its quotes, braces or brackets
};

// The value that fills all of `text`, except for white space around it. Nothing if it is malformed, or nested too
// deeply.
std::optional<JsonView> scan_json(std::string_view text);

// The members of an object, or the items of an array (their names are empty), that scan_json() has accepted.
class JsonWalk {
 public:
  explicit JsonWalk(const JsonView& container);
  bool next();
  std::string_view name() const { return name_; }  // as it is written, without quotes
  const JsonView& value() const { return value_; }

 private:
  std::string_view rest_;
  bool object_;
  std::string_view name_;
  JsonView value_;
};

// The members of the object that is all of `text`, in one pass: each is given before the rest is checked. So what was
// given counts only if it is_whole() after the last one.
class JsonMembers {
 public:
  explicit JsonMembers(std::string_view text);
  bool next();
  std::string_view name() const { return name_; }  // as it is written, without quotes
  const JsonView& value() const { return value_; }
  bool is_whole() const { return state_ == State::whole; }

 private:
  enum class State : uint8_t { first, further, whole, malformed };
  std::string_view rest_;
  State state_;
  std::string_view name_;
  JsonView value_;
};

// A string's content, decoded into the arena if it has escapes. Nothing: it is no string, or has half of a surrogate
// pair.
std::optional<std::string_view> json_text(const JsonView& value, Arena& arena);
// A number of seconds, rounded down (RFC 7519 §2: NumericDate). Nothing if it is not a number, below 0, or above 2^53.
std::optional<uint64_t> json_seconds(const JsonView& value);

// Appends the text as a JSON string, with its quotes.
void append_json_string(std::string_view text, std::string& out);

}  // namespace tidegate::l7::policy
