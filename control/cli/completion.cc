// SPDX-License-Identifier: Apache-2.0
#include "control/cli/completion.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "conf/fields.h"
#include "control/api/json_bounds.h"
#include "control/cli/output.h"

namespace tidegate::cli {
namespace {

using nlohmann::json;

// The user's typing must not wait for a control that is far away or gone.
constexpr uint64_t kPatienceMs = 1'000;

constexpr const char* kBash = R"sh(_tidegate() {
  local IFS=$'\n'
  COMPREPLY=($(tidegate __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o bashdefault -o default -F _tidegate tidegate
)sh";
constexpr const char* kZsh = R"sh(#compdef tidegate
_tidegate() {
  local -a found
  found=(${(f)"$(tidegate __complete "${(@)words[2,CURRENT]}" 2>/dev/null)"})
  if (( $#found )); then compadd -a found; else _files; fi
}
if [ "$funcstack[1]" = _tidegate ]; then _tidegate "$@"; else compdef _tidegate tidegate; fi
)sh";

const CLI::App* command_named(const CLI::App& app, const std::string& name) {
  for (const CLI::App* command : app.get_subcommands({})) {
    if (command->get_name() == name) return command;
  }
  return nullptr;
}

const CLI::Option* option_named(const CLI::App& app, const CLI::App* command, const std::string& word) {
  const CLI::Option* option = command != nullptr ? command->get_option_no_throw(word) : nullptr;
  return option != nullptr ? option : app.get_option_no_throw(word);
}

// The parsed words before the cursor.
struct Line {
  const CLI::App* command = nullptr;
  std::vector<std::string> operands;    // operands of the command
  const CLI::Option* option = nullptr;  // the option whose value is at the cursor
};
Line read(const CLI::App& app, const std::vector<std::string>& words) {
  Line line;
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    const std::string& word = words[i];
    if (std::exchange(line.option, nullptr) != nullptr) continue;  // this word is the option's value
    if (word.starts_with("-")) {
      const CLI::Option* option = option_named(app, line.command, word);
      if (option != nullptr && option->get_expected_min() > 0) line.option = option;
    } else if (line.command == nullptr) {
      line.command = command_named(app, word);
    } else {
      line.operands.push_back(word);
    }
  }
  return line;
}

void append_options(const CLI::App& of, std::vector<std::string>& out) {
  for (const CLI::Option* option : of.get_options()) {
    for (const std::string& name : option->get_lnames()) out.push_back("--" + name);
  }
}

// The words that are allowed here, as `--help` shows them: "{bash,zsh}". Empty: others are, too.
std::vector<std::string> members_of(const CLI::Option& option) {
  const std::string told = option.get_type_name();
  const size_t begin = told.find('{'), end = told.find('}', begin);
  if (begin == std::string::npos || end == std::string::npos) return {};
  return CLI::detail::split(told.substr(begin + 1, end - begin - 1), ',');
}

// The operand with that number, counted from 0. The last one may take several words.
const CLI::Option* operand_at(const CLI::App& command, size_t number) {
  for (const CLI::Option* option : command.get_options()) {
    if (!option->get_positional()) continue;
    if (number-- == 0 || option->get_expected_max() > 1) return option;
  }
  return nullptr;
}

// The configuration in force, or a list of it. Null if there is no answer.
json fetch(Cli& cli, const std::string& section) {
  ApiRequest request;
  request.target = "/v1/config/" + section;
  request.headers.emplace_back("Accept", "application/json");
  request.timeout_ms = kPatienceMs;
  const std::optional<HttpResponse> response = call_raw(cli, std::move(request));
  if (!response || response->status != 200) return nullptr;
  return json::parse(response->body, nullptr, false);
}

std::vector<std::string> names_in(const json& list) {
  std::vector<std::string> names;
  if (!list.is_array()) return names;
  for (const json& element : list) {
    if (std::string name = string_member(element, "name"); !name.empty()) names.push_back(std::move(name));
  }
  return names;
}

std::vector<std::string> backend_names(const json& pools) {
  std::vector<std::string> names;
  if (!pools.is_array()) return names;
  for (const json& pool : pools) {
    const auto backends = pool.find("backends");
    if (backends == pool.end()) continue;
    for (const std::string& name : names_in(*backends)) names.push_back(string_member(pool, "name") + "/" + name);
  }
  return names;
}

// NODE/PLANE, as nodes say which planes they have.
std::vector<std::string> plane_names(const json& nodes) {
  std::vector<std::string> names;
  for (const json& node : nodes.is_array() ? nodes : json::array()) {
    for (const char* plane : {"l4", "l7", "dns"}) {
      if (node.contains(plane)) names.push_back(string_member(node, "name") + "/" + plane);
    }
  }
  return names;
}

std::vector<std::string> drainable(Cli& cli, const std::vector<std::string>& operands) {
  if (operands.size() > 1 || operands[0] == "target") return {};
  if (operands[0] == "backend") return backend_names(fetch(cli, "pools"));
  if (operands[0] == "plane") return plane_names(fetch(cli, "nodes"));
  return names_in(fetch(cli, operands[0] + "s"));
}

std::vector<std::string> gettable(Cli& cli, const std::vector<std::string>& operands) {
  if (operands.size() == 1) return names_in(fetch(cli, operands[0]));
  std::vector<std::string> sections;
  if (operands.empty()) {
    for (const Field& field : root_section().fields) sections.emplace_back(field.key);
  }
  return sections;
}

std::vector<std::string> without(std::vector<std::string> words, const std::vector<std::string>& said) {
  std::erase_if(words,
                [&](const std::string& word) { return std::find(said.begin(), said.end(), word) != said.end(); });
  return words;
}

std::vector<std::string> operands_of(const CLI::App& app, Cli& cli, const Line& line) {
  const std::string command = line.command->get_name();
  const CLI::Option* operand = operand_at(*line.command, line.operands.size());
  if (std::vector<std::string> members = operand != nullptr ? members_of(*operand) : std::vector<std::string>();
      !members.empty()) {
    return without(std::move(members), line.operands);
  }
  if (command == "drain" || command == "undrain") return drainable(cli, line.operands);
  if (command == "get") return gettable(cli, line.operands);
  if (command == "quota" && line.operands.empty()) return names_in(fetch(cli, "policies"));
  if (command == "records" && line.operands.empty()) return {"list", "set", "delete", "import", "export"};
  if (command == "records" && line.operands.size() == 1) return names_in(fetch(cli, "zones"));
  std::vector<std::string> names;
  if (command == "help" && line.operands.empty()) {
    for (const CLI::App* known : app.get_subcommands({})) names.push_back(known->get_name());
  }
  return names;
}

}  // namespace

std::vector<std::string> complete(const CLI::App& app, Cli& cli, const std::vector<std::string>& words) {
  const std::string begun = words.empty() ? std::string() : words.back();
  const Line line = read(app, words);
  std::vector<std::string> found;
  if (line.option != nullptr) {
    found = members_of(*line.option);
    if (line.option->check_lname("api")) found = {cli.api, "https://", "http://"};  // else the shell offers files
  } else if (begun.starts_with("-")) {
    append_options(app, found);
    if (line.command != nullptr) append_options(*line.command, found);
  } else if (line.command != nullptr) {
    found = operands_of(app, cli, line);
  } else {
    for (const CLI::App* command : app.get_subcommands({})) found.push_back(command->get_name());
  }
  std::erase_if(found, [&](const std::string& word) { return !word.starts_with(begun); });
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

void add_completion_command(CLI::App& app, Cli& cli) {
  CLI::App* command = add_command(app, "completion", "Print the script by which a shell completes command lines",
                                  "tidegate completion bash > ~/.local/share/bash-completion/completions/tidegate");
  const auto shell = std::make_shared<std::string>();
  command->add_option("SHELL", *shell, "bash or zsh")->required()->check(CLI::IsMember({"bash", "zsh"}));
  command->callback([&cli, shell] {
    fmt::print("{}", *shell == "bash" ? kBash : kZsh);
    cli.exit_status = kDone;
  });
}

}  // namespace tidegate::cli
