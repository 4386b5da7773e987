// SPDX-License-Identifier: Apache-2.0
// Certificates from an authority: the signed messages, what an authority sends, the steps of an order, and when it is
// tried again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/pem.h>

#include <functional>
#include <map>

#include "conf/model/certificate.h"
#include "control/acme/jws.h"
#include "control/acme/messages.h"
#include "control/acme/order_flow.h"
#include "control/acme/renewal.h"
#include "control/acme/renewal_windows.h"
#include "control/api/bundle.h"
#include "control/limits.h"
#include "core/certificate_id.h"
#include "tests/unit/control/host.h"
#include "tests/unit/core/made_identity.h"

namespace tidegate::acme::acme_test {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

json part(const std::string& text) { return json::parse(base64url_decode(text).value()); }

// Verifies ES256 by OpenSSL.
bool verifies(const SigningKey& key, const std::string& message, const std::string& signature) {
  const std::string pem = key.to_pem().value();
  BIO* bio = BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()));
  EVP_PKEY* raw = PEM_read_bio_PrivateKey(bio, nullptr, nullptr, nullptr);
  ECDSA_SIG* pair = ECDSA_SIG_new();
  const auto* bytes = reinterpret_cast<const unsigned char*>(signature.data());
  ECDSA_SIG_set0(pair, BN_bin2bn(bytes, 32, nullptr), BN_bin2bn(bytes + 32, 32, nullptr));
  unsigned char* der = nullptr;
  const int length = i2d_ECDSA_SIG(pair, &der);
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  EVP_DigestVerifyInit(context, nullptr, EVP_sha256(), nullptr, raw);
  const bool good = EVP_DigestVerify(context, der, static_cast<size_t>(length),
                                     reinterpret_cast<const unsigned char*>(message.data()), message.size()) == 1;
  EVP_MD_CTX_free(context);
  OPENSSL_free(der);
  ECDSA_SIG_free(pair);
  EVP_PKEY_free(raw);
  BIO_free(bio);
  return good;
}

TEST(AcmeJws, SignsWithTheKeyItselfFirstAndWithTheAccountLater) {
  const SigningKey key = SigningKey::make().value();
  const json first = json::parse(sign_request(key, {"https://ca/new", "n1", ""}, "{}").value());
  const json head = part(first["protected"]);
  EXPECT_EQ(head["alg"], "ES256");
  EXPECT_EQ(head["nonce"], "n1");
  EXPECT_EQ(head["url"], "https://ca/new");
  EXPECT_EQ(head["jwk"]["crv"], "P-256");
  EXPECT_FALSE(head.contains("kid"));
  const std::string signed_text = std::string(first["protected"]) + "." + std::string(first["payload"]);
  EXPECT_TRUE(verifies(key, signed_text, base64url_decode(std::string(first["signature"])).value()));
  EXPECT_FALSE(verifies(key, signed_text + "x", base64url_decode(std::string(first["signature"])).value()));

  const json later = json::parse(sign_request(key, {"https://ca/order", "n2", "https://ca/account/1"}, "").value());
  EXPECT_EQ(part(later["protected"])["kid"], "https://ca/account/1");
  EXPECT_FALSE(part(later["protected"]).contains("jwk"));
  EXPECT_EQ(later["payload"], "");  // a POST-as-GET
}

TEST(AcmeJws, BindsAnAccountThatTheAuthorityKnows) {
  const SigningKey key = SigningKey::make().value();
  const json bound = external_binding(key, "kid-1", base64url_encode("secret"), "https://ca/new").value();
  EXPECT_EQ(part(bound["protected"]), json({{"alg", "HS256"}, {"kid", "kid-1"}, {"url", "https://ca/new"}}));
  EXPECT_EQ(part(bound["payload"]), json::parse(public_jwk(key)));
  const Sha256 mac = hmac_sha256("secret", std::string(bound["protected"]) + "." + std::string(bound["payload"]));
  EXPECT_EQ(base64url_decode(std::string(bound["signature"])).value(), std::string(mac.begin(), mac.end()));
}

