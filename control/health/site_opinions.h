// SPDX-License-Identifier: Apache-2.0
// SiteOpinions: what the controls of a site say of its backends while no leader is heard, and what follows from it.
//
// A backend is up if one of them reaches it, and down if all that looked failed. The host of a forwarder needs that:
// its network card is the forwarder's, so its own probes may have no way to the backends. A control's word on its own
// node's backends counts only for itself, because it reaches them also when its network is gone.
//
// Threads: the control's loop.
#pragma once

#include <map>
#include <optional>
#include <string>

namespace tidegate {

class SiteOpinions {
 public:
  struct Opinion {
    bool up = false;
    std::string reason;  // of a failure
    bool operator==(const Opinion&) const = default;
  };
  using Opinions = std::map<std::string, Opinion>;  // by the backend's key: "backend/POOL/NAME"

  void note_own(const std::string& key, Opinion opinion) { own_[key] = std::move(opinion); }
  // All that the control of `node` says now, in place of what it said before. Nothing, if it gives no answer.
  void note_other(const std::string& node, Opinions opinions) { others_[node] = std::move(opinions); }

  const Opinions& own() const { return own_; }
  // What holds on this host. `node`: the backend's own, or empty. Nothing: this control has not looked yet, or it
  // failed alone and the others may still say otherwise (`patient`).
  std::optional<Opinion> conclude(const std::string& key, const std::string& node, bool patient) const;

 private:
  Opinions own_;
  std::map<std::string, Opinions> others_;
};

}  // namespace tidegate
