// SPDX-License-Identifier: Apache-2.0
#include "control/hosts/many_objects.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "control/api/json_bounds.h"
#include "control/limits.h"
#include "core/crypto.h"

namespace tidegate {

namespace {

using nlohmann::json;

constexpr size_t kHashChars = 64;

bool is_hash(std::string_view text) {
  return text.size() == kHashChars &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

}  // namespace

std::string encode_hashes(const std::vector<std::string>& hashes) { return dump(hashes); }

Result<std::vector<std::string>> decode_hashes(std::string_view body) {
  const Result<json> list = parse_json(body);
  if (!list) return list.error();
  if (!list->is_array() || list->empty() || list->size() > kMaxObjectsAsked) {
    return fail(fmt::format("the body is a list of 1 to {} hashes", kMaxObjectsAsked));
  }
  std::vector<std::string> hashes;
  hashes.reserve(list->size());
  for (const json& hash : *list) {
    if (!hash.is_string() || !is_hash(hash.get_ref<const std::string&>())) {
      return fail(fmt::format("number {} is no hash: 64 hexadecimal digits in lower case", hashes.size() + 1));
    }
    hashes.push_back(hash.get<std::string>());
  }
  return hashes;
}

void append_object(std::string& answer, std::string_view hash, std::string_view bytes) {
  answer.append(hash).append(1, ' ').append(std::to_string(bytes.size())).append(1, '\n').append(bytes);
}

Result<HashedObjects> decode_objects(std::string_view answer, const std::vector<std::string>& asked) {
  HashedObjects objects;
  objects.reserve(asked.size());
  while (!answer.empty()) {
    if (objects.size() == asked.size()) return fail("there are more objects than were asked for");
    const std::string& hash = asked[objects.size()];
    if (answer.substr(0, kHashChars) != hash || answer.substr(kHashChars, 1) != " ") {
      return fail("object " + hash + ": something else came");
    }
    answer.remove_prefix(kHashChars + 1);
    size_t size = 0;
    const auto [end, error] = std::from_chars(answer.data(), answer.data() + answer.size(), size);
    const size_t digits = static_cast<size_t>(end - answer.data());
    if (error != std::errc() || answer.substr(digits, 1) != "\n" || size > answer.size() - digits - 1) {
      return fail("object " + hash + ": its size is no number, or more than came");
    }
    std::string bytes(answer.substr(digits + 1, size));
    answer.remove_prefix(digits + 1 + size);
    if (sha256_hex(bytes) != hash) return fail("object " + hash + ": the content is not what its hash says");
    objects.emplace_back(hash, std::move(bytes));
  }
  if (objects.empty()) return fail("object " + (asked.empty() ? std::string() : asked.front()) + ": nothing came");
  return objects;
}

}  // namespace tidegate
