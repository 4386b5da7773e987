// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/dns/support.h"

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "conf/model/pool.h"
#include "conf/model/probe.h"
#include "conf/model/service.h"
#include "conf/model/zone.h"
#include "core/crypto.h"
#include "dns/wire/request.h"

namespace tidegate::dns::test {
namespace {

std::string take_text(char* text) {
  std::string out = text == nullptr ? "" : text;
  std::free(text);
  return out;
}

std::string single_blanks(const std::string& text) {
  std::istringstream live_state(text);
  std::string out, record;
  while (live_state >> record) out += (out.empty() ? "" : " ") + record;
  return out;
}

}  // namespace

int Answer::rcode() const { return ldns_pkt_get_rcode(packet.get()) | ldns_pkt_edns_extended_rcode(packet.get()) << 4; }

std::vector<std::string> Answer::texts(const ldns_rr_list* list) {
  std::vector<std::string> out;
  for (size_t i = 0; i < ldns_rr_list_rr_count(list); ++i) {
    out.push_back(single_blanks(take_text(ldns_rr2str(ldns_rr_list_rr(list, i)))));
  }
  return out;
}

std::vector<std::string> Answer::addresses() const {
  std::vector<std::string> out;
  const ldns_rr_list* list = ldns_pkt_answer(packet.get());
  for (size_t i = 0; i < ldns_rr_list_rr_count(list); ++i) {
    const ldns_rr* rr = ldns_rr_list_rr(list, i);
    const ldns_rr_type type = ldns_rr_get_type(rr);
    if (type == LDNS_RR_TYPE_A || type == LDNS_RR_TYPE_AAAA) out.push_back(take_text(ldns_rdf2str(ldns_rr_rdf(rr, 0))));
  }
  std::sort(out.begin(), out.end());
  return out;
}

Answer read_answer(std::vector<uint8_t> wire) {
  Answer answer;
  ldns_pkt* packet = nullptr;
  if (ldns_wire2pkt(&packet, wire.data(), wire.size()) == LDNS_STATUS_OK) answer.packet.reset(packet);
  answer.wire = std::move(wire);
  return answer;
}

std::vector<uint8_t> make_query(std::string_view name, uint16_t type, const std::optional<Edns>& edns, uint16_t id) {
  // Written out here, because Name would change it to lower case.
  std::vector<uint8_t> wire_name;
  for (size_t start = 0; start < name.size();) {
    const size_t end = std::min(name.find('.', start), name.size());
    wire_name.push_back(static_cast<uint8_t>(end - start));
    wire_name.insert(wire_name.end(), name.begin() + start, name.begin() + end);
    start = end + 1;
  }
  wire_name.push_back(0);
  std::vector<uint8_t> query(kHeaderBytes + wire_name.size() + 4);
  write_query(query, wire_name, type);
  store_u16(query.data(), id);
  store_u16(&query[header::kFlags], header::kRecursionDesired);
  if (!edns) return query;
  store_u16(&query[header::kAdditionals], 1);
  std::vector<uint8_t> opt(11);
  store_u16(&opt[1], rrtype::kOpt);
  store_u16(&opt[3], edns->payload);
  opt[6] = edns->version;
  store_u16(&opt[7], edns->dnssec_ok ? 0x8000 : 0);
  for (const Option& option : edns->options) {
    const size_t start = opt.size();
    opt.resize(start + 4);
    store_u16(&opt[start], option.code);
    store_u16(&opt[start + 2], static_cast<uint16_t>(option.data.size()));
    opt.insert(opt.end(), option.data.begin(), option.data.end());
  }
  store_u16(&opt[9], static_cast<uint16_t>(opt.size() - 11));
  query.insert(query.end(), opt.begin(), opt.end());
  return query;
}

Option subnet_option(std::string_view cidr, uint8_t scope) {
  const Cidr network = *Cidr::parse(cidr);
  std::string data(4, '\0');
  data[1] = network.base.is_v4() ? 1 : 2;
  data[2] = static_cast<char>(network.prefix);
  data[3] = static_cast<char>(scope);
  data.append(reinterpret_cast<const char*>(network.base.bytes.data()), (network.prefix + 7U) / 8);
  return {8, data};
}

std::optional<std::vector<Option>> options_of(const Answer& answer) {
  if (!ldns_pkt_edns(answer.packet.get())) return std::nullopt;
  std::vector<Option> options;
  const ldns_rdf* data = ldns_pkt_edns_data(answer.packet.get());
  if (data == nullptr) return options;
  const std::span<const uint8_t> bytes(ldns_rdf_data(data), ldns_rdf_size(data));
  for (size_t at = 0; at + 4 <= bytes.size();) {
    const size_t length = load_u16(&bytes[at + 2]);
    options.push_back({load_u16(&bytes[at]), {bytes.begin() + at + 4, bytes.begin() + at + 4 + length}});
    at += 4 + length;
  }
  return options;
}

namespace {

template <class What>
SteerTarget target_to(What what, uint32_t weight) {
  SteerTarget target;
  target.what = std::move(what);
  target.weight = weight;
  return target;
}

}  // namespace

SteerTarget to_vip(uint32_t vip, uint32_t weight) { return target_to(TargetVip{vip}, weight); }
SteerTarget to_pool(uint32_t pool, uint32_t weight) { return target_to(TargetPool{pool}, weight); }
SteerTarget to_steer(uint32_t steer, uint32_t weight) { return target_to(TargetSteer{steer}, weight); }
SteerTarget to_alias(const std::string& name, uint32_t weight) { return target_to(TargetAlias{name}, weight); }

Edge::Edge() { node_.dns.enabled = true; }

uint32_t Edge::add_site(const std::string& name, double latitude, double longitude) {
  model_.sites.push_back({name, {latitude, longitude}, 0});
  return static_cast<uint32_t>(model_.sites.size() - 1);
}

uint32_t Edge::add_vip(const std::string& name, uint32_t site, std::vector<std::string> addresses) {
  Vip vip{name, site, {}};
  for (const std::string& text : addresses) vip.addresses.push_back(*IpAddress::parse(text));
  model_.vips.push_back(std::move(vip));
  return static_cast<uint32_t>(model_.vips.size() - 1);
}

uint32_t Edge::add_pool(const std::string& name, std::vector<std::pair<std::string, std::string>> backends,
                        bool probed) {
  Pool pool;
  pool.name = name;
  for (const auto& [backend, address] : backends) {
    Backend added;
    added.name = backend;
    added.addresses = {*IpAddress::parse(address)};
    pool.backends.push_back(added);
  }
  if (probed) {
    if (model_.probes.empty()) model_.probes.emplace_back().name = "probe";
    pool.probe = 0;
  }
  model_.pools.push_back(std::move(pool));
  return static_cast<uint32_t>(model_.pools.size() - 1);
}

void Edge::add_service(uint32_t vip, uint32_t pool) {
  Service service;
  service.name = "service" + std::to_string(model_.services.size());
  service.vip = vip;
  service.pool = pool;
  model_.services.push_back(service);
}

void Edge::add_zone(const std::string& name, const std::string& text) {
  tidegate::Zone zone;
  zone.name = name;
  zone.file = {name + "zone", sha256_hex(text), std::make_shared<const std::string>(text)};
  model_.zones.push_back(zone);
}

Steer& Edge::add_steer(const std::string& name, SteerPolicy policy, std::vector<SteerTarget> targets) {
  Steer steer;
  steer.name = name;
  steer.policy = policy;
  steer.targets = std::move(targets);
  model_.steers.push_back(steer);
  return model_.steers.back();
}

void Edge::add_network(const std::string& cidr, uint32_t site) {
  model_.geo.networks.push_back({*Cidr::parse(cidr), site, std::nullopt});
}

void Edge::add_network(const std::string& cidr, Location location) {
  model_.geo.networks.push_back({*Cidr::parse(cidr), kNone, location});
}

void Edge::say_health(const std::string& pool, const std::string& backend, bool up) {
  live_state_.health[backend_key(pool, backend)] = {up, up ? "" : "connect: refused", 0};
  changed(false);
}

void Edge::drain_site(const std::string& site) { drain(site_key(site)); }

void Edge::drain(const std::string& key) {
  live_state_.overrides[key] = {OverrideState::drained, "test", "", 0};
  changed(false);
}

Result<std::shared_ptr<const Tables>> Edge::build() {
  if (!shared_model_) shared_model_ = std::make_shared<const Model>(model_);
  const auto snapshot =
      make_snapshot(++version_, "digest", shared_model_, std::make_shared<const LiveState>(live_state_));
  auto built = build_tables(snapshot, node_, tables_.get());
  if (!built) return built.error();
  return with_aliases(**built, aliases_);
}

void Edge::changed(bool model_too) {
  if (model_too) shared_model_.reset();
  auto built = build();
  if (!built) throw std::runtime_error(built.error().message);
  tables_ = *built;
}

const Tables& Edge::tables() {
  if (!tables_) changed();
  return *tables_;
}

std::vector<uint8_t> Edge::ask_wire(const std::vector<uint8_t>& query, const std::string& client,
                                    QueryTransport transport) {
  // The buffer has exactly the size of the query, so that a read past its end is found.
  const std::vector<uint8_t> exact(query);
  std::vector<uint8_t> out(transport == QueryTransport::udp ? kMaxUdpPayload : kMaxMessageBytes);
  out.resize(answer(exact, out, {*IpAddress::parse(client), transport}, tables(), worker_));
  return out;
}

Answer Edge::ask(std::string_view name, uint16_t type, const std::string& client, const std::optional<Edns>& edns) {
  return read_answer(ask_wire(make_query(name, type, edns), client));
}

uint64_t Edge::count(QueryOutcome outcome) const { return worker_.tally.outcomes[static_cast<size_t>(outcome)].load(); }

}  // namespace tidegate::dns::test
