// SPDX-License-Identifier: Apache-2.0
// Faults: everything that is wrong with a document, each with its place. One run finds all of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tidegate {

struct Fault {
  std::string code;     // "unknown_key", "out_of_range", "no_such_name", "duplicate_name", "syntax", ...
  std::string pointer;  // JSON pointer (RFC 6901): "/pools/0/backends/1/weight"
  std::string file;
  uint32_t line = 0, column = 0;  // 1-based; the column counts characters; 0 if unknown
  std::string detail;             // what is wrong: "weight is 70000"
  std::string expected;           // "0 to 65535"
  std::string hint;               // "did you mean 'weight'?"
};

// Formats faults for people:
//    edge.yaml:12:7: weight is 70000; expected 0 to 65535
//      12 |       wieght: 70000
//         |       ^~~~~~
//    hint: did you mean 'weight'?
// `document` is the text to which the places refer. `colour` adds ANSI codes.
std::string render_faults(const std::vector<Fault>& faults, const std::string& document, bool colour);

}  // namespace tidegate
