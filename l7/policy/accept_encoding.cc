// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/accept_encoding.h"

#include <array>
#include <optional>

#include "cache/policy/fields.h"
#include "core/http1.h"

namespace tidegate::l7::policy {
namespace {

// qvalue (RFC 9110 §12.4.2) in thousandths.
std::optional<int> parse_weight(std::string_view text) {
  if (text.empty() || text.size() > 5 || (text[0] != '0' && text[0] != '1')) return std::nullopt;
  int weight = (text[0] - '0') * 1'000;
  if (text.size() == 1) return weight;
  if (text[1] != '.') return std::nullopt;
  int scale = 100;
  for (const char digit : text.substr(2)) {
    if (digit < '0' || digit > '9') return std::nullopt;
    weight += (digit - '0') * scale;
    scale /= 10;
  }
  return weight <= 1'000 ? std::optional<int>(weight) : std::nullopt;
}

struct AcceptedCoding {
  std::string_view coding;
  int weight;
};

std::optional<AcceptedCoding> parse_member(std::string_view element) {
  const size_t semicolon = element.find(';');
  const std::string_view coding = cache::trim(element.substr(0, semicolon));
  if (!http1::is_token(coding)) return std::nullopt;
  if (semicolon == std::string_view::npos) return AcceptedCoding{coding, 1'000};
  const std::string_view parameter = cache::trim(element.substr(semicolon + 1));
  if (parameter.size() < 3 || (parameter[0] != 'q' && parameter[0] != 'Q') || parameter[1] != '=') return std::nullopt;
  const std::optional<int> weight = parse_weight(parameter.substr(2));
  if (!weight) return std::nullopt;
  return AcceptedCoding{coding, *weight};
}

}  // namespace

Coding choose_coding(const FieldList& request_fields, const std::vector<Coding>& preference) {
  constexpr int kUnnamed = -1;
  std::array<int, kCodings> weights;
  weights.fill(kUnnamed);
  int others = kUnnamed;  // "*"
  for (const Field& field : request_fields) {
    if (field.name != "accept-encoding") continue;
    http1::for_each_element(field.value, [&](std::string_view element) {
      const std::optional<AcceptedCoding> member = parse_member(element);
      if (!member) return;
      if (member->coding == "*") {
        others = member->weight;
      } else if (const std::optional<Coding> coding = parse_coding(member->coding)) {
        weights[static_cast<size_t>(*coding)] = member->weight;
      }
    });
  }
  Coding best = Coding::identity;
  int best_weight = 0;
  for (const Coding coding : preference) {
    const int named = weights[static_cast<size_t>(coding)];
    const int weight = named == kUnnamed ? others : named;
    if (weight <= best_weight) continue;
    best = coding;
    best_weight = weight;
  }
  return weights[static_cast<size_t>(Coding::identity)] > best_weight ? Coding::identity : best;
}

}  // namespace tidegate::l7::policy
