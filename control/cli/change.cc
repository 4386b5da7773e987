// SPDX-License-Identifier: Apache-2.0
#include "control/cli/change.h"

#include <fmt/format.h>

#include <cstdio>
#include <map>

#include "control/api/json_bounds.h"
#include "control/cli/output.h"
#include "control/cli/wait.h"

namespace tidegate::cli {

using nlohmann::json;

void add_change_options(CLI::App* command, ChangeOptions& options) {
  command->add_flag("--dry-run", options.dry_run, "say what would change, change nothing");
  command->add_flag("--wait", options.wait, "return when every plane that can be reached has applied it");
  command->add_option("--comment", options.comment, "kept with the version");
  command->add_flag("--allow-restart", options.allow_restart,
                    "also change what planes take up only when they start again");
  command
      ->add_option("--confirm", options.confirm_ms,
                   "go back to the version before unless `tidegate confirm` comes within this time: 60s, 5m")
      ->transform(CLI::AsNumberWithUnit(std::map<std::string, uint64_t>{{"ms", 1}, {"s", 1'000}, {"m", 60'000}}));
  command->add_option("--require", options.require, "whose yes it takes: every plane's that answers, or every plane's")
      ->check(CLI::IsMember({"reachable", "all"}))
      ->capture_default_str();
}

std::string change_query(const ChangeOptions& options) {
  return query({{"dry_run", options.dry_run ? "true" : ""},
                {"comment", options.comment},
                {"confirm", options.confirm_ms == 0 ? "" : fmt::format("{}", options.confirm_ms)},
                {"allow_restart", options.allow_restart ? "true" : ""},
                {"require_all", options.require == "all" ? "true" : ""}});
}

void add_if_match(CLI::App* command, ChangeOptions& options) {
  command->add_option("--if-match", options.if_match,
                      "only over this version: its number, its digest or the beginning of that, or an ETag");
}

namespace {

// Names the planes that did not vote: the version comes to them later.
void print_absent(const json& answer) {
  for (const json& vote : answer.value("votes", json::array())) {
    const std::string said = string_member(vote, "vote");
    if (said == "yes") continue;
    const std::string plane = string_member(vote, "plane");
    fmt::print("  {}\n", paint(fmt::format("{} {}{}: {}",
                                           said == "old" ? "not asked:" : "behind:   ", string_member(vote, "node"),
                                           plane.empty() ? "" : "/" + plane, string_member(vote, "why")),
                               Tone::bad));
  }
}

}  // namespace

void print_outcome(Cli& cli, const json& answer, const ChangeOptions& options) {
  if (cli.json()) {
    fmt::print("{}\n", dump(answer));
  } else {
    const std::string outcome = string_member(answer, "outcome");
    const json changes = changes_for_people(answer);
    if (outcome == "unchanged") {
      fmt::print("unchanged: version {} is this configuration already\n", number_member(answer, "version"));
    } else if (outcome == "dry_run") {
      fmt::print("dry run, nothing changed: {} object{} would\n", changes.size(), changes.size() == 1 ? "" : "s");
    } else {
      fmt::print("version {}: {} object{} changed\n", number_member(answer, "version"), changes.size(),
                 changes.size() == 1 ? "" : "s");
    }
    for (const json& change : changes) {
      const std::string what = string_member(change, "change");
      const Tone tone = what == "added" ? Tone::good : what == "removed" ? Tone::bad : Tone::plain;
      fmt::print(
          "  {}\n",
          paint(fmt::format("{:<8} {} {}", what, string_member(change, "kind"), string_member(change, "name")), tone));
    }
    print_absent(answer);
    if (options.confirm_ms != 0 && outcome == "committed") {
      const uint64_t version = number_member(answer, "version");
      fmt::print("  provisional: `tidegate confirm {}` within {} s keeps it\n", version, options.confirm_ms / 1'000);
    }
  }
  if (options.wait && !options.dry_run) wait_until_applied(cli, number_member(answer, "version"), 0);
}

std::optional<std::string> entity_tag_for(Cli& cli, const std::string& text) {
  constexpr size_t kShortestDigest = 8, kDigest = 64;
  if (text == "*" || text.starts_with('"') || text.starts_with("W/")) return text;
  const std::string digest = text.substr(0, text.find('.'));
  const bool hex = digest.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (hex && digest.size() == kDigest) return '"' + digest + '"';
  ApiRequest request;
  request.target = "/v1/versions?limit=1000";
  const std::optional<json> answer = call(cli, std::move(request));
  if (!answer) return std::nullopt;
  std::string found;
  for (const json& version : answer->value("versions", json::array())) {
    const std::string known = string_member(version, "digest");
    const bool meant = fmt::format("{}", number_member(version, "version")) == text ||
                       (hex && digest.size() >= kShortestDigest && known.starts_with(digest));
    if (meant && found.empty()) found = known;
  }
  if (!found.empty()) return '"' + found + '"';
  fmt::print(stderr, "refused: --if-match {}: no version has this number or digest\n", text);
  cli.exit_status = kRefused;
  return std::nullopt;
}

}  // namespace tidegate::cli
