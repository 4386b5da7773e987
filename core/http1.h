// SPDX-License-Identifier: Apache-2.0
// HTTP/1 on the wire (RFC 9112). It is pure: bytes in, views and decisions out. The proxy, HTTPDNS and the API share
// it.
//
// It is strict: if RFC 9112 allows a recipient to refuse a message, it is refused and never repaired (bare LF or CR,
// obs-fold, space before the colon, doubled or conflicting framing, control bytes). Two readers that repair differently
// make request smuggling possible. It accepts what all readers understand alike: a status line without a reason phrase
// and the space before it, statuses up to 999, an empty port.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tidegate::http1 {

// A field line. The views borrow the buffer that was parsed.
struct Field {
  std::string_view name;   // as received
  std::string_view value;  // without surrounding white space
};

// Why a message was refused. Each fault is also a counter and, for a request, a response status: see http1_faults.def.
enum class Fault : uint8_t {
#define FAULT(name, status, sentence) name,
#include "core/http1_faults.def"
#undef FAULT
  count_,
};

struct FaultInfo {
  const char* name;      // counter label: "space_before_colon"
  int status;            // 400, 414, 417, 431, 501, 505
  const char* sentence;  // detail of the problem+json answer
};
const FaultInfo& fault_info(Fault fault);

struct Limits {
  size_t head_bytes = 32 * 1024;
  size_t target_bytes = 8 * 1024;
  size_t fields = 100;
  size_t chunk_line_bytes = 256;             // the size and the extensions of one chunk
  size_t chunk_extension_bytes = 16 * 1024;  // all extensions of one body
  size_t trailer_bytes = 8 * 1024;
};

constexpr size_t kMaxFields = 500;  // upper bound of Limits::fields

enum class Framing : uint8_t { none, length, chunked, until_close };

// Room for the fields of a head. It is some kilobytes large and most heads have few fields, so it is not initialised.
class FieldRoom {
 public:
  FieldRoom() {}
  Field& operator[](size_t index) { return fields_[index]; }
  const Field& operator[](size_t index) const { return fields_[index]; }
  const Field* data() const { return fields_; }

 private:
  union {
    Field fields_[kMaxFields];
  };
};

// A parsed request or response head. It is reused between messages. Nothing in it allocates.
struct Head {
  // Requests:
  std::string_view method;
  std::string_view target;  // as received
  // path of an origin-form target without the query; "*" for asterisk-form; empty for authority-form
  std::string_view path;
  std::string_view query;      // what follows '?'
  std::string_view authority;  // of an absolute-form target, which wins (RFC 9112 §3.2.2); else Host
  // Responses:
  uint16_t status = 0;
  std::string_view reason;
  // Both:
  uint8_t minor_version = 1;  // HTTP/1.<minor>
  FieldRoom fields;           // the first field_count are written
  size_t field_count = 0;
  Framing framing = Framing::none;
  uint64_t content_length = 0;   // set if the framing is by length
  bool keep_alive = true;        // decided from Connection and the version
  bool expect_continue = false;  // Expect: 100-continue, before content or a tunnel
  bool upgrade = false;          // Connection: upgrade together with an Upgrade field

  const Field* begin() const { return fields.data(); }
  const Field* end() const { return fields.data() + field_count; }
  // The first field of that name; its case does not matter. `lower_name` must be in lower case.
  const Field* find(std::string_view lower_name) const;
};

enum class Status : uint8_t { incomplete, complete, error };

struct ParseResult {
  Status status = Status::incomplete;
  size_t consumed = 0;  // bytes of the head, if complete
  Fault fault = Fault::none;
};

// Parses from the first byte of a message. For a request, up to kMaxLeadingLines leading CRLFs are skipped (§2.2). Call
// it again from the start when more bytes have come. `scanned` (0 for a new message) remembers how far the search for
// the end went, so all calls together cost O(n). The views in `head` are valid only if the head is complete, and only
// as long as the bytes of `buffer`.
constexpr size_t kMaxLeadingLines = 8;
ParseResult parse_request(std::string_view buffer, const Limits& limits, size_t& scanned, Head& head);
// `to_head`: the request was HEAD, so no body follows.
ParseResult parse_response(std::string_view buffer, const Limits& limits, size_t& scanned, bool to_head, Head& head);

