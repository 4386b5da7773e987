// SPDX-License-Identifier: Apache-2.0
#include "l7/observe/asked_request.h"

#include <fmt/format.h>

#include <memory>

namespace tidegate::l7 {
namespace {

// The path and the query as the URL has them.
std::string_view raw_target(std::string_view url) {
  url = url.substr(0, url.find('#'));
  url.remove_prefix(url.find("://") + 3);
  const size_t start = url.find_first_of("/?");
  return start == std::string_view::npos ? std::string_view("/") : url.substr(start);
}

// Adds the given fields. They must not be fields that frame the message.
Result<void> add_given_fields(std::string_view lines, std::string& text) {
  while (!lines.empty()) {
    const std::string_view line = lines.substr(0, lines.find('\n'));
    lines.remove_prefix(std::min(lines.size(), line.size() + 1));
    const std::string_view name = line.substr(0, line.find(':'));
    if (line.empty() || name.size() == line.size()) return fail("headers: expected lines 'Name: value'");
    for (const std::string_view fixed : {"host", "content-length", "transfer-encoding"}) {
      if (!http1::equals_ignore_case(name, fixed)) continue;
      return fail(fmt::format("headers: {} follows from the url and the size of the body", fixed));
    }
    text += fmt::format("{}\r\n", line);
  }
  return {};
}

}  // namespace

Result<void> read_asked_request(const HttpRequest& question, const Url& url, const http1::Limits& limits, Arena& arena,
                                AskedRequest& out) {
  const std::string method = question.parameter("method").value_or("GET");
  const std::string url_text = question.parameter("url").value_or("");
  const std::string_view target = raw_target(url_text);
  out.text = fmt::format("{} {}{} HTTP/1.1\r\nHost: {}\r\n", method, target.front() == '?' ? "/" : "", target,
                         url.request.authority);
  if (Result<void> added = add_given_fields(question.parameter("headers").value_or(""), out.text); !added) return added;
  if (const std::optional<std::string> body = question.parameter("body")) {
    out.text += fmt::format("Content-Length: {}\r\n", *body);
  }
  out.text += "\r\n";
  const auto head = std::make_unique<http1::Head>();
  size_t scanned = 0;
  const http1::ParseResult parsed = http1::parse_request(out.text, limits, scanned, *head);
  if (parsed.status == http1::Status::error) {
    const http1::FaultInfo& fault = http1::fault_info(parsed.fault);
    out.refused_status = static_cast<uint16_t>(fault.status);
    out.refused_as = fault.name;
    return {};
  }
  if (parsed.status != http1::Status::complete || parsed.consumed != out.text.size()) {
    return fail("method, headers: they do not make one request");
  }
  if (const MessageFault fault = request_from_http1(*head, arena, out.request); fault != MessageFault::none) {
    out.refused_status = info(fault).status;
    out.refused_as = info(fault).name;
  }
  return {};
}

}  // namespace tidegate::l7
