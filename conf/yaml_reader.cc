// SPDX-License-Identifier: Apache-2.0
#include "conf/yaml_reader.h"

#include <fmt/format.h>
#include <yaml-cpp/anchor.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <iterator>
#include <optional>
#include <span>
#include <sstream>
#include <unordered_map>
#include <vector>

#include "conf/limits.h"
#include "conf/names.h"
#include "conf/text.h"
#include "conf/unclosed.h"
#include "conf/yaml_plain.h"

namespace tidegate {
namespace {

struct Place {
  uint32_t line = 0, column = 0;
  explicit Place(const YAML::Mark& mark)
      : line(static_cast<uint32_t>(std::max(mark.line, 0)) + 1),
        column(static_cast<uint32_t>(std::max(mark.column, 0)) + 1) {}
};

// Ends the reading, because the tree would not be what the author meant.
struct Stop {
  Place place;
  Complaint complaint;
};

Stop syntax(const YAML::Mark& mark, std::string detail, std::string hint = {}) {
  return {Place(mark), {"syntax", std::move(detail), {}, std::move(hint)}};
}

// Texts that replace yaml-cpp's own messages, found by the beginning of its message.
struct Friendlier {
  std::string_view theirs, ours, hint;
};
constexpr Friendlier kFriendlier[] = {
    {"illegal map value", "a ':' where no key was expected", "quote text that holds ': '"},
    {"illegal map key", "a key where none was expected", "check the indentation"},
    {"illegal tab", "a tab in the indentation", "indent with spaces"},
    {"illegal block entry", "a '-' where no list was expected", "check the indentation"},
    {"illegal EOF in scalar", "the document ends inside quotes", "a closing quote is missing"},
    {"illegal flow end", "a closing bracket without an opening one", {}},
    {"end of map flow not found", "a map in braces is not closed or lacks a comma", {}},
    {"end of sequence flow not found", "a list in brackets is not closed or lacks a comma", {}},
    {"end of map not found", "this line belongs to nothing before it", "check the indentation"},
    {"end of sequence not found", "this line does not go on the list before it", "check the indentation"},
    {"unknown token", "a character that cannot begin a value", "quote the text"},
    {"the referenced anchor is not defined", "an alias to an anchor that is not there", {}},
    {"unknown escape character", "an unknown escape in double quotes", "use single quotes, or double the backslash"},
};

Stop friendlier(const YAML::Exception& error) {
  for (const Friendlier& entry : kFriendlier) {
    if (std::string_view(error.msg).substr(0, entry.theirs.size()) == entry.theirs) {
      return syntax(error.mark, std::string(entry.ours), std::string(entry.hint));
    }
  }
  return syntax(error.mark, error.msg);
}

// True for the tags that yaml-cpp reports for a value without a tag: nothing or "?" if the value is plain, "!" if it is
// in quotes.
bool is_untagged(const std::string& tag) { return tag.empty() || (tag.size() == 1 && tag.front() == '?'); }

bool is_core_tag(const std::string& tag) {
  return is_untagged(tag) || tag == "!" || tag == "tag:yaml.org,2002:str" || tag == "tag:yaml.org,2002:map" ||
         tag == "tag:yaml.org,2002:seq";
}

// Builds the tree. Finished values wait on a stack until their list or map ends. Then they move into it together, so
// that its memory is allocated once with the right size.
class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(FaultList& faults) : faults_(faults) {}

  // The place of the last scalar if it is in quotes, otherwise nothing.
  const std::optional<Place>& last_quoted() const { return last_quoted_; }

