// SPDX-License-Identifier: Apache-2.0
#include "control/api/json_bounds.h"

#include <fmt/format.h>

#include <unordered_set>
#include <vector>

#include "conf/names.h"

namespace tidegate {

namespace {

// The library's text begins with "[json.exception.parse_error.101] ". The rest has the line, the column and what was
// expected. A number beyond any double is not a parse_error.
std::string told(const nlohmann::json::exception& error) {
  std::string_view message = error.what();
  const size_t end = message.find("] ");
  if (end != std::string_view::npos) message.remove_prefix(end + 2);
  return std::string(message);
}

// Looks through the text before a value is made of it. RFC 8259 §4 lets the reader choose one of the values of a key
// that stands twice. Two readers that choose differently would see two documents. (The library can call a function for
// each key while it makes the value. But then it looks at all elements of an array whenever one of them ends.)
class Inspection : public nlohmann::json_sax<nlohmann::json> {
 public:
  const std::string& fault() const { return fault_; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override {
    open_objects_.emplace_back();
    return opens();
  }
  bool key(string_t& name) override {
    if (open_objects_.back().insert(name).second) return true;
    fault_ = fmt::format("the key {} stands twice in one object", in_quotes(name));
    return false;
  }
  bool end_object() override {
    open_objects_.pop_back();
    return closes();
  }
  bool start_array(std::size_t) override { return opens(); }
  bool end_array() override { return closes(); }
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception& error) override {
    fault_ = told(error);
    return false;
  }

 private:
  bool opens() {
    if (++depth_ <= kMaxJsonDepth) return true;
    fault_ = fmt::format("nested deeper than {} levels", kMaxJsonDepth);
    return false;
  }
  bool closes() {
    --depth_;
    return true;
  }

  std::vector<std::unordered_set<std::string>> open_objects_;
  size_t depth_ = 0;
  std::string fault_;
};

}  // namespace

Result<nlohmann::json> parse_json(std::string_view text) {
  Inspection inspection;
  if (!nlohmann::json::sax_parse(text, &inspection)) return fail(inspection.fault());
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    return fail(told(error));
  }
}

std::string dump(const nlohmann::json& value, int indent) {
  return value.dump(indent, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string string_member(const nlohmann::json& object, const char* key, std::string otherwise) {
  if (!object.is_object()) return otherwise;
  const auto member = object.find(key);
  return member != object.end() && member->is_string() ? member->get<std::string>() : otherwise;
}

uint64_t number_member(const nlohmann::json& object, const char* key, uint64_t otherwise) {
  if (!object.is_object()) return otherwise;
  const auto member = object.find(key);
  if (member == object.end() || !member->is_number_integer()) return otherwise;
  if (!member->is_number_unsigned() && member->get<int64_t>() < 0) return otherwise;
  return member->get<uint64_t>();
}

bool bool_member(const nlohmann::json& object, const char* key, bool otherwise) {
  if (!object.is_object()) return otherwise;
  const auto member = object.find(key);
  return member != object.end() && member->is_boolean() ? member->get<bool>() : otherwise;
}

}  // namespace tidegate
