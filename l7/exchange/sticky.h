// SPDX-License-Identifier: Apache-2.0
// Stickiness: a token that names a backend, which the client sends back in a cookie or a field of its own. It is signed
// with the site's secret: each proxy of the site accepts it, and nobody else can make one. It tells nothing about the
// backend but that it is the same. Pure.
//
// Form: expiry (hex, seconds of the epoch) "." server (16 hex) "." signature (32 hex).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "l7/backend/pool.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

// The value of one cookie in a Cookie field (RFC 6265 §4.2.1); empty: it is not there.
std::string_view cookie_of(std::string_view field, std::string_view name);

std::string sticky_token(const HashKey& key, const BackendPool& pool, const PoolMember& member, uint64_t expiry_s);
// The member that a token names; null: it is forged, of another pool, over, or of a server that is gone.
const PoolMember* sticky_member(const HashKey& key, const BackendPool& pool, std::string_view token, uint64_t now_s);

// The client's token; empty: it sent none.
std::string_view token_of_request(const PoolSticky& sticky, const RequestHead& request);

// What a client is told: the value of Set-Cookie, or of the field.
std::string sticky_field(const PoolSticky& sticky, std::string_view token, bool secure);
// How long a new token is good.
uint64_t sticky_seconds(const PoolSticky& sticky);

}  // namespace tidegate::l7