  std::unique_ptr<DocumentNode> take() {
    auto root = std::make_unique<DocumentNode>();
    if (!finished_.empty()) *root = std::move(finished_.front());
    finished_.clear();
    return root;
  }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ > 0)
      throw syntax(mark, "a second document begins here", "a configuration is one document; remove the '---'");
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (expects_key()) throw syntax(mark, "a key is empty");
    add_node(mark, DocumentNode::Kind::null);
    remember(anchor);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (expects_key()) throw syntax(mark, "an alias as a key");
    const auto found = anchored_.find(anchor);
    if (found == anchored_.end()) throw syntax(mark, "an alias inside of what it names");
    count_copy(found->second, mark);
    DocumentNode& node = finished_.emplace_back(found->second);
    node.key.clear();
    node.key_line = node.key_column = 0;
    if (have_key_) take_key(node);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    check_tag(mark, tag);
    last_quoted_ = is_untagged(tag) ? std::nullopt : std::optional(Place(mark));
    if (expects_key()) {
      key_.text = value;
      key_.line = Place(mark).line;
      key_.column = Place(mark).column;
      have_key_ = true;
      return;
    }
    DocumentNode& node = add_node(mark, DocumentNode::Kind::scalar);
    node.text = value;
    node.quoted = !is_untagged(tag);
    if (!node.quoted && looks_octal_or_hex(value)) refuse_number(node);
    remember(anchor);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, DocumentNode::Kind::list);
  }
  void OnSequenceEnd() override { close(); }

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, DocumentNode::Kind::map);
  }
  void OnMapEnd() override {
    refuse_duplicate_keys(std::span(finished_).subspan(open_.back().first_child));
    close();
  }

 private:
  struct Open {
    DocumentNode node;  // the list or map, without its children
    YAML::anchor_t anchor;
    size_t first_child;  // index of the first child on the stack of finished values
  };

  bool expects_key() const { return !open_.empty() && open_.back().node.is_map() && !have_key_; }

  void check_tag(const YAML::Mark& mark, const std::string& tag) {
    if (!is_core_tag(tag))
      throw syntax(mark, fmt::format("tag {} is not known", in_quotes(tag)),
                   "types follow from the keys; remove the tag");
  }

  DocumentNode node_at(const YAML::Mark& mark, DocumentNode::Kind kind) {
    DocumentNode node;
    describe(node, mark, kind);
    return node;
  }

  // Puts a value on the stack, with the key that was read before it.
  DocumentNode& add_node(const YAML::Mark& mark, DocumentNode::Kind kind) {
    DocumentNode& node = finished_.emplace_back();
    describe(node, mark, kind);
    return node;
  }

  void describe(DocumentNode& node, const YAML::Mark& mark, DocumentNode::Kind kind) {
    if (++nodes_ > kMaxDocumentNodes)
      throw syntax(mark, fmt::format("the document has more than {} values", kMaxDocumentNodes));
    node.kind = kind;
    const Place place(mark);
    node.line = place.line;
    node.column = place.column;
    if (have_key_) take_key(node);
  }

  void take_key(DocumentNode& node) {
    node.key = std::move(key_.text);
    node.key_line = key_.line;
    node.key_column = key_.column;
    key_ = {};
    have_key_ = false;
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, DocumentNode::Kind kind) {
    check_tag(mark, tag);
    if (expects_key()) throw syntax(mark, "a map or list as a key");
    if (open_.size() >= kMaxDocumentDepth)
      throw syntax(mark, fmt::format("nested deeper than {} levels", kMaxDocumentDepth));
    open_.push_back({node_at(mark, kind), anchor, finished_.size()});
  }

  void close() {
    Open& closed = open_.back();
    const auto first = finished_.begin() + static_cast<ptrdiff_t>(closed.first_child);
    closed.node.children.assign(std::move_iterator(first), std::move_iterator(finished_.end()));
    finished_.erase(first, finished_.end());
    finished_.push_back(std::move(closed.node));
    const YAML::anchor_t anchor = closed.anchor;
    open_.pop_back();
    remember(anchor);
  }

  // Keeps the value that was finished last, if it has an anchor.
  void remember(YAML::anchor_t anchor) {
    if (anchor == YAML::NullAnchor) return;
    const DocumentNode& node = finished_.back();
    YAML::Mark mark;
    mark.line = static_cast<int>(node.line) - 1;
    mark.column = static_cast<int>(node.column) - 1;
    count_copy(node, mark);
    anchored_[anchor] = node;
  }

  void count_copy(const DocumentNode& node, const YAML::Mark& mark) {
    aliased_bytes_ += node.text.size() + node.key.size();
    if (++aliased_nodes_ > kMaxAliasedNodes || aliased_bytes_ > kMaxAliasedBytes) {
      throw syntax(mark, "aliases multiply the document beyond bounds", "write out what they stand for");
    }
    for (const DocumentNode& child : node.children) count_copy(child, mark);
  }

  // The number of finished values in the open list or map at `depth`.
  size_t children_of(size_t depth) const {
    const size_t end = depth + 1 < open_.size() ? open_[depth + 1].first_child : finished_.size();
    return end - open_[depth].first_child;
  }

  // The pointer to `last` inside the innermost open node (or to that node itself if `last` is empty).
  std::string pointer_here(std::string_view last) const {
    std::string pointer;
    for (size_t i = 1; i < open_.size(); ++i) {
      pointer += '/';
      pointer +=
          open_[i - 1].node.is_map() ? escape_pointer_step(open_[i].node.key) : std::to_string(children_of(i - 1));
    }
    return pointer + "/" + escape_pointer_step(last);
  }

  // `node` is the value that was finished last.
  void refuse_number(const DocumentNode& node) {
    const bool in_list = !open_.empty() && open_.back().node.is_list();
    const std::string last = in_list ? std::to_string(children_of(open_.size() - 1) - 1) : node.key;
    faults_.at(node.line, node.column, pointer_here(last),
               {"not_decimal", fmt::format("{} is not a decimal number", in_quotes(node.text)),
                "decimal digits without leading zeros", fmt::format("write '{}' in quotes if it is text", node.text)});
  }

  // Almost every map is small. Its keys are compared without allocation.
  static bool has_few_different_keys(std::span<const DocumentNode> children) {
    constexpr size_t kFew = 12;
    if (children.size() > kFew) return false;
    for (size_t i = 1; i < children.size(); ++i) {
      for (size_t k = 0; k < i; ++k) {
        if (same_word(children[i].key, children[k].key)) return false;
      }
    }
    return true;
  }

  // yaml-cpp and other YAML readers disagree about which of two equal keys counts. Here it is a fault.
  void refuse_duplicate_keys(std::span<const DocumentNode> children) {
    if (has_few_different_keys(children)) return;
    std::vector<const DocumentNode*> by_key;
    by_key.reserve(children.size());
    for (const DocumentNode& child : children) by_key.push_back(&child);
    std::stable_sort(by_key.begin(), by_key.end(), [](const auto* a, const auto* b) { return a->key < b->key; });
    const DocumentNode* first = nullptr;
    for (const DocumentNode* child : by_key) {
      if (first == nullptr || first->key != child->key) {
        first = child;
        continue;
      }
      faults_.at(child->key_line, child->key_column, pointer_here(child->key),
                 {"duplicate_key",
                  fmt::format("key {} stands twice", in_quotes(child->key)),
                  {},
                  fmt::format("the first is at line {}, column {}", first->key_line,
                              faults_.shown_column(first->key_line, first->key_column))});
    }
  }

  struct Key {
    std::string text;
    uint32_t line = 0, column = 0;
  };

  FaultList& faults_;
  std::vector<DocumentNode> finished_;  // the children so far of each open list and map; at the end the root
  std::optional<Place> last_quoted_;
  std::vector<Open> open_;
  Key key_;
  bool have_key_ = false;
  int documents_ = 0;
  size_t nodes_ = 0, aliased_nodes_ = 0, aliased_bytes_ = 0;
  std::unordered_map<YAML::anchor_t, DocumentNode> anchored_;
};

