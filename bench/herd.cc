// SPDX-License-Identifier: Apache-2.0
// Many clients that ask for the same thing at once, and an origin that answers slowly.
//
//  herd origin PORT DELAY_MS BODY_BYTES CACHE_CONTROL
//    waits, then sends the whole answer; GET /count tells how many it has answered
//  herd clients ADDRESS:PORT PATH COUNT
//    connects COUNT clients, then all ask at once
//    prints: count, first_byte_p50_us, first_byte_p99_us, whole_p50_us, whole_p99_us
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "core/clock.h"
#include "core/ip.h"

namespace {

using tidegate::Endpoint;
using tidegate::monotonic_ns;

constexpr size_t kMaxDescriptors = 20'000;

[[noreturn]] void die(const char* what) {
  std::perror(what);
  std::exit(1);
}

void watch(int epoll, int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  if (::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) die("herd: epoll_ctl");
}

// --- the origin

class Origin {
 public:
  Origin(uint64_t delay_ns, size_t body_bytes, const std::string& cache_control) : delay_ns_(delay_ns) {
    answer_ =
        "HTTP/1.1 200 OK\r\nCache-Control: " + cache_control + "\r\nContent-Type: text/plain\r\n" + ending(body_bytes);
    answer_ += std::string(body_bytes, 'x');
  }

  [[noreturn]] void run(uint16_t port) {
    const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    const int one = 1;
    ::setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    sockaddr_storage storage;
    const socklen_t length = Endpoint::parse("127.0.0.1:" + std::to_string(port))->to_sockaddr(storage);
    if (::bind(listener, reinterpret_cast<sockaddr*>(&storage), length) != 0 || ::listen(listener, 8192) != 0)
      die("herd: listen");
    epoll_ = ::epoll_create1(0);
    watch(epoll_, listener);
    for (;;) {
      epoll_event events[256];
      const int ready = ::epoll_wait(epoll_, events, 256, timeout_ms());
      for (int i = 0; i < ready; ++i) {
        if (events[i].data.fd == listener) {
          accept_all(listener);
        } else {
          read(events[i].data.fd);
        }
      }
      send_due();
    }
  }

 private:
  struct Due {
    uint64_t at_ns;
    int fd;
  };

  static std::string ending(size_t body_bytes) { return "Content-Length: " + std::to_string(body_bytes) + "\r\n\r\n"; }

  int timeout_ms() const {
    if (due_.empty()) return -1;
    const uint64_t now_ns = monotonic_ns();
    return due_.front().at_ns <= now_ns ? 0 : static_cast<int>((due_.front().at_ns - now_ns) / 1'000'000);
  }

  void accept_all(int listener) {
    for (int client; (client = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK)) >= 0;) watch(epoll_, client);
  }

  // Requests are small and arrive complete.
  void read(int fd) {
    char buffer[16384];
    const ssize_t got = ::recv(fd, buffer, sizeof buffer, 0);
    if (got == 0 || (got < 0 && errno != EAGAIN)) {
      std::erase_if(due_, [fd](const Due& due) { return due.fd == fd; });
      ::close(fd);
    } else if (got > 0 && std::string_view(buffer, static_cast<size_t>(got)).starts_with("GET /count ")) {
      const std::string number = std::to_string(answered_);
      send_all(fd, "HTTP/1.1 200 OK\r\n" + ending(number.size()) + number);
    } else if (got > 0) {
      due_.push_back({monotonic_ns() + delay_ns_, fd});
    }
  }

  void send_due() {
    while (!due_.empty() && due_.front().at_ns <= monotonic_ns()) {
      const int fd = due_.front().fd;
      due_.pop_front();
      ++answered_;
      send_all(fd, answer_);
    }
  }

  static void send_all(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0 && errno != EAGAIN) return;
      if (sent > 0) bytes.remove_prefix(static_cast<size_t>(sent));
    }
  }

  const uint64_t delay_ns_;
  std::string answer_;
  int epoll_ = -1;
  std::deque<Due> due_;  // in order, because every request waits equally long
  size_t answered_ = 0;
};

// --- the clients

struct Client {
  uint64_t first_byte_ns = 0, whole_ns = 0;
  size_t expected_bytes = 0, got_bytes = 0;  // head and body
};

