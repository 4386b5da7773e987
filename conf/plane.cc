// SPDX-License-Identifier: Apache-2.0
#include "conf/plane.h"

#include <fmt/format.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "conf/limits.h"
#include "conf/model/pool.h"
#include "conf/plane_impl.h"
#include "core/crypto.h"
#include "core/exit_status.h"
#include "core/log.h"
#include "core/open_files.h"

namespace tidegate {
namespace {

constexpr size_t kMinSecretBytes = 16;
constexpr std::array kSignals = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};

// Editors end a file with a newline. Hosts that share a secret must not differ because of it.
Result<std::string> read_secret(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string secret{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (!file) return fail("cannot read the secret file " + path);
  while (!secret.empty() && (secret.back() == '\n' || secret.back() == '\r')) secret.pop_back();
  if (secret.size() < kMinSecretBytes) {
    return fail(
        fmt::format("the secret in {} has {} bytes; it needs {} at least", path, secret.size(), kMinSecretBytes));
  }
  return secret;
}

std::string host_name() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  return name.data();
}

// Finds this process's node in the Model: the node that was named, else the node with the host's name, else the only
// node.
Result<const Node*> find_node(const Model& model, const std::string& told) {
  const std::string wanted = told.empty() ? host_name() : told;
  if (const uint32_t index = model.node_index(wanted); index != kNone) return &model.nodes[index];
  if (told.empty() && model.nodes.size() == 1) return &model.nodes.front();
  std::string known;
  for (const Node& node : model.nodes) known += (known.empty() ? "" : ", ") + node.name;
  if (known.empty()) return fail("the configuration has no nodes");
  return fail(fmt::format("the configuration has no node '{}' ({}); it has: {}", wanted,
                          told.empty() ? "this host's name; --node says another" : "as --node says", known));
}

// Counts backends whose pool has a probe although nobody probes: with a file there is no control.
size_t count_unprobed(const Snapshot& snapshot) {
  if (snapshot.version != 0) return 0;
  size_t unprobed = 0;
  for (const Pool& pool : snapshot.model->pools) unprobed += pool.probe == kNone ? 0 : pool.backends.size();
  return unprobed;
}

}  // namespace

// Call before any thread is started: all threads must block the signals, so that they can be read from one descriptor.
Result<void> Plane::Impl::prepare() {
  set_log_component(name);
  if (options.verbose) set_log_level(LogLevel::debug);
  raise_open_files_limit();
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : kSignals) ::sigaddset(&set, signal);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  signals.reset(::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
  if (!signals) return fail("cannot create a signalfd");
  Result<std::unique_ptr<Predecessor>> before = Predecessor::from_environment();
  if (!before) return before.error();
  predecessor = *std::move(before);
  secret = random_bytes(32);
  if (options.secret_file.empty()) {
    log_warn("no --secret: hash keys are random, other than those of other hosts and of the next start");
    return {};
  }
  Result<std::string> read = read_secret(options.secret_file);
  if (!read) return read.error();
  secret = *std::move(read);
  return {};
}

int Plane::Impl::run() {
  Result<void> started = start_error;
  const bool follows = predecessor != nullptr;
  upgrade.hooks = &hooks.upgrade;
  upgrade.may_start = [this] { return ready && !draining; };
  upgrade.on_served = [this] { leave(); };
  manager.on_gone = [this] { on_stop_signal(); };
  upgrade.more_sockets = [this] {
    std::vector<LentSocket> sockets;
    for (const int fd : metrics_server ? metrics_server->tcp_sockets() : std::vector<int>()) {
      sockets.push_back({{HandOverItemKind::metrics, metrics_server->tcp_endpoint()}, fd});
    }
    return sockets;
  };
  if (started && !follows) take_kept_sockets();
  if (started) started = follows ? take_over() : listen();
  if (started) started = follow();
  if (started && follows) started = serve_on();
  if (started) started = may_still_start();
  if (!started) {
    if (predecessor) predecessor->refuse(started.error().message);
    fmt::print(stderr, "tidegate-{}: {}\n", name, started.error().message);
    const int status = exit_status(started.error());
    follower.reset();  // it calls hooks
    return status;
  }
  // A plane without a version waits as long as it takes. The manager must not end it for that.
  manager.ready(ready ? std::string() : "waiting for a version in " + options.state_dir);
  if (ready) manager.serves();
  in_loop = true;
  loop.run();
  started = may_still_start();
  follower.reset();
  admin_server.reset();
  metrics_server.reset();
  loop.remove(signals.get());
  if (!started) {
    fmt::print(stderr, "tidegate-{}: {}\n", name, started.error().message);
    return exit_status(started.error());
  }
  log_info("stopped");
  return 0;
}

// An earlier version may be in force by now, or no version was tried.
Result<void> Plane::Impl::may_still_start() const {
  if (ready) return {};
  if ((hooks.cannot_start && hooks.cannot_start()) || needs_a_person(start_refusal)) return fail(start_refusal);
  return {};
}

