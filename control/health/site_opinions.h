// SPDX-License-Identifier: Apache-2.0
// SiteOpinions: what the controls of a site report about its backends while there is no contact to a leader, and the
// conclusion.
//
// A backend is up if one control reaches it, and down if the probes of all failed. The host of a forwarder needs this:
// its network card belongs to the forwarder, so its own probes may not reach the backends. A control's report about
// backends on its own node counts only for itself, because it reaches them even if its network is gone.
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
    std::string reason;  // reason of a failure
    bool operator==(const Opinion&) const = default;
  };
  using Opinions = std::map<std::string, Opinion>;  // by the backend's key: "backend/POOL/NAME"

  void note_own(const std::string& key, Opinion opinion) { own_[key] = std::move(opinion); }
  // Everything that the control of `node` reports now. It replaces its earlier report. Empty if it does not answer.
  void note_other(const std::string& node, Opinions opinions) { others_[node] = std::move(opinions); }

  const Opinions& own() const { return own_; }
  // The conclusion for this host. `node`: the backend's own node, or empty. Nothing: this control has no result yet;
  // or, if `patient`, only its own probe failed and other controls may still report a success.
  std::optional<Opinion> conclude(const std::string& key, const std::string& node, bool patient) const;

 private:
  Opinions own_;
  std::map<std::string, Opinions> others_;
};

}  // namespace tidegate
