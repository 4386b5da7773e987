// SPDX-License-Identifier: Apache-2.0
// Client: etcd's v3 API by its JSON gateway, over libcurl, on control's event loop. It never blocks the loop. It has
// several endpoints. If one does not answer, it tries the next one, and stays with the one that answers. With a user,
// it logs in, and logs in again when the token has expired.
//
// Every call may be sent twice, if the first answer was lost. So callers may send only requests that can be repeated.
//
// Threads: the loop's. Callbacks come from the loop, never before the call has returned.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "control/api/background.h"
#include "control/etcd/messages.h"
#include "core/curl_loop.h"
#include "core/event_loop.h"
#include "core/result.h"

namespace tidegate::etcd {

struct ClientOptions {
  std::vector<std::string> endpoints;  // "https://192.0.2.1:2379", at least one
  std::string ca_file;                 // PEM roots of the members' certificates; empty: the system's
  std::string certificate_file, key_file;
  std::string user, password;  // no user: no login
};

// Accepts "http[s]://HOST[:PORT],...", with at most kMaxEtcdEndpoints. An Error names the fault.
Result<std::vector<std::string>> parse_endpoints(const std::string& list);

class Client {
 public:
  // A longer answer is read outside of the loop, because that takes milliseconds.
  static constexpr size_t kReadAtOnceBytes = 64 << 10;
  static constexpr uint64_t kTryMs = 700;  // time for one endpoint: less than half of the shortest usual lease

  Client(EventLoop& loop, ClientOptions options);
  ~Client();

  using Done = std::function<void(Result<nlohmann::json>)>;
  // POSTs to `path` ("/v3/kv/range"). Each endpoint is tried at most once, for kTryMs each; longer for a large body.
  void call(const std::string& path, const nlohmann::json& body, Done done);
  // Opens the watch stream and closes an earlier one. `ended` is called once, when the stream has ended by itself.
  void watch(const nlohmann::json& request, std::function<void(const WatchAnswer&)> on_answer,
             std::function<void(const std::string& why)> ended);
  void end_watch();

  // The endpoint that the next call tries first.
  const std::string& endpoint() const { return options_.endpoints[current_]; }

 private:
  struct Call;
  struct Watch;
  void start(const std::shared_ptr<Call>& call);
  void finish(const std::shared_ptr<Call>& call, CURLcode code);
  // `answer`: null if there is a failure.
  void judge(const std::shared_ptr<Call>& call, long status, std::string failure, Result<nlohmann::json> answer);
  void finish_with(const std::shared_ptr<Call>& call, Result<nlohmann::json> answer);
  bool try_next(const std::shared_ptr<Call>& call);
  void log_in(const std::shared_ptr<Call>& then);
  void prepare(CURL* easy, const std::string& url, curl_slist* headers, const std::string& body) const;
  curl_slist* headers() const;
  void take_watch_lines();
  void end_watch_with(const std::string& why);

  EventLoop& loop_;
  ClientOptions options_;
  CurlLoop curl_;
  size_t current_ = 0;
  std::string token_;
  std::map<Call*, std::shared_ptr<Call>> calls_;
  std::shared_ptr<Watch> watch_;
  Background reads_;
};

}  // namespace tidegate::etcd
