// SPDX-License-Identifier: Apache-2.0
// The cache's key and policy, and a hit in memory and on disk.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "cache/cache.h"
#include "cache/policy/key.h"
#include "cache/policy/policy.h"
#include "conf/model/route.h"

namespace tidegate::cache {
namespace {

const std::vector<http1::Field> kRequestFields{{"host", "www.example.test"}, {"accept", "*/*"}};
const std::vector<http1::Field> kResponseFields{{"content-type", "text/css"},
                                                {"cache-control", "public, max-age=3600"},
                                                {"etag", "\"v1\""},
                                                {"vary", "accept-encoding"}};
constexpr uint64_t kNowMs = 1'800'000'000'000;

RequestView request(std::string_view path) {
  return {"GET", "https", "www.example.test", path, "v=3&lang=en", kRequestFields};
}
RouteCache enabled() {
  RouteCache policy;
  policy.enabled = true;
  return policy;
}

void cache_key(benchmark::State& state) {
  const HashKeys keys{{1, 2}, {3, 4}};
  const RouteCache policy = enabled();
  std::string key;
  for (auto _ : state) {
    make_key(request("/static/css/site.css"), policy, key);
    benchmark::DoNotOptimize(hash_key(keys, key));
  }
}
BENCHMARK(cache_key);

void may_be_stored(benchmark::State& state) {
  const RouteCache policy = enabled();
  const ResponseView response{200, kResponseFields, kNowMs, kNowMs, 1'000};
  for (auto _ : state) benchmark::DoNotOptimize(decide_store(request("/a"), response, policy));
}
BENCHMARK(may_be_stored);

void may_be_used(benchmark::State& state) {
  const Freshness freshness{kNowMs - 1'000, 3'600'000};
  for (auto _ : state) {
    benchmark::DoNotOptimize(decide_use(freshness, request_control(kRequestFields), false, kNowMs));
  }
}
BENCHMARK(may_be_used);

std::vector<std::string> store_objects(Cache& cache, EventLoop& loop, size_t objects) {
  const RouteCache policy = enabled();
  std::vector<std::string> paths;
  for (size_t i = 0; i < objects; ++i) {
    paths.push_back("/object/" + std::to_string(i));
    Lookup leader = cache.lookup(request(paths.back()), policy, kNowMs, loop, {});
    const ResponseView response{200, kResponseFields, kNowMs, kNowMs, 1'000};
    if (leader.outcome != LookupOutcome::fetch ||
        leader.fill.on_head(response, kNowMs).kind != FillDecision::Kind::store)
      return {};
    leader.fill.append(std::string(1'000, 'b'));
    leader.fill.finish();
  }
  return paths;
}

void lookup_in_memory(benchmark::State& state) {
  const RouteCache policy = enabled();
  Metrics metrics;
  Options options;  // no directory: memory only
  options.ram_bytes = uint64_t{1} << 30;
  const std::unique_ptr<Cache> cache = *Cache::open(options, metrics);
  EventLoop loop;
  const std::vector<std::string> paths = store_objects(*cache, loop, static_cast<size_t>(state.range(0)));
  if (paths.empty()) state.SkipWithError("not stored");
  size_t next = 0;
  for (auto _ : state) {
    const Lookup found = cache->lookup(request(paths[next]), policy, kNowMs + 1, loop, {});
    if (found.outcome != LookupOutcome::hit) state.SkipWithError("no hit");
    next = (next + 7'919) % paths.size();
  }
}
BENCHMARK(lookup_in_memory)->Arg(100)->Arg(100'000);

// With disk only, from the page cache: the cost of a hit without RAM.
void lookup_on_disk(benchmark::State& state) {
  const RouteCache policy = enabled();
  std::string directory = "/tmp/tidegate-micro-XXXXXX";
  if (::mkdtemp(directory.data()) == nullptr) return state.SkipWithError("no directory");
  {
    Metrics metrics;
    Options options;
    options.directory = directory;
    options.ram_bytes = 0;
    const std::unique_ptr<Cache> cache = *Cache::open(options, metrics);
    EventLoop loop;
    const std::vector<std::string> paths = store_objects(*cache, loop, static_cast<size_t>(state.range(0)));
    if (paths.empty()) state.SkipWithError("not stored");
    cache->flush();
    for (const std::string& path : paths) {  // the reader threads answer these and note where each object lies
      bool read = false;
      const Lookup found =
          cache->lookup(request(path), policy, kNowMs + 1, loop, [&read](const Lookup&) { read = true; });
      while (found.outcome == LookupOutcome::wait && !read) loop.run_once(1'000'000'000);
    }
    size_t next = 0;
    for (auto _ : state) {
      loop.run_once(0);
      const Lookup found = cache->lookup(request(paths[next]), policy, kNowMs + 1, loop, {});
      if (found.outcome != LookupOutcome::hit) state.SkipWithError("no hit");
      next = (next + 7'919) % paths.size();
    }
  }
  std::filesystem::remove_all(directory);
}
BENCHMARK(lookup_on_disk)->Arg(1'000);

}  // namespace
}  // namespace tidegate::cache
