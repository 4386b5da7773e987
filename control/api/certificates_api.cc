// SPDX-License-Identifier: Apache-2.0
#include "control/api/certificates_api.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "conf/model.h"
#include "conf/model/certificate.h"
#include "control/acme/renewal.h"
#include "control/api/json_bounds.h"
#include "control/observe/certificate_troubles.h"
#include "core/clock.h"
#include "core/ocsp.h"
#include "core/tls.h"

namespace tidegate {

using nlohmann::json;

namespace {

json describe_ordered(const Certificate& certificate, const LiveState& live_state, int64_t now_s) {
  const auto found = live_state.certificates.find(certificate.name);
  const IssuedCertificate* record = found == live_state.certificates.end() ? nullptr : &found->second;
  const bool issued = record != nullptr && record->is_issued();
  const std::optional<acme::RenewalInfo> window = issued ? acme::window_in(*record) : std::nullopt;
  json told = {{"name", certificate.name},
               {"source", "acme"},
               {"names", certificate.order.names},
               {"state", !issued                        ? "self-made"
                         : record->not_after_s <= now_s ? "ended"
                                                        : "issued"},
               {"due_s", acme::due_at_s(record, certificate.order.names, window)}};
  if (record == nullptr) return told;
  if (issued) {
    told["not_before_s"] = record->not_before_s;
    told["not_after_s"] = record->not_after_s;
    told["issued_for"] = record->names;
    if (window) told["renewal_window"] = {{"start_s", window->start_s}, {"end_s", window->end_s}};
  }
  told["failures"] = record->failures;
  if (!record->error.empty()) told["error"] = record->error;
  return told;
}

json describe_file(const Certificate& certificate, int64_t now_s) {
  json told = {{"name", certificate.name}, {"source", "files"}};
  if (!certificate.certificate.bytes || !certificate.key.bytes) return told;
  const Result<CertificateInfo> info = inspect_identity({*certificate.certificate.bytes, *certificate.key.bytes});
  if (!info) return told;
  told["names"] = info->names;
  told["state"] = info->not_after_s <= now_s ? "ended" : "issued";
  told["not_before_s"] = info->not_before_s;
  told["not_after_s"] = info->not_after_s;
  const Result<OcspFacts> facts = ocsp_facts(*certificate.certificate.bytes);
  if (facts && facts->must_staple) told["must_staple"] = true;
  return told;
}

}  // namespace

void add_certificate_routes(RouteTable& table, HostState& host_state) {
  table.add(
      {"GET",
       "/v1/certificates",
       Role::viewer,
       Effect::reads,
       "Every certificate: from where, for which names, until when, how its last order went, and whether it is revoked",
       {},
       {},
       [&host_state](const ApiCall& call) {
         const auto now_s = static_cast<int64_t>(realtime_ns() / kNsPerS);
         const std::shared_ptr<const Model> model = host_state.model();
         const std::shared_ptr<const LiveState> live_state = host_state.live_state();
         json certificates = json::array();
         if (model) {
           for (const Certificate& each : model->certificates) {
             certificates.push_back(each.is_ordered() ? describe_ordered(each, *live_state, now_s)
                                                      : describe_file(each, now_s));
             if (each.ocsp.enabled) certificates.back()["ocsp"] = describe_staple(each, *live_state, now_s);
           }
         }
         call.respond(HttpResponse::json(200, dump({{"certificates", std::move(certificates)}}) + "\n"));
       }});
}

}  // namespace tidegate
