// SPDX-License-Identifier: Apache-2.0
// Messages: request and response heads as the proxy handles them, the same for HTTP/1 and HTTP/2. Values of
// pseudo-header fields are members of their own. A field has its name in lower case and as it was spelt. Hop-by-hop
// fields are gone. The strings of a request live in the transaction's arena, those of a response in the backend
// connection's buffer. Nothing here allocates.
//
// Sources: RFC 9110 §7.6.1 (hop-by-hop fields), RFC 9113 §8.2, §8.3 (HTTP/2 fields), RFC 9112 §3.2 (targets).
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string_view>
#include <type_traits>

#include "core/http1.h"
#include "l7/wire/arena.h"

namespace tidegate::l7 {

// The fields that the proxy treats specially.
enum class FieldKind : uint8_t {
  other,
  connection,  // hop-by-hop; names further hop-by-hop fields
  hop_by_hop,  // keep-alive, proxy-connection, te, trailer, transfer-encoding, upgrade, http2-settings
  content_length,
  host,
  expect,
  cookie,
  date,
  via,
  x_request_id,
  x_forwarded_for,
  x_forwarded_proto,
  x_forwarded_host,
  forwarding,  // any other x-forwarded-*, forwarded, x-real-ip, x-original-url, x-rewrite-url
};
FieldKind classify_field(std::string_view lower_name);

// Every registered field name consists of these bytes: letters, digits and '-'.
constexpr bool is_name_char(char c) { return (c >= 'a' && c <= 'z') || c == '-' || (c >= '0' && c <= '9'); }
inline bool is_odd_name(std::string_view lower_name) {
  return !std::all_of(lower_name.begin(), lower_name.end(), is_name_char);
}

struct Http2Field;
enum class PseudoName : uint8_t;

struct Field {
  std::string_view name;  // lower case
  std::string_view value;
  FieldKind kind = FieldKind::other;
  bool odd_name = false;        // set only for requests: the name has a byte that is_name_char() refuses
  std::string_view spelt = {};  // the name as HTTP/1 peers get it; empty: the same as `name`

  std::string_view written_name() const { return spelt.empty() ? name : spelt; }
};

class FieldList {
 public:
  // A list has several kilobytes, and every request has two. So only the fields in use are written or copied.
  FieldList() {}
  FieldList(const FieldList& other) { *this = other; }
  FieldList& operator=(const FieldList& other) {
    if (this != &other) std::uninitialized_copy(other.begin(), other.end(), fields_);
    count_ = other.count_;
    return *this;
  }
  bool add(const Field& field) {
    if (count_ == kRoom) return false;
    std::construct_at(&fields_[count_++], field);
    return true;
  }
  void clear() { count_ = 0; }
  size_t size() const { return count_; }
  const Field* begin() const { return fields_; }
  const Field* end() const { return fields_ + count_; }
  const Field* find(std::string_view lower_name) const;
  const Field* find(FieldKind kind) const;
  void remove_named(std::string_view lower_name);
  // Lets `change` edit each field. It returns whether the field stays.
  template <class Change>
  void change_each(Change change) {
    size_t kept = 0;
    for (size_t i = 0; i < count_; ++i) {
      if (!change(fields_[i])) continue;
      if (kept != i) fields_[kept] = fields_[i];
      ++kept;
    }
    count_ = kept;
  }
  // Adds a field of the proxy itself. `spelt` is a literal, spelt as in the field's specification.
  bool add_own(std::string_view spelt, std::string_view lower_name, std::string_view value, FieldKind kind) {
    return add({lower_name, value, kind, false, spelt});
  }

 private:
  // A message may come with kMaxFields; the rest is for the fields that the proxy adds.
  static constexpr size_t kRoom = http1::kMaxFields + 32;
  union {
    Field fields_[kRoom];  // the first count_ exist
  };
  size_t count_ = 0;
};
static_assert(std::is_trivially_destructible_v<Field>);

// Fields in an arena.
struct FieldSpan {
  const Field* fields = nullptr;
  size_t count = 0;
  const Field* begin() const { return fields; }
  const Field* end() const { return fields + count; }
  size_t size() const { return count; }
};

// The fields of a trailer section (RFC 9110 §6.5) that the proxy passes on, at most kTrailerFields. The fields and
// their texts are in an arena, so a copy is cheap. It is valid as long as the arena.
class Trailers {
 public:
  // Returns false if there are too many.
  bool add(Arena& arena, const Field& field);
  bool empty() const { return count_ == 0; }
  size_t size() const { return count_; }
  const Field* begin() const { return fields_; }
  const Field* end() const { return fields_ + count_; }

