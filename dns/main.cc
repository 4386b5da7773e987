// SPDX-License-Identifier: Apache-2.0
// tidegate-dns: the authoritative DNS and HTTPDNS server.
#include <nlohmann/json.hpp>

#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/steer.h"
#include "conf/model/zone.h"
#include "conf/plane.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "core/metrics.h"
#include "dns/family_text.h"
#include "dns/limits.h"
#include "dns/query/explain.h"
#include "dns/server/alias_resolver.h"
#include "dns/server/server.h"

namespace {

using namespace tidegate;

constexpr uint64_t kCollectMs = 1'000;
constexpr uint64_t kTendXdpMs = 1'000;
constexpr uint64_t kLookLeftMs = 100;

Result<nlohmann::json> explain_request(dns::Server& server, const HttpRequest& request) {
  const auto client = IpAddress::parse(request.parameter("client").value_or(""));
  if (!client) return fail("client: an IP address is needed");
  const auto name = request.parameter("name");
  if (!name || name->empty()) return fail("name: a domain name is needed");
  const std::string type = request.parameter("type").value_or("A");
  server.own_worker().now_s = static_cast<uint32_t>(realtime_ns() / kNsPerS);  // the draw depends on the time
  return dns::explain(client->unmapped(), *name, type, *server.tables(), server.own_worker());
}

void add_status(const dns::Server& server, nlohmann::json& status) {
  const dns::Tables* tables = server.tables();
  if (tables == nullptr) return;
  status["zones"] = nlohmann::json::array();
  for (const dns::ServedZone& zone : tables->authority->zones) {
    status["zones"].push_back({{"name", zone.name},
                               {"names", zone.zone->names()},
                               {"records", zone.zone->records()},
                               {"warnings", zone.zone->warnings()},
                               {"memory_bytes", zone.zone->memory_bytes()}});
  }
  status["steers"] = tables->authority->steers.size();
  status["geo"] = {{"prefixes", tables->geo->prefix_count()}, {"orders", tables->geo->order_count()}};
  status["queries"] = server.queries();
  status["workers"] = server.workers();
  for (const dns::XdpState& xdp : server.xdp_states()) {
    nlohmann::json& told = status["xdp"].emplace_back(nlohmann::json{{"interface", xdp.interface}});
    if (xdp.refused.empty()) {
      told.update({{"mode", xdp.mode}, {"queues", xdp.queues}, {"zero_copy", xdp.zero_copy}});
    } else {
      told["refused"] = xdp.refused;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const PlaneOptions options = parse_plane_options(
      argc, argv, "dns", "The authoritative DNS and HTTPDNS server: steers clients by geography and health.");
  Plane plane("dns", options);
  dns::Server server(derive_hash_key(plane.secret(), "dns-cookie"), options.overlap);
  dns::AliasResolver aliases(plane.loop(), [&] { server.set_aliases(aliases.book()); });
  metrics().collector([&](std::string& out) {
    server.append_metrics(out);
    dns::FamilyText(out, "tidegate_dns_alias_lookups_total", "Lookups of names of others that steers lead to.")
        .add(aliases.counts().found, {{"result", "found"}})
        .add(aliases.counts().empty, {{"result", "empty"}})
        .add(aliases.counts().failed, {{"result", "failed"}});
  });

  // Old Tables that a worker still holds when newer ones come are released a little later.
  Timer collect(plane.loop(), [&] {
    if (!server.collect()) collect.arm_after_ms(kCollectMs);
  });
  Timer tend_xdp(plane.loop(), [&] {
    if (server.tend_xdp()) tend_xdp.arm_after_ms(kTendXdpMs);
  });
  PlaneHooks hooks;
  hooks.apply = [&](std::shared_ptr<const Snapshot> snapshot, const Node& node) {
    auto applied = server.apply(std::move(snapshot), node);
    if (applied) aliases.follow(server.tables()->authority->aliases, node.dns.resolvers);
    collect.arm_after_ms(kCollectMs);
    tend_xdp.arm_after_ms(kTendXdpMs);
    return applied;
  };
  hooks.judge = [&](const std::shared_ptr<const Model>& model, const Node&) { return server.judge(model); };
  hooks.hold = [&](const std::shared_ptr<const Snapshot>& snapshot, const Node& node) {
    return server.hold(snapshot, node);
  };
  hooks.release = [&] { server.release(); };
  hooks.digest = [&] { return server.tables() == nullptr ? std::string() : server.tables()->digest; };
  hooks.add_status = [&](nlohmann::json& status) { add_status(server, status); };
  hooks.explain = [&](const HttpRequest& request) { return explain_request(server, request); };
  hooks.explain_parameters = {
      QueryParameter::address("client", "its IP address"), {"name", "a domain name"}, {"type", "of the records (A)"}};
  hooks.drain = [&](std::function<void()> done) {
    server.stop();
    done();
  };
  uint64_t leave_by_ns = 0;
  std::function<void()> left;
  Timer look_left(plane.loop(), [&] {
    if (server.connections_left() > 0 && monotonic_ns() < leave_by_ns) return look_left.arm_after_ms(kLookLeftMs);
    server.stop();
    left();
  });
  hooks.upgrade.sockets = [&] { return server.sockets(); };
  hooks.upgrade.let_go = [&](const std::function<void(UniqueFd)>& done) {
    server.let_go();
    done({});
  };
  hooks.upgrade.take_back = [&] { server.take_back(); };
  hooks.upgrade.leave = [&](std::function<void()> done) {
    server.leave();
    left = std::move(done);
    leave_by_ns = monotonic_ns() + dns::kLeaveMs * kNsPerMs;
    look_left.arm_after_ms(kLookLeftMs);
  };
  hooks.upgrade.connections = [&] { return server.connections_left(); };
  hooks.upgrade.inherit = [&](const HandOverItem& item, UniqueFd socket) { server.inherit(item, std::move(socket)); };
  return plane.run(std::move(hooks));
}
