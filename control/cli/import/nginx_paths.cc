// SPDX-License-Identifier: Apache-2.0
#include "control/cli/import/nginx_paths.h"

#include <algorithm>

namespace tidegate::cli {
namespace {

using LocationKind = NginxLocation::Kind;
using Locations = std::vector<const NginxLocation*>;

constexpr size_t kServerCasesMost = 4'096;  // of a server

class Paths {
 public:
  Paths(const std::vector<NginxLocation>& locations, const Cases& others) : others_(others) {
    for (const NginxLocation& each : locations) sort(each);
    // The longest prefix is asked first.
    std::stable_sort(stems_.begin(), stems_.end(), [](auto* a, auto* b) { return a->text.size() > b->text.size(); });
    // What stands in a location is asked before what stands beside it.
    std::stable_sort(regexes_.begin(), regexes_.end(),
                     [](auto* a, auto* b) { return a->within.size() > b->within.size(); });
  }

  std::map<std::string, Cases> all() {
    for (const NginxLocation* stem : stems_) keys_.emplace(parent_of(stem->text), nullptr);
    keys_.emplace("/", nullptr);
    std::map<std::string, Cases> out;
    for (const auto& [prefix, own] : keys_) out[prefix == "/" ? "/*" : prefix + "*"] = of_prefix(prefix, own);
    for (const auto& [path, location] : exact_) out[path] = location->cases;
    for (const auto& [prefix, own] : keys_) {
      const std::string bare = prefix.substr(0, prefix.size() - 1);
      if (own == nullptr || !own->passes || bare.empty() || !own->text.ends_with('/') || out.count(bare) != 0) continue;
      out[bare] = {{{}, {{"redirect", prefix + "{query}"}, {"status", 301}}}};
    }
    return total_ > kServerCasesMost ? std::map<std::string, Cases>() : out;
  }

 private:
  void sort(const NginxLocation& each) {
    if (each.kind == LocationKind::regex) return regexes_.push_back(&each);
    if (each.kind == LocationKind::exact) return void(exact_.emplace(each.text, &each));
    prefixes_.push_back(&each);
    if (each.text.ends_with('/')) return void(keys_.emplace(each.text, &each));
    keys_.emplace(each.text + "/", &each);
    stems_.push_back(&each);
  }

  static std::string parent_of(const std::string& path) { return path.substr(0, path.rfind('/') + 1); }

  // Whether ^~ keeps regular expressions from what is below this prefix.
  bool is_first(const std::string& prefix) const {
    const NginxLocation* longest = nullptr;
    for (const NginxLocation* each : prefixes_) {
      if (prefix.starts_with(each->text) && (longest == nullptr || each->text.size() > longest->text.size()))
        longest = each;
    }
    return longest != nullptr && longest->kind == LocationKind::first_prefix;
  }

  Cases of_prefix(const std::string& prefix, const NginxLocation* own) {
    Cases out;
    add_stems(prefix, LocationKind::first_prefix, out);
    if (!is_first(prefix)) {
      for (const NginxLocation* regex : regexes_) {
        When when;
        when.match["path_regex"] = regex->text;
        if (prefix.starts_with(regex->within)) add(regex->cases, when, out);
      }
    }
    add_stems(prefix, LocationKind::prefix, out);
    if (own != nullptr) {
      add(own->cases, {}, out);
    } else if (prefix == "/") {
      add(others_, {}, out);
    }
    return out;
  }

  void add_stems(const std::string& prefix, LocationKind kind, Cases& out) {
    for (const NginxLocation* stem : stems_) {
      if (stem->kind != kind || parent_of(stem->text) != prefix) continue;
      When when;
      when.match["path_regex"] = "(?s)" + quoted_regex(stem->text) + "[^/].*";
      // A route has one regular expression of its path: those inside hold for "/adm" and for "/admin".
      stem->has_regexes ? refuse(when, "locations in it are of regular expressions", out) : add(stem->cases, when, out);
    }
  }

  static void refuse(const When& when, const std::string& why, Cases& out) {
    out.push_back({when, closed_answer(403, 0, "a part of a location", why)});
  }

  // A case with a regular expression of its own cannot have another: then the whole refuses.
  void add(const Cases& cases, const When& when, Cases& out) {
    const Result<Cases> narrow = narrowed(cases, when);
    if (narrow) {
      out.insert(out.end(), narrow->begin(), narrow->end());
    } else {
      refuse(when, narrow.error().message, out);
    }
    total_ += cases.size();
  }

  const Cases& others_;
  Locations regexes_, prefixes_, stems_;
  std::map<std::string, const NginxLocation*> keys_, exact_;  // by prefix with its last slash; by path
  size_t total_ = 0;
};

}  // namespace

std::map<std::string, Cases> nginx_paths(const std::vector<NginxLocation>& locations, const Cases& others) {
  return Paths(locations, others).all();
}

}  // namespace tidegate::cli
