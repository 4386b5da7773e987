// SPDX-License-Identifier: Apache-2.0
#include "dns/query.h"

#include <algorithm>

#include "dns/cookie.h"
#include "dns/limits.h"
#include "dns/lookup.h"
#include "dns/reply.h"
#include "dns/request.h"

namespace tidegate::dns {
namespace {

constexpr uint32_t kAnyTtlS = 3'600;
constexpr uint8_t kAnyRdata[] = {7, 'R', 'F', 'C', '8', '4', '8', '2', 0};  // HINFO, RFC 8482 §4.2

Rcode rcode_of(Outcome outcome) {
  switch (outcome) {
    case Outcome::nxdomain:
      return Rcode::nxdomain;
    case Outcome::alias_too_long:
      return Rcode::yxdomain;
    case Outcome::steer_closed:
      return Rcode::servfail;
    case Outcome::bad_count:
    case Outcome::bad_question:
    case Outcome::bad_record:
    case Outcome::bad_edns:
    case Outcome::bad_ecs:
    case Outcome::bad_cookie:
      return Rcode::formerr;
    case Outcome::edns_version:
      return Rcode::badvers;
    case Outcome::stale_cookie:
      return Rcode::badcookie;
    case Outcome::opcode:
      return Rcode::notimp;
    case Outcome::no_zone:
    case Outcome::klass:
    case Outcome::transfer:
      return Rcode::refused;
    default:
      return Rcode::noerror;
  }
}

ExtendedError extended_error_of(Outcome outcome) {
  switch (outcome) {
    case Outcome::no_zone:
      return ExtendedError::not_authoritative;
    case Outcome::klass:
    case Outcome::transfer:
      return ExtendedError::not_supported;
    case Outcome::steer_closed:
      return ExtendedError::other;
    default:
      return ExtendedError::none;
  }
}

// The aliases that one query has followed. An RRset stands once in an answer (RFC 2181 §5): the answer ends where an
// alias leads back to a name already asked for, or where a DNAME takes a name that only grows. A resolver that wants
// to go on asks for the last target.
class AliasTrail {
 public:
  // False: `name` has been asked for already.
  bool enter(std::span<const uint8_t> name) {
    const uint64_t hash = name_hash(name);
    if (std::find(names_.begin(), names_.begin() + count_, hash) != names_.begin() + count_) return false;
    names_[count_++] = hash;
    return true;
  }

  enum class Dname : uint8_t { first, again, endless };
  // A DNAME, told by where its owner's name is stored, that takes a name of `name_bytes`.
  Dname take(const uint8_t* owner, size_t name_bytes) {
    for (int i = 0; i < dname_count_; ++i) {
      if (dnames_[i].owner == owner) return name_bytes > dnames_[i].name_bytes ? Dname::endless : Dname::again;
    }
    dnames_[dname_count_++] = {owner, name_bytes};
    return Dname::first;
  }

 private:
  struct TakenName {
    const uint8_t* owner;
    size_t name_bytes;
  };
  std::array<uint64_t, kMaxAliases + 2> names_;    // hashes; count_ of them
  std::array<TakenName, kMaxAliases + 1> dnames_;  // dname_count_ of them
  int count_ = 0;
  int dname_count_ = 0;
};

// One query's way through a zone: each step either ends it with an outcome or moves on to the name an alias points to.
class Walk {
 public:
  Walk(const Request& request, const Client& client, const Tables& tables, Worker& worker, Reply& reply)
      : request_(request), client_(client), tables_(tables), worker_(worker), reply_(reply), name_(&request.name) {}

  Outcome run() {
    // The parent's side of a zone cut answers for DS where both zones are served (RFC 4035 §3.1.4.1).
    zone_ = tables_.authority->zone_for(*name_);
    if (zone_ != nullptr && request_.type == rrtype::kDs && zone_->zone->apex().labels() == name_->labels() &&
        name_->labels() > 0) {
      if (const ServedZone* parent = tables_.authority->zone_for(*name_, name_->labels() - 1)) zone_ = parent;
    }
    if (zone_ == nullptr) return Outcome::no_zone;
    reply_.set_authoritative(true);
    apex_at_ = kQnameOffset + name_->bytes() - zone_->zone->apex().bytes();
    for (int aliases = 0; aliases <= kMaxAliases; ++aliases) {
      if (const auto end = step(aliases)) return *end;
    }
    return Outcome::alias_loop;
  }

  uint8_t scope() const { return scope_; }

