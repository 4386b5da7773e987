// SPDX-License-Identifier: Apache-2.0
// Texts with variables, as a transform has them: "/v2/{path.id}". A variable is in braces; "{{" and "}}" are braces.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace tidegate {

struct TemplatePart {
  enum class What : uint8_t {
    literal,          // `text` itself
    client,           // the client's address
    port,             // the port that the client connected to
    host,             // of the request, in lower case, without port
    authority,        // host and port as the client wrote them
    path,             // of the request, normalised
    query,            // of the request, without '?'
    method,           // of the request
    scheme,           // "http" or "https"
    route,            // the route's name
    request_id,       // of the exchange
    identity,         // the client's name from `authenticate`
    tls_version,      // of the client's connection; empty: plain
    status,           // of the answer
    path_parameter,   // of the route's path; `text`: its name
    query_parameter,  // as it stands in the URL
    header,           // of the request; `text`: in lower case
    cookie,
    claim,  // of the client's token
    group,  // what a group of `match` matched; `number` is the group
    json,   // a value of the body, as JSON; `text`: its path
  };
  What what = What::literal;
  std::string text;
  uint8_t number = 0;
};

struct TextTemplate {
  std::vector<TemplatePart> parts;  // at most kTemplateParts
  bool has(TemplatePart::What what) const;
};

// An Error: an open brace, an unknown variable, too many parts. An unknown name without a dot is a parameter of the
// path: {id} is {path.id}.
Result<TextTemplate> parse_template(std::string_view text);

// "path.id", for sentences.
std::string variable_name(const TemplatePart& part);
// For a name that is no variable: which one may be meant. `known`: names of parameters that are known in addition.
// Empty: none is close.
std::string variable_hint(std::string_view name, std::vector<std::string_view> known);

// True if the URL, as the client sent it, determines the value. Then a cache may keep the answers, because its key
// contains the URL.
bool is_of_url(TemplatePart::What what);

// Why a literal text cannot stand in a path (RFC 3986 §3.3), as a sentence. Empty: it can.
std::string_view why_not_in_path(std::string_view text);

}  // namespace tidegate
