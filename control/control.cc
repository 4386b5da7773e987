// SPDX-License-Identifier: Apache-2.0
#include "control/control.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "conf/limits.h"
#include "conf/model.h"
#include "conf/model/probe.h"
#include "conf/model/route.h"
#include "conf/secret_store.h"
#include "control/acme/orders.h"
#include "control/announce/route_announcer.h"
#include "control/api/api.h"
#include "control/api/auth.h"
#include "control/api/candidates_api.h"
#include "control/api/certificates_api.h"
#include "control/api/config_api.h"
#include "control/api/json_bounds.h"
#include "control/api/live_state_api.h"
#include "control/api/long_calls.h"
#include "control/api/openapi.h"
#include "control/api/purge_api.h"
#include "control/api/status_api.h"
#include "control/api/versions_api.h"
#include "control/api/watch.h"
#include "control/api/zones_api.h"
#include "control/apply.h"
#include "control/etcd/edge_store.h"
#include "control/health/forwarder_door.h"
#include "control/health/load_watch.h"
#include "control/health/name_watch.h"
#include "control/health/own_planes.h"
#include "control/health/plane_watch.h"
#include "control/health/probe_command.h"
#include "control/health/prober.h"
#include "control/health/site_watch.h"
#include "control/health/verdict_writer.h"
#include "control/hosts/peers.h"
#include "control/hosts/replica_follower.h"
#include "control/hosts/replica_source.h"
#include "control/limits.h"
#include "control/observe/applied_waits.h"
#include "control/observe/edge_metrics.h"
#include "control/observe/explain.h"
#include "control/observe/fleet.h"
#include "control/ocsp/staples.h"
#include "control/vote/candidates.h"
#include "control/vote/host_ballot.h"
#include "control/vote/provisional_versions.h"
#include "core/crypto.h"
#include "core/lmdb_check.h"
#include "core/lmdb_damage.h"
#include "core/log.h"

