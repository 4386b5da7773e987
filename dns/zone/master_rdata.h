// SPDX-License-Identifier: Apache-2.0
// The parts of a record as a master file writes them, turned into wire form.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dns/wire/wire.h"
#include "dns/zone/master_lexer.h"

namespace tidegate::dns {

// Appends a domain name in wire form, its case kept: "@", a name below `origin`, or an absolute one. False: malformed.
bool append_name_text(std::string_view text, const Name& origin, std::vector<uint8_t>& out);

// Seconds: a number, or BIND's "1h30m". 2^31 and above is 0 (RFC 2181 §8). Nothing: malformed, or beyond 32 bits.
std::optional<uint32_t> parse_ttl(std::string_view text);

// 0: no type that a zone can hold (RFC 6895 §3.1: those that only questions and messages have are none).
uint16_t parse_type(std::string_view text);

// Appends the data that `tokens` write for the type. Empty, or what is wrong; `wrong` is then the index of the token at
// fault, or beyond them all if one is missing. Common types are read here, the others by ldns; `\#` writes any (RFC
// 3597 §5), and for a type that ldns knows it must be what ldns would read.
std::string append_rdata(uint16_t type, std::span<const MasterToken> tokens, const Name& origin,
                         std::vector<uint8_t>& out, size_t& wrong);

}  // namespace tidegate::dns
