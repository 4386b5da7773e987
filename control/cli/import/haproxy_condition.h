// SPDX-License-Identifier: Apache-2.0
// Conditions of HAProxy: access lists by name, what stands behind `if` and `unless`, and what requests meet it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "control/cli/import/cases.h"
#include "control/cli/import/haproxy_syntax.h"

namespace tidegate::cli {

// Where an access list is asked: the listeners of its frontend.
struct HaproxyDoors {
  std::vector<std::string> tls, clear;
  std::map<uint64_t, std::vector<std::string>> by_port;
};

struct HaproxyList {
  std::vector<When> any;  // one of these holds; empty: none ever does
  std::string unknown;    // not empty: why a part of it cannot be said
  std::string inexact;    // not empty: why some requests are judged in another way here
  std::string users;      // http_auth(USERS)
  bool rate = false;      // it is about how often a client comes
};

// One way to meet a condition: `has`, and none of `has_not`.
struct HaproxyWay {
  When has;
  std::vector<When> has_not;
  std::string users;    // the request shows no user of this list
  std::string unknown;  // not empty: more is asked than this, and why it cannot be said
  bool rate = false;
};

class HaproxyLists {
 public:
  explicit HaproxyLists(HaproxyDoors doors) : doors_(std::move(doors)) {}
  // A line `acl NAME …`. Error: why it cannot be said.
  Result<void> add(const HaproxyLine& line);
  // The ways to meet what stands behind `if` or `unless`. Without either, one that always holds. None: it never holds.
  // `exact`: lists that are not exact are unknown.
  std::vector<HaproxyWay> ways(const HaproxyLine& line, bool exact) const;

 private:
  HaproxyList read(std::vector<std::string> words) const;
  const HaproxyList& named(const std::string& name) const;

  HaproxyDoors doors_;
  std::map<std::string, HaproxyList> lists_;
};

}  // namespace tidegate::cli
