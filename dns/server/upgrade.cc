// SPDX-License-Identifier: Apache-2.0
// How the server hands over to another process, and how it takes over from one.
#include <sys/socket.h>

#include "dns/server/server.h"

namespace tidegate::dns {

std::vector<LentSocket> Server::sockets() const {
  std::vector<LentSocket> lent;
  if (!listeners_) return lent;
  for (const auto& udp : listeners_->udp) {
    lent.push_back({{HandOverItemKind::datagram, udp->udp->endpoint()}, udp->udp->fd()});
  }
  for (const auto& stream : listeners_->streams) {
    for (const auto& [endpoint, fd] : stream->sockets()) lent.push_back({{HandOverItemKind::stream, endpoint}, fd});
  }
  return lent;
}

void Server::inherit(const HandOverItem& item, UniqueFd socket) {
  const bool is_stream = item.kind == HandOverItemKind::stream;
  if (!is_stream && item.kind != HandOverItemKind::datagram) return;
  held_ports_.adopt(item.endpoint, is_stream ? SOCK_STREAM : SOCK_DGRAM, std::move(socket));
}

// The previous process had more workers. None of its sockets is closed, because queries may wait in each.
Result<void> Server::open_inherited(Listeners& listeners) {
  for (const Endpoint& endpoint : listeners.node.listen) {
    while (held_ports_.holds_more(endpoint, SOCK_DGRAM)) {
      if (Result<void> added = add_udp(endpoint, listeners); !added) return added;
    }
    for (size_t i = 0; held_ports_.holds_more(endpoint, SOCK_STREAM); ++i) {
      StreamWorker& stream = *listeners.streams[i % listeners.streams.size()];
      if (Result<void> added = stream.add_tcp(endpoint, held_ports_); !added) return added;
    }
  }
  for (const Endpoint& endpoint : listeners.node.httpdns_listen) {
    for (size_t i = 0; held_ports_.holds_more(endpoint, SOCK_STREAM); ++i) {
      StreamWorker& stream = *listeners.streams[i % listeners.streams.size()];
      if (Result<void> added = stream.add_http(endpoint, held_ports_); !added) return added;
    }
  }
  return {};
}

void Server::let_go() {
  if (!listeners_ || !listeners_->xdp) return;
  listeners_->xdp->stop();
  retire_xdp();
  xdp_let_go_ = true;
}

void Server::take_back() {
  if (!std::exchange(xdp_let_go_, false) || !listeners_ || listeners_->node.xdp.empty()) return;
  listeners_->xdp = std::make_unique<XdpFront>(listeners_->node, udp_endpoints(), publisher_, cookie_secret_);
}

void Server::leave() {
  if (!listeners_) return;
  for (const auto& udp : listeners_->udp) udp->udp->leave();
  for (const auto& stream : listeners_->streams) stream->leave();
}

size_t Server::connections_left() const {
  size_t left = 0;
  if (!listeners_) return left;
  for (const auto& stream : listeners_->streams) left += stream->connections_left();
  return left;
}

}  // namespace tidegate::dns
