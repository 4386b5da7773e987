// SPDX-License-Identifier: Apache-2.0
// Huffman's code of HPACK (RFC 7541 §5.2 and appendix B), for texts that are received.
#pragma once

#include <cstddef>
#include <string_view>

namespace tidegate::l7::hpack {

// Room that decode_huffman() needs for `coded_bytes`: the shortest code has five bits, and two bytes are written at a
// time.
constexpr size_t huffman_room(size_t coded_bytes) { return coded_bytes * 8 / 5 + 2; }

// Writes the text at `out` and returns its end. Null: `coded` has the end of the string in it, or its last byte is not
// filled with ones, or more than seven bits are left.
char* decode_huffman(std::string_view coded, char* out);

}  // namespace tidegate::l7::hpack
