// SPDX-License-Identifier: Apache-2.0
// tidegate-decap: makes any Linux host a backend of the forwarder's tunnels (ipip and gue). It takes the packets out of
// their outer headers and gives them to the kernel through a TUN device. The host holds the VIP and answers clients
// directly. It needs no kernel module. vxlan needs no decapsulator, because the kernel has one.
#include <fmt/format.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>

#include "conf/manual.h"
#include "core/exit_status.h"
#include "core/http_server.h"
#include "core/log.h"
#include "core/metrics.h"
#include "core/service_manager.h"
#include "l4/decap/receiver.h"

namespace tidegate::l4 {
namespace {

struct Options {
  std::string device = "tg-decap", run_dir = "/run/tidegate";
  std::vector<std::string> from, to, peers;
  uint16_t gue_port = 6'080;
};

Result<std::vector<Cidr>> parse_prefixes(const std::vector<std::string>& texts) {
  std::vector<Cidr> out;
  for (const std::string& text : texts) {
    const std::optional<Cidr> prefix = Cidr::parse(text);
    if (!prefix) return fail(fmt::format("'{}' is not a prefix such as 192.0.2.0/24", text));
    out.push_back(*prefix);
  }
  return out;
}

class StopSignals final : private IoHandler {
 public:
  // Call before any thread starts: all threads must block the signals.
  explicit StopSignals(EventLoop& loop) : loop_(loop) {
    sigset_t set;
    ::sigemptyset(&set);
    ::sigaddset(&set, SIGTERM);
    ::sigaddset(&set, SIGINT);
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
    fd_ = UniqueFd(::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
    loop_.add(fd_.get(), EPOLLIN, this);
  }
  ~StopSignals() { loop_.remove(fd_.get()); }

 private:
  void on_io(uint32_t) override { loop_.stop(); }
  EventLoop& loop_;
  UniqueFd fd_;
};

Result<void> run(const Options& options) {
  DecapConfig config;
  config.gue_port = options.gue_port;
  Result<std::vector<Cidr>> from = parse_prefixes(options.from), to = parse_prefixes(options.to);
  Result<std::vector<Cidr>> peers = parse_prefixes(options.peers);
  if (!from) return from.error();
  if (!to) return to.error();
  config.from = *std::move(from);
  if (!peers) return peers.error();
  config.to = *std::move(to);
  config.peers = *std::move(peers);

  EventLoop loop;
  StopSignals signals(loop);
  DecapCounters counters(metrics());
  Result<TunDevice> device = TunDevice::open(options.device);
  if (!device) return device.error();
  std::unique_ptr<HandOn> hand_on;
  if (!config.peers.empty()) {
    Result<HandOn> opened = HandOn::open(config.peers, config.gue_port);
    if (!opened) return opened.error();
    hand_on = std::make_unique<HandOn>(*std::move(opened));
  }
  std::vector<std::unique_ptr<Receiver>> receivers;
  for (const Wrapping wrapping : {Wrapping::ip4_in_ip4, Wrapping::ip6_in_ip4, Wrapping::ip4_in_ip6,
                                  Wrapping::ip6_in_ip6, Wrapping::gue_in_ip4, Wrapping::gue_in_ip6}) {
    Result<std::unique_ptr<Receiver>> receiver =
        Receiver::open(loop, wrapping, config, *device, hand_on.get(), counters);
    if (!receiver) return receiver.error();
    receivers.push_back(*std::move(receiver));
  }
  HttpServer admin(loop, [](HttpExchangePtr exchange) {
    const std::string& path = exchange->request().path;
    if (path == "/healthz") return exchange->respond(HttpResponse::text(200, "ok\n"));
    if (path == "/metrics") return exchange->respond(HttpResponse::text(200, metrics().prometheus_text()));
    exchange->respond(HttpResponse::problem(404, "Not Found", "the paths are /healthz and /metrics"));
  });
  ServiceManager manager(loop);
  if (Result<void> listening = admin.listen_unix(options.run_dir + "/decap.sock"); !listening) return listening;
  log_info("device {}: ipip by raw sockets, gue at UDP port {}", options.device, options.gue_port);
  manager.ready({});
  loop.run();
  return {};
}

}  // namespace
}  // namespace tidegate::l4

int main(int argc, char** argv) {
  tidegate::l4::Options options;
  CLI::App app{
      "Takes packets of the forwarder's tunnels (ipip, gue) out of their outer headers and gives them to the "
      "kernel."};
  app.set_version_flag("--version", std::string("tidegate ") + TIDEGATE_VERSION);
  app.add_option("--from", options.from, "prefix of the forwarders' addresses; others are dropped")
      ->required()
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--to", options.to, "prefix of the VIPs; packets inside for other addresses are dropped")
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--peer", options.peers,
                 "prefix of the other backends: packets of connections that this host does not know are handed on to "
                 "them, if a forwarder says so, and taken from them")
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--device", options.device, "name of the TUN device")->capture_default_str();
  app.add_option("--gue-port", options.gue_port, "UDP port of gue")
      ->check(CLI::Range(1, 65'535))
      ->capture_default_str();
  app.add_option("--run", options.run_dir, "directory of the admin socket, decap.sock")->capture_default_str();
  tidegate::add_manual_option(app, {"tidegate-decap", 8, "the other end of the forwarder's tunnels"});
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : tidegate::kExitWrongOptions;
  }
  if (const tidegate::Result<void> done = tidegate::l4::run(options); !done) {
    tidegate::log_error("{}", done.error().message);
    return tidegate::exit_status_of(done.error().message);
  }
  return 0;
}
