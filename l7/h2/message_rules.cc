// SPDX-License-Identifier: Apache-2.0
#include "l7/h2/message_rules.h"

#include <charconv>

#include "core/http1.h"

namespace tidegate::l7 {
namespace {

bool is_http_scheme(std::string_view scheme) {
  return http1::equals_ignore_case(scheme, "http") || http1::equals_ignore_case(scheme, "https");
}

bool begins_with_letter(std::string_view text) {
  return !text.empty() && ((text[0] >= 'a' && text[0] <= 'z') || (text[0] >= 'A' && text[0] <= 'Z'));
}

}  // namespace

void MessageRules::expect_answer_to(std::string_view method) {
  seen_ = method == "HEAD" ? kHead : method == "CONNECT" ? kConnect : uint16_t{0};
}

// §8.3: each pseudo-header field comes once, and has a value. So does Host.
bool MessageRules::mark(uint16_t what, std::string_view value) {
  if ((seen_ & what) != 0 || value.empty()) return false;
  seen_ |= what;
  return true;
}

// §8.2.1. The texts of an ordinary field; a pseudo-header field is not looked at here.
FieldVerdict MessageRules::judge_text(const Http2Field& field) {
  if (field.traits.has_upper) return FieldVerdict::malformed;
  seen_ |= kOrdinary;
  return field.traits.valid && field.is(ValueClass::field) ? FieldVerdict::taken : FieldVerdict::bad;
}

bool MessageRules::take_length(std::string_view value) {
  if (length_ >= 0) return false;
  const char* const end = value.data() + value.size();
  const auto [stop, error] = std::from_chars(value.data(), end, length_);
  if (!value.empty() && value.front() != '-' && error == std::errc() && stop == end) return true;
  length_ = -1;
  return false;
}

// §8.2.2, §8.3.1.
FieldVerdict MessageRules::judge_of_request(const Http2Field& field, bool trailer) {
  if (field.traits.pseudo != PseudoName::none) {
    const bool in_place = !trailer && (seen_ & kOrdinary) == 0;
    return in_place && judge_pseudo_of_request(field) ? FieldVerdict::taken : FieldVerdict::malformed;
  }
  if (const FieldVerdict verdict = judge_text(field); verdict != FieldVerdict::taken) return verdict;
  bool right = true;
  switch (field.traits.kind) {
    case FieldKind::host:
      if (!field.is(ValueClass::authority)) return FieldVerdict::bad;
      right = mark(kHost, field.value);
      break;
    case FieldKind::content_length:
      right = take_length(field.value);
      break;
    case FieldKind::connection:
      right = false;
      break;
    case FieldKind::hop_by_hop:
      // Trailer announces fields, and HTTP2-Settings is refused with an answer.
      right = field.name == "te" ? http1::equals_ignore_case(field.value, "trailers")
                                 : field.name == "trailer" || field.name == "http2-settings";
      break;
    default:
      break;
  }
  return right ? FieldVerdict::taken : FieldVerdict::malformed;
}

bool MessageRules::judge_pseudo_of_request(const Http2Field& field) {
  switch (field.traits.pseudo) {
    case PseudoName::authority:
      return field.is(ValueClass::authority) && mark(kAuthority, field.value);
    case PseudoName::method:
      if (!field.is(ValueClass::token) || !mark(kMethod, field.value)) return false;
      if (field.value == "CONNECT") seen_ |= kConnect;
      if (field.value == "OPTIONS") seen_ |= kOptions;
      return true;
    case PseudoName::path:
      if (!field.is(ValueClass::visible) || !mark(kPath, field.value)) return false;
      if (field.value.front() == '/') seen_ |= kPathIsTarget;
      if (field.value == "*") seen_ |= kPathIsAsterisk;
      return true;
    case PseudoName::scheme:
      if (!field.is(ValueClass::scheme) || !begins_with_letter(field.value) || !mark(kScheme, field.value))
        return false;
      if (is_http_scheme(field.value)) seen_ |= kHttpScheme;
      return true;
    case PseudoName::protocol:  // RFC 8441 §4
      return field.is(ValueClass::field) && mark(kProtocol, field.value);
    default:
      return false;
  }
}

bool MessageRules::end_request_head() const {
  const auto has = [this](uint16_t all) { return (seen_ & all) == all; };
  if (has(kConnect) && !has(kProtocol)) return has(kAuthority) && (seen_ & (kScheme | kPath)) == 0;
  if (!has(kMethod | kPath | kScheme) || (seen_ & (kAuthority | kHost)) == 0) return false;
  if (has(kProtocol) && !has(kConnect | kAuthority)) return false;
  return !has(kHttpScheme) || has(kPathIsTarget) || has(kOptions | kPathIsAsterisk);
}

// §8.3.2.
FieldVerdict MessageRules::judge_of_response(const Http2Field& field, bool trailer) {
  if (field.traits.pseudo != PseudoName::none) {
    const bool in_place = !trailer && (seen_ & kOrdinary) == 0 && field.traits.pseudo == PseudoName::status;
    if (!in_place || field.value.size() != 3 || !mark(kStatus, field.value)) return FieldVerdict::malformed;
    for (const char c : field.value) {
      if (c < '0' || c > '9') return FieldVerdict::malformed;
      status_ = static_cast<uint16_t>(status_ * 10 + (c - '0'));
    }
    return status_ == 101 ? FieldVerdict::malformed : FieldVerdict::taken;  // §8.6
  }
  if (const FieldVerdict verdict = judge_text(field); verdict != FieldVerdict::taken) return verdict;
  switch (field.traits.kind) {
    case FieldKind::content_length:
      if (status_ == 204) {  // RFC 9110 §8.6 forbids it; some servers send 0
        if (length_ >= 0 || field.value != "0") return FieldVerdict::malformed;
        length_ = 0;
        return FieldVerdict::dropped;
      }
      if (status_ / 100 == 1) return FieldVerdict::malformed;
      if (status_ / 100 == 2 && (seen_ & kConnect) != 0) return FieldVerdict::dropped;  // RFC 9110 §8.6
      return take_length(field.value) ? FieldVerdict::taken : FieldVerdict::malformed;
    case FieldKind::connection:
      return FieldVerdict::malformed;
    case FieldKind::hop_by_hop:
      if (field.name == "te" ? http1::equals_ignore_case(field.value, "trailers")
                             : field.name == "trailer" || field.name == "http2-settings") {
        return FieldVerdict::taken;
      }
      return FieldVerdict::malformed;
    default:
      return FieldVerdict::taken;
  }
}

bool MessageRules::end_response_head() {
  if ((seen_ & kStatus) == 0) return false;
  if (status_ / 100 == 1) {
    seen_ = (seen_ & (kHead | kConnect)) | kExpectsFinal;
    status_ = 0;
    length_ = -1;
    return true;
  }
  seen_ &= static_cast<uint16_t>(~kExpectsFinal);
  if ((seen_ & kHead) != 0 || status_ == 204 || status_ == 304) {
    length_ = 0;
  } else if ((seen_ & kConnect) != 0) {
    length_ = -1;
  }
  return true;
}

}  // namespace tidegate::l7
