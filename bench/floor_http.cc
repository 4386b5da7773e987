// SPDX-License-Identifier: Apache-2.0
// The floor of HTTP: an epoll loop that reads, finds the end of the head and writes a canned response; nothing else.
// Its cost is the kernel's cost. It is also the origin of proxied runs, so that the origin does not limit the
// measurement.
//
//  floor_http ADDRESS:PORT BODY_BYTES [MAX_AGE_SECONDS]
//  floor_http ADDRESS:PORT @FILE    the file's content, as JSON
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>

#include "core/ip.h"

namespace {

// The unread bytes of one connection. The buffer is small because requests are small.
struct Connection {
  char buffer[16384];
  size_t filled;  // set when the connection is accepted
};

// Answers every complete head in the buffer with one write. Returns false when the connection is over.
bool serve(int fd, Connection& connection, const std::string& response, std::string& out) {
  const ssize_t got =
      ::recv(fd, connection.buffer + connection.filled, sizeof connection.buffer - connection.filled, 0);
  if (got <= 0) return got < 0 && errno == EAGAIN;
  connection.filled += static_cast<size_t>(got);
  std::string_view rest(connection.buffer, connection.filled);
  out.clear();
  for (size_t end; (end = rest.find("\r\n\r\n")) != std::string_view::npos; rest.remove_prefix(end + 4))
    out += response;
  std::copy(rest.begin(), rest.end(), connection.buffer);
  connection.filled = rest.size();
  // A canned answer of up to 100 kB may not fit into the socket buffer at once. Then wait as a blocking server would.
  for (size_t sent = 0; sent < out.size();) {
    const ssize_t n = ::send(fd, out.data() + sent, out.size() - sent, MSG_NOSIGNAL);
    if (n > 0) {
      sent += static_cast<size_t>(n);
    } else if (errno == EAGAIN) {
      fd_set writable;
      FD_ZERO(&writable);
      FD_SET(fd, &writable);
      ::select(fd + 1, nullptr, &writable, nullptr, nullptr);
    } else {
      return false;
    }
  }
  return true;
}

std::string canned_response(char** argv, int argc) {
  const bool from_file = argv[2][0] == '@';
  std::string body(from_file ? 0 : static_cast<size_t>(std::atol(argv[2])), 'x');
  if (from_file) {
    std::ifstream file(argv[2] + 1, std::ios::binary);
    body.assign(std::istreambuf_iterator<char>(file), {});
  }
  std::string response = "HTTP/1.1 200 OK\r\nServer: floor\r\nContent-Type: ";
  response += from_file ? "application/json\r\n" : "text/plain\r\n";
  if (argc > 3) response += std::string("Cache-Control: max-age=") + argv[3] + "\r\n";
  return response + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

}  // namespace

int main(int argc, char** argv) {
  const auto endpoint = argc >= 3 ? tidegate::Endpoint::parse(argv[1]) : std::nullopt;
  if (!endpoint) {
    std::fprintf(stderr, "usage: floor_http ADDRESS:PORT BODY_BYTES|@FILE [MAX_AGE_SECONDS]\n");
    return 2;
  }
  const std::string response = canned_response(argv, argc);

  // Not cleared: to touch all of it takes a second on some machines, in which nobody is answered.
  const auto connections = std::make_unique_for_overwrite<Connection[]>(20'000);
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  const int one = 1;
  ::setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  sockaddr_storage storage;
  const socklen_t length = endpoint->to_sockaddr(storage);
  if (::bind(listener, reinterpret_cast<sockaddr*>(&storage), length) != 0 || ::listen(listener, 4096) != 0) {
    std::perror("floor_http: listen");
    return 1;
  }
  const int epoll = ::epoll_create1(0);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = listener;
  ::epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
  std::string out;
  for (;;) {
    epoll_event events[256];
    const int ready = ::epoll_wait(epoll, events, 256, -1);
    for (int i = 0; i < ready; ++i) {
      const int fd = events[i].data.fd;
      if (fd == listener) {
        for (int client; (client = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK)) >= 0;) {
          ::setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
          connections[static_cast<size_t>(client)].filled = 0;
          event.events = EPOLLIN;
          event.data.fd = client;
          ::epoll_ctl(epoll, EPOLL_CTL_ADD, client, &event);
        }
      } else if (!serve(fd, connections[static_cast<size_t>(fd)], response, out)) {
        ::close(fd);
      }
    }
  }
}
