// SPDX-License-Identifier: Apache-2.0
#include "l7/listener/client_connection.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>

#include "conf/model.h"
#include "conf/model/listener.h"
#include "core/clock.h"
#include "core/limits.h"
#include "core/tls_acme.h"
#include "core/vanished.h"
#include "l7/h2/frames.h"
#include "l7/limits.h"
#include "l7/listener/head_bound.h"
#include "l7/listener/listener.h"
#include "l7/worker.h"

namespace tidegate::l7 {
namespace {

// One counter for all workers, so no two connections of the process have the same number.
uint64_t next_connection_number() {
  static std::atomic<uint64_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

}  // namespace

ClientConnection::ClientConnection(Worker& worker, const Endpoint& peer, const Endpoint& bind, AddressTable::Hold hold,
                                   size_t index)
    : worker_(worker),
      transport_(worker.loop(), worker.blocks()),
      in_(worker.blocks()),
      timer_(worker.loop(),
             [this] {
               if (protocol_) {
                 protocol_->on_timer();
               } else {
                 close();  // no handshake, or no first byte, in time
               }
             }),
      address_hold_(std::move(hold)),
      bind_(bind),
      peer_text_(peer.address.to_string()),
      index_(index) {
  facts_.peer = peer;
  facts_.peer_text = peer_text_;
  facts_.connection = next_connection_number();
  pin_plan();
}

ClientConnection::~ClientConnection() { note_busy(); }

PlanPin ClientConnection::pin_plan() {
  if (request_begun_) facts_.handshake_ns = 0;
  request_begun_ = stage_ == Stage::talking;
  PlanPin pin = worker_.plan();
  const Plan& plan = pin->plan();
  if (plan.sequence == facts_of_) return pin;
  facts_of_ = plan.sequence;
  facts_.listener = find_listener(plan, bind_);
  // the listener was removed: the known facts are used until the connection ends
  if (facts_.listener == kNone) return pin;
  const Listener& listener = plan.model().listeners[facts_.listener];
  listener_name_ = listener.name;
  facts_.listener_number = plan.listener_names[facts_.listener];
  facts_.listener_name = listener_name_;
  facts_.port = destination_ ? destination_->port : bind_.port;
  facts_.peer_trusted = trusts(listener, facts_.peer.address);
  facts_.max_body_bytes = listener.max_body_bytes;
  facts_.merge_slashes = listener.merge_slashes;
  facts_.underscores_in_headers = listener.underscores_in_headers;
  facts_.via = listener.via;
  server_name_ = listener.server_name;
  facts_.patience = {listener.idle_timeout_ms * kNsPerMs, listener.minimum_rate_bytes};
  facts_.exchange_ns = listener.request_timeout_ms * kNsPerMs;
  limits_.header_timeout_ms = listener.header_timeout_ms;
  limits_.answer_half_closed = listener.answer_half_closed;
  limits_.idle_timeout_ms = listener.idle_timeout_ms;
  limits_.head_bytes = std::min(listener.max_header_bytes, kLargestHead);
  limits_.fields = std::min<size_t>(listener.max_fields, http1::kMaxFields);
  limits_.http2 = listener.http2;
  if (transport_.tls() != nullptr && stage_ == Stage::talking) judge_certificate(pin);
  return pin;
}

// A new version may trust other authorities, or bring a newer revocation list. An open connection is checked by it
// before its next request. If it is not accepted, that request gets 421 and the connection ends; a new connection is
// checked in its handshake.
void ClientConnection::judge_certificate(const PlanPin& pin) {
  const std::shared_ptr<TlsContext>& context = pin->listener_tls(facts_.listener);
  if (!context) return;
  const std::string& rules = client_rules_digest(*context);
  if (certificate_ ? rules == certificate_->rules : rules.empty()) return;
  facts_.certificate = nullptr;
  facts_.certificate_fault = judge_peer(*transport_.tls(), *context);
  if (facts_.certificate_fault != ClientCertificateFault::none) {
    return worker_.stats().count_refusal(facts_.certificate_fault);
  }
  if (!certificate_) certificate_ = std::make_unique<ClientCertificate>();
  certificate_->rules = rules;
  if (!rules.empty()) facts_.certificate = certificate_->shown.get();
}

std::string ClientConnection::server_name() const {
  if (!server_name_.empty()) return server_name_;
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getsockname(transport_.fd(), reinterpret_cast<sockaddr*>(&address), &length) != 0) return {};
  const IpAddress own = Endpoint::from(address).address;
  return own.is_v6() ? fmt::format("[{}]", own.to_string()) : own.to_string();
}

Endpoint ClientConnection::destination() const {
  if (destination_) return *destination_;
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getsockname(transport_.fd(), reinterpret_cast<sockaddr*>(&address), &length) != 0) return bind_;
  return Endpoint::from(address);
}

