// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/xml_json.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>
#include <vector>

#include "conf/names.h"
#include "conf/text.h"
#include "l7/limits.h"
#include "l7/policy/json_scan.h"

namespace tidegate::l7::policy {
namespace {

bool is_xml_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

bool is_xml_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || static_cast<unsigned char>(c) >= 0x80;
}
bool is_xml_name_char(char c) {
  return is_xml_name_start(c) || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == ':';
}
bool is_xml_name(std::string_view name) {
  return !name.empty() && is_xml_name_start(name[0]) && std::all_of(name.begin(), name.end(), is_xml_name_char);
}

// True for the characters that XML 1.0 §2.2 allows.
bool is_xml_character(uint32_t code) {
  return code == 0x9 || code == 0xa || code == 0xd || (code >= 0x20 && code <= 0xd7ff) ||
         (code >= 0xe000 && code <= 0xfffd) || (code >= 0x10000 && code <= 0x10ffff);
}

void append_utf8(uint32_t code, std::string& out) {
  const auto put = [&out](uint32_t byte) { out += static_cast<char>(byte); };
  if (code < 0x80) return put(code);
  if (code < 0x800) {
    put(0xc0 | code >> 6);
  } else if (code < 0x10000) {
    put(0xe0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3f));
  } else {
    put(0xf0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3f));
    put(0x80 | (code >> 6 & 0x3f));
  }
  put(0x80 | (code & 0x3f));
}

struct XmlElement {
  std::string_view name;
  std::vector<std::pair<std::string_view, std::string>> attributes;
  std::vector<XmlElement> children;
  std::string text;
};

// Reads the whole text. Its recursion is bounded by kXmlDepth.
class XmlReader {
 public:
  explicit XmlReader(std::string_view text) : rest_(text) {}

  XmlFault read(XmlElement& root) {
    skip_mark();
    if (!take_declaration() || !skip_misc()) return fault_;
    if (!take_element(root, 0) || !skip_misc()) return fault_;
    return rest_.empty() ? XmlFault::none : XmlFault::malformed;
  }

 private:
  bool fail(XmlFault fault = XmlFault::malformed) {
    fault_ = fault;
    return false;
  }
  bool take(std::string_view word) {
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }
  void skip_space() {
    while (!rest_.empty() && is_xml_space(rest_[0])) rest_.remove_prefix(1);
  }
  void skip_mark() { take("\xef\xbb\xbf"); }
  // The text before `end`. `end` is removed too.
  std::optional<std::string_view> take_until(std::string_view end) {
    const size_t at = rest_.find(end);
    if (at == std::string_view::npos) return std::nullopt;
    const std::string_view taken = rest_.substr(0, at);
    rest_.remove_prefix(at + end.size());
    return taken;
  }

  bool take_declaration() {
    if (!rest_.starts_with("<?xml") || rest_.size() < 6 || !is_xml_space(rest_[5])) return true;
    const std::optional<std::string_view> declaration = take_until("?>");
    if (!declaration) return fail();
    const size_t at = declaration->find("encoding");
    if (at == std::string_view::npos) return true;
    const std::string lower = lower_case(declaration->substr(at));
    return lower.find("utf-8") != std::string::npos || lower.find("us-ascii") != std::string::npos ||
           fail(XmlFault::not_taken);
  }

  bool skip_comment() {
    const std::optional<std::string_view> comment = take_until("-->");
    return (comment && comment->find("--") == std::string_view::npos) || fail();
  }

  // Skips white space and comments around the document's element.
  bool skip_misc() {
    for (;;) {
      skip_space();
      if (take("<!--")) {
        if (!skip_comment()) return false;
      } else if (rest_.starts_with("<!DOCTYPE") || rest_.starts_with("<?")) {
        return fail(XmlFault::not_taken);
      } else {
        return true;
      }
    }
  }

  std::string_view take_name() {
    size_t end = 0;
    if (!rest_.empty() && is_xml_name_start(rest_[0])) {
      while (end < rest_.size() && is_xml_name_char(rest_[end])) ++end;
    }
    const std::string_view name = rest_.substr(0, end);
    rest_.remove_prefix(end);
    return name;
  }

