// SPDX-License-Identifier: Apache-2.0
// Control's questions to authorities about certificates, the records of the answers, and the time of the next question.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "conf/model.h"
#include "conf/model/certificate.h"
#include "control/api/bundle.h"
#include "control/limits.h"
#include "control/observe/certificate_troubles.h"
#include "control/ocsp/staple_record.h"
#include "core/crypto.h"
#include "tests/unit/control/host.h"
#include "tests/unit/core/made_ocsp.h"

namespace tidegate::ocsp_records_test {

using nlohmann::json;
using ocsp::record_after;
using ocsp::StapleOutcome;
using ocsp::state_word;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using tidegate::testing::body_of;
using tidegate::testing::Host;
using tidegate::testing::pump;

StapleOutcome judged(OcspVerdict verdict, int64_t until_s = 0, const std::string& answer = "answer") {
  return {
      StapleOutcome::Kind::judged, {verdict, verdict == OcspVerdict::good ? "" : "why", 10, until_s}, answer, {}, 0};
}

TEST(OcspRecord, KeepsAGoodAnswerUntilItEndsWhateverComesAfterIt) {
  const StapleRecord good = record_after(nullptr, "hash", judged(OcspVerdict::good, 10'000), 1'000, 0);
  EXPECT_EQ(good.answer_hash, sha256_hex("answer"));
  EXPECT_EQ(good.next_try_s, 1'000 + 4'500) << "at half of what is left";
  StapleRecord later = good;
  for (const OcspVerdict verdict :
       {OcspVerdict::unknown, OcspVerdict::refused, OcspVerdict::malformed, OcspVerdict::other_certificate,
        OcspVerdict::wrong_signature, OcspVerdict::outdated}) {
    later = record_after(&later, "hash", judged(verdict), 5'000, 0);
    EXPECT_EQ(later.answer_hash, good.answer_hash) << name(verdict);
    EXPECT_STREQ(state_word(&later, "hash", 9'999), "good");
    EXPECT_EQ(later.error, "why");
  }
  EXPECT_EQ(later.failures, 6u);
  EXPECT_STREQ(state_word(&later, "hash", 10'000), "ended");
  const StapleRecord ended =
      record_after(&later, "hash", {StapleOutcome::Kind::no_answer, {}, {}, "silence", 0}, 10'000, 0);
  EXPECT_EQ(ended.answer_hash, "");
  EXPECT_STREQ(state_word(&ended, "hash", 10'000), "ended");
  EXPECT_EQ(record_after(&ended, "hash", judged(OcspVerdict::good, 20'000), 11'000, 0).failures, 0u);
}

TEST(OcspRecord, DropsTheAnswerOfACertificateThatIsRevokedOrReplaced) {
  const StapleRecord good = record_after(nullptr, "hash", judged(OcspVerdict::good, 10'000), 1'000, 0);
  const StapleRecord revoked = record_after(&good, "hash", judged(OcspVerdict::revoked, 12'000), 2'000, 0);
  EXPECT_EQ(revoked.answer_hash, "");
  EXPECT_STREQ(state_word(&revoked, "hash", 2'000), "revoked");
  const StapleRecord silent = record_after(&revoked, "hash", judged(OcspVerdict::refused), 3'000, 0);
  EXPECT_STREQ(state_word(&silent, "hash", 3'000), "revoked") << "silence does not make it good again";
  const StapleRecord of_next = record_after(&good, "hash 2", judged(OcspVerdict::refused), 2'000, 0);
  EXPECT_EQ(of_next.answer_hash, "");
  EXPECT_EQ(of_next.failures, 1u);
  EXPECT_STREQ(state_word(&of_next, "hash 2", 2'000), "failed");
  EXPECT_STREQ(state_word(&good, "hash 2", 2'000), "waiting");
  EXPECT_STREQ(state_word(nullptr, "hash", 2'000), "waiting");
}

TEST(OcspRecord, IsRenewedBeforeItEndsAndNeitherTooOftenNorTooLate) {
  EXPECT_EQ(ocsp::pause_after_answer_s(7 * 86'400, 0), kOcspLongestPauseS);
  EXPECT_EQ(ocsp::pause_after_answer_s(3'600, 0), 1'800u);
  EXPECT_EQ(ocsp::pause_after_answer_s(3'600, 1), 1'620u);
  EXPECT_EQ(ocsp::pause_after_answer_s(-5, 0), kOcspShortestPauseS);
  EXPECT_EQ(ocsp::pause_after_failure_s(1, 0, 0), kOcspFirstFailurePauseS);
  EXPECT_EQ(ocsp::pause_after_failure_s(2, 0, 0), 2 * kOcspFirstFailurePauseS);
  EXPECT_EQ(ocsp::pause_after_failure_s(1'000'000, 0, 0), kOcspLongestFailurePauseS);
  EXPECT_EQ(ocsp::pause_after_failure_s(1, 7'200, 0), 7'200u);
  EXPECT_EQ(ocsp::pause_after_failure_s(1, UINT64_MAX, 0), 86'400u);
}

TEST(CertificateTroubles, AreListedUpToABoundAndAllCounted) {
  Model model;
  LiveState live_state;
  for (size_t i = 0; i < kMaxCertificateTroubles + 5; ++i) {
    Certificate& certificate = model.certificates.emplace_back();
    certificate.name = "c" + std::to_string(i);
    certificate.order.names = {"a.test"};
  }
  Certificate& stapled = model.certificates.emplace_back();
  stapled.name = "stapled";
  stapled.ocsp.enabled = true;
  stapled.certificate.hash = "hash";
  live_state.staples["stapled"] = record_after(nullptr, "hash", judged(OcspVerdict::revoked, 9), 1, 0);
  IssuedCertificate& issued = live_state.certificates["c0"];
  issued.certificate_hash = "hash";
  issued.not_after_s = 100;
  const json told = certificate_troubles(model, live_state, 50);
  EXPECT_EQ(told["ordered"], kMaxCertificateTroubles + 5);
  EXPECT_EQ(told["stapled"], 1);
  EXPECT_EQ(told["in_trouble"], kMaxCertificateTroubles + 5) << "all but c0, and the one that is revoked";
  EXPECT_THAT(told["troubles"], SizeIs(kMaxCertificateTroubles));
  EXPECT_EQ(told["troubles"][0]["certificate"], "c1");
}

// A responder that chooses its answer by the question's path. It is a stand-in, because openssl's own responder has no
// such faults.
class Responder {
 public:
  explicit Responder(EventLoop& loop) : server_(loop, [this](const HttpExchangePtr& exchange) { answer(exchange); }) {
    EXPECT_TRUE(server_.listen_tcp(*Endpoint::parse("127.0.0.1:0")));
  }
  std::string url(const std::string& path) const {
    return "http://127.0.0.1:" + std::to_string(server_.tcp_endpoint().port) + path;
  }
  size_t times_asked(const std::string& path) const {
    return static_cast<size_t>(std::count(asked.begin(), asked.end(), path));
  }
  std::map<std::string, HttpResponse> answers;  // by path
  std::vector<std::string> asked;

 private:
  void answer(const HttpExchangePtr& exchange) {
    const HttpRequest& request = exchange->request();
    EXPECT_EQ(request.method, "POST");
    EXPECT_EQ(request.header("content-type"), "application/ocsp-request");
    asked.push_back(request.path);
    exchange->respond(answers.at(request.path));
  }
  HttpServer server_;
};

class OcspOfAnEdge : public ::testing::Test {
 protected:
  OcspOfAnEdge() { host.start(); }

  std::string add_certificate(const std::string& name, const std::string& asks, bool with_issuer = true) {
    const TlsIdentity made = authority.issue({.common_name = name,
                                              .alternatives = "DNS:a.test",
                                              .purpose = "serverAuth",
                                              .serial = static_cast<long>(100 + files.size())});
    const std::string chain = made.certificate_pem + (with_issuer ? authority.pem() : "");
    files[name + ".crt"] = std::make_shared<const std::string>(chain);
    files[name + ".key"] = std::make_shared<const std::string>(made.key_pem);
    listed += "  - {name: " + name + ", certificate_file: " + name + ".crt, key_file: " + name +
              ".key, ocsp: {responder: '" + asks + "'}}\n";
    return chain;
  }
  void apply() {
    Bundle bundle;
    bundle.file = "edge.yaml";
    bundle.text = tidegate::testing::edge_yaml("100", "certificates:\n" + listed);
    bundle.files = files;
    const HttpResponse answer =
        host.call("PUT", "/v1/config", encode_bundle(bundle), {{"Content-Type", kBundleType}, {"If-Match", "*"}});
    ASSERT_EQ(answer.status, 200) << answer.body;
  }
  static HttpResponse der(const std::string& bytes) {
    return HttpResponse::text(200, bytes, "application/ocsp-response");
  }
  json told_of(const std::string& name) {
    const json all = body_of(host.call("GET", "/v1/certificates"))["certificates"];
    for (const json& each : all) {
      if (each["name"] == name) return each["ocsp"];
    }
    return {};
  }
  const std::map<std::string, StapleRecord>& records() const {
    return host.control->host_state().live_state()->staples;
  }
  // Counters belong to the whole process.
  uint64_t answers_counted(const std::string& result) {
    const std::string line = "tidegate_control_ocsp_answers_total{result=\"" + result + "\"} ";
    const std::string text = host.call("GET", "/metrics").body;
    const size_t at = text.find(line);
    return at == std::string::npos ? 0 : std::stoull(text.substr(at + line.size()));
  }
  bool all_are_known(size_t count) {
    return pump(loop, [&] { return records().size() == count; });
  }

  EventLoop loop;
  Host host{loop};
  MadeAuthority authority{"authority"};
  Responder responder{loop};
  std::map<std::string, std::shared_ptr<const std::string>> files;
  std::string listed;
};

TEST_F(OcspOfAnEdge, OnlyAGoodAnswerIsKeptAndEveryOtherOneHasAName) {
  const std::string good = add_certificate("good", responder.url("/good"));
  responder.answers.emplace("/good", der(make_ocsp_answer(authority.identity(), good)));
  const std::string revoked = add_certificate("revoked", responder.url("/revoked"));
  responder.answers.emplace(
      "/revoked", der(make_ocsp_answer(authority.identity(), revoked, {.status = V_OCSP_CERTSTATUS_REVOKED})));
  const std::string forged = add_certificate("forged", responder.url("/forged"));
  responder.answers.emplace("/forged", der(make_ocsp_answer(MadeAuthority("authority").identity(), forged)));
  const std::string old = add_certificate("old", responder.url("/old"));
  responder.answers.emplace("/old", der(make_ocsp_answer(authority.identity(), old, {.ends_in_s = -1})));
  add_certificate("garbage", responder.url("/garbage"));
  responder.answers.emplace("/garbage", der("<html>"));
  add_certificate("long", responder.url("/long"));
  responder.answers.emplace("/long", der(std::string(kMaxOcspAnswerBytes + 1, 'x')));
  add_certificate("busy", responder.url("/busy"));
  HttpResponse busy = HttpResponse::problem(503, "Service Unavailable", "later");
  busy.headers.emplace_back("Retry-After", "600");
  responder.answers.emplace("/busy", busy);
  add_certificate("nobody", "http://127.0.0.1:1/");
  add_certificate("alone", responder.url("/alone"), false);
  std::map<std::string, uint64_t> before;
  for (const char* result : {"good", "revoked", "wrong_signature", "outdated", "malformed", "unaskable", "no_answer"}) {
    before[result] = answers_counted(result);
  }
  apply();
  ASSERT_TRUE(all_are_known(9));

  EXPECT_EQ(told_of("good")["state"], "good");
  EXPECT_EQ(told_of("revoked")["state"], "revoked");
  const std::map<std::string, std::string> reasons = {
      {"forged", "did not sign"}, {"old", "held until"},  {"garbage", "no answer of OCSP"},
      {"long", "/long"},          {"busy", "status 503"}, {"nobody", "connect"},
      {"alone", "issuer"}};
  for (const auto& [name, reason] : reasons) {
    const json told = told_of(name);
    EXPECT_EQ(told["state"], "failed") << name;
    EXPECT_THAT(told["error"], HasSubstr(reason)) << name;
    EXPECT_EQ(records().at(name).answer_hash, "") << name;
  }
  EXPECT_EQ(responder.times_asked("/alone"), 0u);
  const StapleRecord& kept = records().at("good");
  EXPECT_EQ(host.control->host_state().store().object(kept.answer_hash).value(), responder.answers.at("/good").body);
  EXPECT_GE(records().at("busy").next_try_s - records().at("forged").next_try_s, 500) << "Retry-After";
  for (const auto& [path, answer] : responder.answers) EXPECT_EQ(responder.times_asked(path), 1u) << path;

  const std::string metrics = host.call("GET", "/metrics").body;
  EXPECT_THAT(metrics, HasSubstr("tidegate_control_ocsp_answer_not_after_seconds{certificate=\"forged\"} 0\n"));
  EXPECT_THAT(metrics, HasSubstr("tidegate_control_ocsp_failures{certificate=\"forged\"} 1\n"));
  EXPECT_THAT(metrics, HasSubstr("tidegate_control_certificate_revoked{certificate=\"revoked\"} 1\n"));
  const std::map<std::string, uint64_t> counts = {{"good", 1},     {"revoked", 1},   {"wrong_signature", 1},
                                                  {"outdated", 1}, {"malformed", 1}, {"unaskable", 1},
                                                  {"no_answer", 3}};
  for (const auto& [result, count] : counts) EXPECT_EQ(answers_counted(result) - before.at(result), count) << result;
  const json status = body_of(host.call("GET", "/v1/status"))["certificates"];
  EXPECT_EQ(status["stapled"], 9);
  EXPECT_EQ(status["in_trouble"], 8);
}

TEST_F(OcspOfAnEdge, IsAskedAgainAtOnceOnlyWhereSomethingChanged) {
  const std::string first = add_certificate("first", responder.url("/first"));
  responder.answers.emplace("/first", der(make_ocsp_answer(authority.identity(), first)));
  const std::string second = add_certificate("second", responder.url("/wrong"));
  responder.answers.emplace("/wrong", der("nonsense"));
  apply();
  ASSERT_TRUE(all_are_known(2));
  EXPECT_EQ(told_of("second")["failures"], 1);

  // A restart keeps the time of the next question. Another responder is asked at once.
  host.stop();
  host.start();
  responder.answers.emplace("/right", der(make_ocsp_answer(authority.identity(), second)));
  listed.replace(listed.find("/wrong"), 6, "/right");
  apply();
  ASSERT_TRUE(pump(loop, [&] { return told_of("second")["state"] == "good"; }));
  EXPECT_EQ(told_of("second")["failures"], 0);
  EXPECT_EQ(responder.times_asked("/first"), 1u);
  EXPECT_EQ(responder.times_asked("/wrong"), 1u);

  // A record that is no longer needed is removed, with its answer.
  const std::string answer_hash = records().at("first").answer_hash;
  listed = listed.substr(listed.find("  - {name: second"));
  apply();
  ASSERT_TRUE(all_are_known(1));
  EXPECT_FALSE(host.control->host_state().store().has_object(answer_hash));
}

}  // namespace tidegate::ocsp_records_test