namespace tidegate {

namespace {

constexpr unsigned kSocketMode = 0660;

Result<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(fmt::format("cannot read {}: {}", path, std::strerror(errno)));
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

Result<std::string> read_token(const std::string& path) {
  Result<std::string> text = read_file(path);
  if (!text) return text;
  const size_t end = text->find_last_not_of(" \t\r\n");
  if (end == std::string::npos) return fail(path + " holds no token");
  return text->substr(0, end + 1);
}

// Returns how to reach other controls, with the token for them.
Result<Peers> read_peers(const ControlOptions& options, const Tokens& tokens) {
  if (options.peer_token_file.empty()) return load_peers(options, tokens.replica_token());
  Result<std::string> token = read_token(options.peer_token_file);
  if (!token) return token.error();
  return load_peers(options, *std::move(token));
}

// Commits the document of --config as the first version. An Error has all its faults. If `commands` is null, no probe
// may be of type command.
Result<void> commit_first(HostState& host_state, const std::string& path, const ProbeCommands* commands) {
  if (host_state.head().version != 0) {
    log_info("the state holds version {}: {} was not read (tidegate apply changes it)", host_state.head().version,
             path);
    return {};
  }
  Result<std::string> text = read_file(path);
  if (!text) return text.error();
  LoadedFile loaded = load_text_of(path, *text);
  Candidate candidate;
  candidate.faults = std::move(loaded.faults);
  if (candidate.faults.empty()) candidate = examine(*loaded.document, files_beside(path), nullptr);
  if (candidate.faults.empty()) {
    if (const std::optional<std::string> why = refusal_of_commands(commands, *candidate.model)) {
      return fail(fmt::format("{} is refused: {}", path, *why));
    }
  }
  const ApplyOutcome outcome = apply(host_state, candidate, {"start", "first configuration, from " + path, 0, false});
  if (outcome.status == ApplyOutcome::Status::invalid) {
    return fail(fmt::format("{} is not valid:\n{}", path, render_faults(outcome.faults, *text, false)));
  }
  if (outcome.status == ApplyOutcome::Status::failed) return fail(outcome.error);
  return {};
}

// Moves the state and its private keys away. Copies of earlier times are removed.
Result<void> put_state_aside(const ControlOptions& options, const std::string& why) {
  namespace fs = std::filesystem;
  const std::string env = options.state_dir + "/state";
  log_warn("the state in {} is damaged ({}). It is kept in {}.damaged and fetched anew from {}", env, why, env,
           options.follow ? options.follow->to_string() : "etcd");
  for (const std::string& directory : {env, SecretStore::directory(options.state_dir)}) {
    const std::string aside = directory + ".damaged";
    std::error_code error;
    if (!fs::exists(directory, error)) continue;
    fs::remove_all(aside, error);
    fs::rename(directory, aside, error);
    if (error) return fail("cannot move " + directory + ": " + error.message());
    ::chmod(aside.c_str(), 0700);
  }
  return {};
}

// The state of a follower is a copy of its leader's state, or of what etcd has. If it is damaged, control puts it aside
// and fetches everything again. The state of a leader is the only one, so a person must decide.
Result<std::unique_ptr<HostState>> open_host_state(const ControlOptions& options) {
  namespace fs = std::filesystem;
  const std::string marks[] = {options.state_dir + "/state" + lmdb::kMark,
                               SecretStore::directory(options.state_dir) + lmdb::kMark};
  std::error_code error;
  const auto open = [&] { return HostState::open(options.state_dir, options.versions_kept, options.secrets_group); };
  const bool is_copy = options.follow || !options.etcd_endpoints.empty();
  const bool marked = fs::exists(marks[0], error) || fs::exists(marks[1], error);
  Result<std::unique_ptr<HostState>> host_state = fail("the last process died of it");
  if (!marked || !is_copy) host_state = open();
  if (!host_state && is_copy && (marked || is_damage(host_state.error()))) {
    if (Result<void> aside = put_state_aside(options, host_state.error().message); !aside) return aside.error();
    host_state = open();
  }
  if (!host_state) return host_state;
  for (const std::string& mark : marks) fs::remove(mark, error);
  return host_state;
}

bool is_loopback_url(const std::string& endpoint) {
  return endpoint.starts_with("http://127.") || endpoint.starts_with("http://localhost:") ||
         endpoint.starts_with("http://[::1]");
}

Result<etcd::EdgeStoreOptions> read_etcd_options(const ControlOptions& options, const std::string& secret) {
  if (options.secret_file.empty()) return fail("--etcd needs --secret: what is stored there is sealed with it");
  etcd::EdgeStoreOptions read;
  for (const std::string& endpoint : options.etcd_endpoints) {
    if (options.insecure || endpoint.starts_with("https://") || is_loopback_url(endpoint)) continue;
    return fail(fmt::format("--etcd {} would be spoken to in clear: use https, or --insecure allows it", endpoint));
  }
  read.client.endpoints = options.etcd_endpoints;
  read.client.ca_file = options.etcd_ca_file;
  read.client.certificate_file = options.etcd_certificate_file;
  read.client.key_file = options.etcd_key_file;
  read.client.user = options.etcd_user;
  if (!options.etcd_password_file.empty()) {
    Result<std::string> password = read_token(options.etcd_password_file);
    if (!password) return password.error();
    read.client.password = *std::move(password);
  }
  read.prefix = options.etcd_prefix;
  read.lease_s = options.etcd_lease_s;
  read.site_secret = secret;
  read.node = options.node;
  if (options.listen) read.api = options.listen->to_string();
  read.begin_anew = options.etcd_begin;
  read.checkpoint_records = options.etcd_checkpoint_writes;
  return read;
}

}  // namespace

struct Control::Parts : std::enable_shared_from_this<Control::Parts> {
  Parts(EventLoop& loop, const ControlOptions& given, std::unique_ptr<HostState> opened, Tokens tokens, Peers peers)
      : options(given),
        host_state(std::move(opened)),
        auth(std::move(tokens), ::geteuid()),
        api(routes, auth, *host_state),
        fleet(loop, *host_state, {options.node, options.node_told, options.run_dir, std::move(peers)}),
        own_planes(loop, *host_state, fleet, options.run_dir),
        candidates(loop, *host_state, fleet, options.state_dir, options.prepare_timeout_ms),
        host_ballot(loop, *host_state, fleet, leads_from_the_start()),
        provisionals(loop, *host_state, options.state_dir, leads_from_the_start()),
        long_calls(loop, *host_state, candidates, provisionals),
        edge_metrics(*host_state),
        waits(loop, fleet),
        watch(loop, *host_state, fleet),
        replica_source(loop, *host_state, provisionals, options.node),
        server(
            loop, [this](const HttpExchangePtr& exchange) { api.dispatch(exchange); }, server_limits()) {
    host_state->write_versions_beside(loop);
  }

