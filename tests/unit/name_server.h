// SPDX-License-Identifier: Apache-2.0
// A name server whose answers the test changes, and its records in wire form.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/fd.h"
#include "core/ip.h"

namespace tidegate::testing {

inline void put_16(std::string& out, size_t value) {
  out += static_cast<char>(value >> 8);
  out += static_cast<char>(value);
}

inline std::string wire_name(const std::string& name) {
  std::string out;
  for (size_t at = 0; at < name.size();) {
    const size_t end = std::min(name.find('.', at), name.size());
    out += static_cast<char>(end - at);
    out += name.substr(at, end - at);
    at = end + 1;
  }
  return out + '\0';
}

inline std::string record_of(uint16_t type, uint32_t ttl, const std::string& data) {
  std::string out("\xc0\x0c", 2);  // the question's name
  put_16(out, type);
  put_16(out, 1);
  put_16(out, ttl >> 16);
  put_16(out, ttl & 0xffff);
  put_16(out, data.size());
  return out + data;
}

inline std::string address_record(const char* address, uint32_t ttl = 60) {
  const IpAddress parsed = *IpAddress::parse(address);
  return record_of(parsed.is_v4() ? 1 : 28, ttl, {reinterpret_cast<const char*>(parsed.bytes.data()), parsed.size()});
}

inline std::string srv_record(uint16_t priority, uint16_t weight, uint16_t port, const char* target,
                              uint32_t ttl = 60) {
  std::string data;
  for (const uint16_t value : {priority, weight, port}) put_16(data, value);
  return record_of(33, ttl, data + wire_name(target));
}

// Answers over UDP with the records that the test has set; NXDOMAIN for other names.
class NameServer {
 public:
  NameServer() : fd_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_storage address{};
    socklen_t length = Endpoint::parse("127.0.0.1:0")->to_sockaddr(address);
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    ::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &length);
    endpoint = Endpoint::from(address);
    thread_ = std::thread([this] { run(); });
  }
  ~NameServer() {
    ::shutdown(fd_.get(), SHUT_RDWR);
    thread_.join();
  }
  void set(const std::string& name, uint16_t type, std::vector<std::string> records) {
    const std::lock_guard lock(mutex_);
    records_[{wire_name(name), type}] = std::move(records);
  }
  std::atomic<bool> fails{false};  // SERVFAIL to everything
  std::atomic<size_t> asked{0};
  Endpoint endpoint;

 private:
  void run() {
    char bytes[512];
    sockaddr_storage peer{};
    for (socklen_t length = sizeof peer;; length = sizeof peer) {
      const ssize_t got = ::recvfrom(fd_.get(), bytes, sizeof bytes, 0, reinterpret_cast<sockaddr*>(&peer), &length);
      if (got <= 12) return;
      ++asked;
      const std::string answer = reply({bytes, static_cast<size_t>(got)});
      ::sendto(fd_.get(), answer.data(), answer.size(), 0, reinterpret_cast<sockaddr*>(&peer), length);
    }
  }
  std::string reply(const std::string& query) {
    const size_t end = query.find('\0', 12) + 1;
    const std::string question = query.substr(12, end + 4 - 12);
    const auto type =
        static_cast<uint16_t>(static_cast<uint8_t>(query[end]) << 8 | static_cast<uint8_t>(query[end + 1]));
    const std::lock_guard lock(mutex_);
    const auto found = records_.find({query.substr(12, end - 12), type});
    const size_t count = fails || found == records_.end() ? 0 : found->second.size();
    std::string out = query.substr(0, 2);
    put_16(out, 0x8180 | (fails ? 2 : found == records_.end() ? 3 : 0));
    for (const size_t value : {size_t{1}, count, size_t{0}, size_t{0}}) put_16(out, value);
    out += question;
    for (size_t i = 0; i < count; ++i) out += found->second[i];
    return out;
  }

  UniqueFd fd_;
  std::mutex mutex_;
  std::map<std::pair<std::string, uint16_t>, std::vector<std::string>> records_;
  std::thread thread_;
};

}  // namespace tidegate::testing
