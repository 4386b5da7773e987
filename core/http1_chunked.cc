// SPDX-License-Identifier: Apache-2.0
// Chunked transfer coding (RFC 9112 §7.1).
//
//   chunked-body = *( chunk-size [ chunk-ext ] CRLF chunk-data CRLF ) 1*"0" [ chunk-ext ] CRLF trailer-section CRLF
#include "core/http1.h"
#include "core/http1_chars.h"
#include "core/percent.h"

namespace tidegate::http1 {
namespace {

constexpr uint64_t kMaxChunkBytes = INT64_MAX;

}  // namespace

// Reads the line before a chunk's data, and the CRLF after the data.
Fault ChunkedDecoder::step_chunk_line(char c) {
  switch (state_) {
    case State::size:
    case State::size_digits: {
      if (++line_bytes_ > limits_.chunk_line_bytes) return Fault::bad_chunk;
      const int digit = hex_digit(c);
      if (digit >= 0) {
        if (remaining_ > kMaxChunkBytes >> 4) return Fault::bad_chunk;
        remaining_ = remaining_ << 4 | static_cast<uint64_t>(digit);
        state_ = State::size_digits;
        return Fault::none;
      }
      if (state_ == State::size) return c == '\n' ? Fault::bad_line_ending : Fault::bad_chunk;
      // White space before ';' is BWS. No sender may produce it and readers treat it differently, so it is refused.
      if (c == '\r') {
        state_ = State::line_lf;
      } else if (c == ';') {
        state_ = State::extension;
      } else {
        return c == '\n' ? Fault::bad_line_ending : Fault::bad_chunk;
      }
      return Fault::none;
    }
    case State::extension:  // §7.1.1: unknown extensions are ignored, and we know none
      if (c == '\r') {
        state_ = State::line_lf;
        return Fault::none;
      }
      if (!is_char(c, kFieldValue)) return c == '\n' ? Fault::bad_line_ending : Fault::bad_chunk;
      if (++line_bytes_ > limits_.chunk_line_bytes || ++extension_bytes_ > limits_.chunk_extension_bytes) {
        return Fault::chunk_extension_too_long;
      }
      return Fault::none;
    case State::line_lf:
      if (c != '\n') return Fault::bad_line_ending;
      line_bytes_ = 0;
      state_ = remaining_ == 0 ? State::trailer_start : State::data;
      return Fault::none;
    case State::data_cr:
      if (c != '\r') return c == '\n' ? Fault::bad_line_ending : Fault::bad_chunk;
      state_ = State::data_lf;
      return Fault::none;
    default:
      if (c != '\n') return Fault::bad_line_ending;
      state_ = State::size;
      return Fault::none;
  }
}

// The trailer section (§7.1.2) must follow the rules of field lines.
Fault ChunkedDecoder::step_trailer(char c) {
  if (++trailer_bytes_ > limits_.trailer_bytes) return Fault::trailers_too_large;
  const bool ends_section = state_ == State::end_lf || (state_ == State::trailer_start && c == '\r');
  if (!ends_section) trailers_ += c;
  switch (state_) {
    case State::trailer_start:
      if (c == '\r') {
        state_ = State::end_lf;
        return Fault::none;
      }
      if (c == ' ' || c == '\t') return Fault::obs_fold;
      if (!is_char(c, kToken)) return c == '\n' ? Fault::bad_line_ending : Fault::bad_field_name;
      state_ = State::trailer_name;
      return Fault::none;
    case State::trailer_name:
      if (c == ':') {
        state_ = State::trailer_value;
        return Fault::none;
      }
      if (c == ' ' || c == '\t') return Fault::space_before_colon;
      if (!is_char(c, kToken)) return c == '\n' ? Fault::bad_line_ending : Fault::bad_field_name;
      return Fault::none;
    case State::trailer_value:
      if (c == '\r') {
        state_ = State::trailer_lf;
        return Fault::none;
      }
      if (!is_char(c, kFieldValue)) return c == '\n' ? Fault::bad_line_ending : Fault::bad_field_value;
      return Fault::none;
    case State::trailer_lf:
      if (c != '\n') return Fault::bad_line_ending;
      state_ = State::trailer_start;
      return Fault::none;
    default:
      if (c != '\n') return Fault::bad_line_ending;
      state_ = State::done;
      return Fault::none;
  }
}

ChunkedDecoder::Step ChunkedDecoder::decode(std::string_view input) {
  size_t at = 0;
  while (state_ != State::done && at < input.size()) {
    if (state_ == State::data) {
      const auto bytes = static_cast<size_t>(std::min<uint64_t>(remaining_, input.size() - at));
      remaining_ -= bytes;
      if (remaining_ == 0) state_ = State::data_cr;
      return {Status::incomplete, at + bytes, input.substr(at, bytes), Fault::none};
    }
    const Fault fault = state_ >= State::trailer_start ? step_trailer(input[at]) : step_chunk_line(input[at]);
    if (fault != Fault::none) return {Status::error, at, {}, fault};
    ++at;
  }
  return {state_ == State::done ? Status::complete : Status::incomplete, at, {}, Fault::none};
}

size_t encode_chunk_header(uint64_t bytes, char* out) {
  static constexpr char kDigits[] = "0123456789abcdef";
  size_t digits = 1;
  while (digits < 16 && bytes >> (4 * digits) != 0) ++digits;
  for (size_t i = 0; i < digits; ++i) out[i] = kDigits[bytes >> (4 * (digits - 1 - i)) & 15];
  out[digits] = '\r';
  out[digits + 1] = '\n';
  return digits + 2;
}

}  // namespace tidegate::http1
