// SPDX-License-Identifier: Apache-2.0
// authorise: places. Where clients come from, by real databases.
#include <gtest/gtest.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/policy.h"
#include "conf/policy/authorise.h"
#include "tests/unit/dns/mmdb_writer.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::places_test {

using dns::test::MmdbWriter;
using dns::test::TemporaryFile;

std::string database(const std::string& country_of_192) {
  MmdbWriter writer;
  writer.add("192.0.2.0/25", std::nullopt, {.country = country_of_192, .asn = 64'500});
  writer.add("192.0.2.128/25", std::nullopt, {.country = country_of_192, .asn = 64'501});
  writer.add("198.51.100.0/24", std::nullopt, {.country = "US"});
  writer.add("2001:db8::/32", std::nullopt, {.country = "FR", .asn = 64'502});
  return writer.bytes();
}

class PlacesTest : public ::testing::Test {
 protected:
  PlacesTest() : part_(std::make_shared<AuthorisePolicy>()) {
    part_->places.enabled = true;
    edge_.model.listeners[0].trusted_proxies = {*Cidr::parse("127.0.0.0/8")};
    edge_.add_fixed("/x", 204);
  }
  void start(const std::string& path) {
    edge_.model.geo.mmdb = path;
    edge_.model.policies = {{"places", true, {{"authorise", part_}}}};
    edge_.start();
  }
  int status(const std::string& client) {
    return ask(edge_.endpoint(), get("/x", "a.test", "X-Forwarded-For: " + client + "\r\n")).status;
  }
  nlohmann::json explained(const std::string& client) {
    HttpRequest request;
    request.query = "url=http://a.test/x&client=" + client;
    return (*edge_.proxy().explain(request))["policies"][0];
  }
  uint64_t unread() { return edge_.metric("tidegate_l7_places_unread{policy=\"places\"}"); }
  Edge edge_;
  std::shared_ptr<AuthorisePolicy> part_;
};

TEST_F(PlacesTest, CountriesAndAutonomousSystemsDecide) {
  const TemporaryFile file(database("DE"));
  part_->places.allow_countries = {"DE"};
  part_->places.allow_asns = {64'502};
  part_->places.deny_asns = {64'501};
  start(file.path());
  EXPECT_EQ(status("192.0.2.1"), 204);
  EXPECT_EQ(status("192.0.2.129"), 403) << "its country may, its autonomous system may not";
  EXPECT_EQ(status("198.51.100.1"), 403);
  EXPECT_EQ(status("2001:db8::1"), 204) << "its autonomous system may";
  EXPECT_EQ(status("203.0.113.1"), 403) << "nobody knows where it is";
  EXPECT_EQ(edge_.metric("tidegate_l7_policy_verdicts_total{policy=\"places\",kind=\"places\",verdict=\"refused\"}"),
            3u);
  const nlohmann::json told = explained("192.0.2.129");
  EXPECT_EQ(told["verdict"], "refused");
  EXPECT_EQ(told["because_of"], "asn");
  EXPECT_EQ(told["country"], "DE");
  EXPECT_EQ(told["asn"], 64'501);
}

TEST_F(PlacesTest, WhomNobodyKnowsIsNotDenied) {
  const TemporaryFile file(database("DE"));
  part_->places.deny_countries = {"US"};
  start(file.path());
  EXPECT_EQ(status("198.51.100.1"), 403);
  EXPECT_EQ(status("192.0.2.1"), 204);
  EXPECT_EQ(status("203.0.113.1"), 204);
}

TEST_F(PlacesTest, ANewFileIsReadWithTheNextVersionAndABrokenOneChangesNothing) {
  const TemporaryFile file(database("DE")), newer(database("FR")), broken("no database");
  part_->places.allow_countries = {"DE"};
  start(file.path());
  EXPECT_EQ(status("192.0.2.1"), 204);
  ASSERT_EQ(std::rename(newer.path().c_str(), file.path().c_str()), 0);
  ASSERT_TRUE(edge_.publish());
  ASSERT_TRUE(edge_.run_until([&] { return status("192.0.2.1") == 403; }));
  ASSERT_EQ(std::rename(broken.path().c_str(), file.path().c_str()), 0);
  ASSERT_TRUE(edge_.publish());
  EXPECT_EQ(unread(), 1u);
  EXPECT_FALSE(explained("192.0.2.1")["trouble"].is_null());
  EXPECT_EQ(explained("192.0.2.1")["country"], "FR") << "the last good one stays in force";
}

TEST_F(PlacesTest, WithoutADatabaseNobodyPasses) {
  part_->places.deny_countries = {"US"};
  start("/nowhere/places.mmdb");
  EXPECT_EQ(status("192.0.2.1"), 403);
  EXPECT_EQ(explained("192.0.2.1")["because_of"], "no_database");
  EXPECT_EQ(unread(), 1u);
}

}  // namespace tidegate::l7::test::places_test
