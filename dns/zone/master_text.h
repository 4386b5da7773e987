// SPDX-License-Identifier: Apache-2.0
// Writes records in the form of a master file. Reading this text gives the same bytes again.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace tidegate::dns {

// "A", "TYPE65280".
std::string type_to_text(uint16_t type);

// A name from wire form in the form of a file: absolute, with the final dot.
std::string owner_to_text(std::span<const uint8_t> wire_name);

// The data in presentation form, with absolute names. If ldns cannot write the data so that reading gives the same, the
// form of RFC 3597 §5 is used.
std::string rdata_to_text(uint16_t type, std::span<const uint8_t> rdata);

}  // namespace tidegate::dns
