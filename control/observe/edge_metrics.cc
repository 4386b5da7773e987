// SPDX-License-Identifier: Apache-2.0
#include "control/observe/edge_metrics.h"

#include "conf/model/certificate.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/site.h"
#include "control/ocsp/staple_record.h"

#include <fmt/format.h>

#include "conf/plane_health.h"
#include "core/clock.h"
#include "core/metrics.h"
#include "core/tls.h"

namespace tidegate {

namespace {

// Returns the time of the record that decides a backend's state; 0 if no record decides it.
uint64_t said_ns(const LiveState& live_state, const std::string& pool, const std::string& backend) {
  // A server that was found by a name: "<backend>/<address>:<port>". An override of the backend also applies to it.
  const std::string of_name = backend_key(pool, backend.substr(0, backend.find('/')));
  for (const std::string& key : {backend_key(pool, backend), of_name, pool_key(pool)}) {
    if (const auto record = live_state.overrides.find(key); record != live_state.overrides.end())
      return record->second.since_ns;
  }
  const auto record = live_state.health.find(backend_key(pool, backend));
  return record == live_state.health.end() ? 0 : record->second.since_ns;
}

}  // namespace

EdgeMetrics::EdgeMetrics(HostState& host_state) : host_state_(host_state) {
  look();
  host_state_.subscribe([this](const HostStateChange& change) {
    if (change.version || change.live_state) look();
  });
}

// Finds the successor of each element of `before`. Nearly always it has the same index.
class EdgeMetrics::Noting {
 public:
  explicit Noting(const States& before) : before_(before) { next_.reserve(before.size()); }
  void note(Key key, bool up) {
    const size_t place = next_.size();
    const State* const old = place < before_.size() && before_[place].key == key ? &before_[place] : find(key);
    const bool same = old != nullptr && old->up == up;
    next_.push_back({key, up, same ? old->since_ns : realtime_ns()});
  }
  States take() { return std::move(next_); }

