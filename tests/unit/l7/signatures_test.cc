// SPDX-License-Identifier: Apache-2.0
// Requests that are signed by HMAC (RFC 9421).
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <barrier>
#include <nlohmann/json.hpp>
#include <thread>

#include "conf/model.h"
#include "conf/model/policy.h"
#include "conf/policy/authenticate.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "l7/limits.h"
#include "l7/policy/seen_signatures.h"
#include "l7/policy/shared_mutex.h"
#include "l7/policy/signatures.h"
#include "l7/policy/table_memory.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::signatures_test {

using policy::SeenSignatures;
using policy::SignatureFault;

const std::string kSecret(40, 's');

std::shared_ptr<const std::string> set_of(const std::vector<std::pair<std::string, std::string>>& secrets) {
  nlohmann::json keys = nlohmann::json::array();
  for (const auto& [id, secret] : secrets)
    keys.push_back({{"kty", "oct"}, {"kid", id}, {"k", base64url_encode(secret)}});
  return std::make_shared<const std::string>(nlohmann::json{{"keys", keys}}.dump());
}

std::string mac(const std::string& secret, const std::string& base) {
  const Sha256 value = hmac_sha256(secret, base);
  return base64_encode({reinterpret_cast<const char*>(value.data()), value.size()});
}

TEST(SeenSignatures, AreFreshOnceUntilTheirTimeIsOver) {
  SeenSignatures seen(1'024);
  EXPECT_EQ(seen.add("a", 100, 50), SeenSignatures::Answer::fresh);
  EXPECT_EQ(seen.add("a", 100, 50), SeenSignatures::Answer::seen);
  EXPECT_EQ(seen.add("a", 100, 99), SeenSignatures::Answer::seen);
  EXPECT_EQ(seen.add("b", 100, 99), SeenSignatures::Answer::fresh);
  EXPECT_EQ(seen.add("a", 200, 100), SeenSignatures::Answer::fresh);
}

TEST(SeenSignatures, HaveRoomForAsManyAsWereAskedForAndForgetNone) {
  SeenSignatures seen(65'536);
  for (int i = 0; i < 65'536; ++i) ASSERT_EQ(seen.add(std::to_string(i), 100, 50), SeenSignatures::Answer::fresh) << i;
  for (int i = 0; i < 65'536; ++i) ASSERT_EQ(seen.add(std::to_string(i), 100, 50), SeenSignatures::Answer::seen) << i;
  int full = 0;
  for (int i = 65'536; i < 200'000; ++i) full += seen.add(std::to_string(i), 100, 50) == SeenSignatures::Answer::full;
  EXPECT_GT(full, 100'000) << "memory is fixed";
  EXPECT_EQ(seen.add("new", 200, 100), SeenSignatures::Answer::fresh) << "all are over";
}

// Gives one process's tables to the next one, as an upgrade does.
void hand_over(policy::TableMemories& from, policy::TableMemories& to) {
  for (const int fd : from.descriptors()) to.inherit(UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, 0)));
}

TEST(SeenSignatures, AProcessRefusesWhatTheOneBeforeHasSeen) {
  policy::TableMemories before, after, other;
  SeenSignatures old(before, "q/signatures/1024", 1'024);
  EXPECT_EQ(old.add("a", 100, 50), SeenSignatures::Answer::fresh);
  hand_over(before, after);
  SeenSignatures next(after, "q/signatures/1024", 1'024);
  EXPECT_EQ(next.add("a", 100, 50), SeenSignatures::Answer::seen);
  EXPECT_EQ(next.add("b", 100, 50), SeenSignatures::Answer::fresh);
  EXPECT_EQ(old.add("b", 100, 50), SeenSignatures::Answer::seen) << "the old one still has connections";
  EXPECT_EQ(next.add("a", 200, 100), SeenSignatures::Answer::fresh) << "its time was over";
  hand_over(before, other);
  SeenSignatures larger(other, "q/signatures/2048", 2'048);
  EXPECT_EQ(larger.add("b", 100, 50), SeenSignatures::Answer::fresh) << "another table begins empty";
}

TEST(SeenSignatures, OfTwoProcessesExactlyOneTakesASignature) {
  constexpr size_t kThreads = 4, kSignatures = 2'000;
  policy::TableMemories before, after;
  SeenSignatures old(before, "q", 4'096);
  hand_over(before, after);
  SeenSignatures next(after, "q", 4'096);
  std::vector<std::atomic<int>> fresh(kSignatures);
  std::barrier start(kThreads);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      SeenSignatures& own = t % 2 == 0 ? old : next;
      start.arrive_and_wait();
      for (size_t i = 0; i < kSignatures; ++i) {
        if (own.add(std::to_string(i), 100, 50) == SeenSignatures::Answer::fresh) fresh[i].fetch_add(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < kSignatures; ++i) ASSERT_EQ(fresh[i].load(), 1) << i;
}

// A process may be killed at any moment.
TEST(SharedMutex, OfAProcessThatHasEndedIsFreeAgain) {
  void* const memory = ::mmap(nullptr, 4'096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto& mutex = *static_cast<policy::SharedMutex*>(memory);
  mutex.make();
  for (int round = 0; round < 2; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      mutex.lock();
      ::_exit(0);
    }
    ASSERT_GT(child, 0);
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0);
    const policy::SharedMutexLock lock(mutex);
  }
  ::munmap(memory, 4'096);
}

class SignaturesTest : public ::testing::Test {
 protected:
  SignaturesTest() {
    rules_.enabled = true;
    rules_.keys.bytes =
        set_of({{"partner", kSecret}, {"partner", std::string(40, 't')}, {"other", std::string(40, 'o')}});
    rules_.clients = {{"partner", {"writer"}}};
    request_.method = "POST";
    request_.authority = "a.test";
    request_.path = "/orders/7";
    request_.query = "x=1";
    request_.has_query = true;
  }
  std::string base(const std::string& params) const {
    return "\"@method\": POST\n\"@authority\": a.test\n\"@path\": /orders/7\n\"@query\": "
           "?x=1\n\"@signature-params\": " +
           params;
  }
  static std::string params(uint64_t created, const std::string& more = ";keyid=\"partner\"") {
    return fmt::format(R"(("@method" "@authority" "@path" "@query");created={}{})", created, more);
  }
  SignatureFault verify(const std::string& input, const std::string& signature, uint64_t now_s = kNow) {
    if (!verifier_) verifier_.emplace(rules_, known_signers(rules_, *parse_jwks(*rules_.keys.bytes)), compiling_);
    RequestHead request = request_;
    const std::string whole = "sig=" + input, shown = "sig=:" + signature + ":";
    request.fields.add({"signature-input", whole});
    request.fields.add({"signature", shown});
    who_ = nullptr;
    return verifier_->verify(request, "https", now_s, arena_, who_);
  }
  SignatureFault verify_signed(const std::string& params, uint64_t now_s = kNow) {
    return verify(params, mac(kSecret, base(params)), now_s);
  }
  static constexpr uint64_t kNow = 1'700'000'000;
  SignatureRules rules_;
  RequestHead request_;
  Arena arena_;
  policy::Registry registry_;
  std::vector<std::unique_ptr<policy::Rule>> no_rules_;
  const std::string name_ = "q";
  const HashKey key_{1, 2};
  const PolicyContent content_;
  policy::Compiling compiling_{name_, content_, key_, registry_, no_rules_};
  std::optional<policy::SignatureVerifier> verifier_;
  const Known* who_ = nullptr;
};

// RFC 9421 B.2.5: a signature that others made.
TEST_F(SignaturesTest, OfTheRfcIsTaken) {
  const std::optional<std::string> secret =
      base64url_decode("uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ");
  ASSERT_TRUE(secret);
  rules_.keys.bytes = set_of({{"test-shared-secret", *secret}});
  rules_.covers = {"@authority"};
  request_.authority = "example.com";
  request_.fields.add({"date", "Tue, 20 Apr 2021 02:07:55 GMT"});
  request_.fields.add({"content-type", "application/json"});
  const std::string params = R"(("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret")";
  const std::string signature = "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=";
  EXPECT_EQ(verify(params, signature, 1'618'884'473), SignatureFault::none);
  EXPECT_EQ(who_->name, "test-shared-secret");
}

TEST_F(SignaturesTest, NameTheirClientAndAreTakenOnce) {
  EXPECT_EQ(verify_signed(params(kNow)), SignatureFault::none);
  ASSERT_NE(who_, nullptr);
  EXPECT_EQ(who_->name, "partner");
  ASSERT_EQ(who_->role_views.size(), 1u);
  EXPECT_EQ(who_->role_views[0], "writer");
  EXPECT_EQ(verify_signed(params(kNow)), SignatureFault::replayed);
  EXPECT_EQ(verify_signed(params(kNow), kNow + 329), SignatureFault::replayed);
  EXPECT_EQ(verify_signed(params(kNow), kNow + 330), SignatureFault::too_old);
  EXPECT_EQ(verify_signed(params(kNow, ";nonce=\"1\";keyid=\"partner\"")), SignatureFault::none);
  EXPECT_EQ(verify_signed(params(kNow, ";nonce=\"2\";keyid=\"partner\";alg=\"hmac-sha256\"")), SignatureFault::none);
  const std::string second = params(kNow, ";nonce=\"3\";keyid=\"partner\"");
  EXPECT_EQ(verify(second, mac(std::string(40, 't'), base(second))), SignatureFault::none)
      << "the second key of that name";
}

TEST_F(SignaturesTest, ThatWereTakenBeforeAnUpgradeAreRefusedAfterIt) {
  const auto tables = [](policy::Registry& registry) {
    return registry.get<policy::TableMemories>(policy::TableMemories::kRegistryKey);
  };
  ASSERT_EQ(verify_signed(params(kNow)), SignatureFault::none);
  policy::Registry next_registry;
  hand_over(*tables(registry_), *tables(next_registry));
  const HashKey another_key{3, 4};  // a process without the site's secret has a key of its own
  policy::Compiling next{name_, content_, another_key, next_registry, no_rules_};
  verifier_.emplace(rules_, known_signers(rules_, *parse_jwks(*rules_.keys.bytes)), next);
  EXPECT_EQ(verify_signed(params(kNow)), SignatureFault::replayed);
  EXPECT_EQ(verify_signed(params(kNow + 1)), SignatureFault::none);
}

TEST_F(SignaturesTest, AreForTheirTimeKeyAndRequest) {
  EXPECT_EQ(verify_signed(params(kNow + 30)), SignatureFault::none) << "within the skew";
  EXPECT_EQ(verify_signed(params(kNow + 31)), SignatureFault::too_early);
  EXPECT_EQ(verify_signed(params(kNow - 330)), SignatureFault::too_old);
  EXPECT_EQ(verify_signed(params(kNow, ";expires=1699999970;keyid=\"partner\"")), SignatureFault::too_old);
  EXPECT_EQ(verify_signed(params(kNow, ";keyid=\"nobody\"")), SignatureFault::no_key);
  EXPECT_EQ(verify_signed(params(kNow, ";keyid=\"other\"")), SignatureFault::wrong);
  EXPECT_EQ(verify_signed(params(kNow, ";keyid=\"partner\";alg=\"rsa-v1_5-sha256\"")), SignatureFault::algorithm);
  const std::string good = params(kNow), signature = mac(kSecret, base(good));
  for (std::string_view RequestHead::*part :
       {&RequestHead::method, &RequestHead::path, &RequestHead::query, &RequestHead::authority}) {
    const RequestHead before = request_;
    request_.*part = "/other";
    EXPECT_EQ(verify(good, signature), SignatureFault::wrong);
    request_ = before;
  }
  EXPECT_EQ(verify(good, signature), SignatureFault::none) << "wrong ones before it used nothing up";
}

TEST_F(SignaturesTest, CoverWhatTheDocumentAsksForAndWhatTheRequestHas) {
  const auto of = [&](const std::string& components, const std::string& lines) {
    const std::string params = "(" + components + fmt::format(");created={};keyid=\"partner\"", kNow);
    return verify(params, mac(kSecret, lines + "\"@signature-params\": " + params));
  };
  EXPECT_EQ(of(R"("@method" "@path" "@query")", "\"@method\": POST\n\"@path\": /orders/7\n\"@query\": ?x=1\n"),
            SignatureFault::covers_too_little);
  EXPECT_EQ(of(R"("@method" "@target-uri")", "\"@method\": POST\n\"@target-uri\": https://a.test/orders/7?x=1\n"),
            SignatureFault::none);
  EXPECT_EQ(of(R"("@method" "@target-uri" "x-none")", ""), SignatureFault::missing_component);
  EXPECT_EQ(of(R"("@method" "@target-uri" "@status")", ""), SignatureFault::missing_component);
  request_.fields.add({"x-two", "1"});
  request_.fields.add({"x-two", "2"});
  request_.authority = "A.test:443";
  EXPECT_EQ(of(R"("@method" "@authority" "@path" "@query" "x-two")",
               "\"@method\": POST\n\"@authority\": a.test\n\"@path\": /orders/7\n\"@query\": ?x=1\n\"x-two\": 1, 2\n"),
            SignatureFault::none);
}

TEST_F(SignaturesTest, ThatAreMalformedAreRefused) {
  const std::string all = R"(("@method" "@authority" "@path" "@query"))", time = fmt::format(";created={}", kNow);
  for (const std::string& bad :
       {std::string(), all, all + time, all + ";keyid=\"partner\"", all + time + ";keyid=partner",
        all + time + time + ";keyid=\"partner\"", all + time + ";keyid=\"partner\";keyid=\"other\"",
        all + time + ";keyid=\"partner\";odd=\"1\"", all + time + ";keyid=\"partner\", b=()",
        all + ";created=-5;keyid=\"partner\"", all + ";created=99999999999999999999;keyid=\"partner\"",
        "(\"@method\";req \"@path\")" + time + ";keyid=\"partner\"",
        "(\"@method\" \"@method\")" + time + ";keyid=\"partner\"",
        "(\"@method\"  \"@path\")" + time + ";keyid=\"partner\"", "(\"@method" + time,
        all + time + ";keyid=\"part\\\"ner\"", all + " " + time + ";keyid=\"partner\""}) {
    EXPECT_EQ(verify(bad, mac(kSecret, base(bad))), SignatureFault::malformed) << bad;
  }
  const std::string good = params(kNow);
  for (const char* bad : {"", "!!!", "a:b"}) EXPECT_NE(verify(good, bad), SignatureFault::none) << bad;
  std::string many = "(";
  for (size_t i = 0; i <= kSignatureComponents; ++i) many += fmt::format("{}\"x{}\"", i == 0 ? "" : " ", i);
  EXPECT_EQ(verify(many + ")" + time + ";keyid=\"partner\"", ""), SignatureFault::malformed);
}

// The answers that a client of the proxy gets.
TEST(SignedRequests, PassOnceAndAreRefusedByName) {
  Origin origin(Origin::says("x"));
  Edge edge;
  auto part = std::make_shared<AuthenticatePolicy>();
  part->signatures.enabled = true;
  part->signatures.keys.bytes = set_of({{"partner", kSecret}});
  part->identity_header = "X-Client";
  part->keep_credentials = false;
  edge.model.policies.push_back({"signed", false, {{"authenticate", part}}});
  edge.add_route("/x", edge.add_pool("p", {origin.endpoint()})).policies = {0};
  edge.start();
  const std::string params =
      fmt::format(R"(("@method" "@authority" "@path" "@query");created={};keyid="partner")", realtime_ns() / kNsPerS);
  const std::string base =
      "\"@method\": GET\n\"@authority\": a.test\n\"@path\": /x\n\"@query\": ?\n\"@signature-params\": " + params;
  const std::string fields = "Signature-Input: sig=" + params + "\r\nSignature: sig=:" + mac(kSecret, base) + ":\r\n";
  EXPECT_EQ(ask(edge.endpoint(), get("/x", "a.test", fields)).status, 200);
  EXPECT_NE(origin.last_head().find("X-Client: partner\r\n"), std::string::npos);
  EXPECT_EQ(origin.last_head().find("Signature"), std::string::npos) << "the credentials stay here";
  EXPECT_EQ(ask(edge.endpoint(), get("/x", "a.test", fields)).status, 401) << "a replay";
  const Answer none = ask(edge.endpoint(), get("/x"));
  EXPECT_EQ(none.status, 401);
  EXPECT_EQ(none.field("www-authenticate"), "signature realm=\"tidegate\"");
  EXPECT_EQ(edge.metric("tidegate_l7_failures_total{reason=\"unauthenticated\"}"), 2u);
}

}  // namespace tidegate::l7::test::signatures_test
