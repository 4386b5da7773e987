// SPDX-License-Identifier: Apache-2.0
#include "conf/fields.h"

#include <set>

#include "conf/document_node.h"
#include "conf/field_builders.h"
#include "conf/model.h"
#include "conf/model/certificate.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/policy.h"
#include "conf/model/pool.h"
#include "conf/model/probe.h"
#include "conf/model/route.h"
#include "conf/model/service.h"
#include "conf/model/site.h"
#include "conf/model/steer.h"
#include "conf/model/zone.h"

namespace tidegate {

using namespace fields;

const Field* Section::find(std::string_view key) const {
  for (const Field& field : fields) {
    if (same_word(field.key, key)) return &field;
  }
  return nullptr;
}

const Field* Section::identity() const {
  for (const Field& field : fields) {
    if (field.identity) return &field;
  }
  return nullptr;
}

std::vector<std::string_view> Section::keys() const {
  std::vector<std::string_view> keys;
  for (const Field& field : fields) keys.push_back(field.key);
  return keys;
}

const Section& location_section() {
  static const Section section{"location",
                               {
                                   required(number("latitude", &Location::latitude, -90, 90,
                                                   "Degrees north of the equator; south is negative.")),
                                   required(number("longitude", &Location::longitude, -180, 180,
                                                   "Degrees east of Greenwich; west is negative.")),
                               }};
  return section;
}

const Section& site_section() {
  static const Section section{
      "site",
      {
          name(&Site::name, "What nodes, VIPs and clients' networks refer to."),
          nested("location", &Site::location, location_section(),
                 "Its coordinates. `nearest` steering needs them to measure the distance to clients."),
          number("bias", &Site::bias, -99, 99,
                 "Draws clients to the site in `nearest`: a distance to it counts as this many per cent less; below 0, "
                 "as if it were divided by that much less than one."),
          integer("shed_above", &Site::shed_above, {1, 100},
                  "Load in per cent above which steers of the policy `shed` send a share of the site's clients to the "
                  "next site. Its proxies report their load: the CPU time of their workers, or their client "
                  "connections of those that they may have, whichever is nearer to its bound."),
      }};
  return section;
}

const Section& root_section() {
  static const Section section = [] {
    // The accounts are a member of the Model itself, but the document has its own key for them.
    Field httpdns;
    httpdns.key = "httpdns";
    httpdns.type = FieldType::section;
    httpdns.sentence = "Who may ask over HTTPDNS.";
    httpdns.section = &httpdns_section();
    httpdns.enter = [](void* owner, size_t) { return owner; };
    return Section{
        "document",
        {
            nested("sites", &Model::sites, site_section(), "The places where the hosts of the edge are."),
            nested("nodes", &Model::nodes, node_section(), "The hosts, and which planes each of them runs."),
            nested("vips", &Model::vips, vip_section(), "The addresses that clients connect to."),
            nested("acls", &Model::acls, acl_section(),
                   "Lists of clients, by their networks or countries, that services allow or deny."),
            nested("services", &Model::services, service_section(),
                   "Which port of a VIP the forwarder serves, and with which pool."),
            nested("pools", &Model::pools, pool_section(), "Groups of backends that do the same work."),
            nested("probes", &Model::probes, probe_section(), "Checks of the health of backends."),
            nested("certificates", &Model::certificates, certificate_section(), "TLS identities of the proxy."),
            nested("acme", &Model::acme, acme_section(),
                   "The authority from which control gets certificates (RFC 8555)."),
            nested("listeners", &Model::listeners, listener_section(), "Where the proxy accepts connections."),
            nested("routes", &Model::routes, route_section(),
                   "Which requests go to which pool. The most specific host wins, then the most specific path. The "
                   "order of the routes does not matter; two routes that would tie are refused."),
            nested("policies", &Model::policies, policy_section(),
                   "What the proxy does to requests besides passing them on. The order in which their parts act is "
                   "fixed; l7/README.md has it."),
            nested("zones", &Model::zones, zone_section(), "The DNS zones for which this edge is authoritative."),
            nested("steers", &Model::steers, steer_section(),
                   "Names whose addresses depend on the client and on health."),
            nested("geo", &Model::geo, geo_section(), "Where clients are."),
            std::move(httpdns),
        }};
  }();
  return section;
}

namespace {

void add_secret_keys(const Section& section, std::set<std::string_view>& out) {
  for (const Field& field : section.fields) {
    if (field.secret) out.insert(field.key);
    if (field.section != nullptr) add_secret_keys(*field.section, out);
  }
}

}  // namespace

bool is_secret_key(std::string_view key) {
  static const std::set<std::string_view> keys = [] {
    std::set<std::string_view> found;
    add_secret_keys(root_section(), found);
    return found;
  }();
  return keys.count(key) != 0;
}

}  // namespace tidegate
