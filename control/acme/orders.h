// SPDX-License-Identifier: Apache-2.0
// Orders: keeps the certificates that the configuration orders (`certificates: [{name, acme: {...}}]`), on the control
// that leads. It orders what is missing or due, shows the authority's proofs on all planes by the live state, and puts
// what is issued into the state, from which every proxy takes it without a version.
//
// Invariants: one order at a time. An authority is told that a proof is there only after every plane that can be
// reached has it. Key of the account and proofs are in the state before they are used, so another control that leads
// goes on with the same account. A try that fails is recorded with the time of the next one.
//
// Threads: the control's loop.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "control/acme/order_flow.h"
#include "control/acme/renewal_windows.h"
#include "control/acme/transport.h"
#include "control/host_state.h"
#include "control/observe/fleet.h"
#include "core/event_loop.h"
#include "core/metrics.h"

namespace tidegate::acme {

class Orders : public std::enable_shared_from_this<Orders> {
 public:
  Orders(EventLoop& loop, HostState& host_state, Fleet& fleet);
  ~Orders();

  // Looks what is due. Call it at the start, and for each version.
  void update();

 private:
  // The order that is under way.
  struct Running {
    std::string name;
    std::vector<std::string> names;
    std::string ca_pem;
    std::string plane;  // that shows the proofs: "l7", "dns"
    std::optional<SigningKey> account, key;
    std::optional<OrderFlow> flow;
    bool showing = false;  // proofs are in the state
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
  Transport transport_;
  RenewalWindows windows_;
  bool asks_ = false;  // for a window
  Timer schedule_timer_, flow_timer_;
  std::function<void()> on_flow_timer_;
  Session session_;
  std::string session_of_;  // what the session belongs to: directory and account
  std::unique_ptr<Running> running_;
  // What each certificate was to be when it was looked at last, by name.
  struct Known {
    std::string wanted;
    bool at_once = false;  // it was changed since: the pause after a failure does not count
  };
  std::map<std::string, Known> known_;
  Counter &issued_count_, &refused_count_, &unreachable_count_;
  Counter& rejected_nonces_;
};

}  // namespace tidegate::acme
