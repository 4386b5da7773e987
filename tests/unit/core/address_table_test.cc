// SPDX-License-Identifier: Apache-2.0
#include "core/address_table.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <thread>
#include <vector>

#include "core/clock.h"

namespace tidegate::address_table_test {

const HashKey kKey{0x1234, 0x5678};

IpAddress v4(uint32_t host_order) { return IpAddress::v4(htonl(host_order)); }

// Tokens as a number that grows with time. The bucket must equal it.
class NaiveBucket {
 public:
  explicit NaiveBucket(const TokenRate& rate) : rate_(rate), saved_ns_(rate.burst_ns()) {}
  bool take(uint64_t tokens, uint64_t now_ns) {
    earn(now_ns);
    if (saved_ns_ < static_cast<int64_t>(tokens * rate_.interval_ns)) return false;
    saved_ns_ -= static_cast<int64_t>(tokens * rate_.interval_ns);
    return true;
  }
  void charge(uint64_t tokens, uint64_t now_ns) {
    earn(now_ns);
    const auto burst_ns = static_cast<int64_t>(rate_.burst_ns());
    saved_ns_ = std::max(saved_ns_ - static_cast<int64_t>(tokens * rate_.interval_ns), -burst_ns);
  }

 private:
  void earn(uint64_t now_ns) {
    const auto burst_ns = static_cast<int64_t>(rate_.burst_ns());
    saved_ns_ = std::min(saved_ns_ + static_cast<int64_t>(now_ns - last_ns_), burst_ns);
    last_ns_ = now_ns;
  }
  TokenRate rate_;
  int64_t saved_ns_;
  uint64_t last_ns_ = 0;
};

TEST(TokenBucket, GivesWhatANaiveBucketGives) {
  std::mt19937_64 random(1);
  for (const TokenRate rate : {TokenRate{1'000, 1}, TokenRate{1'000, 10}, TokenRate{7, 300}}) {
    TokenBucket bucket;
    NaiveBucket naive(rate);
    uint64_t now_ns = 1'000'000;
    for (int i = 0; i < 20'000; ++i) {
      now_ns += random() % (3 * rate.interval_ns);
      const uint64_t tokens = 1 + random() % 3;
      if (random() % 16 == 0) {
        bucket.charge(rate, tokens, now_ns);
        naive.charge(tokens, now_ns);
      } else {
        ASSERT_EQ(bucket.take(rate, tokens, now_ns), naive.take(tokens, now_ns)) << i;
      }
    }
  }
}

TEST(TokenBucket, ADebtEndsAfterOneBurstsTime) {
  const TokenRate rate = TokenRate::per_second(1'000, 100);
  TokenBucket bucket;
  bucket.charge(rate, 1'000'000, kNsPerS);
  EXPECT_EQ(bucket.tokens(rate, kNsPerS), 0u);
  EXPECT_FALSE(bucket.take(rate, 1, kNsPerS + rate.burst_ns()));
  EXPECT_TRUE(bucket.take(rate, 1, kNsPerS + rate.burst_ns() + rate.interval_ns));
  // A charge with an earlier time never shortens a debt.
  bucket.charge(rate, 1'000'000, 2 * kNsPerS);
  const uint64_t due_ns = bucket.full_at_ns();
  bucket.charge(rate, 1, kNsPerS);
  EXPECT_EQ(bucket.full_at_ns(), due_ns);
}

TEST(TokenBucket, ADebtOfAStricterRateEndsAsOneOfTheRateInForce) {
  const TokenRate strict = TokenRate::per_second(1, 1'000), usual = TokenRate::per_second(1'000, 100);
  TokenBucket bucket;
  bucket.charge(strict, 1'000'000, kNsPerS);
  EXPECT_FALSE(bucket.take(usual, 1, 2 * kNsPerS));
  EXPECT_FALSE(bucket.take(usual, 1, 2 * kNsPerS + usual.burst_ns()));
  EXPECT_TRUE(bucket.take(usual, 1, 2 * kNsPerS + usual.burst_ns() + usual.interval_ns));
}

TEST(TokenBucket, WithoutARateEverythingIsGiven) {
  AddressTable table(16, kKey);
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(table.take(v4(1), TokenRate{}, 1'000'000, 5));
}

TEST(AddressTable, CountsAsANaiveMapDoesWhileThereIsRoom) {
  constexpr uint32_t kAddresses = 200, kAtMost = 5;
  const TokenRate rate{1'000, 20};
  AddressTable table(4 * kAddresses, kKey);
  std::map<uint32_t, std::vector<AddressTable::Hold>> holds;
  std::map<uint32_t, NaiveBucket> buckets;
  std::mt19937_64 random(2);
  uint64_t now_ns = kNsPerS;
  for (int i = 0; i < 100'000; ++i) {
    now_ns += random() % 100;
    const auto address = static_cast<uint32_t>(random() % kAddresses);
    std::vector<AddressTable::Hold>& held = holds[address];
    NaiveBucket& bucket = buckets.try_emplace(address, rate).first->second;
    switch (random() % 4) {
      case 0: {
        std::optional<AddressTable::Hold> hold = table.hold(v4(address), kAtMost, now_ns);
        ASSERT_EQ(hold.has_value(), held.size() < kAtMost);
        if (hold) held.push_back(std::move(*hold));
        break;
      }
      case 1:
        if (!held.empty()) held.pop_back();
        break;
      case 2:
        ASSERT_EQ(table.take(v4(address), rate, 1, now_ns), bucket.take(1, now_ns)) << i;
        break;
      case 3:
        table.charge(v4(address), rate, 2, now_ns);
        bucket.charge(2, now_ns);
        break;
    }
    ASSERT_EQ(table.look(v4(address), rate, now_ns).held, held.size());
  }
  EXPECT_EQ(table.untracked(), 0u);
}

TEST(AddressTable, OneCustomersSlash64IsOneAddressAndItsNeighbourIsAnother) {
  AddressTable table(16, kKey);
  const auto at = [](const char* text) { return *IpAddress::parse(text); };
  std::optional<AddressTable::Hold> first = table.hold(at("2001:db8:1:2::1"), 1, 1);
  ASSERT_TRUE(first);
  EXPECT_FALSE(table.hold(at("2001:db8:1:2:ffff::9"), 1, 1));
  EXPECT_TRUE(table.hold(at("2001:db8:1:3::1"), 1, 1));
  std::optional<AddressTable::Hold> v4_hold = table.hold(at("192.0.2.1"), 1, 1);
  EXPECT_FALSE(table.hold(at("::ffff:192.0.2.1"), 1, 1)) << "a mapped address is the IPv4 one";
  EXPECT_TRUE(table.hold(at("192.0.2.2"), 1, 1));
  EXPECT_TRUE(table.hold(at("::1"), 1, 1)) << "the loopback is an address like others";
  EXPECT_EQ(AddressTable::group_of(at("2001:db8:1:2::1")), "2001:db8:1:2::/64");
  EXPECT_EQ(AddressTable::group_of(at("192.0.2.1")), "192.0.2.1");
}

// A flood of new addresses must not remove important addresses.
TEST(AddressTable, AFloodOfAddressesWashesOffNoDebtAndNoHold) {
  const TokenRate rate = TokenRate::per_second(100, 100);
  AddressTable table(1'000, kKey);
  const uint64_t now_ns = kNsPerS;
  std::vector<AddressTable::Hold> held;
  for (uint32_t i = 0; i < 100; ++i) {  // these are in debt, and hold a connection
    table.charge(v4(0x0a000000 + i), rate, 500, now_ns);
    for (int n = 0; n < 3; ++n) held.push_back(*table.hold(v4(0x0b000000 + i), 3, now_ns));
  }
  size_t refused = 0;
  for (uint32_t i = 0; i < 200'000; ++i) refused += table.take(v4(0xc0000000 + i), rate, 1, now_ns) ? 0 : 1;
  EXPECT_EQ(refused, 0u) << "a newcomer is nobody's debtor";
  for (uint32_t i = 0; i < 100; ++i) {
    EXPECT_FALSE(table.take(v4(0x0a000000 + i), rate, 1, now_ns)) << i;
    EXPECT_FALSE(table.hold(v4(0x0b000000 + i), 3, now_ns)) << i;
  }
  // The same for one attacker who sends IPv6 from a whole /32 of his own.
  for (uint32_t i = 0; i < 200'000; ++i) {
    const uint8_t bytes[16] = {0x20, 1, 0xd, 0xb8, uint8_t(i >> 24), uint8_t(i >> 16), uint8_t(i >> 8), uint8_t(i)};
    table.take(IpAddress::v6(bytes), rate, 1, now_ns);
  }
  for (uint32_t i = 0; i < 100; ++i) {
    EXPECT_FALSE(table.take(v4(0x0a000000 + i), rate, 1, now_ns)) << i;
    EXPECT_FALSE(table.hold(v4(0x0b000000 + i), 3, now_ns)) << i;
  }
}

TEST(AddressTable, WhoHoldsWhenEveryEntryIsHeldIsNotCountedAndNotRefused) {
  AddressTable table(1, kKey);
  std::vector<AddressTable::Hold> held;
  for (uint32_t i = 0; i < table.capacity() + 50; ++i) {
    std::optional<AddressTable::Hold> hold = table.hold(v4(i + 1), 1, 1);
    ASSERT_TRUE(hold) << i;
    held.push_back(std::move(*hold));
  }
  EXPECT_EQ(table.untracked(), 50u);
  held.clear();
  EXPECT_TRUE(table.hold(v4(99'999), 1, 1));
  EXPECT_EQ(table.untracked(), 50u);
}

TEST(AddressTable, ThreadsThatShareItLoseNoHoldAndTakeNoMoreThanThereIs) {
  constexpr int kThreads = 4, kRounds = 20'000;
  constexpr uint32_t kAtMost = 3;
  const TokenRate rate{kNsPerS, 1'000};  // no time passes in this test
  AddressTable table(8, kKey);           // few entries, so they are reused all the time
  std::atomic<int> holding{0}, most{0};
  std::atomic<uint64_t> taken{0};
  const IpAddress shared = v4(7);
  // Known and held before the threads start, so that the address has one entry.
  std::optional<AddressTable::Hold> anchor = table.hold(shared, kAtMost + 1, 1);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(t);
      for (int i = 0; i < kRounds; ++i) {
        const std::optional<AddressTable::Hold> other = table.hold(v4(100 + random() % 64), 2, 1);
        table.charge(v4(100 + random() % 64), rate, 1, 1);
        if (table.take(shared, rate, 1, 1)) ++taken;
        if (const std::optional<AddressTable::Hold> mine = table.hold(shared, kAtMost + 1, 1)) {
          const int now = ++holding;
          int seen = most.load();
          while (now > seen && !most.compare_exchange_weak(seen, now)) continue;
          --holding;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(most.load(), static_cast<int>(kAtMost));
  EXPECT_EQ(taken.load(), rate.burst);
  EXPECT_EQ(table.look(shared, rate, 1).held, 1u);
  for (uint32_t i = 0; i < 64; ++i) EXPECT_EQ(table.look(v4(100 + i), rate, 1).held, 0u) << i;
}

}  // namespace tidegate::address_table_test
