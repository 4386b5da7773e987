// SPDX-License-Identifier: Apache-2.0
#include "l4/watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "conf/query.h"
#include "core/clock.h"
#include "l4/plan/guard.h"

namespace tidegate::l4 {
namespace {

using nlohmann::json;

constexpr uint64_t kLookAgainMs = 20;
constexpr uint64_t kUsualSeconds = 10, kUsualTop = 20, kMostTop = 1'000;
constexpr size_t kHashesPerSlice = 256;  // looked up in a worker's flow table between two bursts

HttpResponse bad_watch_query(const std::string& detail) { return HttpResponse::problem(400, "Bad Request", detail); }

uint64_t number_or(const HttpRequest& request, const char* name, uint64_t otherwise) {
  const auto text = request.parameter(name);
  return text ? parse_number(*text).value_or(otherwise) : otherwise;
}

std::optional<DropReason> reason_named(std::string_view wanted) {
  for (size_t i = 1; i < kDropReasons; ++i) {
    if (name(static_cast<DropReason>(i)) == wanted) return static_cast<DropReason>(i);
  }
  return std::nullopt;
}

// Reads the filter from a query that check_query() has accepted. Returns why it is not valid.
std::string read_filter(const HttpRequest& request, CaptureFilter& filter) {
  for (const auto& [key, into] : {std::pair("client", &filter.client), std::pair("vip", &filter.vip)}) {
    const auto text = request.parameter(key);
    if (!text) continue;
    *into = Cidr::parse(*text);
    if (!*into) return fmt::format("{} is {}; expected an address or a network", key, *text);
  }
  if (request.parameter("port")) filter.port = static_cast<uint16_t>(number_or(request, "port", 0));
  if (const auto protocol = request.parameter("protocol")) {
    if (*protocol == "tcp") filter.protocol = kProtocolTcp;
    if (*protocol == "udp") filter.protocol = kProtocolUdp;
    if (!filter.protocol) return fmt::format("protocol is {}; expected tcp or udp", *protocol);
  }
  filter.dropped = request.parameter("dropped").value_or("false") == "true";
  if (const auto reason = request.parameter("reason")) {
    const std::optional<DropReason> known = reason_named(*reason);
    if (!known) return fmt::format("{} is no reason to drop", *reason);
    filter.reason = *known;
  }
  return {};
}

std::vector<std::string> backend_names(const BackendIds& backends) {
  std::vector<std::string> names(kMaxBackends);
  backends.for_each([&](const BackendKey& key, BackendId id) { names[index_of(id)] = key.first + "/" + key.second; });
  return names;
}

std::string comment_of(const Capture::Record& record, const std::vector<std::string>& names) {
  std::string text = name(record.outcome.verdict);
  if (record.outcome.verdict == FrameVerdict::drop) {
    text += fmt::format(": {}: {}", name(record.outcome.reason), sentence(record.outcome.reason));
  }
  if (index_of(record.backend) < names.size()) text += " to " + names[index_of(record.backend)];
  return text;
}

// The records of all workers in order of time, within the bounds.
std::string pcapng_of(const std::vector<std::unique_ptr<Capture>>& captures, const std::vector<std::string>& ports,
                      const std::vector<std::string>& names, const CaptureBounds& bounds) {
  struct Entry {
    const Capture* capture;
    const Capture::Record* record;
  };
  std::vector<Entry> entries;
  for (const auto& capture : captures) {
    for (const Capture::Record& record : capture->records()) entries.push_back({capture.get(), &record});
  }
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return static_cast<int32_t>(a.record->at_ms - b.record->at_ms) < 0;
  });
  const uint64_t wall_ns = realtime_ns();
  const auto now_ms = static_cast<uint32_t>(monotonic_ns() / kNsPerMs);
  PcapngWriter writer(ports);
  uint64_t bytes = 0, packets = 0;
  for (const auto& [capture, record] : entries) {
    bytes += record->kept_bytes;
    if (++packets > bounds.packets || bytes > bounds.bytes) break;
    const uint64_t age_ns = uint64_t{now_ms - record->at_ms} * kNsPerMs;
    writer.append({wall_ns - age_ns, capture->bytes_of(*record), record->whole_bytes}, record->port,
                  comment_of(*record, names));
  }
  return writer.take();
}

}  // namespace

