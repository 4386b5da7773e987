// SPDX-License-Identifier: Apache-2.0
// Checks signed requests with any bytes: a signature that nobody made must not be good. Looks for claims in any bytes:
// what it finds must be a part of the text.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "l7/policy/claims.h"
#include "l7/policy/signatures.h"

namespace {

using namespace tidegate;
using namespace tidegate::l7;

const policy::SignatureVerifier& verifier() {
  static const std::string name = "q";
  static const HashKey hash_key{1, 2};
  static policy::Registry registry;
  static std::vector<std::unique_ptr<policy::Rule>> rules;
  static const PolicyContent content;
  static policy::Compiling compiling{name, content, hash_key, registry, rules};
  static const policy::SignatureVerifier made = [] {
    SignatureRules terms;
    terms.covers = {"@method"};
    terms.remembered = 1'024;
    Jwk key;
    key.id = "a";
    key.secret = std::string(32, 's');
    return policy::SignatureVerifier(terms, known_signers(terms, {key}), compiling);
  }();
  return made;
}

}  // namespace

// Lines: Signature-Input, Signature, the query and a field, a path to a claim, the claims.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  const auto line = [&rest] {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view taken = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    return taken;
  };
  RequestHead request;
  request.method = "GET";
  request.authority = "a.test";
  request.path = "/";
  request.fields.add({"signature-input", line()});
  request.fields.add({"signature", line()});
  request.query = line();
  request.has_query = !request.query.empty();
  request.fields.add({"x-field", request.query});
  Arena arena;
  const Known* who = nullptr;
  if (verifier().verify(request, "https", 1'000, arena, who) == policy::SignatureFault::none) std::abort();

  const std::string_view path = line();
  if (const std::optional<policy::JsonView> claim = policy::find_claim(rest, path, arena)) {
    const std::string_view text = claim->text;
    if (text.data() < rest.data() || text.data() + text.size() > rest.data() + rest.size()) std::abort();
    policy::claim_has(*claim, {"x"}, arena);
  }
  return 0;
}
