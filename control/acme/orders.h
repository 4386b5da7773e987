// SPDX-License-Identifier: Apache-2.0
// Orders: keeps the certificates that the configuration orders (`certificates: [{name, acme: {...}}]`), on the control
// that leads. It orders certificates that are missing or due, shows the authority's proofs on all planes through the
// live state, and stores issued certificates in the state. Every proxy reads them there without a new version.
//
// Invariants: one order at a time. An authority is told about a proof only after every plane that can be reached has
// it. The account's key and the proofs are in the state before they are used, so the next leader continues with the
// same account. A failed try is recorded with the time of the next one.
//
// Threads: the control's loop.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "conf/model.h"
#include "conf/model/certificate.h"
#include "control/acme/authority_client.h"
#include "control/acme/order_flow.h"
#include "control/acme/renewal_windows.h"
#include "control/host_state.h"
#include "control/observe/fleet.h"
#include "core/event_loop.h"
#include "core/metrics.h"

namespace tidegate::acme {

class Orders : public std::enable_shared_from_this<Orders> {
 public:
  Orders(EventLoop& loop, HostState& host_state, Fleet& fleet);
  ~Orders();

  // Looks for orders that are due. Call it at the start, and for each version.
  void update();

 private:
  // The order in progress.
  struct Running {
    std::string name;
    std::vector<std::string> names;
    std::string ca_pem;
    std::string plane;  // the plane that shows the proofs: "l7", "dns"
    std::optional<SigningKey> account, key;
    std::optional<OrderFlow> flow;
    bool showing = false;  // the proofs are in the state
  };

  void schedule();
  std::string predecessor_of(const std::string& name) const;
  void start(const Certificate& certificate, const Acme& authority);
  void with_account_key(const std::string& directory, std::function<void(Result<SigningKey>)> done);
  void perform(Action action);
  void publish(AcmeProofs proofs);
  void wait_for_planes(uint64_t live_state, uint64_t deadline_ns);
  void issued(const std::string& chain_pem);
  void failed(const Failure& failure);
  void record(IssuedCertificate record, std::vector<std::string> objects);
  void write(CertificateChanges changes, std::function<void(Result<uint64_t>)> done);
  void recall_windows(const LiveState& live_state);
  void keep_window(const std::string& certificate_hash);
  bool ask_for_a_window(const Model& model, int64_t now_s, int64_t& next_s);
  void forget_unwanted(const Model& model, int64_t now_s);
  void look_for_changes(const Model& model);
  void after(uint64_t delay_ms, std::function<void()> then);
  IssuedCertificate record_of(const std::string& name) const;

  HostState& host_state_;
  Fleet& fleet_;
  AuthorityClient transport_;
  RenewalWindows windows_;
  bool asks_ = false;  // it is asking for a renewal window
  Timer schedule_timer_, flow_timer_;
  std::function<void()> on_flow_timer_;
  Session session_;
  std::string session_of_;  // the directory and account of the session
  std::unique_ptr<Running> running_;
  // The wanted content of each certificate when it was last checked, by name.
  struct Known {
    std::string wanted;
    bool at_once = false;  // it was changed since then, so the pause after a failure does not apply
  };
  std::map<std::string, Known> known_;
  Counter &issued_count_, &refused_count_, &unreachable_count_;
  Counter& rejected_nonces_;
};

}  // namespace tidegate::acme
