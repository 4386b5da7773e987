// SPDX-License-Identifier: Apache-2.0
// MessageRules: what makes the message that a stream carries malformed (RFC 9113 §8), as its fields and its content
// come. The session resets the stream of such a message. Pure: no sockets, no allocation.
//
// The rest is judged where messages are made of fields (Http2RequestBuilder, BackendH2Stream): what may be answered.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "l7/wire/http2_field.h"

namespace tidegate::l7 {

enum class FieldVerdict : uint8_t {
  taken,
  dropped,    // it says nothing, and is left out: the length of an answer that has no content
  bad,        // a strict HTTP/1 parser would refuse it; the message may be answered
  malformed,  // the stream is reset
};

class MessageRules {
 public:
  // Of the request that the peer will answer.
  void expect_answer_to(std::string_view method);

  // --- fields, in order; `trailer`: they follow the content
  FieldVerdict judge_of_request(const Http2Field& field, bool trailer);
  FieldVerdict judge_of_response(const Http2Field& field, bool trailer);

  // --- ends of heads. False: the message is malformed.
  bool end_request_head() const;
  // After an interim answer another head is expected.
  bool end_response_head();
  bool expects_final() const { return (seen_ & kExpectsFinal) != 0; }

  // --- content. False: the message is malformed.
  bool take_content(size_t bytes) {
    received_ += bytes;
    return !expects_final() && (length_ < 0 || received_ <= static_cast<uint64_t>(length_));
  }
  bool end_stream() const { return !expects_final() && (length_ < 0 || received_ == static_cast<uint64_t>(length_)); }

 private:
  static constexpr uint16_t kAuthority = 1, kMethod = 2, kPath = 4, kScheme = 8, kProtocol = 16, kHost = 32,
                            kStatus = 64;
  static constexpr uint16_t kOrdinary = 128;  // a field that is no pseudo-header field; none of these may follow
  static constexpr uint16_t kConnect = 256, kHead = 512, kOptions = 1024, kHttpScheme = 2048;
  static constexpr uint16_t kPathIsTarget = 4096;  // it begins with '/'
  static constexpr uint16_t kPathIsAsterisk = 8192, kExpectsFinal = 16384;
  bool mark(uint16_t what, std::string_view value);
  FieldVerdict judge_text(const Http2Field& field);
  bool judge_pseudo_of_request(const Http2Field& field);
  bool take_length(std::string_view value);

  uint16_t seen_ = 0;
  uint16_t status_ = 0;  // of a response; 0: not yet
  int64_t length_ = -1;  // content-length; -1: none, or it says nothing of the content
  uint64_t received_ = 0;
};

}  // namespace tidegate::l7
