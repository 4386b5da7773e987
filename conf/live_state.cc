// SPDX-License-Identifier: Apache-2.0
#include "conf/live_state.h"

namespace tidegate {

std::string backend_key(std::string_view pool, std::string_view backend) {
  std::string key = "backend/";
  key.reserve(key.size() + pool.size() + 1 + backend.size());
  return key.append(pool).append("/").append(backend);
}

std::string pool_key(std::string_view pool) { return std::string("pool/").append(pool); }

std::string site_key(std::string_view site) { return std::string("site/").append(site); }

std::string vip_key(std::string_view vip) { return std::string("vip/").append(vip); }

std::string plane_key(std::string_view node, std::string_view plane) {
  return std::string("plane/").append(node).append("/").append(plane);
}

std::string limit_key(std::string_view policy) { return std::string("limit/").append(policy); }

std::string target_key(std::string_view steer, std::string_view label) {
  if (!steer.empty() && steer.back() == '.') steer.remove_suffix(1);
  return std::string("target/").append(steer).append("/").append(label);
}

}  // namespace tidegate