TEST(AcmeMessages, RefusesWhatAnAuthorityMustNotSend) {
  EXPECT_FALSE(parse_directory("{}"));
  EXPECT_FALSE(parse_directory(R"({"newNonce":"http://ca/n","newAccount":"https://ca/a","newOrder":"https://ca/o"})"));
  EXPECT_FALSE(parse_directory("[1,2]"));
  EXPECT_FALSE(parse_order(R"({"status":"valid","authorizations":[],"finalize":"https://ca/f"})"));  // no certificate
  EXPECT_FALSE(parse_order(R"({"status":"odd","authorizations":[],"finalize":"https://ca/f"})"));
  EXPECT_FALSE(parse_order(R"({"status":"pending","authorizations":[7],"finalize":"https://ca/f"})"));
  EXPECT_FALSE(parse_order("{\"status\":\"pending\",\"authorizations\":[],\"finalize\":\"https://ca/f\\r\\nX: y\"}"));
  json many = {{"status", "pending"}, {"finalize", "https://ca/f"}, {"authorizations", json::array()}};
  for (int i = 0; i < 101; ++i) many["authorizations"].push_back("https://ca/a/" + std::to_string(i));
  EXPECT_FALSE(parse_order(many.dump()));
  // A token becomes a path, a DNS record and a key of the state.
  const Result<Authorization> odd = parse_authorization(
      R"({"status":"pending","identifier":{"type":"dns","value":"a.test"},
          "challenges":[{"type":"http-01","url":"https://ca/c","token":"../../x"}, 7,
                        {"type":"http-01","url":"https://ca/c","token":"good-_1"}]})");
  ASSERT_TRUE(odd);
  ASSERT_THAT(odd->challenges, SizeIs(1));
  EXPECT_EQ(odd->challenges[0].token, "good-_1");
}

TEST(AcmeMessages, TellsAProblemInOneSentence) {
  const Problem problem =
      parse_problem(403, R"({"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"not\nthese",
               "subproblems":[{"detail":"a.test is blocked"}]})");
  EXPECT_EQ(sentence(problem), "rejectedIdentifier: not these (a.test is blocked)");
  EXPECT_EQ(sentence(parse_problem(502, "<html>")), "status 502");
  EXPECT_LE(parse_problem(400, json({{"detail", std::string(10'000, 'x')}}).dump()).detail.size(), kMaxProblemBytes);
}

TEST(AcmeMessages, ReadsRetryAfterAsSecondsAndAsADate) {
  EXPECT_EQ(parse_retry_after_s("120", 0), 120u);
  EXPECT_EQ(parse_retry_after_s("Thu, 01 Jan 1970 00:01:00 GMT", 20), 40u);
  EXPECT_EQ(parse_retry_after_s("Thu, 01 Jan 1970 00:01:00 GMT", 200), 0u);
  EXPECT_EQ(parse_retry_after_s("soon", 0), std::nullopt);
}

// An authority that follows RFC 8555, without sockets. It checks what it receives, and can be told to cause trouble.
class Authority {
 public:
  Answer on(const Request& request) {
    ++requests;
    if (request.url == "https://ca/dir") {
      return reply(
          200,
          {{"newNonce", "https://ca/nonce"}, {"newAccount", "https://ca/account"}, {"newOrder", "https://ca/order"}});
    }
    if (request.method == Request::Method::head) {
      Answer answer = reply(200, json::object());
      answer.nonce = next_nonce();
      return answer;
    }
    const json jws = json::parse(request.body), head = part(jws["protected"]);
    EXPECT_EQ(head["url"], request.url);
    const bool known = std::exchange(good_nonce_, "") == head["nonce"];
    if (!known || (reject_every != 0 && requests % reject_every == 0)) return with_nonce(problem(400, "badNonce"));
    const std::string payload = base64url_decode(std::string(jws["payload"])).value();
    log.push_back(request.url);
    if (override_answer) {
      if (std::optional<Answer> answer = override_answer(request.url)) return with_nonce(*std::move(answer));
    }
    return with_nonce(serve(request.url, payload));
  }

  std::vector<std::string> names = {"a.test"};
  std::map<std::string, bool> proven;
  std::function<bool(const std::string& name)> looks;  // whether it finds a proof
  std::function<std::optional<Answer>(const std::string& url)> override_answer;
  std::vector<std::string> log;       // the accepted POSTs
  std::vector<std::string> replaced;  // what each order renews
  std::string refuses_replaced;       // the problem type for an order with a predecessor; empty: the order is accepted
  int requests = 0, reject_every = 0, polls_until_valid = 0;

  static Answer reply(int status, const json& body) {
    Answer answer;
    answer.status = status;
    answer.body = body.dump();
    return answer;
  }
  static Answer problem(int status, const std::string& type) {
    return reply(status, {{"type", "urn:ietf:params:acme:error:" + type}, {"detail", "because"}});
  }

 private:
  std::string next_nonce() { return good_nonce_ = "nonce-" + std::to_string(++nonces_); }
  Answer with_nonce(Answer answer) {
    answer.nonce = next_nonce();
    return answer;
  }
  Answer order(const std::string& status) {
    json body = {{"status", status}, {"finalize", "https://ca/finalize"}, {"authorizations", json::array()}};
    for (const std::string& name : names) body["authorizations"].push_back("https://ca/authz/" + name);
    if (status == "valid") body["certificate"] = "https://ca/certificate";
    Answer answer = reply(status == "pending" ? 201 : 200, body);
    answer.location = "https://ca/order/1";
    return answer;
  }
  Answer serve(const std::string& url, const std::string& payload) {
    if (url == "https://ca/account") {
      EXPECT_EQ(json::parse(payload)["termsOfServiceAgreed"], true);
      Answer answer = reply(201, {{"status", "valid"}});
      answer.location = "https://ca/account/1";
      return answer;
    }
    if (url == "https://ca/order") {
      replaced.push_back(json::parse(payload).value("replaces", std::string()));
      if (!replaced.back().empty() && !refuses_replaced.empty()) return problem(409, refuses_replaced);
      return order("pending");
    }
    if (url == "https://ca/finalize") {
      EXPECT_FALSE(base64url_decode(std::string(json::parse(payload)["csr"])).value().empty());
      return order("processing");
    }
    if (url == "https://ca/order/1") return order("valid");
    if (url == "https://ca/certificate") {
      Answer answer;
      answer.status = 200;
      answer.body = "the chain";
      return answer;
    }
    const std::string name = url.substr(url.rfind('/') + 1);
    if (url.starts_with("https://ca/challenge/")) {
      EXPECT_EQ(payload, "{}");
      proven[name] = looks && looks(name);
      return reply(200, {{"status", "processing"}});
    }
    const bool asked = proven.count(name) != 0;
    std::string status = !asked ? "pending" : proven[name] ? "valid" : "invalid";
    if (asked && polls_until_valid > 0) {
      --polls_until_valid;
      status = "pending";
    }
    json challenge = {
        {"type", "http-01"}, {"url", "https://ca/challenge/" + name}, {"token", "token-" + name.substr(0, 1)}};
    if (status == "invalid") {
      challenge["status"] = "invalid";
      challenge["error"] = {{"type", "urn:ietf:params:acme:error:unauthorized"}, {"detail", "nothing there"}};
    }
    return reply(200,
                 {{"status", status}, {"identifier", {{"type", "dns"}, {"value", name}}}, {"challenges", {challenge}}});
  }

  std::string good_nonce_;
  int nonces_ = 0;
};

class AcmeOrder : public ::testing::Test {
 protected:
  // Drives the flow to its end.
  Action run(std::vector<std::string> names = {"a.test"}) {
    authority.names = names;
    if (!authority.looks) {
      authority.looks = [this](const std::string& name) { return shown.count("http/token-" + name.substr(0, 1)) != 0; };
    }
    OrderFlow flow(session, account, key, {"https://ca/dir", {}, "", "", std::move(names), "http-01", replaces});
    Action action = flow.begin();
    for (int steps = 0; steps < 1'000; ++steps) {
      switch (action.kind) {
        case Action::Kind::send:
          action = silent-- > 0 ? flow.on_silence("no route") : flow.on_answer(authority.on(action.request));
          break;
        case Action::Kind::publish:
          shown = action.proofs;
          action = flow.on_published();
          break;
        case Action::Kind::wait:
          waited_ms += action.wait_ms;
          action = flow.on_waited();
          break;
        case Action::Kind::issued:
        case Action::Kind::failed:
          return action;
      }
    }
    ADD_FAILURE() << "the order does not end";
    return action;
  }

  Session session;
  const SigningKey account = SigningKey::make().value(), key = SigningKey::make().value();
  Authority authority;
  AcmeProofs shown;
  std::string replaces;
  uint64_t waited_ms = 0;
  int silent = 0;
};

TEST_F(AcmeOrder, ShowsEveryProofBeforeItTellsTheAuthority) {
  const Action end = run({"a.test", "b.test"});
  ASSERT_EQ(end.kind, Action::Kind::issued) << end.failure.why;
  EXPECT_EQ(end.chain_pem, "the chain");
  EXPECT_EQ(shown.at("http/token-a"), key_authorization("token-a", account));
  EXPECT_THAT(
      authority.log,
      ElementsAre("https://ca/account", "https://ca/order", "https://ca/authz/a.test", "https://ca/authz/b.test",
                  "https://ca/challenge/a.test", "https://ca/authz/a.test", "https://ca/challenge/b.test",
                  "https://ca/authz/b.test", "https://ca/finalize", "https://ca/order/1", "https://ca/certificate"));
}

TEST_F(AcmeOrder, KeepsDirectoryAndAccountForTheNextOrder) {
  ASSERT_EQ(run().kind, Action::Kind::issued);
  authority.proven.clear();
  authority.log.clear();
  ASSERT_EQ(run().kind, Action::Kind::issued);
  EXPECT_EQ(authority.log.front(), "https://ca/order");
}

TEST_F(AcmeOrder, NamesTheCertificateThatItRenews) {
  ASSERT_EQ(run().kind, Action::Kind::issued);
  EXPECT_EQ(authority.replaced, std::vector<std::string>{""}) << "there is none";
  authority.proven.clear();
  replaces = "aki.serial";
  ASSERT_EQ(run().kind, Action::Kind::issued);
  EXPECT_EQ(authority.replaced.back(), "aki.serial");
}

TEST_F(AcmeOrder, GoesOnWithoutAPredecessorThatTheAuthorityDoesNotTake) {
  replaces = "aki.serial";
  for (const char* type : {"alreadyReplaced", "malformed"}) {
    authority.replaced.clear();
    authority.proven.clear();
    authority.refuses_replaced = type;
    const Action end = run();
    ASSERT_EQ(end.kind, Action::Kind::issued) << end.failure.why;
    EXPECT_THAT(authority.replaced, ElementsAre("aki.serial", "")) << type;
  }
  authority.refuses_replaced = "rateLimited";
  EXPECT_EQ(run().kind, Action::Kind::failed) << "another order would not be taken either";
}

TEST_F(AcmeOrder, RepeatsARequestWhoseNonceIsRejected) {
  authority.reject_every = 2;
  ASSERT_EQ(run({"a.test", "b.test"}).kind, Action::Kind::issued);
  EXPECT_GT(session.rejected_nonces, 0u);
  EXPECT_EQ(waited_ms, 100u);  // for the order; a rejected nonce costs no time
}

TEST_F(AcmeOrder, EndsIfEveryNonceIsRejected) {
  authority.reject_every = 1;
  const Action end = run();
  ASSERT_EQ(end.kind, Action::Kind::failed);
  EXPECT_EQ(end.failure.why, "badNonce: because");
  EXPECT_EQ(session.rejected_nonces, kMaxAcmeNonceTries + 1u);
}

TEST_F(AcmeOrder, TellsWhichNameWasNotProven) {
  authority.looks = [](const std::string& name) { return name != "b.test"; };
  const Action end = run({"a.test", "b.test"});
  ASSERT_EQ(end.kind, Action::Kind::failed);
  EXPECT_EQ(end.failure.kind, Failure::Kind::refused);
  EXPECT_EQ(end.failure.why, "b.test: unauthorized: nothing there");
  EXPECT_TRUE(session.account_url.empty());  // starts again
}

TEST_F(AcmeOrder, WaitsLongerAndLongerForADecisionAndNotForEver) {
  authority.polls_until_valid = 3;
  ASSERT_EQ(run().kind, Action::Kind::issued);
  EXPECT_EQ(waited_ms, 100u + 200u + 400u + 100u);
  authority.proven.clear();
  authority.polls_until_valid = 1'000'000;
  waited_ms = 0;
  const Action end = run();
  ASSERT_EQ(end.kind, Action::Kind::failed);
  EXPECT_THAT(end.failure.why, HasSubstr("did not decide"));
  EXPECT_LE(waited_ms, kMaxAcmePollMs);
}

TEST_F(AcmeOrder, PassesOnWhenItMayTryAgain) {
  authority.override_answer = [](const std::string& url) -> std::optional<Answer> {
    if (url != "https://ca/order") return std::nullopt;
    Answer answer = Authority::problem(429, "rateLimited");
    answer.retry_after_s = 3'600;
    return answer;
  };
  const Action end = run();
  ASSERT_EQ(end.kind, Action::Kind::failed);
  EXPECT_EQ(end.failure.retry_after_s, 3'600u);
  EXPECT_EQ(end.failure.why, "rateLimited: because");
}

TEST_F(AcmeOrder, SendsAgainWhatGotNoAnswerAndGivesUpThen) {
  silent = 2;
  ASSERT_EQ(run().kind, Action::Kind::issued);
  session = {};
  silent = 1'000;
  const Action end = run();
  ASSERT_EQ(end.kind, Action::Kind::failed);
  EXPECT_EQ(end.failure.kind, Failure::Kind::unreachable);
  silent = 0;
  authority.override_answer = [](const std::string&) { return Authority::problem(503, "serverInternal"); };
  EXPECT_EQ(run().failure.kind, Failure::Kind::unreachable);
}

TEST_F(AcmeOrder, AsksWhatBecameOfAFinalizationWhoseAnswerWasLost) {
  int times = 0;
  authority.override_answer = [&times](const std::string& url) -> std::optional<Answer> {
    if (url != "https://ca/finalize") return std::nullopt;
    return ++times == 1 ? Authority::problem(500, "serverInternal") : Authority::problem(403, "orderNotReady");
  };
  EXPECT_EQ(run().kind, Action::Kind::issued);
}

TEST_F(AcmeOrder, ShowsNothingForANameThatWasNotOrdered) {
  authority.override_answer = [](const std::string& url) -> std::optional<Answer> {
    if (url != "https://ca/authz/a.test") return std::nullopt;
    return Authority::reply(200, {{"status", "pending"},
                                  {"identifier", {{"type", "dns"}, {"value", "other.test"}}},
                                  {"challenges", json::array()}});
  };
  const Action end = run();
  ASSERT_EQ(end.kind, Action::Kind::failed);
  EXPECT_THAT(end.failure.why, HasSubstr("not ordered"));
  EXPECT_TRUE(shown.empty());
}

TEST(AcmeRenewal, IsDueAtTwoThirdsOfTheLifeAndTheSameOnEveryHost) {
  IssuedCertificate record;
  record.names = {"a.test", "b.test"};
  record.certificate_hash = "aa";
  record.not_before_s = 1'000'000;
  record.not_after_s = 1'900'000;
  const int64_t due = due_at_s(&record, {"b.test", "a.test"}, std::nullopt);
  EXPECT_GE(due, 1'600'000);
  EXPECT_LE(due, 1'630'000);
  EXPECT_EQ(due_at_s(&record, {"b.test", "a.test"}, std::nullopt), due);
  IssuedCertificate other = record;
  other.certificate_hash = "bb";
  EXPECT_NE(due_at_s(&other, {"b.test", "a.test"}, std::nullopt), due);
  EXPECT_EQ(due_at_s(&record, {"c.test"}, std::nullopt), 0);  // other names: at once
  EXPECT_EQ(due_at_s(nullptr, {"a.test"}, std::nullopt), 0);
  record.next_try_s = 1'700'000;  // a renewal has failed
  EXPECT_EQ(due_at_s(&record, {"b.test", "a.test"}, std::nullopt), 1'700'000);
}

TEST(AcmeRenewal, FollowsTheAuthoritysWindow) {
  IssuedCertificate record;
  record.names = {"a.test"};
  record.certificate_hash = "aa";
  record.not_before_s = 1'000'000;
  record.not_after_s = 1'900'000;
  const int64_t due = due_at_s(&record, {"a.test"}, RenewalInfo{1'100'000, 1'200'000});
  EXPECT_GE(due, 1'100'000);
  EXPECT_LE(due, 1'200'000);
  // A window whose end has passed does not count.
  EXPECT_GE(due_at_s(&record, {"a.test"}, RenewalInfo{2'100'000, 2'200'000}), 1'600'000);
  const Result<RenewalInfo> parsed =
      parse_renewal_info(R"({"suggestedWindow":{"start":"1970-01-01T00:01:00Z","end":"1970-01-01T00:02:00.5Z"}})");
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->start_s, 60);
  EXPECT_EQ(parsed->end_s, 120);
  EXPECT_FALSE(
      parse_renewal_info(R"({"suggestedWindow":{"start":"1970-01-01T00:03:00Z","end":"1970-01-01T00:02:00Z"}})"));
}

// Its serial number and its authority's key are those of the example in RFC 9773 §4.1.
constexpr const char* kNamedChain =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBZzCCAQ6gAwIBAgIFAIdlQyEwCgYIKoZIzj0EAwIwDTELMAkGA1UEAwwCY2Ew\n"
    "IBcNMjYxMTI2MjM1ODI3WhgPMjEyNjExMDIyMzU4MjdaMBExDzANBgNVBAMMBmEu\n"
    "dGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABAjqjXTNGEXLNIzaUwu30KI2\n"
    "lQpmzBR1IfZR2NKafcAgELxEWxuoBddDJIFEfOqJa7rxYeG4zq1T/7t7I6fTYSSj\n"
    "VTBTMB8GA1UdIwQYMBaAFGmIW2uHRkBB4bN7hHugrizeAcjUMBEGA1UdEQQKMAiC\n"
    "BmEudGVzdDAdBgNVHQ4EFgQUo4ATsv4qTif9HSM4L8lqSoeC2vIwCgYIKoZIzj0E\n"
    "AwIDRwAwRAIgHes/vyVuWOZ4o5pSL18jngLtmGghqLp5Ic13K4F9zGMCIECjMhiE\n"
    "kWm35NHFlHbtp8AWsmFux8R9COVcJo3y69Pv\n"
    "-----END CERTIFICATE-----\n";

// An authority that says when a certificate should be renewed (RFC 9773). It is a stand-in, because pebble does not
// support this.
class WindowServer {
 public:
  explicit WindowServer(EventLoop& loop)
      : server_(loop, [this](const HttpExchangePtr& exchange) {
          asked.push_back(exchange->request().path);
          if (exchange->request().path == "/dir") {
            json directory = {{"newNonce", url("/n")}, {"newAccount", url("/a")}, {"newOrder", url("/o")}};
            if (offers) directory["renewalInfo"] = url("/renewal");
            return exchange->respond(HttpResponse::json(200, directory.dump()));
          }
          HttpResponse response = HttpResponse::json(status, window.dump());
          response.headers.emplace_back("Retry-After", "7200");
          exchange->respond(std::move(response));
        }) {
    const TlsIdentity identity = make_identity("localhost", "DNS:localhost,IP:127.0.0.1");
    ca_pem = identity.certificate_pem;
    EXPECT_TRUE(server_.listen_tls(*Endpoint::parse("127.0.0.1:0"), TlsContext::server({{identity}, {}, {}}).value()));
  }
  std::string url(const std::string& path) const {
    return "https://127.0.0.1:" + std::to_string(server_.tcp_endpoint().port) + path;
  }
  std::string ca_pem;
  std::vector<std::string> asked;
  bool offers = true;
  int status = 200;
  json window = {{"suggestedWindow", {{"start", "2030-01-01T00:00:00Z"}, {"end", "2030-01-02T00:00:00Z"}}}};

 private:
  HttpServer server_;
};

class AcmeWindows : public ::testing::Test {
 protected:
  void ask() {
    bool done = false;
    windows.ask({"hash", kNamedChain, server.url("/dir"), server.ca_pem}, session, [&] { done = true; });
    EXPECT_FALSE(done) << "never before the call has returned";
    ASSERT_TRUE(tidegate::testing::pump(loop, [&] { return done; }));
  }
  int64_t asks_in_s() const { return windows.ask_at_s("hash") - static_cast<int64_t>(realtime_ns() / kNsPerS); }

  EventLoop loop;
  WindowServer server{loop};
  AuthorityClient transport{loop};
  RenewalWindows windows{transport};
  Session session;
};

TEST_F(AcmeWindows, AreAskedByTheCertificatesNameAndKeptUntilTheAuthoritySaysOtherwise) {
  EXPECT_EQ(windows.ask_at_s("hash"), 0);
  ask();
  EXPECT_THAT(server.asked, ElementsAre("/dir", "/renewal/aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"));
  ASSERT_TRUE(windows.of("hash"));
  EXPECT_EQ(windows.of("hash")->end_s - windows.of("hash")->start_s, 86'400);
  EXPECT_NEAR(static_cast<double>(asks_in_s()), 7'200, 60);  // Retry-After
  server.status = 500;
  ask();
  EXPECT_THAT(server.asked, SizeIs(3));  // the directory is known
  EXPECT_TRUE(windows.of("hash")) << "no answer changes nothing";
  EXPECT_NEAR(static_cast<double>(asks_in_s()), static_cast<double>(kAcmeWindowRetryS), 60);
  windows.keep({"other"});
  EXPECT_FALSE(windows.of("hash"));
}

TEST_F(AcmeWindows, AreNotAskedOfAnAuthorityThatDoesNotOfferThem) {
  server.offers = false;
  ask();
  EXPECT_THAT(server.asked, ElementsAre("/dir"));
  EXPECT_FALSE(windows.of("hash"));
  EXPECT_GT(asks_in_s(), 80'000);
  server.offers = true;
  session = {};
  server.window = {{"suggestedWindow", {{"start", "soon"}}}};
  ask();
  EXPECT_FALSE(windows.of("hash"));
}

TEST_F(AcmeWindows, AreRecalledUntilTheAuthorityIsAskedAgain) {
  windows.recall("hash", RenewalInfo{10, 20}, 15);
  EXPECT_EQ(windows.of("hash")->end_s, 20);
  EXPECT_EQ(windows.ask_at_s("hash"), 15);
  ask();
  EXPECT_GT(windows.of("hash")->end_s, 20);
  windows.recall("hash", std::nullopt, 15);
  EXPECT_GT(windows.of("hash")->end_s, 20) << "what was heard here counts";
}

// The window is in the state: after a restart it is not lost, and the authority is not asked again at once.
TEST_F(AcmeWindows, SurviveARestartOfControl) {
  tidegate::testing::Host host{loop};
  host.start();
  IssuedCertificate issued;
  issued.names = {"a.test"};
  issued.certificate_hash = sha256_hex(kNamedChain);
  issued.key_hash = sha256_hex("key");
  issued.not_before_s = static_cast<int64_t>(realtime_ns() / kNsPerS);
  issued.not_after_s = 4'000'000'000;
  CertificateChanges changes;
  changes.certificates.emplace_back("c", issued);
  changes.objects = {kNamedChain, "key"};
  ASSERT_TRUE(host.control->host_state().set_certificates(changes));
  Bundle bundle;
  bundle.file = "edge.yaml";
  bundle.text = tidegate::testing::edge_yaml("100", "acme: {directory: '" + server.url("/dir") +
                                                        "', terms_agreed: true, ca_file: ca.crt}\n" +
                                                        "certificates: [{name: c, acme: {names: [a.test]}}]\n");
  bundle.files["ca.crt"] = std::make_shared<const std::string>(server.ca_pem);
  ASSERT_EQ(
      host.call("PUT", "/v1/config", encode_bundle(bundle), {{"Content-Type", kBundleType}, {"If-Match", "*"}}).status,
      200);
  const auto window = [&] {
    return tidegate::testing::body_of(host.call("GET", "/v1/certificates"))["certificates"][0].value("renewal_window",
                                                                                                     json::object());
  };
  ASSERT_TRUE(tidegate::testing::pump(loop, [&] { return window().contains("end_s"); }));
  EXPECT_THAT(server.asked, SizeIs(2));
  const json before = window();
  host.stop();
  host.start();
  EXPECT_EQ(window(), before);
  EXPECT_THAT(server.asked, SizeIs(2)) << "the directory, and the window once";
}

// A control that no longer leads ends its orders, in any state.
TEST_F(AcmeWindows, AreNotToldToWhoIsGone) {
  auto gone = std::make_unique<AuthorityClient>(loop);
  gone->later([] { ADD_FAILURE() << "it is gone"; });
  gone.reset();
  ask();
}

TEST_F(AcmeWindows, AreOfAnAuthorityWithTheRootsThatWereNamed) {
  server.ca_pem = make_identity("other").certificate_pem;
  ask();
  EXPECT_THAT(server.asked, SizeIs(0));
  EXPECT_FALSE(session.directory);
}

TEST(AcmeRenewal, TriesAtMostFiveTimesInTheHourAfterARefusal) {
  const Failure refused{Failure::Kind::refused, "no", 0};
  uint64_t at_s = 0;
  int tries = 1;
  for (uint32_t failures = 1; at_s < 3'600; ++failures) {
    at_s += pause_after_failure_s(refused, failures, 0);
    tries += at_s < 3'600 ? 1 : 0;
  }
  EXPECT_LE(tries, 5);
  EXPECT_LE(pause_after_failure_s(refused, 1'000'000, 1), kAcmeLongestPauseS * 5 / 4);
  EXPECT_EQ(pause_after_failure_s({Failure::Kind::refused, "rate", 7'200}, 1, 0), 7'200u);
  EXPECT_LT(pause_after_failure_s({Failure::Kind::unreachable, "", 0}, 1, 1), 15u);
}

}  // namespace tidegate::acme::acme_test