// The size of an answer with Content-Length, or 0 while its head is not complete.
size_t whole_bytes(std::string_view head) {
  const size_t end = head.find("\r\n\r\n");
  if (end == std::string_view::npos) return 0;
  std::string lower(head.substr(0, end));
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  const size_t field = lower.find("\r\ncontent-length:");
  if (!lower.starts_with("http/1.1 200") || field == std::string::npos) {
    std::fprintf(stderr, "herd: not what was expected: %s\n", lower.c_str());
    std::exit(1);
  }
  return end + 4 + static_cast<size_t>(std::atol(lower.c_str() + field + 17));
}

// The given percentile of `times_ns`, in microseconds.
unsigned long percentile_us(std::vector<uint64_t>& times_ns, size_t percent) {
  std::sort(times_ns.begin(), times_ns.end());
  return times_ns[(times_ns.size() - 1) * percent / 100] / 1000;
}

int clients(const Endpoint& server, const std::string& path, size_t count) {
  const int epoll = ::epoll_create1(0);
  std::vector<Client> all(kMaxDescriptors);
  std::vector<int> fds;
  for (size_t i = 0; i < count; ++i) {
    sockaddr_storage storage;
    const socklen_t length = server.to_sockaddr(storage);
    const int fd = ::socket(storage.ss_family, SOCK_STREAM, 0);
    if (fd < 0 || ::connect(fd, reinterpret_cast<sockaddr*>(&storage), length) != 0) die("herd: connect");
    watch(epoll, fd);
    fds.push_back(fd);
  }
  const std::string request = "GET " + path + " HTTP/1.1\r\nHost: www.example.test\r\n\r\n";
  const uint64_t began_ns = monotonic_ns();
  for (const int fd : fds) {
    if (::send(fd, request.data(), request.size(), MSG_NOSIGNAL) < 0) die("herd: send");
  }
  static char buffer[1 << 18];
  for (size_t open = count; open > 0;) {
    epoll_event events[256];
    const int ready = ::epoll_wait(epoll, events, 256, 30'000);
    if (ready <= 0) die("herd: nothing came for 30 s");
    for (int i = 0; i < ready; ++i) {
      Client& client = all[static_cast<size_t>(events[i].data.fd)];
      const ssize_t got = ::recv(events[i].data.fd, buffer, sizeof buffer, MSG_DONTWAIT);
      if (got < 0 && errno == EAGAIN) continue;
      if (got <= 0) die("herd: an answer broke off");
      const uint64_t now_ns = monotonic_ns();
      if (client.got_bytes == 0) {
        client.first_byte_ns = now_ns - began_ns;
        client.expected_bytes = whole_bytes({buffer, static_cast<size_t>(got)});
      }
      client.got_bytes += static_cast<size_t>(got);
      if (client.whole_ns == 0 && client.got_bytes >= client.expected_bytes) {
        client.whole_ns = now_ns - began_ns;
        --open;
      }
    }
  }
  std::vector<uint64_t> first_ns, whole_ns;
  for (const int fd : fds) {
    first_ns.push_back(all[static_cast<size_t>(fd)].first_byte_ns);
    whole_ns.push_back(all[static_cast<size_t>(fd)].whole_ns);
    ::close(fd);
  }
  std::printf("%zu %lu %lu %lu %lu\n", count, percentile_us(first_ns, 50), percentile_us(first_ns, 99),
              percentile_us(whole_ns, 50), percentile_us(whole_ns, 99));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 6 && std::strcmp(argv[1], "origin") == 0) {
    Origin(static_cast<uint64_t>(std::atoll(argv[3])) * 1'000'000, static_cast<size_t>(std::atoll(argv[4])), argv[5])
        .run(static_cast<uint16_t>(std::atoi(argv[2])));
  }
  const auto server = argc == 5 && std::strcmp(argv[1], "clients") == 0 ? Endpoint::parse(argv[2]) : std::nullopt;
  const auto count = argc == 5 ? static_cast<size_t>(std::atoll(argv[4])) : 0;
  if (!server || count == 0 || count > kMaxDescriptors - 100) {
    std::fprintf(
        stderr,
        "usage: herd origin PORT DELAY_MS BODY_BYTES CACHE_CONTROL\n       herd clients ADDRESS:PORT PATH COUNT\n");
    return 2;
  }
  return clients(*server, argv[3], count);
}
