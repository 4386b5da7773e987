// SPDX-License-Identifier: Apache-2.0
#include "control/observe/explain.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/service.h"
#include "conf/model/site.h"
#include "control/api/parameters.h"
#include "control/observe/explain_past.h"
#include "control/observe/explanation_text.h"
#include "core/percent.h"

namespace tidegate {

namespace {

using nlohmann::json;

// Returns the addresses of a DNS answer. Each element is an address, a record in presentation form, or an object with
// "address".
std::vector<IpAddress> addresses_among(const json& answers) {
  std::vector<IpAddress> addresses;
  if (!answers.is_array()) return addresses;
  for (const json& answer : answers) {
    std::string text = answer.is_string() ? answer.get<std::string>() : string_member(answer, "address");
    text = text.substr(text.find_last_of(" \t") + 1);
    if (const std::optional<IpAddress> address = IpAddress::parse(text)) addresses.push_back(*address);
  }
  return addresses;
}

// One walk from client to origin. Each step chooses the next one. Every walk ends in finish().
class Walk : public std::enable_shared_from_this<Walk> {
 public:
  Walk(Fleet& fleet, std::shared_ptr<const Model> model, uint64_t version, ExplainQuestion question,
       std::function<void(json)> done)
      : fleet_(fleet),
        model_(std::move(model)),
        version_(version),
        question_(std::move(question)),
        done_(std::move(done)) {}

  void ask_dns() {
    if (const std::optional<IpAddress> literal = IpAddress::parse(question_.host)) {
      skip("dns", fmt::format("{} is an address already", question_.host));
      return choose_vip({*literal});
    }
    const std::vector<std::string> nodes = nodes_with([](const Node& node) { return node.dns.enabled; });
    if (nodes.empty()) {
      skip("dns", "no node of this edge serves DNS");
      return go_without_dns();
    }
    const std::string target =
        fmt::format("/explain?client={}&name={}&type={}", percent_encode(question_.client.to_string()),
                    percent_encode(question_.host), question_.client.is_v4() ? "A" : "AAAA");
    ask_first("dns", nodes, 0, target, [](Walk& walk, const json* answer) {
      // A name of no zone here is another name server's.
      if (answer && string_member(*answer, "rcode") == "REFUSED") return walk.go_without_dns();
      walk.choose_vip(answer ? addresses_among(answer->value("answers", json())) : std::vector<IpAddress>{});
    });
  }

 private:
  using Next = void (*)(Walk&, const json* answer);  // null: no plane answered

  template <class Wanted>
  std::vector<std::string> nodes_with(Wanted wanted) const {
    std::vector<std::string> names;
    for (const Node& node : model_->nodes) {
      if (wanted(node)) names.push_back(node.name);
    }
    // This host comes first, because its answer needs no other control.
    std::stable_partition(names.begin(), names.end(),
                          [&](const std::string& name) { return name == fleet_.own_node(); });
    return names;
  }

  void skip(const char* plane, const std::string& why) { steps_.push_back({{"plane", plane}, {"skipped", why}}); }

  // Asks one node after the other until one answers.
  void ask_first(const std::string& plane, const std::vector<std::string>& nodes, size_t index,
                 const std::string& target, Next next) {
    fleet_.ask_plane(nodes[index], plane, target,
                     [self = shared_from_this(), plane, nodes, index, target, next](const Result<json>& answer) {
                       if (answer && answer->is_object()) {
                         json step = {{"plane", plane}, {"node", nodes[index]}};
                         step.update(*answer);
                         self->steps_.push_back(std::move(step));
                         return next(*self, &*answer);
                       }
                       const std::string why = answer ? "its answer is not an object" : answer.error().message;
                       if (index + 1 < nodes.size()) return self->ask_first(plane, nodes, index + 1, target, next);
                       self->steps_.push_back({{"plane", plane}, {"node", nodes[index]}, {"error", why}});
                       next(*self, nullptr);
                     });
  }

  // The edge has no answer for the name, or its answer is not a VIP. The walk continues at the first VIP with a service
  // on that port, or at the proxies.
  void go_without_dns() {
    for (const Service& service : model_->services) {
      const Vip& vip = model_->vips[service.vip];
      if (service.port == question_.port && !vip.addresses.empty()) return choose_vip({vip.addresses.front()});
    }
    skip("l4", "no VIP of this edge serves that port");
    ask_l7(proxies_of_site());
  }

  void choose_vip(const std::vector<IpAddress>& addresses) {
    for (const IpAddress& address : addresses) {
      for (uint32_t v = 0; v < model_->vips.size(); ++v) {
        const Vip& vip = model_->vips[v];
        if (std::find(vip.addresses.begin(), vip.addresses.end(), address) == vip.addresses.end()) continue;
        json& last = steps_.back();
        if (!last.contains("skipped")) last["vip"] = vip.name;
        return ask_l4(v, address);
      }
    }
    // Without VIPs clients come to the proxies' own addresses, which no key names.
    if (!addresses.empty() && model_->vips.empty()) return go_without_dns();
    skip("l4", addresses.empty() ? "there is no address to send packets to"
                                 : fmt::format("{} is no VIP of this edge", addresses.front().to_string()));
    // Without an address there is no packet. An address that is not a VIP may belong to a proxy.
    if (addresses.empty()) return finish();
    ask_l7(proxies_at(addresses.front()));
  }

