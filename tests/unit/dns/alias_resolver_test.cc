// SPDX-License-Identifier: Apache-2.0
// The resolver of aliases against a real name server: ours, which here serves external names.
#include "dns/server/alias_resolver.h"
#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/zone.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/clock.h"
#include "dns/limits.h"
#include "dns/server/server.h"
#include "tests/unit/dns/support.h"

namespace tidegate::dns::test::alias_resolver_test {

using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint64_t kPatienceNs = 60 * kNsPerS;

class Aliases : public ::testing::Test {
 protected:
  Aliases() : server_(HashKey{1, 2}), resolver_(loop_, [this] { ++changes_; }) {
    std::string zone =
        "$ORIGIN elsewhere.test.\n$TTL 1\n@ IN SOA ns a 1 2 3 4 1\n@ IN NS ns\nns IN A 192.0.2.1\n"
        "cdn 50 IN A 192.0.2.7\ncdn 40 IN A 192.0.2.8\nlong 90 IN CNAME cdn\nv6 IN AAAA 2001:db8::7\nshort IN A "
        "192.0.2.9\n";
    for (int i = 0; i < 100; ++i) zone += "many IN A 198.51.100." + std::to_string(i) + "\n";
    set_zone(zone);
    node_.dns.enabled = true;
    node_.dns.listen = {*Endpoint::parse("127.0.0.1:0")};
    // TCP uses the port that UDP got, which another program on this machine may have.
    auto applied = apply();
    for (int turn = 0; turn < 50 && !applied; ++turn) applied = apply();
    EXPECT_TRUE(applied) << (applied ? "" : applied.error().message);
  }

  void set_zone(const std::string& text) {
    model_.zones.resize(1);
    model_.zones[0].name = "elsewhere.test.";
    model_.zones[0].file = {"zone", std::to_string(std::hash<std::string>{}(text)),
                            std::make_shared<const std::string>(text)};
  }
  Result<void> apply() {
    return server_.apply(
        make_snapshot(1, "d", std::make_shared<const Model>(model_), std::make_shared<const LiveState>()), node_);
  }
  void follow(std::vector<std::string> names) {
    std::sort(names.begin(), names.end());
    resolver_.follow(names, server_.udp_endpoints());
  }
  template <class Condition>
  bool run_until(Condition&& holds) {
    const uint64_t end = monotonic_ns() + kPatienceNs;
    while (!holds() && monotonic_ns() < end) loop_.run_once(kNsPerS / 10);
    return holds();
  }
  const AliasAddresses& of(const std::string& name) {
    static const AliasAddresses nothing;
    const auto at = resolver_.book().find(name);
    return at == resolver_.book().end() ? nothing : at->second;
  }
  bool known(const std::string& name) { return of(name).v4.known && of(name).v6.known; }

  Model model_;
  Node node_;
  Server server_;
  EventLoop loop_;
  int changes_ = 0;
  AliasResolver resolver_;
};

TEST_F(Aliases, AreLookedUpInBothFamiliesWithTheSmallestTtl) {
  follow({"cdn.elsewhere.test.", "long.elsewhere.test.", "v6.elsewhere.test.", "no.elsewhere.test."});
  ASSERT_TRUE(run_until([&] {
    return known("cdn.elsewhere.test.") && known("long.elsewhere.test.") && known("v6.elsewhere.test.") &&
           known("no.elsewhere.test.") && changes_ > 0;
  }));
  EXPECT_THAT(of("cdn.elsewhere.test.").v4.addresses, SizeIs(2));
  EXPECT_EQ(of("cdn.elsewhere.test.").v4.ttl_s, 40U);
  EXPECT_THAT(of("cdn.elsewhere.test.").v6.addresses, IsEmpty());
  EXPECT_EQ(of("long.elsewhere.test.").v4, of("cdn.elsewhere.test.").v4) << "over a CNAME";
  EXPECT_THAT(of("v6.elsewhere.test.").v6.addresses, SizeIs(1));
  EXPECT_THAT(of("no.elsewhere.test.").v4.addresses, IsEmpty());
  EXPECT_EQ(resolver_.counts().failed, 0U);
}

TEST_F(Aliases, ALongAnswerComesOverTcpAndIsCut) {
  follow({"many.elsewhere.test."});
  ASSERT_TRUE(run_until([&] { return known("many.elsewhere.test."); }));
  EXPECT_THAT(of("many.elsewhere.test.").v4.addresses, SizeIs(kMaxAliasAddresses));
}

TEST_F(Aliases, AreLookedUpAgainWhenTheirTtlEnds) {
  follow({"short.elsewhere.test."});
  ASSERT_TRUE(run_until([&] { return known("short.elsewhere.test."); }));
  set_zone(
      "$ORIGIN elsewhere.test.\n$TTL 1\n@ IN SOA ns a 1 2 3 4 1\n@ IN NS ns\nns IN A 192.0.2.1\nshort IN A "
      "192.0.2.10\n");
  ASSERT_TRUE(apply());
  EXPECT_TRUE(run_until([&] { return of("short.elsewhere.test.").v4.addresses.at(0)[3] == 10; }));
}

TEST_F(Aliases, KeepTheirAddressesWhileNobodyAnswers) {
  follow({"short.elsewhere.test."});
  ASSERT_TRUE(run_until([&] { return known("short.elsewhere.test."); }));
  model_.zones[0].name = "other.test.";  // from now on the lookup is refused
  model_.zones[0].file.hash = "other";
  model_.zones[0].file.bytes = std::make_shared<const std::string>(
      "$ORIGIN other.test.\n$TTL 1\n@ IN SOA ns a 1 2 3 4 1\n@ IN NS ns\nns IN A 192.0.2.1\n");
  ASSERT_TRUE(apply());
  ASSERT_TRUE(run_until([&] { return resolver_.counts().failed > 1; }));
  EXPECT_THAT(of("short.elsewhere.test.").v4.addresses, SizeIs(1));
}

TEST_F(Aliases, AreForgottenWhenNobodyLeadsToThem) {
  follow({"cdn.elsewhere.test.", "v6.elsewhere.test."});
  ASSERT_TRUE(run_until([&] { return known("cdn.elsewhere.test.") && known("v6.elsewhere.test."); }));
  follow({"v6.elsewhere.test."});
  EXPECT_EQ(resolver_.book().count("cdn.elsewhere.test."), 0U);
  EXPECT_EQ(resolver_.book().count("v6.elsewhere.test."), 1U);
  follow({});
  EXPECT_THAT(resolver_.book(), IsEmpty());
}

// Far more names than are looked up at once: each has its turn.
TEST_F(Aliases, ManyNamesWaitForTheirTurn) {
  std::vector<std::string> names;
  for (size_t i = 0; i < 3 * kMaxAliasLookups; ++i) names.push_back("n" + std::to_string(i) + ".elsewhere.test.");
  follow(names);
  ASSERT_TRUE(run_until([&] { return resolver_.counts().empty == 2 * names.size(); }));
  EXPECT_THAT(resolver_.book(), SizeIs(names.size()));
}

}  // namespace tidegate::dns::test::alias_resolver_test
