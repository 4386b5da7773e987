// SPDX-License-Identifier: Apache-2.0
// The parts of AnswerBuilder that few queries need: referrals and aliases. The other parts are in query.cc, with
// answer().
#include "dns/query/answer_builder.h"

#include <array>
#include <cstring>
#include <string_view>
#include <tuple>

namespace tidegate::dns {

QueryOutcome AnswerBuilder::refer(NodeView delegation, int aliases) {
  if (aliases == 0) reply_.set_authoritative(false);
  RrsetView servers, glue;
  delegation.find(rrtype::kNs, servers);
  // The delegation's name is the end of the current name, below the apex, so the question contains it label by label.
  const size_t servers_at = reply_.size();
  reply_.add_rrset(Section::authority, servers, name_at_ + name_->bytes() - delegation.name().size(), apex_at_);
  if (!zone_->steer_names.empty()) {
    if (!reply_.overflowed()) add_glue(servers, servers_at);
  } else if (zone_->zone->glue_of(delegation, glue)) {
    reply_.add_with_owners(Section::additional, glue, apex_at_);
  }
  return QueryOutcome::referral;
}

// RFC 9460 §2.2: priority 1, the owner itself as target, and parameters in the order of their keys (§14.3.2).
QueryOutcome AnswerBuilder::answer_https(const CompiledSteer& steer) {
  constexpr uint16_t kAlpn = 1, kPort = 3, kIpv4Hint = 4, kIpv6Hint = 6;
  const Choice v4 = choose_for_client(steer, IpAddress::Family::v4, *name_);
  const Choice v6 = choose_for_client(steer, IpAddress::Family::v6, *name_);
  for (const HttpsService& service : steer.https) {
    std::array<uint8_t, 64 + kMaxAnswers*(4 + 16)> rdata{0, 1, 0};
    size_t at = 3;
    const auto begin = [&](uint16_t key, size_t bytes) {
      store_u16(&rdata[at], key);
      store_u16(&rdata[at + 2], static_cast<uint16_t>(bytes));
      at += 4;
    };
    const auto put = [&](std::string_view text) {
      std::memcpy(&rdata[at], text.data(), text.size());
      at += text.size();
    };
    // http/1.1 is the default of the scheme, so only h2 must be listed (§7.1.2).
    if (service.http2) {
      begin(kAlpn, 3);
      put("\x02h2");
    }
    if (service.port != 443) {
      begin(kPort, 2);
      store_u16(&rdata[at], service.port);
      at += 2;
    }
    for (const auto& [choice, key, address_bytes] :
         {std::tuple(&v4, kIpv4Hint, size_t{4}), std::tuple(&v6, kIpv6Hint, size_t{16})}) {
      if (choice->count == 0) continue;
      begin(key, choice->count * address_bytes);
      for (uint32_t i = 0; i < choice->count; ++i) {
        std::memcpy(&rdata[at], choice->picks[i], address_bytes);
        at += address_bytes;
      }
    }
    reply_.add_record(Section::answer, name_at_, rrtype::kHttps, std::min(v4.ttl_s, v6.ttl_s), {rdata.data(), at});
  }
  return QueryOutcome::steered;
}

std::optional<QueryOutcome> AnswerBuilder::follow_cname(const RrsetView& cname) {
  const size_t target_at = reply_.size() + 12;
  reply_.add_rrset(Section::answer, cname, name_at_, apex_at_);
  if (reply_.overflowed()) return QueryOutcome::alias;
  const auto target = cname.wire.subspan(12);
  if (cname.apex_pointer_count() == 0) return QueryOutcome::alias;  // the target is outside of this zone
  const auto labels = target.first(target.size() - 2);
  const auto apex = zone_->zone->apex().wire();
  std::array<uint8_t, Name::kMaxBytes> whole;
  std::memcpy(whole.data(), labels.data(), labels.size());
  std::memcpy(whole.data() + labels.size(), apex.data(), apex.size());
  return continue_with({whole.data(), labels.size() + apex.size()}, labels.empty() ? apex_at_ : target_at);
}

// Continues with an alias's target, which is at `at`. Ends if the query has already been there.
std::optional<QueryOutcome> AnswerBuilder::continue_with(std::span<const uint8_t> target, size_t at) {
  if (name_ == &request_.name) trail_.enter(name_->wire());
  alias_.parse(target);
  if (!trail_.enter(alias_.wire())) return QueryOutcome::alias_loop;
  name_ = &alias_;
  name_at_ = at;
  return std::nullopt;
}

// RFC 6672 §2.2, §3.1: adds the DNAME itself, and a CNAME made from it.
std::optional<QueryOutcome> AnswerBuilder::follow_dname(NodeView owner) {
  RrsetView dname;
  owner.find(rrtype::kDname, dname);
  const auto target = dname.wire.subspan(12);
  const size_t owner_bytes = owner.name().size();
  const size_t kept_bytes = name_->bytes() - owner_bytes;
  const size_t owner_at = owner_bytes == zone_->zone->apex().bytes() ? apex_at_ : name_at_ + kept_bytes;
  const AliasTrail::Dname taken = trail_.take(owner.name().data(), name_->bytes());
  if (taken == AliasTrail::Dname::endless) return QueryOutcome::alias_loop;
  if (taken == AliasTrail::Dname::first) reply_.add_rrset(Section::answer, dname, owner_at, apex_at_);
  if (kept_bytes + target.size() > Name::kMaxBytes) return QueryOutcome::alias_too_long;
  std::array<uint8_t, Name::kMaxBytes> whole;
  std::memcpy(whole.data(), name_->wire().data(), kept_bytes);
  std::memcpy(whole.data() + kept_bytes, target.data(), target.size());
  const std::span<const uint8_t> alias(whole.data(), kept_bytes + target.size());
  const size_t alias_at = reply_.size() + 12;
  reply_.add_record(Section::answer, name_at_, rrtype::kCname, dname.ttl_s, alias);
  if (reply_.overflowed()) return QueryOutcome::alias;
  if (request_.type == rrtype::kCname) return QueryOutcome::answered;  // the query asked for this CNAME
  if (const auto end = continue_with(alias, alias_at)) return end;
  if (tables_.authority->zone_for(*name_) != zone_) return QueryOutcome::alias;
  return std::nullopt;
}

}  // namespace tidegate::dns
