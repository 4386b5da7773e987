// SPDX-License-Identifier: Apache-2.0
#include "control/hosts/peers.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "control/options.h"

namespace tidegate {

namespace {

Result<std::string> read_pem(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(fmt::format("cannot read {}: {}", path, std::strerror(errno)));
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

bool is_loopback(const IpAddress& address) {
  const IpAddress plain = address.unmapped();
  return plain.is_v4() ? plain.bytes[0] == 127 : plain == *IpAddress::parse("::1");
}

Result<HttpTarget> Peers::target(const Endpoint& control) const {
  HttpTarget target;
  target.endpoint = control;
  if (!ca_pem.empty()) {
    target.tls = target.tls_verify = true;
    target.tls_ca_pem = ca_pem;
    target.tls_server_name = control.address.to_string();
  } else if (!insecure && !is_loopback(control.address)) {
    return fail(
        fmt::format("{} would be spoken to in clear, tokens and keys included: --peer-ca FILE has TLS, "
                    "--insecure allows it",
                    control.to_string()));
  }
  return target;
}

HttpClientRequest Peers::request(const Endpoint& control) const {
  HttpClientRequest request;
  request.host = control.to_string();
  if (!token.empty()) request.headers.emplace_back("Authorization", "Bearer " + token);
  return request;
}

Result<Peers> load_peers(const ControlOptions& options, std::string token) {
  Peers peers;
  peers.token = std::move(token);
  peers.insecure = options.insecure;
  if (!options.peer_ca_file.empty()) {
    Result<std::string> pem = read_pem(options.peer_ca_file);
    if (!pem) return fail("--peer-ca: " + pem.error().message);
    peers.ca_pem = std::move(*pem);
    TlsClientOptions probe;
    probe.verify = true;
    probe.ca_pem = peers.ca_pem;
    if (const auto context = TlsContext::client(probe); peers.ca_pem.empty() || !context) {
      return fail(fmt::format("--peer-ca: {}: {}", options.peer_ca_file,
                              context ? "the file is empty" : context.error().message));
    }
  }
  if (options.follow) {
    if (Result<HttpTarget> leader = peers.target(*options.follow); !leader) return leader.error();
  }
  return peers;
}

Result<std::shared_ptr<TlsContext>> listener_tls(const ControlOptions& options) {
  const bool with_tls = !options.tls_certificate_file.empty() || !options.tls_key_file.empty();
  if (!with_tls) {
    if (options.listen && !options.insecure && !is_loopback(options.listen->address)) {
      return fail(
          fmt::format("--listen {} would be in clear, tokens and keys included: --tls-certificate and --tls-key "
                      "have TLS, --insecure allows it",
                      options.listen->to_string()));
    }
    return std::shared_ptr<TlsContext>();
  }
  if (options.tls_certificate_file.empty() || options.tls_key_file.empty()) {
    return fail("--tls-certificate and --tls-key belong together");
  }
  TlsIdentity identity;
  for (const auto& [path, pem] : {std::pair(&options.tls_certificate_file, &identity.certificate_pem),
                                  std::pair(&options.tls_key_file, &identity.key_pem)}) {
    Result<std::string> text = read_pem(*path);
    if (!text) return text.error();
    *pem = std::move(*text);
  }
  if (const auto sound = inspect_identity(identity); !sound) {
    return fail(fmt::format("--tls-certificate {}: {}", options.tls_certificate_file, sound.error().message));
  }
  TlsServerOptions server;
  server.identities = {std::move(identity)};
  server.alpn = {"http/1.1"};
  return TlsContext::server(server);
}

}  // namespace tidegate
