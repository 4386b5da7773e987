// SPDX-License-Identifier: Apache-2.0
// What turned out to be uncacheable: where a key is stored, and the memory of keys compared with a naive twin.
#include "cache/index/uncacheable.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace tidegate::cache::uncacheable_test {

KeyHash named(uint64_t n) { return {n, n * 7'919}; }

TEST(PlaceOf, IsTheKeyUpToItsLastSlashWithoutTheQuery) {
  EXPECT_EQ(place_of("https://a.test/x/y/z"), "https://a.test/x/y/");
  EXPECT_EQ(place_of("https://a.test/x/y/"), "https://a.test/x/y/");
  EXPECT_EQ(place_of("https://a.test/"), "https://a.test/");
  EXPECT_EQ(place_of("https://a.test/x?u=/deep/er"), "https://a.test/");
  EXPECT_EQ(place_of(""), "");
}

TEST(UncacheableKeys, AKeyThatWasForgottenAndRememberedAgainIsAsYoungAsItsLastTime) {
  UncacheableKeys keys;
  keys.remember(named(0), Scope::key, 1);
  keys.forget(named(0));
  EXPECT_FALSE(keys.contains(named(0), {}, 1));
  for (uint64_t i = 1; i < kUncacheableKeys; ++i) keys.remember(named(i), Scope::key, 1);
  keys.remember(named(0), Scope::key, 1);
  keys.remember(named(kUncacheableKeys), Scope::key, 1);  // the oldest is removed
  EXPECT_TRUE(keys.contains(named(0), {}, 1));
  EXPECT_FALSE(keys.contains(named(1), {}, 1));
  EXPECT_TRUE(keys.contains(named(2), {}, 1));
}

// Keeps everything that it was told, and searches from the end.
class Twin {
 public:
  void refused(uint64_t place, Scope scope, uint64_t now_ms) { told_.push_back({place, false, scope, now_ms}); }
  void stored(uint64_t place, uint64_t now_ms) { told_.push_back({place, true, Scope::key, now_ms}); }
  bool contains(uint64_t place, const Credentials& asks, uint64_t now_ms) const {
    bool refused = false;
    for (auto told = told_.rbegin(); told != told_.rend(); ++told) {
      if (told->place != place) continue;
      if (told->stored) return refused && now_ms >= told->at_ms + UncacheablePlaces::kTrustMs;
      const bool is_of_the_asker = told->scope == Scope::key || (told->scope == Scope::cookie && asks.cookie) ||
                                   (told->scope == Scope::authorization && asks.authorization);
      refused |= is_of_the_asker && now_ms < told->at_ms + UncacheablePlaces::kRememberMs;
    }
    return refused;
  }

 private:
  struct Told {
    uint64_t place;
    bool stored;
    Scope scope;
    uint64_t at_ms;
  };
  std::vector<Told> told_;
};

void compare_with_twin(size_t steps) {
  std::mt19937_64 random(7);
  UncacheablePlaces places;
  Twin twin;
  uint64_t now_ms = 1'000'000;
  size_t uncacheable = 0;
  for (size_t i = 0; i < steps; ++i) {
    now_ms += random() % (random() % 50 == 0 ? 400'000 : 3'000);
    const uint64_t place = random() % 12;
    const uint64_t dice = random() % 100;
    constexpr Scope kLearned[] = {Scope::key, Scope::cookie, Scope::authorization};
    const Scope scope = kLearned[random() % 3];
    const Credentials asks{random() % 2 == 0, random() % 2 == 0};
    if (dice < 30) {
      places.refused(named(place), scope, now_ms);
      twin.refused(place, scope, now_ms);
    } else if (dice < 31) {
      places.stored(named(place), now_ms);
      twin.stored(place, now_ms);
    }
    ASSERT_EQ(places.contains(named(place), asks, now_ms), twin.contains(place, asks, now_ms)) << i;
    uncacheable += twin.contains(place, asks, now_ms);
  }
  EXPECT_GT(uncacheable, steps / 20);
  EXPECT_LT(uncacheable, steps - steps / 20);
}

TEST(UncacheablePlaces, AgreeWithATwinThatKeepsAllItWasTold) { compare_with_twin(3'000); }
TEST(LongUncacheablePlaces, AgreeWithATwinThatKeepsAllItWasTold) { compare_with_twin(20'000); }

TEST(UncacheablePlaces, AreBoundedAndForgetTheOldest) {
  UncacheablePlaces places;
  for (uint64_t i = 0; i < 3 * kUncacheablePlaces; ++i) {
    if (i % 2 == 0) {
      places.refused(named(i), Scope::key, 1);
    } else {
      places.stored(named(i), 1);
    }
    places.refused(named(i / 2), Scope::cookie, 1);
    ASSERT_LE(places.size(), kUncacheablePlaces);
  }
  EXPECT_EQ(places.size(), kUncacheablePlaces);
  EXPECT_FALSE(places.contains(named(0), {}, 2));
  EXPECT_TRUE(places.contains(named(3 * kUncacheablePlaces - 2), {}, 2));
}

TEST(Clock, ThatIsSetBackForgetsWhatProvedUncacheableAndWhatIsTrusted) {
  constexpr uint64_t kNow = 10'000'000, kHour = 3'600'000;
  UncacheableKeys keys;
  keys.remember(named(1), Scope::key, kNow);
  EXPECT_TRUE(keys.contains(named(1), {}, kNow));
  EXPECT_FALSE(keys.contains(named(1), {}, kNow - kHour)) << "it would hold for an hour longer";
  UncacheablePlaces places;
  places.stored(named(1), kNow);
  places.refused(named(1), Scope::key, kNow - kHour);
  EXPECT_TRUE(places.contains(named(1), {}, kNow - kHour)) << "trust from before the clock was set back";
}

}  // namespace tidegate::cache::uncacheable_test
