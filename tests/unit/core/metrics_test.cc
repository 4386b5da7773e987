// SPDX-License-Identifier: Apache-2.0
#include "core/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

namespace tidegate::metrics_test {

using ::testing::HasSubstr;

TEST(Counter, SumsWhatManyThreadsCount) {
  Metrics registry;
  Counter& counter = registry.counter("tidegate_test_total", "Test.");
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kMaxMetricThreads + 8; ++t) {  // the last threads share a slot
    threads.emplace_back([&counter] {
      for (int i = 0; i < 1000; ++i) counter.add();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counter.value(), 1000 * (kMaxMetricThreads + 8));
}

TEST(Counter, IsTheSameForTheSameNameAndLabels) {
  Metrics registry;
  Counter& one = registry.counter("tidegate_test_total", "Test.", {{"reason", "a"}});
  EXPECT_EQ(&one, &registry.counter("tidegate_test_total", "Test.", {{"reason", "a"}}));
  EXPECT_NE(&one, &registry.counter("tidegate_test_total", "Test.", {{"reason", "b"}}));
}

TEST(LatencyHistogram, PutsEveryDurationUnderItsBucketsBound) {
  for (uint64_t ns = 0; ns < 400'000'000'000; ns = ns * 9 / 8 + 137) {
    const size_t bucket = LatencyHistogram::bucket_of(ns);
    ASSERT_LT(bucket, LatencyHistogram::kBuckets);
    if (bucket + 1 < LatencyHistogram::kBuckets) {
      EXPECT_LT(ns, LatencyHistogram::upper_bound_ns(bucket));
    }
    if (bucket > 0) {
      EXPECT_GE(ns, LatencyHistogram::upper_bound_ns(bucket - 1));
    }
  }
}

TEST(LatencyHistogram, CountsAndSums) {
  LatencyHistogram histogram;
  histogram.record_ns(1'500);
  histogram.record_ns(1'600);
  histogram.record_ns(2'000'000'000'000);
  EXPECT_EQ(histogram.count_in(1), 2u);
  EXPECT_EQ(histogram.count_in(LatencyHistogram::kBuckets - 1), 1u);
  EXPECT_EQ(histogram.sum_ns(), 2'000'000'003'100u);
}

TEST(Prometheus, ShowsEachKindInTheTextFormat) {
  Metrics registry;
  registry.counter("tidegate_test_requests_total", "Requests.", {{"code", "200"}}).add(3);
  registry.gauge("tidegate_test_depth", "Depth.", [] { return 2.5; });
  registry.latency("tidegate_test_seconds", "Latency.", {{"pool", "a"}}).record_ns(3'000'000);
  registry.collector([](std::string& out) { out += "tidegate_test_dynamic 1\n"; });
  const std::string text = registry.prometheus_text();
  EXPECT_THAT(text, HasSubstr("# HELP tidegate_test_requests_total Requests.\n"
                              "# TYPE tidegate_test_requests_total counter\n"
                              "tidegate_test_requests_total{code=\"200\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("# TYPE tidegate_test_depth gauge\ntidegate_test_depth 2.5\n"));
  EXPECT_THAT(text, HasSubstr("tidegate_test_seconds_bucket{pool=\"a\",le=\"+Inf\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("tidegate_test_seconds_sum{pool=\"a\"} 0.003\n"));
  EXPECT_THAT(text, HasSubstr("tidegate_test_seconds_count{pool=\"a\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("tidegate_test_dynamic 1\n"));
}

TEST(Prometheus, BucketsAreCumulative) {
  Metrics registry;
  LatencyHistogram& histogram = registry.latency("tidegate_test_seconds", "Latency.");
  histogram.record_ns(1'000'000);
  histogram.record_ns(1'000'000'000);
  const std::string text = registry.prometheus_text();
  uint64_t last = 0;
  size_t at = 0, lines = 0;
  while ((at = text.find("_bucket{", at)) != std::string::npos) {
    const uint64_t value = std::stoull(text.substr(text.find("} ", at) + 2));
    EXPECT_GE(value, last);
    last = value;
    ++at;
    ++lines;
  }
  EXPECT_EQ(last, 2u);
  EXPECT_GT(lines, 20u);
}

TEST(Prometheus, EscapesLabelValues) {
  EXPECT_EQ(render_labels({{"a", "x\"y\\z\nw"}}), "{a=\"x\\\"y\\\\z\\nw\"}");
  EXPECT_EQ(render_labels({}), "");
}

}  // namespace tidegate::metrics_test
