// SPDX-License-Identifier: Apache-2.0
// SourceLists, token buckets and SourceTable against naive twins.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <unordered_map>

#include "core/hash.h"
#include "l4/plan/source_lists.h"
#include "l4/shared_bounds.h"
#include "l4/source_table.h"

namespace tidegate::l4::source_bounds_test {

using Lists = std::vector<std::vector<Cidr>>;

std::vector<uint16_t> lists_of(const Lists& lists, const IpAddress& address) {
  std::vector<uint16_t> found;
  for (size_t i = 0; i < lists.size(); ++i) {
    if (std::any_of(lists[i].begin(), lists[i].end(), [&](const Cidr& each) { return each.contains(address); }))
      found.push_back(static_cast<uint16_t>(i));
  }
  return found;
}

std::vector<uint16_t> answer(const SourceLists& compiled, const IpAddress& address) {
  return compiled.sets()[compiled.find(static_cast<uint8_t>(address.family), words_of(address))];
}

IpAddress last_of(const Cidr& network) {
  IpAddress last = network.base;
  for (size_t bit = network.prefix; bit < last.max_prefix(); ++bit)
    last.bytes[bit / 8] |= static_cast<uint8_t>(0x80 >> bit % 8);
  return last;
}

// The next lower or higher address. At the ends of the space it stays.
IpAddress step(IpAddress address, bool up) {
  for (size_t i = address.size(); i-- > 0;) {
    address.bytes[i] = static_cast<uint8_t>(address.bytes[i] + (up ? 1 : 0xff));
    if (address.bytes[i] != (up ? 0 : 0xff)) return address;
  }
  return address;
}

// Addresses that differ in few bits, so that networks contain each other and touch.
IpAddress random_address(std::mt19937_64& random) {
  IpAddress address;
  address.family = random() % 2 == 0 ? IpAddress::Family::v4 : IpAddress::Family::v6;
  for (size_t i = 0; i < address.size(); ++i) {
    constexpr uint8_t kBytes[] = {0, 0xff, 0x80, 0x7f};
    address.bytes[i] = random() % 3 == 0 ? static_cast<uint8_t>(random()) : kBytes[random() % 4];
  }
  return address;
}

void compare_lists(int rounds, size_t most_networks, size_t asked) {
  std::mt19937_64 random(11);
  for (int round = 0; round < rounds; ++round) {
    Lists lists(1 + random() % 5);
    std::vector<IpAddress> addresses;
    for (std::vector<Cidr>& list : lists) {
      const size_t networks = random() % most_networks;
      for (size_t i = 0; i < networks; ++i) {
        const IpAddress base = random_address(random);
        list.push_back(Cidr::of(base, static_cast<uint8_t>(random() % (base.max_prefix() + 1u))));
        for (const IpAddress& edge : {list.back().base, last_of(list.back())}) {
          addresses.insert(addresses.end(), {edge, step(edge, true), step(edge, false)});
        }
      }
    }
    const auto compiled = SourceLists::build(lists);
    ASSERT_TRUE(compiled);
    std::shuffle(addresses.begin(), addresses.end(), random);
    addresses.resize(std::min(addresses.size(), asked));
    while (addresses.size() < 2 * asked) addresses.push_back(random_address(random));
    for (const IpAddress& each : addresses) {
      ASSERT_EQ(answer(**compiled, each), lists_of(lists, each)) << round << " " << each.to_string();
    }
  }
}

TEST(SourceLists, AgreeWithALinearSearch) { compare_lists(200, 30, 50); }
TEST(LongSourceLists, AgreeWithALinearSearchOverAMillionQuestions) { compare_lists(2'000, 120, 250); }

TEST(SourceLists, HoldAHundredThousandNetworksInFewMegabytes) {
  std::mt19937_64 random(3);
  Lists lists(1);
  for (int i = 0; i < 100'000; ++i) {
    IpAddress base = IpAddress::v4(static_cast<uint32_t>(random()));
    lists[0].push_back(Cidr::of(base, static_cast<uint8_t>(16 + random() % 17)));
  }
  const auto compiled = SourceLists::build(lists);
  ASSERT_TRUE(compiled);
  EXPECT_LE((*compiled)->ranges(), 200'002u);
  for (size_t i = 0; i < lists[0].size(); i += 97) EXPECT_EQ(answer(**compiled, lists[0][i].base).size(), 1u);
}

TEST(LongSourceLists, RefuseTooManyDifferentSets) {
  // Every subset of 17 lists is a different set.
  Lists lists(17);
  for (uint32_t subset = 0; subset < (1u << 17); ++subset) {
    IpAddress base = IpAddress::v4(htonl(subset << 8));
    for (size_t list = 0; list < 17; ++list) {
      if ((subset >> list & 1) != 0) lists[list].push_back(Cidr::of(base, 24));
    }
  }
  EXPECT_FALSE(SourceLists::build(lists));
}

// A bucket with fractions, on a clock that does not wrap.
struct TwinBucket {
  double tokens = 0;
  uint64_t counted_ms = 0;
  explicit TwinBucket(const Rate& rate) : tokens(rate.burst) {}
  bool take(const Rate& rate, uint64_t now_ms) {
    tokens = std::min<double>(rate.burst, tokens + static_cast<double>(now_ms - counted_ms) * rate.per_second / 1'000);
    counted_ms = now_ms;
    if (tokens < 1 - 1e-6) return false;
    tokens -= 1;
    return true;
  }
};

void compare_buckets(int operations) {
  std::mt19937_64 random(5);
  for (const Rate rate : {Rate{1, 1}, Rate{3, 7}, Rate{1'000, 50}, Rate{1'500, 3}, Rate{100'000, 4'000'000}}) {
    SharedTokens bucket;
    TwinBucket twin(rate);
    uint64_t now_ms = uint64_t{1} << 32;
    now_ms -= 20'000;  // the clock wraps on the way
    twin.counted_ms = now_ms;
    for (int i = 0; i < operations; ++i) {
      now_ms += random() % 4 == 0 ? random() % 400 : 0;
      ASSERT_EQ(bucket.take(rate, 1, static_cast<uint32_t>(now_ms)), twin.take(rate, now_ms))
          << i << " " << rate.per_second;
    }
  }
}

TEST(Tokens, AreThoseOfABucketWithFractions) { compare_buckets(20'000); }
TEST(LongTokens, AreThoseOfABucketWithFractionsOverAMillionOperations) { compare_buckets(1'000'000); }

TEST(Tokens, AFullBucketNeedsNoWritingHoweverLongNobodyAsks) {
  const Rate rate = {10, 10};
  for (const uint32_t asleep_ms : {60'000u, 2'147'483'000u, 2'200'000'000u, 4'000'000'000u}) {
    SharedTokens bucket;
    uint32_t now_ms = 4'294'960'000u;
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(bucket.take(rate, 1, now_ms));
    ASSERT_FALSE(bucket.take(rate, 1, now_ms));
    now_ms += asleep_ms;
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(bucket.take(rate, 1, now_ms)) << asleep_ms;
    ASSERT_FALSE(bucket.take(rate, 1, now_ms));
  }
}

TEST(Tokens, AWorkerWhoseClockIsALittleLateEarnsNothingTwice) {
  const Rate rate = {1'000, 10};
  SharedTokens bucket;
  int taken = 0;
  for (int round = 0; round < 100; ++round) {
    for (const uint32_t now_ms : {1'005u, 1'000u, 1'003u}) taken += bucket.take(rate, 1, now_ms) ? 1 : 0;
  }
  EXPECT_LE(taken, 15);
}

// How much several workers let pass together, if one of them has all the packets, and if they take turns.
TEST(Tokens, SharesOfWorkersExceedTheBoundByAThousandthAtMost) {
  constexpr uint32_t kWorkers = 4;
  for (const bool even : {true, false}) {
    const Rate rate = {100'000, 1'000};
    SharedTokens shared;
    std::array<TokenShare, kWorkers> shares;
    uint64_t passed = 0;
    for (uint32_t ms = 0; ms < 1'000; ++ms) {
      for (uint32_t packet = 0; packet < 300; ++packet) {
        passed += shares[even ? packet % kWorkers : 0].take(shared, rate, kWorkers, ms) ? 1 : 0;
      }
    }
    EXPECT_LE(passed, 100'000u - 100u + 1'000u + 100u) << "rate, burst and a thousandth";
    EXPECT_GE(passed, 100'000u - 100u + 1'000u - 100u);
  }
}

TEST(SourceTable, AgreesWithAMapWhileItHasRoom) {
  std::mt19937_64 random(2);
  const Rate packets = {50, 100}, flows = {1, 2};
  SourceTable table;
  table.open();
  struct Twin {
    TwinBucket packets, flows;
  };
  std::unordered_map<uint64_t, Twin> twins;
  uint64_t now_ms = (uint64_t{1} << 32) - 100'000;
  for (int i = 0; i < 200'000; ++i) {
    now_ms += random() % 16 == 0 ? random() % 50 : 0;
    const uint64_t hash = mix64(random() % 1'000 + 1);
    const auto [twin, is_new] = twins.try_emplace(hash, Twin{TwinBucket(packets), TwinBucket(flows)});
    if (is_new) twin->second.packets.counted_ms = twin->second.flows.counted_ms = now_ms;
    SourceEntry& entry = table.find(hash, static_cast<uint32_t>(now_ms));
    entry.advance(packets, flows, static_cast<uint32_t>(now_ms));
    if (random() % 4 == 0) {
      ASSERT_EQ(take_token(entry.flows_spent, flows), twin->second.flows.take(flows, now_ms)) << i;
    } else {
      ASSERT_EQ(take_token(entry.packets_spent, packets), twin->second.packets.take(packets, now_ms)) << i;
    }
  }
  EXPECT_EQ(table.forgotten(), 0u);
}

TEST(SourceTable, AFloodOfSourcesForgetsTheOldestAndHarmsNobody) {
  const Rate packets = {10, 10};
  SourceTable table;
  table.open();
  const auto pass = [&](uint64_t source, uint32_t now_ms) {
    SourceEntry& entry = table.find(mix64(source), now_ms);
    entry.advance(packets, {}, now_ms);
    return take_token(entry.packets_spent, packets);
  };
  constexpr uint64_t kHonest = 7;
  uint64_t refused = 0;
  for (uint32_t i = 0; i < 4 * kMaxSources; ++i) {
    ASSERT_TRUE(pass(1'000 + i, i / 1'000));
    if (i % 1'000 == 0) refused += pass(kHonest, i / 1'000) ? 0 : 1;
  }
  EXPECT_GT(table.forgotten(), 2 * kMaxSources);
  EXPECT_LE(refused, 4 * kMaxSources / 1'000) << "it sends a thousand a second, and so is refused if it is remembered";
  for (uint32_t i = 0; i < 10; ++i) EXPECT_TRUE(pass(kHonest, 200'000));
  const uint64_t forgotten = table.forgotten();
  for (uint32_t i = 0; i < 1'000; ++i) pass(10'000'000 + i, 400'000);
  EXPECT_EQ(table.forgotten(), forgotten) << "networks that are silent for a minute are no loss";
}

}  // namespace tidegate::l4::source_bounds_test
