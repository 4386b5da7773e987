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
#include <nlohmann/json.hpp>

#include "conf/limits.h"
#include "conf/model/pool.h"
#include "conf/socket_store.h"
#include "conf/upgrade.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "core/exit_status.h"
#include "core/log.h"
#include "core/metrics.h"
#include "core/open_files.h"
#include "core/process_metrics.h"
#include "core/service_manager.h"

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

// The node of the Model that this process is: the one that was named, the one with the host's name, or the only one.
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

// Returns an answer with 400 if the query does not fit these parameters.
std::optional<HttpResponse> refused_query(const HttpRequest& request, const std::vector<QueryParameter>& known) {
  const std::optional<QueryFault> fault = check_query(request.query, known);
  if (!fault) return std::nullopt;
  return HttpResponse::problem(400, "Bad Request", fault->detail);
}

// Counts backends whose pool has a probe although nobody probes: with a file there is no control.
size_t count_unprobed(const Snapshot& snapshot) {
  if (snapshot.version != 0) return 0;
  size_t unprobed = 0;
  for (const Pool& pool : snapshot.model->pools) unprobed += pool.probe == kNone ? 0 : pool.backends.size();
  return unprobed;
}

std::string pretty_text(const nlohmann::json& json) {
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace

struct Plane::Impl final : IoHandler {
  Impl(std::string plane_name, PlaneOptions plane_options)
      : name(std::move(plane_name)), options(std::move(plane_options)) {
    start_error = prepare();
  }

  std::string name;
  PlaneOptions options;
  EventLoop loop;
  ServiceManager manager{loop};
  Upgrade upgrade{loop, manager, name};
  SocketStore store{manager};
  bool stores = false;  // the manager gets messages from this process
  std::string secret;
  Result<void> start_error;  // an error in the constructor, returned by run()

  PlaneHooks hooks;
  UniqueFd signals;
  std::unique_ptr<Predecessor> predecessor;  // until this process serves
  bool warmed = false;                       // the predecessor has released what only one process can have
  UniqueFd metrics_socket;                   // of the predecessor
  std::unique_ptr<HttpServer> admin_server, metrics_server;
  std::unique_ptr<Follower> follower;
  std::string node_name;
  const uint64_t started_ns = monotonic_ns();
  bool ready = false;
  bool draining = false;
  bool in_loop = false;
  std::string start_refusal;     // why the last version was not applied while none was in force
  size_t unprobed_backends = 0;  // their pool has a probe, but nobody probes

  Result<void> prepare();
  int run();
  Result<void> listen();
  Result<void> listen_metrics();
  Result<void> follow();
  Result<void> take_over();
  Result<void> warm_up(const std::shared_ptr<const Snapshot>& snapshot, const Node& node);
  Result<void> serve_on();
  void take_kept_sockets();
  void keep_sockets();
  void leave();
  Result<void> apply(const std::shared_ptr<const Snapshot>& snapshot);
  Result<void> may_still_start() const;
  int exit_status(const Error& why) const;
  void refused_at_start(const Error& why);

  void on_io(uint32_t events) override;
  void reload();
  void on_stop_signal();

  void answer_admin(const HttpExchangePtr& exchange);
  bool answer_common(const HttpExchangePtr& exchange) const;  // the paths that TCP shows too: /healthz and /metrics
  HttpResponse health() const;
  std::string metrics_text() const;
  nlohmann::json alive() const;
  nlohmann::json status() const;
  HttpResponse explain(const HttpRequest& request) const;
  HttpResponse candidate(const HttpRequest& request);
};

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

// Takes the sockets of the process before this one. It goes on meanwhile.
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

// Prepares the first version as a candidate is prepared. Only then does the process before this one release what two
// processes cannot have.
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

// The sockets are served. From now on the process before this one accepts nothing.
Result<void> Plane::Impl::serve_on() {
  if (!ready) return fail(follower->refused().empty() ? "there is no version to serve" : follower->refused());
  if (hooks.release) hooks.release();  // what was taken over or prepared and is not needed
  if (Result<void> bound = listen(); !bound) return bound;
  Result<UniqueFd> channel = predecessor->serving();
  if (!channel) return channel.error();
  predecessor.reset();
  // When the process before this one speaks, it has told the manager who follows. Until then the manager accepts
  // messages only from it.
  upgrade.draining.add(*std::move(channel), [this] {
    stores = !draining;
    keep_sockets();
  });
  return {};
}

// Used after a crash of the process before this one.
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

void Plane::Impl::answer_admin(const HttpExchangePtr& exchange) {
  const HttpRequest& request = exchange->request();
  // A request to the admin socket must never take the plane down, whatever its handler does.
  try {
    if (answer_common(exchange)) return;
    if (request.method == "GET" && request.path == "/alive") {
      // A control of an earlier release says nothing about its leader.
      if (const std::string_view hears = request.header("tidegate-hears-leader"); hooks.on_control && !hears.empty()) {
        hooks.on_control(hears == "yes");
      }
      exchange->respond(refused_query(request, {}).value_or(HttpResponse::json(200, pretty_text(alive()))));
    } else if (request.method == "GET" && request.path == "/status") {
      exchange->respond(refused_query(request, {}).value_or(HttpResponse::json(200, pretty_text(status()))));
    } else if (request.method == "GET" && request.path == "/explain" && hooks.explain) {
      exchange->respond(explain(request));
    } else if (request.path == "/candidate") {
      exchange->respond(candidate(request));
    } else if (request.path == "/upgrade") {
      upgrade.answer(exchange);
    } else if (!hooks.admin || !hooks.admin(exchange)) {
      exchange->respond(HttpResponse::problem(
          404, "Not Found", "here: /healthz, /alive, /status, /metrics, /explain, /candidate, /upgrade"));
    }
  } catch (const std::exception& error) {
    log_error("{} {} failed: {}", request.method, request.path, error.what());
    exchange->respond(HttpResponse::problem(500, "Internal Server Error", error.what()));
  }
}

bool Plane::Impl::answer_common(const HttpExchangePtr& exchange) const {
  const HttpRequest& request = exchange->request();
  if (request.method != "GET") return false;
  if (request.path != "/healthz" && request.path != "/metrics") return false;
  if (std::optional<HttpResponse> refusal = refused_query(request, {})) {
    exchange->respond(*std::move(refusal));
  } else if (request.path == "/healthz") {
    exchange->respond(health());
  } else {
    exchange->respond(HttpResponse::text(200, metrics_text(), "text/plain; version=0.0.4; charset=utf-8"));
  }
  return true;
}

HttpResponse Plane::Impl::health() const {
  if (draining) return HttpResponse::text(503, "draining\n");
  if (!ready) {
    const bool refuses = follower && !follower->refused().empty();
    return HttpResponse::text(503, "no version applied yet" + (refuses ? ": " + follower->refused() : "") + "\n");
  }
  const std::string warnings = hooks.warnings ? hooks.warnings() : std::string();
  if (hooks.works && !hooks.works()) return HttpResponse::text(503, warnings);
  return HttpResponse::text(200, "ok\n" + warnings);
}

std::string Plane::Impl::metrics_text() const {
  const std::string prefix = "tidegate_" + name;
  const StateHead applied = follower ? follower->applied() : StateHead{};
  std::string out = metrics().prometheus_text();
  const auto gauge = [&](std::string_view what, std::string_view help, uint64_t value) {
    out += fmt::format("# HELP {0}_{1} {2}\n# TYPE {0}_{1} gauge\n{0}_{1} {3}\n", prefix, what, help, value);
  };
  gauge("ready", "1 once a version is in force.", ready ? 1 : 0);
  gauge("config_version", "The version in force; 0 from a file.", applied.version);
  gauge("config_refused", "1 while the newest version is not in force.", follower && !follower->refused().empty());
  gauge("config_behind", "By how many versions the one in force is older than the newest, while that is refused.",
        follower && ready && follower->newest() > applied.version ? follower->newest() - applied.version : 0);
  gauge("unprobed_backends", "Backends that count as up because nobody probes them.", unprobed_backends);
  gauge("words_sequence", "Overrides and health verdicts in force: the sequence of their last change.",
        applied.live_state);
  gauge("purge_sequence", "The last purge applied.", applied.purge);
  gauge("kept_sockets", "Listening sockets that the service manager keeps for a process after a crash.", store.kept());
  gauge("taken_sockets", "Listening sockets of a crashed process that this one took over at its start.", store.taken());
  return out + upgrade.metrics_text(prefix) + process_metrics_text(prefix);
}

// What this host's control asks several times a second. All states but "up" come with a reason. "followed" says nothing
// about the plane: control asks again, and the process that follows answers.
nlohmann::json Plane::Impl::alive() const {
  const StateHead applied = follower ? follower->applied() : StateHead{};
  const std::string refused = follower ? follower->refused() : std::string();
  nlohmann::json json = {{"plane", name}, {"state", "up"}, {"version", applied.version}, {"words", applied.live_state}};
  const auto say = [&json](const char* state, std::string why) {
    while (!why.empty() && why.back() == '\n') why.pop_back();
    json["state"] = state;
    json["why"] = std::move(why);
    return json;
  };
  // The question waited at this process's socket while the other process took the path. The other process must answer
  // it.
  if (upgrade.followed()) return say("followed", "another process serves in its place");
  if (draining) return say("draining", "it is ending");
  if (!ready) return say("down", "no version applied yet" + (refused.empty() ? "" : ": " + refused));
  if (hooks.works && !hooks.works()) return say("down", hooks.warnings ? hooks.warnings() : "it does not work");
  if (!refused.empty() && follower->newest() != applied.version) {
    return say("draining", fmt::format("serves version {}, because it refuses {}", applied.version, refused));
  }
  return json;
}

nlohmann::json Plane::Impl::status() const {
  const std::shared_ptr<const Snapshot> snapshot = follower ? follower->current() : nullptr;
  const StateHead applied = follower ? follower->applied() : StateHead{};
  const bool refuses = follower && !follower->refused().empty();
  nlohmann::json json = {
      {"plane", name},
      {"node", node_name},
      {"pid", ::getpid()},
      {"ready", ready},
      {"version", applied.version},
      {"version_digest", snapshot ? snapshot->version_digest : ""},
      {"words", applied.live_state},
      {"purge", applied.purge},
      {"applied_at_ns", follower ? follower->applied_at_ns() : 0},
      {"digest", hooks.digest && ready ? hooks.digest() : ""},
      {"refused", refuses ? nlohmann::json(follower->refused()) : nlohmann::json(nullptr)},
      {"behind", ready && refuses && follower->newest() != applied.version},
      {"draining", draining},
      {"unprobed_backends", unprobed_backends},
  };
  if (manager.is_there()) json["kept_sockets"] = {{"taken", store.taken()}, {"kept", store.kept()}};
  if (metrics_server) json["metrics"] = metrics_server->tcp_endpoint().to_string();
  upgrade.add_status(json);
  if (hooks.add_status) hooks.add_status(json);
  return json;
}

HttpResponse Plane::Impl::explain(const HttpRequest& request) const {
  if (std::optional<HttpResponse> refusal = refused_query(request, hooks.explain_parameters))
    return *std::move(refusal);
  if (!ready) return HttpResponse::problem(503, "Service Unavailable", "no version applied yet");
  const Result<nlohmann::json> answer = hooks.explain(request);
  if (!answer) return HttpResponse::problem(400, "Bad Request", answer.error().message);
  return HttpResponse::json(200, pretty_text(*answer));
}

// GET says which candidate is held. POST prepares one and answers with the vote. DELETE releases one.
HttpResponse Plane::Impl::candidate(const HttpRequest& request) {
  const bool by_id = request.method == "DELETE";
  const std::vector<QueryParameter> id_only = {QueryParameter::number("id", "of the candidate")};
  if (auto refusal = refused_query(request, by_id ? id_only : std::vector<QueryParameter>{}))
    return *std::move(refusal);
  // The question waited at this process's socket while the other process took the path. So control asks again.
  if (upgrade.followed()) return HttpResponse::json(200, pretty_text({{"plane", name}, {"state", "followed"}}));
  if (!follower || draining) return HttpResponse::problem(503, "Service Unavailable", "the plane starts or ends");
  if (request.method == "POST") {
    const Result<CandidateVersion> told = decode_candidate(request.body);
    if (!told) return HttpResponse::problem(400, "Bad Request", told.error().message);
    return HttpResponse::json(200, encode_vote(follower->hold(*told)) + "\n");
  }
  if (by_id) follower->release(parse_number(request.parameter("id").value_or("")).value_or(0));
  if (request.method != "GET" && !by_id) {
    return HttpResponse::problem(405, "Method Not Allowed", "a candidate takes GET, POST and DELETE");
  }
  const nlohmann::json held = follower->held() == 0 ? nlohmann::json(nullptr) : nlohmann::json(follower->held());
  return HttpResponse::json(200, pretty_text({{"plane", name}, {"held", held}}));
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
