// SPDX-License-Identifier: Apache-2.0
// The token file: any text gives tokens, or an error sentence with a line number. A token that was read must be found
// again.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "control/api/auth.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tidegate;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const Result<Tokens> tokens = Tokens::parse(text, "tokens");
  if (!tokens) {
    if (tokens.error().message.rfind("tokens:", 0) != 0) std::abort();
    return 0;
  }
  if (!tokens->replica_token().empty() && tokens->find(tokens->replica_token()) == nullptr) std::abort();
  return 0;
}
