// SPDX-License-Identifier: Apache-2.0
// Cross check of ports that two daemons of one node would both bind.
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "conf/checks.h"
#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"

namespace tidegate {
namespace {

enum class Asker : uint8_t { dns, httpdns, management, listener, flows };

// One TCP socket on which a daemon of the node listens. DNS uses the same port over UDP too. Flows are shared over UDP
// alone.
struct Bound {
  Endpoint endpoint;
  Asker asker;
  size_t owner;     // index of the node, or of the listener
  size_t position;  // index in the owner's list
};

template <class Use>
auto with_way(const Bound& bound, Use use) {
  switch (bound.asker) {
    case Asker::dns:
      return use({"nodes", bound.owner, "dns", "listen", bound.position});
    case Asker::httpdns:
      return use({"nodes", bound.owner, "dns", "httpdns_listen", bound.position});
    case Asker::management:
      return use({"nodes", bound.owner, "management"});
    case Asker::flows:
      return use({"nodes", bound.owner, "l4", "share_flows"});
    case Asker::listener:
      break;
  }
  return use({"listeners", bound.owner, "bind", bound.position});
}

std::string describe(const Model& model, const Bound& bound) {
  switch (bound.asker) {
    case Asker::dns:
      return "dns.listen";
    case Asker::httpdns:
      return "dns.httpdns_listen";
    case Asker::management:
      return "management";
    case Asker::flows:
      return "l4.share_flows";
    case Asker::listener:
      break;
  }
  return fmt::format("listener '{}'", model.listeners[bound.owner].name);
}

bool is_unspecified(const IpAddress& address) {
  return std::all_of(address.bytes.begin(), address.bytes.end(), [](uint8_t byte) { return byte == 0; });
}

bool same_transport(Asker a, Asker b) {
  if (a != Asker::flows && b != Asker::flows) return true;
  return a == Asker::dns || b == Asker::dns;
}

// An unspecified address occupies the port on every address of its family.
bool overlap(const Endpoint& a, const Endpoint& b) {
  if (a.port != b.port || a.address.family != b.address.family) return false;
  return a.address == b.address || is_unspecified(a.address) || is_unspecified(b.address);
}

std::vector<Bound> bound_on(const Checks& checks, const Model& model, size_t n) {
  const Node& node = model.nodes[n];
  std::vector<Bound> out;
  const auto add = [&](const Endpoint& endpoint, Asker asker, size_t owner, size_t position) {
    const Bound bound{endpoint, asker, owner, position};
    if (with_way(bound, [&](Way way) { return checks.sound(way); })) out.push_back(bound);
  };
  if (node.dns.enabled) {
    for (size_t i = 0; i < node.dns.listen.size(); ++i) add(node.dns.listen[i], Asker::dns, n, i);
    for (size_t i = 0; i < node.dns.httpdns_listen.size(); ++i) add(node.dns.httpdns_listen[i], Asker::httpdns, n, i);
  }
  if (node.management) add(*node.management, Asker::management, n, 0);
  if (node.l4.share_flows) add(*node.l4.share_flows, Asker::flows, n, 0);
  if (!node.l7.enabled) return out;
  for (size_t l = 0; l < model.listeners.size(); ++l) {
    const Listener& listener = model.listeners[l];
    if (!checks.sound({"listeners", l, "site"}) || (listener.site != kNone && listener.site != node.site)) continue;
    for (size_t i = 0; i < listener.bind.size(); ++i) add(listener.bind[i], Asker::listener, l, i);
  }
  return out;
}

}  // namespace

void check_ports(Checks& checks) {
  const Model& model = checks.model();
  for (size_t n = 0; n < model.nodes.size() && !checks.full(); ++n) {
    const std::vector<Bound> bound = bound_on(checks, model, n);
    for (size_t b = 0; b < bound.size(); ++b) {
      // check_http reports two listeners that collide
      const auto other = std::find_if(bound.begin(), bound.begin() + static_cast<ptrdiff_t>(b), [&](const Bound& a) {
        return a.asker != bound[b].asker && same_transport(a.asker, bound[b].asker) &&
               overlap(a.endpoint, bound[b].endpoint);
      });
      if (other == bound.begin() + static_cast<ptrdiff_t>(b)) continue;
      const std::string line = with_way(*other, [&](Way way) { return checks.line_of(way); });
      Complaint complaint{"colliding_ports",
                          fmt::format("node '{}' binds {} twice", model.nodes[n].name, bound[b].endpoint.to_string()),
                          {},
                          fmt::format("{} has {}{}", describe(model, *other), other->endpoint.to_string(), line)};
      with_way(bound[b], [&](Way way) { checks.refuse(way, std::move(complaint)); });
    }
  }
}

}  // namespace tidegate
