// SPDX-License-Identifier: Apache-2.0
#include "l7/exchange/forwarding.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "core/forwarded_for.h"

namespace tidegate::l7 {
namespace {

// Writes the fields of an HTTP/1 head into a space whose size was computed before.
class Http1Writer {
 public:
  Http1Writer(char* out, Arena&) : next_(out) {}
  Http1Writer& put(std::string_view text) {
    if (!text.empty()) std::memcpy(next_, text.data(), text.size());
    next_ += text.size();
    return *this;
  }
  void line(std::string_view name, std::string_view value) { put(name).put(": ").put(value).put("\r\n"); }
  char* end() const { return next_; }

  void passed(const Field& field) { line(field.written_name(), field.value); }
  // A field of the proxy itself, spelt as in its specification.
  void own(std::string_view spelt, std::string_view, std::string_view value) { line(spelt, value); }
  void edit(std::string_view name, std::string_view value) { line(name, value); }
  // For a value in several parts: begin(), put() for each part, finish().
  void begin(std::string_view spelt, std::string_view) { put(spelt).put(": "); }
  void finish() { put("\r\n"); }

 private:
  char* next_;
};

// Lists fields for an HTTP/2 header block. Values in several parts are written into the space whose size was computed.
class Http2Lister {
 public:
  Http2Lister(char* values, Field* fields, bool tunnel, Arena& arena)
      : next_(values), fields_(fields), arena_(arena), tunnel_(tunnel) {}
  void add(std::string_view name, std::string_view value, FieldKind kind = FieldKind::other) {
    new (&fields_[count_++]) Field{name, value, kind};
  }
  size_t count() const { return count_; }

  void passed(const Field& field) {
    if (tunnel_ && field.name == "sec-websocket-key") return;  // RFC 8441 §5: in HTTP/2 this handshake does not exist
    add(field.name, field.value, field.kind);
  }
  void own(std::string_view, std::string_view lower, std::string_view value) {
    add(lower, value, classify_field(lower));
  }
  void edit(std::string_view name, std::string_view value) { add(arena_.copy_lower(name), value); }
  void begin(std::string_view, std::string_view lower) {
    name_ = lower;
    value_ = next_;
  }
  Http2Lister& put(std::string_view text) {
    if (!text.empty()) std::memcpy(next_, text.data(), text.size());
    next_ += text.size();
    return *this;
  }
  void finish() { add(name_, {value_, static_cast<size_t>(next_ - value_)}); }

