// SPDX-License-Identifier: Apache-2.0
// Stickiness: a token that names a backend. The client sends it back in a cookie or a field. It is signed with the
// site's secret: each proxy of the site accepts it, and nobody else can make one. It reveals nothing about the backend
// except that it is the same one. Pure.
//
// Form: expiry (hex, seconds of the epoch) "." server (16 hex) "." signature (32 hex).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "conf/model/pool_parts.h"
#include "l7/backend/pool.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

// The value of one cookie in a Cookie field (RFC 6265 §4.2.1); empty if it is not there.
std::string_view cookie_of(std::string_view field, std::string_view name);

std::string sticky_token(const HashKey& key, const BackendPool& pool, const PoolMember& member, uint64_t expiry_s);
// The member that a token names. Null if the token is forged, expired, or of another pool, or if the server is gone.
const PoolMember* sticky_member(const HashKey& key, const BackendPool& pool, std::string_view token, uint64_t now_s);

// The client's token; empty if it sent none.
std::string_view token_of_request(const PoolSticky& sticky, const RequestHead& request);

// The value for the client: of Set-Cookie, or of the field.
std::string sticky_field(const PoolSticky& sticky, std::string_view token, bool secure);
// The time for which a new token is valid.
uint64_t sticky_seconds(const PoolSticky& sticky);

}  // namespace tidegate::l7
