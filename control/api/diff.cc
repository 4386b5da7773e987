// SPDX-License-Identifier: Apache-2.0
#include "control/api/diff.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "conf/document.h"
#include "conf/fields.h"
#include "control/api/json_bounds.h"

namespace tidegate {

namespace {

constexpr size_t kContextLines = 2;

std::vector<std::string_view> split_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

struct Line {
  char mark;  // ' ', '-', '+'
  std::string_view text;
};

// Compares the part between the common beginning and the common end. The table has the length of the longest common
// subsequence from each pair of positions to the end.
void diff_middle(const std::vector<std::string_view>& a, const std::vector<std::string_view>& b,
                 std::vector<Line>& out) {
  const size_t columns = b.size() + 1;
  if (a.size() * b.size() > kMaxDiffCells) {
    for (const std::string_view line : a) out.push_back({'-', line});
    for (const std::string_view line : b) out.push_back({'+', line});
    return;
  }
  std::vector<uint32_t> common((a.size() + 1) * columns, 0);
  for (size_t i = a.size(); i-- > 0;) {
    for (size_t j = b.size(); j-- > 0;) {
      common[i * columns + j] = a[i] == b[j] ? common[(i + 1) * columns + j + 1] + 1
                                             : std::max(common[(i + 1) * columns + j], common[i * columns + j + 1]);
    }
  }
  size_t i = 0, j = 0;
  while (i < a.size() || j < b.size()) {
    if (i < a.size() && j < b.size() && a[i] == b[j]) {
      out.push_back({' ', a[i]});
      ++i, ++j;
    } else if (j == b.size() || (i < a.size() && common[(i + 1) * columns + j] >= common[i * columns + j + 1])) {
      out.push_back({'-', a[i++]});
    } else {
      out.push_back({'+', b[j++]});
    }
  }
}

// Keeps kContextLines of context at each change.
std::vector<std::string> render(const std::vector<Line>& lines) {
  std::vector<bool> shown(lines.size(), false);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (lines[i].mark == ' ') continue;
    const size_t last = std::min(i + kContextLines, lines.size() - 1);
    for (size_t k = i - std::min(i, kContextLines); k <= last; ++k) shown[k] = true;
  }
  std::vector<std::string> out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (shown[i]) {
      out.push_back(fmt::format("{} {}", lines[i].mark, lines[i].text));
    } else if (i == 0 || shown[i - 1]) {
      out.push_back("@@");
    }
  }
  return out;
}

bool is_text(std::string_view bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte >= 0x20 || c == '\n' || c == '\r' || c == '\t';
  });
}

}  // namespace

std::vector<std::string> diff_lines(std::string_view before, std::string_view after) {
  std::vector<std::string_view> a = split_lines(before), b = split_lines(after);
  size_t head = 0;
  while (head < a.size() && head < b.size() && a[head] == b[head]) ++head;
  size_t tail = 0;
  while (tail < a.size() - head && tail < b.size() - head && a[a.size() - 1 - tail] == b[b.size() - 1 - tail]) ++tail;

  std::vector<Line> lines;
  for (size_t i = 0; i < head; ++i) lines.push_back({' ', a[i]});
  const auto middle = [&](const std::vector<std::string_view>& all) {
    return std::vector<std::string_view>(all.begin() + static_cast<ptrdiff_t>(head),
                                         all.end() - static_cast<ptrdiff_t>(tail));
  };
  diff_middle(middle(a), middle(b), lines);
  for (size_t i = a.size() - tail; i < a.size(); ++i) lines.push_back({' ', a[i]});
  return render(lines);
}

void redact(nlohmann::json& value) {
  if (value.is_array()) {
    for (nlohmann::json& element : value) redact(element);
  } else if (value.is_object()) {
    for (auto& [key, member] : value.items()) {
      if (is_secret_key(key)) {
        member = "***";
      } else {
        redact(member);
      }
    }
  }
}

std::string element_yaml(const std::string& kind, const nlohmann::json& element) {
  // The element is written as the only element of its list, because only a list of the document gives the order of
  // keys. Then the list around the element is removed:
  //   pools:
  //     - name: origins
  constexpr size_t kIndent = 4;
  const std::string listed = Document::from_json("", {{kind, nlohmann::json::array({element})}})->to_yaml();
  std::string text;
  bool first = true;
  for (const std::string_view line : split_lines(listed)) {
    if (!std::exchange(first, false)) text.append(line.substr(std::min(line.size(), kIndent))).append("\n");
  }
  return text;
}

namespace {

// True if the file is a JWK set (RFC 7517) that contains a secret or a private key.
bool has_secret_keys(std::string_view bytes) {
  if (bytes.find("\"keys\"") == std::string_view::npos) return false;
  const Result<nlohmann::json> set = parse_json(bytes);
  if (!set || !set->is_object() || !set->contains("keys") || !(*set)["keys"].is_array()) return false;
  const nlohmann::json& keys = (*set)["keys"];
  return std::any_of(keys.begin(), keys.end(), [](const nlohmann::json& key) {
    return key.is_object() && (key.contains("k") || key.contains("d"));
  });
}

}  // namespace

std::string readable(const std::string& kind, const std::string& name, std::string_view bytes) {
  if (kind == "file") {
    if (bytes.find("PRIVATE KEY") != std::string_view::npos) {
      return fmt::format("(a private key, {} bytes)\n", bytes.size());
    }
    if (has_secret_keys(bytes)) return fmt::format("(secret keys, {} bytes)\n", bytes.size());
    return is_text(bytes) ? std::string(bytes) : fmt::format("({} bytes)\n", bytes.size());
  }
  Result<nlohmann::json> object = parse_json(bytes);
  if (!object) return std::string(bytes);
  if (kind == "order" && object->is_array()) {
    std::string names;
    for (const nlohmann::json& element : *object)
      names += (element.is_string() ? element.get<std::string>() : dump(element)) + "\n";
    return names;
  }
  redact(*object);
  return name.empty() ? Document::from_json("", {{kind, *object}})->to_yaml() : element_yaml(kind, *object);
}

nlohmann::json describe_changes(const StateStore& store, const std::vector<ObjectChange>& changes) {
  nlohmann::json result = nlohmann::json::array();
  for (const ObjectChange& change : changes) {
    const auto text_of = [&](const std::string& hash) {
      if (hash.empty()) return std::string();
      const Result<std::string> bytes = store.object(hash);
      return bytes ? readable(change.kind, change.name, *bytes) : "(" + bytes.error().message + ")\n";
    };
    std::vector<std::string> lines = diff_lines(text_of(change.old_hash), text_of(change.new_hash));
    if (lines.empty() || lines == std::vector<std::string>{"@@"}) lines = {"(only what is secret changed)"};
    result.push_back({{"change", name(change.change)}, {"kind", change.kind}, {"name", change.name}, {"lines", lines}});
  }
  return result;
}

}  // namespace tidegate
