// SPDX-License-Identifier: Apache-2.0
#include "core/idle_list.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <random>
#include <vector>

namespace tidegate::idle_list_test {

struct Member : IdleLink {
  int number = 0;
};

TEST(IdleList, GivesTheOldestAsAPlainListDoes) {
  std::vector<Member> members(50);
  for (int i = 0; i < 50; ++i) members[i].number = i;
  IdleList<Member> list;
  std::list<int> naive;
  std::mt19937 random(3);
  for (int i = 0; i < 50'000; ++i) {
    Member& member = members[random() % members.size()];
    const auto at = std::find(naive.begin(), naive.end(), member.number);
    ASSERT_EQ(member.is_idle(), at != naive.end());
    if (random() % 2 == 0) {
      list.add(member);  // if it is in the list already, it keeps its place
      if (at == naive.end()) naive.push_back(member.number);
    } else {
      list.remove(member);
      if (at != naive.end()) naive.erase(at);
    }
    ASSERT_EQ(list.size(), naive.size());
    ASSERT_EQ(list.oldest() == nullptr, naive.empty());
    if (naive.empty()) continue;
    ASSERT_EQ(list.oldest()->number, naive.front());
    // The oldest with an even number among the eight oldest.
    const auto end = std::next(naive.begin(), static_cast<long>(std::min<size_t>(8, naive.size())));
    const auto even = std::find_if(naive.begin(), end, [](int number) { return number % 2 == 0; });
    const Member* found = list.oldest_that([](const Member& m) { return m.number % 2 == 0; }, 8);
    ASSERT_EQ(found == nullptr, even == end);
    if (found != nullptr) ASSERT_EQ(found->number, *even);
  }
  for (Member& member : members) list.remove(member);
}

}  // namespace tidegate::idle_list_test
