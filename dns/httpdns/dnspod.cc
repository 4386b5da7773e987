// SPDX-License-Identifier: Apache-2.0
#include "dns/httpdns/dnspod.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "conf/model.h"
#include "conf/model/httpdns.h"
#include "core/aes.h"
#include "core/crypto.h"
#include "core/des.h"
#include "dns/httpdns/account.h"
#include "dns/httpdns/parameters.h"
#include "dns/httpdns/resolve.h"
#include "dns/limits.h"

namespace tidegate::dns {
namespace {

// The encryption of dn and ip in a request, and of the answer.
struct Seal {
  enum class Kind : uint8_t { none, des, aes } kind = Kind::none;
  std::string key;

  std::optional<std::string> open(std::string_view text) const {
    if (kind == Kind::none) return std::string(text);
    const std::optional<std::string> bytes = hex_decode(text);
    if (!bytes) return std::nullopt;
    return kind == Kind::des ? des_open(key, *bytes) : aes128_open(AesMode::cbc, key, *bytes);
  }
  std::string close(std::string text) const {
    if (kind == Kind::none) return text;
    return hex_encode(kind == Kind::des ? des_seal(key, text) : aes128_seal(AesMode::cbc, key, text));
  }
};

// The content of the parameters, after decryption.
struct Question {
  const HttpDnsAccount* account = nullptr;
  Seal seal;
  std::string hosts;  // as a list
  IpAddress client;
  Families families;
  bool with_ttl = false, with_host = false, with_client = false;
};

const HttpDnsAccount* find_by_token(const Model& model, std::string_view token) {
  const HttpDnsAccount* found = nullptr;
  for (const HttpDnsAccount& account : model.httpdns_accounts) {
    for (const std::string& own : account.tokens) {
      if (equal_constant_time(own, token)) found = &account;
    }
  }
  return found;
}

HttpDnsError choose_seal(std::string_view alg, Question& question) {
  if (alg.empty() || alg == "des") {
    question.seal = {Seal::Kind::des, question.account->des_key};
    return question.seal.key.size() == kDesKeyBytes ? HttpDnsError::none : HttpDnsError::invalid_mode;
  }
  if (alg != "aes") return HttpDnsError::invalid_mode;
  question.seal = {Seal::Kind::aes, hex_decode(question.account->aes_key).value_or("")};
  return question.seal.key.size() == kAes128KeyBytes ? HttpDnsError::none : HttpDnsError::invalid_mode;
}

// Finds the account by the token, or by `id`. An account that is found by `id` must have encrypted the names, or be
// allowed to ask without encryption.
HttpDnsError identify(const Parameters& parameters, const Model& model, Question& question) {
  const std::string_view token = value_of(parameters, "token"), id = value_of(parameters, "id");
  if (!token.empty()) {
    question.account = find_by_token(model, token);
    if (question.account == nullptr) return HttpDnsError::invalid_token;
    return id.empty() || id == question.account->id ? HttpDnsError::none : HttpDnsError::invalid_account;
  }
  if (id.empty()) return HttpDnsError::missing_argument;
  if (!is_host(id)) return HttpDnsError::invalid_account;
  question.account = find_account(model, id);
  if (question.account == nullptr) return HttpDnsError::account_not_exists;
  // A host name of the Internet has a dot, and hexadecimal digits have none.
  if (value_of(parameters, "dn").find('.') == std::string_view::npos) {
    return choose_seal(value_of(parameters, "alg"), question);
  }
  return question.account->allow_unsigned ? HttpDnsError::none : HttpDnsError::unsigned_interface_disabled;
}

bool are_hosts(std::string_view list) {
  const auto hosts = split_list(list);
  return std::all_of(hosts.begin(), hosts.end(), is_host);
}

HttpDnsError read_client(std::string_view ip, Question& question) {
  if (ip.empty()) return HttpDnsError::none;
  const bool plain = ip.find_first_of(".:") != std::string_view::npos;
  const std::optional<std::string> text = plain ? std::string(ip) : question.seal.open(ip);
  const auto address = text ? IpAddress::parse(*text) : std::nullopt;
  if (!address) return HttpDnsError::invalid_client_ip;
  question.client = address->unmapped();
  return HttpDnsError::none;
}

Families families_of(std::string_view type) {
  if (type == "aaaa" || type == "AAAA") return {false, true};
  if (type == "addrs" || type == "ADDRS") return {true, true};
  return {};
}

HttpDnsError read_question(const Parameters& parameters, const Model& model, Question& question) {
  if (value_of(parameters, "dn").empty()) return HttpDnsError::missing_argument;
  if (const HttpDnsError error = identify(parameters, model, question); error != HttpDnsError::none) return error;
  const auto hosts = question.seal.open(value_of(parameters, "dn"));
  // All effects of a wrong key get the same refusal. So an attacker learns nothing about the padding.
  const bool sealed = question.seal.kind != Seal::Kind::none;
  if (!hosts || (sealed && !are_hosts(*hosts))) return HttpDnsError::decryption_failed;
  if (!are_hosts(*hosts)) return HttpDnsError::invalid_host;
  question.hosts = *hosts;
  question.families = families_of(value_of(parameters, "type"));
  question.with_ttl = value_of(parameters, "ttl") == "1";
  question.with_host = value_of(parameters, "query") == "1";
  question.with_client = value_of(parameters, "clientip") == "1";
  return read_client(value_of(parameters, "ip"), question);
}

// "192.0.2.1;192.0.2.2,60", or "0".
std::string text_of(const Resolved& resolved, bool with_ttl) {
  if (resolved.addresses.empty()) return "0";
  std::string text;
  for (const IpAddress& address : resolved.addresses) text += (text.empty() ? "" : ";") + address.to_string();
  return with_ttl ? fmt::format("{},{}", text, resolved.ttl_s) : text;
}

// The addresses of one host in the families asked for: "192.0.2.1,60-2001:db8::1,60".
std::string answer_host(std::string_view host, const Question& question, const HttpDnsContext& context) {
  std::string text;
  for (const uint16_t type : {rrtype::kA, rrtype::kAaaa}) {
    if (!(type == rrtype::kA ? question.families.v4 : question.families.v6)) continue;
    const Resolved resolved = resolve_host(host, type, question.client, context);
    text += (text.empty() ? "" : "-") + text_of(resolved, question.with_ttl);
  }
  return text;
}

std::string answer_question(const std::vector<std::string_view>& hosts, const Question& question,
                            const HttpDnsContext& context) {
  const bool named = hosts.size() > 1 || question.with_host;
  std::string lines;
  for (const std::string_view host : hosts) {
    const std::string addresses = answer_host(host, question, context);
    if (!named && addresses == "0") return "";  // for one host and family, no addresses are written as an empty text
    if (named) lines += fmt::format("{}{}{}:", lines.empty() ? "" : "\n", host, host.back() == '.' ? "" : ".");
    lines += addresses;
  }
  if (question.with_client) lines += "|" + question.client.to_string();
  return lines;
}

}  // namespace

HttpDnsAnswer refuse_dnspod(HttpDnsError error) { return {error, info(error).code}; }

HttpDnsAnswer answer_dnspod(const HttpRequest& request, const HttpDnsContext& context) {
  if (request.method != "GET" && request.method != "POST") return refuse_dnspod(HttpDnsError::not_implemented);
  const std::string form = request.method == "POST" ? "&" + request.body : "";
  Question question;
  question.client = context.client.address;
  HttpDnsError error = read_question(parse_parameters(request.query + form), context.model(), question);
  if (error != HttpDnsError::none) return refuse_dnspod(error);
  const auto hosts = split_list(question.hosts);
  if (hosts.size() > kMaxDnspodHosts) return refuse_dnspod(HttpDnsError::too_many_hosts);
  if (error = take_of_account(context, *question.account, hosts.size()); error != HttpDnsError::none) {
    return refuse_dnspod(error);
  }
  return {HttpDnsError::none, question.seal.close(answer_question(hosts, question, context))};
}

}  // namespace tidegate::dns
