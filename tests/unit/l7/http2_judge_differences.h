// SPDX-License-Identifier: Apache-2.0
// Where our HTTP/2 session differs from nghttp2's on purpose. Each row names the section of the RFC that decides.
#pragma once

#include <algorithm>
#include <string_view>

#include "l7/h2/frames.h"
#include "tests/unit/l7/http2_judge_ends.h"

namespace tidegate::l7::http2_judge {

inline bool has_code(const Verdict& verdict, Http2Error code) {
  return verdict.ended && !verdict.without_code && verdict.code == static_cast<uint32_t>(code);
}

struct Met {
  bool after_goaway;  // of ours
  FrameHead frame;
  std::string_view payload;
  const Verdict& ours;
  const Verdict& theirs;
};

inline bool depends_on_itself(const Met& met) {
  const size_t at = met.frame.has(FrameFlags::padded) ? 1 : 0;
  return met.frame.has(FrameFlags::priority) && met.payload.size() >= at + 5 &&
         (read_u32(met.payload.data() + at) & 0x7fff'ffff) == static_cast<uint32_t>(met.frame.stream);
}

// Whether padding and priority do not fit into HEADERS or DATA.
inline bool is_cut_short(const Met& met) {
  const bool head = met.frame.type == FrameType::headers, padded = met.frame.has(FrameFlags::padded);
  if (!head && met.frame.type != FrameType::data) return false;
  const size_t needed = (padded ? 1u : 0u) + (head && met.frame.has(FrameFlags::priority) ? 5u : 0u);
  const size_t padding = padded && !met.payload.empty() ? static_cast<uint8_t>(met.payload.front()) : 0u;
  return needed + padding > met.payload.size();
}

// Whether a SETTINGS frame has a setting more than once.
inline bool has_setting_twice(const Met& met) {
  for (size_t i = 0; i + 6 <= met.payload.size(); i += 6) {
    for (size_t j = i + 6; j + 6 <= met.payload.size(); j += 6) {
      if (met.payload.substr(i, 2) == met.payload.substr(j, 2)) return true;
    }
  }
  return false;
}

struct Difference {
  const char* name;
  const char* why;
  bool (*applies)(const Met& met);
};

inline constexpr Difference kDifferences[] = {
    {"two_faults_of_the_connection",
     "RFC 9113 §6.5: a frame of the connection that names a stream, and that has a wrong length, has two faults. "
     "Either "
     "may be told.",
     [](const Met& met) {
       const bool of_connection = met.frame.type == FrameType::settings || met.frame.type == FrameType::ping ||
                                  met.frame.type == FrameType::goaway;
       return of_connection && met.frame.stream != 0 && has_code(met.ours, Http2Error::protocol_error) &&
              has_code(met.theirs, Http2Error::frame_size_error);
     }},
    {"two_faults_of_a_long_frame",
     "RFC 9113 §4.2: a frame that is too long, and that may not come here, has two faults. Either may be told.",
     [](const Met& met) {
       return met.frame.length > kMostPayloadBytes && has_code(met.ours, Http2Error::frame_size_error) &&
              met.theirs.ended;
     }},
    {"two_faults_of_a_stream",
     "RFC 9113 §5.1, §6.1: a frame that its stream may not get, and whose padding or priority does not fit, has two "
     "faults. Either may be told.",
     [](const Met& met) {
       const bool ours =
           has_code(met.ours, Http2Error::stream_closed) || has_code(met.ours, Http2Error::protocol_error);
       return is_cut_short(met) && ours && met.theirs.ended;
     }},
    {"too_short_for_its_flags",
     "RFC 9113 §4.2: HEADERS without the length of its padding, or without its priority, is too short for what it must "
     "have. nghttp2 calls this a padding that is too long (§6.2).",
     [](const Met& met) {
       return met.frame.type == FrameType::headers && is_cut_short(met) &&
              has_code(met.ours, Http2Error::frame_size_error) && has_code(met.theirs, Http2Error::protocol_error);
     }},
    {"head_depends_on_itself",
     "RFC 7540 §5.3.1: no stream depends on itself. nghttp2 looks only at heads that open a stream.",
     [](const Met& met) {
       return met.frame.type == FrameType::headers && depends_on_itself(met) &&
              has_code(met.ours, Http2Error::protocol_error);
     }},
    {"content_beyond_the_window", "RFC 9113 §6.9.1: nghttp2 hands out the content that exceeds the window. Both reset.",
     [](const Met& met) {
       const auto reset = met.ours.resets.find(met.frame.stream);
       return met.frame.type == FrameType::data && !met.ours.ended && !met.theirs.ended &&
              met.ours.resets == met.theirs.resets && reset != met.ours.resets.end() &&
              reset->second == static_cast<uint32_t>(Http2Error::flow_control_error);
     }},
    {"padding_of_dropped_content",
     "RFC 9113 §6.1: a padding that is too long is a fault of the connection. nghttp2 does not look at it if it drops "
     "the content.",
     [](const Met& met) {
       return met.frame.type == FrameType::data && is_cut_short(met) &&
              has_code(met.ours, Http2Error::protocol_error) && !met.theirs.ended;
     }},
    {"number_of_continuations",
     "RFC 9113 §10.5: the bound is of the implementation. nghttp2 counts a frame before it has read its head, and "
     "again "
     "with each piece of it.",
     [](const Met& met) {
       const bool expected =
           met.frame.type == FrameType::continuation || has_code(met.ours, Http2Error::protocol_error);
       return expected && met.theirs.without_code && !met.ours.without_code;
     }},
    {"push_before_acknowledgement",
     "RFC 9113 §6.6: nghttp2 takes a push until our SETTINGS are acknowledged. A server has read them before it gets a "
     "request, so we take none.",
     [](const Met& met) {
       return met.frame.type == FrameType::push_promise && has_code(met.ours, Http2Error::protocol_error) &&
              !met.theirs.ended;
     }},
    {"order_of_settings",
     "RFC 9113 §6.5.3: values are taken in their order, so the first wrong one is told. nghttp2 has an order of its "
     "own, "
     "and takes only the last value of a setting that comes twice.",
     [](const Met& met) {
       return met.frame.type == FrameType::settings && met.ours.ended && !met.ours.without_code &&
              (met.theirs.ended ? met.frame.length > 6 : has_setting_twice(met));
     }},
    {"stream_after_goaway",
     "RFC 9113 §6.8: after GOAWAY new streams are ignored, but their fields are read. nghttp2 still counts them "
     "against "
     "SETTINGS_MAX_CONCURRENT_STREAMS.",
     [](const Met& met) {
       const bool read = !met.ours.ended || has_code(met.ours, Http2Error::compression_error);
       return met.after_goaway && met.frame.type == FrameType::headers && read &&
              has_code(met.theirs, Http2Error::protocol_error);
     }},
    {"number_that_goes_on",
     "RFC 7541 §5.1: a number at the end of a part may go on in CONTINUATION. nghttp2 refuses it as soon as it is too "
     "large, ours when it has come whole.",
     [](const Met& met) {
       const bool part = met.frame.type == FrameType::headers || met.frame.type == FrameType::continuation;
       return part && !met.frame.has(FrameFlags::end_headers) && !met.ours.ended &&
              has_code(met.theirs, Http2Error::compression_error);
     }},
    {"request_that_waits_at_goaway",
     "RFC 9113 §6.8: after GOAWAY no stream is begun. A request that still waits for its stream goes back at once, so "
     "that another connection can take it. nghttp2 keeps it.",
     [](const Met& met) {
       if (met.frame.type != FrameType::goaway || met.ours.ended || met.theirs.ended) return false;
       return std::all_of(met.ours.told.begin(), met.ours.told.end(), [&](const auto& told) {
         const auto theirs = met.theirs.told.find(told.first);
         const bool same = theirs != met.theirs.told.end() && theirs->second == told.second;
         return same || told.second == "closed:REFUSED_STREAM ";
       });
     }},
};

}  // namespace tidegate::l7::http2_judge
