// SPDX-License-Identifier: Apache-2.0
#include "control/health/site_watch.h"

#include <utility>

#include "core/clock.h"
#include "core/log.h"

namespace tidegate {

SiteWatch::SiteWatch(EventLoop& loop, HostState& host_state, const Fleet& fleet, const HashKey& spread_key,
                     std::function<bool()> leader_is_heard)
    : loop_(loop),
      host_state_(host_state),
      fleet_(fleet),
      spread_key_(spread_key),
      leader_is_heard_(std::move(leader_is_heard)),
      heard_ns_(monotonic_ns()),
      timer_(loop, [this] { look(); }) {
  timer_.arm_after_ms(kLookMs);
}

// The name of the site of this host's node; empty: it has none.
std::string SiteWatch::own_site() const {
  const std::shared_ptr<const Model> model = host_state_.model();
  if (!model) return {};
  const std::string node = fleet_.own_node(model.get());
  for (const Node& each : model->nodes) {
    if (each.name == node && each.site != kNone) return model->sites[each.site].name;
  }
  return {};
}

void SiteWatch::look() {
  timer_.arm_after_ms(kLookMs);
  const uint64_t now_ns = monotonic_ns();
  if (leader_is_heard_()) {
    heard_ns_ = now_ns;
    if (std::exchange(prober_, nullptr)) log_info("a leader is heard again: its verdicts count");
    writer_.reset();
    return;
  }
  if (now_ns - heard_ns_ < kSilenceMs * kNsPerMs) return;
  if (prober_) return prober_->update();
  const std::string site = own_site();
  if (site.empty()) return;
  log_warn("no leader is heard: this host probes the backends of site {} itself", site);
  writer_ = std::make_unique<VerdictWriter>(loop_, host_state_, VerdictWriter::Scope::site);
  prober_ = std::make_unique<Prober>(loop_, host_state_, *writer_, spread_key_, site);
  prober_->set_commands(commands_);
  prober_->update();
}

}  // namespace tidegate
