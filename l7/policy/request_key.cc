// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/request_key.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "conf/limits.h"
#include "conf/model.h"
#include "conf/model/policy.h"
#include "conf/model/pool.h"
#include "l7/exchange/exchange.h"
#include "l7/exchange/sticky.h"
#include "l7/policy/claims.h"
#include "l7/wire/arena.h"

namespace tidegate::l7::policy {
namespace {

// One text, number or truth value. A list or an object identifies nobody.
std::string_view claim_of(const Subject& subject, const std::string& wanted, Arena& arena) {
  if (subject.claims.empty()) return {};
  const std::optional<JsonView> claim = find_claim(subject.claims, wanted, arena);
  if (!claim || claim->kind == JsonView::Kind::object || claim->kind == JsonView::Kind::array) return {};
  if (claim->kind == JsonView::Kind::string) return json_text(*claim, arena).value_or(std::string_view());
  return claim->text == "null" ? std::string_view() : claim->text;
}

std::string_view cookie_in(const FieldList& fields, const std::string& wanted) {
  for (const Field& field : fields) {
    if (field.kind != FieldKind::cookie) continue;
    if (const std::string_view value = cookie_of(field.value, wanted); !value.empty()) return value;
  }
  return {};
}

// True if every request has this property. A client may leave out any other one, and is then counted by its address.
bool always_known(LimitBy::What what) {
  return what == LimitBy::What::route || what == LimitBy::What::host || what == LimitBy::What::pool;
}

}  // namespace

RequestKey::RequestKey(const std::vector<LimitBy>& by, uint8_t prefix_v4, uint8_t prefix_v6, const HashKey& key)
    : by_(by),
      by_client_alone_(by.size() == 1 && by[0].what == LimitBy::What::client),
      mask_v4_(Cidr::of(IpAddress::v4(UINT32_MAX), std::min<uint8_t>(prefix_v4, 32)).base.v4_be()),
      prefix_v6_(prefix_v6),
      key_(key) {}

RequestKey::RequestKey(const std::vector<LimitBy>& by, uint8_t prefix_v4, uint8_t prefix_v6, Compiling& out)
    : RequestKey(by, prefix_v4, prefix_v6, out.key) {
  const auto is_country = [](const LimitBy& each) { return each.what == LimitBy::What::country; };
  if (out.model == nullptr || std::none_of(by_.begin(), by_.end(), is_country)) return;
  out.reads_files = true;
  place_files_ = place_files(out.model->geo, out.registry);
  places_ = place_files_->read(out.model->geo);
}

// Each part is written with its length, so that no two lists of parts have the same bytes.
uint64_t RequestKey::of(const Subject& subject, const std::optional<IpAddress>& address, Arena& arena) const {
  if (by_client_alone_ && address) return of_client(*address);
  std::array<std::string_view, kLimitByMost> parts;
  const size_t count = std::min(by_.size(), kLimitByMost);
  char client[sizeof(IpAddress::bytes) + 1];
  const std::string_view client_part = address ? client_bytes(*address, client) : subject.client;
  const std::string country = places_ != nullptr && address ? places_->of(*address).country : std::string();
  size_t bytes = 0;
  for (size_t i = 0; i < count; ++i) {
    parts[i] = by_[i].what == LimitBy::What::client    ? client_part
               : by_[i].what == LimitBy::What::country ? std::string_view(country)
                                                       : value_of(by_[i], subject, arena);
    if (parts[i].empty() && !always_known(by_[i].what)) parts[i] = client_part;
    bytes += sizeof(uint32_t) + parts[i].size();
  }
  char* const text = arena.allocate(bytes);
  char* end = text;
  for (size_t i = 0; i < count; ++i) {
    const auto length = static_cast<uint32_t>(parts[i].size());
    std::memcpy(end, &length, sizeof(length));
    end = std::copy(parts[i].begin(), parts[i].end(), end + sizeof(length));
  }
  const uint64_t key = siphash13(key_, text, bytes);
  arena.shrink(bytes);
  return key;
}

// The key of most limits: the same bytes as of() writes for one part, without an arena.
uint64_t RequestKey::of_client(const IpAddress& address) const {
  char text[sizeof(uint32_t) + sizeof(IpAddress::bytes) + 1];
  const auto length = static_cast<uint32_t>(client_bytes(address, text + sizeof(uint32_t)).size());
  std::memcpy(text, &length, sizeof(length));
  return siphash13(key_, text, sizeof(length) + length);
}

// The family, then the network: the part of an address that distinguishes clients.
std::string_view RequestKey::client_bytes(const IpAddress& address, char* out) const {
  out[0] = static_cast<char>(address.family);
  if (address.is_v4()) {
    uint32_t bits = 0;
    std::memcpy(&bits, address.bytes.data(), sizeof(bits));
    bits &= mask_v4_;
    std::memcpy(out + 1, &bits, sizeof(bits));
    return {out, sizeof(bits) + 1};
  }
  std::memcpy(out + 1, address.bytes.data(), address.bytes.size());
  if (prefix_v6_ < address.max_prefix()) {
    const IpAddress base = Cidr::of(address, prefix_v6_).base;
    std::memcpy(out + 1, base.bytes.data(), base.bytes.size());
  }
  return {out, address.bytes.size() + 1};
}

std::string_view value_of(const LimitBy& by, const Subject& subject, Arena& arena) {
  switch (by.what) {
    case LimitBy::What::client:
      return subject.client;
    case LimitBy::What::country:  // only a RequestKey has the databases
      return {};
    case LimitBy::What::route:
      return subject.route;
    case LimitBy::What::host:
      return subject.request.host;
    case LimitBy::What::pool:
      return subject.pool;
    case LimitBy::What::identity:
      return subject.identity;
    case LimitBy::What::header: {
      const Field* const field = subject.request.fields.find(by.name);
      return field == nullptr ? std::string_view() : field->value;
    }
    case LimitBy::What::cookie:
      return cookie_in(subject.request.fields, by.name);
    case LimitBy::What::claim:
      return claim_of(subject, by.name, arena);
  }
  return {};
}

Subject subject_of(const Exchange& exchange) {
  return {exchange.request,
          exchange.client_address,
          exchange.route == nullptr ? std::string_view() : exchange.route->name,
          exchange.policies.identity.name,
          &exchange.parameters,
          exchange.policies.identity.claims,
          exchange.route == nullptr || exchange.route->pool() == kNone
              ? std::string_view()
              : exchange.plan->plan().model().pools[exchange.route->pool()].name};
}

bool is_in(const std::vector<Cidr>& networks, const std::optional<IpAddress>& address) {
  return address &&
         std::any_of(networks.begin(), networks.end(), [&](const Cidr& network) { return network.contains(*address); });
}

}  // namespace tidegate::l7::policy
