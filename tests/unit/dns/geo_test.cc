// SPDX-License-Identifier: Apache-2.0
#include "conf/model/geo.h"
#include "dns/steer/geo.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "dns/steer/prefix_map.h"
#include "tests/unit/dns/mmdb_writer.h"

namespace tidegate::dns::test::geo_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const Elements<Site> kSites{{"eu", {50.11, 8.68}, 0}, {"us", {40.71, -74.0}, 0}, {"ap", {35.68, 139.69}, 0}};

IpAddress ip(const std::string& text) { return *IpAddress::parse(text); }

std::shared_ptr<const GeoMap> build(const Geo& geo, std::vector<uint32_t> ranked = {0, 1, 2}) {
  auto map = GeoMap::build(geo, kSites, std::move(ranked));
  EXPECT_TRUE(map) << (map ? "" : map.error().message);
  return *map;
}

std::vector<uint32_t> order(const GeoMap& map, const std::string& address) {
  const auto found = map.order(map.locate(ip(address)));
  return {found.begin(), found.end()};
}

TEST(Distance, IsThatOfTheGreatCircle) {
  EXPECT_NEAR(distance_km({50.11, 8.68}, {40.71, -74.0}), 6200, 20);  // Frankfurt, New York
  EXPECT_NEAR(distance_km({0, 0}, {0, 180}), 20015, 1);
  EXPECT_NEAR(distance_km({0, 179.5}, {0, -179.5}), 111.2, 0.1) << "across the date line";
  EXPECT_EQ(distance_km({10, 20}, {10, 20}), 0);
}

TEST(Geo, PrefersTheNamedSiteThenTheNearest) {
  Geo geo;
  geo.networks = {{*Cidr::parse("10.1.0.0/16"), 2, std::nullopt},
                  {*Cidr::parse("10.2.0.0/16"), kNone, Location{37.77, -122.4}}};
  geo.default_site = 0;
  const auto map = build(geo);
  EXPECT_THAT(order(*map, "10.1.2.3"), ElementsAre(2, 0, 1));
  EXPECT_THAT(order(*map, "10.2.2.3"), ElementsAre(1, 2, 0));
  EXPECT_THAT(order(*map, "192.0.2.1"), ElementsAre(0, 1, 2));
  EXPECT_THAT(order(*map, "2001:db8::1"), ElementsAre(0, 1, 2));
}

TEST(Geo, TheLongestNetworkWins) {
  Geo geo;
  geo.networks = {{*Cidr::parse("10.0.0.0/8"), 0, std::nullopt},
                  {*Cidr::parse("10.1.0.0/16"), 1, std::nullopt},
                  {*Cidr::parse("10.1.2.0/24"), 2, std::nullopt},
                  {*Cidr::parse("10.1.2.3"), 0, std::nullopt}};
  const auto map = build(geo);
  EXPECT_EQ(order(*map, "10.9.9.9").front(), 0U);
  EXPECT_EQ(order(*map, "10.1.9.9").front(), 1U);
  EXPECT_EQ(order(*map, "10.1.2.9").front(), 2U);
  EXPECT_EQ(order(*map, "10.1.2.3").front(), 0U);
  EXPECT_EQ(map->locate(ip("10.1.2.3")).scope, 32);
  EXPECT_EQ(map->locate(ip("10.1.2.9")).scope, 29);
  EXPECT_EQ(map->locate(ip("10.1.9.9")).scope, 21);
}

TEST(Geo, WithNothingKnownOneAnswerHoldsForTheWholeSpace) {
  const auto map = build({});
  EXPECT_EQ(map->locate(ip("10.0.0.1")).scope, 0);
  EXPECT_EQ(map->locate(ip("2001:db8::1")).scope, 0);
  EXPECT_THAT(order(*map, "10.0.0.1"), ElementsAre(0, 1, 2));
}

TEST(Geo, NeighboursWithTheSameAnswerShareAScope) {
  Geo geo;
  for (const char* half : {"10.0.0.0/9", "10.128.0.0/9"}) geo.networks.push_back({*Cidr::parse(half), 1, std::nullopt});
  geo.default_site = 0;
  EXPECT_EQ(build(geo)->locate(ip("10.200.0.1")).scope, 8);
  geo.default_site = 1;
  EXPECT_EQ(build(geo)->locate(ip("10.200.0.1")).scope, 0) << "the default is the same: nothing to tell apart";
}

TEST(Geo, OnlySitesThatAreSteeredToTellNetworksApart) {
  Geo geo;
  geo.networks = {{*Cidr::parse("10.1.0.0/16"), 2, std::nullopt}};
  geo.default_site = 0;
  const auto map = build(geo, {0});
  EXPECT_EQ(map->locate(ip("10.1.0.1")).scope, 0);
  EXPECT_THAT(order(*map, "10.1.0.1"), ElementsAre(0));
}

