// SPDX-License-Identifier: Apache-2.0
// Maglev, snapshots and the state store, with one change among 10,000 objects.
#include <benchmark/benchmark.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "conf/maglev.h"
#include "conf/maglev_change.h"
#include "conf/model.h"
#include "conf/model/pool.h"
#include "conf/snapshot.h"
#include "conf/state_store.h"
#include "core/crypto.h"

namespace tidegate {
namespace {

constexpr uint32_t kSlots = 65'537;
constexpr HashKey kKey{1, 2};

std::vector<std::string> names_of(int64_t count) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < count; ++i) names.push_back("backend-" + std::to_string(i));
  return names;
}

std::vector<MaglevMember> members_of(const std::vector<std::string>& names) {
  std::vector<MaglevMember> members;
  for (const std::string& name : names) members.push_back({name, 100, static_cast<uint16_t>(members.size())});
  return members;
}

void maglev_build(benchmark::State& state) {
  const std::vector<std::string> names = names_of(state.range(0));
  const std::vector<MaglevMember> members = members_of(names);
  for (auto _ : state) benchmark::DoNotOptimize(build_maglev(members, kSlots, kKey));
}
BENCHMARK(maglev_build)->Arg(1)->Arg(100)->Arg(1'000)->Arg(10'000)->Unit(benchmark::kMicrosecond);

// One member leaves, or comes back. Every other change is of the same kind.
void maglev_change(benchmark::State& state) {
  const std::vector<std::string> names = names_of(state.range(0));
  std::vector<MaglevMember> members = members_of(names);
  ChangingMaglev maglev;
  maglev.build(members, kSlots, kKey);
  size_t at = 0;
  for (auto _ : state) {
    at = (at + 7) % (members.size() * 2);
    members[at / 2].weight ^= 100;
    benchmark::DoNotOptimize(maglev.build(members, kSlots, kKey));
    state.PauseTiming();
    members[at / 2].weight ^= 100;
    maglev.build(members, kSlots, kKey);
    state.ResumeTiming();
  }
}
BENCHMARK(maglev_change)->Arg(1'000)->Arg(2'000)->Unit(benchmark::kMicrosecond);

void maglev_pick(benchmark::State& state) {
  const std::vector<std::string> names = names_of(state.range(0));
  const std::vector<uint16_t> table = build_maglev(members_of(names), kSlots, kKey);
  uint64_t hash = 1;
  for (auto _ : state) {
    hash = mix64(hash + 1);
    benchmark::DoNotOptimize(table[maglev_slot(hash, kSlots)]);
  }
}
BENCHMARK(maglev_pick)->Arg(1)->Arg(100)->Arg(10'000);

// One pool for every ten backends.
std::shared_ptr<const Model> model_of(int64_t backends) {
  auto model = std::make_shared<Model>();
  for (int64_t i = 0; i < backends; ++i) {
    if (i % 10 == 0) model->pools.emplace_back().name = "pool-" + std::to_string(i / 10);
    Backend& backend = model->pools.back().backends.emplace_back();
    backend.name = "backend-" + std::to_string(i);
  }
  return model;
}

void snapshot_after_a_word(benchmark::State& state) {
  const std::shared_ptr<const Model> model = model_of(state.range(0));
  auto words = std::make_shared<LiveState>();
  words->overrides[backend_key("pool-0", "backend-3")] = {OverrideState::drained, "ops", "", 0};
  for (auto _ : state) benchmark::DoNotOptimize(make_snapshot(1, "digest", model, words));
}
BENCHMARK(snapshot_after_a_word)->Arg(100)->Arg(10'000)->Unit(benchmark::kMicrosecond);

void commit_one_change(benchmark::State& state) {
  const auto directory = std::filesystem::temp_directory_path() / ("tidegate-micro-" + hex_encode(random_bytes(8)));
  std::filesystem::create_directories(directory);
  std::vector<ConfigObject> objects;
  for (int64_t i = 0; i < state.range(0); ++i) {
    const std::string name = "pool-" + std::to_string(i);
    objects.push_back({"pools", name, "{\"name\":\"" + name + "\",\"backends\":[{\"name\":\"a\",\"port\":80}]}"});
  }
  {
    const std::unique_ptr<StateStore> store = *StateStore::open(directory, StateStore::Mode::read_write);
    uint64_t version = 0;
    for (auto _ : state) {
      objects.front().bytes = "{\"name\":\"pool-0\",\"version\":" + std::to_string(version) + "}";
      const Result<Manifest> committed = store->commit_version(objects, version, "bench", "");
      if (!committed) {
        state.SkipWithError(committed.error().message.c_str());
        break;
      }
      version = committed->version;
    }
  }
  std::filesystem::remove_all(directory);
}
BENCHMARK(commit_one_change)->Arg(100)->Arg(10'000)->Unit(benchmark::kMicrosecond)->Iterations(100)->UseRealTime();

}  // namespace
}  // namespace tidegate
