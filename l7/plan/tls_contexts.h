// SPDX-License-Identifier: Apache-2.0
// TlsContexts: the TLS contexts of one worker. They are kept as long as their content stays the same. Each worker has
// its own, because OpenSSL 3.0 scales badly when threads share one. If one certificate of a listener changes, its
// context is made again, with the other identities as they were read before.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "conf/model/listener.h"
#include "conf/model/pool.h"
#include "core/result.h"
#include "core/tls.h"
#include "l7/plan/description.h"

namespace tidegate::l7 {

// The options of the contexts of a listener and of a pool, without certificates and tickets.
TlsServerOptions server_options(const Listener& listener);
TlsClientOptions client_options(const Pool& pool);

class TlsContexts {
 public:
  explicit TlsContexts(std::shared_ptr<const TicketKeys> tickets) : tickets_(std::move(tickets)) {}
  struct Set {
    // parallel to Model::listeners; null: plain text, or not on this node
    std::vector<std::shared_ptr<TlsContext>> listeners;
    std::vector<std::shared_ptr<TlsContext>> pools;  // parallel to Model::pools; null: plain text
  };
  // Contexts of earlier versions that this version does not need are forgotten.
  Result<Set> prepare(const Description& description);
  // Makes the contexts that a candidate needs, so prepare() need not make them. The contexts in force stay.
  Result<void> hold(const Description& description);
  void release() { held_ = {}; }  // forgets the contexts that were made for the candidate
  // The staples that the identities of the last prepare() show from now on; null: none any more. Identities that never
  // had a staple are left out. The worker sets them when it takes the plan.
  using Staples = std::vector<std::pair<std::shared_ptr<const ServerIdentity>, std::shared_ptr<const Staple>>>;
  Staples staples() const { return {known_.staples.begin(), known_.staples.end()}; }
  uint64_t identities_read() const { return identities_read_; }  // number of identities read since the start

 private:
  using Contexts = std::map<std::string, std::shared_ptr<TlsContext>>;
  using Identities = std::map<std::string, std::shared_ptr<const ServerIdentity>>;
  // Known objects, by what they are made from.
  struct Known {
    Contexts contexts;
    Identities identities;
    // Null if an identity has no staple any more. Whether a worker knows that already is not known here.
    std::map<std::shared_ptr<const ServerIdentity>, std::shared_ptr<const Staple>> staples;
  };
  static Result<std::shared_ptr<TlsContext>> for_authorities(const Description& description);
  Result<Set> make(const Description& description, Known& next);
  Result<std::shared_ptr<TlsContext>> for_listener(const Description& description, const Listener& listener,
                                                   Known& next);
  Result<std::shared_ptr<const ServerIdentity>> identity_of(const ServedCertificate& certificate, Known& next);
  void keep_staples(Known& next) const;
  Result<std::shared_ptr<TlsContext>> for_pool(const Description& description, const Pool& pool, Known& next);
  std::shared_ptr<const TicketKeys> tickets_;
  Known known_, held_;
  uint64_t identities_read_ = 0;
};

}  // namespace tidegate::l7