// Bytes that no document may contain are reported with their place, before yaml-cpp guesses an encoding from them.
bool refuse_bytes(std::string_view text, FaultList& faults) {
  const size_t at = find_unreadable(text);
  if (at == std::string_view::npos) return false;
  const size_t line_start = text.rfind('\n', at) == std::string_view::npos || at == 0 ? 0 : text.rfind('\n', at) + 1;
  const auto line =
      static_cast<uint32_t>(std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(at), '\n') + 1);
  const auto byte = static_cast<unsigned char>(text[at]);
  faults.at(
      line, static_cast<uint32_t>(at - line_start + 1), {},
      {"syntax",
       byte < 0x20 ? fmt::format("control character 0x{:02x}", byte) : fmt::format("byte 0x{:02x} is not UTF-8", byte),
       "UTF-8 text",
       {}});
  return true;
}

// yaml-cpp silently closes quotes that the document leaves open, and takes everything after them as text. Only its last
// scalar can be such a quote.
void refuse_open_quote(std::string_view text, const Place& place) {
  size_t at = 0;
  for (uint32_t line = 1; line < place.line; ++line) at = text.find('\n', at) + 1;
  at += place.column - 1;
  while (at < text.size() && (text[at] == '&' || text[at] == '!')) {  // it is preceded by an anchor or a tag
    at = std::min(text.find_first_of(" \t\r\n", at), text.size());
    at = std::min(text.find_first_not_of(" \t\r\n", at), text.size());
  }
  if (at >= text.size() || (text[at] != '\'' && text[at] != '"')) return;  // a block scalar
  const char quote = text[at++];
  while (at < text.size()) {
    const bool escaped = quote == '"' ? text[at] == '\\' : text.substr(at, 2) == "''";
    if (!escaped && text[at] == quote) return;
    at += escaped ? 2 : 1;
  }
  throw Stop{place, {"syntax", "these quotes are never closed", {}, "a closing quote is missing"}};
}

