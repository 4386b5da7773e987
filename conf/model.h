// SPDX-License-Identifier: Apache-2.0
// The model of an edge: the content of a configuration document as plain structs. One document describes every node of
// the edge; a daemon finds its own part by node name. Defaults are in the member initialisers of conf/model/ and
// nowhere else: the field table (conf/fields.cc) takes them from a default-constructed struct, and adds key, unit,
// bounds and a sentence to each.
//
// References by name in the document become indexes into the Model's lists (kNone if absent). They are resolved and
// checked before anyone reads the Model, so no reader ever sees a dangling name.
//
// A source includes the headers of the kinds whose members it uses. So a change of one kind is nothing to sources of
// the others.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "conf/elements.h"
#include "conf/model/acme.h"
#include "conf/model/common.h"
#include "conf/model/geo.h"
#include "conf/model/httpdns.h"

namespace tidegate {

struct Site;         // conf/model/site.h
struct Vip;          // conf/model/site.h
struct Node;         // conf/model/node.h
struct Acl;          // conf/model/service.h
struct Service;      // conf/model/service.h
struct Pool;         // conf/model/pool.h
struct Probe;        // conf/model/probe.h
struct Certificate;  // conf/model/certificate.h
struct Listener;     // conf/model/listener.h
struct Route;        // conf/model/route.h
struct Policy;       // conf/model/policy.h
struct Zone;         // conf/model/zone.h
struct Steer;        // conf/model/steer.h

// An Elements list shares its elements with the Models of other versions.
struct Model {
  Elements<Site> sites;
  Elements<Node> nodes;
  Elements<Vip> vips;
  Elements<Acl> acls;
  Elements<Service> services;
  Elements<Pool> pools;
  Elements<Probe> probes;
  Elements<Certificate> certificates;
  Acme acme;
  Elements<Listener> listeners;
  Elements<Route> routes;
  Elements<Policy> policies;
  Elements<Zone> zones;
  Elements<Steer> steers;
  Geo geo;
  std::vector<HttpDnsAccount> httpdns_accounts;
  std::vector<uint32_t> httpdns_service;  // VIPs at which clients reach HTTPDNS
  uint64_t httpdns_client_rate = 1'000;   // host names per second of one client address; 0: no limit
  uint64_t httpdns_client_burst = 10'000;

  // Index of the node, or kNone.
  uint32_t node_index(std::string_view name) const;
};

}  // namespace tidegate
