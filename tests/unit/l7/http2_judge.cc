// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/l7/http2_judge.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "l7/h2/frames.h"
#include "tests/unit/l7/http2_judge_differences.h"
#include "tests/unit/l7/http2_judge_ends.h"

namespace tidegate::l7 {
namespace http2_judge {
namespace {

// The input, one choice a byte. At its end each choice is the first.
class Choices {
 public:
  Choices(const uint8_t* data, size_t bytes) : next_(data), end_(data + bytes) {}
  bool more() const { return next_ < end_; }
  uint8_t byte() { return more() ? *next_++ : uint8_t{0}; }
  size_t below(size_t count) { return byte() % count; }
  // True for one of `in` choices.
  bool one_in(size_t in) { return byte() % in == in - 1; }
  template <class T, size_t kCount>
  const T& of(const T (&all)[kCount]) {
    return all[below(kCount)];
  }

 private:
  const uint8_t* next_;
  const uint8_t* const end_;
};

// --- frames

std::string frame_bytes(FrameType type, uint8_t flags, int32_t stream, std::string_view payload) {
  char head[kFrameHeadBytes];
  put_frame_head(head, {static_cast<uint32_t>(payload.size()), type, flags, stream});
  return std::string(head, sizeof head).append(payload);
}

std::string number_bytes(uint32_t number) {
  char out[4];
  put_u32(out, number);
  return {out, sizeof out};
}

using Field = std::pair<const char*, const char*>;

// A field without Huffman code (RFC 7541 §6.2).
std::string field_bytes(char first, std::string_view name, std::string_view value) {
  std::string out(1, first);
  out += static_cast<char>(name.size());
  out += name;
  out += static_cast<char>(value.size());
  return out.append(value);
}

constexpr Field kOddFields[] = {
    {":method", "GET"},
    {":method", "POST"},
    {":method", "CONNECT"},
    {":method", "OPTIONS"},
    {":method", "G T"},
    {":method", ""},
    {":scheme", "http"},
    {":scheme", "https"},
    {":scheme", "ftp"},
    {":scheme", "1x"},
    {":scheme", "h ttp"},
    {":scheme", ""},
    {":path", "/"},
    {":path", "*"},
    {":path", "x"},
    {":path", ""},
    {":path", "/ x"},
    {":path", "/\x80"},
    {":authority", "a"},
    {":authority", "a b"},
    {":authority", "u@a"},
    {":authority", ""},
    {":protocol", "websocket"},
    {":protocol", ""},
    {":status", "200"},
    {":status", "204"},
    {":status", "304"},
    {":status", "100"},
    {":status", "103"},
    {":status", "101"},
    {":status", "199"},
    {":status", "20"},
    {":status", "2000"},
    {":status", "2x0"},
    {":status", ""},
    {":unknown", "x"},
    {":", "x"},
    {"host", "a"},
    {"host", ""},
    {"host", "a b"},
    {"Host", "a"},
    {"content-length", "0"},
    {"content-length", "5"},
    {"content-length", "05"},
    {"content-length", "-1"},
    {"content-length", "+5"},
    {"content-length", "5 "},
    {"content-length", "5,5"},
    {"content-length", ""},
    {"content-length", "9223372036854775807"},
    {"content-length", "9223372036854775808"},
    {"content-length", "99999999999999999999"},
    {"connection", "x"},
    {"connection", ""},
    {"keep-alive", "x"},
    {"proxy-connection", "x"},
    {"transfer-encoding", "chunked"},
    {"upgrade", "x"},
    {"te", "trailers"},
    {"te", "Trailers"},
    {"te", "gzip"},
    {"te", ""},
    {"trailer", "x"},
    {"http2-settings", "x"},
    {"X-Upper", "x"},
    {"a b", "x"},
    {"a:b", "x"},
    {"", "x"},
    {"a\x80", "x"},
    {"a\n", "x"},
    {"cookie", "a=b"},
    {"x", ""},
    {"x", " x"},
    {"x", "x "},
    {"x", "\tx"},
    {"x", "x\r\ny"},
    {"x", "\x7f"},
    {"x", "\x80"},
    {"x", "\x01"},
    {"priority", "u=1"},
    {"expect", "100-continue"},
};

constexpr FrameType kUnknownTypes[] = {static_cast<FrameType>(0x0b), static_cast<FrameType>(0x20),
                                       static_cast<FrameType>(0xff)};

class Judge {
 public:
  Judge(const uint8_t* data, size_t bytes)
      : choices_(data, bytes), role_(choices_.one_in(2) ? Role::client : Role::server) {
    if (role_ == Role::server) {
      begin({{SettingsId::enable_connect_protocol, 1},
             {SettingsId::max_concurrent_streams, kMostStreams},
             {SettingsId::initial_window_size, kHttp2FirstWindow}});
    } else {
      begin({{SettingsId::enable_push, 0}, {SettingsId::initial_window_size, kHttp2FirstWindow}});
    }
  }

