// SPDX-License-Identifier: Apache-2.0
// AnswerBuilder: makes the answer to one well-formed query from a zone and its steers. One is built for each query, on
// the stack.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "dns/plan/lookup.h"
#include "dns/query/alias_trail.h"
#include "dns/query/query.h"
#include "dns/query/reply.h"
#include "dns/query/tables.h"

namespace tidegate::dns {

class AnswerBuilder {
 public:
  // All are borrowed for the builder's life.
  AnswerBuilder(const Request& request, const Client& client, const Tables& tables, Worker& worker, Reply& reply)
      : request_(request), client_(client), tables_(tables), worker_(worker), reply_(reply), name_(&request.name) {}

  // Writes the records and says how the query ended.
  QueryOutcome build();
  // The number of bits of the client subnet on which the answer depends; known after build().
  uint8_t scope() const { return scope_; }
  // A note in addition to the outcome (note::), or nothing.
  std::string_view note() const { return note_; }

 private:
  // Answers for name_. Returns the outcome, or nothing if an alias led to another name, which is then name_.
  std::optional<QueryOutcome> answer_name(int aliases);
  QueryOutcome answer_steered(uint32_t steer);
  // Adds the TXT records of dns-01 at name_. Returns nothing if there is none, or if the zone answers.
  std::optional<QueryOutcome> answer_acme(const Found& found);
  // An HTTPS record of our own listeners for each port, with the steer's addresses as hints.
  QueryOutcome answer_https(const CompiledSteer& steer);
  // The steer's choice for this client and `name`. Raises scope() if the client's place matters.
  Choice choose_for_client(const CompiledSteer& steer, IpAddress::Family family, const Name& name);
  // Additional data (RFC 1035 §3.3, RFC 2782, RFC 9460 §4.1): the addresses of the names to which an RRset's records
  // lead. The RRset is in the reply from `at` on. Adds only our own names, and only whole RRsets that fit.
  void add_addresses_of_targets(const RrsetView& rrset, size_t at);
  void add_addresses(const Name& target, size_t target_at, const ServedZone& zone, const Found& found);
  void add_glue(const RrsetView& servers, size_t at);
  bool read_target(size_t at, Name& target) const;
  QueryOutcome deny(QueryOutcome outcome);
  QueryOutcome refer(NodeView delegation, int aliases);
  std::optional<QueryOutcome> follow_cname(const RrsetView& cname);
  std::optional<QueryOutcome> follow_dname(NodeView owner);
  std::optional<QueryOutcome> continue_with(std::span<const uint8_t> target, size_t at);

  const Request& request_;
  const Client& client_;
  const Tables& tables_;
  Worker& worker_;
  Reply& reply_;
  const ServedZone* zone_ = nullptr;
  AliasTrail trail_;
  const Name* name_;               // the question's name, later alias_
  Name alias_;                     // target of the last alias
  size_t name_at_ = kQnameOffset;  // its offset in the reply
  size_t apex_at_ = 0;             // offset of the zone's apex in the question
  uint8_t scope_ = 0;
  std::string_view note_;
};

}  // namespace tidegate::dns
