// SPDX-License-Identifier: Apache-2.0
#include "core/regex.h"

#include <re2/re2.h>

#include <algorithm>
#include <map>
#include <string>

#include "core/mutex.h"

namespace tidegate {

struct Regex::Program {
  Program(std::string_view pattern, const re2::RE2::Options& options)
      : regex(re2::StringPiece(pattern.data(), pattern.size()), options) {}
  re2::RE2 regex;
};

Result<Regex> Regex::compile(std::string_view pattern, size_t most_bytes) {
  re2::RE2::Options options(re2::RE2::Latin1);  // bytes: a message need not be UTF-8
  options.set_log_errors(false);
  options.set_max_mem(static_cast<int64_t>(most_bytes));
  auto program = std::make_shared<const Program>(pattern, options);
  if (!program->regex.ok()) return fail(program->regex.error());
  if (program->regex.NumberOfCapturingGroups() >= static_cast<int>(kGroups)) {
    return fail("it has more than " + std::to_string(kGroups - 1) + " groups");
  }
  return Regex(std::move(program));
}

bool Regex::search(std::string_view text, Match& out) const {
  const int count = program_->regex.NumberOfCapturingGroups() + 1;
  re2::StringPiece pieces[kGroups];
  const re2::StringPiece whole(text.data(), text.size());
  if (!program_->regex.Match(whole, 0, text.size(), re2::RE2::UNANCHORED, pieces, count)) return false;
  out.count = static_cast<size_t>(count);
  for (size_t i = 0; i < out.count; ++i) {
    out.groups[i] =
        pieces[i].data() == nullptr ? std::string_view() : std::string_view(pieces[i].data(), pieces[i].size());
  }
  return true;
}

bool Regex::takes_whole(std::string_view text) const {
  return program_->regex.Match({text.data(), text.size()}, 0, text.size(), re2::RE2::ANCHOR_BOTH, nullptr, 0);
}

Result<Regex> Regex::shared(std::string_view pattern, size_t most_bytes) {
  struct Known {
    Mutex mutex;
    std::map<std::pair<std::string, size_t>, std::weak_ptr<const Program>> programs TIDEGATE_GUARDED_BY(mutex);
    size_t trim_at TIDEGATE_GUARDED_BY(mutex) = 64;
  };
  static Known known;
  const MutexLock lock(known.mutex);
  std::weak_ptr<const Program>& entry = known.programs[{std::string(pattern), most_bytes}];
  if (std::shared_ptr<const Program> program = entry.lock()) return Regex(std::move(program));
  Result<Regex> made = compile(pattern, most_bytes);
  if (made) entry = made->program_;
  if (known.programs.size() >= known.trim_at) {
    std::erase_if(known.programs, [](const auto& each) { return each.second.expired(); });
    known.trim_at = std::max<size_t>(64, 2 * known.programs.size());
  }
  return made;
}

// RE2 tells the range of a pattern that is anchored at its beginning.
std::optional<Regex::Bounds> Regex::bounds_of(std::string_view pattern, size_t most_bytes) {
  constexpr int kBoundBytes = 64;
  const Result<Regex> anchored = compile("^(?:" + std::string(pattern) + ")$", most_bytes);
  Bounds bounds;
  if (!anchored || !anchored->program_->regex.PossibleMatchRange(&bounds.first, &bounds.second, kBoundBytes)) {
    return std::nullopt;
  }
  return bounds;
}

size_t Regex::groups() const { return static_cast<size_t>(program_->regex.NumberOfCapturingGroups()); }

}  // namespace tidegate