// If brackets or quotes are never closed, the mistake is at their opening, and not where the parser failed. `message`
// is the parser's or ours, and `line` where it failed.
std::optional<Stop> opening_of(std::string_view text, std::string_view message, uint32_t line) {
  constexpr std::string_view kStumbles[] = {
      "illegal EOF in scalar", "end of map flow not found", "end of sequence flow not found",
      "illegal flow end",      "a map or list as a key",    "illegal block entry",
      "illegal map key",       "illegal map value"};
  if (std::none_of(std::begin(kStumbles), std::end(kStumbles), [&](auto each) { return message.starts_with(each); })) {
    return {};
  }
  const std::optional<size_t> opening = find_unclosed(text);
  if (!opening) return {};
  const std::string_view before = text.substr(0, *opening);
  YAML::Mark mark;
  mark.line = static_cast<int>(std::count(before.begin(), before.end(), '\n'));
  mark.column = static_cast<int>(before.size() - (before.rfind('\n') + 1));
  if (Place(mark).line > line) return {};
  const char c = text[*opening];
  if (c == '"' || c == '\'') return syntax(mark, "these quotes are never closed", "a closing quote is missing");
  return syntax(mark, fmt::format("this {} is never closed", c), fmt::format("a {} is missing", c == '[' ? ']' : '}'));
}

// Null if the document is not plain, or if anything is wrong. Then yaml-cpp reports the fault.
std::unique_ptr<DocumentNode> read_plain(std::string_view body) {
  std::vector<Fault> found;
  FaultList faults(found, "");
  TreeBuilder builder(faults);
  try {
    if (!read_plain_yaml(body, builder) || !found.empty()) return nullptr;
  } catch (const Stop&) {
    return nullptr;
  }
  return builder.take();
}

}  // namespace

std::unique_ptr<DocumentNode> read_yaml(const std::string& text, FaultList& faults, YamlWay way) {
  if (text.size() > kMaxDocumentBytes) {
    faults.at(0, 0, {},
              {"too_large",
               fmt::format("the document has {} bytes", text.size()),
               fmt::format("at most {}", kMaxDocumentBytes),
               {}});
    return nullptr;
  }
  const std::string_view body = without_byte_order_mark(text);
  faults.set_text(body);
  if (refuse_bytes(body, faults)) return nullptr;

  if (std::unique_ptr<DocumentNode> plain = way == YamlWay::any ? read_plain(body) : nullptr) return plain;
  TreeBuilder builder(faults);
  try {
    std::istringstream stream{std::string(body)};
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
    if (builder.last_quoted()) refuse_open_quote(body, *builder.last_quoted());
    return builder.take();
  } catch (const Stop& met) {
    const Stop stop = opening_of(body, met.complaint.detail, met.place.line).value_or(met);
    faults.at(stop.place.line, stop.place.column, {}, stop.complaint);
  } catch (const YAML::Exception& error) {
    const Stop stop = opening_of(body, error.msg, Place(error.mark).line).value_or(friendlier(error));
    faults.at(stop.place.line, stop.place.column, {}, stop.complaint);
  }
  return nullptr;
}

}  // namespace tidegate
