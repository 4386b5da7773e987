// SPDX-License-Identifier: Apache-2.0
// The command init: asks for a first configuration and writes it.

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <iostream>

#include "conf/expansion.h"
#include "conf/model.h"
#include "conf/names.h"
#include "control/api/json_bounds.h"
#include "control/api/shapes.h"
#include "control/cli/cli.h"
#include "control/cli/first_edge.h"
#include "control/vote/plans.h"

namespace tidegate::cli {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxAnswerBytes = 4'096;
constexpr uint64_t kControlPatienceMs = 2'000;  // with a control of this host

struct InitArguments {
  std::string file = "edge.yaml";
  std::string backends, hosts, certificate, key, listen, zone, address;
  bool defaults = false;
};

// Returns the first fault of the document in one line, as `check` would report it. The zone's file does not exist yet.
Result<void> check(const FirstEdge& edge, const std::string& path) {
  if (edge.backends.empty()) return {};
  const FileReader disk = files_beside(path);
  const FileReader files = [&](const std::string& name, std::string& error) {
    if (!edge.zone.empty() && name == zone_file_name(edge))
      return std::make_shared<const std::string>(zone_file_of(edge));
    return disk(name, error);
  };
  LoadedFile loaded;
  loaded.text = document_of(edge);
  ExpandedDocument read = expand_document(path, loaded.text, surroundings_of(path), loaded.faults);
  loaded.document = std::move(read.document);
  if (read.complete) loaded.model = load_model(*loaded.document, files, loaded.faults);
  judge(loaded);
  if (loaded.faults.empty()) return {};
  const Fault& fault = loaded.faults.front();
  std::string reason = fault.detail;
  if (!fault.expected.empty()) reason += "; expected " + fault.expected;
  if (!fault.hint.empty()) reason += " (" + fault.hint + ")";
  return fail(reason);
}

// The path of a file as the document must name it: relative if it is below the document's folder.
std::string named_from(const std::string& document, const std::string& file) {
  const fs::path whole = fs::absolute(file).lexically_normal();
  const fs::path relative = whole.lexically_relative(fs::absolute(document).lexically_normal().parent_path());
  return relative.empty() || *relative.begin() == ".." ? whole.string() : relative.string();
}

Result<void> take_zone(FirstEdge& edge, const std::string& answer) {
  std::string zone = answer;
  std::transform(zone.begin(), zone.end(), zone.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  if (zone.ends_with('.')) zone.pop_back();
  const bool plain = zone.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-_.") == std::string::npos;
  if (!plain || (!zone.empty() && zone.front() == '.')) return fail(in_quotes(answer) + " is not the name of a zone");
  if (!zone.empty() && edge.listens_at().port == kDns)
    return fail("DNS needs port 53, and --listen has it for HTTP already");
  edge.zone = zone;
  return {};
}

struct Question {
  const char* option;
  std::string InitArguments::*flag;
  const char* text;
  std::function<std::string(const FirstEdge&)> usual;  // the meaning of an empty answer; not set: an answer is required
  std::function<bool(const FirstEdge&)> needed;        // whether the question is asked; not set: always
  std::function<Result<void>(FirstEdge&, const std::string&)> take;  // takes an answer that is not empty
};

// In this order, because questions depend on earlier answers.
std::vector<Question> questions(const std::string& document) {
  const auto nothing = [](const char* what) { return [what](const FirstEdge&) { return std::string(what); }; };
  return {
      {"--backend",
       &InitArguments::backends,
       "Your servers, ADDRESS:PORT, separated by commas",
       {},
       {},
       [](FirstEdge& edge, const std::string& answer) -> Result<void> {
         Result<std::vector<Endpoint>> backends = parse_backends(answer);
         if (!backends) return backends.error();
         edge.backends = *std::move(backends);
         return {};
       }},
      {"--host",
       &InitArguments::hosts,
       "Names by which clients ask, separated by commas",
       nothing("any"),
       {},
       [](FirstEdge& edge, const std::string& answer) -> Result<void> {
         edge.hosts = parse_words(answer);
         return {};
       }},
      {"--certificate",
       &InitArguments::certificate,
       "For HTTPS: the file of your certificate, PEM",
       nothing("no HTTPS"),
       {},
       [document](FirstEdge& edge, const std::string& answer) -> Result<void> {
         if (::access(answer.c_str(), R_OK) != 0)
           return fail(fmt::format("cannot read {}: {}", in_quotes(answer), std::strerror(errno)));
         edge.certificate = named_from(document, answer);
         return {};
       }},
      {"--key",
       &InitArguments::key,
       "The file of its private key, PEM",
       {},
       [](const FirstEdge& edge) { return !edge.certificate.empty(); },
       [document](FirstEdge& edge, const std::string& answer) -> Result<void> {
         edge.key = named_from(document, answer);
         return {};
       }},
      {"--listen",
       &InitArguments::listen,
       "Where clients connect, ADDRESS or ADDRESS:PORT",
       [](const FirstEdge& edge) { return edge.listens_at().to_string(); },
       {},
       [](FirstEdge& edge, const std::string& answer) -> Result<void> {
         const Result<Endpoint> listen = parse_listen(answer);
         if (!listen) return listen.error();
         if (listen->port == kHttps && edge.certificate.empty())
           return fail("port 443 is for HTTPS, which needs --certificate and --key");
         edge.listen = *listen;
         return {};
       }},
      {"--zone", &InitArguments::zone, "A DNS zone to serve", nothing("no DNS"), {}, take_zone},
      {"--address",
       &InitArguments::address,
       "The address to which the zone's names lead",
       {},
       [](const FirstEdge& edge) { return !edge.zone.empty() && !edge.public_address(); },
       [](FirstEdge& edge, const std::string& answer) -> Result<void> {
         edge.address = IpAddress::parse(answer);
         if (!edge.address) return fail(in_quotes(answer) + " is not an IP address");
         if (!is_of_a_host(*edge.address)) return fail(in_quotes(answer) + " is no address of a host");
         return {};
       }},
  };
}

// True if the certificate can be checked with its key, and the zone with its address.
bool is_whole(const FirstEdge& edge) {
  return edge.certificate.empty() == edge.key.empty() && (edge.zone.empty() || edge.public_address());
}

// The edge with the answer, or an Error.
Result<FirstEdge> with_answer(FirstEdge edge, const Question& question, const std::string& answer,
                              const std::string& document) {
  if (Result<void> taken = question.take(edge, answer); !taken) return taken.error();
  if (!is_whole(edge)) return edge;
  if (Result<void> checked = check(edge, document); !checked) return checked.error();
  return edge;
}

// Reads the answer from the terminal. Nothing at the end of its input.
std::optional<std::string> ask(const Question& question, const FirstEdge& edge) {
  fmt::print(stderr, "{}{}: ", question.text, question.usual ? fmt::format(" [{}]", question.usual(edge)) : "");
  std::string answer;
  for (int c = std::getchar(); c != '\n'; c = std::getchar()) {
    if (c == EOF) return std::nullopt;
    if (answer.size() <= kMaxAnswerBytes) answer += static_cast<char>(c);
  }
  const size_t begin = answer.find_first_not_of(" \t\r");
  if (begin == std::string::npos) return "";
  return answer.substr(begin, answer.find_last_not_of(" \t\r") + 1 - begin);
}

// Asks until the answer is valid. Returns nothing at the end of the terminal's input.
std::optional<FirstEdge> answered(const FirstEdge& edge, const Question& question, const std::string& document) {
  for (;;) {
    const std::optional<std::string> answer = ask(question, edge);
    if (!answer) return std::nullopt;
    if (answer->empty() && question.usual) return edge;
    if (answer->empty()) {
      fmt::print(stderr, "  this one has no default; Ctrl-D ends without writing anything\n");
      continue;
    }
    Result<FirstEdge> next = answer->size() > kMaxAnswerBytes ? Result<FirstEdge>(fail("the answer is too long"))
                                                              : with_answer(edge, question, *answer, document);
    if (next) return *std::move(next);
    fmt::print(stderr, "  {}\n", next.error().message);
  }
}

// Asks all questions. If the result is not complete, sets the exit status and returns nothing.
std::optional<FirstEdge> interview(Cli& cli, const InitArguments& arguments) {
  const bool may_ask = !arguments.defaults && ::isatty(STDIN_FILENO) != 0;
  FirstEdge edge;
  for (const Question& question : questions(arguments.file)) {
    const std::string& given = arguments.*question.flag;
    if (question.needed && !question.needed(edge) && given.empty()) continue;
    if (!given.empty()) {
      Result<FirstEdge> next = with_answer(edge, question, given, arguments.file);
      if (!next) {
        fmt::print(stderr, "tidegate: {}: {}\n", question.option, next.error().message);
        cli.exit_status = kMisuse;
        return std::nullopt;
      }
      edge = *std::move(next);
    } else if (may_ask) {
      std::optional<FirstEdge> next = answered(edge, question, arguments.file);
      if (!next) {
        fmt::print(stderr, "\ntidegate: the questions were not answered; nothing was written\n");
        cli.exit_status = kRefused;
        return std::nullopt;
      }
      edge = *std::move(next);
    } else if (!question.usual) {
      fmt::print(stderr, "tidegate: {} is needed, because there is no terminal to ask on\n", question.option);
      cli.exit_status = kMisuse;
      return std::nullopt;
    }
  }
  return edge;
}

// A map in one line of YAML. JSON's values are YAML's, too.
std::string in_one_line(const nlohmann::json& map) {
  std::string out;
  for (const auto& [key, value] : map.items())
    out += fmt::format("{}{}: {}", out.empty() ? "" : ", ", key, dump(value));
  return "{" + escape_expansions(out) + "}";
}

// Copies the settings that a running process cannot change from the node that runs on this host. So the document can be
// applied to that node. Returns false if no control answers here, or has several nodes.
bool take_running_node(Cli& cli, FirstEdge& edge) {
  if (::access(cli.api.c_str(), R_OK | W_OK) != 0) return false;
  HttpClientRequest request;
  request.target = "/v1/config/nodes";
  request.host = "tidegate";
  request.headers.emplace_back("Accept", "application/json");
  request.timeout_ms = kControlPatienceMs;
  const std::optional<HttpTarget> control = api_target(cli, request.headers);
  if (!control) return false;
  const Result<HttpResponse> answer = http_fetch(*control, std::move(request));
  if (!answer || answer->status != 200) return false;
  const Result<nlohmann::json> nodes = parse_json(answer->body);
  if (!nodes || !nodes->is_array() || nodes->size() != 1 || !nodes->front().is_object()) return false;
  const nlohmann::json& node = nodes->front();
  if (std::string name = string_member(node, "name"); !name.empty()) edge.node = std::move(name);
  const auto take = [&](const char* key, std::string& into) {
    if (const auto found = node.find(key); found != node.end() && found->is_object()) into = in_one_line(*found);
  };
  take("l7", edge.l7);
  take("cache", edge.cache);
  return true;
}

// Returns an Error if the file exists already, or cannot be written. After an Error no new file is left.
Result<void> write_new(const std::string& path, const std::string& text) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (file < 0) {
    return fail(errno == EEXIST ? path + " exists already and is left as it is"
                                : fmt::format("cannot write {}: {}", path, std::strerror(errno)));
  }
  std::string_view rest = text;
  ssize_t written = 0;
  while (!rest.empty() && (written = ::write(file, rest.data(), rest.size())) > 0)
    rest.remove_prefix(static_cast<size_t>(written));
  const int cause = errno;
  if (::close(file) == 0 && rest.empty()) return {};
  ::unlink(path.c_str());
  return fail(fmt::format("cannot write {}: {}", path, std::strerror(cause)));
}

Result<void> write_all(const std::vector<std::pair<std::string, std::string>>& files) {
  for (size_t i = 0; i < files.size(); ++i) {
    const Result<void> written = write_new(files[i].first, files[i].second);
    if (written) continue;
    for (size_t done = 0; done < i; ++done) ::unlink(files[done].first.c_str());
    return written;
  }
  return {};
}

void init(Cli& cli, const InitArguments& arguments) {
  const auto refuse = [&](const std::string& reason) {
    fmt::print(stderr, "refused: {}\n", reason);
    cli.exit_status = kRefused;
  };
  // Checked first: nobody should answer five questions and then get a refusal.
  std::error_code ignored;
  if (fs::exists(arguments.file, ignored)) return refuse(arguments.file + " exists already and is left as it is");
  std::optional<FirstEdge> edge = interview(cli, arguments);
  if (!edge) return;
  const bool runs = take_running_node(cli, *edge);
  if (const Result<void> checked = check(*edge, arguments.file); !checked) return refuse(checked.error().message);
  std::vector<std::pair<std::string, std::string>> files;
  if (!edge->zone.empty()) {
    const fs::path zone = fs::path(arguments.file).parent_path() / zone_file_name(*edge);
    files.emplace_back(zone.string(), zone_file_of(*edge));
  }
  files.emplace_back(arguments.file, document_of(*edge));
  if (const Result<void> written = write_all(files); !written) return refuse(written.error().message);
  nlohmann::json names = nlohmann::json::array();
  for (const auto& [name, text] : files) names.push_back(name);
  if (cli.json()) return fmt::print("{}\n", nlohmann::json({{"files", names}}).dump());
  for (const auto& [name, text] : files) fmt::print("wrote {}\n", name);
  fmt::print("next: tidegate {} {}{}\n", runs ? "apply" : "run", arguments.file, runs ? " --wait" : "");
}

}  // namespace

