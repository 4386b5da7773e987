// SPDX-License-Identifier: Apache-2.0
// A writer of MaxMind DB files, and a file that is removed after the test.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "conf/model/site.h"
#include "core/ip.h"

namespace tidegate::dns::test {

// Writes a MaxMind DB: its search tree and only the records that are needed (maxmind.github.io/MaxMind-DB).
class MmdbWriter {
 public:
  // `prefix` also stands for IPv4, as MaxMind's writer does with 2002::/16 and 2001::/32.
  void alias_ipv4(const std::string& prefix) {
    uint32_t ipv4 = 0;
    for (int i = 0; i < 96; ++i) ipv4 = nodes_[ipv4][0].value;
    const Cidr network = *Cidr::parse(prefix);
    size_t node = 0;
    for (size_t i = 0; i < network.prefix; ++i) {
      const size_t bit = network.base.bytes[i / 8] >> (7 - i % 8) & 1;
      if (i + 1u == network.prefix) {
        nodes_[node][bit] = {kNode, ipv4};
        return;
      }
      if (nodes_[node][bit].kind != kNode) {
        nodes_.push_back({});
        nodes_[node][bit] = {kNode, static_cast<uint32_t>(nodes_.size() - 1)};
      }
      node = nodes_[node][bit].value;
    }
  }
  struct Facts {
    std::string continent, country, subdivision;
    uint32_t asn = 0;
  };
  void add(const std::string& cidr, std::optional<Location> location) { add(cidr, location, Facts{}); }
  void add(const std::string& cidr, std::optional<Location> location, const Facts& facts) {
    Cidr network = *Cidr::parse(cidr);
    std::array<uint8_t, 16> bits{};
    size_t length = network.prefix;
    std::copy_n(network.base.bytes.begin(), network.base.size(), bits.begin() + (network.base.is_v4() ? 12 : 0));
    if (network.base.is_v4()) length += 96;
    size_t node = 0;
    for (size_t i = 0; i < length; ++i) {
      const size_t bit = bits[i / 8] >> (7 - i % 8) & 1;
      if (i + 1 == length) {
        nodes_[node][bit] = {kData, static_cast<uint32_t>(data_.size())};
      } else {
        if (nodes_[node][bit].kind != kNode) {
          nodes_.push_back({nodes_[node][bit], nodes_[node][bit]});  // a shorter network continues around this one
          nodes_[node][bit] = {kNode, static_cast<uint32_t>(nodes_.size() - 1)};
        }
        node = nodes_[node][bit].value;
      }
    }
    const auto says = [](const std::string& text) { return text.empty() ? 0 : 1; };
    put_map(data_, (location ? 1 : 0) + says(facts.continent) + says(facts.country) + says(facts.subdivision) +
                       (facts.asn != 0 ? 1 : 0));
    if (says(facts.continent) != 0) put_code(data_, "continent", "code", facts.continent);
    if (says(facts.country) != 0) put_code(data_, "country", "iso_code", facts.country);
    if (says(facts.subdivision) != 0) {
      put_text(data_, "subdivisions");
      data_ += std::string("\x01\x04", 2);  // an array of one, extended type 11
      put_map(data_, 1);
      put_text(data_, "iso_code");
      put_text(data_, facts.subdivision);
    }
    if (facts.asn != 0) put_number(data_, "autonomous_system_number", 6, facts.asn);
    if (!location) return;
    put_text(data_, "location");
    put_map(data_, 2);
    put_text(data_, "latitude");
    put_double(data_, location->latitude);
    put_text(data_, "longitude");
    put_double(data_, location->longitude);
  }

  std::string bytes() const {
    std::string out;
    for (const auto& node : nodes_) {
      for (const Record& record : node) {
        const auto count = static_cast<uint32_t>(nodes_.size());
        put_be(out, record.kind == kNode ? record.value : record.kind == kNone ? count : count + 16 + record.value, 4);
      }
    }
    out += std::string(16, '\0') + data_ + "\xab\xcd\xefMaxMind.com";
    put_map(out, 9);
    put_text(out, "languages");
    out += std::string("\0\x04", 2);  // an empty array, extended type 11
    put_text(out, "description");
    put_map(out, 0);
    put_number(out, "node_count", 6, nodes_.size());
    put_number(out, "record_size", 5, 32);
    put_number(out, "ip_version", 5, 6);
    put_text(out, "database_type");
    put_text(out, "Test-City");
    put_number(out, "binary_format_major_version", 5, 2);
    put_number(out, "binary_format_minor_version", 5, 0);
    put_text(out, "build_epoch");
    out += std::string("\x04\x02", 2);  // uint64, extended type 9
    put_be(out, 1, 4);
    return out;
  }

 private:
  enum Kind { kNone, kNode, kData };
  struct Record {
    Kind kind = kNone;
    uint32_t value = 0;
  };
  static void put_be(std::string& out, uint64_t value, size_t bytes) {
    for (size_t i = bytes; i-- > 0;) out += static_cast<char>(value >> (8 * i));
  }
  static void put_map(std::string& out, size_t pairs) { out += static_cast<char>(7 << 5 | pairs); }
  static void put_text(std::string& out, const std::string& text) {
    out += static_cast<char>(2 << 5 | text.size()) + text;
  }
  static void put_code(std::string& out, const std::string& key, const std::string& inner, const std::string& code) {
    put_text(out, key);
    put_map(out, 1);
    put_text(out, inner);
    put_text(out, code);
  }
  static void put_number(std::string& out, const std::string& key, int type, uint64_t value) {
    put_text(out, key);
    const size_t bytes = type == 5 ? 2 : 4;
    out += static_cast<char>(type << 5 | bytes);
    put_be(out, value, bytes);
  }
  static void put_double(std::string& out, double value) {
    uint64_t bits;
    std::memcpy(&bits, &value, 8);
    out += static_cast<char>(3 << 5 | 8);
    put_be(out, bits, 8);
  }

  std::vector<std::array<Record, 2>> nodes_ = std::vector<std::array<Record, 2>>(1);
  std::string data_;
};

// A file that is removed after the test.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& content) {
    const int fd = ::mkstemp(path_.data());
    EXPECT_EQ(::write(fd, content.data(), content.size()), static_cast<ssize_t>(content.size()));
    ::close(fd);
  }
  ~TemporaryFile() { ::unlink(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_ = ::testing::TempDir() + "tidegate-mmdb-XXXXXX";
};

}  // namespace tidegate::dns::test
