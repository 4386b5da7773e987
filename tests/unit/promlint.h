// SPDX-License-Identifier: Apache-2.0
// The checks of `promtool check metrics` for a page in Prometheus' text format, as far as they concern ours.
#pragma once

#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace tidegate::testing {

// Returns one sentence for each fault of the page; empty if there is none.
inline std::vector<std::string> lint_metrics(const std::string& page) {
  static const std::regex kName("[a-z_][a-z0-9_]*");
  static const std::regex kNotBase(".*_(ns|us|ms|milliseconds|minutes|hours|kb|mb|kilobytes|percent)(_.*)?");
  static const std::regex kSample(R"(([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[^}]*\})? (\S+))");
  std::vector<std::string> faults;
  std::map<std::string, std::string> types;
  std::set<std::string> helped, samples;
  std::string family;
  const auto ends = [](const std::string& name, const char* suffix) { return name.ends_with(suffix); };
  std::istringstream lines(page);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("# HELP ", 0) == 0) {
      const std::string rest = line.substr(7);
      family = rest.substr(0, rest.find(' '));
      if (!helped.insert(family).second) faults.push_back(family + " stands in two places");
      if (family.size() + 2 > rest.size()) faults.push_back(family + " has no help");
      continue;
    }
    if (line.rfind("# TYPE ", 0) == 0) {
      std::istringstream words(line.substr(7));
      std::string name, type;
      words >> name >> type;
      types[name] = type;
      if (name != family) faults.push_back(name + " has no help before its type");
      if (!std::regex_match(name, kName)) faults.push_back(name + " is no good name");
      if (std::regex_match(name, kNotBase)) faults.push_back(name + " is not in a base unit");
      if ((type == "counter") != ends(name, "_total")) faults.push_back(name + ": _total is for counters, and for all");
      for (const char* suffix : {"_count", "_sum", "_bucket"}) {
        if (ends(name, suffix)) faults.push_back(name + ": " + suffix + " is a histogram's");
      }
      continue;
    }
    std::smatch sample;
    if (!std::regex_match(line, sample, kSample)) {
      faults.push_back("no sample: " + line);
      continue;
    }
    const std::string name = sample[1];
    const bool of_histogram = types[family] == "histogram" && name.rfind(family + "_", 0) == 0;
    if (name != family && !of_histogram) faults.push_back(name + " stands under " + family);
    if (!samples.insert(name + sample[2].str()).second) faults.push_back(line + " stands twice");
  }
  return faults;
}

}  // namespace tidegate::testing
