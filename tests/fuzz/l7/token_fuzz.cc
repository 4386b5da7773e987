// SPDX-License-Identifier: Apache-2.0
// Tokens over any bytes. The JSON reader must accept what nlohmann accepts, and nothing else. A signed token may have
// any content, and must do no harm. A token without a signature must never be good. A set of good keys is read alike
// whether or not bad keys may be left out.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "conf/policy/jwks.h"
#include "core/crypto.h"
#include "l7/policy/json_scan.h"
#include "l7/policy/jwt.h"

namespace {

using namespace tidegate;
using namespace tidegate::l7;

int depth_of(std::string_view text) {
  int depth = 0, deepest = 0;
  for (const char c : text) {
    if (c == '[' || c == '{') deepest = std::max(deepest, ++depth);
    if (c == ']' || c == '}') --depth;
  }
  return deepest;
}

// nlohmann also checks UTF-8, and limits numbers by their type.
void compare_readers(std::string_view text) {
  const bool ascii = std::all_of(text.begin(), text.end(), [](char c) { return c > 0; });
  const std::optional<policy::JsonView> ours = policy::scan_json(text);
  if (ascii && depth_of(text) <= 16 && text.find_first_of("eE") == std::string_view::npos &&
      text.find("\\u") == std::string_view::npos) {
    if (ours.has_value() != nlohmann::json::accept(text)) std::abort();
  }
  policy::JsonMembers one_pass(text);
  std::vector<std::string_view> names;
  while (one_pass.next()) names.push_back(one_pass.name());
  if (one_pass.is_whole() != (ours && ours->kind == policy::JsonView::Kind::object)) std::abort();
  if (!ours) return;
  Arena arena;
  size_t members = 0;
  for (policy::JsonWalk walk(*ours); walk.next();) {
    if (one_pass.is_whole() && names.at(members) != walk.name()) std::abort();
    ++members;
    policy::json_text(walk.value(), arena);
    policy::json_seconds(walk.value());
  }
  if (members > text.size() || (one_pass.is_whole() && members != names.size())) std::abort();
}

void compare_key_sets(std::string_view text) {
  const Result<std::vector<Jwk>> strict = parse_jwks(text);
  std::vector<std::string> left_out;
  const Result<std::vector<Jwk>> loose = parse_jwks(text, &left_out);
  if (strict && (!loose || loose->size() != strict->size() || !left_out.empty())) std::abort();
  if (loose && !strict && left_out.empty()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string secret(32, 's');
  static const policy::TokenVerifier verifier = [] {
    JwtRules rules;
    rules.algorithms = {"HS256"};
    rules.audience = {"a"};
    Jwk key;
    key.secret = secret;
    return policy::TokenVerifier(rules, {key});
  }();
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  compare_readers(bytes);
  compare_key_sets(bytes);
  Arena arena;
  policy::TokenClaims claims;
  if (verifier.verify(bytes, 1'000, arena, claims) == policy::TokenFault::none) std::abort();
  // The first line is the head, the other lines are the claims.
  const size_t line = std::min(bytes.find('\n'), size);
  const std::string text =
      base64url_encode(bytes.substr(0, line)) + "." + base64url_encode(bytes.substr(std::min(line + 1, size)));
  const Sha256 signature = hmac_sha256(secret, text);
  const std::string token =
      text + "." + base64url_encode({reinterpret_cast<const char*>(signature.data()), signature.size()});
  policy::TokenClaims signed_claims;
  if (verifier.verify(token, 1'000, arena, signed_claims) == policy::TokenFault::none && signed_claims.name.empty()) {
    std::abort();
  }
  return 0;
}
