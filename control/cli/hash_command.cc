// SPDX-License-Identifier: Apache-2.0
// The command hash-lab: compares the ways to divide a table among the backends of a document's pools.

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "conf/document.h"
#include "conf/hashes.h"
#include "conf/model.h"
#include "conf/model/pool.h"
#include "conf/text.h"
#include "control/api/json_bounds.h"
#include "control/cli/cli.h"
#include "control/cli/output.h"

namespace tidegate::cli {
namespace {

using nlohmann::json;

struct HashLabOptions {
  std::string file, pool;
  uint32_t slots = 65'537;
};

// Any key shows the same properties. With a fixed key, two runs print the same numbers, except for the times.
constexpr HashKey kKey = {0x7469646567617465, 0x686173682d6c6162};

std::string percent(double fraction) { return fmt::format("{:.2f} %", fraction * 100); }

std::string size_text(size_t bytes) {
  return bytes < 1'024 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} kB", static_cast<double>(bytes) / 1'024);
}

json to_json(const HashReport& report) {
  return {{"hash", std::string(name(report.scheme))},
          {"share_error", report.share_error},
          {"add_moves", report.add_moves},
          {"remove_moves", report.remove_moves},
          {"weight_moves", report.weight_moves},
          {"build_us", static_cast<double>(report.build_ns) / 1e3},
          {"bytes", report.bytes}};
}

void print_pool(const std::string& pool, size_t backends, uint32_t slots, const std::vector<HashReport>& reports) {
  fmt::print("pool {}: {} backends with weight, {} slots\n", pool, backends, slots);
  Table table({"hash", "share error", "moved: add", "remove", "weight", "build", "memory"});
  for (const HashReport& report : reports) {
    table.add({std::string(name(report.scheme)), percent(report.share_error), percent(report.add_moves),
               percent(report.remove_moves), percent(report.weight_moves),
               fmt::format("{:.0f} us", static_cast<double>(report.build_ns) / 1e3), size_text(report.bytes)});
  }
  table.print();
}

void compare(Cli& cli, const HashLabOptions& options) {
  const LoadedFile loaded = load_file(options.file);
  if (!loaded.model) {
    fmt::print(stderr, "{}", render_faults(loaded.faults, loaded.text, stderr_is_terminal()));
    cli.exit_status = kRefused;
    return;
  }
  json pools = json::object();
  bool found = false;
  for (const Pool& pool : loaded.model->pools) {
    if (!options.pool.empty() && pool.name != options.pool) continue;
    found = true;
    std::vector<MaglevMember> members;
    for (const Backend& backend : pool.backends) {
      members.push_back({backend.name, backend.weight, static_cast<uint16_t>(members.size())});
    }
    const std::vector<HashReport> reports = compare_hashes(members, options.slots, kKey);
    if (reports.empty()) {
      if (!cli.json()) fmt::print("pool {}: fewer than two backends have weight: nothing to compare\n", pool.name);
      continue;
    }
    const auto weighted = std::count_if(members.begin(), members.end(), [](const auto& m) { return m.weight != 0; });
    if (!cli.json()) print_pool(pool.name, static_cast<size_t>(weighted), options.slots, reports);
    for (const HashReport& report : reports) pools[pool.name].push_back(to_json(report));
  }
  if (!found) {
    fmt::print(stderr, "refused: {} has no pool{}\n", options.file, options.pool.empty() ? "" : " " + options.pool);
    cli.exit_status = kRefused;
  } else if (cli.json()) {
    fmt::print("{}\n", dump({{"slots", options.slots}, {"pools", pools}}));
  } else {
    fmt::print(
        "moved: slots that changed their backend without need, when a backend is added, when one is removed, "
        "when one's weight is halved\n");
  }
}

}  // namespace

void add_hash_command(CLI::App& app, Cli& cli) {
  const auto options = std::make_shared<HashLabOptions>();
  CLI::App* command = add_command(app, "hash-lab", "Compare hashes over the backends of a document's pools",
                                  "tidegate hash-lab edge.yaml --pool web");
  command->add_option("file", options->file, "the document")->required();
  command->add_option("--pool", options->pool, "only this pool");
  command->add_option("--slots", options->slots, "slots of a table; a prime")
      ->check(CLI::Range(251, 1'048'573))
      ->check([](const std::string& text) {
        const uint64_t slots = std::strtoull(text.c_str(), nullptr, 10);
        for (uint64_t factor = 2; factor * factor <= slots; ++factor) {
          if (slots % factor == 0) return text + " is not a prime";
        }
        return std::string();
      })
      ->capture_default_str();
  command->callback([&cli, options] { compare(cli, *options); });
}

}  // namespace tidegate::cli
