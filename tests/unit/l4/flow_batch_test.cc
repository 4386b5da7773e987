// SPDX-License-Identifier: Apache-2.0
#include "l4/flow_batch.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace tidegate::l4::flow_batch_test {

constexpr HashKey kKey{0x0123456789abcdef, 0xfedcba9876543210};

FlowTuple random_tuple(std::mt19937_64& random, uint64_t ip6_of_eight) {
  FlowTuple tuple;
  tuple.family = random() % 8 < ip6_of_eight ? 6 : 4;
  tuple.protocol = random() % 2 == 0 ? kProtocolTcp : kProtocolUdp;
  tuple.client_port_be = static_cast<uint16_t>(random());
  tuple.service_port_be = static_cast<uint16_t>(random());
  if (tuple.family == 6) {
    tuple.client = {random(), random()};
    tuple.vip = {random(), random()};
  } else {
    tuple.client = {random() & UINT32_MAX, 0};
    tuple.vip = {random() & UINT32_MAX, 0};
  }
  return tuple;
}

class EachWidth : public ::testing::TestWithParam<FlowBatch::Width> {};

// Bursts of every size and with every mixture of families, one after another through the same batch.
TEST_P(EachWidth, GivesEachTupleOnceTheHashThatTheHasherGivesIt) {
  const FlowHasher hasher(kKey);
  FlowBatch batch(hasher, GetParam());
  std::mt19937_64 random(1);
  for (uint64_t ip6_of_eight = 0; ip6_of_eight <= 8; ++ip6_of_eight) {
    for (size_t size = 0; size <= FlowBatch::kMost; ++size) {
      std::vector<uint64_t> expected(size), got(size, 0);
      const auto settle = [&](uint16_t owner, uint64_t hash) {
        EXPECT_EQ(got.at(owner), 0U) << "settled twice";
        got.at(owner) = hash;
      };
      for (size_t i = 0; i < size; ++i) {
        const FlowTuple tuple = random_tuple(random, ip6_of_eight);
        expected[i] = hasher.tuple(tuple);
        batch.add(static_cast<uint16_t>(i), tuple);
      }
      batch.finish(settle);
      ASSERT_EQ(got, expected) << size << " tuples, IPv6 " << ip6_of_eight << " of 8";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(FlowBatch, EachWidth, ::testing::Values(FlowBatch::Width::any, FlowBatch::Width::widest));

}  // namespace tidegate::l4::flow_batch_test
