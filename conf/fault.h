// SPDX-License-Identifier: Apache-2.0
// Faults: the mistakes in a document, each with its place. One run finds all of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
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
  // The text of the line, if it is in another file that the document names. Not set: the line is in the document.
  std::optional<std::string> line_text = std::nullopt;
};

// After this many faults comes one last fault, "too_many", and further ones are dropped. Nobody reads more, and memory
// stays bounded.
constexpr size_t kMaxFaults = 1'000;
constexpr size_t kMaxShownLineBytes = 1'000;  // maximum length of Fault::line_text

// Adds a fault within that bound. Returns false if no more faults are kept.
bool add_fault(std::vector<Fault>& faults, Fault fault);

// The column in characters, which people count, for a column in bytes of a line in UTF-8. Both begin at 1.
uint32_t shown_column(std::string_view line, uint32_t byte_column);

// The faults in one line, for a log or a status: "zones/a.zone:3:9: not an IPv4 address (and 2 more faults)". `faults`
// is not empty.
std::string summary_of(const std::vector<Fault>& faults);

// The faults as text for people:
//    edge.yaml:12:7: weight is 70000; expected 0 to 65535
//      12 |       wieght: 70000
//         |       ^~~~~~
//    hint: did you mean 'weight'?
// `document` is the text to which the places refer, except those in other files. `colour` adds ANSI codes.
std::string render_faults(const std::vector<Fault>& faults, const std::string& document, bool colour);

}  // namespace tidegate
