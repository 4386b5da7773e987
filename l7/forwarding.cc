#include "l7/forwarding.h"

#include <fmt/format.h>

#include <algorithm>

namespace tidegate::l7 {
namespace {

// Writes into a space that was measured beforehand.
class HeadWriter {
 public:
  explicit HeadWriter(char* out) : next_(out) {}
  HeadWriter& put(std::string_view text) {
    if (!text.empty()) std::memcpy(next_, text.data(), text.size());
    next_ += text.size();
    return *this;
  }
  void field(std::string_view name, std::string_view value) { put(name).put(": ").put(value).put("\r\n"); }
  char* end() const { return next_; }

 private:
  char* next_;
};

const std::string* find_edit(const FieldEdits& edits, std::string_view lower_name) {
  for (const auto& [name, value] : edits) {
    if (http1::equals_ignore_case(name, lower_name)) return &value;
  }
  return nullptr;
}

// What only a trusted peer may say of where a request came from.
bool is_forwarding(FieldKind kind) {
  return kind == FieldKind::x_forwarded_for || kind == FieldKind::x_forwarded_proto ||
         kind == FieldKind::x_forwarded_host || kind == FieldKind::forwarding;
}

// A shared answer must not depend on what one client asked for in particular (RFC 9111 §4.3.1).
bool is_conditional(std::string_view name) {
  return name == "range" || name == "if-range" || name == "if-match" || name == "if-none-match" ||
         name == "if-modified-since" || name == "if-unmodified-since";
}

const char* received_protocol(HttpVersion version) {
  return version == HttpVersion::http2 ? "2.0 " : version == HttpVersion::http11 ? "1.1 " : "1.0 ";
}

bool passes(const Field& field, const BackendHeadInputs& in) {
  if (field.kind == FieldKind::x_request_id) return false;  // written anew, kept or made
  if (is_forwarding(field.kind)) {
    // Written anew below; the others pass from those who are trusted to say them.
    return in.facts.peer_trusted && field.kind == FieldKind::forwarding && in.conditions == nullptr;
  }
  if (in.conditions != nullptr && is_conditional(field.name)) return false;
  if (!in.authorization && field.name == "authorization") return false;
  if (!in.cookie && field.name == "cookie") return false;
  return in.edits.empty() || find_edit(in.edits, field.name) == nullptr;
}

void put_forwarding(HeadWriter& out, const BackendHeadInputs& in) {
  const bool trusted = in.facts.peer_trusted;
  const auto kept = [&](FieldKind kind) { return trusted ? in.request.fields.find(kind) : nullptr; };
  if (!in.facts.peer_text.empty()) {
    out.put("x-forwarded-for: ");
    // A trusted chain may come in several fields; their order is theirs.
    for (const Field& field : in.request.fields) {
      if (trusted && field.kind == FieldKind::x_forwarded_for) out.put(field.value).put(", ");
    }
    out.put(in.facts.peer_text).put("\r\n");
  }
  const bool shared = in.conditions != nullptr;
  const Field* proto = shared ? nullptr : kept(FieldKind::x_forwarded_proto);
  out.field("x-forwarded-proto", proto ? proto->value : client_scheme(in.request, in.facts));
  const Field* host = shared ? nullptr : kept(FieldKind::x_forwarded_host);
  out.field("x-forwarded-host", host ? host->value : in.request.authority);
  out.field("x-request-id", in.request_id);
  out.put("via: ").put(received_protocol(in.request.version)).put(in.via_node).put("\r\n");
}

size_t measure(const BackendHeadInputs& in) {
  const RequestHead& request = in.request;
  size_t bytes = 512 + request.method.size() + request.path.size() + request.query.size() +
                 3 * request.authority.size() + in.facts.peer_text.size() + in.request_id.size() + in.via_node.size() +
                 request.upgrade.size();
  for (const Field& field : request.fields) bytes += field.name.size() + field.value.size() + 4;
  for (const auto& [name, value] : in.edits) bytes += name.size() + value.size() + 4;
  if (in.conditions != nullptr) {
    for (const Field& field : *in.conditions) bytes += field.name.size() + field.value.size() + 4;
  }
  return bytes;
}

}  // namespace

std::string_view client_address(const RequestHead& request, const ClientFacts& facts,
                                const std::vector<Cidr>& trusted_proxies) {
  if (!facts.peer_trusted) return facts.peer_text;
  std::string_view last_untrusted, first;
  const auto look_at = [&](std::string_view element) {
    const std::optional<IpAddress> address = IpAddress::parse(element);
    if (!address) return;
    if (first.empty()) first = element;
    const bool trusted = std::any_of(trusted_proxies.begin(), trusted_proxies.end(),
                                     [&](const Cidr& network) { return network.contains(*address); });
    if (!trusted) last_untrusted = element;
  };
  // Proxies add an element or a whole field: together they are one list (RFC 9110 §5.3).
  for (const Field& field : request.fields) {
    if (field.kind == FieldKind::x_forwarded_for) http1::for_each_element(field.value, look_at);
  }
  if (!last_untrusted.empty()) return last_untrusted;
  return first.empty() ? facts.peer_text : first;
}

std::string_view client_scheme(const RequestHead& request, const ClientFacts& facts) {
  const Field* said = facts.peer_trusted ? request.fields.find(FieldKind::x_forwarded_proto) : nullptr;
  for (const std::string_view scheme : {"http", "https"}) {
    if (said != nullptr && http1::equals_ignore_case(said->value, scheme)) return scheme;
  }
  return facts.tls_version.empty() ? "http" : "https";
}

std::string_view compose_backend_head(const BackendHeadInputs& in, Arena& arena) {
  const RequestHead& request = in.request;
  const size_t space = measure(in);
  char* begin = arena.allocate(space);
  HeadWriter out(begin);
  out.put(request.method).put(" ").put(request.path);
  if (request.has_query) out.put("?").put(request.query);
  out.put(" HTTP/1.1\r\n");

  const std::string* host = find_edit(in.edits, "host");
  out.field("host", host != nullptr && !host->empty() ? std::string_view(*host) : request.authority);
  for (const Field& field : request.fields) {
    if (passes(field, in)) out.field(field.name, field.value);
  }
  put_forwarding(out, in);
  if (in.conditions != nullptr) {
    for (const Field& field : *in.conditions) out.field(field.name, field.value);
  }
  for (const auto& [name, value] : in.edits) {
    if (!value.empty() && &value != host) out.field(name, value);
  }
  if (!request.upgrade.empty()) {
    out.put("connection: upgrade\r\n");
    out.field("upgrade", request.upgrade);
  }
  if (request.body == BodyKind::known) {
    const fmt::format_int digits(request.content_length);
    out.field("content-length", {digits.data(), digits.size()});
  } else if (sends_chunked(request)) {
    out.put("transfer-encoding: chunked\r\n");
  } else if (request.method == "POST" || request.method == "PUT" || request.method == "PATCH") {
    out.put("content-length: 0\r\n");  // RFC 9110 §8.6: these methods define a meaning for content
  }
  out.put("\r\n");
  const auto bytes = static_cast<size_t>(out.end() - begin);
  arena.shrink(space - bytes);
  return {begin, bytes};
}

void apply_edits(const FieldEdits& edits, FieldList& fields, Arena& arena) {
  for (const auto& [name, value] : edits) {
    const std::string_view lower = arena.copy_lower(name);
    fields.remove_named(lower);
    if (!value.empty()) fields.add({lower, value, classify_field(lower)});
  }
}

std::string_view expand_redirect(std::string_view pattern, const RequestHead& request,
                                 const RouteParameters& parameters, Arena& arena) {
  fmt::memory_buffer out;
  const auto append = [&out](std::string_view text) { out.append(text.data(), text.data() + text.size()); };
  while (!pattern.empty()) {
    const size_t open = pattern.find('{');
    const size_t close = open == std::string_view::npos ? open : pattern.find('}', open);
    append(pattern.substr(0, close == std::string_view::npos ? close : open));
    if (close == std::string_view::npos) break;
    const std::string_view name = pattern.substr(open + 1, close - open - 1);
    if (name == "host") {
      append(request.host);
    } else if (name == "path") {
      append(request.path);
      if (request.has_query) append("?");
      append(request.query);
    } else {
      append(parameters.find(name));
    }
    pattern.remove_prefix(close + 1);
  }
  return arena.copy({out.data(), out.size()});
}

}  // namespace tidegate::l7
