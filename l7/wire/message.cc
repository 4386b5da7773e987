// SPDX-License-Identifier: Apache-2.0
#include "l7/wire/message.h"

#include <array>
#include <charconv>
#include <cstring>

#include "core/percent.h"
#include "l7/limits.h"

namespace tidegate::l7 {
namespace {

constexpr MessageFaultInfo kMessageFaults[] = {
#define MESSAGE_FAULT(name, status, sentence) {#name, status, sentence},
#include "l7/wire/message_faults.def"
#undef MESSAGE_FAULT
};
static_assert(std::size(kMessageFaults) == static_cast<size_t>(MessageFault::count_));

// Fields that say who sent a request, and which way it came. A Connection field cannot remove them.
bool is_identity(FieldKind kind) {
  return kind == FieldKind::via || kind == FieldKind::x_request_id || kind == FieldKind::x_forwarded_for ||
         kind == FieldKind::x_forwarded_proto || kind == FieldKind::x_forwarded_host || kind == FieldKind::forwarding;
}

// RFC 9110 §7.6.1: fields that Connection names are between its sender and us, so they are dropped. Fields of framing
// are not in the list any more. Fields of identity are kept, because the proxy and the backend rely on them.
class Nominations {
 public:
  // Returns false if there are more options than kConnectionOptions. Each one would cost a pass over all fields.
  bool add(std::string_view connection_value) {
    http1::for_each_element(connection_value, [this](std::string_view element) {
      if (count_ < options_.size()) options_[count_] = {element.data(), element.size()};
      ++count_;
    });
    return count_ <= options_.size();
  }

  void drop_from(FieldList& fields, Arena& arena) const {
    for (size_t i = 0; i < std::min(count_, options_.size()); ++i) {
      const std::string_view lower = arena.copy_lower({options_[i].data, options_[i].bytes});
      if (lower == "close" || lower == "keep-alive" || lower == "upgrade") continue;
      if (!is_identity(classify_field(lower))) fields.remove_named(lower);
    }
  }

 private:
  struct Option {
    const char* data;
    size_t bytes;
  };
  // the first count_ are set; the others are not cleared, because most messages have none
  std::array<Option, kConnectionOptions> options_;
  size_t count_ = 0;
};

// The name in lower case. Returns `name` itself if it is in lower case already.
std::string_view lower_of(std::string_view name, Arena& arena) {
  const bool has_upper = std::any_of(name.begin(), name.end(), [](char c) { return c >= 'A' && c <= 'Z'; });
  return has_upper ? arena.copy_lower(name) : name;
}

bool is_unreserved(int c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
         c == '_' || c == '~';
}

bool needs_normalising(std::string_view path) {
  if (std::memchr(path.data(), '%', path.size()) != nullptr) return true;
  if (std::memchr(path.data(), '\\', path.size()) != nullptr) return true;
  for (size_t i = 0; i + 1 < path.size(); ++i) {
    if (path[i] == '/' && path[i + 1] == '.') return true;
  }
  return false;
}

// Servlet containers remove parameters from a segment before they resolve it. So "..;a=b" means ".." there, but not
// here.
bool is_dotted_with_parameters(std::string_view segment) {
  const std::string_view name = segment.substr(0, segment.find(';'));
  return name.size() < segment.size() && (name == "." || name == "..");
}

// Decodes unreserved escapes into `out`. Returns its length, or 0 for a malformed or dangerous escape.
size_t decode_unreserved(std::string_view path, char* out) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  size_t n = 0;
  for (size_t i = 0; i < path.size(); ++i) {
    if (path[i] == '\\') return 0;  // not allowed in a URL (RFC 3986 §3.3); browsers and IIS read it as '/'
    if (path[i] != '%') {
      out[n++] = path[i];
      continue;
    }
    if (i + 2 >= path.size()) return 0;
    const int high = hex_digit(path[i + 1]), low = hex_digit(path[i + 2]);
    if (high < 0 || low < 0) return 0;
    const int value = high * 16 + low;
    if (value == 0) return 0;
    if (is_unreserved(value)) {
      out[n++] = static_cast<char>(value);
    } else {
      out[n++] = '%';
      out[n++] = kHex[high];
      out[n++] = kHex[low];
    }
    i += 2;
  }
  return n;
}

// RFC 3986 §5.2.4, in place. Returns the new length, or 0 if the path climbs above its root, or some backends would
// read it so.
size_t remove_dot_segments(char* path, size_t bytes) {
  size_t out = 0;
  for (size_t at = 0; at < bytes;) {
    size_t end = at + 1;  // path[at] is '/'
    while (end < bytes && path[end] != '/') ++end;
    const std::string_view segment(path + at + 1, end - at - 1);
    const bool last = end == bytes;
    if (segment == ".") {
      if (last) path[out++] = '/';
    } else if (segment == "..") {
      if (out == 0) return 0;
      while (path[--out] != '/') continue;
      if (last) path[out++] = '/';
    } else if (is_dotted_with_parameters(segment)) {
      return 0;
    } else {
      std::memmove(path + out, path + at, end - at);
      out += end - at;
    }
    at = end;
  }
  if (out == 0) path[out++] = '/';
  return out;
}

}  // namespace

