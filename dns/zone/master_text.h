// SPDX-License-Identifier: Apache-2.0
// Records as a master file writes them. What is written here is read back as the same bytes.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace tidegate::dns {

// "A", "TYPE65280".
std::string type_to_text(uint16_t type);

// A name in wire form as a file has it: absolute, with the final dot.
std::string owner_to_text(std::span<const uint8_t> wire_name);

// The data in presentation form, its names absolute. What ldns cannot write so that it is read back alike is written by
// RFC 3597 §5.
std::string rdata_to_text(uint16_t type, std::span<const uint8_t> rdata);

}  // namespace tidegate::dns