  // Writes that wait for a decision may hold exchanges, which must be destroyed before their server.
  ~Parts() { host_state->forget_waiting(); }

  bool leads_from_the_start() const { return !options.follow && options.etcd_endpoints.empty(); }

  // Begins or stops probing.
  void set_leads(EventLoop& loop, bool leads) {
    host_ballot.set_leads(leads);
    candidates.set_term(leads && edge_store ? edge_store->term() : 0);
    provisionals.set_leads(leads);
    if (!leads) {
      plane_watch.reset();
      name_watch.reset();
      prober.reset();
      verdicts.reset();
      load_watch.reset();
      // The objects are destroyed later, because this may be running inside the result of one of their own writes.
      loop.defer([gone = std::move(orders), also_gone = std::move(staples)] {});
      return;
    }
    if (site_watch) site_watch->stop();
    verdicts = std::make_unique<VerdictWriter>(loop, *host_state);
    prober = std::make_unique<Prober>(loop, *host_state, *verdicts, derive_hash_key(secret, "probe spread"));
    prober->set_commands(commands);
    prober->set_door(door());
    prober->update();
    probed_model = host_state->model_with_servers();
    name_watch = std::make_unique<NameWatch>(loop, *host_state, fleet);
    name_watch->update();
    plane_watch = std::make_unique<PlaneWatch>(loop, *host_state, fleet, own_planes, *verdicts);
    plane_watch->update();
    load_watch = std::make_shared<LoadWatch>(loop, *host_state, fleet);
    load_watch->update();
    orders = std::make_shared<acme::Orders>(loop, *host_state, fleet);
    orders->update();
    staples = std::make_shared<ocsp::Staples>(loop, *host_state);
    staples->update();
  }

  // Sends probes via the VIP. Probes hold it, and end before the Fleet.
  std::shared_ptr<const ForwarderDoor> door() {
    if (!forwarder_door) forwarder_door = make_forwarder_door(fleet, *host_state);
    return forwarder_door;
  }

  void on_change(const HostStateChange& change) {
    if (prober) {
      const std::shared_ptr<const Model> model = host_state->model_with_servers();
      const bool same_backends = model == probed_model;  // false if names lead to other servers
      probed_model = model;
      if (!same_backends) prober->update();
    }
    if ((change.version || change.live_state) && staples) staples->update();
    if (!change.version) return;
    if (name_watch) name_watch->update();
    if (plane_watch) plane_watch->update();
    if (load_watch) load_watch->update();
    if (orders) orders->update();
  }

  static HttpServerLimits server_limits() {
    HttpServerLimits limits;
    limits.body_bytes = kMaxCandidateBytes;
    return limits;
  }

  void add_routes() {
    add_config_routes(routes, *host_state, long_calls);
    add_zone_routes(routes, *host_state, long_calls);
    add_version_routes(routes, *host_state, long_calls);
    add_live_state_routes(routes, *host_state, long_calls);
    add_certificate_routes(routes, *host_state);
    add_purge_routes(routes, *host_state, waits);
    add_status_routes(routes, *host_state, fleet, waits);
    add_explain_routes(routes, *host_state, fleet);
    watch.add_routes(routes);
    replica_source.add_routes(routes);
    add_node_routes(routes, fleet);
    add_own_probes_route(routes, [this] {
      return site_watch ? site_watch->seen() : nlohmann::json{{"backends", nlohmann::json::object()}};
    });
    own_planes.add_routes(routes);
    add_candidate_routes(routes, candidates, *host_state, fleet);
    host_ballot.add_routes(routes);
    add_confirm_routes(routes, *host_state, provisionals, [this] { replica_source.say_confirmed(); });
    add_meta_routes(routes, [this] { return edge_store ? health_text(edge_store->describe()) : std::string(); });
  }

