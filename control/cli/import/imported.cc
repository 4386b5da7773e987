// SPDX-License-Identifier: Apache-2.0
#include "control/cli/import/imported.h"

#include <fmt/format.h>

#include <algorithm>

#include "conf/limits.h"
#include "conf/names.h"
#include "conf/text.h"
#include "core/ip.h"

namespace tidegate::cli {
namespace {

using nlohmann::json;

constexpr size_t kMaxName = 63;
constexpr size_t kMaxShownText = 200;

}  // namespace

json& Imported::object(const std::string& section, const std::string& name) {
  json*& known = by_name_[section][name];
  if (known == nullptr) {
    sections_[section].push_back({{"name", name}});
    known = &sections_[section].back();
  }
  return *known;
}

bool Imported::has(const std::string& section, const std::string& name) const {
  const auto names = by_name_.find(section);
  return names != by_name_.end() && names->second.count(name) != 0;
}

void Imported::remove(const std::string& section, const std::string& name) {
  by_name_[section].erase(name);
  std::erase_if(sections_[section], [&](const json& object) { return object.at("name") == name; });
}

std::string Imported::free_name(const std::string& section, const std::string& wanted) const {
  const std::string name = name_of(wanted);
  if (!has(section, name)) return name;
  for (size_t& number = last_number_.emplace(section + " " + name, 1).first->second;;) {
    const std::string end = fmt::format("-{}", ++number);
    const std::string next = name.substr(0, kMaxName - end.size()) + end;
    if (!has(section, next)) return next;
  }
}

std::string Imported::policy(const std::string& wanted, const json& content) {
  for (const json& known : sections_["policies"]) {
    json other = known;
    other.erase("name");
    if (other == content) return known.at("name");
  }
  const std::string name = free_name("policies", wanted);
  object("policies", name).update(content);
  return name;
}

bool Imported::has_room_for_regexes(const std::vector<std::string>& hosts, const std::string& path, size_t count) {
  const std::vector<std::string> keys = hosts.empty() ? std::vector<std::string>{""} : hosts;
  for (const std::string& host : keys) {
    if (regexes_[host + path] + count > kMaxRegexRoutes) return false;
  }
  for (const std::string& host : keys) regexes_[host + path] += count;
  return true;
}

std::string Imported::with_comments(const std::string& yaml) const {
  std::string out;
  bool in_routes = false;
  for (size_t at = 0; at < yaml.size();) {
    const size_t end = std::min(yaml.find('\n', at), yaml.size() - 1) + 1;
    const std::string_view line = std::string_view(yaml).substr(at, end - at);
    at = end;
    if (line.front() != ' ') in_routes = line.starts_with("routes:");
    constexpr std::string_view kBegins = "  - ", kName = "name: ";
    if (in_routes && line.starts_with(kBegins)) {
      const size_t name = line.find(kName) + kName.size();
      std::string_view text = line.substr(name, line.find_first_of(",}\n", name) - name);
      if (text.starts_with('"')) text = text.substr(1, text.size() - 2);
      if (const auto why = closed_.find(std::string(text)); why != closed_.end()) {
        out += "  # closed: ";
        for (const char c : why->second) out += c < 0x20 || c == 0x7f ? ' ' : c;  // ASCII: bytes may be no text
        out += '\n';
      }
    }
    out += line;
  }
  return out;
}

void Imported::leave(uint32_t line, std::string text, std::string why) {
  if (text.size() > kMaxShownText) text = text.substr(0, kMaxShownText) + "...";
  for (char& c : text) c = static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
  left_.push_back({line, std::move(text), std::move(why)});
}

void Imported::judge(uint32_t line, const std::string& text, const Result<void>& outcome) {
  if (outcome) {
    take();
  } else {
    leave(line, text, outcome.error().message);
  }
}

std::vector<LeftDirective> Imported::left() const {
  std::vector<LeftDirective> ordered = left_;
  std::stable_sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) { return a.line < b.line; });
  return ordered;
}

json Imported::document() const {
  json document = {{"nodes", json::array({node})}};
  for (const auto& [section, list] : sections_) {
    if (!list.empty()) document[section] = list;
  }
  return document;
}

Result<void> set_once(json& object, const std::string& key, const json& value) {
  const auto found = object.find(key);
  if (found != object.end() && *found != value)
    return fail(fmt::format("'{}' is {} already, and there is one value for all of them", key, found->dump()));
  object[key] = value;
  return {};
}

std::string name_of(std::string_view text) {
  std::string name;
  for (const char c : text.substr(0, kMaxName)) {
    const bool plain =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_';
    name += plain ? c : '-';
  }
  const size_t begin = name.find_first_not_of("-.");
  return begin == std::string::npos ? "unnamed" : name.substr(begin, name.find_last_not_of("-.") + 1 - begin);
}

std::optional<uint64_t> number_of(std::string_view text) { return parse_decimal(text); }

std::optional<std::string> duration_of(std::string_view text, std::string_view unit) {
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const std::optional<uint64_t> number = parse_decimal(text.substr(0, digits));
  std::string_view given = text.substr(digits);
  if (given.empty()) given = unit;
  constexpr std::string_view kUnits[] = {"ms", "s", "m", "h", "d"};
  if (!number || std::find(std::begin(kUnits), std::end(kUnits), given) == std::end(kUnits)) return std::nullopt;
  return fmt::format("{}{}", *number, given);
}

std::optional<std::string> size_of(std::string_view text) {
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const std::optional<uint64_t> number = parse_decimal(text.substr(0, digits));
  const std::string_view unit = text.substr(digits);
  if (!number) return std::nullopt;
  if (unit.empty()) return fmt::format("{}B", *number);
  if (unit == "k" || unit == "K") return fmt::format("{}KB", *number);
  if (unit == "m" || unit == "M") return fmt::format("{}MB", *number);
  if (unit == "g" || unit == "G") return fmt::format("{}GB", *number);
  return std::nullopt;
}

Result<std::string> backend_address(std::string_view text) {
  if (text == "localhost") return std::string("127.0.0.1");
  if (text.size() > 2 && text.front() == '[' && text.back() == ']') text = text.substr(1, text.size() - 2);
  const std::optional<IpAddress> address = IpAddress::parse(text);
  if (!address) return fail(fmt::format("{} is no IP address; a backend has addresses", in_quotes(text)));
  return address->to_string();
}

Result<json> backend_of(std::string_view text, uint16_t default_port, size_t number) {
  std::string_view host = text;
  uint64_t port = default_port;
  const size_t colon = text.rfind(':');
  if (colon != std::string_view::npos && text.find(']', colon) == std::string_view::npos &&
      (text.find(':') == colon || text[colon - 1] == ']')) {
    host = text.substr(0, colon);
    port = parse_decimal(text.substr(colon + 1)).value_or(0);
  }
  if (port == 0 || port > 65535) return fail(in_quotes(text) + " has no port");
  Result<std::string> address = backend_address(host);
  if (!address) return address.error();
  return json({{"name", fmt::format("b{}", number)}, {"addresses", json::array({*address})}, {"port", port}});
}

}  // namespace tidegate::cli
