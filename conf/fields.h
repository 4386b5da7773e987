// SPDX-License-Identifier: Apache-2.0
// The table of every key that a configuration can have. The loader, the hints for unknown keys, the canonical form and
// the key reference all use this one table. Defaults come from default-constructed structs of conf/model.h.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "conf/model/common.h"
#include "core/ip.h"

namespace tidegate {

enum class FieldType : uint8_t {
  boolean,
  integer,
  number,             // decimal fraction
  duration,           // 200ms, 5s, 1m, 2h, 7d
  size,               // 64KB, 1GB: powers of 1024
  name,               // letters, digits, '.', '_', '-'
  text,               // one line
  lines,              // text that may have several lines
  choice,             // one of Field::choices
  address,            // 192.0.2.1, 2001:db8::1
  interface_address,  // 192.0.2.1/24: our own address with the prefix length of its network
  cidr,               // 192.0.2.0/24
  endpoint,           // 192.0.2.1:80, [2001:db8::1]:80
  domain,             // www.example.com; the final dot is optional
  host_pattern,       // conf/route_pattern.h
  path_pattern,       // conf/route_pattern.h
  method,             // HTTP method, upper case
  reference,          // the name of an element of the top-level list Field::refers_to
  file,               // a path relative to the document
  text_map,           // header fields and their values
  section,            // a map that Field::section describes
};

using InterfaceAddress = std::pair<IpAddress, uint8_t>;
using TextPair = std::pair<std::string, std::string>;

// One decoded value. Durations are in ms and sizes in bytes, for any unit of the member. A choice is the index in
// Field::choices. A reference is a name until the loader replaces it by the element's index.
using ScalarValue =
    std::variant<bool, uint64_t, double, std::string, IpAddress, InterfaceAddress, Cidr, Endpoint, Blob, TextPair>;

struct Section;

struct Field {
  std::string_view key;
  FieldType type = FieldType::text;
  std::string_view sentence;
  bool list = false;
  bool required = false;               // a required list has at least one item
  bool identity = false;               // distinguishes the elements of a list
  uint64_t min = 0, max = UINT64_MAX;  // integer; duration in ms; size in bytes; text in bytes
  double lowest = 0, highest = 0;      // number
  uint64_t scale = 1;                  // ms or bytes per unit of the member
  // Of an integer at most one: the word that is written for 0, which is below `min`.
  std::vector<std::string_view> choices;
  std::string_view refers_to;  // top-level key
  const Section* section = nullptr;
  std::optional<ScalarValue> default_value;
  bool secret = false;           // only roles that may write the configuration may see the values
  bool on_when_present = false;  // the key `enabled` of a section: true if the section is written

  // Access to the member of the key, with its type erased. `owner` is the struct that the section describes. Lists are
  // resized once and then filled by index; for anything else `index` is 0.
  std::function<void(void* owner, size_t count)> resize;
  std::function<void(void* owner, size_t index, ScalarValue&& value)> store;
  std::function<void*(void* owner, size_t index)> enter;  // sections: the struct inside
  std::function<void(void* owner, size_t index)> clear;   // lists of sections: resets the element to its defaults
};

struct Section {
  std::string_view noun;  // the noun for one such map, for example "backend"
  std::vector<Field> fields;

  const Field* find(std::string_view key) const;
  const Field* identity() const;  // null if elements need no name
  std::vector<std::string_view> keys() const;
};

// The whole document; describes Model.
const Section& root_section();

// True if a key of this name is secret in any section.
bool is_secret_key(std::string_view key);

// The sections of the top-level keys, each with the file that has its table:
const Section& site_section();  // fields.cc
const Section& node_section();  // fields_node.cc
const Section& vip_section();   // fields_traffic.cc
const Section& acl_section();
const Section& service_section();
const Section& pool_section();
const Section& probe_section();
const Section& certificate_section();  // fields_http.cc
const Section& acme_section();
const Section& listener_section();
const Section& route_section();
const Section& policy_section();  // policy/kinds.cc
const Section& zone_section();    // fields_dns.cc
const Section& steer_section();
const Section& geo_section();
const Section& httpdns_section();
const Section& location_section();  // fields.cc

}  // namespace tidegate
