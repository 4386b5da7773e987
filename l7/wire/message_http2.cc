// SPDX-License-Identifier: Apache-2.0
// HTTP/2 header blocks into RequestHead: RFC 9113 §8.2 (fields) and §8.3 (pseudo-header fields).
#include <algorithm>
#include <charconv>
#include <new>

#include "l7/limits.h"
#include "l7/wire/http2_field.h"

namespace tidegate::l7 {
namespace {

bool is_valid_target(std::string_view target) {
  for (const char c : target) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte <= 0x20 || byte >= 0x7f || c == '#') return false;
  }
  return true;
}

}  // namespace

MessageFault trailer_from_http2(const Http2Field& field, Arena& arena, Trailers& out) {
  const NameTraits& traits = field.traits;
  const bool right = traits.pseudo == PseudoName::none && traits.valid && field.is(ValueClass::field);
  if (!right) return MessageFault::bad_field;
  if (!may_be_trailer(field.name, traits.kind)) return MessageFault::none;
  const Field kept{arena.copy(field.name), arena.copy(field.value), traits.kind, traits.odd};
  return out.add(arena, kept) ? MessageFault::none : MessageFault::too_many_fields;
}

void Http2RequestBuilder::start(Arena& arena, RequestHead& out, size_t max_bytes, size_t max_fields) {
  *this = Http2RequestBuilder();
  arena_ = &arena;
  out_ = &out;
  max_bytes_ = max_bytes;
  max_fields_ = max_fields;
  out.clear();
  out.version = HttpVersion::http2;
}

MessageFault Http2RequestBuilder::add(const Http2Field& of) {
  const auto& [name, value, traits, value_class, static_name] = of;
  bytes_ += name.size() + value.size() + 32;  // as RFC 9113 §6.5.2 counts
  if (bytes_ > max_bytes_ || arena_->bytes() > kRequestArenaBytes) return MessageFault::too_large;
  if (!of.is(ValueClass::field)) return MessageFault::bad_field;
  if (traits.pseudo != PseudoName::none) return add_pseudo(of);
  ordinary_seen_ = true;
  if (!traits.valid) return MessageFault::bad_field;

  const FieldKind kind = traits.kind;
  const bool more_of_one = (kind == FieldKind::cookie && crumbs_ != nullptr) || kind == FieldKind::host;
  if (!more_of_one && ++fields_ >= max_fields_) return MessageFault::too_many_fields;  // :authority takes one place
  switch (kind) {
    case FieldKind::connection:
      return MessageFault::connection_field;
    case FieldKind::hop_by_hop:
      // §8.2.2: TE may only be "trailers". The field Trailer only announces them, and is dropped.
      if (name == "te" && value == "trailers") {
        out_->takes_trailers = true;
        return MessageFault::none;
      }
      return name == "trailer" ? MessageFault::none : MessageFault::connection_field;
    case FieldKind::host:
      if (!host_field_.empty() && host_field_ != value) return MessageFault::bad_host;
      host_field_ = arena_->copy(value);
      return MessageFault::none;
    case FieldKind::content_length: {
      uint64_t length = 0;
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), length);
      if (length_seen_ || value.empty() || error != std::errc() || end != value.data() + value.size()) {
        return MessageFault::bad_content_length;
      }
      length_seen_ = true;
      out_->content_length = length;
      return MessageFault::none;
    }
    case FieldKind::expect:
      if (!http1::equals_ignore_case(value, "100-continue")) return MessageFault::unsupported_expectation;
      out_->expect_continue = true;
      return MessageFault::none;
    case FieldKind::cookie:
      keep_crumb(value);
      return MessageFault::none;
    default:
      break;
  }
  const Field field{static_name != 0 ? name : arena_->copy(name), arena_->copy(value), kind, traits.odd};
  return out_->fields.add(field) ? MessageFault::none : MessageFault::too_many_fields;
}