 private:
  const State* find(const Key& key) {
    if (by_key_.empty()) {
      for (const State& state : before_) by_key_.emplace(state.key, &state);
    }
    const auto found = by_key_.find(key);
    return found == by_key_.end() ? nullptr : found->second;
  }
  const States& before_;
  States next_;
  std::map<Key, const State*> by_key_;  // made only if a thing is at another index
};

void EdgeMetrics::look() {
  std::shared_ptr<const Snapshot> snapshot = host_state_.snapshot();
  if (!snapshot) return;
  const Model& model = *snapshot->model;
  Noting backends(backends_), pools(pools_), vips(vips_), sites(sites_), planes(planes_);
  for (size_t p = 0; p < model.pools.size(); ++p) {
    const Pool& pool = model.pools[p];
    for (size_t b = 0; b < pool.backends.size(); ++b) {
      backends.note({pool.name, pool.backends[b].name}, snapshot->pools[p].backends[b].state == BackendState::up);
    }
    pools.note({pool.name, {}}, snapshot->pools[p].up);
  }
  for (size_t v = 0; v < model.vips.size(); ++v) vips.note({model.vips[v].name, {}}, snapshot->vip_up[v]);
  for (size_t s = 0; s < model.sites.size(); ++s) sites.note({model.sites[s].name, {}}, !snapshot->site_drained[s]);
  for (uint32_t n = 0; n < model.nodes.size(); ++n) {
    for (const PlaneKind kind : kPlaneKinds) {
      if (!runs(model.nodes[n], kind)) continue;
      planes.note({model.nodes[n].name, name(kind)}, snapshot->plane(n, kind).state == BackendState::up);
    }
  }
  planes_ = planes.take();
  backends_ = backends.take();
  pools_ = pools.take();
  vips_ = vips.take();
  sites_ = sites.take();
  if (certificates_version_ != snapshot->version) look_at_certificates(model);
  certificates_version_ = snapshot->version;
  look_at_ordered_certificates(*snapshot);
  look_at_staples(*snapshot);
  seen_ = std::move(snapshot);  // the earlier keys were views of the previous snapshot
}

// If a record decides a state, the record has the time.
std::vector<EdgeMetrics::Series> EdgeMetrics::backend_series() const {
  std::vector<Series> series;
  for (const State& state : backends_) {
    const std::string pool(state.key.first), backend(state.key.second);
    const uint64_t told_ns = said_ns(*seen_->live_state, pool, backend);
    series.push_back(
        {render_labels({{"pool", pool}, {"backend", backend}}), state.up, told_ns != 0 ? told_ns : state.since_ns});
  }
  return series;
}

std::vector<EdgeMetrics::Series> EdgeMetrics::site_series() const {
  std::vector<Series> series;
  for (const State& state : sites_) {
    const std::string site(state.key.first);
    const auto record = seen_->live_state->overrides.find(site_key(site));
    series.push_back({render_labels({{"site", site}}), state.up,
                      record == seen_->live_state->overrides.end() ? state.since_ns : record->second.since_ns});
  }
  return series;
}

std::vector<EdgeMetrics::Series> EdgeMetrics::plane_series() const {
  std::vector<Series> series;
  for (const State& state : planes_) {
    const std::string node(state.key.first), plane(state.key.second);
    const auto record = seen_->live_state->health.find(plane_key(node, plane));
    series.push_back({render_labels({{"node", node}, {"plane", plane}}), state.up,
                      record == seen_->live_state->health.end() ? state.since_ns : record->second.since_ns});
  }
  return series;
}

std::vector<EdgeMetrics::Series> EdgeMetrics::plain_series(const States& states, const char* label) {
  std::vector<Series> series;
  for (const State& state : states) {
    series.push_back({render_labels({{label, std::string(state.key.first)}}), state.up, state.since_ns});
  }
  return series;
}

// The metric has 0 as the end of a certificate that was never issued. So an alert on the end also finds this
// certificate.
void EdgeMetrics::look_at_ordered_certificates(const Snapshot& snapshot) {
  ordered_.clear();
  failures_.clear();
  for (const Certificate& certificate : snapshot.model->certificates) {
    if (!certificate.is_ordered()) continue;
    const auto record = snapshot.live_state->certificates.find(certificate.name);
    const bool known = record != snapshot.live_state->certificates.end();
    const std::string labels = render_labels({{"certificate", certificate.name}});
    ordered_[labels] = known ? record->second.not_after_s : 0;
    failures_[labels] = known ? record->second.failures : 0;
  }
}

// For a certificate without a good answer the end is 0, so an alert on the end fires.
void EdgeMetrics::look_at_staples(const Snapshot& snapshot) {
  staples_.clear();
  for (const Certificate& certificate : snapshot.model->certificates) {
    if (!certificate.ocsp.enabled) continue;
    const auto record = snapshot.live_state->staples.find(certificate.name);
    const bool known = record != snapshot.live_state->staples.end() &&
                       record->second.certificate_hash == ocsp::shown_chain_hash(certificate, *snapshot.live_state);
    const StapleRecord& staple = known ? record->second : StapleRecord{};
    staples_[render_labels({{"certificate", certificate.name}})] = {
        staple.status == RevocationStatus::good ? staple.next_update_s : 0, staple.failures,
        staple.status == RevocationStatus::revoked};
  }
}

void EdgeMetrics::look_at_certificates(const Model& model) {
  certificates_.clear();
  for (const Certificate& certificate : model.certificates) {
    if (!certificate.certificate.bytes || !certificate.key.bytes) continue;
    const auto info = inspect_identity({*certificate.certificate.bytes, *certificate.key.bytes});
    if (info) certificates_.emplace(render_labels({{"certificate", certificate.name}}), info->not_after_s);
  }
}

void EdgeMetrics::append_family(std::string& out, const char* thing, const char* help,
                                const std::vector<Series>& series) {
  if (series.empty()) return;
  out += fmt::format("# HELP tidegate_control_{0}_up {1}\n# TYPE tidegate_control_{0}_up gauge\n", thing, help);
  for (const Series& each : series) {
    out += fmt::format("tidegate_control_{}_up{} {}\n", thing, each.labels, each.up ? 1 : 0);
  }
  out += fmt::format(
      "# HELP tidegate_control_{0}_last_change_timestamp_seconds When it came to that state, as far as this control "
      "knows.\n# TYPE tidegate_control_{0}_last_change_timestamp_seconds gauge\n",
      thing);
  for (const Series& each : series) {
    out += fmt::format("tidegate_control_{}_last_change_timestamp_seconds{} {:.3f}\n", thing, each.labels,
                       static_cast<double>(each.since_ns) / 1e9);
  }
}

void EdgeMetrics::append_staples(std::string& out) const {
  if (staples_.empty()) return;
  const auto family = [&](const char* what, const char* help, auto&& value_of) {
    out += fmt::format("# HELP tidegate_control_{0} {1}\n# TYPE tidegate_control_{0} gauge\n", what, help);
    for (const auto& [labels, staple] : staples_) {
      out += fmt::format("tidegate_control_{}{} {}\n", what, labels, value_of(staple));
    }
  };
  family("ocsp_answer_not_after_seconds",
         "When the OCSP answer that proxies show ends, in seconds since 1970; 0: none.",
         [](const Staple& staple) { return staple.until_s; });
  family("ocsp_failures", "Questions in a row about the certificate without a good OCSP answer.",
         [](const Staple& staple) { return staple.failures; });
  family("certificate_revoked", "1: the authority says that it revoked the certificate.",
         [](const Staple& staple) { return staple.is_revoked ? 1 : 0; });
}

void EdgeMetrics::append(std::string& out) {
  append_family(out, "backend", "1: it gets new work.", backend_series());
  append_family(out, "pool", "1: enough of its weight is up.", plain_series(pools_, "pool"));
  append_family(out, "vip", "1: DNS may answer with it.", plain_series(vips_, "vip"));
  append_family(out, "site", "1: no operator drained it.", site_series());
  append_family(out, "plane", "1: the plane serves clients, as far as control knows.", plane_series());
  append_staples(out);
  if (certificates_.empty() && ordered_.empty()) return;
  out +=
      "# HELP tidegate_control_certificate_not_after_seconds When the certificate ends, in seconds since 1970.\n"
      "# TYPE tidegate_control_certificate_not_after_seconds gauge\n";
  for (const auto* ends : {&certificates_, &ordered_}) {
    for (const auto& [labels, end_s] : *ends) {
      out += fmt::format("tidegate_control_certificate_not_after_seconds{} {}\n", labels, end_s);
    }
  }
  if (failures_.empty()) return;
  out +=
      "# HELP tidegate_control_certificate_failures Tries in a row to order the certificate that failed.\n"
      "# TYPE tidegate_control_certificate_failures gauge\n";
  for (const auto& [labels, failures] : failures_) {
    out += fmt::format("tidegate_control_certificate_failures{} {}\n", labels, failures);
  }
}

}  // namespace tidegate
