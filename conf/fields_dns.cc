// SPDX-License-Identifier: Apache-2.0
// The keys of zones, steers, geo and httpdns: what DNS answers, and to whom.
#include "conf/field_builders.h"

namespace tidegate {

using namespace fields;

namespace {

const Section& steer_target_section() {
  static const Section section{
      "target",
      {
          reference("vip", &SteerTarget::vip, "vips",
                    "Answers with its addresses. Exactly one of vip and pool is given."),
          reference("pool", &SteerTarget::pool, "pools", "Answers with the addresses of its usable backends."),
          integer("weight", &SteerTarget::weight, {0, 65'535},
                  "Share of answers. With `weighted`, 0 is never chosen, and at least one target has more. With "
                  "`nearest`, the share among the targets of one site."),
      }};
  return section;
}

const Section& geo_network_section() {
  static const Section section{
      "network",
      {
          identity(row("network", FieldType::cidr, &GeoNetwork::network,
                       "The clients' addresses. 6to4 (`2002::/16`) and v4-mapped clients are located by the IPv4 "
                       "address inside their address.")),
          reference("site", &GeoNetwork::site, "sites", "Their site. Exactly one of site and location is given."),
          nested("location", &GeoNetwork::location, location_section(),
                 "Coordinates of the clients. The nearest site is computed from them."),
      }};
  return section;
}

const Section& httpdns_account_section() {
  static const Section section{
      "account",
      {
          identity(row("id", FieldType::name, &HttpDnsAccount::id, "The account's number in the request's path.")),
          required(bounded("secret", FieldType::text, &HttpDnsAccount::secret, {1, 256},
                           "Shared with the client: signs its requests.")),
          bounded("other_secrets", FieldType::text, &HttpDnsAccount::other_secrets, {1, 256},
                  "Accepted beside `secret`, so that clients can change from one to another."),
          text(
              "aes_key", &HttpDnsAccount::aes_key,
              "32 hexadecimal digits: opens the encrypted requests of `/v2/d` and seals their answers. Without it they "
              "are refused.",
              32),
          text("des_key", &HttpDnsAccount::des_key,
               "Eight characters: opens the requests of `/d` that are encrypted by DES and seals their answers. "
               "`aes_key` "
               "does so for those encrypted by AES.",
               8),
          bounded("tokens", FieldType::text, &HttpDnsAccount::tokens, {1, 256},
                  "Each opens `/d` without encryption, where TLS hides it. No two accounts share one."),
          boolean("allow_unsigned", &HttpDnsAccount::allow_unsigned,
                  "Answers requests without a signature, encryption or token too."),
          integer("rate", &HttpDnsAccount::rate, {0, 1'000'000'000},
                  "Host names a second that one name server answers for the account; 0: no bound."),
          integer("burst", &HttpDnsAccount::burst, {1, 1'000'000'000}, "Host names answered at once after a pause."),
      }};
  return section;
}

}  // namespace

const Section& zone_section() {
  static const Section section{"zone",
                               {
                                   identity(row("name", FieldType::domain, &Zone::name, "The zone's apex.")),
                                   required(row("file", FieldType::file, &Zone::file,
                                                "Master file (RFC 1035 §5). Files that it includes ($INCLUDE) must be "
                                                "below the document's folder. They become part of the version.")),
                               }};
  return section;
}

const Section& steer_section() {
  static const Section section{
      "steer",
      {
          identity(row("name", FieldType::domain, &Steer::name, "A name inside one of the zones.")),
          choice("policy", &Steer::policy,
                 {{"nearest", SteerPolicy::nearest},
                  {"weighted", SteerPolicy::weighted},
                  {"failover", SteerPolicy::failover}},
                 "`nearest`: the site nearest to the client. `weighted`: by the targets' weights. `failover`: the "
                 "first target that is up."),
          duration("ttl", &Steer::ttl_s, {0, 7 * kDay}, "How long resolvers keep the answer, in whole seconds.",
                   kSecond),
          required(nested("targets", &Steer::targets, steer_target_section(),
                          "The possible answers, in the order of failover.")),
          integer("max_answers", &Steer::max_answers, {1, 32}, "Addresses in one answer."),
          choice("all_down", &Steer::all_down, {{"open", AllDown::open}, {"closed", AllDown::closed}},
                 "If no target is up: `open` answers as if all were, `closed` answers without addresses."),
          boolean(
              "https_record", &Steer::https_record,
              "Answers type HTTPS (RFC 9460) too: ALPN and port from the TLS listeners whose routes serve the name, "
              "and the addresses as hints. An HTTPS record of the zone at this name goes before."),
      }};
  return section;
}

const Section& geo_section() {
  static const Section section{"geo section",
                               {
                                   text("mmdb", &Geo::mmdb,
                                        "Path of a MaxMind DB with locations (of cities) on each host. It is not part "
                                        "of the configuration's versions."),
                                   nested("networks", &Geo::networks, geo_network_section(),
                                          "Your own map. The longest prefix wins. It takes precedence over the mmdb."),
                                   reference("default_site", &Geo::default_site, "sites",
                                             "The site of clients that neither the networks nor the mmdb knows."),
                               }};
  return section;
}

const Section& httpdns_section() {
  static const Section section{
      "httpdns section",
      {
          nested("accounts", &Model::httpdns_accounts, httpdns_account_section(), "Who may ask."),
          reference("service", &Model::httpdns_service, "vips",
                    "Where clients find HTTPDNS: `/{account}/ss` names the addresses of those that are up, the nearest "
                    "first. Without it `/{account}/ss` is not there."),
          integer("client_rate", &Model::httpdns_client_rate, {0, 1'000'000},
                  "Host names a second that one client address may ask for (IPv6: a /64), of one name server; 0: no "
                  "bound. A request that is refused counts as one. `trusted_proxies` have no bound."),
          integer("client_burst", &Model::httpdns_client_burst, {1, 10'000'000},
                  "Host names that one client address may ask for at once after a pause."),
      }};
  return section;
}

}  // namespace tidegate