 private:
  std::optional<Outcome> step(int aliases) {
    const Found found = find_name(*zone_, *name_, request_.type);
    switch (found.kind) {
      case Found::Kind::referral:
        return refer(found.node, aliases);
      case Found::Kind::dname:
        return redirect(found.node);
      case Found::Kind::nothing:
        return deny(Outcome::nxdomain);
      case Found::Kind::exact:
      case Found::Kind::wildcard:
        break;
    }
    if (found.steer != kNone && (request_.type == rrtype::kA || request_.type == rrtype::kAaaa))
      return steer(found.steer);
    RrsetView rrset;
    const bool no_data = !found.node || found.node.empty();
    if (request_.type == rrtype::kAny && (found.steer != kNone || !no_data)) {
      reply_.add_record(Section::answer, name_at_, rrtype::kHinfo, kAnyTtlS, kAnyRdata);
      return Outcome::any;
    }
    if (no_data) return deny(Outcome::nodata);
    if (found.node.has_cname() && request_.type != rrtype::kCname) {
      found.node.find(rrtype::kCname, rrset);
      return follow_cname(rrset);
    }
    if (!found.node.find(request_.type, rrset)) return deny(Outcome::nodata);
    reply_.add_rrset(Section::answer, rrset, name_at_, apex_at_);
    return found.kind == Found::Kind::wildcard ? Outcome::wildcard : Outcome::answered;
  }

  // NXDOMAIN and NODATA both carry the SOA (RFC 2308 §2).
  Outcome deny(Outcome outcome) {
    reply_.add_rrset(Section::authority, zone_->zone->negative_soa(), apex_at_, apex_at_);
    return outcome;
  }

  Outcome refer(NodeView delegation, int aliases) {
    if (aliases == 0) reply_.set_authoritative(false);
    RrsetView servers, glue;
    delegation.find(rrtype::kNs, servers);
    // The delegation's name is the end of the current one, below the apex: it stands there label by label.
    reply_.add_rrset(Section::authority, servers, name_at_ + name_->bytes() - delegation.name().size(), apex_at_);
    if (zone_->zone->glue_of(delegation, glue)) reply_.add_with_owners(Section::additional, glue, apex_at_);
    return Outcome::referral;
  }

  std::optional<Outcome> follow_cname(const RrsetView& cname) {
    const size_t target_at = reply_.size() + 12;
    reply_.add_rrset(Section::answer, cname, name_at_, apex_at_);
    if (reply_.overflowed()) return Outcome::alias;
    const auto target = cname.wire.subspan(12);
    if (cname.apex_pointer_count() == 0) return Outcome::alias;  // leads out of this zone
    const auto labels = target.first(target.size() - 2);
    const auto apex = zone_->zone->apex().wire();
    std::array<uint8_t, Name::kMaxBytes> whole;
    std::memcpy(whole.data(), labels.data(), labels.size());
    std::memcpy(whole.data() + labels.size(), apex.data(), apex.size());
    return move_on({whole.data(), labels.size() + apex.size()}, labels.empty() ? apex_at_ : target_at);
  }

  // To the name that an alias leads to, which stands at `at`; ends where the way has been there already.
  std::optional<Outcome> move_on(std::span<const uint8_t> target, size_t at) {
    if (name_ == &request_.name) trail_.enter(name_->wire());
    alias_.parse(target);
    if (!trail_.enter(alias_.wire())) return Outcome::alias_loop;
    name_ = &alias_;
    name_at_ = at;
    return std::nullopt;
  }

  // RFC 6672 §2.2, §3.1: the DNAME itself, and a CNAME made from it.
  std::optional<Outcome> redirect(NodeView owner) {
    RrsetView dname;
    owner.find(rrtype::kDname, dname);
    const auto target = dname.wire.subspan(12);
    const size_t owner_bytes = owner.name().size();
    const size_t kept_bytes = name_->bytes() - owner_bytes;
    const size_t owner_at = owner_bytes == zone_->zone->apex().bytes() ? apex_at_ : name_at_ + kept_bytes;
    const AliasTrail::Dname taken = trail_.take(owner.name().data(), name_->bytes());
    if (taken == AliasTrail::Dname::endless) return Outcome::alias_loop;
    if (taken == AliasTrail::Dname::first) reply_.add_rrset(Section::answer, dname, owner_at, apex_at_);
    if (kept_bytes + target.size() > Name::kMaxBytes) return Outcome::alias_too_long;
    std::array<uint8_t, Name::kMaxBytes> whole;
    std::memcpy(whole.data(), name_->wire().data(), kept_bytes);
    std::memcpy(whole.data() + kept_bytes, target.data(), target.size());
    const std::span<const uint8_t> alias(whole.data(), kept_bytes + target.size());
    const size_t alias_at = reply_.size() + 12;
    reply_.add_record(Section::answer, name_at_, rrtype::kCname, dname.ttl_s, alias);
    if (reply_.overflowed()) return Outcome::alias;
    if (request_.type == rrtype::kCname) return Outcome::answered;  // the made CNAME is what was asked for
    if (const auto end = move_on(alias, alias_at)) return end;
    if (tables_.authority->zone_for(*name_) != zone_) return Outcome::alias;
    return std::nullopt;
  }