 private:
  char* next_;
  Field* fields_;
  Arena& arena_;
  const bool tunnel_;
  size_t count_ = 0;
  std::string_view name_;
  char* value_ = nullptr;
};

const std::string* find_edit(const FieldEdits& edits, std::string_view lower_name) {
  for (const auto& [name, value] : edits) {
    if (http1::equals_ignore_case(name, lower_name)) return &value;
  }
  return nullptr;
}

// Fields that say where a request came from. Only a trusted peer may send them.
bool is_forwarding(FieldKind kind) {
  return kind == FieldKind::x_forwarded_for || kind == FieldKind::x_forwarded_proto ||
         kind == FieldKind::x_forwarded_host || kind == FieldKind::forwarding;
}

// A shared answer must not depend on what one client asked for in particular (RFC 9111 §4.3.1).
bool is_conditional(std::string_view name) {
  return name == "range" || name == "if-range" || name == "if-match" || name == "if-none-match" ||
         name == "if-modified-since" || name == "if-unmodified-since";
}

// The last of several fields of a kind, because the nearest proxy wrote it. The client may have written earlier ones.
std::string_view last_said(const RequestHead& request, FieldKind kind) {
  std::string_view last;
  for (const Field& field : request.fields) {
    if (field.kind == kind) last = field.value;
  }
  return last;
}

// CGI (RFC 3875 §4.1.18) and similar interfaces read every byte of a name that is not a letter or digit as the same
// byte.
char as_read(char c) {
  if (c >= 'A' && c <= 'Z') return static_cast<char>(c + ('a' - 'A'));
  return is_name_char(c) ? c : '-';
}

bool reads_as(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (as_read(a[i]) != as_read(b[i])) return false;
  }
  return true;
}

// A name with other bytes than letters, digits and '-' that such readers confuse with a field that the proxy sets or
// uses.
bool imitates_ours(std::string_view lower_name) {
  char read[32];  // longer than any such name; for "x-forwarded-..." the beginning decides
  const size_t bytes = std::min(lower_name.size(), sizeof read);
  for (size_t i = 0; i < bytes; ++i) read[i] = as_read(lower_name[i]);
  return classify_field({read, bytes}) != FieldKind::other;
}

bool is_set_by_edits(const Field& field, const BackendRequest& in) {
  if (in.edits.empty()) return false;
  if (find_edit(in.edits, field.name) != nullptr) return true;
  if (in.facts.underscores_in_headers) return false;
  const bool imitates =
      std::any_of(in.edits.begin(), in.edits.end(), [&](const auto& edit) { return reads_as(edit.first, field.name); });
  if (imitates && in.imitations != nullptr) ++*in.imitations;
  return imitates;
}

const char* received_protocol(HttpVersion version) {
  return version == HttpVersion::http2 ? "2.0 " : version == HttpVersion::http11 ? "1.1 " : "1.0 ";
}

bool passes(const Field& field, const BackendRequest& in) {
  if (field.kind == FieldKind::x_request_id) return false;  // it is written again, with the id that was kept or made
  if (field.odd_name && !in.facts.underscores_in_headers && imitates_ours(field.name)) {
    if (in.imitations != nullptr) ++*in.imitations;
    return false;
  }
  if (is_forwarding(field.kind)) {
    // X-Forwarded-For, -Proto and -Host are written below. The other fields pass only from trusted peers.
    return in.facts.peer_trusted && field.kind == FieldKind::forwarding && in.conditions == nullptr;
  }
  if (in.conditions != nullptr && is_conditional(field.name)) return false;
  if (!in.grpc_timeout.empty() && field.name == "grpc-timeout") return false;
  if (!in.deadline_lower_name.empty() && field.name == in.deadline_lower_name) return false;
  if (!in.authorization && field.name == "authorization") return false;
  if (!in.cookie && field.name == "cookie") return false;
  return !is_set_by_edits(field, in);
}

// Writes a field of the proxy itself, unless an edit of the route names it.
template <class Out>
void put_own(Out& out, const BackendRequest& in, std::string_view spelt, std::string_view lower,
             std::string_view value) {
  if (!value.empty() && find_edit(in.edits, lower) == nullptr) out.own(spelt, lower, value);
}

template <class Out>
void put_forwarding(Out& out, const BackendRequest& in) {
  const bool trusted = in.facts.peer_trusted;
  if (!in.facts.peer_text.empty() && find_edit(in.edits, "x-forwarded-for") == nullptr) {
    out.begin("X-Forwarded-For", "x-forwarded-for");
    // A trusted chain may come in several fields. Their order is kept.
    for (const Field& field : in.request.fields) {
      if (trusted && field.kind == FieldKind::x_forwarded_for) out.put(field.value).put(", ");
    }
    out.put(in.facts.peer_text).finish();
  }
  const bool kept = trusted && in.conditions == nullptr;
  const std::string_view proto = kept ? last_said(in.request, FieldKind::x_forwarded_proto) : "";
  put_own(out, in, "X-Forwarded-Proto", "x-forwarded-proto",
          proto.empty() ? client_scheme(in.request, in.facts) : proto);
  const std::string_view host = kept ? last_said(in.request, FieldKind::x_forwarded_host) : "";
  put_own(out, in, "X-Forwarded-Host", "x-forwarded-host", host.empty() ? in.request.authority : host);
  put_own(out, in, "X-Request-Id", "x-request-id", in.request_id);
  put_own(out, in, "grpc-timeout", "grpc-timeout", in.grpc_timeout);
  put_own(out, in, in.deadline_name, in.deadline_lower_name, in.deadline);
  if (!in.via_node.empty() && find_edit(in.edits, "via") == nullptr) {
    out.begin("Via", "via");
    out.put(received_protocol(in.request.version)).put(in.via_node).finish();
  }
}

// All fields except Host and the fields that frame the message.
template <class Out>
void put_fields(Out& out, const BackendRequest& in) {
  for (const Field& field : in.request.fields) {
    if (passes(field, in)) out.passed(field);
  }
  put_forwarding(out, in);
  if (in.conditions != nullptr) {
    for (const Field& field : *in.conditions) put_own(out, in, field.written_name(), field.name, field.value);
  }
  for (const auto& [name, value] : in.edits) {
    if (!value.empty() && !http1::equals_ignore_case(name, "Host")) out.edit(name, value);
  }
}

std::string_view host_for_backend(const BackendRequest& in) {
  const std::string* host = find_edit(in.edits, "Host");
  if (host != nullptr && !host->empty()) return *host;
  if (!in.host.empty()) return in.host;
  return in.request.authority.empty() ? in.fallback_host : in.request.authority;
}

size_t measure(const BackendRequest& in) {
  const RequestHead& request = in.request;
  size_t bytes = 512 + request.method.size() + request.path.size() + request.query.size() +
                 3 * request.authority.size() + in.facts.peer_text.size() + in.request_id.size() + in.via_node.size() +
                 request.upgrade.size() + in.fallback_host.size() + in.host.size() + in.deadline_name.size() +
                 in.deadline.size();
  for (const Field& field : request.fields) bytes += field.name.size() + field.value.size() + 4;
  for (const auto& [name, value] : in.edits) bytes += name.size() + value.size() + 4;
  if (in.conditions != nullptr) {
    for (const Field& field : *in.conditions) bytes += field.name.size() + field.value.size() + 4;
  }
  return bytes;
}

}  // namespace

