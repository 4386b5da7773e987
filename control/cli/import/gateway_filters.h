// SPDX-License-Identifier: Apache-2.0
// The filters of a rule of HTTPRoute as keys of routes and policies.
#pragma once

#include <string>

#include "control/cli/import/gateway_services.h"
#include "control/cli/import/kubernetes_objects.h"

namespace tidegate::cli {

// What the filters of a rule make of its routes. Some of it depends on the match and the listener, so it is asked
// there.
class GatewayFilters {
 public:
  GatewayFilters(Imported& into, const GatewayServices& services, std::string space)
      : into_(into), services_(services), space_(std::move(space)) {}

  // Error: it cannot be said. Then the rule answers 500 if `must` is set: without the filter it would do another thing.
  Result<void> add(const DocumentNode& filter, const std::string& rule, bool& must);

  // One of several backends of a rule: its own fields as keys of a variant of a split. Error: a filter of it does more.
  Result<void> edit_variant(const DocumentNode& backend, nlohmann::json& variant);

  bool redirects() const { return redirect_ != nullptr; }
  // Adds to a route what the filters say. `prefix`: the path of a prefix match, or empty. `tls`, `port`: of its
  // listener.
  Result<void> apply(nlohmann::json& route, const std::string& prefix, bool tls, uint16_t port) const;
  bool depends_on_listener() const { return redirects() && kube::text_at(redirect_, {"scheme"}).empty(); }

 private:
  Result<void> add_fields(const DocumentNode* node, bool request);
  Result<void> add_mirror(const DocumentNode* node, const std::string& rule);
  Result<void> add_cors(const DocumentNode* node);
  Result<void> apply_redirect(nlohmann::json& route, const std::string& prefix, bool tls, uint16_t port) const;
  Result<std::string> path_of_redirect(const std::string& prefix) const;

  Imported& into_;
  const GatewayServices& services_;
  std::string space_;
  nlohmann::json request_ = nlohmann::json::object(), response_ = nlohmann::json::object();          // set and removed
  nlohmann::json request_more_ = nlohmann::json::array(), response_more_ = nlohmann::json::array();  // added
  std::vector<nlohmann::json> policies_;
  const DocumentNode* redirect_ = nullptr;
  const DocumentNode* rewrite_ = nullptr;
};

}  // namespace tidegate::cli
