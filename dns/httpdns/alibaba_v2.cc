// SPDX-License-Identifier: Apache-2.0
#include "dns/httpdns/alibaba_v2.h"

#include <algorithm>

#include "conf/model.h"
#include "conf/model/httpdns.h"
#include "core/aes.h"
#include "core/crypto.h"
#include "dns/httpdns/account.h"
#include "dns/httpdns/flat_json.h"
#include "dns/httpdns/parameters.h"
#include "dns/httpdns/resolve.h"
#include "dns/limits.h"

namespace tidegate::dns {
namespace {

constexpr std::string_view kSigned[] = {"id", "m", "dn", "cip", "q", "enc", "exp", "tags", "v"};
constexpr size_t kUsualAnswerBytes = 512;
constexpr std::string_view kSoftwareDefined = "sdns-";  // a client's own parameters

bool is_signed_name(std::string_view name) {
  return name.substr(0, kSoftwareDefined.size()) == kSoftwareDefined ||
         std::find(std::begin(kSigned), std::end(kSigned), name) != std::end(kSigned);
}

std::string sign(const Parameters& parameters, std::string_view secret) {
  std::string text;
  text.reserve(256);
  for (const auto& [name, value] : parameters) {
    if (value.empty() || !is_signed_name(name)) continue;
    if (!text.empty()) text += '&';
    text.append(name).append(1, '=').append(value);
  }
  const std::optional<std::string> key = hex_decode(secret);
  const Sha256 digest = hmac_sha256(key ? std::string_view(*key) : secret, text);
  return hex_encode({reinterpret_cast<const char*>(digest.data()), digest.size()});
}

HttpDnsError check_signature(const Parameters& parameters, const HttpDnsAccount& account, uint64_t now_s) {
  const std::string_view signature = value_of(parameters, "s");
  if (signature.empty()) return account.allow_unsigned ? HttpDnsError::none : HttpDnsError::unsigned_interface_disabled;
  const std::string_view expiry = value_of(parameters, "exp");
  if (expiry.empty()) return HttpDnsError::missing_argument;
  if (const HttpDnsError error = check_expiry(expiry, now_s); error != HttpDnsError::none) return error;
  const bool equal = any_secret(
      account, [&](std::string_view secret) { return equal_constant_time(sign(parameters, secret), signature); });
  return equal ? HttpDnsError::none : HttpDnsError::invalid_signature;
}

// The encryption of the parameters: m=0, 1 or 2.
struct Mode {
  char digit = '0';
  AesMode cipher = AesMode::cbc;
  bool sealed() const { return digit != '0'; }
};

std::optional<Mode> parse_mode(std::string_view text) {
  if (text.empty() || text == "0") return Mode{};
  if (text == "1") return Mode{'1', AesMode::cbc};
  if (text == "2") return Mode{'2', AesMode::gcm};
  return std::nullopt;
}

// The code for a result without addresses.
const char* code_of(Resolved::Kind kind) {
  return kind == Resolved::Kind::no_data  ? "RRNotExist"
         : kind == Resolved::Kind::failed ? "ServerFailure"
                                          : "DomainNotExist";
}

// "dn" with "v4":{...} and "v6":{...} of one host. Returns false if it is not a host name.
bool append_host(std::string_view host, const IpAddress& client, const Families& families,
                 const HttpDnsContext& context, std::string& out) {
  out.append("{\"dn\":\"").append(host).append("\"");
  for (const bool v6 : {false, true}) {
    if (!(v6 ? families.v6 : families.v4)) continue;
    const Resolved found = resolve_host(host, v6 ? rrtype::kAaaa : rrtype::kA, client, context);
    if (found.kind == Resolved::Kind::malformed) return false;
    out.append(v6 ? ",\"v6\":{\"ips\":[" : ",\"v4\":{\"ips\":[").append(json_members(found.addresses));
    out.append("],\"ttl\":").append(std::to_string(found.ttl_s)).append(",\"extra\":\"\"");
    if (found.addresses.empty()) out.append(",\"no_ip_code\":\"").append(code_of(found.kind)).append("\"");
    out.append("}");
  }
  out.append("}");
  return true;
}

// Decrypts the parameters into `opened`.
HttpDnsError open_parameters(const Parameters& outer, const Mode& mode, std::string_view key, Parameters& opened) {
  if (key.size() != kAes128KeyBytes) return HttpDnsError::invalid_mode;
  const std::string_view enc = value_of(outer, "enc");
  if (enc.empty()) return HttpDnsError::missing_argument;
  const std::optional<std::string> bytes = hex_decode(enc);
  const std::optional<std::string> plain = bytes ? aes128_open(mode.cipher, key, *bytes) : std::nullopt;
  auto members = plain ? parse_flat_json(*plain) : std::nullopt;
  if (!members) return HttpDnsError::decryption_failed;
  opened = *std::move(members);
  return HttpDnsError::none;
}

}  // namespace

std::string httpdns_v2_signature(std::string_view query, std::string_view secret) {
  return sign(parse_parameters(query), secret);
}

HttpDnsAnswer answer_httpdns_v2(const HttpRequest& request, const HttpDnsContext& context) {
  if (request.method != "GET") return refuse_httpdns(HttpDnsError::method_not_allowed);
  const Parameters outer = parse_parameters(request.query);
  const std::string_view id = value_of(outer, "id");
  if (id.empty()) return refuse_httpdns(HttpDnsError::missing_argument);
  if (!is_host(id)) return refuse_httpdns(HttpDnsError::invalid_account);
  const HttpDnsAccount* account = find_account(context.model(), id);
  if (account == nullptr) return refuse_httpdns(HttpDnsError::account_not_exists);
  const std::optional<Mode> mode = parse_mode(value_of(outer, "m"));
  if (!mode) return refuse_httpdns(HttpDnsError::invalid_mode);
  HttpDnsError error = check_signature(outer, *account, context.now_s);
  const std::string key = hex_decode(account->aes_key).value_or("");
  Parameters opened;
  if (error == HttpDnsError::none && mode->sealed()) error = open_parameters(outer, *mode, key, opened);
  if (error != HttpDnsError::none) return refuse_httpdns(error);
  const Parameters& inner = mode->sealed() ? opened : outer;
  const std::string_view list = value_of(inner, "dn");
  if (list.empty()) return refuse_httpdns(HttpDnsError::missing_argument);
  const auto hosts = split_list(list);
  if (hosts.size() > kMaxBatchHosts) return refuse_httpdns(HttpDnsError::too_many_hosts);
  IpAddress located = context.client.address;
  if (const std::string_view cip = value_of(inner, "cip"); !cip.empty()) {
    const auto address = IpAddress::parse(cip);
    if (!address) return refuse_httpdns(HttpDnsError::invalid_client_ip);
    located = address->unmapped();
  }
  if (error = take_of_account(context, *account, hosts.size()); error != HttpDnsError::none) {
    return refuse_httpdns(error);
  }
  const Families families = wanted_families(value_of(inner, "q"));
  std::string data;
  data.reserve(kUsualAnswerBytes);
  data.append("{\"cip\":\"").append(located.to_string()).append("\",\"answers\":[");
  for (const std::string_view host : hosts) {
    if (data.back() == '}') data.push_back(',');
    if (!append_host(host, located, families, context, data)) return refuse_httpdns(HttpDnsError::invalid_host);
  }
  data.append("]}");
  if (mode->sealed()) data = "\"" + base64_encode(aes128_seal(mode->cipher, key, data)) + "\"";
  std::string body;
  body.reserve(data.size() + 64);
  body.append("{\"code\":\"success\",\"mode\":\"").append(1, mode->digit).append("\",\"data\":");
  return {HttpDnsError::none, std::move(body.append(data).append("}"))};
}

}  // namespace tidegate::dns