// §8.2.3: cookie pairs may come in several fields, and HTTP/1 needs them in one. A client can repeat a field for one
// byte (compression table). So the fields are only recorded as they come, and all are joined once.
void Http2RequestBuilder::keep_crumb(std::string_view value) {
  auto* const crumb = new (arena_->allocate_aligned(sizeof(Crumb))) Crumb{arena_->copy(value), nullptr};
  (last_crumb_ == nullptr ? crumbs_ : last_crumb_->next) = crumb;
  cookie_bytes_ += value.size() + (last_crumb_ == nullptr ? 0 : 2);
  last_crumb_ = crumb;
}

std::string_view Http2RequestBuilder::join_crumbs() const {
  if (crumbs_->next == nullptr) return crumbs_->value;
  char* const joined = arena_->allocate(cookie_bytes_);
  char* out = joined;
  for (const Crumb* crumb = crumbs_; crumb != nullptr; crumb = crumb->next) {
    if (crumb != crumbs_) {
      *out++ = ';';
      *out++ = ' ';
    }
    out = std::copy(crumb->value.begin(), crumb->value.end(), out);
  }
  return {joined, cookie_bytes_};
}

// Null: there is no such pseudo-header field in a request.
std::string_view* Http2RequestBuilder::pseudo_slot(PseudoName name) {
  switch (name) {
    case PseudoName::method:
      return &out_->method;
    case PseudoName::path:
      return &target_;
    case PseudoName::scheme:
      return &scheme_;
    case PseudoName::authority:
      return &out_->authority;
    case PseudoName::protocol:
      return &protocol_;
    default:
      return nullptr;
  }
}

MessageFault Http2RequestBuilder::add_pseudo(const Http2Field& field) {
  if (ordinary_seen_ || field.value.empty()) return MessageFault::bad_pseudo_field;
  std::string_view* const slot = pseudo_slot(field.traits.pseudo);
  if (slot == nullptr || !slot->empty()) return MessageFault::bad_pseudo_field;
  *slot = arena_->copy(field.value);
  return MessageFault::none;
}

MessageFault Http2RequestBuilder::finish(bool end_of_stream) {
  RequestHead& out = *out_;
  if (out.method == "CONNECT" && protocol_.empty()) return MessageFault::connect_method;
  if (!protocol_.empty()) {  // RFC 8441 §4
    if (out.method != "CONNECT" || !is_upgrade_protocol(protocol_)) return MessageFault::bad_pseudo_field;
    if (length_seen_) return MessageFault::bad_content_length;
    out.method = "GET";
    out.upgrade = protocol_;
    out.extended_connect = true;
    out.expect_continue = false;  // the following bytes are not content
  }
  if (!http1::is_token(out.method) || scheme_.empty() || target_.empty()) return MessageFault::bad_pseudo_field;
  if (out.authority.empty()) out.authority = host_field_;
  // §8.3.1: Host and :authority must not disagree.
  if (!host_field_.empty() && !http1::equals_ignore_case(host_field_, out.authority)) return MessageFault::bad_host;
  if (!http1::is_authority(out.authority)) return MessageFault::bad_host;
  out.authority = without_empty_port(out.authority);
  out.host = host_of_authority(out.authority, *arena_);
  if (out.host.empty()) return MessageFault::bad_host;

  const bool asterisk = target_ == "*" && out.method == "OPTIONS";
  if ((target_.front() != '/' && !asterisk) || !is_valid_target(target_)) return MessageFault::bad_pseudo_field;
  const size_t question = target_.find('?');
  out.has_query = question != std::string_view::npos;
  if (out.has_query) out.query = target_.substr(question + 1);
  out.path = normalise_path(target_.substr(0, question), *arena_);
  if (out.path.empty()) return MessageFault::bad_path;

  if (crumbs_ != nullptr && !out.fields.add({"cookie", join_crumbs(), FieldKind::cookie})) {
    return MessageFault::too_many_fields;
  }
  if (end_of_stream) {
    if (length_seen_ && out.content_length != 0) return MessageFault::bad_content_length;
  } else if (out.extended_connect) {
    out.body = BodyKind::none;  // the following bytes belong to the tunnel
  } else if (length_seen_) {
    out.body = out.content_length == 0 ? BodyKind::none : BodyKind::known;
  } else {
    out.body = BodyKind::unknown;
  }
  return MessageFault::none;
}

}  // namespace tidegate::l7