  Outcome steer(uint32_t index) {
    const CompiledSteer& steer = tables_.authority->steers[index];
    worker_.last_is_personal = true;
    std::span<const uint32_t> order;
    if (steer.policy == SteerPolicy::nearest) {
      const GeoMap& geo = *tables_.authority->geo;
      const Located located = geo.locate(located_address(request_, client_));
      order = geo.order(located);
      scope_ = located.scope;
    }
    const bool v4 = request_.type == rrtype::kA;
    const auto family = v4 ? IpAddress::Family::v4 : IpAddress::Family::v6;
    const Choice choice = choose(steer, family, order, tables_.health, worker_.random);
    if (choice.refused) return Outcome::steer_closed;
    if (choice.count == 0) return deny(Outcome::nodata);
    if (choice.failed_open) Tally::add(worker_.tally.failed_open);
    for (uint32_t i = 0; i < choice.count; ++i) {
      reply_.add_record(Section::answer, name_at_, request_.type, steer.ttl_s,
                        std::span(choice.picks[i]->address).first(v4 ? 4 : 16));
    }
    return Outcome::steered;
  }

  const Request& request_;
  const Client& client_;
  const Tables& tables_;
  Worker& worker_;
  Reply& reply_;
  const ServedZone* zone_ = nullptr;
  AliasTrail trail_;
  const Name* name_;               // the question's, then alias_
  Name alias_;                     // the name that the last alias leads to
  size_t name_at_ = kQnameOffset;  // where it stands in the reply
  size_t apex_at_ = 0;             // where the zone's apex stands in the question
  uint8_t scope_ = 0;
};

// The largest message that this client takes over this transport.
size_t size_limit(const Request& request, const Client& client, size_t room) {
  if (client.transport != Transport::udp) return std::min(room, kMaxMessageBytes);
  if (!request.has_edns) return kMinUdpPayload;
  return std::clamp<size_t>(request.edns.payload_bytes, kMinUdpPayload, kMaxUdpPayload);
}

// RFC 7873 §5.4: who sends a server cookie with no question wants to know whether it still holds.
bool cookie_holds(const Request& request, const Client& client, const Worker& worker) {
  return request.edns.server_cookie_bytes == 0 ||
         verify_server_cookie(worker.cookie_secret, request.edns, client.address, worker.now_s);
}

OptReply opt_reply(const Request& request, const Client& client, const Worker& worker, Outcome outcome, uint8_t scope) {
  OptReply opt;
  opt.error = extended_error_of(outcome);
  if (rcode_of(outcome) == Rcode::formerr) return opt;
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

const char* name(Transport transport) {
  switch (transport) {
    case Transport::udp:
      return "udp";
    case Transport::tcp:
      return "tcp";
    case Transport::http:
      return "http";
  }
  return "?";
}

IpAddress located_address(const Request& request, const Client& client) {
  // A /0 says: do not look at me; the sender is then all there is to go by (RFC 7871 §7.1.2).
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
  if (fault == Outcome::bad_short || fault == Outcome::bad_response) {
    Tally::add(tally.outcomes[static_cast<size_t>(*fault)]);
    return 0;
  }
  const size_t opt_bytes = request.has_edns ? max_opt_bytes(request.edns, tables.nsid) : 0;
  Reply reply(out, request, size_limit(request, client, out.size()), opt_bytes);
  Outcome outcome;
  uint8_t scope = 0;
  if (fault) {
    outcome = *fault;
    if (outcome == Outcome::only_cookie && !cookie_holds(request, client, worker)) outcome = Outcome::stale_cookie;
  } else {
    Walk walk(request, client, tables, worker, reply);
    outcome = walk.run();
    scope = walk.scope();
  }
  const Rcode rcode = rcode_of(outcome);
  Tally::add(tally.outcomes[static_cast<size_t>(outcome)]);
  Tally::add(tally.rcodes[static_cast<size_t>(rcode)]);
  if (reply.overflowed()) Tally::add(tally.truncated);
  if (!request.has_edns) return reply.finish(rcode);
  Tally::add(tally.with_edns);
  if (request.edns.has_subnet) Tally::add(tally.with_subnet);
  return reply.finish_with_opt(rcode, opt_reply(request, client, worker, outcome, scope), tables.nsid);
}

}  // namespace tidegate::dns