// A plane that says by itself that it cannot start is right.
int Plane::Impl::exit_status(const Error& why) const {
  return hooks.cannot_start && hooks.cannot_start() ? kExitCannotRun : exit_status_of(why.message);
}

// The follower may have another version that this process can serve. So it is judged when the follower is done.
void Plane::Impl::refused_at_start(const Error& why) {
  if (ready) return;
  start_refusal = why.message;
  if (!in_loop) return;
  loop.defer([this] {
    if (!may_still_start()) loop.stop();
  });
}

Result<void> Plane::Impl::listen() {
  std::error_code error;
  std::filesystem::create_directories(options.run_dir, error);
  if (error) return fail("cannot create " + options.run_dir + ": " + error.message());
  loop.add(signals.get(), EPOLLIN, this);
  HttpServerLimits limits;
  limits.body_bytes = kMaxCandidateBytes;
  admin_server = std::make_unique<HttpServer>(
      loop, [this](HttpExchangePtr exchange) { answer_admin(exchange); }, limits);
  const std::string path = options.run_dir + "/" + name + ".sock";
  const Result<void> bound = predecessor ? admin_server->take_unix(path, 0660) : admin_server->listen_unix(path, 0660);
  return bound ? listen_metrics() : bound;
}

Result<void> Plane::Impl::listen_metrics() {
  if (!options.metrics_listen) return {};
  metrics_server = std::make_unique<HttpServer>(loop, [this](HttpExchangePtr exchange) {
    if (!answer_common(exchange))
      exchange->respond(HttpResponse::problem(404, "Not Found", "here: /metrics, /healthz"));
  });
  Result<void> bound = metrics_socket ? metrics_server->listen_on(std::move(metrics_socket))
                                      : metrics_server->listen_tcp(*options.metrics_listen);
  if (bound) log_info("metrics at {}", metrics_server->tcp_endpoint().to_string());
  return bound;
}

Result<void> Plane::Impl::follow() {
  FollowerHooks follower_hooks;
  follower_hooks.on_snapshot = [this](std::shared_ptr<const Snapshot> snapshot) { return apply(snapshot); };
  follower_hooks.on_purge = hooks.on_purge;
  follower_hooks.private_keys = hooks.private_keys;
  follower_hooks.plane = name;
  if (hooks.prepare) {
    follower_hooks.prepare = [this](const std::shared_ptr<const Snapshot>& snapshot) -> Result<PurgePosition> {
      const Result<const Node*> node = find_node(*snapshot->model, options.node);
      if (!node) return node.error();
      if (Result<void> warm = warm_up(snapshot, **node); !warm) return warm.error();
      Result<PurgePosition> prepared = hooks.prepare(snapshot, **node);
      if (!prepared) refused_at_start(prepared.error());
      return prepared;
    };
  }
  if (hooks.judge) {
    follower_hooks.judge = [this](const std::shared_ptr<const Model>& model) -> std::vector<Fault> {
      const Result<const Node*> node = find_node(*model, options.node);
      return node ? hooks.judge(model, **node) : std::vector<Fault>();  // if its node is missing, apply() reports it
    };
  }
  if (hooks.hold) {
    follower_hooks.hold = [this](const std::shared_ptr<const Snapshot>& snapshot) -> Vote {
      const Result<const Node*> node = find_node(*snapshot->model, options.node);
      return node ? hooks.hold(snapshot, **node) : Vote::no(node.error().message);
    };
  }
  follower_hooks.release = hooks.release;
  Result<std::unique_ptr<Follower>> followed =
      options.config.empty() ? Follower::of_state(loop, options.state_dir, std::move(follower_hooks))
                             : Follower::of_file(loop, options.config, std::move(follower_hooks));
  if (!followed) return followed.error();
  follower = *std::move(followed);
  if (!ready) log_info("waiting for a version in {}", options.state_dir);
  return {};
}

Result<void> Plane::Impl::apply(const std::shared_ptr<const Snapshot>& snapshot) {
  const Result<const Node*> node = find_node(*snapshot->model, options.node);
  if (!node) return node.error();
  if (Result<void> warm = warm_up(snapshot, **node); !warm) return warm;
  const uint64_t begin_ns = monotonic_ns();
  if (Result<void> applied = hooks.apply(snapshot, **node); !applied) {
    refused_at_start(applied.error());
    return applied;
  }
  const uint64_t now_ns = monotonic_ns();
  node_name = (*node)->name;
  unprobed_backends = count_unprobed(*snapshot);
  if (unprobed_backends > 0) {
    log_warn(
        "NOBODY PROBES: {} backends have a probe, and all of them count as up, dead ones too, because {} is read "
        "without a control; tidegate-control probes (tidegate run starts it)",
        unprobed_backends, options.config);
  }
  const std::string what = fmt::format("version {} ({:.12}), words {}, node {}", snapshot->version,
                                       snapshot->version_digest, snapshot->live_state->sequence, node_name);
  manager.status(what);
  keep_sockets();
  if (!std::exchange(ready, true)) {
    if (in_loop) manager.serves();
    log_info("ready: {}, {} ms after the start", what, (now_ns - started_ns) / kNsPerMs);
  } else {
    log_info("applied: {}, in {} us", what, (now_ns - begin_ns) / 1000);
  }
  return {};
}

