// SPDX-License-Identifier: Apache-2.0
#include "l4/probe/order.h"

#include <fmt/format.h>

#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>

#include "conf/probe_bounds.h"

namespace tidegate::l4 {
namespace {

static_assert(kMaxProbeTargets == kMaxVipProbeTargets, "a version that is in force can be probed");
static_assert(kMaxProbeReply == kVipProbeReplyBytes);

using nlohmann::json;

constexpr uint64_t kLongestProbeMs = 5 * 60'000;  // like the key `timeout` of a probe

std::optional<std::string> bytes_of_hex(std::string_view hex) {
  if (hex.size() % 2 != 0) return std::nullopt;
  const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; };
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) {
    const int high = digit(hex[i]), low = digit(hex[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(high << 4 | low));
  }
  return bytes;
}

std::string hex_of_bytes(std::string_view bytes) {
  std::string hex;
  for (const char c : bytes) fmt::format_to(std::back_inserter(hex), "{:02x}", static_cast<uint8_t>(c));
  return hex;
}

const std::string* text_of(const json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() ? nullptr : found->get_ptr<const std::string*>();
}

// The number with this key. Nothing if there is none, or if it is not a whole number within the bounds.
std::optional<uint64_t> number_of(const json& object, const char* key, uint64_t least, uint64_t most) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number_unsigned()) return std::nullopt;
  const auto number = found->get<uint64_t>();
  return number >= least && number <= most ? std::optional(number) : std::nullopt;
}

Result<void> read_targets(const json& order, std::vector<Endpoint>& targets) {
  const auto list = order.find("targets");
  if (list == order.end() || !list->is_array() || list->empty() || list->size() > kMaxProbeTargets) {
    return fail(fmt::format("targets: expected a list of 1 to {}", kMaxProbeTargets));
  }
  for (const json& entry : *list) {
    const std::string* const vip = entry.is_object() ? text_of(entry, "vip") : nullptr;
    const std::optional<IpAddress> address = vip == nullptr ? std::nullopt : IpAddress::parse(*vip);
    const std::optional<uint64_t> port = entry.is_object() ? number_of(entry, "port", 1, 65'535) : std::nullopt;
    if (!address || !port) return fail("targets: expected an address as vip, and a port");
    targets.push_back({*address, static_cast<uint16_t>(*port)});
  }
  return {};
}

}  // namespace

Result<ProbeRequest> read_probe_request(std::string_view body) {
  const json order = json::parse(body, nullptr, false);
  if (!order.is_object()) return fail("expected a JSON object");
  ProbeRequest request;
  const std::string* const pool = text_of(order, "pool");
  const std::string* const backend = text_of(order, "backend");
  const std::string* const protocol = text_of(order, "protocol");
  if (pool == nullptr || backend == nullptr) return fail("pool, backend: expected names");
  if (protocol == nullptr || (*protocol != "tcp" && *protocol != "udp")) return fail("protocol: expected tcp or udp");
  request.pool = *pool;
  request.backend = *backend;
  request.protocol = *protocol == "udp" ? kProtocolUdp : kProtocolTcp;
  const std::optional<uint64_t> timeout_ms = number_of(order, "timeout_ms", 1, kLongestProbeMs);
  if (!timeout_ms) return fail(fmt::format("timeout_ms: expected 1 to {}", kLongestProbeMs));
  request.timeout_ms = *timeout_ms;
  if (order.contains("payload")) {
    const std::string* const hex = text_of(order, "payload");
    const std::optional<std::string> payload = hex == nullptr ? std::nullopt : bytes_of_hex(*hex);
    if (!payload || payload->size() > kMaxProbePayload || request.protocol == kProtocolTcp) {
      return fail(fmt::format("payload: expected at most {} bytes for udp, in hexadecimal", kMaxProbePayload));
    }
    request.payload = *payload;
  }
  if (Result<void> read = read_targets(order, request.targets); !read) return read.error();
  return request;
}

std::string write_probe_results(const std::vector<ProbeResultLine>& results) {
  json list = json::array();
  for (const ProbeResultLine& each : results) {
    list.push_back({{"vip", each.target.address.to_string()},
                    {"port", each.target.port},
                    {"end", std::string(name(each.end))},
                    {"why", std::string(sentence(each.end))},
                    {"reply", hex_of_bytes(each.reply)}});
  }
  return json{{"results", std::move(list)}}.dump();
}

}  // namespace tidegate::l4
