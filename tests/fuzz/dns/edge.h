// SPDX-License-Identifier: Apache-2.0
// A small fixed edge for the fuzz targets: one zone with every record type, steers of every kind, and geography.
#pragma once

#include <memory>
#include <string>

#include "conf/model.h"
#include "conf/model/httpdns.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/route.h"
#include "conf/model/site.h"
#include "conf/model/steer.h"
#include "conf/model/zone.h"
#include "conf/snapshot.h"
#include "dns/query/tables.h"

namespace tidegate::dns::fuzz {

inline constexpr char kZone[] = R"($ORIGIN example.test.
$TTL 300
@      IN SOA ns1 hostmaster 1 3600 600 604800 60
       IN NS ns1
       IN MX 10 mail
       IN MX 20 x.wild
       IN MX 30 near
mail   IN HTTPS 1 . alpn=h2
_s._t  IN SRV 0 0 1 www
*.wild IN A 192.0.2.9
ns1    IN A 192.0.2.53
www    IN A 192.0.2.80
alias  IN CNAME www
loop   IN CNAME loop
*.wild IN TXT "wild"
*.c    IN CNAME www
child  IN NS ns.child
child  IN NS near
child  IN NS y.wild
ns.child IN A 192.0.2.77
old    IN DNAME new.example.test.
)";

inline std::shared_ptr<const Tables> make_tables() {
  auto model = std::make_shared<Model>();
  model->sites = {{"eu", {50, 8}}, {"us", {40, -74}}};
  model->vips = {{"eu", 0, {*IpAddress::parse("203.0.113.1"), *IpAddress::parse("2001:db8::1")}},
                 {"us", 1, {*IpAddress::parse("203.0.113.2")}}};
  tidegate::Zone zone;
  zone.name = "example.test.";
  zone.file = {"example.zone", "1", std::make_shared<const std::string>(kZone)};
  model->zones = {zone};
  for (const auto& [name, policy] : {std::pair{"near.example.test.", SteerPolicy::nearest},
                                     {"*.far.example.test.", SteerPolicy::failover},
                                     {"www.example.test.", SteerPolicy::weighted}}) {
    Steer steer;
    steer.name = name;
    steer.policy = policy;
    steer.targets.resize(2);
    steer.targets[0].what = TargetVip{0};
    steer.targets[1].what = TargetVip{1};
    steer.https_record = true;
    model->steers.push_back(steer);
  }
  Listener listener;
  listener.bind = {{*IpAddress::parse("192.0.2.1"), 8443}};
  listener.tls.enabled = true;
  model->listeners = {listener};
  model->routes.emplace_back();
  model->geo.networks = {{*Cidr::parse("10.1.0.0/16"), 1, std::nullopt},
                         {*Cidr::parse("2001:db8::/32"), 0, std::nullopt}};
  model->httpdns_accounts = {
      {"1", "secret", true, {"other"}, "000102030405060708090a0b0c0d0e0f", "12345678", {"a-token-of-1"}, 0, 1}};
  model->httpdns_service = {0, 1};
  Node node;
  node.dns.nsid = "fuzz";
  const auto snapshot = make_snapshot(1, "digest", model, std::make_shared<const LiveState>());
  return build_tables(snapshot, node, nullptr).value();
}

}  // namespace tidegate::dns::fuzz
