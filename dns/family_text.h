// SPDX-License-Identifier: Apache-2.0
// FamilyText: one family of the Prometheus text format, written when it is scraped.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

#include "core/metrics.h"

namespace tidegate::dns {

class FamilyText {
 public:
  FamilyText(std::string& out, std::string_view metric, std::string_view help, std::string_view type = "counter")
      : out_(out), name_(metric) {
    out_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", metric, help, metric, type);
  }
  FamilyText& add(uint64_t count, const MetricLabels& labels = {}) {
    out_ += fmt::format("{}{} {}\n", name_, render_labels(labels), count);
    return *this;
  }

 private:
  std::string& out_;
  std::string_view name_;
};

}  // namespace tidegate::dns
