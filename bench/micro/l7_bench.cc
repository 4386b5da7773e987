// SPDX-License-Identifier: Apache-2.0
// The choice of a route and of a backend, and the decision of a limit.
#include <benchmark/benchmark.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "conf/model.h"
#include "conf/model/pool.h"
#include "conf/model/route.h"
#include "l7/backend/pool.h"
#include "l7/exchange/conditions.h"
#include "l7/plan.h"
#include "l7/policy/limit_table.h"
#include "l7/policy/limiters.h"
#include "l7/policy/request_key.h"
#include "l7/policy/table_memory.h"
#include "l7/route/router.h"
#include "l7/wire/arena.h"

namespace tidegate::l7 {
namespace {

constexpr HashKey kKey{1, 2};

// One host for every ten routes. Half of the routes have a parameter.
void route_lookup(benchmark::State& state) {
  const auto routes = static_cast<size_t>(state.range(0));
  auto model = std::make_shared<Model>();
  std::vector<std::pair<std::string, std::string>> asked;
  for (size_t i = 0; i < routes; ++i) {
    const std::string host = "h" + std::to_string(i / 10) + ".example.test";
    const std::string head = "/api/v" + std::to_string(i % 10) + "/items";
    Route& route = model->routes.emplace_back();
    route.name = "r" + std::to_string(i);
    route.hosts = {host};
    route.path = i % 2 == 0 ? head : head + "/{id}/details";
    asked.emplace_back(host, i % 2 == 0 ? head : head + "/4711/details");
  }
  const Router router(model, kKey);
  RouteParameters parameters;
  size_t next = 0;
  for (auto _ : state) {
    const auto& [host, path] = asked[next];
    const RouteMatch match = router.match(0, "GET", host, path, parameters);
    if (match.route != next) state.SkipWithError("another route");
    next = (next + 7'919) % routes;
  }
}
BENCHMARK(route_lookup)->Arg(10)->Arg(1'000)->Arg(100'000);

// Routes with regular expressions at one host and path. A request that matches only the last one tries them all.
void route_by_regex(benchmark::State& state) {
  const auto routes = static_cast<size_t>(state.range(0));
  auto model = std::make_shared<Model>();
  for (size_t i = 0; i < routes; ++i) {
    Route& route = model->routes.emplace_back();
    route.name = "r" + std::to_string(i);
    route.match.path_regex = "/shop-" + std::to_string(i) + "/items/[0-9]+";
    route.priority = static_cast<uint32_t>(routes - i);
  }
  const Router router(model, kKey);
  const RequestHead request;
  const RequestConditions judge(request, "192.0.2.1");
  const std::string path = "/shop-" + std::to_string(routes - 1) + "/items/4711";
  RouteParameters parameters;
  for (auto _ : state) {
    const RouteMatch match = router.match(0, "GET", "www.example.test", path, parameters, &judge);
    if (match.route != routes - 1) state.SkipWithError("another route");
  }
}
BENCHMARK(route_by_regex)->Arg(1)->Arg(256);

// The pages of a table: as a process makes it for itself, where the kernel may give huge pages; or behind a descriptor,
// as the daemon has it (huge only if the system's shmem_enabled says so).
enum : int64_t { kOwnPages, kSharedPages };

std::shared_ptr<policy::TableMemory> table_memory(size_t keys, int64_t pages) {
  return policy::TableMemory::make(pages == kSharedPages ? "bench" : "", 0, policy::LimitTable::bytes_for(keys));
}

// A limit by client, with so many clients in turn, all of them known.
class LimitLoad {
 public:
  explicit LimitLoad(size_t keys, int64_t pages = kOwnPages)
      : keys_(keys), step_(7'919 % keys), table_(table_memory(keys, pages)) {}
  void next() {
    for (size_t i = 0; i < 3; ++i) address_.bytes[i + 1] = static_cast<uint8_t>(next_ >> 8 * i);
    next_ += step_;
    if (next_ >= keys_) next_ -= keys_;
    now_ns_ += 100;
  }
  void foresee() { table_.foresee(key_.of_client(address_)); }
  // The key, its place in the table, the bucket.
  void decide() {
    std::atomic<uint64_t>& slot = table_.find_or_add(key_.of(subject_, address_, arena_), now_ns_, [](uint64_t word) {
      return policy::RequestBucket::free_at_ns(word);
    });
    uint64_t before = slot.load(std::memory_order_relaxed);
    for (;;) {
      const policy::Allowance allowance = bucket_.take(before, now_ns_);
      benchmark::DoNotOptimize(allowance);
      if (!allowance.allowed || slot.compare_exchange_weak(before, allowance.state)) break;
    }
  }

 private:
  const size_t keys_, step_;
  const policy::RequestKey key_{{*parse_limit_by("client")}, 32, 64, kKey};
  policy::LimitTable table_;
  const policy::RequestBucket bucket_{1'000'000'000, 100};  // slow: every key stays in use
  const RequestHead request_;
  const policy::Subject subject_{request_, "192.0.2.1", "r"};
  IpAddress address_ = *IpAddress::parse("10.0.0.0");
  Arena arena_;
  uint64_t now_ns_ = 1'000'000'000;
  size_t next_ = 0;
};

void limit_decision(benchmark::State& state) {
  const auto keys = static_cast<size_t>(state.range(0));
  LimitLoad load(keys, state.range(1));
  for (size_t i = 0; i < keys; ++i) load.next(), load.decide();  // all are there: the table's pages too
  for (auto _ : state) {
    load.next();
    load.decide();
  }
}
BENCHMARK(limit_decision)->Args({1'000, kOwnPages})->Args({1'000'000, kOwnPages})->Args({1'000'000, kSharedPages});

// The floor of a decision: one word somewhere in the memory of such a table is read, and changed by compare-and-swap.
// No key, no hash, no search: what is left is this machine's memory. Each place depends on the word that was read
// before it, as requests come one after the other.
void limit_memory(benchmark::State& state) {
  const std::shared_ptr<policy::TableMemory> memory = table_memory(static_cast<size_t>(state.range(0)), state.range(1));
  constexpr size_t kLineWords = 64 / sizeof(uint64_t);
  const size_t lines = memory->bytes() / 64;  // a power of two
  auto* const words = static_cast<std::atomic<uint64_t>*>(memory->data());
  for (size_t i = 0; i < lines; ++i) words[i * kLineWords].store(1);
  uint64_t at = 1;
  for (auto _ : state) {
    std::atomic<uint64_t>& word = words[(at >> 32 & (lines - 1)) * kLineWords];
    uint64_t before = word.load(std::memory_order_relaxed);
    at = at * 6'364'136'223'846'793'005 + before;  // Knuth's generator, if words are odd
    word.compare_exchange_weak(before, before + 2);
  }
}
BENCHMARK(limit_memory)->Args({1'000'000, kOwnPages})->Args({1'000'000, kSharedPages});

// What a limit by client adds to a request when it holds on every route: its memory is fetched while the route is
// looked up, as Transaction::route does. Without it (the second argument is 0) the rest alone is measured; the
// difference is what the limit costs.
void limit_beside_route(benchmark::State& state) {
  const auto keys = static_cast<size_t>(state.range(0));
  const bool limits = state.range(1) != 0;
  constexpr size_t kRoutes = 1'000;
  auto model = std::make_shared<Model>();
  std::vector<std::string> hosts;
  for (size_t i = 0; i < kRoutes; ++i) {
    Route& route = model->routes.emplace_back();
    route.name = "r" + std::to_string(i);
    route.hosts = {hosts.emplace_back("h" + std::to_string(i) + ".example.test")};
    route.path = "/api/v1/items";
  }
  const Router router(model, kKey);
  LimitLoad load(keys);
  for (size_t i = 0; i < keys; ++i) load.next(), load.decide();
  RouteParameters parameters;
  size_t host = 0;
  for (auto _ : state) {
    load.next();
    if (limits) load.foresee();
    const RouteMatch match = router.match(0, "GET", hosts[host], "/api/v1/items", parameters);
    if (match.route != host) state.SkipWithError("another route");
    host = (host + 79) % kRoutes;
    if (limits) load.decide();
  }
}
BENCHMARK(limit_beside_route)->Args({1'000'000, 0})->Args({1'000'000, 1})->Args({1'000, 0})->Args({1'000, 1});

// One pool, with so many backends.
std::shared_ptr<const Snapshot> snapshot_of_pool(PoolPolicy policy, int64_t backends, const PoolBreaker& breaker) {
  auto model = std::make_shared<Model>();
  Pool& config = model->pools.emplace_back();
  config.name = "pool";
  config.policy = policy;
  config.breaker = breaker;
  for (int64_t i = 0; i < backends; ++i) {
    Backend& backend = config.backends.emplace_back();
    backend.name = "b" + std::to_string(i);
    backend.addresses = {*IpAddress::parse("192.0.2.1")};
  }
  return make_snapshot(1, "digest", model, std::make_shared<const LiveState>());
}

void choose_backend(benchmark::State& state, PoolPolicy policy) {
  const auto snapshot = snapshot_of_pool(policy, state.range(0), {});
  RuntimeRegistry registry;
  const BackendPool pool(*snapshot, 0, registry, kKey);
  uint64_t random = 1;
  for (auto _ : state) {
    random = mix64(random + 1);
    const BackendPool::Question question{.hash = random, .random = random, .now_ns = 1};
    if (pool.choose(question).member == nullptr) state.SkipWithError("no backend");
  }
}
BENCHMARK_CAPTURE(choose_backend, weighted_round_robin, PoolPolicy::weighted_round_robin)->Arg(3)->Arg(1'000);
BENCHMARK_CAPTURE(choose_backend, least_requests, PoolPolicy::least_requests)->Arg(3)->Arg(1'000);
BENCHMARK_CAPTURE(choose_backend, consistent_hash, PoolPolicy::consistent_hash)->Arg(3)->Arg(1'000);
BENCHMARK_CAPTURE(choose_backend, ring_hash, PoolPolicy::ring_hash)->Arg(3)->Arg(1'000);
BENCHMARK_CAPTURE(choose_backend, random_of_two, PoolPolicy::random_of_two)->Arg(3)->Arg(1'000);
BENCHMARK_CAPTURE(choose_backend, peak_ewma, PoolPolicy::peak_ewma)->Arg(3)->Arg(1'000);

// A version in which one of so many pools changed, until its plan is there. Each pool has four backends.
void change_of_one_pool(benchmark::State& state) {
  auto model = std::make_shared<Model>();
  model->nodes.emplace_back().name = "box";
  for (int64_t i = 0; i < state.range(0); ++i) {
    Pool& pool = model->pools.emplace_back();
    pool.name = "pool" + std::to_string(i);
    for (const char* name : {"a", "b", "c", "d"}) {
      Backend& backend = pool.backends.emplace_back();
      backend.name = name;
      backend.addresses = {*IpAddress::parse("192.0.2.1")};
    }
  }
  RuntimeRegistry registry;
  policy::Registry policies;
  const auto live_state = std::make_shared<const LiveState>();
  std::shared_ptr<const Plan> plan;
  for (auto _ : state) {
    state.PauseTiming();
    auto next = std::make_shared<Model>(*model);
    next->pools[7].backends[0].weight = 1 + (model->pools[7].backends[0].weight + 1) % 100;
    model = next;
    const auto snapshot = make_snapshot(1, "digest", model, live_state);
    state.ResumeTiming();
    plan = attach(*describe({snapshot, 0, kKey, kKey}, plan.get()), plan.get(), registry, policies);
  }
}
BENCHMARK(change_of_one_pool)->Arg(10)->Arg(10'000)->Unit(benchmark::kMicrosecond);

// A request that a closed breaker lets through, and its result.
void breaker(benchmark::State& state) {
  Breaker breaker;
  const PoolBreaker config{.enabled = true, .slow_ms = 100};
  uint64_t now_ns = 1;
  for (auto _ : state) {
    now_ns += 10'000;
    const Breaker::Permit permit = breaker.ask(now_ns, config);
    benchmark::DoNotOptimize(breaker.settle(permit, Breaker::Result::good, now_ns, config));
  }
}
BENCHMARK(breaker);

// The cost of both for a request: a choice among backends that each have a breaker, its permit and its result.
void choose_behind_breakers(benchmark::State& state, PoolPolicy policy) {
  const PoolBreaker config{.enabled = true, .slow_ms = 100};
  const auto snapshot = snapshot_of_pool(policy, state.range(0), config);
  RuntimeRegistry registry;
  const BackendPool pool(*snapshot, 0, registry, kKey);
  uint64_t random = 1, now_ns = 1;
  for (auto _ : state) {
    random = mix64(random + 1);
    now_ns += 10'000;
    const PoolMember* const member = pool.choose({.hash = random, .random = random, .now_ns = now_ns}).member;
    const Breaker::Permit permit = member->breaker->ask(now_ns, config);
    if (!permit.granted) state.SkipWithError("no permit");
    benchmark::DoNotOptimize(member->breaker->settle(permit, Breaker::Result::good, now_ns, config));
  }
}
BENCHMARK_CAPTURE(choose_behind_breakers, weighted_round_robin, PoolPolicy::weighted_round_robin)->Arg(3)->Arg(1'000);
BENCHMARK_CAPTURE(choose_behind_breakers, least_requests, PoolPolicy::least_requests)->Arg(3)->Arg(1'000);
BENCHMARK_CAPTURE(choose_behind_breakers, random_of_two, PoolPolicy::random_of_two)->Arg(3)->Arg(1'000);
BENCHMARK_CAPTURE(choose_behind_breakers, consistent_hash, PoolPolicy::consistent_hash)->Arg(3)->Arg(1'000);

}  // namespace
}  // namespace tidegate::l7