void ClientConnection::open(UniqueFd fd) {
  if (!transport_.open(std::move(fd), this)) return close();
  if (limits_.idle_timeout_ms > kVanishedMs) end_when_peer_vanishes(transport_.fd(), limits_.idle_timeout_ms);
  note_idle();
  timer_.arm_after_ms(limits_.header_timeout_ms);
  if (facts_.listener != kNone) {
    if (const std::shared_ptr<TlsContext>& tls = worker_.plan()->listener_tls(facts_.listener)) {
      stage_ = Stage::await_tls;
      tls_ = tls;
    }
    const Listener& listener = worker_.plan()->plan().model().listeners[facts_.listener];
    if (sends_proxy_header(listener, facts_.peer.address)) stage_ = Stage::await_proxy;
  }
  on_io(EPOLLIN);  // the first bytes have often come with the connection
}

void ClientConnection::on_io(uint32_t events) {
  transport_.note(events);
  switch (stage_) {
    case Stage::await_proxy:
      return on_proxy_header();
    case Stage::await_tls:
      return on_first_byte();
    case Stage::handshake:
      return on_handshake();
    case Stage::refused:
      return linger();
    case Stage::sniff:
      return on_sniff();
    case Stage::talking:
      return protocol_->on_ready();
    case Stage::closed:
      return;
  }
}

// The header is read from the socket only when it is complete, so that TLS finds the bytes that follow in the socket.
void ClientConnection::on_proxy_header() {
  std::array<char, kProxyHeaderBytes> bytes;
  const ssize_t got = ::recv(transport_.fd(), bytes.data(), bytes.size(), MSG_PEEK | MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) return close();
  const ProxyHeader header = parse_proxy_header({bytes.data(), static_cast<size_t>(got)});
  if (header.status == ProxyHeader::Status::incomplete) {
    if (transport_.peer_hung_up()) close();
    return;
  }
  if (header.status == ProxyHeader::Status::bad) {
    worker_.stats().proxy_headers_refused.add();
    return close();
  }
  if (::recv(transport_.fd(), bytes.data(), header.bytes, 0) != static_cast<ssize_t>(header.bytes)) return close();
  if (header.addresses && !take_client(*header.addresses)) return close();
  stage_ = tls_ ? Stage::await_tls : Stage::sniff;
  return tls_ ? on_first_byte() : on_sniff();
}

// From now on the connection belongs to the client that the header names. The client's address is admitted like any
// other.
bool ClientConnection::take_client(const ProxyAddresses& addresses) {
  AddressTable::Hold hold;
  const ConnectionRefusal refusal =
      worker_.admission().admit_address({transport_.fd(), addresses.source.address, worker_.loop().now_ns()}, hold);
  facts_.peer = addresses.source;
  peer_text_ = facts_.peer.address.to_string();
  facts_.peer_text = peer_text_;
  destination_ = addresses.destination;
  facts_of_ = 0;  // whether the peer is trusted must be decided again
  pin_plan();
  if (refusal != ConnectionRefusal::none && !facts_.peer_trusted) {
    worker_.stats().count_refusal(refusal);
    return false;
  }
  address_hold_ = std::move(hold);
  return true;
}

// A TLS connection begins with the type of a record (22). A letter begins a request in plain text. That is refused with
// an answer in plain text.
void ClientConnection::on_first_byte() {
  char first = 0;
  const ssize_t got = ::recv(transport_.fd(), &first, 1, MSG_PEEK | MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) return close();
  plain_on_tls_ = (first >= 'A' && first <= 'Z') || (first >= 'a' && first <= 'z');
  if (plain_on_tls_) {
    worker_.stats().tls_failures.add();
    tls_.reset();
    return talk(false);
  }
  stage_ = Stage::handshake;
  handshake_began_ns_ = worker_.loop().now_ns();
  transport_.start_tls(tls_, true);
  on_handshake();
}