  std::vector<std::string> proxies_at(const IpAddress& address) const {
    for (const Pool& pool : model_->pools) {
      for (const Backend& backend : pool.backends) {
        if (backend.node == kNone) continue;
        const bool here =
            std::find(backend.addresses.begin(), backend.addresses.end(), address) != backend.addresses.end();
        if (here && model_->nodes[backend.node].l7.enabled) return {model_->nodes[backend.node].name};
      }
    }
    return {};
  }

  void ask_l4(uint32_t index, const IpAddress& address) {
    const Vip& vip = model_->vips[index];
    site_ = vip.site;
    service_ = nullptr;
    for (const Service& service : model_->services) {
      if (service.vip == index && service.port == question_.port && service.protocol == Protocol::tcp)
        service_ = &service;
    }
    const std::vector<std::string> nodes =
        nodes_with([&](const Node& node) { return node.l4.enabled && node.site == site_; });
    if (nodes.empty()) {
      skip("l4", fmt::format("site {} has no forwarder", site_name()));
      return ask_l7(proxies_of_site());
    }
    l4_target_ =
        fmt::format("/explain?client={}&vip={}&port={}&protocol=tcp", percent_encode(question_.client.to_string()),
                    percent_encode(address.to_string()), question_.port);
    if (question_.client_port) l4_target_ += fmt::format("&client_port={}", *question_.client_port);
    ask_first("l4", nodes, 0, l4_target_, [](Walk& walk, const json* answer) { walk.ask_holder(answer); });
  }

  // A forwarder on standby names the forwarder that holds the VIP.
  void ask_holder(const json* answer) {
    const std::string holder = answer ? string_member(*answer, "holder") : std::string();
    if (holder.empty()) return follow_l4(answer);
    ask_first("l4", {holder}, 0, l4_target_, [](Walk& walk, const json* told) { walk.follow_l4(told); });
  }

  // Asks the backend's node. If there is no single backend, asks about the first eligible one.
  void follow_l4(const json* answer) {
    if (!answer) return ask_l7(proxies_of_site());
    std::vector<std::string> backends;
    if (const std::string backend = string_member(*answer, "backend"); !backend.empty()) {
      backends.push_back(backend);
    } else {
      for (const json& eligible : answer->value("eligible", json::array())) {
        const std::string state = string_member(eligible, "state", "up");
        if (state == "up") backends.push_back(string_member(eligible, "backend"));
      }
    }
    std::vector<std::string> nodes;
    for (const std::string& backend : backends) {
      const std::string node = node_of_backend(backend);
      if (!node.empty()) nodes.push_back(node);
    }
    ask_l7(nodes);
  }

  std::string node_of_backend(const std::string& wanted) const {
    if (!service_ || service_->pool == kNone) return {};
    for (const Backend& backend : model_->pools[service_->pool].backends) {
      if (backend.name != wanted || backend.node == kNone) continue;
      return model_->nodes[backend.node].l7.enabled ? model_->nodes[backend.node].name : std::string();
    }
    return {};
  }

  std::vector<std::string> proxies_of_site() const {
    return nodes_with([&](const Node& node) { return node.l7.enabled && (site_ == kNone || node.site == site_); });
  }

  std::string site_name() const { return site_ == kNone ? "(none)" : model_->sites[site_].name; }

  void ask_l7(const std::vector<std::string>& nodes) {
    if (question_.url.empty()) {
      skip("l7", "no url was asked for");
      return finish();
    }
    if (nodes.empty()) {
      skip("l7", "the way does not lead to a proxy of this edge");
      return finish();
    }
    std::string target =
        fmt::format("/explain?client={}&url={}&method={}", percent_encode(question_.client.to_string()),
                    percent_encode(question_.url), percent_encode(question_.method));
    if (!question_.headers.empty()) target += "&headers=" + percent_encode(question_.headers);
    if (question_.body) target += fmt::format("&body={}", *question_.body);
    ask_first("l7", nodes, 0, target, [](Walk& walk, const json*) { walk.finish(); });
  }

  void finish() {
    json result = {
        {"client", question_.client.to_string()}, {"version", version_}, {"sentence", describe_steps(steps_)}};
    result[question_.url.empty() ? "name" : "url"] = question_.url.empty() ? question_.host : question_.url;
    if (question_.client_port) result["client_port"] = *question_.client_port;
    result["steps"] = std::move(steps_);
    done_(std::move(result));
  }

