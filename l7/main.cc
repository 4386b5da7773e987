// SPDX-License-Identifier: Apache-2.0
// tidegate-l7: the TLS-terminating reverse proxy.
#include <csignal>
#include <nlohmann/json.hpp>

#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/plane.h"
#include "core/log.h"
#include "core/metrics.h"
#include "l7/plan/judge.h"
#include "l7/proxy.h"

int main(int argc, char** argv) {
  using namespace tidegate;
  Plane plane("l7", parse_plane_options(argc, argv, "l7", "TLS-terminating reverse proxy with an edge cache"));
  std::signal(SIGPIPE, SIG_IGN);
  l7::Proxy proxy(plane.loop(), plane.secret(), plane.options().state_dir, metrics(), plane.options().overlap);
  PlaneHooks hooks;
  hooks.apply = [&](std::shared_ptr<const Snapshot> snapshot, const Node& node) {
    return proxy.apply(std::move(snapshot), node);
  };
  hooks.prepare = [&](const std::shared_ptr<const Snapshot>& snapshot, const Node& node) {
    return proxy.prepare(snapshot, node);
  };
  hooks.judge = [](const std::shared_ptr<const Model>& model, const Node&) { return l7::judge(*model, nullptr); };
  hooks.hold = [&](const std::shared_ptr<const Snapshot>& snapshot, const Node& node) {
    return proxy.hold(snapshot, node);
  };
  hooks.release = [&] { proxy.release(); };
  hooks.private_keys = true;
  hooks.on_purge = [&](const Purge& purge) { proxy.purge(purge); };
  hooks.digest = [&] { return proxy.digest(); };
  hooks.add_status = [&](nlohmann::json& status) { proxy.add_status(status); };
  hooks.warnings = [&] { return proxy.warnings(); };
  hooks.explain = [&](const HttpRequest& request) { return proxy.explain(request); };
  hooks.explain_parameters = {QueryParameter::address("client", "its IP address"),
                              {"url", "http(s)://host/path"},
                              {"method", "of the request (GET)"},
                              {"headers", "of the request: lines 'Name: value', with LF between them"},
                              QueryParameter::number("body", "bytes of its body", 0, uint64_t{1} << 50),
                              {"request", "the id of a past request, in place of the others"}};
  hooks.reopen_logs = [&] { proxy.reopen_log(); };
  hooks.drain = [&](std::function<void()> done) { proxy.drain(std::move(done)); };
  hooks.upgrade.sockets = [&] { return proxy.sockets(); };
  hooks.upgrade.let_go = [&](std::function<void(UniqueFd)> done) { proxy.let_go(std::move(done)); };
  hooks.upgrade.take_back = [&] { proxy.take_back(); };
  hooks.upgrade.leave = [&](std::function<void()> done) { proxy.leave(std::move(done)); };
  hooks.upgrade.connections = [&] { return proxy.connections(); };
  hooks.upgrade.inherit = [&](const HandOverItem& item, UniqueFd socket) { proxy.inherit(item, std::move(socket)); };
  hooks.upgrade.inherit_lock = [&](UniqueFd lock) { proxy.inherit_lock(std::move(lock)); };
  hooks.upgrade.data_format = cache::Cache::disk_format();
  return plane.run(std::move(hooks));
}