  // For text or an attribute's value: entities become characters.
  bool append_text(std::string_view raw, std::string& out) {
    while (!raw.empty()) {
      const size_t mark = std::min(raw.find('&'), raw.size());
      out += raw.substr(0, mark);
      raw.remove_prefix(mark);
      if (raw.empty()) break;
      const size_t end = raw.find(';');
      if (end == std::string_view::npos) return fail();
      if (!append_entity(raw.substr(1, end - 1), out)) return false;
      raw.remove_prefix(end + 1);
    }
    return true;
  }

  bool append_entity(std::string_view entity, std::string& out) {
    constexpr std::pair<std::string_view, char> kEntities[] = {
        {"lt", '<'}, {"gt", '>'}, {"amp", '&'}, {"quot", '"'}, {"apos", '\''}};
    for (const auto& [word, character] : kEntities) {
      if (entity == word) {
        out += character;
        return true;
      }
    }
    if (!entity.starts_with('#')) return fail(is_xml_name(entity) ? XmlFault::not_taken : XmlFault::malformed);
    entity.remove_prefix(1);
    const bool hex = entity.starts_with('x');
    if (hex) entity.remove_prefix(1);
    uint32_t code = 0;
    const auto parsed = std::from_chars(entity.data(), entity.data() + entity.size(), code, hex ? 16 : 10);
    if (parsed.ec != std::errc() || parsed.ptr != entity.data() + entity.size() || !is_xml_character(code)) {
      return fail();
    }
    append_utf8(code, out);
    return true;
  }

  bool take_attributes(XmlElement& element) {
    for (;;) {
      const bool spaced = !rest_.empty() && is_xml_space(rest_[0]);
      skip_space();
      if (rest_.empty()) return fail();
      if (rest_[0] == '>' || rest_[0] == '/') return true;
      const std::string_view name = take_name();
      if (!spaced || name.empty()) return fail();
      const auto same = [name](const auto& each) { return each.first == name; };
      if (element.attributes.size() == kXmlAttributes ||
          std::any_of(element.attributes.begin(), element.attributes.end(), same)) {
        return fail();
      }
      skip_space();
      if (!take("=")) return fail();
      skip_space();
      const char quote = rest_.empty() ? '\0' : rest_[0];
      if (quote != '"' && quote != '\'') return fail();
      rest_.remove_prefix(1);
      const std::optional<std::string_view> raw = take_until(std::string_view(&quote, 1));
      if (!raw || raw->find('<') != std::string_view::npos) return fail();
      element.attributes.emplace_back(name, std::string());
      if (!append_text(*raw, element.attributes.back().second)) return false;
    }
  }

  bool take_element(XmlElement& element, size_t depth) {
    if (depth == kXmlDepth) return fail();
    if (++elements_ > kXmlElements) return fail(XmlFault::too_large);
    if (!take("<")) return fail();
    element.name = take_name();
    if (element.name.empty() || !take_attributes(element)) return fail(fault_);
    if (take("/>")) return true;
    if (!take(">")) return fail();
    return take_content(element, depth);
  }

  bool take_content(XmlElement& element, size_t depth) {
    for (;;) {
      const size_t mark = rest_.find('<');
      if (mark == std::string_view::npos || rest_.substr(0, mark).find("]]>") != std::string_view::npos) return fail();
      if (!append_text(rest_.substr(0, mark), element.text)) return false;
      rest_.remove_prefix(mark);
      if (take("</")) {
        if (take_name() != element.name) return fail();
        skip_space();
        return take(">") || fail();
      }
      if (take("<!--")) {
        if (!skip_comment()) return false;
      } else if (take("<![CDATA[")) {
        const std::optional<std::string_view> text = take_until("]]>");
        if (!text) return fail();
        element.text += *text;
      } else if (rest_.starts_with("<?")) {
        return fail(XmlFault::not_taken);
      } else {
        element.children.emplace_back();
        if (!take_element(element.children.back(), depth + 1)) return false;
      }
    }
  }

  std::string_view rest_;
  size_t elements_ = 0;
  XmlFault fault_ = XmlFault::malformed;
};

std::string_view trimmed_xml(std::string_view text) {
  while (!text.empty() && is_xml_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_xml_space(text.back())) text.remove_suffix(1);
  return text;
}