// Removes the chunked framing from a body (RFC 9112 §7.1), in place and incrementally. Trailers are checked and kept
// until the decoder is replaced.
class ChunkedDecoder {
 public:
  explicit ChunkedDecoder(const Limits& limits = {}) : limits_(limits) {}
  struct Step {
    Status status = Status::incomplete;  // complete: the last chunk and the trailers were consumed
    size_t consumed = 0;                 // bytes taken from the input
    std::string_view data;               // body bytes among the consumed ones (possibly none), a view into the input
    Fault fault = Fault::none;
  };
  // Call it again with the rest of the input until it consumes nothing or is complete.
  Step decode(std::string_view input);
  // Once complete: the lines of the trailer section, each with its CRLF. At most Limits::trailer_bytes.
  std::string_view trailers() const { return trailers_; }

 private:
  enum class State : uint8_t {
    size,  // the first digit of a chunk size
    size_digits,
    extension,
    line_lf,  // the LF after a size or its extensions
    data,
    data_cr,
    data_lf,
    trailer_start,
    trailer_name,
    trailer_value,
    trailer_lf,
    end_lf,
    done,
  };
  Fault step_chunk_line(char c);
  Fault step_trailer(char c);

  Limits limits_;
  State state_ = State::size;
  uint64_t remaining_ = 0;      // data bytes left in this chunk
  size_t line_bytes_ = 0;       // bytes of this chunk's size line so far
  size_t extension_bytes_ = 0;  // bytes of all extensions so far
  size_t trailer_bytes_ = 0;
  std::string trailers_;
};

// Writes "1a2b\r\n" into `out` (at least 18 bytes) and returns its length. "\r\n" must follow the data, and "0\r\n\r\n"
// the body.
size_t encode_chunk_header(uint64_t bytes, char* out);

bool is_token(std::string_view text);  // RFC 9110 §5.6.2
// uri-host [ ":" port ] (RFC 9110 §7.2, RFC 3986 §3.2). An empty port means no port (§3.2.3). Some forms of
// the grammar are refused: an empty host (RFC 9110 §4.2.1), user information (§4.2.4), escapes and IPvFuture.
// `port_required`: as in CONNECT, where the port may not be empty either.
bool is_authority(std::string_view text, bool port_required = false);
bool is_field_value(std::string_view text);  // no control bytes except HTAB (RFC 9110 §5.5); may be empty
bool equals_ignore_case(std::string_view a, std::string_view b);
// Calls fn(element) for each non-empty element of a comma-separated list. A comma in a quoted string does not separate.
template <class Fn>
void for_each_element(std::string_view list, Fn&& fn) {
  size_t start = 0;
  bool quoted = false;
  for (size_t i = 0; i <= list.size(); ++i) {
    if (i < list.size() && quoted) {
      if (list[i] == '\\' && i + 1 < list.size())
        ++i;
      else if (list[i] == '"')
        quoted = false;
      continue;
    }
    if (i < list.size() && list[i] == '"') quoted = true;
    if (i < list.size() && list[i] != ',') continue;
    std::string_view element = list.substr(start, std::min(i, list.size()) - start);
    while (!element.empty() && (element.front() == ' ' || element.front() == '\t')) element.remove_prefix(1);
    while (!element.empty() && (element.back() == ' ' || element.back() == '\t')) element.remove_suffix(1);
    if (!element.empty()) fn(element);
    start = i + 1;
  }
}

std::string_view reason_phrase(int status);
// The first value of `name` in a query string, decoded.
std::optional<std::string> query_parameter(std::string_view query, std::string_view name);

}  // namespace tidegate::http1
