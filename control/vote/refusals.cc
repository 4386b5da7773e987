// SPDX-License-Identifier: Apache-2.0
#include "control/vote/refusals.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <utility>

#include "conf/state_folder.h"
#include "control/api/json_bounds.h"
#include "control/limits.h"
#include "core/log.h"

namespace tidegate {
namespace {

using nlohmann::json;

constexpr const char* kName = "refused.json";
constexpr mode_t kMode = 0640;  // reasons may have names and paths of the configuration

bool is_record(const json& each) {
  return each.is_object() && each.contains("candidate") && each["candidate"].is_number_unsigned();
}

}  // namespace

Refusals::Refusals(std::string state_dir) : state_dir_(std::move(state_dir)) {
  const std::ifstream file(state_dir_ + "/" + kName);
  if (!file) return;  // nothing was refused yet
  std::ostringstream text;
  text << file.rdbuf();
  const json read = json::parse(text.str(), nullptr, false);
  if (!read.is_array() || read.size() > kRefusedCandidatesKept || !std::all_of(read.begin(), read.end(), is_record)) {
    log_warn("{}/{} is no list of refused candidates: it is not used", state_dir_, kName);
    return;
  }
  records_.assign(read.begin(), read.end());
}

void Refusals::add(json record) {
  records_.push_back(std::move(record));
  if (records_.size() > kRefusedCandidatesKept) records_.pop_front();
  const std::string text = json(records_).dump(-1, ' ', false, json::error_handler_t::replace);
  const Result<void> written = replace_file(state_dir_, kName, std::string(".") + kName + ".new", text + "\n", kMode);
  if (!written) log_warn("the candidate that was refused cannot be kept: {}", written.error().message);
}

json Refusals::newest_first() const {
  json out = json::array();
  for (auto one = records_.rbegin(); one != records_.rend(); ++one) out.push_back(*one);
  return out;
}

json Refusals::find(uint64_t id) const {
  const auto found = std::find_if(records_.rbegin(), records_.rend(),
                                  [&](const json& one) { return number_member(one, "candidate") == id; });
  return found == records_.rend() ? json(nullptr) : *found;
}

}  // namespace tidegate
