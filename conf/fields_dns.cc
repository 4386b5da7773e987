// SPDX-License-Identifier: Apache-2.0
// The keys of zones, steers, geo and httpdns: what DNS answers, and to whom.
#include "conf/field_builders.h"
#include "conf/model.h"
#include "conf/model/httpdns.h"
#include "conf/model/steer.h"
#include "conf/model/zone.h"

namespace tidegate {

using namespace fields;

namespace {

// A key that gives the target one of the types.
template <class Alternative>
Field makes(Field field) {
  field.store = [](void* owner, size_t, ScalarValue&& value) {
    auto& what = static_cast<SteerTarget*>(owner)->what;
    if constexpr (std::is_same_v<Alternative, TargetAlias>) {
      what = Alternative{std::get<std::string>(std::move(value))};
    } else {
      what = Alternative{static_cast<uint32_t>(std::get<uint64_t>(value))};
    }
  };
  field.default_value.reset();
  return field;
}

Field target_reference(std::string_view key, std::string_view refers_to, std::string_view sentence) {
  Field field;
  field.key = key;
  field.type = FieldType::reference;
  field.refers_to = refers_to;
  field.sentence = sentence;
  return field;
}

Field target_alias() {
  Field field;
  field.key = "alias";
  field.type = FieldType::domain;
  field.sentence =
      "Answers with the addresses of this name of others, which the server looks up again when their TTL ends. So a "
      "zone's apex can lead to it.";
  return field;
}

// A key of SteerTarget::clients.
template <class Item>
Field clients(std::string_view key, FieldType type, std::vector<Item> TargetClients::*member,
              std::string_view sentence) {
  Place place = place_of(member);
  place.offset += place_of(&SteerTarget::clients).offset;
  return list_row(key, type, place, kListAccess<std::vector<Item>>, kValueAccess<Item>, sentence, 1);
}

const Section& steer_target_section() {
  static const Section section{
      "target",
      {
          makes<TargetVip>(target_reference(
              "vip", "vips", "Answers with its addresses. Exactly one of vip, pool, steer and alias is given.")),
          makes<TargetPool>(target_reference("pool", "pools", "Answers with the addresses of its usable backends.")),
          makes<TargetSteer>(target_reference(
              "steer", "steers",
              "Answers as this other steer does, up to five levels deep. The outer one's `all_down` holds; the TTL is "
              "the smaller one.")),
          makes<TargetAlias>(target_alias()),
          integer(
              "weight", &SteerTarget::weight, {0, 65'535},
              "Share of answers. With `weighted` and `sticky`, 0 is never chosen, and at least one target has more. "
              "Otherwise the share among the targets that are as good (of one site, of one map entry)."),
          reference("site", &SteerTarget::site, "sites",
                    "Where a steer or an alias is taken to be; `nearest` needs it."),
          clients("networks", FieldType::cidr, &TargetClients::networks,
                  "Of a `map`: the clients' addresses. The longest prefix wins, before every other key."),
          within(clients("asns", FieldType::integer, &TargetClients::asns,
                         "Of a `map`: numbers of the clients' autonomous systems, as the mmdb files say."),
                 {1, UINT32_MAX}),
          within(clients("regions", FieldType::text, &TargetClients::regions,
                         "Of a `map`: the clients' regions (ISO 3166-2), like `US-CA`."),
                 {4, 6}),
          within(clients("countries", FieldType::text, &TargetClients::countries,
                         "Of a `map`: the clients' countries (ISO 3166-1), like `US`."),
                 {2, 2}),
          within(clients("continents", FieldType::text, &TargetClients::continents,
                         "Of a `map`: the clients' continents: AF, AN, AS, EU, NA, OC or SA."),
                 {2, 2}),
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
          secret(required(bounded("secret", FieldType::text, &HttpDnsAccount::secret, {1, 256},
                                  "Shared with the client: signs its requests."))),
          secret(bounded("other_secrets", FieldType::text, &HttpDnsAccount::other_secrets, {1, 256},
                         "Accepted beside `secret`, so that clients can change from one to another.")),
          secret(text(
              "aes_key", &HttpDnsAccount::aes_key,
              "32 hexadecimal digits: opens the encrypted requests of `/v2/d` and seals their answers. Without it they "
              "are refused.",
              32)),
          secret(text("des_key", &HttpDnsAccount::des_key,
                      "Eight characters: opens the requests of `/d` that are encrypted by DES and seals their answers. "
                      "`aes_key` "
                      "does so for those encrypted by AES.",
                      8)),
          secret(bounded("tokens", FieldType::text, &HttpDnsAccount::tokens, {1, 256},
                         "Each opens `/d` without encryption, where TLS hides it. No two accounts share one.")),
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
                  {"failover", SteerPolicy::failover},
                  {"map", SteerPolicy::map},
                  {"sticky", SteerPolicy::sticky},
                  {"multivalue", SteerPolicy::multivalue},
                  {"shed", SteerPolicy::shed}},
                 "`nearest`: the site nearest to the client. `weighted`: one target, drawn by weight. `failover`: the "
                 "first target that is up. `map`: the targets for the client's network, AS, region, country or "
                 "continent, in this order, then those for everybody; a target for other clients is never used. "
                 "`sticky`: one target for each client network, for as long as it is up. `multivalue`: all targets "
                 "that are up, in changing order. `shed`: the site nearest to the client; if it is loaded beyond its "
                 "`shed_above`, "
                 "a share of its clients goes to the next one, as large as it takes."),
          duration("ttl", &Steer::ttl_s, {0, 7 * kDay}, "How long resolvers keep the answer, in whole seconds.",
                   kSecond),
          required(nested("targets", &Steer::targets, steer_target_section(),
                          "The possible answers, in the order of failover.")),
          integer("max_answers", &Steer::max_answers, {1, 32}, "Addresses in one answer; `sticky` gives one."),
          choice("all_down", &Steer::all_down, {{"open", AllDown::open}, {"closed", AllDown::closed}},
                 "If no target is up: `open` answers as if all were, `closed` answers without addresses."),
          boolean(
              "https_record", &Steer::https_record,
              "Answers type HTTPS (RFC 9460) too: ALPN and port from the TLS listeners whose routes serve the name, "
              "and the addresses as hints. An HTTPS record of the zone at this name goes before."),
          integer("client_prefix_v4", &Steer::client_prefix_v4, {1, 32},
                  "Of `sticky` and `shed`: clients whose addresses agree in this many bits share a target."),
          integer("client_prefix_v6", &Steer::client_prefix_v6, {1, 128}, "The same for IPv6."),
      }};
  return section;
}

const Section& geo_section() {
  static const Section section{"geo section",
                               {
                                   text("mmdb", &Geo::mmdb,
                                        "Path of a MaxMind DB on each host: locations for `nearest`; continents, "
                                        "countries, regions or AS numbers for `map`. It is not part of the "
                                        "configuration's versions."),
                                   bounded("other_mmdbs", FieldType::text, &Geo::other_mmdbs, {1, 1'024},
                                           "Paths of up to three more, used for what the ones before do not say."),
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