  void add_gauges() {
    // The registry lives longer than a Control. When the Control is gone, a gauge is zero.
    const auto gauge = [this](const char* name, const char* help, size_t (*read)(const Parts&)) {
      metrics().gauge(name, help, [weak = weak_from_this(), read] {
        const auto parts = weak.lock();
        return parts ? static_cast<double>(read(*parts)) : 0.0;
      });
    };
    gauge("tidegate_control_version_number", "The version of the configuration in force.",
          [](const Parts& parts) -> size_t { return parts.host_state->head().version; });
    gauge("tidegate_control_watchers", "Open watch streams.",
          [](const Parts& parts) { return parts.watch.watchers(); });
    gauge("tidegate_control_replicas", "Controls that follow this one.",
          [](const Parts& parts) { return parts.replica_source.followers(); });
    gauge("tidegate_control_probed_backends", "Backends that are probed from here.",
          [](const Parts& parts) { return parts.prober ? parts.prober->watched() : 0; });
    gauge("tidegate_control_looked_up_names", "Names of backends that are looked up from here.",
          [](const Parts& parts) { return parts.name_watch ? parts.name_watch->looked_up() : 0; });
    gauge("tidegate_control_failing_names", "Names of backends whose last look-up found nothing new.",
          [](const Parts& parts) { return parts.name_watch ? parts.name_watch->failing() : 0; });
    gauge("tidegate_control_probes_own_site", "1 while this host probes its own site, because no leader is heard.",
          [](const Parts& parts) -> size_t { return parts.site_watch && parts.site_watch->probes() ? 1 : 0; });
    add_etcd_gauges();
    add_announce_gauges();
    gauge("tidegate_control_silent_hosts", "Hosts whose control has not reported its planes for a while.",
          [](const Parts& parts) { return parts.plane_watch ? parts.plane_watch->silent_hosts() : 0; });
    metrics().collector([weak = weak_from_this()](std::string& out) {
      const auto parts = weak.lock();
      if (!parts) return;
      parts->edge_metrics.append(out);
      if (parts->load_watch) parts->load_watch->append_metrics(out);
    });
  }

  void add_etcd_gauges() {
    if (options.etcd_endpoints.empty()) return;
    const auto gauge = [this](const char* name, const char* help, double (*read)(const etcd::EdgeStore&)) {
      metrics().gauge(name, help, [weak = weak_from_this(), read] {
        const auto parts = weak.lock();
        return parts && parts->edge_store ? read(*parts->edge_store) : 0.0;
      });
    };
    gauge("tidegate_control_leads", "1 while this control leads, by its lease in etcd.",
          [](const etcd::EdgeStore& store) { return store.leads() ? 1.0 : 0.0; });
    gauge("tidegate_control_etcd_answers", "1 if etcd answered the last read.",
          [](const etcd::EdgeStore& store) { return store.answers() ? 1.0 : 0.0; });
    gauge("tidegate_control_etcd_behind_writes", "Decided writes that this host does not have yet.",
          [](const etcd::EdgeStore& store) { return static_cast<double>(store.behind()); });
  }

  void add_announce_gauges() {
    if (!options.announce) return;
    const auto gauge = [this](const char* name, const char* help, size_t (*read)(const RouteAnnouncer&)) {
      metrics().gauge(name, help, [weak = weak_from_this(), read] {
        const auto parts = weak.lock();
        return parts && parts->announcer ? static_cast<double>(read(*parts->announcer)) : 0.0;
      });
    };
    gauge("tidegate_control_announced_addresses", "Addresses of VIPs that BIRD is to announce from this host.",
          [](const RouteAnnouncer& of) { return of.announced(); });
    gauge("tidegate_control_bird_answers", "1 if BIRD has what was decided.",
          [](const RouteAnnouncer& of) -> size_t { return of.bird_answers() ? 1 : 0; });
  }

  // The lines of /healthz after "ok".
  static std::string health_text(const nlohmann::json& store) {
    const nlohmann::json leader = store.value("leader", nlohmann::json::object());
    return fmt::format("etcd: {}\nleader: {}\nlease: {} ms\nbehind: {}\n",
                       bool_member(store, "answers") ? "answers" : "silent", string_member(leader, "node", "none"),
                       number_member(store, "lease_ms_left"), number_member(store, "behind"));
  }

  nlohmann::json describe_self() const {
    const bool leads = edge_store ? edge_store->leads() : !follower;
    nlohmann::json self = {{"role", leads ? "leader" : "replica"}, {"pid", ::getpid()}};
    if (edge_store) {
      nlohmann::json store = edge_store->describe();
      const bool sound = edge_store->answers() && !store.contains("trouble");
      self["connected"] = sound;
      if (!sound) self["trouble"] = "etcd: " + string_member(store, edge_store->answers() ? "trouble" : "silence");
      if (store.contains("leader")) self["leader"] = store["leader"];
      self["store"] = std::move(store);
    }
    if (follower) {
      self["leader"] = follower->leader().to_string();
      self["connected"] = follower->connected();
      if (!follower->connected()) self["trouble"] = follower->trouble();
    }
    if (site_watch && site_watch->probes()) self["probes"] = "own site";
    if (announcer) self["announce"] = announcer->describe();
    if (provisionals.current()) self["provisional"] = provisionals.describe();
    return self;
  }

