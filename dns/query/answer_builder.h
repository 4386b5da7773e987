// SPDX-License-Identifier: Apache-2.0
// AnswerBuilder: makes the answer to one well-formed query from a zone and its steers. One is built for each query, on
// the stack.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "dns/query/alias_trail.h"
#include "dns/query/lookup.h"
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
  Outcome build();
  // How much of the client subnet the answer depends on; known after build().
  uint8_t scope() const { return scope_; }

 private:
  // Answers for name_: the outcome, or nothing when an alias led to another name, which is name_ now.
  std::optional<Outcome> answer_name(int aliases);
  Outcome answer_steered(uint32_t steer);
  Outcome deny(Outcome outcome);
  Outcome refer(NodeView delegation, int aliases);
  std::optional<Outcome> follow_cname(const RrsetView& cname);
  std::optional<Outcome> follow_dname(NodeView owner);
  std::optional<Outcome> continue_with(std::span<const uint8_t> target, size_t at);

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

}  // namespace tidegate::dns
