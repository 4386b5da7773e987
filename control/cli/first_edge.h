// SPDX-License-Identifier: Apache-2.0
// FirstEdge: a first configuration from a few answers. `tidegate init` asks them. Pure: no files, no terminal.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/ip.h"
#include "core/result.h"

namespace tidegate::cli {

inline constexpr uint16_t kHttps = 443, kDns = 53;

struct FirstEdge {
  // The node's name, and its keys l7 and cache as YAML in one line.
  std::string node = "edge", l7 = "{workers: auto}", cache = "{disk: 1GB}";
  std::vector<Endpoint> backends;    // never empty in a whole configuration
  std::vector<std::string> hosts;    // empty: any
  std::optional<Endpoint> listen;    // not set: every address, port 80, or 443 with a certificate
  std::string certificate, key;      // paths, relative to the document's folder or absolute; both or none
  std::string zone;                  // empty: no DNS
  std::optional<IpAddress> address;  // for the zone's names; not set: the address of `listen`

  Endpoint listens_at() const;
  // The address to which the zone's names lead. Nothing if `listen` is every address; then it must be given.
  std::optional<IpAddress> public_address() const;
};

// "192.0.2.7:8080, [2001:db8::7]:8080": at least one, at most kMaxBackends. The Error says what is wrong with which
// one.
Result<std::vector<Endpoint>> parse_backends(std::string_view text);
// True if a host can have the address: it is not multicast, reserved or unspecified.
bool is_of_a_host(const IpAddress& address);
// "192.0.2.1:80", or without a port (0 then: the caller's default). Every address is one to listen at.
Result<Endpoint> parse_listen(std::string_view text);
std::vector<std::string> parse_words(std::string_view text);  // separated by commas or blanks

// The document, with comments that say what to change next.
std::string document_of(const FirstEdge& edge);
// The zone's master file: the apex, `ns`, and the hosts within the zone. Needs a zone and public_address().
std::string zone_file_of(const FirstEdge& edge);
std::string zone_file_name(const FirstEdge& edge);

}  // namespace tidegate::cli
