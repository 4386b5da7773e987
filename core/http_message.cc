// SPDX-License-Identifier: Apache-2.0
// HttpRequest and HttpResponse as values, and the response head on the wire.
#include <fmt/format.h>

#include <iterator>

#include "core/http_connection.h"
#include "core/http_server.h"

namespace tidegate {
namespace {

void append_json_string(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<uint8_t>(c) < 0x20) {
      fmt::format_to(std::back_inserter(out), "\\u{:04x}", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  out += '"';
}

}  // namespace

std::string_view HttpRequest::header(std::string_view lower_name) const {
  for (const auto& [name, value] : headers) {
    if (name == lower_name) return value;
  }
  return {};
}

std::string_view HttpResponse::header(std::string_view name) const {
  for (const auto& [candidate, value] : headers) {
    if (http1::equals_ignore_case(candidate, name)) return value;
  }
  return {};
}

HttpResponse HttpResponse::text(int status, std::string body, std::string content_type) {
  HttpResponse response;
  response.status = status;
  response.headers.emplace_back("Content-Type", std::move(content_type));
  response.body = std::move(body);
  return response;
}

HttpResponse HttpResponse::problem(int status, std::string_view title, std::string_view detail) {
  std::string body = R"({"type":"about:blank","title":)";
  append_json_string(body, title);
  body += fmt::format(R"(,"status":{},"detail":)", status);
  append_json_string(body, detail);
  body += "}\n";
  return text(status, std::move(body), "application/problem+json");
}

bool is_sendable(const HttpHeaders& headers) {
  for (const auto& [name, value] : headers) {
    if (!http1::is_token(name) || !http1::is_field_value(value)) return false;
  }
  return true;
}

void append_response_head(std::string& out, int status, const HttpHeaders& headers, std::string_view date) {
  fmt::format_to(std::back_inserter(out), "HTTP/1.1 {} {}\r\nDate: {}\r\n", status, http1::reason_phrase(status), date);
  for (const auto& [name, value] : headers) {
    out.append(name).append(": ").append(value).append("\r\n");
  }
}

}  // namespace tidegate