void copy_head(const RequestHead& from, Arena& arena, RequestHead& to) {
  to.method = arena.copy(from.method);
  to.authority = arena.copy(from.authority);
  to.host = arena.copy(from.host);
  to.path = arena.copy(from.path);
  to.query = arena.copy(from.query);
  to.has_query = from.has_query;
  to.version = from.version;
  for (const Field& field : from.fields) {
    const std::string_view spelt = field.spelt.empty() ? field.spelt : arena.copy(field.spelt);
    to.fields.add({arena.copy(field.name), arena.copy(field.value), field.kind, field.odd_name, spelt});
  }
}

std::string_view client_address(const RequestHead& request, const ClientFacts& facts,
                                const std::vector<Cidr>& trusted_proxies, Arena& arena, IpAddress* named) {
  if (!facts.peer_trusted || request.fields.find(FieldKind::x_forwarded_for) == nullptr) return facts.peer_text;
  ForwardedForWalk walk(facts.peer.address, trusted_proxies);
  for (const Field* field = request.fields.end(); field != request.fields.begin() && !walk.over();) {
    --field;
    if (field->kind == FieldKind::x_forwarded_for) walk.take(field->value);
  }
  if (walk.client() == facts.peer.address) return facts.peer_text;
  if (named != nullptr) *named = walk.client();
  char* text = arena.allocate(IpAddress::kTextBytes);
  const size_t bytes = walk.client().write_text(text);
  arena.shrink(IpAddress::kTextBytes - bytes);
  return {text, bytes};
}

std::string_view client_scheme(const RequestHead& request, const ClientFacts& facts) {
  std::string_view said = facts.peer_trusted ? last_said(request, FieldKind::x_forwarded_proto) : "";
  http1::for_each_element(said, [&said](std::string_view element) { said = element; });  // the last element of the list
  for (const std::string_view scheme : {"http", "https"}) {
    if (http1::equals_ignore_case(said, scheme)) return scheme;
  }
  return facts.tls_version.empty() ? "http" : "https";
}

std::string_view compose_http1_head(const BackendRequest& in, Arena& arena) {
  const RequestHead& request = in.request;
  const size_t space = measure(in);
  char* begin = arena.allocate(space);
  Http1Writer out(begin, arena);
  out.put(request.method).put(" ").put(request.path);
  if (request.has_query) out.put("?").put(request.query);
  out.put(" HTTP/1.1\r\n");
  out.line("Host", host_for_backend(in));
  put_fields(out, in);
  if (!request.upgrade.empty()) {
    out.put("Connection: Upgrade\r\n");
    out.line("Upgrade", request.upgrade);
  } else if (request.takes_trailers) {
    out.put("Connection: TE\r\nTE: trailers\r\n");
  }
  if (request.body == BodyKind::known) {
    const fmt::format_int digits(request.content_length);
    out.line("Content-Length", {digits.data(), digits.size()});
  } else if (sends_chunked(request)) {
    out.put("Transfer-Encoding: chunked\r\n");
  } else if (has_meaning_for_content(request)) {
    out.put("Content-Length: 0\r\n");
  }
  out.put("\r\n");
  const auto bytes = static_cast<size_t>(out.end() - begin);
  arena.shrink(space - bytes);
  return {begin, bytes};
}