// A capture or count in progress. There is one observer for each worker.
struct Watch::Running {
  const Dataplane* dataplane = nullptr;
  HttpExchangePtr exchange;
  uint64_t until_ns = 0;
  std::vector<std::unique_ptr<Capture>> captures;
  std::vector<std::unique_ptr<TopSources>> tops;
  std::function<HttpResponse(const Running&)> tell;

  FrameObserver* observer(size_t worker) const {
    return captures.empty() ? static_cast<FrameObserver*>(tops[worker].get()) : captures[worker].get();
  }
  void attach(bool on) const {
    for (size_t i = 0; i < dataplane->workers().size(); ++i) {
      FrameObserver* const given = on ? observer(i) : nullptr;
      dataplane->workers()[i]->read([given](Decider& decider, uint32_t) { decider.observe(given); });
    }
  }
  bool is_full() const {
    return std::any_of(captures.begin(), captures.end(), [](const auto& capture) { return capture->is_full(); });
  }
};

Watch::Watch(EventLoop& loop, const FlowHasher& hasher)
    : loop_(loop), hasher_(hasher), timer_(loop_, [this] { look(); }) {}

bool Watch::answer(const HttpExchangePtr& exchange, const Dataplane& dataplane, const BackendIds& backends,
                   const ServiceIds& services, bool punt_tap) {
  const HttpRequest& request = exchange->request();
  const bool reads = request.method == "GET";
  if (request.path == "/capture" && reads) {
    answer_capture(exchange, dataplane, backends);
  } else if (request.path == "/top" && reads) {
    answer_top(exchange, dataplane);
  } else if (request.path == "/events" && reads) {
    exchange->respond(answer_events(request, backends, services));
  } else if (request.path == "/pcap" && request.method == "POST") {
    exchange->respond(answer_pcap(request, dataplane, backends, punt_tap));
  } else {
    return false;
  }
  return true;
}

void Watch::answer_capture(const HttpExchangePtr& exchange, const Dataplane& dataplane, const BackendIds& backends) {
  const HttpRequest& request = exchange->request();
  const std::optional<QueryFault> fault =
      check_query(request.query, {QueryParameter::number("seconds", "most seconds", 1, kMaxCaptureSeconds),
                                  QueryParameter::number("packets", "most frames", 1, kMaxCapturePackets),
                                  QueryParameter::number("bytes", "most bytes kept", 1, kMaxCaptureBytes),
                                  QueryParameter::number("snap", "bytes of each frame", 14, UINT16_MAX),
                                  {"client", "an address or network at either end"},
                                  {"vip", "an address or network at either end"},
                                  QueryParameter::number("port", "of either end", 1, UINT16_MAX),
                                  {"protocol", "tcp or udp"},
                                  QueryParameter::boolean("dropped", "only frames that are dropped"),
                                  {"reason", "only frames dropped for it"}});
  if (fault) return exchange->respond(bad_watch_query(fault->detail));
  CaptureFilter filter;
  if (const std::string why = read_filter(request, filter); !why.empty()) {
    return exchange->respond(bad_watch_query(why));
  }
  CaptureBounds bounds;
  bounds.packets = number_or(request, "packets", bounds.packets);
  bounds.bytes = number_or(request, "bytes", bounds.bytes);
  bounds.snap_bytes = static_cast<uint32_t>(number_or(request, "snap", bounds.snap_bytes));
  auto running = std::make_shared<Running>();
  running->dataplane = &dataplane;
  for (size_t i = 0; i < dataplane.workers().size(); ++i) {
    running->captures.push_back(std::make_unique<Capture>(filter, bounds));
  }
  std::vector<std::string> ports;
  for (const Port& port : dataplane.ports()) ports.push_back(port.device());
  running->tell = [ports, names = backend_names(backends), bounds](const Running& done) {
    HttpResponse response = HttpResponse::text(200, pcapng_of(done.captures, ports, names, bounds));
    response.headers = {{"Content-Type", "application/x-pcapng"}};
    return response;
  };
  begin(std::move(running), exchange, number_or(request, "seconds", kUsualSeconds));
}

