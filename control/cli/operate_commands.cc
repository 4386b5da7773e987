// SPDX-License-Identifier: Apache-2.0
// The commands of operation: drain undrain quota purge.

#include <fmt/format.h>

#include <cstdio>
#include <optional>

#include "control/api/json_bounds.h"
#include "control/cli/cli.h"
#include "control/cli/output.h"
#include "control/cli/wait.h"
#include "core/percent.h"

namespace tidegate::cli {

namespace {

using nlohmann::json;

struct DrainArguments {
  std::string kind, name, note;
  bool down = false, up = false, wait = false;
};

// Returns "/v1/admin/backend/origins/origin1". If the name does not fit the kind, sets exit status 2 and returns
// nothing.
std::optional<std::string> drain_path(Cli& cli, const DrainArguments& arguments) {
  const size_t slash = arguments.name.find('/');
  const bool is_backend = arguments.kind == "backend";
  if (is_backend || arguments.kind == "target" || arguments.kind == "plane") {
    if (slash != std::string::npos && slash != 0 && slash + 1 != arguments.name.size()) {
      return fmt::format("/v1/admin/{}/{}/{}", arguments.kind, percent_encode(arguments.name.substr(0, slash)),
                         percent_encode(arguments.name.substr(slash + 1)));
    }
    fmt::print(stderr, "tidegate: a {}\n",
               is_backend                  ? "backend is named POOL/NAME, as in origins/origin1"
               : arguments.kind == "plane" ? "plane is named NODE/PLANE, as in edge1/l4"
                                           : "target is named STEER/TYPE:NAME, as in www.example.com/vip:eu");
    cli.exit_status = kMisuse;
    return std::nullopt;
  }
  return fmt::format("/v1/admin/{}/{}", arguments.kind, percent_encode(arguments.name));
}

// Prints the answer of the API if JSON was asked for, and otherwise the sentence.
void print_answer(Cli& cli, const json& answer, std::string_view sentence) {
  if (cli.json()) {
    fmt::print("{}\n", dump(answer));
  } else {
    fmt::print("{}\n", sentence);
  }
}

void print_drained(Cli& cli, const json& answer, const DrainArguments& arguments, std::string_view what) {
  print_answer(cli, answer, fmt::format("{} {} {}", arguments.kind, arguments.name, what));
  if (arguments.wait) wait_until_applied(cli, 0, number_member(answer, "words"));
}

void drain(Cli& cli, const DrainArguments& arguments) {
  if (arguments.up && (arguments.kind != "plane" || arguments.down)) {
    fmt::print(stderr, "tidegate: --up is for planes, without --down\n");
    cli.exit_status = kMisuse;
    return;
  }
  const std::optional<std::string> path = drain_path(cli, arguments);
  if (!path) return;
  ApiRequest request;
  request.method = "PUT";
  request.target = *path;
  request.content_type = "application/json";
  request.body = dump({{"state", arguments.up ? "up" : arguments.down ? "down" : "drained"}, {"note", arguments.note}});
  const std::optional<json> answer = call(cli, std::move(request));
  if (answer)
    print_drained(cli, *answer, arguments,
                  arguments.up ? "is kept in service, whatever control finds"
                  : arguments.kind == "site" || arguments.kind == "vip" || arguments.kind == "target"
                      ? "is drained: DNS leads no new client there"
                  : arguments.down ? "is taken down: nothing goes there, and what runs there ends"
                                   : "is drained: no new work goes there");
}

void undrain(Cli& cli, const DrainArguments& arguments) {
  const std::optional<std::string> path = drain_path(cli, arguments);
  if (!path) return;
  ApiRequest request;
  request.method = "DELETE";
  request.target = *path;
  const std::optional<json> answer = call(cli, std::move(request));
  if (answer) print_drained(cli, *answer, arguments, "is in service again");
}

struct QuotaArguments {
  std::string policy, note;
  uint64_t requests = 0;
  std::optional<uint64_t> burst;
  bool as_configured = false, wait = false;
};

void quota(Cli& cli, const QuotaArguments& arguments) {
  if (arguments.as_configured == (arguments.requests != 0) || (arguments.as_configured && arguments.burst)) {
    fmt::print(stderr, "tidegate: quota takes either --requests, maybe with --burst, or --as-configured\n");
    cli.exit_status = kMisuse;
    return;
  }
  ApiRequest request;
  request.method = arguments.as_configured ? "DELETE" : "PUT";
  request.target = "/v1/admin/limit/" + percent_encode(arguments.policy);
  if (!arguments.as_configured) {
    json body = {{"requests", arguments.requests}, {"note", arguments.note}};
    if (arguments.burst) body["burst"] = *arguments.burst;
    request.content_type = "application/json";
    request.body = dump(body);
  }
  const std::optional<json> answer = call(cli, std::move(request));
  if (!answer) return;
  print_answer(
      cli, *answer,
      arguments.as_configured
          ? fmt::format("policy {} has the quota of the configuration again", arguments.policy)
          : fmt::format("policy {} allows {} requests in the time of its limit", arguments.policy, arguments.requests));
  if (arguments.wait) wait_until_applied(cli, 0, number_member(*answer, "words"));
}

struct PurgeArguments {
  std::string url, tag;
  bool all = false, soft = false, wait = false;
};

void purge(Cli& cli, const PurgeArguments& arguments) {
  json body = {{"soft", arguments.soft}};
  if (!arguments.url.empty()) body["url"] = arguments.url;
  if (!arguments.tag.empty()) body["tag"] = arguments.tag;
  if (arguments.all) body["all"] = true;
  if (body.size() != 2) {
    fmt::print(stderr, "tidegate: purge takes exactly one of URL, --tag TAG and --all\n");
    cli.exit_status = kMisuse;
    return;
  }
  ApiRequest request;
  request.method = "POST";
  request.target = arguments.wait ? "/v1/purge?wait=true" : "/v1/purge";
  request.content_type = "application/json";
  request.body = dump(body);
  const std::optional<json> answer = call(cli, std::move(request));
  if (!answer) return;
  const std::string what = arguments.all           ? "everything"
                           : arguments.url.empty() ? "tag " + arguments.tag
                                                   : arguments.url;
  print_answer(
      cli, *answer,
      fmt::format("purge {}: {}{}", number_member(*answer, "sequence"), what, arguments.soft ? ", kept as stale" : ""));
  if (arguments.wait) print_applied(cli, *answer);
}

}  // namespace

void add_operate_commands(CLI::App& app, Cli& cli) {
  const auto word = std::make_shared<DrainArguments>();
  for (const bool draining : {true, false}) {
    CLI::App* command =
        draining
            ? add_command(
                  app, "drain",
                  "Give a backend, pool, site, VIP, DNS target or plane no new work; what runs there ends in peace",
                  "tidegate drain backend origins/origin1 --note \"kernel upgrade\" --wait")
            : add_command(app, "undrain", "Put what was drained back into service",
                          "tidegate undrain backend origins/origin1");
    command->add_option("KIND", word->kind, "backend, pool, site, vip, target or plane")
        ->required()
        ->check(CLI::IsMember({"backend", "pool", "site", "vip", "target", "plane"}));
    command
        ->add_option("NAME", word->name,
                     "POOL/NAME of a backend, STEER/TYPE:NAME of a steer's target, NODE/PLANE, or the name")
        ->required();
    command->add_flag("--wait", word->wait, "return when every plane that can be reached has applied it");
    if (draining) {
      command->add_option("--note", word->note, "why, for those who come after");
      command->add_flag("--down", word->down,
                        "end what runs there too, within a second (a site, VIP or target is drained, with or without)");
      command->add_flag("--up", word->up, "of a plane: keep it in service, whatever control finds");
    }
    command->callback([&cli, word, draining] { draining ? drain(cli, *word) : undrain(cli, *word); });
  }

  const auto changed = std::make_shared<QuotaArguments>();
  CLI::App* command = add_command(app, "quota", "Change the quota of a policy's limit at once, without a version",
                                  "tidegate quota partners --requests 500 --note \"a campaign\" --wait");
  command->add_option("POLICY", changed->policy)->required();
  command->add_option("--requests", changed->requests, "how many are allowed in the time of the policy's `per`")
      ->check(CLI::PositiveNumber);
  command->add_option("--burst", changed->burst, "of a token bucket: how many at once; else as many as --requests");
  command->add_flag("--as-configured", changed->as_configured, "the quota of the configuration holds again");
  command->add_option("--note", changed->note, "why, for those who come after");
  command->add_flag("--wait", changed->wait, "return when every plane that can be reached has applied it");
  command->callback([&cli, changed] { quota(cli, *changed); });

  const auto arguments = std::make_shared<PurgeArguments>();
  command = add_command(app, "purge", "Remove a URL, a tag or everything from every cache of the edge",
                        "tidegate purge https://www.example.com/logo.png --wait");
  command->add_option("URL", arguments->url);
  command->add_option("--tag", arguments->tag, "everything that carries this cache tag");
  command->add_flag("--all", arguments->all, "everything");
  command->add_flag("--soft", arguments->soft, "mark stale instead: served on while it is fetched anew");
  command->add_flag("--wait", arguments->wait, "return when every cache that can be reached has done it");
  command->callback([&cli, arguments] { purge(cli, *arguments); });
}

}  // namespace tidegate::cli