// Takes the sockets of the previous process, which continues to serve.
Result<void> Plane::Impl::take_over() {
  auto sockets = predecessor->take_sockets(name, hooks.upgrade.data_format);
  if (!sockets) return sockets.error();
  upgrade.generation = predecessor->generation() + 1;
  for (auto& [item, socket] : *sockets) {
    if (item.kind == HandOverItemKind::predecessor) {
      upgrade.draining.add(std::move(socket));
    } else if (item.kind == HandOverItemKind::metrics) {
      if (options.metrics_listen) metrics_socket = std::move(socket);
    } else if (hooks.upgrade.inherit) {
      store.expect({item, socket.get()});
      hooks.upgrade.inherit(item, std::move(socket));
    }
  }
  log_info("takes over {} sockets", sockets->size());
  return {};
}

// Prepares the first version as a candidate is prepared. Only then the previous process releases what two processes
// cannot have at the same time.
Result<void> Plane::Impl::warm_up(const std::shared_ptr<const Snapshot>& snapshot, const Node& node) {
  if (!predecessor || warmed) return {};
  if (hooks.hold) {
    if (const Vote vote = hooks.hold(snapshot, node); !vote.yes()) return fail(vote.why);
  }
  if (hooks.upgrade.get_ready) {
    if (Result<void> done = hooks.upgrade.get_ready(snapshot, node); !done) return done;
  }
  Result<UniqueFd> lock = predecessor->warm(fmt::format("version {}", snapshot->version));
  if (!lock) return lock.error();
  warmed = true;
  if (*lock && hooks.upgrade.inherit_lock) hooks.upgrade.inherit_lock(std::move(*lock));
  return {};
}

// The sockets are served. From now on the previous process accepts nothing.
Result<void> Plane::Impl::serve_on() {
  if (!ready) return fail(follower->refused().empty() ? "there is no version to serve" : follower->refused());
  if (hooks.release) hooks.release();  // releases all that was taken over or prepared and is not needed
  if (Result<void> bound = listen(); !bound) return bound;
  Result<UniqueFd> channel = predecessor->serving();
  if (!channel) return channel.error();
  predecessor.reset();
  // When the previous process sends a message, it has named the new process to the manager. Until then the manager
  // accepts messages only from it.
  upgrade.draining.add(*std::move(channel), [this] {
    stores = !draining;
    keep_sockets();
  });
  return {};
}

// Used after a crash of the previous process.
void Plane::Impl::take_kept_sockets() {
  stores = true;
  for (auto& [item, socket] : store.take()) {
    if (hooks.upgrade.inherit) hooks.upgrade.inherit(item, std::move(socket));
  }
}

void Plane::Impl::keep_sockets() {
  if (stores && hooks.upgrade.sockets) store.keep(hooks.upgrade.sockets());
}

// Another process serves the same sockets.
void Plane::Impl::leave() {
  draining = true;
  stores = false;
  admin_server->stop_listening();
  if (metrics_server) metrics_server->stop_listening();
  follower.reset();
  hooks.upgrade.leave([this] { loop.stop(); });
}

void Plane::Impl::on_io(uint32_t) {
  signalfd_siginfo info{};
  while (::read(signals.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    if (info.ssi_signo == SIGUSR1) {
      if (hooks.reopen_logs) hooks.reopen_logs();  // a plane without files of its own has nothing to do
    } else if (info.ssi_signo != SIGHUP) {
      on_stop_signal();
    } else {
      reload();
    }
  }
}

void Plane::Impl::reload() {
  if (!follower) return;  // another process serves
  manager.reloading();
  if (Result<void> reloaded = follower->reload(); !reloaded) {
    log_error("reload refused, the old configuration stays in force:\n{}", reloaded.error().message);
  }
  manager.reloaded();
}

void Plane::Impl::on_stop_signal() {
  // Before anything is closed. Then a new connection is refused and can go elsewhere, instead of waiting for nobody.
  if (std::exchange(stores, false)) store.forget_all();
  manager.stopping();
  upgrade.stop();
  if (std::exchange(draining, true) || !hooks.drain) return loop.stop();
  log_info("draining; a second signal stops at once");
  hooks.drain([this] { loop.stop(); });
}

Plane::Plane(std::string name, PlaneOptions options)
    : impl_(std::make_unique<Impl>(std::move(name), std::move(options))) {}
Plane::~Plane() = default;

EventLoop& Plane::loop() { return impl_->loop; }
const PlaneOptions& Plane::options() const { return impl_->options; }
const std::string& Plane::secret() const { return impl_->secret; }

int Plane::run(PlaneHooks hooks) {
  impl_->hooks = std::move(hooks);
  return impl_->run();
}

}  // namespace tidegate