 private:
  Field* fields_ = nullptr;
  size_t count_ = 0;
};
// Returns false for fields that frame, route, authenticate or describe the message. A trailer section must not have
// them (RFC 9110 §6.5.1), and they are dropped.
bool may_be_trailer(std::string_view lower_name, FieldKind kind);
// Copies the lines of a checked trailer section (http1::ChunkedDecoder::trailers). Returns false if there are too many.
bool trailers_from_http1(std::string_view lines, Arena& arena, Trailers& out);

enum class HttpVersion : uint8_t { http10, http11, http2 };
const char* name(HttpVersion version);  // "HTTP/1.1", as in logs

enum class BodyKind : uint8_t {
  none,
  known,    // content_length bytes
  unknown,  // the sender marks the end
  tunnel,   // after 101: bytes both ways until either side closes
};

struct RequestHead {
  RequestHead() {}  // not defaulted, because that would write the whole array of `fields`
  std::string_view method;
  std::string_view authority;  // as received, but without an empty port; empty: HTTP/1.0 without Host
  std::string_view host;       // lower case, without port
  std::string_view path;       // normalised; the cache and the backend get it; routes use path_for_routes() of it
  std::string_view query;      // without '?'
  bool has_query = false;      // distinguishes "/a?" from "/a"
  std::string_view upgrade;  // the protocol that Upgrade, or :protocol, names; empty: none (Transaction::take_upgrade)
  FieldList fields;          // end-to-end, in order
  HttpVersion version = HttpVersion::http11;
  BodyKind body = BodyKind::none;
  uint64_t content_length = 0;
  bool expect_continue = false;
  bool takes_trailers = false;  // TE: trailers
  // The client used CONNECT with :protocol (RFC 8441). `method` is GET, as in an HTTP/1 request for the same.
  bool extended_connect = false;

  void clear() { *this = RequestHead(); }
  bool is_head() const { return method == "HEAD"; }
  // RFC 9110 §9.2.2
  bool is_idempotent() const;
};

struct ResponseHead {
  ResponseHead() {}  // not defaulted, for the same reason as RequestHead()
  uint16_t status = 0;
  std::string_view reason;  // the reason phrase of HTTP/1; empty: the registered one
  FieldList fields;         // end-to-end, without content-length; with upgrade if the status is 426 (§15.5.22)
  BodyKind body = BodyKind::none;
  uint64_t content_length = 0;
  bool has_content_length = false;  // also set for HEAD and 304, where no body follows
};

// Why a message is refused although its framing is right. Each fault is a row of message_faults.def.
enum class MessageFault : uint8_t {
#define MESSAGE_FAULT(name, status, sentence) name,
#include "l7/wire/message_faults.def"
#undef MESSAGE_FAULT
  count_,
};
struct MessageFaultInfo {
  const char* name;      // the counter's label, and "reason" in the log
  uint16_t status;       // status of the refusal
  const char* sentence;  // text for the client
};
const MessageFaultInfo& info(MessageFault fault);
inline const char* name(MessageFault fault) { return info(fault).name; }

// Copies a parsed HTTP/1 head into the arena.
MessageFault request_from_http1(const http1::Head& head, Arena& arena, RequestHead& out);

// Copies one field of an HTTP/2 trailer section.
MessageFault trailer_from_http2(const Http2Field& field, Arena& arena, Trailers& out);

// Builds a request from the fields of an HTTP/2 header block. finish() checks the whole request (RFC 9113 §8.3.1).
class Http2RequestBuilder {
 public:
  // Takes at most `max_fields`. They are counted as for HTTP/1: `:authority` counts as Host, and all Cookie fields are
  // one.
  void start(Arena& arena, RequestHead& out, size_t max_bytes, size_t max_fields);
  MessageFault add(const Http2Field& field);
  MessageFault finish(bool end_of_stream);
  // The target as it was received, for the log of a refused request. It may be empty.
  std::string_view target() const { return target_; }

 private:
  MessageFault add_pseudo(const Http2Field& field);
  std::string_view* pseudo_slot(PseudoName name);
  struct Crumb {
    std::string_view value;
    Crumb* next;
  };
  void keep_crumb(std::string_view value);
  std::string_view join_crumbs() const;
  Arena* arena_ = nullptr;
  RequestHead* out_ = nullptr;
  size_t max_bytes_ = 0, max_fields_ = 0;
  size_t bytes_ = 0, fields_ = 0;
  std::string_view scheme_, target_, protocol_, host_field_;
  Crumb* crumbs_ = nullptr;  // in the order in which they came, in the arena
  Crumb* last_crumb_ = nullptr;
  size_t cookie_bytes_ = 0;  // bytes of all crumbs, joined
  bool ordinary_seen_ = false;
  bool length_seen_ = false;
};

// Normalises a path as RFC 3986 §6.2.2 allows, so that the route is chosen by the path that the backend sees: decodes
// %-encoded unreserved characters, writes other escapes in upper case, and removes dot segments, also encoded ones. If
// nothing changes, the result is a view of `path`. If the path is refused, the result is empty. '\\' and dot segments
// with parameters ("/..;a/") are refused too, because some backends read them as "/" and "/../".
std::string_view normalise_path(std::string_view path, Arena& arena);

// The path by which routes are matched: the normalised path, in which several slashes in a row count as one. If there
// are none, the result is a view of `path`.
std::string_view path_for_routes(std::string_view path, bool merge_slashes, Arena& arena);

// Makes a ResponseHead of a backend's head. Its fields are views of the backend's buffer. `to_head`: the request's
// method was HEAD.
MessageFault response_from_http1(const http1::Head& head, bool to_head, Arena& arena, ResponseHead& out);

// "a.test:" becomes "a.test", which means the same (RFC 3986 §6.2.3).
std::string_view without_empty_port(std::string_view authority);

// Whether the text is one protocol as in Upgrade: a token, possibly with a version (RFC 9110 §7.8).
bool is_upgrade_protocol(std::string_view text);

// The host in lower case, without port and final dot. Empty if it is malformed or has an empty label. "[::1]:80" gives
// "[::1]".
std::string_view host_of_authority(std::string_view authority, Arena& arena);

}  // namespace tidegate::l7