void Watch::answer_top(const HttpExchangePtr& exchange, const Dataplane& dataplane) {
  const HttpRequest& request = exchange->request();
  const std::optional<QueryFault> fault =
      check_query(request.query, {QueryParameter::number("seconds", "how long", 1, kMaxCaptureSeconds),
                                  QueryParameter::number("limit", "most entries", 1, kMostTop),
                                  QueryParameter::number("prefix_v4", "of a network of IPv4", 1, 32),
                                  QueryParameter::number("prefix_v6", "of a network of IPv6", 1, 128)});
  if (fault) return exchange->respond(bad_watch_query(fault->detail));
  const auto prefix_v4 = static_cast<uint8_t>(number_or(request, "prefix_v4", 32));
  const auto prefix_v6 = static_cast<uint8_t>(number_or(request, "prefix_v6", 64));
  const uint64_t seconds = number_or(request, "seconds", 1), limit = number_or(request, "limit", kUsualTop);
  auto running = std::make_shared<Running>();
  running->dataplane = &dataplane;
  for (size_t i = 0; i < dataplane.workers().size(); ++i) {
    running->tops.push_back(
        std::make_unique<TopSources>(hasher_.key(), prefix_mask(4, prefix_v4), prefix_mask(6, prefix_v6)));
  }
  const uint64_t began_ns = monotonic_ns();
  running->tell = [prefix_v4, prefix_v6, limit, began_ns](const Running& done) {
    std::vector<TopSource> sources = merge(done.tops);
    json out = json::array();
    for (size_t i = 0; i < std::min<size_t>(sources.size(), limit); ++i) {
      const TopSource& each = sources[i];
      const Cidr network = Cidr::of(address_of(each.network, each.family), each.family == 4 ? prefix_v4 : prefix_v6);
      out.push_back(
          {{"network", network.to_string()}, {"packets", each.packets}, {"bytes", each.bytes}, {"error", each.error}});
    }
    const double took_s = static_cast<double>(monotonic_ns() - began_ns) / static_cast<double>(kNsPerS);
    return HttpResponse::json(200, json{{"seconds", took_s}, {"top", std::move(out)}}.dump());
  };
  begin(std::move(running), exchange, seconds);
}

void Watch::begin(std::shared_ptr<Running> running, const HttpExchangePtr& exchange, uint64_t seconds) {
  if (running_) {
    return exchange->respond(HttpResponse::problem(409, "Conflict", "another capture or count is not at its end yet"));
  }
  running_ = std::move(running);
  running_->exchange = exchange;
  running_->until_ns = monotonic_ns() + seconds * kNsPerS;
  // A client that has gone gets no answer, but the workers must stop.
  exchange->on_close([this, weak = std::weak_ptr<Running>(running_)] {
    if (weak.lock() == running_ && running_) end();
  });
  running_->attach(true);
  timer_.arm_after_ms(kLookAgainMs);
}

void Watch::look() {
  if (!running_) return;
  if (running_->is_full() || monotonic_ns() >= running_->until_ns) return end();
  timer_.arm_after_ms(kLookAgainMs);
}

void Watch::end() {
  const std::shared_ptr<Running> done = std::move(running_);
  running_.reset();
  timer_.cancel();
  done->attach(false);
  done->exchange->respond(done->tell(*done));
}

void Watch::stop() {
  if (running_) end();
}

void Watch::collect_events(const Dataplane& dataplane) {
  if (dataplane.tables()->flow_events == 0) return;
  read_upto_.resize(dataplane.workers().size());
  std::vector<NewFlow> fresh;
  fresh.reserve(kMaxFlowEvents);  // so that the worker need not allocate
  for (uint32_t i = 0; i < dataplane.workers().size(); ++i) {
    fresh.clear();
    dataplane.workers()[i]->read([&](const Decider& decider, uint32_t) {
      read_upto_[i] = decider.flow_events().read(read_upto_[i], fresh, events_lost_);
    });
    for (const NewFlow& flow : fresh) events_.push_back({flow, i});
    next_event_ += fresh.size();
    while (events_.size() > kMaxFlowEvents) events_.pop_front();
  }
}

