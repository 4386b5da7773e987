// SPDX-License-Identifier: Apache-2.0
// tidegate-control: options, signals, and the loop that Control lives on.

#include <fmt/format.h>
#include <sys/signalfd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "control/control.h"
#include "control/options.h"
#include "core/event_loop.h"
#include "core/exit_status.h"
#include "core/fd.h"
#include "core/log.h"
#include "core/open_files.h"
#include "core/service_manager.h"

namespace {

using namespace tidegate;

constexpr uint64_t kHandOverMs = 1'000;

// SIGTERM and SIGINT end the loop. SIGHUP reads tokens and certificates again. SIGUSR1, by which a proxy opens its log
// again, does nothing here.
class Signals final : private IoHandler {
 public:
  Signals(EventLoop& loop, Control& control, ServiceManager& manager)
      : loop_(loop), control_(control), manager_(manager) {
    sigset_t set;
    ::sigemptyset(&set);
    for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1}) ::sigaddset(&set, signal);
    ::sigprocmask(SIG_BLOCK, &set, nullptr);
    fd_.reset(::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
    loop_.add(fd_.get(), EPOLLIN, this);
  }
  ~Signals() { loop_.remove(fd_.get()); }

 private:
  void on_io(uint32_t) override {
    signalfd_siginfo info{};
    while (::read(fd_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
      if (info.ssi_signo == SIGUSR1) continue;
      if (info.ssi_signo == SIGHUP) {
        reload();
      } else {
        manager_.stopping();
        patience_.arm_after_ms(kHandOverMs);
        control_.hand_over([this] { loop_.stop(); });
      }
    }
  }
  void reload() {
    manager_.reloading();
    if (Result<void> reloaded = control_.reload(); !reloaded) {
      log_error("tokens and certificates of before stand: {}", reloaded.error().message);
    }
    manager_.reloaded();
  }

  EventLoop& loop_;
  Control& control_;
  ServiceManager& manager_;
  UniqueFd fd_;
  Timer patience_{loop_, [this] { loop_.stop(); }};
};

}  // namespace

int main(int argc, char** argv) {
  const ControlOptions options = parse_control_options(argc, argv);
  set_log_component("control");
  if (options.verbose) set_log_level(LogLevel::debug);
  raise_open_files_limit();
  ::signal(SIGPIPE, SIG_IGN);

  EventLoop loop;
  ServiceManager manager(loop);
  Result<std::unique_ptr<Control>> control = Control::start(loop, options);
  if (!control) {
    log_error("{}", control.error().message);
    return exit_status_of(control.error().message);
  }
  Signals signals(loop, **control, manager);
  const std::string role = options.follow                   ? "following " + options.follow->to_string()
                           : options.etcd_endpoints.empty() ? "leading"
                                                            : "with its state in etcd";
  log_info("node {}: version {}, {}", options.node, (*control)->host_state().head().version, role);
  manager.ready(fmt::format("node {}, {}", options.node, role));
  manager.serves();
  loop.run();
  (*control)->stop_listening();
  return EXIT_SUCCESS;
}
