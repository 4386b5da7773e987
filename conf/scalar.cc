// SPDX-License-Identifier: Apache-2.0
#include "conf/scalar.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "conf/names.h"
#include "conf/route_pattern.h"
#include "conf/text.h"
#include "core/http1.h"

namespace tidegate {
namespace {

struct Unit {
  std::string_view suffix;
  uint64_t factor;
};
// From the smallest to the largest. Each unit divides the next.
constexpr Unit kDurations[] = {{"ms", 1}, {"s", 1'000}, {"m", 60'000}, {"h", 3'600'000}, {"d", 86'400'000}};
constexpr Unit kSizes[] = {{"B", 1}, {"KB", 1ULL << 10}, {"MB", 1ULL << 20}, {"GB", 1ULL << 30}, {"TB", 1ULL << 40}};

constexpr size_t kMaxName = 63;
constexpr size_t kMaxFilePath = 497;  // the path names an object of the version; the state limits such names

Decoded refuse(std::string code, const Field& field, const DocumentNode& node, std::string hint = {}) {
  return {std::nullopt,
          {std::move(code), fmt::format("{} is {}", field.key, described(node)), expectation(field), std::move(hint)}};
}

// A fault with a reason. The reason says more than the expected form does.
Decoded refuse_because(const Field& field, const DocumentNode& node, const std::string& reason) {
  return {std::nullopt, {"bad_value", fmt::format("{} is {}: {}", field.key, described(node), reason), {}, {}}};
}

template <size_t N>
std::optional<uint64_t> parse_with_unit(std::string_view text, const Unit (&units)[N]) {
  if (text == "0") return 0;
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const auto count = parse_decimal(text.substr(0, digits));
  for (const Unit& unit : units) {
    if (text.substr(digits) != unit.suffix || !count) continue;
    if (*count > UINT64_MAX / unit.factor) return std::nullopt;
    return *count * unit.factor;
  }
  return std::nullopt;
}

template <size_t N>
std::string text_with_unit(uint64_t value, const Unit (&units)[N], size_t zero_unit) {
  if (value == 0) return fmt::format("0{}", units[zero_unit].suffix);
  size_t best = 0;
  while (best + 1 < N && value % units[best + 1].factor == 0) ++best;
  return fmt::format("{}{}", value / units[best].factor, units[best].suffix);
}

Decoded decode_boolean(const Field& field, const DocumentNode& node) {
  if (!node.quoted && node.text == "true") return {true, {}};
  if (!node.quoted && node.text == "false") return {false, {}};
  return refuse("wrong_type", field, node);
}

Decoded decode_integer(const Field& field, const DocumentNode& node) {
  if (!field.choices.empty() && node.text == field.choices.front()) return {uint64_t{0}, {}};
  const auto value = parse_decimal(node.text);
  if (node.quoted && value) return refuse("wrong_type", field, node, "remove the quotes");
  if (!value && is_json_number(node.text)) return refuse("out_of_range", field, node);
  if (!value) return refuse("wrong_type", field, node, did_you_mean(node.text, field.choices));
  if (*value < field.min || *value > field.max) return refuse("out_of_range", field, node);
  return {*value, {}};
}

Decoded decode_number(const Field& field, const DocumentNode& node) {
  if (!is_json_number(node.text)) return refuse("wrong_type", field, node);
  if (node.quoted) return refuse("wrong_type", field, node, "remove the quotes");
  double value = 0;
  const auto [end, error] = std::from_chars(node.text.data(), node.text.data() + node.text.size(), value);
  if (error != std::errc{} || !(value >= field.lowest && value <= field.highest))
    return refuse("out_of_range", field, node);
  return {value, {}};
}

Decoded decode_duration(const Field& field, const DocumentNode& node) {
  const auto ms = parse_with_unit(node.text, kDurations);
  if (!ms) {
    const bool bare = parse_decimal(node.text).has_value();
    return refuse("wrong_type", field, node,
                  bare ? fmt::format("a unit is missing: {}s or {}ms?", node.text, node.text) : "");
  }
  if (*ms < field.min || *ms > field.max) return refuse("out_of_range", field, node);
  if (*ms % field.scale != 0) return refuse("out_of_range", field, node, "only whole seconds can be kept");
  return {*ms, {}};
}

Decoded decode_size(const Field& field, const DocumentNode& node) {
  const auto bytes = parse_with_unit(node.text, kSizes);
  if (!bytes) {
    const bool bare = parse_decimal(node.text).has_value();
    return refuse("wrong_type", field, node,
                  bare ? fmt::format("a unit is missing: {}MB or {}B?", node.text, node.text)
                       : "units are B, KB, MB, GB and TB, powers of 1024");
  }
  if (*bytes < field.min || *bytes > field.max) return refuse("out_of_range", field, node);
  if (*bytes % field.scale != 0)
    return refuse("out_of_range", field, node, fmt::format("only multiples of {}", size_text(field.scale)));
  return {*bytes, {}};
}

bool is_name(std::string_view text) {
  const auto letter_or_digit = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  if (text.empty() || text.size() > kMaxName || !letter_or_digit(text.front())) return false;
  return std::all_of(text.begin(), text.end(),
                     [&](char c) { return letter_or_digit(c) || c == '.' || c == '_' || c == '-'; });
}

Decoded decode_text(const Field& field, const DocumentNode& node) {
  if (node.text.size() < field.min) return refuse("empty_value", field, node);
  if (node.text.size() > field.max) return refuse("out_of_range", field, node);
  const bool lines = field.type == FieldType::lines;
  for (const char c : node.text) {
    const bool control = (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f;
    if (control && !(lines && (c == '\n' || c == '\r'))) return refuse("bad_value", field, node);
  }
  return {node.text, {}};
}

Decoded decode_choice(const Field& field, const DocumentNode& node) {
  for (size_t i = 0; i < field.choices.size(); ++i) {
    if (field.choices[i] == node.text) return {uint64_t{i}, {}};
  }
  return refuse("no_such_choice", field, node, did_you_mean(node.text, field.choices));
}

Decoded decode_address(const Field& field, const DocumentNode& node) {
  if (const auto address = IpAddress::parse(node.text)) return {*address, {}};
  const bool has_prefix = Cidr::parse(node.text).has_value();
  return refuse("bad_value", field, node, has_prefix ? "without a prefix length" : "");
}

Decoded decode_interface_address(const Field& field, const DocumentNode& node) {
  const size_t slash = node.text.find('/');
  const auto address = IpAddress::parse(std::string_view(node.text).substr(0, slash));
  if (slash == std::string::npos || !address) {
    return refuse("bad_value", field, node, address ? "the prefix length of its network is missing" : "");
  }
  const auto prefix = parse_decimal(std::string_view(node.text).substr(slash + 1));
  if (!prefix || *prefix == 0 || *prefix > address->max_prefix()) return refuse("bad_value", field, node);
  return {InterfaceAddress{*address, static_cast<uint8_t>(*prefix)}, {}};
}

Decoded decode_cidr(const Field& field, const DocumentNode& node) {
  if (const auto cidr = Cidr::parse(node.text)) return {*cidr, {}};
  const size_t slash = node.text.find('/');
  const auto address = IpAddress::parse(std::string_view(node.text).substr(0, slash));
  constexpr uint64_t kNoPrefix = UINT64_MAX;
  const uint64_t prefix = slash == std::string::npos
                              ? kNoPrefix
                              : parse_decimal(std::string_view(node.text).substr(slash + 1)).value_or(kNoPrefix);
  if (!address || prefix > address->max_prefix()) return refuse("bad_value", field, node);
  return refuse("bad_value", field, node,
                fmt::format("bits behind the prefix are set; the network is {}",
                            Cidr::of(*address, static_cast<uint8_t>(prefix)).to_string()));
}

Decoded decode_endpoint(const Field& field, const DocumentNode& node) {
  const auto endpoint = Endpoint::parse(node.text);
  if (endpoint && endpoint->port != 0) return {*endpoint, {}};
  const auto address = IpAddress::parse(node.text);
  if (address)
    return refuse("bad_value", field, node, fmt::format("a port is missing: {}?", Endpoint{*address, 443}.to_string()));
  return refuse("bad_value", field, node);
}

Decoded decode_file(const Field& field, const DocumentNode& node) {
  if (node.text.empty()) return refuse("empty_value", field, node);
  if (node.text.size() > kMaxFilePath) {
    return refuse("out_of_range", field, node, fmt::format("a path has at most {} bytes", kMaxFilePath));
  }
  return decode_text(field, node);
}

Decoded decode_method(const Field& field, const DocumentNode& node) {
  std::string upper = node.text;
  for (char& c : upper) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  if (!http1::is_token(node.text) || node.text.size() > kMaxName) return refuse("bad_value", field, node);
  if (upper != node.text)
    return refuse("bad_value", field, node, fmt::format("methods are case-sensitive: did you mean '{}'?", upper));
  return {node.text, {}};
}

// One header field: the node's key and text.
Decoded decode_text_pair(const Field& field, const DocumentNode& node) {
  if (!http1::is_token(node.key)) {
    return {std::nullopt,
            {"bad_value", fmt::format("{} is not the name of a header field", in_quotes(node.key)), {}, {}}};
  }
  for (const char c : node.text) {
    if ((static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f) {
      return refuse_because(field, node, "a header field's value is one line");
    }
  }
  return {TextPair{node.key, node.text}, {}};
}

// Decodes the pattern of a host or a path.
Decoded decode_pattern(const Field& field, const DocumentNode& node) {
  if (field.type == FieldType::host_pattern) {
    const auto pattern = HostPattern::parse(node.text);
    return pattern ? Decoded{pattern->to_string(), {}} : refuse_because(field, node, pattern.error().message);
  }
  const auto pattern = PathPattern::parse(node.text);
  return pattern ? Decoded{pattern->to_string(), {}} : refuse_because(field, node, pattern.error().message);
}

Decoded decode_domain(const Field& field, const DocumentNode& node) {
  const auto domain = canonical_domain(node.text);
  return domain ? Decoded{*domain, {}} : refuse("bad_value", field, node);
}

Decoded decode_name(const Field& field, const DocumentNode& node) {
  return is_name(node.text) ? Decoded{node.text, {}} : refuse("bad_value", field, node);
}

// Whether the value of an integer field is written as a word.
bool is_word(const Field& field, const ScalarValue& value) {
  return !field.choices.empty() && std::get<uint64_t>(value) == 0;
}

std::string number_text(double value) { return nlohmann::json(value).dump(); }

}  // namespace

Decoded decode_scalar(const Field& field, const DocumentNode& node) {
  if (node.kind == DocumentNode::Kind::null) {
    const bool text =
        field.type == FieldType::text_map || field.type == FieldType::text || field.type == FieldType::lines;
    return refuse("empty_value", field, node,
                  text ? "write \"\" for empty text" : "remove the key to have the default");
  }
  if (!node.is_scalar()) return refuse("wrong_type", field, node);
  switch (field.type) {
    case FieldType::boolean:
      return decode_boolean(field, node);
    case FieldType::integer:
      return decode_integer(field, node);
    case FieldType::number:
      return decode_number(field, node);
    case FieldType::duration:
      return decode_duration(field, node);
    case FieldType::size:
      return decode_size(field, node);
    case FieldType::text:
    case FieldType::lines:
      return decode_text(field, node);
    case FieldType::file:
      return decode_file(field, node);
    case FieldType::choice:
      return decode_choice(field, node);
    case FieldType::address:
      return decode_address(field, node);
    case FieldType::interface_address:
      return decode_interface_address(field, node);
    case FieldType::cidr:
      return decode_cidr(field, node);
    case FieldType::endpoint:
      return decode_endpoint(field, node);
    case FieldType::domain:
      return decode_domain(field, node);
    case FieldType::host_pattern:
    case FieldType::path_pattern:
      return decode_pattern(field, node);
    case FieldType::method:
      return decode_method(field, node);
    case FieldType::text_map:
      return decode_text_pair(field, node);
    case FieldType::name:
      return decode_name(field, node);
    case FieldType::reference:
      return node.text.empty() ? refuse("empty_value", field, node) : Decoded{node.text, {}};
    case FieldType::section:
      break;
  }
  return refuse("wrong_type", field, node);
}

std::string duration_text(uint64_t ms) { return text_with_unit(ms, kDurations, 1); }
std::string size_text(uint64_t bytes) { return text_with_unit(bytes, kSizes, 0); }

std::string scalar_text(const Field& field, const ScalarValue& value) {
  switch (field.type) {
    case FieldType::boolean:
      return std::get<bool>(value) ? "true" : "false";
    case FieldType::integer:
      return is_word(field, value) ? std::string(field.choices.front()) : std::to_string(std::get<uint64_t>(value));
    case FieldType::number:
      return number_text(std::get<double>(value));
    case FieldType::duration:
      return duration_text(std::get<uint64_t>(value));
    case FieldType::size:
      return size_text(std::get<uint64_t>(value));
    case FieldType::choice:
      return std::string(field.choices[std::get<uint64_t>(value)]);
    case FieldType::address:
      return std::get<IpAddress>(value).to_string();
    case FieldType::cidr:
      return std::get<Cidr>(value).to_string();
    case FieldType::endpoint:
      return std::get<Endpoint>(value).to_string();
    case FieldType::interface_address: {
      const auto& [address, prefix] = std::get<InterfaceAddress>(value);
      return fmt::format("{}/{}", address.to_string(), prefix);
    }
    case FieldType::text_map:
      return std::get<TextPair>(value).second;
    default:
      return std::get<std::string>(value);
  }
}

nlohmann::json scalar_json(const Field& field, const ScalarValue& value) {
  switch (field.type) {
    case FieldType::boolean:
      return std::get<bool>(value);
    case FieldType::integer:
      return is_word(field, value) ? nlohmann::json(field.choices.front()) : nlohmann::json(std::get<uint64_t>(value));
    case FieldType::number:
      return std::get<double>(value);
    default:
      return scalar_text(field, value);
  }
}

std::string described(const DocumentNode& node) {
  switch (node.kind) {
    case DocumentNode::Kind::null:
      return "empty";
    case DocumentNode::Kind::list:
      return "a list";
    case DocumentNode::Kind::map:
      return "a map";
    case DocumentNode::Kind::scalar:
      break;
  }
  return !node.quoted && is_json_number(node.text) && node.text.size() < 32 ? node.text : in_quotes(node.text);
}

std::string expectation(const Field& field) {
  switch (field.type) {
    case FieldType::boolean:
      return "true or false";
    case FieldType::integer:
      return fmt::format("{}{} to {}", field.choices.empty() ? "" : one_of(field.choices) + ", or ", field.min,
                         field.max);
    case FieldType::number:
      return fmt::format("{:g} to {:g}", field.lowest, field.highest);
    case FieldType::duration:
      return fmt::format("a duration from {} to {}", duration_text(field.min), duration_text(field.max));
    case FieldType::size:
      return fmt::format("a size from {} to {}", size_text(field.min), size_text(field.max));
    case FieldType::name:
      return fmt::format("a name: at most {} letters, digits, '.', '_', '-'", kMaxName);
    case FieldType::text:
      return fmt::format("one line of {} to {} bytes", field.min, field.max);
    case FieldType::lines:
      return fmt::format("text of {} to {} bytes", field.min, field.max);
    case FieldType::choice:
      return one_of(field.choices);
    case FieldType::address:
      return "an address like 192.0.2.1 or 2001:db8::1";
    case FieldType::interface_address:
      return "an address with prefix length like 192.0.2.1/24";
    case FieldType::cidr:
      return "a network like 192.0.2.0/24";
    case FieldType::endpoint:
      return "an address and port like 192.0.2.1:80 or [2001:db8::1]:80";
    case FieldType::domain:
      return "a domain name like www.example.com";
    case FieldType::host_pattern:
      return "a host like www.example.com or *.example.com";
    case FieldType::path_pattern:
      return "a path like /exact, /a/{id}/b or /prefix/*";
    case FieldType::method:
      return "a method like GET";
    case FieldType::reference:
      return fmt::format("a name from {}", field.refers_to);
    case FieldType::file:
      return "the path of a file";
    case FieldType::text_map:
      return "a map of header fields";
    case FieldType::section:
      return "a map";
  }
  return {};
}

std::optional<std::string> canonical_domain(std::string_view text) {
  constexpr size_t kMaxDomain = 253, kMaxLabel = 63;
  if (text == ".") return ".";
  if (!text.empty() && text.back() == '.') text.remove_suffix(1);
  if (text.empty() || text.size() > kMaxDomain) return std::nullopt;
  std::string domain;
  size_t label = 0;
  for (const char c : text) {
    const char folded = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    // '*' (RFC 4592) and '/' (RFC 2317) occur in the names of other people's zones.
    const bool letter = (folded >= 'a' && folded <= 'z') || (folded >= '0' && folded <= '9') ||
                        std::string_view("-_*/").find(folded) != std::string_view::npos;
    if (c == '.' ? label == 0 : !letter || ++label > kMaxLabel) return std::nullopt;
    if (c == '.') label = 0;
    domain += folded;
  }
  if (label == 0) return std::nullopt;
  return domain;
}

}  // namespace tidegate