// The definition of a scope, by brute force over a small part of the address space: the widest prefix around an address
// in which every address gets the same order.
TEST(GeoTwin, ScopesAreAsWideAsTheyMayBeAndNoWider) {
  std::mt19937 random(11);
  for (int round = 0; round < 40; ++round) {
    Geo geo;
    for (int i = 0; i < 12; ++i) {
      const auto prefix = static_cast<uint8_t>(22 + random() % 11);
      const auto address = IpAddress::v4(__builtin_bswap32(static_cast<uint32_t>(0x0a000000 + random() % 1024)));
      geo.networks.push_back({Cidr::of(address, prefix), static_cast<uint32_t>(random() % 3), std::nullopt});
    }
    geo.default_site = 0;
    const auto map = build(geo);
    std::vector<uint32_t> naive(1024);
    for (uint32_t i = 0; i < 1024; ++i) {
      const IpAddress address = IpAddress::v4(__builtin_bswap32(0x0a000000 + i));
      int longest = -1;
      for (const GeoNetwork& network : geo.networks) {
        // If the same network comes twice, the later one counts, in both.
        if (network.network.contains(address) && network.network.prefix >= longest) {
          longest = network.network.prefix;
          naive[i] = network.site;
        }
      }
    }
    for (uint32_t i = 0; i < 1024; ++i) {
      const IpAddress address = IpAddress::v4(__builtin_bswap32(0x0a000000 + i));
      const Located located = map->locate(address);
      ASSERT_EQ(map->order(located).front(), naive[i]);
      uint8_t widest = 32;
      while (widest > 22) {
        const uint32_t span = 1U << (32 - (widest - 1));
        const uint32_t first = i & ~(span - 1);
        bool same = true;
        for (uint32_t k = first; k < first + span; ++k) same = same && naive[k] == naive[i];
        if (!same) break;
        --widest;
      }
      if (widest > 22) {
        ASSERT_EQ(located.scope, widest) << address.to_string();
      } else {
        ASSERT_LE(located.scope, 22);
      }
    }
  }
}

TEST(PrefixMapTwin, FindsWhatALinearSearchFinds) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 20; ++round) {
    PrefixMap<uint32_t> map;
    struct Leaf {
      uint64_t start, end;
      uint16_t value;
    };
    std::vector<Leaf> leaves;
    for (uint64_t at = 0; at < uint64_t{1} << 32;) {
      auto length = static_cast<uint8_t>(1 + random() % 12);
      while (at % (uint64_t{1} << (32 - length)) != 0) ++length;
      const auto value = static_cast<uint16_t>(random() % 3);
      map.append(static_cast<uint32_t>(at), length, value);
      leaves.push_back({at, at + (uint64_t{1} << (32 - length)), value});
      at = leaves.back().end;
    }
    map.finish();
    for (int i = 0; i < 2000; ++i) {
      const auto address =
          static_cast<uint32_t>(i < 1000 ? random() : leaves[random() % leaves.size()].start - (i & 1));
      const auto leaf = std::find_if(leaves.begin(), leaves.end(),
                                     [&](const Leaf& l) { return address >= l.start && address < l.end; });
      ASSERT_EQ(map.find(address).value, leaf->value) << address;
    }
  }
}

TEST(GeoMmdb, ADatabasePlacesClientsAndNetworksWinOverIt) {
  MmdbWriter writer;
  writer.add("198.51.100.0/24", Location{48.85, 2.35});    // Paris
  writer.add("203.0.113.0/25", Location{34.05, -118.24});  // Los Angeles
  writer.add("203.0.113.128/25", std::nullopt);            // a country without coordinates
  writer.add("2001:db8::/32", Location{37.57, 126.98});    // Seoul
  const TemporaryFile file(writer.bytes());
  Geo geo;
  geo.mmdb = file.path();
  geo.networks = {{*Cidr::parse("198.51.100.64/26"), 2, std::nullopt}};
  geo.default_site = 0;
  const auto map = build(geo);
  EXPECT_EQ(order(*map, "198.51.100.1").front(), 0U);
  EXPECT_EQ(order(*map, "198.51.100.65").front(), 2U);
  EXPECT_EQ(order(*map, "203.0.113.1").front(), 1U);
  EXPECT_EQ(map->locate(ip("203.0.113.1")).scope, 25);
  EXPECT_EQ(order(*map, "203.0.113.200").front(), 0U);
  EXPECT_EQ(order(*map, "2001:db8::1").front(), 2U);
  EXPECT_EQ(map->locate(ip("2001:db8::1")).scope, 32);
  EXPECT_EQ(map->explanation(ip("203.0.113.1")).source, GeoExplanation::Source::mmdb);
  EXPECT_NEAR(map->explanation(ip("203.0.113.1")).location->latitude, 34.05, 1e-9);
  EXPECT_EQ(map->explanation(ip("198.51.100.65")).source, GeoExplanation::Source::networks);
  EXPECT_EQ(map->explanation(ip("203.0.113.200")).source, GeoExplanation::Source::default_site);
}