  std::string run() {
    const size_t opening = choices_.below(16);
    if (role_ == Role::server) give(opening == 1 ? "PRI * HTTP/2.0\r\n\r\nSM\r\nX" : kHttp2Preface, "preface");
    if (opening != 2) give(frame_bytes(FrameType::settings, 0, 0, {}), "settings");
    if (opening != 3) give(frame_bytes(FrameType::settings, FrameFlags::ack, 0, {}), "settings-ack");
    for (int step = 0; choices_.more() && step < 200 && !over_; ++step) one();
    return disagreement_;
  }

 private:
  static constexpr uint32_t kMostStreams = 6;

  void begin(std::initializer_list<Http2Session::Setting> settings) {
    constexpr size_t kWindow = 100'000;
    ours_ = std::make_unique<OurEnd>(role_, settings, kWindow);
    theirs_ = std::make_unique<TheirEnd>(role_, settings, kWindow);
    both([](End& end) { end.send(); });
  }
  template <class Do>
  void both(const Do& act) {
    act(*ours_);
    act(*theirs_);
  }

  // --- what the peer sends
  void give(std::string_view bytes, const std::string& what) {
    if (over_) return;
    log_ += what + '\n';
    const size_t cut = choices_.one_in(8) ? choices_.byte() : 0;  // size of the pieces
    for (size_t at = 0; at < bytes.size() && !over_;) {
      const std::string_view piece = bytes.substr(at, cut == 0 ? bytes.size() : cut);
      both([&](End& end) { end.receive(piece); });
      at += piece.size();
    }
    compare();
  }
  void give(FrameType type, uint8_t flags, int32_t stream, std::string payload) {
    std::string bytes = frame_bytes(type, flags, stream, payload);
    if (choices_.one_in(64)) {  // any byte of the head, or of the payload's beginning
      const size_t at = choices_.below(std::min<size_t>(bytes.size(), 32));
      if (at >= 3) bytes[at] = static_cast<char>(choices_.byte());
    }
    FrameHead head = read_frame_head(bytes.data());
    if (head.type == FrameType::data && !may_judge_data(head)) return;
    last_ = head;
    if (head.type == FrameType::goaway) goaway_came_ = true;
    last_payload_ = bytes.substr(kFrameHeadBytes);
    std::string what = "  type " + std::to_string(static_cast<int>(head.type)) + " flags " +
                       std::to_string(head.flags) + " stream " + std::to_string(head.stream) + " length " +
                       std::to_string(head.length) + " \"";
    for (const char c : bytes.substr(kFrameHeadBytes, 96)) {
      if (c >= ' ' && c < '\x7f') {
        what += c;
      } else {
        constexpr char kDigits[] = "0123456789abcdef";
        what += {'\\', 'x', kDigits[static_cast<uint8_t>(c) >> 4], kDigits[c & 15]};
      }
    }
    give(bytes, what + '"');
  }
  // Ends return credit at different times. A frame that exceeds what one of them has given, and not what the other
  // has, says nothing.
  bool may_judge_data(const FrameHead& head) {
    const auto exceeds = [&](End& end) {
      const auto more = end.credit.streams.find(head.stream);
      const int64_t stream = kHttp2FirstWindow + (more == end.credit.streams.end() ? 0 : more->second);
      const auto bytes = static_cast<int64_t>(head.length);
      return std::pair(bytes > end.credit.connection, bytes > stream);
    };
    if (exceeds(*ours_) != exceeds(*theirs_)) return false;
    both([&](End& end) {
      end.credit.connection -= head.length;
      end.credit.streams[head.stream] -= head.length;
    });
    return true;
  }