const char* name(HttpVersion version) {
  switch (version) {
    case HttpVersion::http10:
      return "HTTP/1.0";
    case HttpVersion::http11:
      return "HTTP/1.1";
    case HttpVersion::http2:
      break;
  }
  return "HTTP/2";
}

const MessageFaultInfo& info(MessageFault fault) { return kMessageFaults[static_cast<size_t>(fault)]; }

FieldKind classify_field(std::string_view n) {
  // The switch has compared the sizes. So the rest is one comparison of a constant size.
  const auto is = [n]<size_t kBytes>(const char(&text)[kBytes]) {
    return std::memcmp(n.data(), text, kBytes - 1) == 0;
  };
  switch (n.size()) {
    case 2:
      return is("te") ? FieldKind::hop_by_hop : FieldKind::other;
    case 3:
      return is("via") ? FieldKind::via : FieldKind::other;
    case 4:
      return is("host") ? FieldKind::host : is("date") ? FieldKind::date : FieldKind::other;
    case 6:
      return is("cookie") ? FieldKind::cookie : is("expect") ? FieldKind::expect : FieldKind::other;
    case 7:
      return is("trailer") || is("upgrade") ? FieldKind::hop_by_hop : FieldKind::other;
    case 9:
      return is("x-real-ip") || is("forwarded") ? FieldKind::forwarding : FieldKind::other;
    case 10:
      if (is("connection")) return FieldKind::connection;
      return is("keep-alive") ? FieldKind::hop_by_hop : FieldKind::other;
    case 12:
      if (is("x-request-id")) return FieldKind::x_request_id;
      break;
    case 13:
      if (is("x-rewrite-url")) return FieldKind::forwarding;
      break;
    case 14:
      if (is("content-length")) return FieldKind::content_length;
      if (is("http2-settings")) return FieldKind::hop_by_hop;
      if (is("x-original-url")) return FieldKind::forwarding;
      break;
    case 15:
      if (is("x-forwarded-for")) return FieldKind::x_forwarded_for;
      break;
    case 16:
      if (is("proxy-connection")) return FieldKind::hop_by_hop;
      if (is("x-forwarded-host")) return FieldKind::x_forwarded_host;
      break;
    case 17:
      if (is("transfer-encoding")) return FieldKind::hop_by_hop;
      if (is("x-forwarded-proto")) return FieldKind::x_forwarded_proto;
      break;
    default:
      break;
  }
  return n.size() >= 12 && is("x-forwarded-") ? FieldKind::forwarding : FieldKind::other;
}

const Field* FieldList::find(std::string_view lower_name) const {
  for (const Field& field : *this) {
    if (field.name == lower_name) return &field;
  }
  return nullptr;
}

const Field* FieldList::find(FieldKind kind) const {
  for (const Field& field : *this) {
    if (field.kind == kind) return &field;
  }
  return nullptr;
}

void FieldList::remove_named(std::string_view lower_name) {
  change_each([lower_name](const Field& field) { return field.name != lower_name; });
}

bool RequestHead::is_idempotent() const {
  return method == "GET" || method == "HEAD" || method == "PUT" || method == "DELETE" || method == "OPTIONS" ||
         method == "TRACE";
}

std::string_view normalise_path(std::string_view path, Arena& arena) {
  if (!needs_normalising(path)) return path;
  char* out = arena.allocate(path.size() + 1);
  size_t bytes = decode_unreserved(path, out);
  if (bytes > 0) bytes = remove_dot_segments(out, bytes);
  return {out, bytes};
}

std::string_view path_for_routes(std::string_view path, bool merge_slashes, Arena& arena) {
  const size_t first = merge_slashes ? path.find("//") : std::string_view::npos;
  if (first == std::string_view::npos) return path;
  char* out = arena.allocate(path.size());
  size_t bytes = 0;
  for (size_t i = 0; i < path.size(); ++i) {
    if (path[i] != '/' || bytes == 0 || out[bytes - 1] != '/') out[bytes++] = path[i];
  }
  arena.shrink(path.size() - bytes);
  return {out, bytes};
}

std::string_view host_of_authority(std::string_view authority, Arena& arena) {
  size_t host_end;
  if (!authority.empty() && authority.front() == '[') {
    const size_t bracket = authority.find(']');
    if (bracket == std::string_view::npos) return {};
    host_end = bracket + 1;
  } else {
    host_end = std::min(authority.find(':'), authority.size());
  }
  const std::string_view port = authority.substr(host_end);
  if (!port.empty() && (port[0] != ':' || port.size() > 6)) return {};
  for (const char c : port.substr(std::min<size_t>(1, port.size()))) {
    if (c < '0' || c > '9') return {};
  }
  std::string_view host = authority.substr(0, host_end);
  for (const char c : host) {
    // The characters of a reg-name or an IP literal (RFC 3986 §3.2.2). User information is never accepted.
    if (!is_unreserved(c) && std::strchr("!$&'()*+,;=%[]:", c) == nullptr) return {};
  }
  if (host.size() > 1 && host.back() == '.') host.remove_suffix(1);  // the final dot of the root label
  // An empty label is not valid. A backend may ignore it, and then another route would have been the right one.
  if (host.starts_with('.') || host.ends_with('.') || host.find("..") != std::string_view::npos) return {};
  return arena.copy_lower(host);
}

