// SPDX-License-Identifier: Apache-2.0
// A simulation of the closed loop of shedding: clients keep an answer for its TTL, so a change of the share takes
// effect late. The same checks are applied to a naive controller, which must fail.
#include "control/health/shed_controller.h"

#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <random>
#include <vector>

namespace tidegate::shed_controller_test {

constexpr double kPeriodS = 5;

// A site whose clients renew their answers evenly over the TTL: the load follows the mean share of the last TTL.
class Site {
 public:
  explicit Site(double ttl_s) : kept_(static_cast<size_t>(std::max(1.0, ttl_s / kPeriodS)), 1.0) {}
  // One period with this share, under a demand in per cent of the site's capacity.
  double step(uint32_t permille, double demand) {
    kept_.pop_front();
    kept_.push_back(1 - permille / 1'000.0);
    double sum = 0;
    for (const double each : kept_) sum += each;
    // CPU time cannot exceed what there is.
    return std::min(demand * sum / static_cast<double>(kept_.size()), 100.0);
  }

 private:
  std::deque<double> kept_;
};

// Corrects the whole error at once, as a first version would.
class NaiveController {
 public:
  void observe(double load, double above, double, double) {
    kept_ = std::min(1.0, kept_ * above / std::max(load, 0.01));
  }
  uint32_t permille() const { return static_cast<uint32_t>((1 - kept_) * 1'000); }

 private:
  double kept_ = 1;
};

struct Course {
  std::vector<double> loads;
  std::vector<uint32_t> shares;
  // The number of times that the share changed direction by more than `least` permille. An oscillating controller
  // changes direction again and again.
  size_t turns(uint32_t least = 50) const {
    size_t count = 0;
    double low = shares.front(), high = shares.front();
    int direction = 0;
    for (const double share : shares) {
      low = std::min(low, share);
      high = std::max(high, share);
      if (direction >= 0 && share < high - least) {
        count += direction > 0 ? 1 : 0;
        direction = -1;
        low = share;
      } else if (direction <= 0 && share > low + least) {
        count += direction < 0 ? 1 : 0;
        direction = 1;
        high = share;
      }
      if (direction > 0) low = high;
      if (direction < 0) high = low;
      if (direction > 0) high = std::max(high, share);
      if (direction < 0) low = std::min(low, share);
    }
    return count;
  }
  size_t writes() const {
    size_t count = 0;
    for (size_t i = 1; i < shares.size(); ++i) count += shares[i] != shares[i - 1] ? 1 : 0;
    return count;
  }
};

// `demand` returns per cent for a second.
template <class Controller, class Demand>
Course run(double ttl_s, double seconds, Demand&& demand, double above = 80) {
  Controller controller;
  Site site(ttl_s);
  Course course;
  for (double t = 0; t < seconds; t += kPeriodS) {
    course.loads.push_back(site.step(controller.permille(), demand(t)));
    controller.observe(course.loads.back(), above, kPeriodS, ttl_s);
    course.shares.push_back(controller.permille());
  }
  return course;
}

double step_to_150(double t) { return t < 60 ? 50 : 150; }

TEST(ShedController, ALoadedSiteComesToItsBoundAndStaysThere) {
  for (const double ttl_s : {5.0, 30.0, 120.0, 300.0}) {
    for (const double demand : {90.0, 120.0, 150.0, 300.0, 1'000.0}) {
      const Course course =
          run<ShedController>(ttl_s, 60 + 40 * (ttl_s + 10), [&](double t) { return t < 60 ? 50 : demand; });
      EXPECT_LE(course.loads.back(), 82) << ttl_s << " s, " << demand << " %";
      EXPECT_GE(course.loads.back(), 68);
      EXPECT_EQ(course.turns(), 0U) << ttl_s << " s, " << demand << " %: it swings";
    }
  }
}

TEST(ShedController, ANaiveControllerFailsThisTest) {
  const Course naive = run<NaiveController>(120, 3'600, &step_to_150);
  EXPECT_GT(naive.turns(), 4U) << "the judge sees swings";
  EXPECT_EQ(run<ShedController>(120, 3'600, &step_to_150).turns(), 0U);
}

TEST(ShedController, NothingIsWrittenWhileNothingMoves) {
  const Course course = run<ShedController>(30, 7'200, &step_to_150);
  Course late;
  late.shares.assign(course.shares.begin() + 200, course.shares.end());
  EXPECT_EQ(late.writes(), 0U);
  EXPECT_LE(course.writes(), 60U) << "a share moves in steps";
}

TEST(ShedController, NoiseMovesNothingWithinTheBand) {
  std::mt19937 dice(3);
  std::normal_distribution<double> noise(0, 3);
  const auto demand = [&](double) { return 75 + noise(dice); };
  const Course course = run<ShedController>(30, 7'200, demand);
  EXPECT_LE(course.shares.back(), 100U);
  EXPECT_LE(course.writes(), 30U) << "two hours of a load that trembles around its bound";
  EXPECT_EQ(run<ShedController>(30, 7'200, [](double) { return 79.0; }).writes(), 0U);
}

TEST(ShedController, AnIdleSiteTakesAllItsClientsAgain) {
  const Course course = run<ShedController>(30, 7'200, [](double t) { return t < 1'200 ? 200 : 40; });
  EXPECT_GT(course.shares[200], 500U);
  EXPECT_EQ(course.shares.back(), 0U);
  EXPECT_EQ(course.turns(), 1U) << "up once and down once";
}

TEST(ShedController, ASiteThatNothingHelpsKeepsAFewOfItsClients) {
  const Course course = run<ShedController>(30, 7'200, [](double) { return 1e6; });
  EXPECT_EQ(course.shares.back(), ShedController::kMostPermille);
}

TEST(ShedController, AShareInForceGoesOnAfterARestart) {
  ShedController controller(400);
  EXPECT_EQ(controller.permille(), 400U);
  controller.observe(78, 80, kPeriodS, 30);
  EXPECT_EQ(controller.permille(), 400U);
  EXPECT_EQ(ShedController(5'000).permille(), ShedController::kMostPermille) << "whatever the state says";
}

// The clients that one site sends away are the other site's demand.
TEST(ShedController, TwoSitesDoNotThrowTheirClientsToAndFro) {
  for (const double ttl_s : {30.0, 120.0}) {
    ShedController a, b;
    Site site_a(ttl_s), site_b(ttl_s);
    Course course_a, course_b;
    double load_b = 60;
    for (double t = 0; t < 7'200; t += kPeriodS) {
      const double demand_a = t < 60 ? 60 : 140, demand_b = 60;
      const double load_a = site_a.step(a.permille(), demand_a + demand_b * b.permille() / 1'000);
      load_b = site_b.step(b.permille(), demand_b + demand_a * a.permille() / 1'000);
      a.observe(load_a, 80, kPeriodS, ttl_s);
      b.observe(load_b, 80, kPeriodS, ttl_s);
      course_a.loads.push_back(load_a);
      course_a.shares.push_back(a.permille());
      course_b.shares.push_back(b.permille());
    }
    EXPECT_EQ(course_a.turns(), 0U);
    EXPECT_LE(course_b.turns(), 1U);
    Course late;
    late.shares.assign(course_a.shares.end() - 200, course_a.shares.end());
    EXPECT_LE(late.writes(), 40U) << "together they are asked for more than both can do: they hold still nevertheless";
  }
}

}  // namespace tidegate::shed_controller_test