void ClientConnection::on_handshake() {
  switch (transport_.handshake()) {
    case ProxyTransport::Status::blocked:
      return;
    case ProxyTransport::Status::closed:
    case ProxyTransport::Status::failed:
      return on_handshake_failed();
    case ProxyTransport::Status::ok:
      break;
  }
  const TlsStream& tls = *transport_.tls();
  worker_.stats().tls_handshakes.add();
  if (tls.resumed()) worker_.stats().tls_resumed.add();
  facts_.tls_version = tls.version();
  facts_.tls_resumed = tls.resumed();
  facts_.handshake_ns = monotonic_ns() - handshake_began_ns_;
  if (tls.alpn() == kAcmeTlsProtocol) {  // an authority has seen the certificate (RFC 8737 §3), and nothing follows
    worker_.stats().acme_answers.add();
    return close();
  }
  take_certificate(tls);
  talk(tls.alpn() == "h2");
}

void ClientConnection::take_certificate(const TlsStream& tls) {
  const std::shared_ptr<TlsContext> context = std::move(tls_);
  const std::string& rules = client_rules_digest(*context);
  if (rules.empty()) return;
  certificate_ = std::make_unique<ClientCertificate>(ClientCertificate{peer_certificate(tls), rules});
  facts_.certificate = certificate_->shown.get();
  if (certificate_->shown) worker_.stats().client_certificates.add();
}

// The alert that says why a certificate was refused has been sent. What the client has sent meanwhile is read:
// otherwise the kernel would answer it with a reset, which could destroy the alert on its way.
void ClientConnection::on_handshake_failed() {
  worker_.stats().tls_failures.add();
  const ClientCertificateFault fault =
      client_rules_digest(*tls_).empty() ? ClientCertificateFault::none : client_certificate_fault(*transport_.tls());
  if (fault == ClientCertificateFault::none) return close();
  worker_.stats().count_refusal(fault);
  stage_ = Stage::refused;
  ::shutdown(transport_.fd(), SHUT_WR);
  timer_.arm_after_ms(kHttp1LingerMs);
  linger();
}

void ClientConnection::linger() {
  std::array<char, 4096> bytes;
  for (;;) {
    const ssize_t got = ::recv(transport_.fd(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) return close();
    lingered_bytes_ += static_cast<uint32_t>(got);
    if (lingered_bytes_ > kClientCertLingerBytes) return close();
  }
}

void ClientConnection::on_sniff() {
  if (!limits_.http2) return talk(false);
  const ProxyTransport::Status status = transport_.fill(in_);
  if (in_.empty()) {
    if (status != ProxyTransport::Status::blocked) close();
    return;
  }
  const std::string_view begun = in_.bytes().substr(0, kHttp2Preface.size());
  if (begun != kHttp2Preface.substr(0, begun.size())) return talk(false);
  if (begun.size() == kHttp2Preface.size()) return talk(true);
  if (status != ProxyTransport::Status::ok && status != ProxyTransport::Status::blocked) close();
}

void ClientConnection::talk(bool http2) {
  stage_ = Stage::talking;
  if (worker_.request_ring() != nullptr) {
    reached_ = destination();
    facts_.destination = &reached_;
  }
  protocol_ = http2 ? make_http2(*this) : make_http1(*this);
  // In a drain, HTTP/1 has one more request, whose answer ends the connection. Often it has come already.
  if (worker_.draining() && http2) worker_.leaving() ? protocol_->leave() : protocol_->drain();
  if (!closed()) protocol_->on_ready();
}

void ClientConnection::drain() {
  if (protocol_) return protocol_->drain();
  // It may finish its handshake and send one request, if it does so now.
  if (stage_ != Stage::refused) timer_.arm_after_ms(patience_for_head_ms(limits_.header_timeout_ms));
}

uint64_t ClientConnection::patience_for_head_ms(uint64_t usual_ms) const {
  return worker_.draining() && !worker_.leaving() ? std::min(usual_ms, kDrainHeadMs) : usual_ms;
}

void ClientConnection::leave() {
  if (protocol_) protocol_->leave();
}

void ClientConnection::recycle() {
  if (protocol_) return protocol_->recycle();
  close();
}

void ClientConnection::note_idle() {
  if (!closed()) worker_.admission().note_idle(*this);
}

void ClientConnection::note_busy() { worker_.admission().note_busy(*this); }

void ClientConnection::charge_address(uint64_t tokens) {
  if (!facts_.peer_trusted) worker_.admission().charge(facts_.peer.address, tokens);
}

void ClientConnection::close_in_order() {
  transport_.shut_write();
  close();
}

void ClientConnection::close() {
  if (stage_ == Stage::closed) return;
  stage_ = Stage::closed;
  if (protocol_) protocol_->on_closing();
  worker_.admission().note_busy(*this);
  address_hold_ = {};
  timer_.cancel();
  transport_.close();
  worker_.bury(this);
}

}  // namespace tidegate::l7