FieldSpan compose_http2_fields(const BackendRequest& in, std::string_view scheme, Arena& arena) {
  const RequestHead& request = in.request;
  constexpr size_t kOwnFields = 16;  // pseudo-header fields, those of put_forwarding(), framing
  const size_t room =
      request.fields.size() + in.edits.size() + (in.conditions != nullptr ? in.conditions->size() : 0) + kOwnFields;
  auto* const fields = reinterpret_cast<Field*>(arena.allocate_aligned(room * sizeof(Field)));
  const bool tunnel = !request.upgrade.empty();
  Http2Lister out(arena.allocate(measure(in)), fields, tunnel, arena);
  out.add(":method", tunnel ? "CONNECT" : request.method);
  if (tunnel) out.add(":protocol", request.upgrade);  // RFC 8441 §4
  out.add(":scheme", scheme);
  out.add(":authority", host_for_backend(in));
  std::string_view path = request.path;
  if (request.has_query) {
    char* const target = arena.allocate(request.path.size() + 1 + request.query.size());
    std::memcpy(target, request.path.data(), request.path.size());
    target[request.path.size()] = '?';
    if (!request.query.empty())
      std::memcpy(target + request.path.size() + 1, request.query.data(), request.query.size());
    path = {target, request.path.size() + 1 + request.query.size()};
  }
  out.add(":path", path);
  put_fields(out, in);
  if (request.takes_trailers) out.add("te", "trailers");  // RFC 9113 §8.2.2
  if (request.body == BodyKind::known) {
    const fmt::format_int digits(request.content_length);
    out.add("content-length", arena.copy({digits.data(), digits.size()}));
  } else if (request.body == BodyKind::none && has_meaning_for_content(request)) {
    out.add("content-length", "0");
  }
  return {fields, out.count()};
}

void apply_edits(const FieldEdits& edits, FieldList& fields, Arena& arena) {
  for (const auto& [name, value] : edits) {
    const std::string_view lower = arena.copy_lower(name);
    fields.remove_named(lower);
    if (!value.empty()) fields.add({lower, value, classify_field(lower), false, name});
  }
}

// RFC 9110 §7.6.3: an entry is the protocol, the name of the recipient, and possibly a comment.
bool has_meaning_for_content(const RequestHead& request) {
  return request.method == "POST" || request.method == "PUT" || request.method == "PATCH";
}

size_t own_via_entries(const RequestHead& request, std::string_view node) {
  size_t found = 0;
  for (const Field& field : request.fields) {
    if (field.kind != FieldKind::via) continue;
    http1::for_each_element(field.value, [&](std::string_view entry) {
      const size_t space = entry.find(' ');
      if (space == std::string_view::npos) return;
      entry.remove_prefix(std::min(entry.find_first_not_of(' ', space), entry.size()));
      if (entry.substr(0, entry.find(' ')) == node) ++found;
    });
  }
  return found;
}

std::string_view expand_redirect(std::string_view pattern, const RequestHead& request,
                                 const RouteParameters& parameters, std::string_view rest,
                                 const ServerAuthority& server, Arena& arena) {
  fmt::memory_buffer out;
  const bool names_a_host = pattern.starts_with("//");
  const auto append = [&out](std::string_view text) { out.append(text.data(), text.data() + text.size()); };
  const auto append_query = [&] {
    if (request.has_query) append("?");
    append(request.query);
  };
  while (!pattern.empty()) {
    const size_t open = pattern.find('{');
    const size_t close = open == std::string_view::npos ? open : pattern.find('}', open);
    append(pattern.substr(0, close == std::string_view::npos ? close : open));
    if (close == std::string_view::npos) break;
    const std::string_view name = pattern.substr(open + 1, close - open - 1);
    if (name == "host") {
      append(request.host.empty() ? server.name : request.host);
    } else if (name == "path") {
      append(request.path);
      append_query();
    } else if (const std::string_view value = parameters.find(name); !value.empty()) {
      append(value);
    } else if (name == "rest") {
      append(rest);
    } else if (name == "authority") {
      append(request.authority.empty() ? server.name : request.authority);
      if (request.authority.empty() && server.port != 0) fmt::format_to(std::back_inserter(out), ":{}", server.port);
    } else if (name == "query") {
      append_query();
    }
    pattern.remove_prefix(close + 1);
  }
  const std::string_view location{out.data(), out.size()};
  if (names_a_host) return arena.copy(location);
  // A browser takes "//name" for another host, and reads '\\' as '/'. Only the document may name another host.
  const size_t slashes = std::min(location.find_first_not_of("/\\"), location.size());
  if (slashes < 2) return arena.copy(location);
  out[slashes - 1] = '/';
  return arena.copy(location.substr(slashes - 1));
}

}  // namespace tidegate::l7
