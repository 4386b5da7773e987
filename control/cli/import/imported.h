// SPDX-License-Identifier: Apache-2.0
// Imported: an edge that is made from the configuration of another program, directive by directive. Each directive is
// taken or left out, always with a reason. Pure: no files. One thread.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace tidegate::cli {

struct LeftDirective {
  uint32_t line = 0;
  std::string text, why;
};

class Imported {
 public:
  nlohmann::json node = {{"name", "edge"}, {"l7", nlohmann::json::object()}};

  // The object with this name in a section, which is created if necessary. The reference stays valid.
  nlohmann::json& object(const std::string& section, const std::string& name);
  bool has(const std::string& section, const std::string& name) const;
  void remove(const std::string& section, const std::string& name);
  // A name that no object of the section has.
  std::string free_name(const std::string& section, const std::string& wanted) const;
  const std::list<nlohmann::json>& objects(const std::string& section) { return sections_[section]; }

  // The name of a policy with this content. It is made if there is none.
  std::string policy(const std::string& wanted, const nlohmann::json& content);
  // Says why a route refuses what it stands for. The document has it as a comment at the route.
  void close(const std::string& route, const std::string& why) { closed_[route] = why; }
  // The document's text with these comments.
  std::string with_comments(const std::string& yaml) const;

  // Whether so many routes with regular expressions more may be at these hosts (none: any) and this path. Then they
  // count.
  bool has_room_for_regexes(const std::vector<std::string>& hosts, const std::string& path, size_t count);

  // Reads a file that the configuration names; nothing if there is none. Unset: none is read.
  std::function<std::optional<std::string>(const std::string& path)> file;

  void take() { ++taken_; }
  void leave(uint32_t line, std::string text, std::string why);
  // Takes the directive, or leaves it out for the error's reason.
  void judge(uint32_t line, const std::string& text, const Result<void>& outcome);

  size_t taken() const { return taken_; }
  size_t directives() const { return taken_ + left_.size(); }
  std::vector<LeftDirective> left() const;  // in the order of their lines
  nlohmann::json document() const;

 private:
  std::map<std::string, std::list<nlohmann::json>> sections_;
  std::map<std::string, std::map<std::string, nlohmann::json*>> by_name_;  // objects of each section
  mutable std::map<std::string, size_t> last_number_;                      // for free_name(), by section and name
  std::map<std::string, size_t> regexes_;                                  // by host and path
  std::map<std::string, std::string> closed_;                              // by the route's name
  std::vector<LeftDirective> left_;
  size_t taken_ = 0;
};

// Sets a key. Returns an Error if it is set to another value already.
Result<void> set_once(nlohmann::json& object, const std::string& key, const nlohmann::json& value);

// A valid name: letters, digits, '.', '_' and '-', at most 63.
std::string name_of(std::string_view text);
std::optional<uint64_t> number_of(std::string_view text);
// "90", "1m", "500ms" as our duration. A number without a unit has `unit`.
std::optional<std::string> duration_of(std::string_view text, std::string_view unit);
// "8k", "10m", "1g" as our size.
std::optional<std::string> size_of(std::string_view text);
// An IP address, or localhost. The Error says why it cannot be a backend.
Result<std::string> backend_address(std::string_view text);
// ADDRESS:PORT as a backend of a pool: {name, addresses, port}.
Result<nlohmann::json> backend_of(std::string_view text, uint16_t default_port, size_t number);

// Returns an Error with the line if the text is not in that language.
Result<void> import_nginx(std::string_view text, Imported& into);
Result<void> import_haproxy(std::string_view text, Imported& into);
Result<void> import_httproute(std::string_view text, Imported& into);

}  // namespace tidegate::cli
