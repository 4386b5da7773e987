// SPDX-License-Identifier: Apache-2.0
// The table of every key a configuration knows. The loader, the hints for unknown keys, the canonical form and the key
// reference all read this one table; defaults come from default-constructed structs of conf/model.h.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "conf/model.h"
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
  interface_address,  // 192.0.2.1/24: an address of our own with its network's prefix length
  cidr,               // 192.0.2.0/24
  endpoint,           // 192.0.2.1:80, [2001:db8::1]:80
  domain,             // www.example.com; the final dot may be left out
  host_pattern,       // conf/route_pattern.h
  path_pattern,       // conf/route_pattern.h
  method,             // HTTP method, upper case
  reference,          // the name of an element of the top-level list Field::refers_to
  file,               // a path, read beside the document
  text_map,           // header fields and their values
  section,            // a map described by Field::section
};

using InterfaceAddress = std::pair<IpAddress, uint8_t>;
using TextPair = std::pair<std::string, std::string>;

// One decoded value. Durations are in ms and sizes in bytes, whatever unit the member has; a choice is the index among
// Field::choices; a reference is the name until the loader makes it the index of the element.
using ScalarValue =
    std::variant<bool, uint64_t, double, std::string, IpAddress, InterfaceAddress, Cidr, Endpoint, Blob, TextPair>;

struct Section;

struct Field {
  std::string_view key;
  FieldType type = FieldType::text;
  std::string_view sentence;
  bool list = false;
  bool required = false;               // a required list has at least one item
  bool identity = false;               // tells the elements of a list from each other
  uint64_t min = 0, max = UINT64_MAX;  // integer; duration in ms; size in bytes; text in bytes
  double lowest = 0, highest = 0;      // number
  uint64_t scale = 1;                  // ms or bytes in one unit of the member
  std::vector<std::string_view> choices;
  std::string_view refers_to;  // top-level key
  const Section* section = nullptr;
  std::optional<ScalarValue> default_value;
  bool on_when_present = false;  // the key `enabled` of a section: true where the section is written

  // The member behind the key, with its type erased; `owner` is the struct that the section describes. Lists are
  // resized once and then filled by index; `index` is 0 for anything else.
  std::function<void(void* owner, size_t count)> resize;
  std::function<void(void* owner, size_t index, ScalarValue&& value)> store;
  std::function<void*(void* owner, size_t index)> enter;  // sections: the struct inside
  std::function<void(void* owner, size_t index)> clear;   // lists of sections: nothing but defaults again
};

struct Section {
  std::string_view noun;  // "backend": what one such map is
  std::vector<Field> fields;

  const Field* find(std::string_view key) const;
  const Field* identity() const;  // null when elements need no name
  std::vector<std::string_view> keys() const;
};

// The whole document; describes Model.
const Section& root_section();

// The sections of top-level keys, in the files that hold their tables.
const Section& site_section();  // fields.cc
const Section& node_section();  // fields_node.cc
const Section& vip_section();   // fields_traffic.cc
const Section& service_section();
const Section& pool_section();
const Section& probe_section();
const Section& certificate_section();  // fields_http.cc
const Section& listener_section();
const Section& route_section();
const Section& zone_section();  // fields_dns.cc
const Section& steer_section();
const Section& geo_section();
const Section& httpdns_section();
const Section& location_section();  // fields.cc

}  // namespace tidegate