TEST(GeoMmdb, ABrokenDatabaseIsRefusedByName) {
  EXPECT_THAT(GeoMap::build({.mmdb = "/nonexistent/geo.mmdb"}, kSites, {0}).error().message,
              HasSubstr("/nonexistent/geo.mmdb"));
  MmdbWriter writer;
  writer.add("198.51.100.0/24", Location{48.85, 2.35});
  const std::string whole = writer.bytes();
  const TemporaryFile noise("not a database");
  EXPECT_FALSE(GeoMap::build({.mmdb = noise.path()}, kSites, {0}));
  // A tree whose second node leads back to itself.
  std::string cycle = whole;
  for (const size_t record : {11U, 15U}) cycle.replace(record - 3, 4, std::string("\0\0\0\1", 4));
  const TemporaryFile looped(cycle);
  const auto refused = GeoMap::build({.mmdb = looped.path()}, kSites, {0, 1});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("cycle"));
}

TEST(GeoMmdb, ADatabaseWithoutLocationsIsRefusedByItsType) {
  MmdbWriter writer;
  writer.add("198.51.100.0/24", std::nullopt);
  writer.add("2001:db8::/32", std::nullopt);
  const TemporaryFile file(writer.bytes());
  const auto refused = GeoMap::build({.mmdb = file.path()}, kSites, {0, 1});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr(file.path()));
  EXPECT_THAT(refused.error().message, HasSubstr("of type 'Test-City', it holds no locations"));
}

// The place that decides the answer must be the place that explain reports, for every kind of address.
TEST(GeoMmdb, AnAddressThatCarriesIpv4IsLocatedByItAlone) {
  MmdbWriter writer;
  writer.add("198.51.100.0/24", Location{48.85, 2.35});    // Paris
  writer.add("203.0.113.0/25", Location{34.05, -118.24});  // Los Angeles
  writer.add("2001:db8::/32", Location{37.57, 126.98});    // Seoul
  for (const char* prefix : {"2002::/16", "2001::/32", "::ffff:0:0/96"}) writer.alias_ipv4(prefix);
  const TemporaryFile file(writer.bytes());
  Geo geo;
  geo.mmdb = file.path();
  geo.networks = {{*Cidr::parse("192.0.2.0/24"), 2, std::nullopt}, {*Cidr::parse("2000::/4"), 1, std::nullopt}};
  geo.default_site = 0;
  const auto map = build(geo);
  struct Place {
    const char* address;
    uint32_t site;
    int scope;
    GeoExplanation::Source source;
  };
  const Place places[] = {
      {"2002:cb00:7105::1", 1, 16 + 25, GeoExplanation::Source::mmdb},  // 203.0.113.5, Los Angeles
      {"2002:c633:6401::1", 0, 16 + 1,
       GeoExplanation::Source::mmdb},  // 198.51.100.1, Paris; 192.0.2.0/24 is within 192/2
      {"2002:c000:201::1", 2, 16 + 24, GeoExplanation::Source::networks},
      {"::ffff:203.0.113.5", 1, 96 + 25, GeoExplanation::Source::mmdb},
      {"::ffff:192.0.2.1", 2, 96 + 24, GeoExplanation::Source::networks},
      {"2001:0:cb00:7105::1", 1, 0, GeoExplanation::Source::networks},  // Teredo: treated like any other IPv6 address
      {"2001:db8::1", 1, 0, GeoExplanation::Source::networks},
  };
  for (const Place& place : places) {
    const IpAddress address = ip(place.address);
    EXPECT_EQ(order(*map, place.address).front(), place.site) << place.address;
    EXPECT_EQ(map->explanation(address).source, place.source) << place.address;
    if (place.scope >= 16 + 24) EXPECT_EQ(map->locate(address).scope, place.scope) << place.address;
  }
  geo.networks.clear();
  const auto without = build(geo);
  EXPECT_EQ(without->explanation(ip("2001:0:cb00:7105::1")).source, GeoExplanation::Source::default_site)
      << "a Teredo server's place";
  EXPECT_EQ(order(*without, "2001:0:cb00:7105::1").front(), 0U);
}

