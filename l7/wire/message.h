// SPDX-License-Identifier: Apache-2.0
// Messages: request and response heads as the proxy handles them, the same for HTTP/1 and HTTP/2: pseudo-header values
// apart, field names in lower case and beside that as they were spelt, hop-by-hop fields gone. Strings live in the
// transaction's arena (requests) or in the backend connection's buffer (responses); nothing here allocates.
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

// Fields that the proxy itself knows something about.
enum class FieldKind : uint8_t {
  other,
  connection,  // hop-by-hop, nominates others
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

// Letters, digits and '-': the bytes of every field name that is registered.
inline bool is_name_char(char c) { return (c >= 'a' && c <= 'z') || c == '-' || (c >= '0' && c <= '9'); }
inline bool is_odd_name(std::string_view lower_name) {
  return !std::all_of(lower_name.begin(), lower_name.end(), is_name_char);
}

struct Field {
  std::string_view name;  // lower case
  std::string_view value;
  FieldKind kind = FieldKind::other;
  bool odd_name = false;        // of a request: it has other bytes than is_name_char()'s
  std::string_view spelt = {};  // the name as HTTP/1 gets it; empty: same as `name`

  std::string_view written_name() const { return spelt.empty() ? name : spelt; }
};

class FieldList {
 public:
  // Only what is in use is ever written or copied: a list is several kilobytes, and every request has two.
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
  // Adds a field of the proxy itself. `spelt` is a literal, spelt as in the field's specification.
  bool add_own(std::string_view spelt, std::string_view lower_name, std::string_view value, FieldKind kind) {
    return add({lower_name, value, kind, false, spelt});
  }

 private:
  // Room for what the proxy adds to a message that came with as many as are taken.
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

// The fields of a trailer section (RFC 9110 §6.5) that may pass, at most kTrailerFields. Fields and texts lie in an
// arena: a copy is cheap and lives as long.
class Trailers {
 public:
  // False: there are too many.
  bool add(Arena& arena, const Field& field);
  bool empty() const { return count_ == 0; }
  size_t size() const { return count_; }
  const Field* begin() const { return fields_; }
  const Field* end() const { return fields_ + count_; }

 private:
  Field* fields_ = nullptr;
  size_t count_ = 0;
};
// RFC 9110 §6.5.1: trailers do not carry what frames, routes, authenticates or describes the message. Such fields are
// dropped.
bool may_be_trailer(std::string_view lower_name, FieldKind kind);
// Takes the lines of a checked trailer section over (http1::ChunkedDecoder::trailers). False: there are too many.
bool trailers_from_http1(std::string_view lines, Arena& arena, Trailers& out);

enum class HttpVersion : uint8_t { http10, http11, http2 };
const char* name(HttpVersion version);  // "HTTP/1.1", as in logs

enum class BodyKind : uint8_t {
  none,
  known,    // content_length bytes
  unknown,  // until its end is said
  tunnel,   // after 101: bytes both ways until either side closes
};

struct RequestHead {
  RequestHead() {}  // not defaulted: that would write all the room of `fields`
  std::string_view method;
  std::string_view authority;  // as received, but without an empty port; empty: HTTP/1.0 without Host
  std::string_view host;       // lower case, without port
  std::string_view path;       // normalised: what is cached and forwarded, and routed by path_for_routes()
  std::string_view query;      // without '?'
  bool has_query = false;      // tells "/a?" from "/a"
  std::string_view upgrade;    // protocol asked for by Upgrade; empty: none
  FieldList fields;            // end-to-end, in order
  HttpVersion version = HttpVersion::http11;
  BodyKind body = BodyKind::none;
  uint64_t content_length = 0;
  bool expect_continue = false;
  bool takes_trailers = false;  // TE: trailers

  void clear() { *this = RequestHead(); }
  bool is_head() const { return method == "HEAD"; }
  // RFC 9110 §9.2.2
  bool is_idempotent() const;
};

struct ResponseHead {
  ResponseHead() {}  // as RequestHead()
  uint16_t status = 0;
  std::string_view reason;  // HTTP/1's phrase; empty: the registered one
  FieldList fields;         // end-to-end, without content-length; of 426 also upgrade (RFC 9110 §15.5.22)
  BodyKind body = BodyKind::none;
  uint64_t content_length = 0;
  bool has_content_length = false;  // also for HEAD and 304, where no body follows
};

// Why a well-framed message is refused. Each fault is a row of message_faults.def.
enum class MessageFault : uint8_t {
#define MESSAGE_FAULT(name, status, sentence) name,
#include "l7/wire/message_faults.def"
#undef MESSAGE_FAULT
  count_,
};
struct MessageFaultInfo {
  const char* name;      // the counter's label, and "reason" in the log
  uint16_t status;       // of the refusal
  const char* sentence;  // to the client
};
const MessageFaultInfo& info(MessageFault fault);
inline const char* name(MessageFault fault) { return info(fault).name; }

// Takes a parsed HTTP/1 head over into the arena.
MessageFault request_from_http1(const http1::Head& head, Arena& arena, RequestHead& out);

// Takes one field of an HTTP/2 trailer section over.
MessageFault trailer_from_http2(std::string_view name, std::string_view value, Arena& arena, Trailers& out);

// Takes an HTTP/2 header block field by field; finish() checks the whole (RFC 9113 §8.3.1).
class Http2RequestBuilder {
 public:
  // At most `max_fields`, counted as HTTP/1 counts them: `:authority` stands for Host, and Cookie is one field.
  void start(Arena& arena, RequestHead& out, size_t max_bytes, size_t max_fields);
  MessageFault add(std::string_view name, std::string_view value);
  MessageFault finish(bool end_of_stream);
  // The target as received, for the log of a refused request. May be empty.
  std::string_view target() const { return target_; }

 private:
  MessageFault add_pseudo(std::string_view name, std::string_view value);
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
  std::string_view scheme_, target_, host_field_;
  Crumb* crumbs_ = nullptr;  // in the order in which they came, in the arena
  Crumb* last_crumb_ = nullptr;
  size_t cookie_bytes_ = 0;  // of all crumbs, joined
  bool ordinary_seen_ = false;
  bool length_seen_ = false;
};

// Normalises a path as RFC 3986 §6.2.2 allows: %-encoded unreserved characters decoded, other escapes in upper case,
// dot segments removed (also encoded ones), so that what is routed is what the backend sees. Returns a view of `path`
// itself when there is nothing to do. Empty for one that is refused: also '\\' and dot segments with parameters
// ("/..;a/"), which some backends resolve as "/" and "/../".
std::string_view normalise_path(std::string_view path, Arena& arena);

// The path that routes are matched by: a normalised path, with each run of slashes read as one. Itself when it has
// none.
std::string_view path_for_routes(std::string_view path, bool merge_slashes, Arena& arena);

// Takes a backend's head over; fields still borrow its buffer. `to_head`: the request's method was HEAD.
MessageFault response_from_http1(const http1::Head& head, bool to_head, Arena& arena, ResponseHead& out);

// "a.test:" becomes "a.test", which means the same (RFC 3986 §6.2.3).
std::string_view without_empty_port(std::string_view authority);

// Host without port and final dot, lower case; empty when malformed, or when a label is empty. "[::1]:80" gives
// "[::1]".
std::string_view host_of_authority(std::string_view authority, Arena& arena);

}  // namespace tidegate::l7