  Fleet& fleet_;
  std::shared_ptr<const Model> model_;  // one walk uses one version
  uint64_t version_;
  ExplainQuestion question_;
  std::function<void(json)> done_;
  json steps_ = json::array();
  uint32_t site_ = kNone;
  const Service* service_ = nullptr;  // in model_
  std::string l4_target_;             // the question to forwarders
};

// Reads the question from the call's parameters. Sends 400 and returns nothing if it is malformed.
std::optional<ExplainQuestion> read_question(const ApiCall& call) {
  const auto refuse = [&](const std::string& why) {
    call.respond(problem(400, "bad_parameter", why));
    return std::nullopt;
  };
  const HttpRequest& request = call.request();
  ExplainQuestion question;
  const std::optional<IpAddress> address = IpAddress::parse(request.parameter("client").value_or(""));
  if (!address) return refuse("client is missing: an IP address is expected");
  question.client = *address;
  if (const uint64_t port = number_parameter(call, "client_port", 0))
    question.client_port = static_cast<uint16_t>(port);
  question.method = request.parameter("method").value_or("GET");
  question.headers = request.parameter("headers").value_or("");
  if (request.parameter("body")) question.body = number_parameter(call, "body", 0);
  question.url = request.parameter("url").value_or("");
  if (question.url.empty()) {
    question.host = request.parameter("name").value_or("");
    if (question.host.empty()) return refuse("url or name is missing");
    return question;
  }
  const Result<UrlParts> parts = split_url(question.url);
  if (!parts) return refuse(parts.error().message);
  question.host = request.parameter("name").value_or(parts->host);
  question.port = parts->port;
  return question;
}

void answer_past(const ApiCall& call, Fleet& fleet, const HostState& host_state) {
  const HttpRequest& request = call.request();
  for (const char* other : {"client", "client_port", "url", "method", "headers", "body", "name"}) {
    if (!request.parameter(other)) continue;
    return call.respond(problem(400, "bad_parameter", fmt::format("request stands alone, without {}", other)));
  }
  const std::string id = request.parameter("request").value_or("");
  constexpr size_t kLongestId = 128;  // a proxy stores no longer id
  if (id.empty() || id.size() > kLongestId) {
    return call.respond(
        problem(400, "bad_parameter", fmt::format("request: an id of 1 to {} bytes is expected", kLongestId)));
  }
  explain_past(fleet, host_state, id,
               [call](const json& answer) { call.respond(HttpResponse::json(200, dump(answer) + "\n")); });
}

}  // namespace

Result<UrlParts> split_url(std::string_view url) {
  UrlParts parts;
  constexpr std::string_view kHttp = "http://", kHttps = "https://";
  if (url.substr(0, kHttp.size()) == kHttp) {
    parts.port = 80;
    url.remove_prefix(kHttp.size());
  } else if (url.substr(0, kHttps.size()) == kHttps) {
    parts.port = 443;
    url.remove_prefix(kHttps.size());
  } else {
    return fail("the url does not begin with http:// or https://");
  }
  std::string_view authority = url.substr(0, url.find_first_of("/?#"));
  const size_t bracket = authority.rfind(']');
  const size_t colon = authority.rfind(':');
  if (colon != std::string_view::npos && (bracket == std::string_view::npos || colon > bracket)) {
    const std::optional<uint64_t> port = parse_number(authority.substr(colon + 1));
    if (!port || *port == 0 || *port > 65535) return fail("the url's port is not 1 to 65535");
    parts.port = static_cast<uint16_t>(*port);
    authority = authority.substr(0, colon);
  }
  if (authority.size() > 2 && authority.front() == '[' && authority.back() == ']') {
    authority = authority.substr(1, authority.size() - 2);
  }
  if (authority.empty()) return fail("the url has no host");
  parts.host = std::string(authority);
  return parts;
}

void explain(Fleet& fleet, const HostState& host_state, ExplainQuestion question, std::function<void(json)> done) {
  std::make_shared<Walk>(fleet, host_state.model(), host_state.head().version, std::move(question), std::move(done))
      ->ask_dns();
}

void add_explain_routes(RouteTable& table, HostState& host_state, Fleet& fleet) {
  table.add({"GET",
             "/v1/explain",
             Role::viewer,
             Effect::reads,
             "Why a client's query, packet and request go where they go, as each plane says",
             {QueryParameter::address("client", "its IP address"),
              QueryParameter::number("client_port", "its port: gives the exact backend of a flow", 1, 65535),
              {"url", "what it asks for: http(s)://host/path"},
              {"method", "of the request (GET)"},
              {"headers", "of the request: lines 'Name: value', with LF between them"},
              QueryParameter::number("body", "bytes of the request's body", 0, uint64_t{1} << 50),
              {"name", "the DNS name, when there is no url or it differs from the url's host"},
              {"request", "the X-Request-Id of a past request, in place of all others: what it met"}},
             {},
             [&host_state, &fleet](const ApiCall& call) {
               if (!host_state.model()) {
                 return call.respond(problem(404, "not_configured", "no configuration has been committed yet"));
               }
               if (call.request().parameter("request")) return answer_past(call, fleet, host_state);
               std::optional<ExplainQuestion> question = read_question(call);
               if (!question) return;
               explain(fleet, host_state, std::move(*question),
                       [call](const json& answer) { call.respond(HttpResponse::json(200, dump(answer) + "\n")); });
             }});
}

}  // namespace tidegate
