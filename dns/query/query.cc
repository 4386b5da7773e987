// SPDX-License-Identifier: Apache-2.0
#include "dns/query/query.h"

#include <algorithm>

#include "conf/model/common.h"
#include "dns/query/answer_builder.h"
#include "dns/query/reply.h"
#include "dns/wire/cookie.h"
#include "dns/wire/request.h"

namespace tidegate::dns {
namespace {

constexpr uint32_t kAnyTtlS = 3'600;
constexpr uint8_t kAnyRdata[] = {7, 'R', 'F', 'C', '8', '4', '8', '2', 0};  // HINFO, RFC 8482 §4.2

// Types whose data leads to another name, for which a client will ask next.
bool leads_to_a_name(uint16_t type) {
  switch (type) {
    case rrtype::kNs:
    case rrtype::kMx:
    case rrtype::kSrv:
    case rrtype::kSvcb:
    case rrtype::kHttps:
      return true;
    default:
      return false;
  }
}

// The largest message that this client takes over this transport.
size_t size_limit(const Request& request, const Client& client, size_t room) {
  if (client.transport != QueryTransport::udp) return std::min(room, kMaxMessageBytes);
  if (!request.has_edns) return kMinUdpPayload;
  return std::clamp<size_t>(request.edns.payload_bytes, kMinUdpPayload, kMaxUdpPayload);
}

// RFC 7873 §5.4: a client that sends a server cookie without a question wants to know whether it is still valid.
bool cookie_holds(const Request& request, const Client& client, const Worker& worker) {
  return request.edns.server_cookie_bytes == 0 ||
         verify_server_cookie(worker.cookie_secret, request.edns, client.address, worker.now_s);
}

OptReply opt_reply(const Request& request, const Client& client, const Worker& worker, QueryOutcome outcome,
                   uint8_t scope) {
  OptReply opt;
  const std::string_view note = worker.last_note;
  opt.error = info(outcome).extended_error;
  if (opt.error == ExtendedError::none && !note.empty()) opt.error = ExtendedError::other;
  // "Other" alone says nothing, so a text is added.
  if (opt.error == ExtendedError::other) opt.error_text = note.empty() ? info(outcome).sentence : note;
  if (info(outcome).rcode == Rcode::formerr) return opt;
  opt.nsid = request.edns.wants_nsid;
  if (request.edns.has_subnet) {
    opt.subnet = true;
    opt.scope_prefix = request.edns.subnet.source_prefix == 0 ? 0 : scope;
  }
  if (request.edns.has_cookie) {
    opt.cookie = true;
    opt.server_cookie =
        make_server_cookie(worker.cookie_secret, request.edns.client_cookie, client.address, worker.now_s);
  }
  return opt;
}

}  // namespace

// The parts that every query needs are inline, because only this file calls them.
inline QueryOutcome AnswerBuilder::build() {
  // The parent's side of a zone cut answers for DS if both zones are served here (RFC 4035 §3.1.4.1).
  zone_ = tables_.authority->zone_for(*name_);
  if (zone_ != nullptr && request_.type == rrtype::kDs && zone_->zone->apex().labels() == name_->labels() &&
      name_->labels() > 0) {
    if (const ServedZone* parent = tables_.authority->zone_for(*name_, name_->labels() - 1)) zone_ = parent;
  }
  if (zone_ == nullptr) return QueryOutcome::no_zone;
  reply_.set_authoritative(true);
  apex_at_ = kQnameOffset + name_->bytes() - zone_->zone->apex().bytes();
  for (int aliases = 0; aliases <= kMaxAliases; ++aliases) {
    if (const auto end = answer_name(aliases)) return *end;
  }
  return QueryOutcome::alias_loop;
}

inline std::optional<QueryOutcome> AnswerBuilder::answer_name(int aliases) {
  const Found found = find_name(*zone_, *name_, request_.type);
  switch (found.kind) {
    case Found::Kind::referral:
      return refer(found.node, aliases);
    case Found::Kind::dname:
      return follow_dname(found.node);
    default:
      break;
  }
  if (!tables_.acme.empty()) {
    if (const auto end = answer_acme(found)) return end;
  }
  switch (found.kind) {
    case Found::Kind::referral:
    case Found::Kind::dname:
      break;
    case Found::Kind::nothing:
      return deny(QueryOutcome::nxdomain);
    case Found::Kind::exact:
    case Found::Kind::wildcard:
      break;
  }
  if (found.steer != kNone && (request_.type == rrtype::kA || request_.type == rrtype::kAaaa))
    return answer_steered(found.steer);
  RrsetView rrset;
  if (found.steer != kNone && request_.type == rrtype::kHttps) {
    const CompiledSteer& steer = tables_.authority->steers[found.steer];
    const bool zone_has_one = found.node && found.node.find(rrtype::kHttps, rrset);
    if (!zone_has_one && !steer.https.empty()) return answer_https(steer);
  }
  const bool no_data = !found.node || found.node.empty();
  if (request_.type == rrtype::kAny && (found.steer != kNone || !no_data)) {
    reply_.add_record(Section::answer, name_at_, rrtype::kHinfo, kAnyTtlS, kAnyRdata);
    return QueryOutcome::any;
  }
  if (no_data) return deny(QueryOutcome::nodata);
  if (found.node.has_cname() && request_.type != rrtype::kCname) {
    found.node.find(rrtype::kCname, rrset);
    return follow_cname(rrset);
  }
  if (!found.node.find(request_.type, rrset)) return deny(QueryOutcome::nodata);
  const size_t at = reply_.size();
  reply_.add_rrset(Section::answer, rrset, name_at_, apex_at_);
  if (leads_to_a_name(request_.type) && !reply_.overflowed()) add_addresses_of_targets(rrset, at);
  return found.kind == Found::Kind::wildcard ? QueryOutcome::wildcard : QueryOutcome::answered;
}

// The TXT records that an authority reads while a certificate is ordered. They replace the zone's own TXT records, and
// an alias.
std::optional<QueryOutcome> AnswerBuilder::answer_acme(const Found& found) {
  const std::span<const uint8_t> wire = name_->wire();
  const auto records = tables_.acme.find(std::string_view(reinterpret_cast<const char*>(wire.data()), wire.size()));
  if (records == tables_.acme.end()) return std::nullopt;
  if (request_.type != rrtype::kTxt) {
    if (found.kind == Found::Kind::nothing) return deny(QueryOutcome::nodata);
    return std::nullopt;
  }
  for (const std::string& text : records->second) {
    reply_.add_record(Section::answer, name_at_, rrtype::kTxt, kAcmeTtlS,
                      std::span(reinterpret_cast<const uint8_t*>(text.data()), text.size()));
  }
  return QueryOutcome::answered;
}

// NXDOMAIN and NODATA both carry the SOA (RFC 2308 §2).
inline QueryOutcome AnswerBuilder::deny(QueryOutcome outcome) {
  reply_.add_rrset(Section::authority, zone_->zone->negative_soa(), apex_at_, apex_at_);
  return outcome;
}

Choice AnswerBuilder::choose_for_client(const CompiledSteer& steer, IpAddress::Family family, const Name& name) {
  worker_.last_is_personal = true;
  const IpAddress& address = located_address(request_, client_);
  const Choice choice = choose(steer_context(tables_), steer, family, address, {name.wire(), address, worker_.now_s});
  scope_ = std::max(scope_, choice.scope);
  if (choice.placed && choice.named && !choice.shed) return choice;
  const bool can_be_said = request_.has_edns || client_.transport == QueryTransport::http;
  if (!can_be_said) return choice;
  if (!choice.named && choice.count == 0) {
    note_ = note::kNoTarget;
  } else if (choice.shed) {
    note_ = note::kShed;
  } else if (!choice.placed && tables_.geo->is_unknown(address)) {
    note_ = note::kNetworkUnknown;
  }
  return choice;
}

inline QueryOutcome AnswerBuilder::answer_steered(uint32_t index) {
  const CompiledSteer& steer = tables_.authority->steers[index];
  const bool v4 = request_.type == rrtype::kA;
  const Choice choice = choose_for_client(steer, v4 ? IpAddress::Family::v4 : IpAddress::Family::v6, *name_);
  if (choice.refused) return QueryOutcome::steer_closed;
  if (choice.count == 0) return deny(QueryOutcome::nodata);
  if (choice.shed) Tally::add(worker_.tally.shed);
  if (choice.failed_open) {
    Tally::add(worker_.tally.failed_open);
    note_ = note::kFailedOpen;
  }
  for (uint32_t i = 0; i < choice.count; ++i) {
    reply_.add_record(Section::answer, name_at_, request_.type, choice.ttl_s, std::span(choice.picks[i], v4 ? 4 : 16));
  }
  return QueryOutcome::steered;
}

const char* name(QueryTransport transport) {
  switch (transport) {
    case QueryTransport::udp:
      return "udp";
    case QueryTransport::tcp:
      return "tcp";
    case QueryTransport::http:
      return "http";
  }
  return "?";
}

const IpAddress& located_address(const Request& request, const Client& client) {
  // /0 means: do not use my address. Then only the sender's address is left (RFC 7871 §7.1.2).
  if (request.has_edns && request.edns.has_subnet && request.edns.subnet.source_prefix > 0) {
    return request.edns.subnet.address;
  }
  return client.address;
}

size_t answer(std::span<const uint8_t> in, std::span<uint8_t> out, const Client& client, const Tables& tables,
              Worker& worker) {
  Tally& tally = worker.tally;
  Tally::add(tally.queries[static_cast<size_t>(client.transport)]);
  Request request;
  const auto fault = parse_request(in, request);
  worker.last_is_personal = request.has_edns && request.edns.has_cookie;
  if (fault == QueryOutcome::bad_short || fault == QueryOutcome::bad_response) {
    Tally::add(tally.outcomes[static_cast<size_t>(*fault)]);
    worker.last_outcome = *fault;
    return 0;
  }
  const size_t opt_bytes = request.has_edns ? max_opt_bytes(request.edns, tables.nsid) : 0;
  Reply reply(out, request, size_limit(request, client, out.size()), opt_bytes);
  QueryOutcome outcome;
  uint8_t scope = 0;
  worker.last_note = {};
  if (fault) {
    outcome = *fault;
    if (outcome == QueryOutcome::only_cookie && !cookie_holds(request, client, worker))
      outcome = QueryOutcome::stale_cookie;
  } else {
    AnswerBuilder builder(request, client, tables, worker, reply);
    outcome = builder.build();
    scope = builder.scope();
    if (outcome != QueryOutcome::steer_closed) worker.last_note = builder.note();
  }
  worker.last_outcome = outcome;
  const Rcode rcode = info(outcome).rcode;
  Tally::add(tally.outcomes[static_cast<size_t>(outcome)]);
  Tally::add(tally.rcodes[static_cast<size_t>(rcode)]);
  if (reply.overflowed()) Tally::add(tally.truncated);
  if (!request.has_edns) return reply.finish(rcode);
  Tally::add(tally.with_edns);
  if (request.edns.has_subnet) Tally::add(tally.with_subnet);
  return reply.finish_with_opt(rcode, opt_reply(request, client, worker, outcome, scope), tables.nsid);
}

}  // namespace tidegate::dns
