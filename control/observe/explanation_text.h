// SPDX-License-Identifier: Apache-2.0
// Explanation text: the steps of an explanation as text for people, one line for each step. The API and the command
// line both use it. Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace tidegate {

struct ExplanationLine {
  std::string plane;  // "dns", "l4", "l7"
  std::string node;   // the node whose plane answered; may be empty
  std::string what;   // "answers 10.10.0.100 (vip-eu) for www.example.test"
  std::string why;    // "nearest: site eu, 12 km"; may be empty
};

// `step` is an element of "steps" in /v1/explain.
ExplanationLine describe_step(const nlohmann::json& step);
// One paragraph: "dns answers ... because ...; l4 ...; l7 ...".
std::string describe_steps(const nlohmann::json& steps);

}  // namespace tidegate