class JsonWriter {
 public:
  JsonWriter(std::string& out, size_t most) : out_(out), most_(most) {}

  bool put(const XmlElement& element) {
    if (out_.size() > most_) return false;
    if (element.attributes.empty() && element.children.empty()) {
      append_json_string(element.text, out_);
      return out_.size() <= most_;
    }
    out_ += '{';
    first_ = true;
    for (const auto& [name, value] : element.attributes) {
      begin_member("@", name);
      append_json_string(value, out_);
    }
    if (!put_children(element)) return false;
    if (const std::string_view text = trimmed_xml(element.text); !text.empty()) {
      begin_member("#", "text");
      append_json_string(text, out_);
    }
    out_ += '}';
    first_ = false;
    return out_.size() <= most_;
  }

 private:
  void begin_member(std::string_view mark, std::string_view name) {
    if (!std::exchange(first_, false)) out_ += ',';
    (((out_ += '"') += mark) += name) += "\":";
  }

  // Writes the children of one name together, at the place of the first child.
  bool put_children(const XmlElement& element) {
    std::vector<size_t> order(element.children.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    const auto name_of = [&element](size_t i) { return element.children[i].name; };
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return name_of(a) < name_of(b); });
    std::vector<std::pair<size_t, size_t>> groups;  // [begin, end) of `order`
    for (size_t begin = 0; begin < order.size();) {
      size_t end = begin + 1;
      while (end < order.size() && name_of(order[end]) == name_of(order[begin])) ++end;
      groups.emplace_back(begin, end);
      begin = end;
    }
    std::sort(groups.begin(), groups.end(),
              [&](const auto& a, const auto& b) { return order[a.first] < order[b.first]; });
    for (const auto& [begin, end] : groups) {
      begin_member("", name_of(order[begin]));
      if (end - begin > 1) out_ += '[';
      for (size_t i = begin; i < end; ++i) {
        if (i > begin) out_ += ',';
        if (!put(element.children[order[i]])) return false;
      }
      if (end - begin > 1) out_ += ']';
      first_ = false;
    }
    return true;
  }

  std::string& out_;
  const size_t most_;
  bool first_ = true;
};

// scan_json() has bounded its recursion.
class XmlWriter {
 public:
  XmlWriter(std::string& out, size_t most, Arena& arena) : out_(out), most_(most), arena_(arena) {}

  bool put(std::string_view name, const JsonView& value) {
    if (!is_xml_name(name)) return fail(XmlFault::no_name);
    if (value.kind == JsonView::Kind::array) {  // an object's member: one element for each item
      for (JsonWalk walk(value); walk.next();) {
        if (walk.value().kind == JsonView::Kind::array) return fail(XmlFault::no_element);
        if (!put(name, walk.value())) return false;
      }
      return true;
    }
    (out_ += '<') += name;
    if (value.kind == JsonView::Kind::object) return put_object(name, value);
    const std::optional<std::string_view> text = scalar_text(value);
    if (!text) return fail(XmlFault::malformed);
    if (text->empty()) {
      out_ += "/>";
      return fits();
    }
    out_ += '>';
    return put_text(*text) && end_element(name);
  }

  // Writes a list that is the whole document.
  bool put_items(std::string_view root, const JsonView& list) {
    (out_ += '<') += root;
    out_ += '>';
    for (JsonWalk walk(list); walk.next();) {
      if (walk.value().kind == JsonView::Kind::array) return fail(XmlFault::no_element);
      if (!put("item", walk.value())) return false;
    }
    return end_element(root);
  }

  bool fail(XmlFault fault) {
    fault_ = fault;
    return false;
  }
  XmlFault fault() const { return fault_; }

  std::optional<std::string_view> member_name(std::string_view written) {
    if (written.find('\\') == std::string_view::npos) return written;
    return json_text({JsonView::Kind::string, {written.data() - 1, written.size() + 2}}, arena_);
  }

 private:
  bool fits() { return out_.size() <= most_ || fail(XmlFault::too_large); }
  bool end_element(std::string_view name) {
    ((out_ += "</") += name) += '>';
    return fits();
  }

  std::optional<std::string_view> scalar_text(const JsonView& value) {
    if (value.kind == JsonView::Kind::string) return json_text(value, arena_);
    return value.text == "null" ? std::string_view() : value.text;
  }

