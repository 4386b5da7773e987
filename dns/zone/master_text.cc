// SPDX-License-Identifier: Apache-2.0
#include "dns/zone/master_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <vector>

#include "core/crypto.h"
#include "dns/wire/wire.h"
#include "dns/zone/ldns_pointers.h"
#include "dns/zone/master_lexer.h"
#include "dns/zone/master_rdata.h"

namespace tidegate::dns {
namespace {

struct Freed {
  void operator()(char* text) const { std::free(text); }
};
using Text = std::unique_ptr<char, Freed>;

std::string by_ldns(uint16_t type, std::span<const uint8_t> rdata) {
  std::vector<uint8_t> record(11, 0);  // the root as owner, type, class, TTL, length
  store_u16(&record[1], type);
  store_u16(&record[3], kClassIn);
  store_u16(&record[9], static_cast<uint16_t>(rdata.size()));
  record.insert(record.end(), rdata.begin(), rdata.end());
  ldns_rr* raw = nullptr;
  size_t at = 0;
  const ldns_status status = ldns_wire2rr(&raw, record.data(), record.size(), &at, LDNS_SECTION_ANSWER);
  const RrPtr rr(raw);
  if (status != LDNS_STATUS_OK) return {};
  std::string text;
  for (size_t i = 0; i < ldns_rr_rd_count(rr.get()); ++i) {
    const Text field(ldns_rdf2str(ldns_rr_rdf(rr.get(), i)));
    if (!field) return {};
    text += (i == 0 ? "" : " ") + std::string(field.get());
  }
  return text;
}

bool reads_back(uint16_t type, const std::string& text, std::span<const uint8_t> rdata) {
  if (text.empty() || text.find('\n') != std::string::npos) return false;
  MasterLexer lexer(text);
  MasterEntry entry, more;
  if (!lexer.next(entry) || lexer.next(more) || lexer.fault() != nullptr) return false;
  std::vector<uint8_t> again;
  size_t wrong = 0;
  const std::string fault = append_rdata(type, entry.tokens, *Name::from_text("."), again, wrong);
  return fault.empty() && std::equal(again.begin(), again.end(), rdata.begin(), rdata.end());
}

}  // namespace

std::string type_to_text(uint16_t type) {
  const Text text(ldns_rr_type2str(static_cast<ldns_rr_type>(type)));
  return text ? text.get() : fmt::format("TYPE{}", type);
}

std::string owner_to_text(std::span<const uint8_t> wire_name) {
  std::string text;
  for (const char c : name_to_text(wire_name)) {
    if (c == '"' || c == ';' || c == '(' || c == ')' || c == '@' || c == '$') text += '\\';
    text += c;
  }
  return text;
}

std::string rdata_to_text(uint16_t type, std::span<const uint8_t> rdata) {
  std::string text = by_ldns(type, rdata);
  if (reads_back(type, text, rdata)) return text;
  text = fmt::format("\\# {}", rdata.size());
  if (!rdata.empty()) text += " " + hex_encode({reinterpret_cast<const char*>(rdata.data()), rdata.size()});
  return text;
}

}  // namespace tidegate::dns
