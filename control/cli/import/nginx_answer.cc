// SPDX-License-Identifier: Apache-2.0
// What `return` of nginx answers.

#include <fmt/format.h>

#include "control/cli/import/nginx_settings.h"

namespace tidegate::cli {
namespace {

using nlohmann::json;

void replace_all(std::string& text, std::string_view what, std::string_view by) {
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + by.size()))
    text.replace(at, what.size(), by);
}

}  // namespace

Result<json> nginx_answer(const NginxDirective& directive, const std::vector<std::string>& hosts) {
  const std::optional<uint64_t> status = number_of(argument_of(directive));
  const std::string text = argument_of(directive, status ? 1 : 0);
  const bool redirects =
      !status || (*status >= 301 && *status <= 308 && *status != 304 && *status != 305 && *status != 306);
  if (status == 444) return fail("a connection is not closed without an answer; the route answers 403");
  if (status && (*status < 200 || *status > 599)) return fail("this status cannot be an answer");
  std::string to = text;
  if (redirects) {
    replace_all(to, "$uri$is_args$args", "{path}");
    replace_all(to, "$request_uri", "{path}");
    replace_all(to, "$http_host", "{authority}");
    replace_all(to, "$host", "{host}");
    replace_all(to, "$is_args$args", "{query}");
    if (hosts.size() == 1) replace_all(to, "$server_name", hosts.front());
    if (to.find("$uri") != std::string::npos) return fail("{path} of a redirect has the query with it");
  }
  if (to.find('$') != std::string::npos) return fail("an answer has no such variables");
  if (redirects && to.empty()) return fail("it leads nowhere");
  json route;
  if (redirects) route["redirect"] = to;
  if (status && (!redirects || *status != 302)) route["status"] = *status;
  if (!redirects && !text.empty() && *status != 204 && *status != 304) route["body"] = text;
  return route;
}

}  // namespace tidegate::cli
