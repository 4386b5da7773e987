// SPDX-License-Identifier: Apache-2.0
#include "control/acme/messages.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <ctime>
#include <nlohmann/json.hpp>

#include "conf/limits.h"
#include "control/api/json_bounds.h"
#include "control/limits.h"

namespace tidegate::acme {

using nlohmann::json;

namespace {

constexpr size_t kMaxUrlBytes = 2'048;
constexpr std::string_view kErrorPrefix = "urn:ietf:params:acme:error:";

// A URL is sent unchanged, so it must not contain anything that ends a line.
bool is_url(const std::string& text) {
  return text.starts_with("https://") && text.size() > 8 && text.size() <= kMaxUrlBytes &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

Result<json> parse_object(std::string_view body, const char* what) {
  Result<json> parsed = parse_json(body);
  if (!parsed) return fail(fmt::format("the {} is not JSON: {}", what, parsed.error().message));
  if (!parsed->is_object()) return fail(fmt::format("the {} is no JSON object", what));
  return parsed;
}

std::string printable(std::string text) {
  if (text.size() > kMaxProblemBytes) text.resize(kMaxProblemBytes);
  for (char& c : text) {
    if (c < ' ' || c == 0x7f) c = ' ';
  }
  return text;
}

Problem problem_of(const json& object) {
  Problem problem;
  const std::string type = string_member(object, "type");
  if (type.starts_with(kErrorPrefix)) problem.type = printable(type.substr(kErrorPrefix.size()));
  problem.detail = printable(string_member(object, "detail"));
  // RFC 8555 §6.7.1: among several, the first one is the most useful.
  const auto more = object.find("subproblems");
  if (more != object.end() && more->is_array() && !more->empty() && more->front().is_object()) {
    const std::string first = printable(string_member(more->front(), "detail"));
    if (!first.empty()) problem.detail += " (" + first + ")";
  }
  return problem;
}

std::string error_of(const json& object) {
  const auto error = object.find("error");
  return error != object.end() && error->is_object() ? sentence(problem_of(*error)) : std::string();
}

// RFC 8555 §8.3: base64url of at least 128 bits.
bool is_token(const std::string& token) {
  return !token.empty() && token.size() <= kMaxAcmeTokenBytes && std::all_of(token.begin(), token.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  });
}

std::optional<OrderStatus> order_status(const std::string& word) {
  constexpr std::pair<std::string_view, OrderStatus> kWords[] = {{"pending", OrderStatus::pending},
                                                                 {"ready", OrderStatus::ready},
                                                                 {"processing", OrderStatus::processing},
                                                                 {"valid", OrderStatus::valid},
                                                                 {"invalid", OrderStatus::invalid}};
  for (const auto& [text, status] : kWords) {
    if (word == text) return status;
  }
  return std::nullopt;
}

}  // namespace

Result<Directory> parse_directory(std::string_view body) {
  const Result<json> object = parse_object(body, "directory");
  if (!object) return object.error();
  Directory directory;
  for (const auto& [key, url] :
       {std::pair("newNonce", &directory.new_nonce), std::pair("newAccount", &directory.new_account),
        std::pair("newOrder", &directory.new_order)}) {
    *url = string_member(*object, key);
    if (!is_url(*url)) return fail(fmt::format("the directory has no usable {}", key));
  }
  directory.renewal_info = string_member(*object, "renewalInfo");
  if (!is_url(directory.renewal_info)) directory.renewal_info.clear();
  const auto meta = object->find("meta");
  if (meta != object->end() && meta->is_object()) {
    directory.external_account_required = bool_member(*meta, "externalAccountRequired");
  }
  return directory;
}

Result<Order> parse_order(std::string_view body) {
  const Result<json> object = parse_object(body, "order");
  if (!object) return object.error();
  Order order;
  const std::string status = string_member(*object, "status");
  const std::optional<OrderStatus> known = order_status(status);
  if (!known) return fail("the order has an unknown status");
  order.status = *known;
  order.finalize = string_member(*object, "finalize");
  if (!is_url(order.finalize)) return fail("the order has no usable finalize");
  order.certificate = string_member(*object, "certificate");
  if (order.status == OrderStatus::valid && !is_url(order.certificate)) return fail("the order has no certificate");
  const auto list = object->find("authorizations");
  if (list == object->end() || !list->is_array()) return fail("the order has no authorizations");
  if (list->size() > kMaxOrderedNames) return fail("the order has too many authorizations");
  for (const json& url : *list) {
    if (!url.is_string() || !is_url(url.get_ref<const std::string&>())) {
      return fail("an authorization of the order has no usable URL");
    }
    order.authorizations.push_back(url.get<std::string>());
  }
  order.error = error_of(*object);
  return order;
}

Result<Authorization> parse_authorization(std::string_view body) {
  const Result<json> object = parse_object(body, "authorization");
  if (!object) return object.error();
  Authorization authorization;
  const std::string status = string_member(*object, "status");
  authorization.status = status == "pending" ? AuthorizationStatus::pending
                         : status == "valid" ? AuthorizationStatus::valid
                                             : AuthorizationStatus::invalid;
  const auto identifier = object->find("identifier");
  if (identifier == object->end() || string_member(*identifier, "type") != "dns") {
    return fail("the authorization is for no DNS name");
  }
  authorization.name = string_member(*identifier, "value");
  authorization.wildcard = bool_member(*object, "wildcard");
  const auto list = object->find("challenges");
  if (list == object->end() || !list->is_array()) return fail("the authorization has no challenges");
  for (const json& entry : *list) {
    if (authorization.challenges.size() == kMaxAcmeChallenges) break;
    Challenge challenge{string_member(entry, "type"), string_member(entry, "url"), string_member(entry, "token"),
                        string_member(entry, "status") == "invalid",
                        entry.is_object() ? error_of(entry) : std::string()};
    if (is_url(challenge.url) && is_token(challenge.token)) authorization.challenges.push_back(std::move(challenge));
  }
  return authorization;
}

Problem parse_problem(int status, std::string_view body) {
  Problem problem;
  if (const Result<json> object = parse_json(body); object && object->is_object()) problem = problem_of(*object);
  if (problem.type.empty() && problem.detail.empty()) problem.detail = fmt::format("status {}", status);
  return problem;
}

std::string sentence(const Problem& problem) {
  if (problem.type.empty()) return problem.detail;
  return problem.detail.empty() ? problem.type : problem.type + ": " + problem.detail;
}

std::optional<uint64_t> parse_retry_after_s(std::string_view value, int64_t now_s) {
  uint64_t seconds = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), seconds);
  if (error == std::errc() && end == value.data() + value.size()) return seconds;
  const time_t date = curl_getdate(std::string(value).c_str(), nullptr);
  if (date < 0) return std::nullopt;
  return date > now_s ? static_cast<uint64_t>(date - now_s) : 0;
}

namespace {

// RFC 3339, in the form that authorities use.
std::optional<int64_t> parse_time(const std::string& text) {
  tm utc{};
  const char* rest = ::strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &utc);
  if (rest == nullptr) return std::nullopt;
  if (*rest == '.') {
    for (++rest; *rest >= '0' && *rest <= '9';) ++rest;
  }
  if (std::string_view(rest) == "Z" || std::string_view(rest) == "+00:00") return ::timegm(&utc);
  return std::nullopt;
}

}  // namespace

Result<RenewalInfo> parse_renewal_info(std::string_view body) {
  const Result<json> object = parse_object(body, "renewal information");
  if (!object) return object.error();
  const auto window = object->find("suggestedWindow");
  if (window == object->end() || !window->is_object()) return fail("the renewal information has no window");
  const std::optional<int64_t> start = parse_time(string_member(*window, "start"));
  const std::optional<int64_t> end = parse_time(string_member(*window, "end"));
  if (!start || !end || *end < *start) return fail("the window of the renewal information is no span of time");
  return RenewalInfo{*start, *end};
}

}  // namespace tidegate::acme
