// SPDX-License-Identifier: Apache-2.0
#include "control/options.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>

#include "conf/manual.h"

namespace tidegate {

namespace {

void read_endpoint(const std::string& text, std::optional<Endpoint>& endpoint) {
  endpoint = Endpoint::parse(text);
  if (!endpoint) throw CLI::ValidationError(text + " is not ADDRESS:PORT");
}

std::string host_name() {
  std::array<char, 256> buffer{};
  return ::gethostname(buffer.data(), buffer.size() - 1) == 0 ? std::string(buffer.data()) : "localhost";
}

}  // namespace

ControlOptions parse_control_options(int argc, char** argv) {
  ControlOptions options;
  CLI::App app(
      "The control plane: keeps the edge's configuration in versions, answers the REST API, probes backends.\n"
      "It is the one writer of its host's state; the planes of the host follow that state.\n"
      "Example: tidegate-control --state /var/lib/tidegate --run /run/tidegate --listen 192.0.2.1:9090 --tokens tokens"
      " --tls-certificate control.crt --tls-key control.key");
  app.set_version_flag("--version", std::string("tidegate ") + TIDEGATE_VERSION);
  app.add_option("--state", options.state_dir, "directory of the state")->capture_default_str();
  app.add_option("--run", options.run_dir, "directory of the sockets: control.sock and the planes'")
      ->capture_default_str();
  app.add_option("--node", options.node,
                 "this host's name in the configuration (default: its host name, or the only node)");
  CLI::Option* listen = app.add_option_function<std::string>(
                               "--listen", [&](const std::string& text) { read_endpoint(text, options.listen); },
                               "ADDRESS:PORT of the API over TCP, besides the unix socket")
                            ->type_name("ADDRESS:PORT");
  CLI::Option* tokens = app.add_option("--tokens", options.tokens_file,
                                       "lines ROLE TOKEN [name]; roles: viewer, operator, publisher, admin, replica");
  listen->needs(tokens);
  CLI::Option* certificate = app.add_option("--tls-certificate", options.tls_certificate_file,
                                            "PEM chain of --listen, naming its address; SIGHUP reads it again");
  CLI::Option* key = app.add_option("--tls-key", options.tls_key_file, "its private key");
  certificate->needs(listen, key);
  key->needs(certificate);
  app.add_flag("--insecure", options.insecure,
               "let tokens and private keys cross the network in clear: without TLS, only loopback addresses will do");
  CLI::Option* follow = app.add_option_function<std::string>(
                               "--follow", [&](const std::string& text) { read_endpoint(text, options.follow); },
                               "adopt that control's state into this host's; writes are then refused here")
                            ->type_name("ADDRESS:PORT");
  app.add_option("--peer-token-file,--follow-token-file", options.peer_token_file,
                 "the token presented to other controls (default: the first replica token of --tokens)");
  app.add_option("--peer-ca", options.peer_ca_file,
                 "PEM roots of the other controls' certificates: they are spoken to by TLS");
  app.add_option("--config", options.config, "document committed as the first version when the state is empty")
      ->excludes(follow);
  app.add_option("--prepare-timeout", options.prepare_timeout_ms,
                 "milliseconds that a plane which answers may take to prepare a version; then it counts as refused")
      ->check(CLI::Range(uint64_t{100}, uint64_t{20'000}))
      ->capture_default_str();
  app.add_option("--keep-versions", options.versions_kept, "how many versions stay to be rolled back to, the newest")
      ->check(CLI::Range(size_t{2}, size_t{100'000}))
      ->capture_default_str();
  app.add_option("--secrets-group", options.secrets_group,
                 "group that may read the private keys in the state: its members are the users of this process and of "
                 "tidegate-l7 (default: as the directory STATE/secrets stands; a new one is its owner's alone)");
  app.add_option("--secret", options.secret_file, "file with the site's secret");
  app.add_flag("--verbose", options.verbose, "log more");
  add_manual_option(app, {"tidegate-control", 8, "the control plane of an edge"});
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::exit(app.exit(error) == 0 ? 0 : 2);
  }
  options.node_told = !options.node.empty();
  if (!options.node_told) options.node = host_name();
  return options;
}

}  // namespace tidegate