TEST(GeoMmdbTwin, WhatIsToldAndWhatIsChosenAgreeForEveryAddress) {
  std::mt19937 random(6);
  const auto any = [&](std::array<uint8_t, 16> bytes) {
    const auto from = static_cast<size_t>(
        std::find_if(bytes.rbegin(), bytes.rend(), [](uint8_t b) { return b != 0; }).base() - bytes.begin());
    for (size_t i = from; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(random());
    return IpAddress::v6(bytes.data());
  };
  const auto some = [&] {
    switch (random() % 5) {
      case 0:
        return IpAddress::v4(static_cast<uint32_t>(random()));
      case 1:
        return any({0x20, 0x02});
      case 2:
        return any({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff});
      case 3:
        return any({0x20, 0x01, 0, 0, 1});
      default:
        return any({0x20, static_cast<uint8_t>(random())});
    }
  };
  MmdbWriter writer;
  Geo geo;
  for (int i = 0; i < 150; ++i) {
    const Location place{static_cast<double>(random() % 180) - 90, static_cast<double>(random() % 360) - 180};
    writer.add(Cidr::of(IpAddress::v4(static_cast<uint32_t>(random())), static_cast<uint8_t>(1 + i / 8)).to_string(),
               place);
    if (i % 2 == 0) writer.add(Cidr::of(any({0x26}), static_cast<uint8_t>(9 + i / 6)).to_string(), place);
    if (i % 10 == 0)
      geo.networks.push_back(
          {Cidr::of(some(), static_cast<uint8_t>(4 + random() % 20)), static_cast<uint32_t>(i) % 3, std::nullopt});
  }
  for (const char* prefix : {"2002::/16", "2001::/32", "::ffff:0:0/96"}) writer.alias_ipv4(prefix);
  const TemporaryFile file(writer.bytes());
  geo.mmdb = file.path();
  geo.default_site = 1;
  const auto map = build(geo);
  for (int i = 0; i < 5'000; ++i) {
    const IpAddress address = some();
    const GeoExplanation explanation = map->explanation(address);
    uint32_t nearest = explanation.site;
    if (nearest == kNone) {
      nearest = 0;
      for (uint32_t site = 1; site < kSites.size(); ++site) {
        if (distance_km(*explanation.location, kSites[site].location) <
            distance_km(*explanation.location, kSites[nearest].location))
          nearest = site;
      }
    }
    const Located located = map->locate(address);
    ASSERT_EQ(map->order(located).front(), nearest) << address.to_string();
    ASSERT_EQ(map->is_unknown(address), explanation.source == GeoExplanation::Source::default_site)
        << address.to_string();
    // The scope is right if any address that shares it gets the same order.
    IpAddress other = address;
    for (size_t bit = located.scope; bit < other.size() * 8; ++bit) {
      if (random() % 2 != 0) other.bytes[bit / 8] ^= static_cast<uint8_t>(0x80 >> bit % 8);
    }
    ASSERT_EQ(map->locate(other).place, located.place) << address.to_string() << " " << other.to_string();
  }
}

// Compared with libmaxminddb's own search, address by address.
TEST(GeoMmdbTwin, TheCompiledMapAgreesWithTheLibrary) {
  std::mt19937 random(5);
  MmdbWriter writer;
  for (int i = 0; i < 200; ++i) {
    const auto address = IpAddress::v4(static_cast<uint32_t>(random()));
    // Longer prefixes come later, so that they divide the shorter ones.
    writer.add(Cidr::of(address, static_cast<uint8_t>(1 + i / 8)).to_string(),
               Location{static_cast<double>(random() % 180) - 90, static_cast<double>(random() % 360) - 180});
  }
  const TemporaryFile file(writer.bytes());
  Geo geo;
  geo.mmdb = file.path();
  geo.default_site = 1;
  const auto map = build(geo);
  const auto mmdb = Mmdb::open(file.path()).value();
  MMDB_s library;
  ASSERT_EQ(MMDB_open(file.path().c_str(), MMDB_MODE_MMAP, &library), MMDB_SUCCESS);
  for (int i = 0; i < 5000; ++i) {
    const auto address = IpAddress::v4(static_cast<uint32_t>(random()));
    const Location from = map->explanation(address).location.value();
    sockaddr_storage storage;
    Endpoint{address, 0}.to_sockaddr(storage);
    int error = MMDB_SUCCESS;
    const auto found = MMDB_lookup_sockaddr(&library, reinterpret_cast<const sockaddr*>(&storage), &error);
    const auto ours = mmdb->lookup(address);
    ASSERT_EQ(found.found_entry, ours.has_value()) << address.to_string();
    if (ours) {
      const Location theirs = mmdb->location(found.entry.offset).value();
      ASSERT_EQ(std::pair(theirs.latitude, theirs.longitude), std::pair(ours->latitude, ours->longitude));
    }
    uint32_t nearest = 0;
    for (uint32_t site = 1; site < kSites.size(); ++site) {
      if (distance_km(from, kSites[site].location) < distance_km(from, kSites[nearest].location)) nearest = site;
    }
    ASSERT_EQ(map->order(map->locate(address)).front(), nearest) << address.to_string();
  }
  MMDB_close(&library);
}

}  // namespace tidegate::dns::test::geo_test
