// SPDX-License-Identifier: Apache-2.0
// Any host and path through normalisation, merging and the router, compared with a naive twin. Input: host, line feed,
// path.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string_view>

#include "conf/model.h"
#include "conf/model/route.h"
#include "conf/route_pattern.h"
#include "l7/route/router.h"
#include "l7/wire/message.h"

namespace {

using namespace tidegate;

std::shared_ptr<const Model> make_model() {
  auto model = std::make_shared<Model>();
  const std::pair<const char*, const char*> routes[] = {
      {"", "/*"},         {"a.test", "/*"},       {"*.a.test", "/x/{p}/*"}, {"a.test", "/x"},   {"a.test", "/x/{p}"},
      {"a.test", "/x/y"}, {"a.test", "/x/{p}/z"}, {"*.test", "/{a}/{b}"},   {"*.test", "/a/*"}, {"", "/%2F/{q}"},
  };
  for (const auto& [host, path] : routes) {
    Route route;
    if (*host != '\0') route.hosts = {host};
    route.path = path;
    model->routes.push_back(route);
  }
  return model;
}

uint32_t naive(const Model& model, std::string_view host, std::string_view path) {
  uint32_t best = kNone;
  std::optional<HostPattern> best_host;
  PathPattern best_path;
  for (uint32_t i = 0; i < model.routes.size(); ++i) {
    const PathPattern pattern = *PathPattern::parse(model.routes[i].path);
    std::optional<HostPattern> of_host;
    if (!model.routes[i].hosts.empty()) of_host = *HostPattern::parse(model.routes[i].hosts[0]);
    if (!pattern.matches(path) || (of_host && !of_host->matches(host))) continue;
    const HostPattern* mine = of_host ? &*of_host : nullptr;
    const HostPattern* theirs = best_host ? &*best_host : nullptr;
    if (best != kNone && compare_specificity(mine, theirs) < 0) continue;
    if (best != kNone && compare_specificity(mine, theirs) == 0 && compare_specificity(pattern, best_path) < 0)
      continue;
    best = i;
    best_host = of_host;
    best_path = pattern;
  }
  return best;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static const std::shared_ptr<const Model> model = make_model();
  static const l7::Router router(model, {1, 2});
  const std::string_view input(reinterpret_cast<const char*>(data), bytes);
  const size_t line = input.find('\n');
  if (line == std::string_view::npos || bytes > 2000) return 0;
  l7::Arena arena;
  const std::string_view host = l7::host_of_authority(input.substr(0, line), arena);
  const std::string_view raw = input.substr(line + 1);
  if (host.size() > 250 || raw.empty() || raw.front() != '/') return 0;
  const std::string_view path = l7::normalise_path(raw, arena);
  if (path.empty()) return 0;
  l7::Arena again;
  // Normalising again must not change it.
  if (path.front() != '/' || l7::normalise_path(path, again) != path) std::abort();
  if (host.starts_with('.') || host.find("..") != std::string_view::npos) std::abort();
  l7::RouteParameters parameters;
  const std::string_view merged = l7::path_for_routes(path, true, arena);
  if (merged.find("//") != std::string_view::npos || l7::path_for_routes(merged, true, arena) != merged) std::abort();
  if (l7::normalise_path(merged, again) != merged) std::abort();  // merging must not create a dot segment
  if (l7::path_for_routes(path, false, arena) != path) std::abort();
  for (const std::string_view matched : {path, merged}) {
    if (router.match(0, "GET", host, matched, parameters).route != naive(*model, host, matched)) std::abort();
  }
  return 0;
}
