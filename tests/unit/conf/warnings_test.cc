// SPDX-License-Identifier: Apache-2.0
// Legal things that are surely not meant: one document for each warning.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>
#include <initializer_list>
#include <string>
#include <vector>

#include "conf/limits.h"
#include "conf/model.h"
#include "conf/warnings.h"
#include "tests/unit/conf/documents.h"
#include "tests/unit/core/made_authority.h"

namespace tidegate::warnings_test {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::load_text;

constexpr const char* kPools = "pools:\n  - {name: app, backends: [{name: a, addresses: [192.0.2.1], port: 80}]}\n";

TEST(Warnings, NameWhatIsLegalAndSurelyNotMeant) {
  const auto warnings_of = [](const std::string& text) {
    const auto loaded = load_text(text);
    EXPECT_THAT(loaded.codes(), IsEmpty()) << text;
    std::vector<std::string> told;
    if (!loaded.model) return told;
    for (const Fault& fault : find_warnings(*loaded.document, *loaded.model, 1'800'000'000)) {
      told.push_back(fault.code + " " + fault.pointer);
    }
    return told;
  };
  const std::string plain = std::string(kPools) + "listeners: [{name: l, bind: ['0.0.0.0:80']}]\nroutes:\n";
  EXPECT_THAT(warnings_of(plain + "  - {name: r, pool: app}\n"), IsEmpty());
  EXPECT_THAT(warnings_of(plain + "  - {name: r, status: 404}\n"), ElementsAre("unused /pools/0/name"));
  EXPECT_THAT(warnings_of(plain + "  - {name: r, pool: app}\n  - {name: s, path: /s, redirect: 'http://{host}/s'}\n"),
              ElementsAre("endless_redirect /routes/1/redirect"));
  EXPECT_THAT(warnings_of(plain + "  - {name: r, pool: app}\n  - {name: s, path: /s, redirect: 'https://{host}/s'}\n"),
              IsEmpty());
  // Other spellings of the same place, patterns that match their own target, and twins that lead elsewhere.
  const auto circles = [&](const std::string& path, const std::string& to, const std::string& more = "") {
    return warnings_of(plain + "  - {name: r, pool: app}\n  - {name: s, path: '" + path + "', redirect: '" + to + "'" +
                       more + "}\n")
        .size();
  };
  for (const auto& [path, to] :
       std::initializer_list<std::pair<const char*, const char*>>{{"/z/*", "/z/foo"},
                                                                  {"/a/{id}", "http://any.example/a/1"},
                                                                  {"/a/{id}", "/a/{id}"},
                                                                  {"/w", "//any.example/w"},
                                                                  {"/v", "/v?x=1"},
                                                                  {"/u", "http://{host}:80/u#part"},
                                                                  {"/t", "HTTP://Any.Example/t"},
                                                                  {"/q/*", "http://{authority}{path}"}}) {
    EXPECT_EQ(circles(path, to), 1u) << path << " " << to;
  }
  for (const auto& [path, to] : std::initializer_list<std::pair<const char*, const char*>>{{"/z/*", "/y/foo"},
                                                                                           {"/a/{id}", "/a/1/2"},
                                                                                           {"/w", "https://{host}/w"},
                                                                                           {"/u", "http://{host}:81/u"},
                                                                                           {"/t", "t"}}) {
    EXPECT_EQ(circles(path, to), 0u) << path << " " << to;
  }
  EXPECT_EQ(circles("/t", "http://B.a.test/t", ", hosts: ['*.a.test']"), 1u);
  EXPECT_EQ(circles("/t", "http://b.test/t", ", hosts: ['*.a.test']"), 0u);
  EXPECT_EQ(circles("/z/*", "/z/foo", "}\n  - {name: t, path: /z/foo, pool: app"), 0u) << "a better route takes it";
  for (const char* bare : {"401", "405", "407", "416", "426"}) {
    EXPECT_THAT(warnings_of(plain + "  - {name: r, pool: app}\n  - {name: s, path: /s, status: " + bare + "}\n"),
                ElementsAre("bare_status /routes/1/status"));
  }
  EXPECT_THAT(warnings_of(plain + "  - {name: r, pool: app}\n  - {name: s, path: /s, status: 401, response_headers: "
                                  "{www-authenticate: Basic}}\n"),
              IsEmpty());
  EXPECT_THAT(
      warnings_of(plain + "  - {name: r, pool: app}\nprobes: [{name: p, type: tcp, interval: 1s, timeout: 2s}]\n"),
      ElementsAre("slow_probe /probes/0/timeout", "unused /probes/0/name"));
}

TEST(Warnings, NameRetriesThatNobodyCanTake) {
  const auto warnings_of = [](const std::string& pool, const std::string& route) {
    const auto loaded = load_text("listeners: [{name: l, bind: ['0.0.0.0:80']}]\npools: [{name: app, " + pool +
                                  "}]\nroutes: [{name: r, " + route + "}]\n");
    EXPECT_THAT(loaded.codes(), IsEmpty()) << pool << route;
    std::vector<std::string> told;
    if (!loaded.model) return told;
    for (const Fault& fault : find_warnings(*loaded.document, *loaded.model, 0)) {
      if (fault.code == "without_effect") told.push_back(fault.pointer);
    }
    return told;
  };
  const std::string a = "{name: a, addresses: [127.0.0.1], port: 1}", b = "{name: b, addresses: [127.0.0.1], port: 2}";
  const std::string two = "backends: [" + a + ", " + b + "]", again = "pool: app, retry_statuses: [503]";
  EXPECT_THAT(warnings_of(two, again + ", try_timeout: 1s, total_timeout: 2s"), IsEmpty());
  EXPECT_THAT(warnings_of("backends: [{name: a, host: a.test, port: 1}]", again), IsEmpty()) << "maybe several";
  EXPECT_THAT(warnings_of("backends: [" + a + "]", again), ElementsAre("/routes/0/retry_statuses"));
  EXPECT_THAT(warnings_of(two + ", retry_attempts: 0", again), ElementsAre("/routes/0/retry_statuses"));
  EXPECT_THAT(warnings_of(two + ", retry_budget: 0", again), ElementsAre("/routes/0/retry_statuses"));
  EXPECT_THAT(warnings_of(two, "status: 503, retry_statuses: [503]"), ElementsAre("/routes/0/retry_statuses"));
  EXPECT_THAT(warnings_of(two, "pool: app, try_timeout: 10m, total_timeout: 1s"), ElementsAre("/routes/0/try_timeout"));
}

TEST(Warnings, NameCertificatesThatNobodyCanAskAboutOrMustAskAbout) {
  const MadeAuthority authority("authority");
  const auto warnings_of = [](const TlsIdentity& identity, const std::string& more) {
    const auto loaded =
        load_text("certificates: [{name: c, certificate_file: crt, key_file: key" + more +
                      "}]\nlisteners: [{name: s, bind: ['0.0.0.0:443'], tls: {certificates: [c]}}]\n",
                  {{"crt", testing::content(identity.certificate_pem)}, {"key", testing::content(identity.key_pem)}});
    EXPECT_THAT(loaded.codes(), IsEmpty());
    std::vector<std::string> told;
    if (!loaded.model) return told;
    for (const Fault& fault : find_warnings(*loaded.document, *loaded.model, std::time(nullptr))) {
      told.push_back(fault.code + " " + fault.pointer);
    }
    return told;
  };
  TlsIdentity plain = authority.issue({.purpose = "serverAuth"});
  TlsIdentity whole = authority.issue({.purpose = "serverAuth", .responder = "http://ocsp.test", .must_staple = true});
  EXPECT_THAT(warnings_of(plain, ""), IsEmpty());
  EXPECT_THAT(warnings_of(whole, ""), ElementsAre("must_staple /certificates/0/certificate_file"));
  EXPECT_THAT(warnings_of(whole, ", ocsp: {}"), ElementsAre("no_issuer /certificates/0/certificate_file"));
  whole.certificate_pem += authority.pem();
  plain.certificate_pem += authority.pem();
  EXPECT_THAT(warnings_of(whole, ", ocsp: {}"), IsEmpty());
  EXPECT_THAT(warnings_of(plain, ", ocsp: {}"), ElementsAre("no_responder /certificates/0/ocsp"));
  EXPECT_THAT(warnings_of(plain, ", ocsp: {responder: 'http://ocsp.test'}"), IsEmpty());
}

TEST(Warnings, NamePortsAtWhichAnAuthorityFindsNobody) {
  const auto warnings_of = [](const std::string& challenge, const std::string& listener) {
    const auto loaded = load_text(
        "acme: {directory: 'https://ca.test/dir', terms_agreed: true}\n"
        "certificates: [{name: c, acme: {names: [www.example.test], challenge: " +
        challenge + "}}]\nlisteners: [{name: s, bind: ['0.0.0.0:8443'], tls: {certificates: [c]}}, " + listener +
        "]\n");
    EXPECT_THAT(loaded.codes(), IsEmpty());
    std::vector<std::string> told;
    if (!loaded.model) return told;
    for (const Fault& fault : find_warnings(*loaded.document, *loaded.model, 0)) {
      told.push_back(fault.code + " " + fault.pointer);
    }
    return told;
  };
  const std::string missing = "no_port_for_authority /certificates/0/acme";
  EXPECT_THAT(warnings_of("http-01", "{name: p, bind: ['0.0.0.0:80']}"), IsEmpty());
  EXPECT_THAT(warnings_of("http-01", "{name: p, bind: ['0.0.0.0:8080', '[::]:80']}"), IsEmpty());
  EXPECT_THAT(warnings_of("http-01", "{name: p, bind: ['0.0.0.0:8080']}"), ElementsAre(missing));
  EXPECT_THAT(warnings_of("http-01", "{name: p, bind: ['0.0.0.0:80'], tls: {certificates: [c]}}"),
              ElementsAre(missing));
  EXPECT_THAT(warnings_of("tls-alpn-01", "{name: p, bind: ['0.0.0.0:443'], tls: {certificates: [c]}}"), IsEmpty());
  EXPECT_THAT(warnings_of("tls-alpn-01", "{name: p, bind: ['0.0.0.0:443']}"), ElementsAre(missing));
}

}  // namespace tidegate::warnings_test
