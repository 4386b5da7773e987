// SPDX-License-Identifier: Apache-2.0
// Turns the parts of a record in a master file into wire form.
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

// Appends a domain name in wire form, with its case: "@", a name below `origin`, or an absolute one. Returns false if
// it is malformed.
bool append_name_text(std::string_view text, const Name& origin, std::vector<uint8_t>& out);

// Seconds: a number, or BIND's "1h30m". 2^31 and above becomes 0 (RFC 2181 §8). Nothing if it is malformed, or beyond
// 32 bits.
std::optional<uint32_t> parse_ttl(std::string_view text);

// 0 if a zone cannot have the type (RFC 6895 §3.1: not those that only questions and messages may have).
uint16_t parse_type(std::string_view text);

// Appends the data in `tokens` for the type. Returns an empty text, or the fault. After a fault `wrong` is the index of
// the faulty token, or past the last one if a token is missing. Common types are read here, the others by ldns. `\#`
// can write any type (RFC 3597 §5). If ldns knows the type, the bytes must be valid to ldns.
std::string append_rdata(uint16_t type, std::span<const MasterToken> tokens, const Name& origin,
                         std::vector<uint8_t>& out, size_t& wrong);

}  // namespace tidegate::dns