std::string_view without_empty_port(std::string_view authority) {
  if (authority.ends_with(':')) authority.remove_suffix(1);
  return authority;
}

bool is_upgrade_protocol(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return http1::is_token(text);
  return http1::is_token(text.substr(0, slash)) && http1::is_token(text.substr(slash + 1));
}

MessageFault request_from_http1(const http1::Head& head, Arena& arena, RequestHead& out) {
  out.clear();
  out.version = head.minor_version == 0 ? HttpVersion::http10 : HttpVersion::http11;
  out.method = arena.copy(head.method);
  if (out.method == "CONNECT") return MessageFault::connect_method;
  out.authority = without_empty_port(arena.copy(head.authority));
  out.host = host_of_authority(out.authority, arena);
  if (out.host.empty() && !head.authority.empty()) return MessageFault::bad_host;
  out.path = normalise_path(arena.copy(head.path.empty() ? std::string_view("/") : head.path), arena);
  if (out.path.empty()) return MessageFault::bad_path;
  out.has_query = head.target.find('?') != std::string_view::npos;
  out.query = arena.copy(head.query);
  if (head.framing == http1::Framing::length) {
    out.body = head.content_length == 0 ? BodyKind::none : BodyKind::known;
    out.content_length = head.content_length;
  } else if (head.framing == http1::Framing::chunked) {
    out.body = BodyKind::unknown;
  }
  out.expect_continue = head.expect_continue;

  Nominations nominations;
  size_t upgrades = 0;
  for (const http1::Field& field : head) {
    const std::string_view spelt = arena.copy(field.name);
    const std::string_view lower = lower_of(spelt, arena);
    const FieldKind kind = classify_field(lower);
    switch (kind) {
      case FieldKind::connection:
        if (!nominations.add(field.value)) return MessageFault::too_many_options;
        break;
      case FieldKind::hop_by_hop:
        if (lower == "upgrade" && head.upgrade && head.minor_version == 1) {
          // A choice of several protocols is not passed on. The request continues without an upgrade.
          out.upgrade = ++upgrades == 1 && is_upgrade_protocol(field.value) ? arena.copy(field.value) : "";
        }
        if (lower == "te") {
          http1::for_each_element(field.value, [&out](std::string_view coding) {
            if (http1::equals_ignore_case(coding, "trailers")) out.takes_trailers = true;
          });
        }
        break;
      case FieldKind::host:
      case FieldKind::content_length:
      case FieldKind::expect:
        break;
      default:
        if (!out.fields.add({lower, arena.copy(field.value), kind, is_odd_name(lower), spelt})) {
          return MessageFault::too_many_fields;
        }
    }
  }
  nominations.drop_from(out.fields, arena);
  return MessageFault::none;
}

MessageFault response_from_http1(const http1::Head& head, bool to_head, Arena& arena, ResponseHead& out) {
  out.status = head.status;
  out.reason = head.reason;
  out.fields.clear();
  out.body = BodyKind::none;
  out.content_length = 0;
  out.has_content_length = false;
  Nominations nominations;
  for (const http1::Field& field : head) {
    const std::string_view lower = lower_of(field.name, arena);
    const FieldKind kind = classify_field(lower);
    if (kind == FieldKind::connection) {
      if (!nominations.add(field.value)) return MessageFault::too_many_options;
      continue;
    }
    const bool says_protocol = (head.status == 101 || head.status == 426) && lower == "upgrade";
    if (kind == FieldKind::hop_by_hop && !says_protocol) continue;
    if (kind == FieldKind::content_length) {
      // An answer without a body (to HEAD, or 304) may have a length too: the length that the body would have had.
      const char* const end = field.value.data() + field.value.size();
      out.has_content_length = std::from_chars(field.value.data(), end, out.content_length).ptr == end;
      continue;
    }
    if (!out.fields.add({lower, field.value, kind, false, field.name})) return MessageFault::too_many_fields;
  }
  nominations.drop_from(out.fields, arena);

  if (head.status == 101) {
    out.body = BodyKind::tunnel;
  } else if (head.status == 205) {
    // RFC 9110 §15.3.6: no content. If the backend sends some, it is dropped.
    out.body = BodyKind::none;
    out.has_content_length = true;
    out.content_length = 0;
  } else if (to_head || head.status == 204 || head.status == 304) {
    out.body = BodyKind::none;
  } else if (head.framing == http1::Framing::length) {
    out.body = head.content_length == 0 ? BodyKind::none : BodyKind::known;
  } else if (head.framing != http1::Framing::none) {
    out.body = BodyKind::unknown;
  }
  return MessageFault::none;
}

}  // namespace tidegate::l7