  ControlOptions options;
  std::string secret;
  std::shared_ptr<ProbeCommands> commands;  // null: no commands may be run
  std::unique_ptr<HostState> host_state;
  RouteTable routes;
  Auth auth;
  Api api;  // declared before everything that may hold one of its exchanges
  Fleet fleet;
  OwnPlanes own_planes;
  Candidates candidates;
  HostBallot host_ballot;
  ProvisionalVersions provisionals;
  LongCalls long_calls;
  EdgeMetrics edge_metrics;
  AppliedWaits waits;
  Watch watch;
  ReplicaSource replica_source;
  std::unique_ptr<VerdictWriter> verdicts;  // set on the leader, like the next seven
  std::shared_ptr<const ForwarderDoor> forwarder_door;
  std::unique_ptr<Prober> prober;
  std::shared_ptr<const Model> probed_model;  // the model whose backends the prober watches
  std::unique_ptr<NameWatch> name_watch;
  std::unique_ptr<PlaneWatch> plane_watch;
  std::shared_ptr<LoadWatch> load_watch;
  std::shared_ptr<acme::Orders> orders;
  std::shared_ptr<ocsp::Staples> staples;
  std::unique_ptr<ReplicaFollower> follower;    // set on a follower
  std::unique_ptr<SiteWatch> site_watch;        // set unless this control leads for good
  std::unique_ptr<RouteAnnouncer> announcer;    // set with --announce
  std::unique_ptr<etcd::EdgeStore> edge_store;  // set if the state is in etcd
  HttpServer server;                            // the last member, because its exchanges refer to all others
};

Control::Control() = default;
Control::~Control() = default;

Result<std::unique_ptr<Control>> Control::start(EventLoop& loop, const ControlOptions& options) {
  Tokens tokens;
  if (!options.tokens_file.empty()) {
    Result<Tokens> loaded = Tokens::load(options.tokens_file);
    if (!loaded) return loaded.error();
    tokens = std::move(*loaded);
  }
  Result<Peers> peers = read_peers(options, tokens);
  if (!peers) return peers.error();
  Result<std::shared_ptr<TlsContext>> tls = listener_tls(options);
  if (!tls) return tls.error();
  std::string secret = options.node;
  if (!options.secret_file.empty()) {
    Result<std::string> read = read_file(options.secret_file);
    if (!read) return read.error();
    secret = std::move(*read);
  }
  std::optional<etcd::EdgeStoreOptions> etcd_options;
  if (!options.etcd_endpoints.empty()) {
    Result<etcd::EdgeStoreOptions> read = read_etcd_options(options, secret);
    if (!read) return read.error();
    etcd_options = *std::move(read);
  }
  std::error_code ignored;  // if this fails, listen_unix reports the error
  std::filesystem::create_directories(options.run_dir, ignored);

  Result<std::unique_ptr<HostState>> host_state = open_host_state(options);
  if (!host_state) return host_state.error();
  std::shared_ptr<ProbeCommands> commands;
  if (!options.probe_commands.empty()) {
    Result<std::shared_ptr<ProbeCommands>> allowed =
        ProbeCommands::allow(loop, options.probe_commands, options.probe_commands_user);
    if (!allowed) return allowed.error();
    commands = *std::move(allowed);
  }
  if (!options.config.empty()) {
    Result<void> committed = commit_first(**host_state, options.config, commands.get());
    if (!committed) return committed.error();
  }

  std::unique_ptr<Control> control(new Control);
  control->parts_ = std::make_shared<Parts>(loop, options, std::move(*host_state), std::move(tokens), *peers);
  Parts& parts = *control->parts_;
  parts.secret = secret;
  parts.commands = std::move(commands);
  parts.long_calls.refuse_candidates(
      [commands = parts.commands](const Model& model) { return refusal_of_commands(commands.get(), model); });
  parts.add_routes();
  parts.add_gauges();
  parts.fleet.set_self([&parts] { return parts.describe_self(); });
  if (options.follow) {
    parts.api.set_leader(options.follow->to_string());
    parts.follower = std::make_unique<ReplicaFollower>(loop, *parts.host_state, parts.provisionals, *options.follow,
                                                       std::move(*peers));
    parts.follower->start();
  } else {
    parts.own_planes.subscribe([&parts] {
      if (parts.plane_watch) parts.plane_watch->judge_all();
    });
    parts.host_state->subscribe([&parts](const HostStateChange& change) { parts.on_change(change); });
  }
  if (parts.leads_from_the_start()) parts.set_leads(loop, true);
  if (etcd_options) {
    parts.edge_store = std::make_unique<etcd::EdgeStore>(loop, *parts.host_state, *std::move(etcd_options),
                                                         [&parts, &loop](bool leads) { parts.set_leads(loop, leads); });
    parts.api.refuse_writes([&parts] { return parts.edge_store->refusal(); });
    parts.host_state->set_adoption_hooks(
        {[&parts](const WriteSet& set) { return parts.provisionals.before_adopting(set); },
         [&parts] { parts.provisionals.after_adopting(); }});
    if (Result<void> started = parts.edge_store->start(); !started) return started.error();
  }
  if (!parts.leads_from_the_start()) {
    parts.site_watch = std::make_unique<SiteWatch>(
        loop, *parts.host_state, parts.fleet, derive_hash_key(secret, "probe spread"),
        [&parts] { return parts.edge_store ? parts.edge_store->hears_a_leader() : parts.follower->connected(); });
  }
  if (!parts.leads_from_the_start()) {
    parts.own_planes.tell_planes([&parts] {
      return parts.edge_store ? parts.edge_store->hears_a_leader() && parts.edge_store->behind() == 0
                              : parts.follower->up_to_date();
    });
  }
  if (options.announce) {
    parts.announcer = std::make_unique<RouteAnnouncer>(loop, *parts.host_state, parts.fleet, parts.own_planes,
                                                       options.bird_socket, options.announce_file);
    parts.own_planes.subscribe([&parts] { parts.announcer->update(); });
    parts.host_state->subscribe([&parts](const HostStateChange&) { parts.announcer->update(); });
    parts.announcer->update();
  }
  if (parts.site_watch) {
    parts.site_watch->set_commands(parts.commands);
    parts.site_watch->set_door(parts.door());
  }
  parts.provisionals.start([&parts](const ProvisionalVersion& provisional, std::function<void(bool)> done) {
    parts.long_calls.revert(provisional, std::move(done));
  });
  if (Result<void> listening = parts.server.listen_unix(options.run_dir + "/control.sock", kSocketMode); !listening) {
    return listening.error();
  }
  if (options.listen) {
    Result<void> listening =
        *tls ? parts.server.listen_tls(*options.listen, *tls) : parts.server.listen_tcp(*options.listen);
    if (!listening) return listening.error();
  }
  return control;
}

Result<void> Control::reload() {
  const ControlOptions& options = parts_->options;
  // Other servers read their configuration again when they are told to reload.
  if (!options.config.empty()) {
    log_info("a reload reads tokens and certificates. {} is not read: tidegate apply puts it in force", options.config);
  }
  Result<Tokens> tokens = options.tokens_file.empty() ? Tokens() : Tokens::load(options.tokens_file);
  Result<std::shared_ptr<TlsContext>> tls = listener_tls(options);
  if (!tokens && !tls) return fail(tokens.error().message + "; " + tls.error().message);
  if (!tokens) return tokens.error();
  if (!tls) return tls.error();
  Result<Peers> peers = read_peers(options, *tokens);
  if (!peers) return peers.error();
  if (parts_->follower) parts_->follower->set_peers(*peers);
  parts_->fleet.set_peers(*std::move(peers));
  if (!options.tokens_file.empty()) {
    log_info("{} tokens read from {}", tokens->size(), options.tokens_file);
    parts_->auth.replace_tokens(std::move(*tokens));
  }
  if (*tls) {
    log_info("certificate read from {}", options.tls_certificate_file);
    parts_->server.replace_tls(*tls);
  }
  return {};
}

void Control::stop_listening() { parts_->server.stop_listening(); }

void Control::hand_over(std::function<void()> done) {
  if (!parts_->edge_store) return done();
  parts_->edge_store->resign(std::move(done));
}

HostState& Control::host_state() { return *parts_->host_state; }

const RouteTable& Control::routes() const { return parts_->routes; }

std::optional<Endpoint> Control::tcp_endpoint() const {
  if (!parts_->options.listen) return std::nullopt;
  return parts_->server.tcp_endpoint();
}

}  // namespace tidegate
