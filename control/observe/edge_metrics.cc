// SPDX-License-Identifier: Apache-2.0
#include "control/observe/edge_metrics.h"

#include <fmt/format.h>

#include "conf/plane_health.h"
#include "core/clock.h"
#include "core/metrics.h"
#include "core/tls.h"

namespace tidegate {

namespace {

// `told_ns`: when the state began. 0: that was not recorded, so it begins now.
template <class Seen>
void note(std::map<std::string, Seen>& next, std::map<std::string, Seen>& before, std::string labels, double value,
          uint64_t told_ns) {
  const auto old = before.find(labels);
  const bool same = old != before.end() && old->second.value == value;
  const uint64_t since_ns = told_ns != 0 ? told_ns : same ? old->second.since_ns : realtime_ns();
  next.insert_or_assign(std::move(labels), Seen{value, since_ns});
}

// Returns the time of the record that decides a backend's state. 0: no record decides it.
uint64_t said_ns(const LiveState& live_state, const std::string& pool, const std::string& backend) {
  for (const std::string& key : {backend_key(pool, backend), pool_key(pool)}) {
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

void EdgeMetrics::look() {
  const std::shared_ptr<const Snapshot> snapshot = host_state_.snapshot();
  if (!snapshot) return;
  const Model& model = *snapshot->model;
  Series backends, pools, vips, sites, planes;
  for (size_t p = 0; p < model.pools.size(); ++p) {
    const Pool& pool = model.pools[p];
    for (size_t b = 0; b < pool.backends.size(); ++b) {
      const std::string& name = pool.backends[b].name;
      note(backends, backends_, render_labels({{"pool", pool.name}, {"backend", name}}),
           snapshot->pools[p].backends[b].state == BackendState::up, said_ns(*snapshot->live_state, pool.name, name));
    }
    note(pools, pools_, render_labels({{"pool", pool.name}}), snapshot->pools[p].up, 0);
  }
  for (size_t v = 0; v < model.vips.size(); ++v) {
    note(vips, vips_, render_labels({{"vip", model.vips[v].name}}), snapshot->vip_up[v], 0);
  }
  for (size_t s = 0; s < model.sites.size(); ++s) {
    const auto record = snapshot->live_state->overrides.find(site_key(model.sites[s].name));
    note(sites, sites_, render_labels({{"site", model.sites[s].name}}), !snapshot->site_drained[s],
         record == snapshot->live_state->overrides.end() ? 0 : record->second.since_ns);
  }
  for (uint32_t n = 0; n < model.nodes.size(); ++n) {
    for (const PlaneKind kind : kPlaneKinds) {
      if (!runs(model.nodes[n], kind)) continue;
      const std::string key = plane_key(model.nodes[n].name, name(kind));
      const auto record = snapshot->live_state->health.find(key);
      note(planes, planes_, render_labels({{"node", model.nodes[n].name}, {"plane", name(kind)}}),
           snapshot->plane(n, kind).state == BackendState::up,
           record == snapshot->live_state->health.end() ? 0 : record->second.since_ns);
    }
  }
  planes_ = std::move(planes);
  backends_ = std::move(backends);
  pools_ = std::move(pools);
  vips_ = std::move(vips);
  sites_ = std::move(sites);
  if (certificates_version_ != snapshot->version) look_at_certificates(model);
  certificates_version_ = snapshot->version;
  look_at_ordered_certificates(*snapshot);
}

// A certificate that was never issued ends at 0, so that an alert on its end sees it.
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

void EdgeMetrics::look_at_certificates(const Model& model) {
  certificates_.clear();
  for (const Certificate& certificate : model.certificates) {
    if (!certificate.certificate.bytes || !certificate.key.bytes) continue;
    const auto info = inspect_identity({*certificate.certificate.bytes, *certificate.key.bytes});
    if (info) certificates_.emplace(render_labels({{"certificate", certificate.name}}), info->not_after_s);
  }
}

void EdgeMetrics::append_family(std::string& out, const char* thing, const char* help, const Series& series) {
  if (series.empty()) return;
  out += fmt::format("# HELP tidegate_control_{0}_up {1}\n# TYPE tidegate_control_{0}_up gauge\n", thing, help);
  for (const auto& [labels, seen] : series) {
    out += fmt::format("tidegate_control_{}_up{} {}\n", thing, labels, seen.value);
  }
  out += fmt::format(
      "# HELP tidegate_control_{0}_last_change_timestamp_seconds When it came to that state, as far as this control "
      "knows.\n# TYPE tidegate_control_{0}_last_change_timestamp_seconds gauge\n",
      thing);
  for (const auto& [labels, seen] : series) {
    out += fmt::format("tidegate_control_{}_last_change_timestamp_seconds{} {:.3f}\n", thing, labels,
                       static_cast<double>(seen.since_ns) / 1e9);
  }
}

void EdgeMetrics::append(std::string& out) {
  append_family(out, "backend", "1: it gets new work.", backends_);
  append_family(out, "pool", "1: enough of its weight is up.", pools_);
  append_family(out, "vip", "1: DNS may answer with it.", vips_);
  append_family(out, "site", "1: no operator drained it.", sites_);
  append_family(out, "plane", "1: the plane serves clients, as far as control knows.", planes_);
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
