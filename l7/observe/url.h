// SPDX-License-Identifier: Apache-2.0
// Parses an absolute URL from an operator into the request that a client would send for it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "l7/plan/description.h"
#include "l7/wire/arena.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

struct Url {
  bool tls = false;
  uint16_t port = 0;
  RequestHead request;  // authority, host, path and query
};

// Returns nothing if the text is not http://HOST/PATH or https://HOST/PATH. The views are of `text` and of the arena.
std::optional<Url> parse_url(std::string_view text, Arena& arena);

// The keys under which the cache may hold the answer to a GET of this URL. They cover what each listener's route does
// with the query, the whole query, and the host with and without its final dot, because both are routed alike. Empty if
// the text is not a URL.
std::vector<std::string> cache_keys_of_url(const Description& description, std::string_view url);

}  // namespace tidegate::l7