HttpResponse Watch::answer_events(const HttpRequest& request, const BackendIds& backends,
                                  const ServiceIds& services) const {
  if (const auto fault =
          check_query(request.query, {QueryParameter::number("from", "the `next` of the answer before")}))
    return bad_watch_query(fault->detail);
  const uint64_t first = next_event_ - events_.size();
  const uint64_t from = std::max(number_or(request, "from", 0), first);
  const std::vector<std::string> names = backend_names(backends);
  std::vector<std::string> service_names(kMaxServices);
  services.for_each([&](const std::string& service, ServiceId id) { service_names[index_of(id)] = service; });
  const auto now_ms = static_cast<uint32_t>(monotonic_ns() / kNsPerMs);
  json out = json::array();
  for (uint64_t at = from; at < next_event_; ++at) {
    const auto& [flow, worker] = events_[at - first];
    const FlowTuple& tuple = flow.tuple;
    out.push_back(
        {{"ms_ago", now_ms - flow.at_ms},
         {"worker", worker},
         {"client", Endpoint{address_of(tuple.client, tuple.family), ntohs(tuple.client_port_be)}.to_string()},
         {"vip", Endpoint{address_of(tuple.vip, tuple.family), ntohs(tuple.service_port_be)}.to_string()},
         {"protocol", tuple.protocol == kProtocolTcp ? "tcp" : "udp"},
         {"service", service_names[index_of(flow.service)]},
         {"backend", names[index_of(flow.backend)]},
         {"begun_here", flow.begun_here}});
  }
  return HttpResponse::json(200,
                            json{{"events", std::move(out)}, {"next", next_event_}, {"lost", events_lost_}}.dump());
}

HttpResponse Watch::answer_pcap(const HttpRequest& request, const Dataplane& dataplane, const BackendIds& backends,
                                bool punt_tap) const {
  if (const auto fault = check_query(request.query, {{"port", "by which the frames come in: its device"},
                                                     QueryParameter::boolean("to_us", "take them as sent to our MAC")}))
    return bad_watch_query(fault->detail);
  DryQuestion question;
  question.to_us = request.parameter("to_us").value_or("false") == "true";
  const std::vector<Port>& ports = dataplane.ports();
  if (const auto device = request.parameter("port")) {
    const auto found = std::find_if(ports.begin(), ports.end(), [&](const Port& p) { return p.device() == *device; });
    if (found == ports.end()) return bad_watch_query(fmt::format("no port {}", *device));
    question.port = static_cast<uint16_t>(found - ports.begin());
  }
  const Result<std::vector<CaptureRecord>> frames = read_capture(request.body, kMaxCapturePackets);
  if (!frames) return bad_watch_query(frames.error().message);
  DryWorld world;
  world.tables = dataplane.tables();
  world.config.hasher = hasher_;
  world.config.punt_tap = punt_tap;
  world.config.announces = false;
  world.config.flows = std::max<uint64_t>(4 * kMaxCapturePackets, 1'024);
  for (const Port& port : ports) {
    world.config.ports.push_back(port.identity());
    world.config.ports.back().mtu = port.mtu();
  }
  world.now_ms = static_cast<uint32_t>(monotonic_ns() / kNsPerMs);
  std::optional<size_t> next = 0;
  world.neighbours.reserve(2 * kMaxNeighbours);  // so that the worker need not allocate
  while (next) {
    dataplane.workers().front()->read([&](const Decider& decider, uint32_t) {
      next = decider.neighbours().list(*next, kHashesPerSlice, world.neighbours);
    });
  }
  world.find_flows = [&](const std::vector<uint64_t>& hashes) {
    std::vector<FlowEntry> flows;
    flows.reserve(hashes.size());
    for (const auto& worker : dataplane.workers()) {
      for (size_t at = 0; at < hashes.size(); at += kHashesPerSlice) {
        worker->read([&](Decider& decider, uint32_t now_ms) {
          for (size_t i = at; i < std::min(hashes.size(), at + kHashesPerSlice); ++i) {
            if (const std::optional<FlowEntry> flow = decider.flow(hashes[i], now_ms)) flows.push_back(*flow);
          }
        });
      }
    }
    return flows;
  };
  return HttpResponse::json(200, json{{"frames", explain_frames(world, backends, *frames, question)}}.dump());
}

}  // namespace tidegate::l4