  bool put_text(std::string_view text) {
    for (const char c : text) {
      const auto byte = static_cast<unsigned char>(c);
      if (c == '<') {
        out_ += "&lt;";
      } else if (c == '>') {
        out_ += "&gt;";
      } else if (c == '&') {
        out_ += "&amp;";
      } else if (c == '"') {
        out_ += "&quot;";
      } else if (byte < 0x20 || byte == 0x7f) {
        if (byte < 0x20 && !is_xml_space(c)) return fail(XmlFault::malformed);  // XML has no such character
        ((out_ += "&#") += std::to_string(byte)) += ';';
      } else {
        out_ += c;
      }
    }
    return fits();
  }

  bool put_object(std::string_view name, const JsonView& object) {
    bool content = false;
    std::vector<std::string_view> attributes;
    for (JsonWalk walk(object); walk.next();) {
      const std::optional<std::string_view> member = member_name(walk.name());
      if (!member) return fail(XmlFault::malformed);
      if (!member->starts_with('@')) {
        content = true;
        continue;
      }
      const bool twice = std::find(attributes.begin(), attributes.end(), *member) != attributes.end();
      if (!is_xml_name(member->substr(1)) || twice) return fail(XmlFault::no_name);
      if (attributes.size() == kXmlAttributes) return fail(XmlFault::too_large);
      attributes.push_back(*member);
      const JsonView::Kind kind = walk.value().kind;
      if (kind == JsonView::Kind::object || kind == JsonView::Kind::array) return fail(XmlFault::no_element);
      const std::optional<std::string_view> text = scalar_text(walk.value());
      if (!text) return fail(XmlFault::malformed);
      ((out_ += ' ') += member->substr(1)) += "=\"";
      if (!put_text(*text)) return false;
      out_ += '"';
    }
    if (!content) {
      out_ += "/>";
      return fits();
    }
    out_ += '>';
    for (JsonWalk walk(object); walk.next();) {
      const std::string_view member = *member_name(walk.name());
      if (member.starts_with('@')) continue;
      if (member == "#text") {
        const JsonView::Kind kind = walk.value().kind;
        if (kind == JsonView::Kind::object || kind == JsonView::Kind::array) return fail(XmlFault::no_element);
        const std::optional<std::string_view> text = scalar_text(walk.value());
        if (!text) return fail(XmlFault::malformed);
        if (!put_text(*text)) return false;
      } else if (!put(member, walk.value())) {
        return false;
      }
    }
    return end_element(name);
  }

  std::string& out_;
  const size_t most_;
  Arena& arena_;
  XmlFault fault_ = XmlFault::none;
};

}  // namespace

XmlFault xml_to_json(std::string_view xml, size_t most, std::string& out) {
  if (xml.size() > most) return XmlFault::too_large;
  if (find_unreadable(xml) != std::string_view::npos) return XmlFault::malformed;
  XmlElement root;
  if (const XmlFault fault = XmlReader(xml).read(root); fault != XmlFault::none) return fault;
  ((out += "{\"") += root.name) += "\":";
  if (!JsonWriter(out, most).put(root)) return XmlFault::too_large;
  out += '}';
  return out.size() <= most ? XmlFault::none : XmlFault::too_large;
}

XmlFault json_to_xml(std::string_view json, std::string_view root, size_t most, std::string& out, Arena& arena) {
  const std::optional<JsonView> whole = scan_json(json);
  if (!whole) return XmlFault::malformed;
  out += "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
  XmlWriter writer(out, most, arena);
  if (whole->kind == JsonView::Kind::array) {
    return writer.put_items(root, *whole) ? XmlFault::none : writer.fault();
  }
  if (whole->kind == JsonView::Kind::object) {
    JsonWalk walk(*whole);
    if (walk.next()) {
      const std::optional<std::string_view> name = writer.member_name(walk.name());
      const JsonView only = walk.value();
      const bool is_root = name && only.kind != JsonView::Kind::array && is_xml_name(*name);
      if (is_root && !walk.next()) return writer.put(*name, only) ? XmlFault::none : writer.fault();
    }
  }
  return writer.put(root, *whole) ? XmlFault::none : writer.fault();
}

}  // namespace tidegate::l7::policy
