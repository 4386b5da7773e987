// SPDX-License-Identifier: Apache-2.0
// Quotas of HTTPDNS, by account and by client, in every form.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "conf/model.h"
#include "conf/model/httpdns.h"
#include "core/clock.h"
#include "dns/httpdns/account.h"
#include "dns/httpdns/alibaba_v1.h"
#include "dns/httpdns/alibaba_v2.h"
#include "dns/httpdns/dnspod.h"
#include "tests/unit/dns/support.h"

namespace tidegate::dns::test::quota_test {

class Quota : public ::testing::Test {
 protected:
  Quota() : clients_(1'024, HashKey{3, 4}) {
    edge_.add_zone("example.test.", kZone);
    edge_.model().httpdns_accounts = {{"1", "s", true}, {"2", "s", true}};
    edge_.model().httpdns_accounts[0].tokens = {"12345678"};
  }
  void bound_account(uint64_t rate, uint64_t burst) {
    edge_.model().httpdns_accounts[0].rate = rate;
    edge_.model().httpdns_accounts[0].burst = burst;
  }
  void bound_client(uint64_t rate, uint64_t burst) {
    edge_.model().httpdns_client_rate = rate;
    edge_.model().httpdns_client_burst = burst;
  }
  // One request as HttpFront serves it.
  HttpDnsError ask(const std::string& target, const std::string& from = "10.1.0.1") {
    HttpRequest request;
    request.method = "GET";
    request.path = target.substr(0, target.find('?'));
    request.query = target.substr(target.find('?') + 1);
    const Client client{*IpAddress::parse(from), QueryTransport::http};
    const HttpDnsContext context{client, edge_.tables(), edge_.worker(), scratch_, 1'700'000'000, now_ns_, &clients_};
    if (const HttpDnsError error = take_of_client(context, 1); error != HttpDnsError::none) return error;
    if (request.path == kHttpDnsV2Path) return answer_httpdns_v2(request, context).error;
    if (request.path == kDnspodPath) return answer_dnspod(request, context).error;
    return answer_httpdns(*parse_httpdns_path(request.path), request, context).error;
  }

  Edge edge_;
  AddressTable clients_;
  uint64_t now_ns_ = 1'000 * kNsPerS;
  std::vector<uint8_t> scratch_ = std::vector<uint8_t>(kMaxMessageBytes);
};

constexpr const char* kFourHosts[] = {
    "/1/resolve?host=ns1.example.test,www.example.test,mail.example.test,a.example.test",
    "/v2/d?id=1&dn=ns1.example.test,www.example.test,mail.example.test,a.example.test",
    "/d?token=12345678&dn=ns1.example.test,www.example.test,mail.example.test,a.example.test",
};

TEST_F(Quota, AnAccountGetsItsHostsAndNoMoreInAnyForm) {
  bound_account(4, 8);
  for (const std::string target : kFourHosts) {
    now_ns_ += 100 * kNsPerS;
    EXPECT_EQ(ask(target), HttpDnsError::none) << target;
    EXPECT_EQ(ask(target), HttpDnsError::none) << target;
    EXPECT_EQ(ask(target), HttpDnsError::quota_exceeded) << target;
    EXPECT_EQ(ask("/1/d?host=ns1.example.test"), HttpDnsError::quota_exceeded);
    EXPECT_EQ(ask("/1/ss"), HttpDnsError::quota_exceeded);
    EXPECT_EQ(ask("/2/d?host=ns1.example.test"), HttpDnsError::none) << "another account goes on";
    now_ns_ += kNsPerS;
    EXPECT_EQ(ask(target), HttpDnsError::none) << target << ": a second earns four";
    EXPECT_EQ(ask("/1/d?host=ns1.example.test"), HttpDnsError::quota_exceeded);
  }
  EXPECT_EQ(info(HttpDnsError::quota_exceeded).status, 429);
}

TEST_F(Quota, AnAccountsQuotaSurvivesANewVersion) {
  bound_account(1, 4);
  EXPECT_EQ(ask(kFourHosts[0]), HttpDnsError::none);
  edge_.model().httpdns_accounts.insert(edge_.model().httpdns_accounts.begin(), {"0", "s", true});
  edge_.changed();
  EXPECT_EQ(ask("/1/d?host=ns1.example.test"), HttpDnsError::quota_exceeded) << "it is known by its id";
  EXPECT_EQ(ask("/0/d?host=ns1.example.test"), HttpDnsError::none);
}

TEST_F(Quota, WhoDoesNotKnowTheSecretUsesUpNobodysQuota) {
  bound_account(1, 4);
  edge_.model().httpdns_accounts[0].allow_unsigned = false;
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(ask("/1/sign_d?host=ns1.example.test&t=1700000100&s=00"), HttpDnsError::invalid_signature);
    EXPECT_EQ(ask("/v2/d?id=1&dn=ns1.example.test&exp=1700000100&s=00"), HttpDnsError::invalid_signature);
  }
  EXPECT_EQ(ask(kFourHosts[2]), HttpDnsError::none) << "the token's owner";
}

TEST_F(Quota, AClientGetsItsHostsWhateverAccountItAsksFor) {
  bound_client(2, 8);
  for (const std::string target : kFourHosts) {
    now_ns_ += 100 * kNsPerS;
    EXPECT_EQ(ask(target), HttpDnsError::none) << target;
    EXPECT_EQ(ask(target), HttpDnsError::none) << target;
    EXPECT_EQ(ask("/2/d?host=ns1.example.test"), HttpDnsError::too_many_requests);
    EXPECT_EQ(ask(target, "10.1.0.2"), HttpDnsError::none) << "its neighbour is not it";
  }
  now_ns_ += 100 * kNsPerS;
  for (int i = 0; i < 8; ++i) EXPECT_EQ(ask("/9/d?host=a.test"), HttpDnsError::account_not_exists);
  EXPECT_EQ(ask("/9/d?host=a.test"), HttpDnsError::too_many_requests) << "refusals count too";
  EXPECT_EQ(ask("/2/d?host=ns1.example.test", "2001:db8::1"), HttpDnsError::none);
  for (int i = 0; i < 7; ++i) ask("/2/d?host=ns1.example.test", "2001:db8::" + std::to_string(i + 2));
  EXPECT_EQ(ask("/2/d?host=ns1.example.test", "2001:db8::99"), HttpDnsError::too_many_requests) << "one /64";
}

// The defaults: what a crowd behind one address needs when its application starts, and later.
TEST_F(Quota, TheDefaultsLetACrowdBehindOneAddressAsk) {
  for (int phone = 0; phone < 2'000; ++phone) ASSERT_EQ(ask(kFourHosts[1]), HttpDnsError::none) << phone;
  for (int second = 0; second < 5; ++second) {
    now_ns_ += kNsPerS;
    for (int phone = 0; phone < 200; ++phone) ASSERT_EQ(ask(kFourHosts[1]), HttpDnsError::none) << second;
  }
}

TEST_F(Quota, AnAccountWithoutARateHasNoBound) {
  bound_client(0, 1);
  for (int i = 0; i < 1'000; ++i) ASSERT_EQ(ask("/1/d?host=ns1.example.test"), HttpDnsError::none);
}

}  // namespace tidegate::dns::test::quota_test
