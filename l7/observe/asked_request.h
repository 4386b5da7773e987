// SPDX-License-Identifier: Apache-2.0
// The request that explain is asked about. It is written as a client would send it over HTTP/1.1, and read by the
// parser for clients' requests. So explain sees the same head, and refuses the same requests.
#pragma once

#include <string>
#include <string_view>

#include "core/http1.h"
#include "core/http_server.h"
#include "core/result.h"
#include "l7/observe/url.h"
#include "l7/wire/arena.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

struct AskedRequest {
  std::string text;  // `request` has views of it
  RequestHead request;
  // Set if the parser refuses it: status and name of the fault. Then `request` is not complete.
  uint16_t refused_status = 0;
  const char* refused_as = nullptr;
};

// `question`: /explain?url=...[&method=M][&headers=LINES][&body=BYTES]. `headers`: lines "Name: value", with LF between
// them. An Error: the question itself is malformed.
Result<void> read_asked_request(const HttpRequest& question, const Url& url, const http1::Limits& limits, Arena& arena,
                                AskedRequest& out);

}  // namespace tidegate::l7
