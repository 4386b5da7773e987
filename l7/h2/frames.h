// SPDX-License-Identifier: Apache-2.0
// Frames of HTTP/2 as they are on the wire (RFC 9113 §4, §6, §7).
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string_view>

namespace tidegate::l7 {

enum class FrameType : uint8_t {
  data,
  headers,
  priority,
  rst_stream,
  settings,
  push_promise,
  ping,
  goaway,
  window_update,
  continuation,
};

struct FrameFlags {
  static constexpr uint8_t end_stream = 0x1, ack = 0x1, end_headers = 0x4, padded = 0x8, priority = 0x20;
};

enum class Http2Error : uint32_t {
  no_error,
  protocol_error,
  internal_error,
  flow_control_error,
  settings_timeout,
  stream_closed,
  frame_size_error,
  refused_stream,
  cancel,
  compression_error,
  connect_error,
  enhance_your_calm,
  inadequate_security,
  http_1_1_required,
};
// As in the registry: "REFUSED_STREAM".
constexpr const char* name(Http2Error error) {
  constexpr const char* kNames[] = {
      "NO_ERROR",
      "PROTOCOL_ERROR",
      "INTERNAL_ERROR",
      "FLOW_CONTROL_ERROR",
      "SETTINGS_TIMEOUT",
      "STREAM_CLOSED",
      "FRAME_SIZE_ERROR",
      "REFUSED_STREAM",
      "CANCEL",
      "COMPRESSION_ERROR",
      "CONNECT_ERROR",
      "ENHANCE_YOUR_CALM",
      "INADEQUATE_SECURITY",
      "HTTP_1_1_REQUIRED",
  };
  const auto number = static_cast<uint32_t>(error);
  return number < std::size(kNames) ? kNames[number] : "unknown";
}

enum class SettingsId : uint16_t {
  header_table_size = 1,
  enable_push = 2,
  max_concurrent_streams = 3,
  initial_window_size = 4,
  max_frame_size = 5,
  max_header_list_size = 6,
  enable_connect_protocol = 8,  // RFC 8441
  no_rfc7540_priorities = 9,    // RFC 9218
};

constexpr std::string_view kHttp2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
constexpr size_t kFrameHeadBytes = 9;
constexpr size_t kMostPayloadBytes = 16'384;  // what each side takes unless it says more (§4.2), and we do not
constexpr uint32_t kHttp2MostWindow = 0x7fff'ffff;
constexpr uint32_t kHttp2FirstWindow = 65'535;  // §6.9.2

struct FrameHead {
  uint32_t length = 0;
  FrameType type = FrameType::data;
  uint8_t flags = 0;
  int32_t stream = 0;
  bool has(uint8_t flag) const { return (flags & flag) != 0; }
};

inline uint32_t read_u32(const char* at) {
  const auto byte = [at](size_t i) { return uint32_t{static_cast<uint8_t>(at[i])}; };
  return byte(0) << 24 | byte(1) << 16 | byte(2) << 8 | byte(3);
}
inline char* put_u32(char* out, uint32_t number) {
  for (int shift = 24; shift >= 0; shift -= 8) *out++ = static_cast<char>(number >> shift);
  return out;
}

inline FrameHead read_frame_head(const char* at) {
  FrameHead head;
  head.length = read_u32(at) >> 8;
  head.type = static_cast<FrameType>(static_cast<uint8_t>(at[3]));
  head.flags = static_cast<uint8_t>(at[4]);
  head.stream = static_cast<int32_t>(read_u32(at + 5) & 0x7fff'ffff);
  return head;
}
inline char* put_frame_head(char* out, const FrameHead& head) {
  out = put_u32(out, head.length << 8 | static_cast<uint8_t>(head.type));
  *out++ = static_cast<char>(head.flags);
  return put_u32(out, static_cast<uint32_t>(head.stream));
}

}  // namespace tidegate::l7
