// SPDX-License-Identifier: Apache-2.0
// The rules of a frontend or a backend of HAProxy: who is refused, where a request is sent, and what is changed in it.
// The first rule that decides ends the list, so the order of the file counts.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "control/cli/import/cases.h"
#include "control/cli/import/haproxy_condition.h"
#include "control/cli/import/haproxy_priority.h"
#include "control/cli/import/haproxy_syntax.h"

namespace tidegate::cli {

class HaproxyRules {
 public:
  // `users`: those of each userlist.
  HaproxyRules(Imported& into, const HaproxyLists& lists, const std::map<std::string, nlohmann::json>& users,
               const HaproxyPriorities& priorities)
      : into_(into), lists_(lists), users_(users), priorities_(priorities) {}

  // Whether a line is one of these rules.
  static bool has(const std::string& key);
  // The cases of a section; `last` is what happens to requests that no rule decides about. `backend` has those of a
  // backend; empty cases: it is not there. Each rule is judged, unless `told` says that this was done.
  Cases cases(const HaproxySection& section, Cases last, const std::function<Cases(const std::string&)>& backend,
              bool judges = true);

 private:
  // What a rule does with requests that have its condition. Error: why it cannot be said.
  struct Deed {
    enum class Kind : uint8_t { answer, backend, pass, users, change, nothing };
    Kind kind = Kind::nothing;
    nlohmann::json answer;
    std::string backend, realm;
  };
  Result<Deed> read(const HaproxyLine& line);
  Result<Deed> read_request(const HaproxyLine& line, size_t begin);
  Result<Deed> read_redirect(const HaproxyLine& line, size_t begin);
  Result<Deed> read_change(const HaproxyLine& line);
  Cases with_rule(const HaproxyLine& line, Cases rest, const Cases& passed,
                  const std::function<Cases(const std::string&)>& backend);
  Cases with_way(const HaproxyLine& line, const HaproxyWay& way, const Deed& deed, Cases rest, const Cases& passed,
                 const std::function<Cases(const std::string&)>& backend, Result<void>& outcome);
  Cases with_priority(const HaproxyLine& line, Cases rest);
  static Result<Cases> with_priority(const HaproxyWay& way, const std::string& priority, const Cases& rest);
  void judge(const HaproxyLine& line, const Result<void>& outcome);
  static Cases closed(const HaproxyLine& line, const std::string& why, uint32_t status);

  Imported& into_;
  const HaproxyLists& lists_;
  const std::map<std::string, nlohmann::json>& users_;
  const HaproxyPriorities& priorities_;
  bool judges_ = true;
  nlohmann::json to_backend_, to_client_;  // changes of fields
};

}  // namespace tidegate::cli