void add_init_command(CLI::App& app, Cli& cli) {
  const auto arguments = std::make_shared<InitArguments>();
  CLI::App* command = add_command(app, "init",
                                  "Write a first configuration. What no option says is asked on the terminal.\n"
                                  "Files that exist are never changed.",
                                  "tidegate init edge.yaml --backend 192.0.2.7:8080 --host www.example.com");
  command->add_option("FILE", arguments->file, "where to write it")->capture_default_str();
  command->add_option("--backend", arguments->backends, "your servers: ADDRESS:PORT, separated by commas");
  command->add_option("--host", arguments->hosts, "names by which clients ask, separated by commas (default: any)");
  CLI::Option* certificate = command->add_option("--certificate", arguments->certificate, "PEM chain, for HTTPS");
  certificate->needs(command->add_option("--key", arguments->key, "its private key, PEM")->needs(certificate));
  command->add_option("--listen", arguments->listen,
                      "ADDRESS or ADDRESS:PORT where clients connect (default: 0.0.0.0, port 80 or 443)");
  CLI::Option* zone = command->add_option("--zone", arguments->zone, "a DNS zone to serve; its file is written too");
  command->add_option("--address", arguments->address, "to which the zone's names lead (default: that of --listen)")
      ->needs(zone);
  command->add_flag("--defaults", arguments->defaults, "ask nothing: take the default of what no option says");
  command->callback([&cli, arguments] { init(cli, *arguments); });
}

}  // namespace tidegate::cli
