// SPDX-License-Identifier: Apache-2.0
// NameLookup: asks resolvers by c-ares, on an event loop. It is one c-ares channel, whose sockets and timeouts are in
// the loop. Every question gets one answer, at once or in a later round.
//
// Threads: the loop's.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/event_loop.h"
#include "core/ip.h"

struct ares_channeldata;

namespace tidegate {

class NameLookup {
 public:
  enum class Type : uint16_t { a = 1, aaaa = 28, srv = 33 };
  struct Service {  // of an SRV record
    std::string target;
    uint16_t priority = 0, weight = 0, port = 0;
    auto operator<=>(const Service&) const = default;
  };
  struct Answer {
    enum class Kind : uint8_t {
      found,
      none,    // the name does not exist, or has nothing of this type
      failed,  // no resolver gave a usable answer; `reason` says why
    };
    Kind kind = Kind::failed;
    std::vector<IpAddress> addresses;  // sorted
    std::vector<Service> services;     // sorted
    uint32_t ttl_s = 0;                // the smallest on the way to the records, aliases included
    std::string reason;
  };
  using Done = std::function<void(Answer&&)>;

  // If `resolvers` is empty, those of /etc/resolv.conf are asked.
  NameLookup(EventLoop& loop, const std::vector<Endpoint>& resolvers);
  ~NameLookup();  // questions that are under way get no answer
  NameLookup(const NameLookup&) = delete;
  NameLookup& operator=(const NameLookup&) = delete;

  void ask(const std::string& name, Type type, Done done);

 private:
  struct Question;
  class Socket;
  void arm();
  static void on_answer(void* question, int status, int timeouts, unsigned char* message, int bytes);
  static void on_socket(void* self, int fd, int readable, int writable);

  EventLoop& loop_;
  ares_channeldata* channel_ = nullptr;
  std::string trouble_;  // why there is no channel
  std::map<int, std::unique_ptr<Socket>> sockets_;
  std::vector<std::unique_ptr<Question>> questions_;
  Timer timeout_;
  bool closing_ = false;
};

// The smallest TTL of the records in the answer section of a DNS message. c-ares 1.18 reports no TTL for SRV records. 0
// if the message is broken or has no records.
uint32_t smallest_ttl(std::string_view message);

}  // namespace tidegate
