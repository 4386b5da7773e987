// SPDX-License-Identifier: Apache-2.0
// Words: what operators and probes say of the edge, beside the configuration and surviving its changes.
// An admin word is an operator's ("drain this"); a health word is a probe's verdict. Both are kept in the state store.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace tidegate {

enum class AdminState : uint8_t { drained, down };  // no word: in service

struct AdminWord {
  AdminState state = AdminState::drained;
  std::string by;  // who said it
  std::string note;
  uint64_t since_ns = 0;  // realtime
};

struct HealthWord {
  bool up = false;
  std::string reason;     // "connect: refused", "status 503, expected 200"
  uint64_t since_ns = 0;  // realtime, of the change
};

// Keys: "backend/<pool>/<backend>", "pool/<pool>", "site/<site>" (admin); "backend/<pool>/<backend>" (health).
struct Words {
  uint64_t sequence = 0;  // grows by one with every change of any word
  std::map<std::string, AdminWord> admin;
  std::map<std::string, HealthWord> health;
};

std::string backend_key(std::string_view pool, std::string_view backend);
std::string pool_key(std::string_view pool);
std::string site_key(std::string_view site);

}  // namespace tidegate