  int32_t any_stream() {
    switch (choices_.below(16)) {
      case 0:
        return 0;
      case 1:
        return newest_ + 2;
      case 2:
        return 2;
      case 3:
        return 0x7fff'ffff;
      default:
        break;
    }
    if (newest_ < 1) return 1;
    const int32_t back = static_cast<int32_t>(choices_.below(4)) * 2;
    return std::max(newest_ - back, 1);
  }
  uint8_t flags_of(uint8_t likely) { return choices_.one_in(24) ? choices_.byte() : likely; }

  std::string one_field() {
    const Field& field = choices_.of(kOddFields);
    constexpr char kWays[] = {0x00, 0x00, 0x40, 0x10};
    return field_bytes(choices_.of(kWays), field.first, field.second);
  }
  std::string block_of_request() {
    std::vector<std::string> fields = {field_bytes(0, ":method", choices_.one_in(3) ? "POST" : "GET"),
                                       field_bytes(0, ":scheme", "http"), field_bytes(0, ":path", "/"),
                                       field_bytes(0x40, ":authority", "a")};
    return changed(fields);
  }
  std::string block_of_answer() {
    constexpr const char* kStatus[] = {"200", "200", "200", "204", "304", "100", "103"};
    std::vector<std::string> fields = {field_bytes(0, ":status", choices_.of(kStatus))};
    return changed(fields);
  }
  std::string changed(std::vector<std::string>& fields) {
    while (choices_.one_in(2) && fields.size() < 9) {
      const size_t place = choices_.below(fields.size() + 1);
      switch (choices_.below(8)) {
        case 0:
          if (place < fields.size()) fields.erase(fields.begin() + static_cast<ptrdiff_t>(place));
          break;
        case 1:
          if (place < fields.size()) fields.push_back(fields[place]);
          break;
        case 2:
          fields.emplace_back(1, static_cast<char>(choices_.byte()));  // often an index
          break;
        case 3:
          fields.push_back(field_bytes(0, "content-length", "5"));
          break;
        case 4:
          fields.insert(fields.begin() + static_cast<ptrdiff_t>(place), one_field());
          break;
        default:
          fields.push_back(one_field());
          break;
      }
    }
    std::string block;
    for (const std::string& field : fields) block += field;
    return block;
  }
  // In HEADERS and perhaps CONTINUATION.
  void give_block(int32_t id, std::string block, bool ends) {
    std::string payload;
    uint8_t flags = ends ? FrameFlags::end_stream : uint8_t{0};
    size_t padding = 0;
    if (choices_.one_in(8)) {
      flags |= FrameFlags::padded;
      padding = choices_.below(24);
      payload += static_cast<char>(choices_.one_in(8) ? choices_.byte() : padding);
    }
    if (choices_.one_in(8)) {
      flags |= FrameFlags::priority;
      payload += number_bytes(static_cast<uint32_t>(any_stream())) + static_cast<char>(choices_.byte());
    }
    size_t parts = choices_.one_in(6) ? choices_.below(12) : 0;
    std::string first = block;
    if (parts > 0) {
      first = block.substr(0, choices_.below(block.size() + 1));
      block.erase(0, first.size());
    } else {
      flags |= FrameFlags::end_headers;
    }
    give(FrameType::headers, flags_of(flags), id, payload + first + std::string(padding, '\0'));
    for (; parts > 0 && !over_; --parts) {
      const std::string part = parts == 1 ? block : block.substr(0, choices_.below(block.size() + 1));
      block.erase(0, part.size());
      const uint8_t last = parts == 1 ? FrameFlags::end_headers : uint8_t{0};
      give(FrameType::continuation, flags_of(last), choices_.one_in(32) ? any_stream() : id, part);
      if (choices_.one_in(64)) give(FrameType::ping, 0, 0, "between!");
    }
  }
  void give_settings() {
    constexpr uint16_t kIds[] = {1, 2, 3, 4, 5, 6, 8, 9, 0, 7, 0xffff};
    constexpr uint32_t kValues[] = {0,      1,      2,         3,          100,         16'383,      16'384,
                                    65'535, 65'536, 0xff'ffff, 0x100'0000, 0x7fff'ffff, 0x8000'0000, 0xffff'ffff};
    std::string payload;
    const size_t many = choices_.one_in(32) ? choices_.below(40) : choices_.below(3);
    for (size_t count = many; count > 0; --count) {
      const uint16_t id = choices_.of(kIds);
      payload += static_cast<char>(id >> 8);
      payload += static_cast<char>(id);
      payload += number_bytes(choices_.of(kValues));
    }
    if (choices_.one_in(32)) payload += 'x';
    give(FrameType::settings, flags_of(0), choices_.one_in(32) ? any_stream() : 0, payload);
  }
  void give_data() {
    const int32_t id = any_stream();
    constexpr size_t kLengths[] = {0, 1, 5, 5, 100, 16'384, 16'384, 16'385};
    const size_t bytes = choices_.of(kLengths);
    uint8_t flags = choices_.one_in(3) ? FrameFlags::end_stream : uint8_t{0};
    std::string payload;
    if (choices_.one_in(8) && bytes <= 100) {
      flags |= FrameFlags::padded;
      payload += static_cast<char>(choices_.below(12));
    }
    payload.append(bytes, 'd');
    const size_t times = bytes == 16'384 ? 1 + choices_.below(6) : 1;
    for (size_t i = 0; i < times && !over_; ++i) give(FrameType::data, flags_of(flags), id, payload);
  }
  void give_window_update() {
    constexpr uint32_t kMore[] = {1, 0, 100, 65'535, 0x7fff'ffff, 0x7ffe'0000, 0x8000'0001};
    std::string payload = number_bytes(choices_.of(kMore));
    if (choices_.one_in(32)) payload += 'x';
    give(FrameType::window_update, flags_of(0), any_stream(), payload);
  }
  std::string of_length(size_t bytes) {
    if (choices_.one_in(16)) bytes += choices_.below(3) - 1;
    return std::string(bytes, static_cast<char>(choices_.below(4)));
  }

  void one() {
    switch (choices_.below(24)) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4:
      case 5:
        if (role_ == Role::server) {
          const int32_t id = newest_ < 1 ? 1 : newest_ + 2;
          newest_ = id;
          return give_block(id, block_of_request(), choices_.one_in(2));
        }
        if (choices_.one_in(2) || newest_ < 1) return begin_request();
        return give_block(any_stream(), block_of_answer(), choices_.one_in(2));
      case 6:
        return give_block(any_stream(), role_ == Role::server ? block_of_request() : block_of_answer(),
                          choices_.one_in(2));
      case 7: {  // trailers
        std::vector<std::string> fields;
        return give_block(any_stream(), changed(fields), !choices_.one_in(8));
      }
      case 8:
      case 9:
      case 10:
        return give_data();
      case 11:
        return give(FrameType::rst_stream, flags_of(0), any_stream(), of_length(4));
      case 12:
      case 13:
        return give_settings();
      case 14:
        return give(FrameType::ping, flags_of(choices_.one_in(2) ? FrameFlags::ack : uint8_t{0}),
                    choices_.one_in(16) ? any_stream() : 0, of_length(8));
      case 15: {
        if (!choices_.one_in(3)) return;
        const std::string payload = number_bytes(static_cast<uint32_t>(any_stream())) + of_length(4);
        return give(FrameType::goaway, flags_of(0), choices_.one_in(16) ? any_stream() : 0, payload);
      }
      case 16:
        return give_window_update();
      case 17: {
        const std::string payload = number_bytes(static_cast<uint32_t>(any_stream())) + of_length(1);
        return give(FrameType::priority, flags_of(0), any_stream(), payload);
      }
      case 18:
        switch (choices_.below(8)) {
          case 0:
            return give(FrameType::continuation, flags_of(FrameFlags::end_headers), any_stream(), "");
          case 1:
            return give(FrameType::push_promise, flags_of(FrameFlags::end_headers), any_stream(), number_bytes(2));
          default:
            return give(choices_.of(kUnknownTypes), choices_.byte(), any_stream(), std::string(choices_.byte(), 'u'));
        }
      default:
        return act();
    }
  }

  // --- what our side does
  void begin_request() {
    if (requests_ >= 20 || goaway_came_) return;  // the user of a session begins none then
    constexpr const char* kMethods[] = {"GET", "GET", "HEAD", "CONNECT", "POST"};
    const char* const method = choices_.of(kMethods);
    const bool has_content = choices_.one_in(2);
    ++requests_;
    newest_ = newest_ < 1 ? 1 : newest_ + 2;
    log_ += "- request " + std::string(method) + (has_content ? " with content\n" : "\n");
    both([&](End& end) { end.request(newest_, method, has_content); });
    if (has_content) with_content_[newest_] = true;
    compare();
  }
  void act() {
    if (newest_ < 1) return;
    const int32_t id = std::max(newest_ - static_cast<int32_t>(choices_.below(6)) * 2, 1);
    const bool here = ours_->has(id), there = theirs_->has(id);
    switch (choices_.below(6)) {
      case 0:
      case 1:
        if (!here || !there) return;
        log_ += "- take " + std::to_string(id) + '\n';
        both([&](End& end) { end.take(id); });
        break;
      case 2: {
        if (!here || !there) return;
        constexpr Http2Error kErrors[] = {Http2Error::no_error, Http2Error::cancel, Http2Error::internal_error};
        const Http2Error error = choices_.of(kErrors);
        log_ += "- reset " + std::to_string(id) + '\n';
        both([&](End& end) { end.reset(id, error); });
        break;
      }
      case 3:
        if (role_ != Role::server || !choices_.one_in(8) || said_last_) return;
        said_last_ = true;
        log_ += "- goaway\n";
        both([](End& end) { end.goaway(); });
        break;
      default:
        if (!here || !there) return;
        if (role_ == Role::client) {
          if (!std::exchange(with_content_[id], false)) return;
          log_ += "- end of request " + std::to_string(id) + '\n';
          both([&](End& end) { end.end_request(id); });
        } else {
          if (answered_[id] == 2) return;
          const bool ends = answered_[id] == 1 || choices_.one_in(2);
          answered_[id] = ends ? 2 : 1;
          log_ += "- answer " + std::to_string(id) + (ends ? " whole\n" : "\n");
          both([&](End& end) { end.answer(id, ends); });
        }
        break;
    }
    compare();
  }

  // --- judgement
  bool on_purpose() const;
  void compare() {
    both([](End& end) { end.send(); });
    const Verdict& ours = ours_->verdict;
    const Verdict& theirs = theirs_->verdict;
    const std::string our_words = words_of(ours), their_words = words_of(theirs);
    // If both end the connection for the same reason, it does not matter what they say of its streams.
    const bool both_end = ours.ended && theirs.ended && ours.without_code == theirs.without_code;
    bool same = our_words == their_words || (both_end && ours.code == theirs.code);
    if (same && !ours.ended && ours_->send_window(0) != theirs_->send_window(0)) {
      same = false;
      log_ += "  windows of the connection: " + std::to_string(ours_->send_window(0)) + " and " +
              std::to_string(theirs_->send_window(0)) + '\n';
    }
    for (int32_t id = 1; same && !ours.ended && id <= newest_; id += 2) {
      const bool here = ours_->has(id), there = theirs_->has(id);
      if (here && there && std::max<int64_t>(ours_->send_window(id), 0) != theirs_->send_window(id)) {
        same = false;
        log_ += "  windows of stream " + std::to_string(id) + ": " + std::to_string(ours_->send_window(id)) + " and " +
                std::to_string(theirs_->send_window(id)) + '\n';
      }
    }
    // After GOAWAY and the last stream both take nothing. nghttp2 says so itself; ours leaves it to its user.
    if (same && !ours.ended && ours_->over() != theirs_->over()) {
      same = false;
      log_ += "  one of them is over\n";
    }
    if (!same && !on_purpose()) disagreement_ = log_ + "ours:    " + our_words + "\nnghttp2: " + their_words + '\n';
    over_ = !same || ours.ended || ours_->over();
    if (!over_) {
      ours_->verdict = {};
      theirs_->verdict = {};
    }
  }

  Choices choices_;
  const Role role_;
  std::unique_ptr<OurEnd> ours_;
  std::unique_ptr<TheirEnd> theirs_;
  int32_t newest_ = -1;  // the newest request
  size_t requests_ = 0;
  std::map<int32_t, bool> with_content_;  // requests whose content goes on
  std::map<int32_t, int> answered_;       // 1: a head was sent; 2: the last one
  bool said_last_ = false;
  bool goaway_came_ = false;
  FrameHead last_;  // the frame that was given last
  std::string last_payload_;
  bool over_ = false;
  std::string log_;
  std::string disagreement_;
};

bool Judge::on_purpose() const {
  return std::any_of(std::begin(kDifferences), std::end(kDifferences), [this](const Difference& each) {
    return each.applies({said_last_, last_, last_payload_, ours_->verdict, theirs_->verdict});
  });
}

}  // namespace
}  // namespace http2_judge

std::string judge_http2(const uint8_t* data, size_t bytes) { return http2_judge::Judge(data, bytes).run(); }

}  // namespace tidegate::l7
