// SPDX-License-Identifier: Apache-2.0
// A version whose content a plane would refuse is refused before the commit. check, dry run and commit give the same
// sentence, at the same place.
#include "control/vote/plans.h"
#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/service.h"
#include "conf/model/site.h"
#include "conf/model/zone.h"

#include <fmt/format.h>

#include "control/api/bundle.h"
#include "dns/plan/authority.h"
#include "l4/limits.h"
#include "l4/plan/forwarding.h"
#include "tests/unit/control/host.h"
#include "tests/unit/core/made_identity.h"

namespace tidegate::testing::plans_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

constexpr const char* kZone =
    "$TTL 60\n@ IN SOA ns hostmaster 1 3600 600 86400 60\n@ IN NS ns\nns IN A 192.0.2.53\nwww IN A 192.0.2.1\n";

struct Given {
  std::string text;                          // of the document
  std::map<std::string, std::string> files;  // by their path in the document
};

// "file:line:column: what is wrong", as every refusal prints it.
std::vector<std::string> lines_of(const std::vector<Fault>& faults) {
  std::vector<std::string> lines;
  for (const Fault& fault : faults)
    lines.push_back(fmt::format("{}:{}:{}: {}", fault.file, fault.line, fault.column, fault.detail));
  return lines;
}

class Refusals : public ::testing::Test {
 protected:
  void SetUp() override { host.start(); }

  std::vector<std::string> by_check(const Given& given) {
    for (const auto& [path, content] : given.files) {
      std::filesystem::create_directories(std::filesystem::path(files / path).parent_path());
      files.write(path, content);
    }
    LoadedFile loaded = load_file(files.write("edge.yaml", given.text));
    judge(loaded);
    EXPECT_EQ(loaded.model == nullptr, !loaded.faults.empty());
    // The command line uses the path under which it got the document.
    for (Fault& fault : loaded.faults) {
      if (fault.file == files / "edge.yaml") fault.file = "edge.yaml";
    }
    return lines_of(loaded.faults);
  }

  std::vector<std::string> by_the_api(const Given& given, const std::string& query) {
    Bundle bundle;
    bundle.file = "edge.yaml";
    bundle.text = given.text;
    for (const auto& [path, content] : given.files) {
      const FileReader disk = files_beside(files / "edge.yaml");
      std::string error;
      bundle.files[path] = disk(path, error);  // with what it includes, as `tidegate apply` sends it
    }
    const HttpResponse answer = host.call("PUT", "/v1/config" + query, encode_bundle(bundle),
                                          {{"Content-Type", kBundleType}, {"If-Match", "*"}});
    if (answer.status == 200) return {};
    EXPECT_EQ(answer.status, 422) << answer.body;
    std::vector<std::string> lines;
    const nlohmann::json body = body_of(answer);
    for (const auto& fault : body["faults"]) {
      lines.push_back(fmt::format("{}:{}:{}: {}", fault["file"].get<std::string>(), fault["line"].get<int>(),
                                  fault["column"].get<int>(), fault["detail"].get<std::string>()));
    }
    return lines;
  }

  // Each of the three refuses with exactly these faults, and nothing comes in force.
  template <class Matcher>
  void expect_refused(const Given& given, const Matcher& lines) {
    const std::vector<std::string> checked = by_check(given);
    EXPECT_THAT(checked, lines) << given.text.substr(0, 2'000);
    EXPECT_EQ(by_the_api(given, "?dry_run=true"), checked);
    EXPECT_EQ(by_the_api(given, ""), checked);
    EXPECT_EQ(host.control->host_state().manifest().version, 0U);
  }

  EventLoop loop;
  Host host{loop};
  TemporaryDirectory files;
};

std::string with_zone(const std::string& more = {}) {
  return edge_yaml("100", "zones:\n  - {name: example.test, file: zones/example.zone}\n" + more);
}

TEST_F(Refusals, ARecordThatCannotBeRead) {
  expect_refused({with_zone(), {{"zones/example.zone", std::string(kZone) + "bad IN A 192.0.2.999\n"}}},
                 ElementsAre("zones/example.zone:6:10: not an IPv4 address"));
}

TEST_F(Refusals, EveryFaultOfEveryZoneInOneRun) {
  const std::string bad = std::string(kZone) + "a IN A x\nb IN MX mail\n";
  expect_refused(
      {edge_yaml("100", "zones:\n  - {name: one.test, file: one.zone}\n  - {name: two.test, file: two.zone}\n"),
       {{"one.zone", bad}, {"two.zone", "@ 60 IN SOA ns h 1 2 3 4 5\n"}}},
      ElementsAre("one.zone:6:8: not an IPv4 address", StartsWith("one.zone:7:"),
                  "two.zone:1:1: the zone two.test. has no NS at its apex"));
}

TEST_F(Refusals, ACnameBesideOtherData) {
  expect_refused({with_zone(), {{"zones/example.zone", std::string(kZone) + "www IN CNAME ns\n"}}},
                 ElementsAre("zones/example.zone:6:1: www.example.test. has a CNAME and other records"));
}

TEST_F(Refusals, AFaultOfAnIncludedFile) {
  expect_refused({with_zone(),
                  {{"zones/example.zone", std::string(kZone) + "$INCLUDE zones/more.zone\n"},
                   {"zones/more.zone", "; theirs\nb 60 AAAA 192.0.2.1\n"}}},
                 ElementsAre("zones/more.zone:2:11: not an IPv6 address"));
}

TEST_F(Refusals, ASteerOnANameThatTheZonePointsElsewhere) {
  const std::string text =
      with_zone("steers:\n  - name: alias.example.test\n    targets: [{pool: origins}]\n    policy: weighted\n");
  const auto line =
      std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(text.find("alias.example")), '\n') + 1;
  expect_refused(
      {text, {{"zones/example.zone", std::string(kZone) + "alias IN CNAME www\n"}}},
      ElementsAre(fmt::format(
          "edge.yaml:{}:11: steer alias.example.test.: the name is a CNAME in the zone example.test.", line)));
}

std::string with_certificate() {
  return edge_yaml("100", "certificates:\n  - {name: www, certificate_file: www.crt, key_file: www.key}\n");
}

TEST_F(Refusals, ACertificateThatDoesNotFitItsKey) {
  const TlsIdentity a = make_identity("a.test"), b = make_identity("b.test");
  expect_refused({with_certificate(), {{"www.crt", a.certificate_pem}, {"www.key", b.key_pem}}},
                 ElementsAre(HasSubstr("does not belong to certificate CN=a.test")));
}

TEST_F(Refusals, ACertificateThatCannotBeRead) {
  const TlsIdentity a = make_identity("a.test");
  expect_refused(
      {with_certificate(),
       {{"www.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, {"www.key", a.key_pem}}},
      ElementsAre(HasSubstr("certificate 'www' cannot be used")));
}

TEST_F(Refusals, ACertificateWhoseKeyNoServerUses) {
  const TlsIdentity weak = make_identity("weak.test", {}, true, 3600, -60, 1024);
  expect_refused({with_certificate(), {{"www.crt", weak.certificate_pem}, {"www.key", weak.key_pem}}},
                 ElementsAre(HasSubstr("key too small")));
}

std::string with_tls(const std::string& tls, const std::string& more = {}) {
  return with_certificate() + "  - {name: other, certificate_file: other.crt, key_file: other.key}\n" + more +
         "listeners:\n  - {name: http, bind: [\"127.0.0.1:8000\"], tls: {" + tls + "}}\n";
}

std::string without_listener(std::string text) {
  const size_t begin = text.find("listeners:\n");
  return text.erase(begin, text.find("routes:\n") - begin);
}

std::map<std::string, std::string> two_certificates(const TlsIdentity& www) {
  const TlsIdentity other = make_identity("other.test");
  return {{"www.crt", www.certificate_pem},
          {"www.key", www.key_pem},
          {"other.crt", other.certificate_pem},
          {"other.key", other.key_pem}};
}

TEST_F(Refusals, ACertificateWithWhichNoClientCanBeServed) {
  const std::string text = without_listener(with_tls("certificates: [other, www]"));
  expect_refused({text, two_certificates(make_identity_of(make_dsa_key(), "a.test"))},
                 ElementsAre(AllOf(HasSubstr("edge.yaml:18:72: no client can be served with certificate www, whose key "
                                             "is DSA 2048, from TLS 1.2 on: no suitable signature algorithm"))));
}

TEST_F(Refusals, ACurveThatTheVersionsOfTlsDoNotKnow) {
  const std::map<std::string, std::string> files = two_certificates(make_identity_of(EVP_EC_gen("P-224"), "a.test"));
  EXPECT_THAT(by_check({without_listener(with_tls("certificates: [www]")), files}), IsEmpty());
  expect_refused({without_listener(with_tls("certificates: [www], min_version: \"1.3\"")), files},
                 ElementsAre(HasSubstr("whose key is EC secp224r1, from TLS 1.3 on")));
}

TEST_F(Refusals, MoreAuthoritiesOfClientsThanAServerCanName) {
  std::map<std::string, std::string> files = two_certificates(make_identity("a.test"));
  for (size_t i = 0; i < 8; ++i) files["authorities.pem"] += make_identity_with_long_subject(i).certificate_pem;
  expect_refused(
      {without_listener(with_tls("certificates: [www], client_certificates: {ca_file: authorities.pem}")), files},
      ElementsAre(HasSubstr("no client can be asked for a certificate of these authorities")));
}

TEST_F(Refusals, AuthoritiesForKeysThatCannotBeRead) {
  const std::string text =
      edge_yaml("100",
                "policies:\n  - name: tokens\n    authenticate: {jwt: {issuer: x, audience: [y], "
                "algorithms: [RS256], keys_url: \"https://a.test/keys\", keys_ca_file: ca.pem}}\n");
  expect_refused({text, {{"ca.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}}},
                 ElementsAre(HasSubstr("keys_ca_file 'ca.pem' cannot be used")));
}

TEST_F(Refusals, ARouteTwice) {
  const std::string text = edge_yaml();
  const std::string route =
      "\n  - {name: again, path: /health, status: 204}\n  - {name: twice, path: /health, status: 200}\n";
  const size_t routes = text.find("routes:") + 7;
  std::string twice = text;
  twice.insert(routes, route.substr(0, route.size() - 1));
  const std::vector<std::string> checked = by_check({twice, {}});
  ASSERT_THAT(checked, ::testing::Not(IsEmpty()));
  expect_refused({twice, {}}, ::testing::ElementsAreArray(checked));
}

class LongRefusals : public Refusals {};

// Its small form is Plans.TellWhatAForwarderHasNoIdsFor.
TEST_F(LongRefusals, MoreBackendsThanAForwarderHasIdsFor) {
  std::string text =
      "sites: [{name: eu}]\nnodes:\n  - {name: box, site: eu, l4: {ports: [{device: eth1, addresses: "
      "[10.0.0.2/24]}]}}\n"
      "vips: [{name: vip, site: eu, addresses: [10.0.0.100]}]\n"
      "services: [{name: dns, vip: vip, protocol: udp, port: 53, pool: crowd}]\npools:\n  - name: crowd\n    "
      "backends:\n";
  for (size_t i = 0; i <= l4::kMaxBackends; ++i) {
    text += fmt::format("      - {{name: b{}, addresses: [10.1.{}.{}]}}\n", i, i / 256, i % 256);
  }
  expect_refused({text, {}}, ElementsAre(fmt::format(
                                 "edge.yaml:5:65: node box: more than {} backends behind the services of one node",
                                 l4::kMaxBackends)));
}

TEST_F(Refusals, LeaveASoundDocumentAlone) {
  const Given sound{with_zone(), {{"zones/example.zone", kZone}}};
  EXPECT_THAT(by_check(sound), IsEmpty());
  EXPECT_THAT(by_the_api(sound, "?dry_run=true"), IsEmpty());
  EXPECT_THAT(by_the_api(sound, ""), IsEmpty());
  EXPECT_EQ(host.control->host_state().manifest().version, 1U);
}

TEST_F(Refusals, OneElementIsJudgedToo) {
  const Given sound{with_zone("steers:\n  - {name: www.example.test, policy: weighted, targets: [{pool: origins}]}\n"),
                    {{"zones/example.zone", std::string(kZone) + "alias IN CNAME www\n"}}};
  ASSERT_THAT(by_check(sound), IsEmpty());
  ASSERT_THAT(by_the_api(sound, ""), IsEmpty());
  const std::shared_ptr<const Plans> before = host.control->host_state().plans();
  ASSERT_NE(before, nullptr);
  // A changed weight concerns no zone, so the plans stay.
  const HttpResponse other = host.call_json(
      "PUT", "/v1/config/pools/origins",
      {{"backends", {{{"name", "origin1"}, {"addresses", {"127.0.0.1"}}, {"port", 8080}}}}}, {{"If-Match", "*"}});
  ASSERT_EQ(other.status, 200) << other.body;
  EXPECT_EQ(host.control->host_state().plans(), before);

  const HttpResponse added =
      host.call_json("PUT", "/v1/config/steers/alias.example.test",
                     {{"policy", "weighted"}, {"targets", {{{"pool", "origins"}}}}}, {{"If-Match", "*"}});
  EXPECT_EQ(added.status, 422) << added.body;
  EXPECT_THAT(added.body, HasSubstr("the name is a CNAME"));
  EXPECT_EQ(host.control->host_state().manifest().version, 2U);
}

TEST_F(Refusals, OneListenerIsJudgedToo) {
  const Given sound{without_listener(with_tls("certificates: [other]")),
                    two_certificates(make_identity_of(make_dsa_key(), "a.test"))};
  ASSERT_THAT(by_check(sound), IsEmpty()) << "nobody is shown that certificate";
  ASSERT_THAT(by_the_api(sound, ""), IsEmpty());
  const auto change = [&](const char* certificate) {
    return host.call_json("PUT", "/v1/config/listeners/http",
                          {{"bind", {"127.0.0.1:8000"}}, {"tls", {{"certificates", {certificate}}}}},
                          {{"If-Match", "*"}});
  };
  const HttpResponse refused = change("www");
  EXPECT_EQ(refused.status, 422) << refused.body;
  EXPECT_EQ(body_of(refused)["faults"][0]["pointer"], "/listeners/0/tls/certificates/0") << refused.body;
  EXPECT_EQ(host.control->host_state().manifest().version, 1U);
}

TEST(Plans, TellWhatAForwarderHasNoIdsFor) {
  auto model = std::make_shared<Model>();
  model->nodes.emplace_back().name = "box";
  model->nodes[0].l4.enabled = true;
  model->vips.emplace_back().addresses = {*IpAddress::parse("10.0.0.100")};
  model->services.emplace_back();
  model->services[0].vip = model->services[0].pool = 0;
  Backend backend;
  backend.addresses = {*IpAddress::parse("10.0.0.1")};
  std::vector<Backend>& backends = model->pools.emplace_back().backends;
  for (size_t i = 0; i < l4::kMaxBackends; ++i) {
    backend.name = std::to_string(i);
    backends.push_back(backend);
  }
  EXPECT_NE(plan_version(model, nullptr).plans, nullptr);
  backend.name = "one more";
  backends.push_back(backend);
  const PlannedVersion planned = plan_version(model, nullptr);
  EXPECT_EQ(planned.plans, nullptr);
  ASSERT_THAT(planned.faults, ::testing::SizeIs(1));
  EXPECT_EQ(planned.faults[0].pointer, "/services/0/pool");
  EXPECT_THAT(planned.faults[0].detail, StartsWith("node box: more than 16384 backends"));
}

// One list for each bit of an address, and each names the addresses in which its bit is set. So each address is in
// other lists. Each list is sound by itself.
Model with_lists_of_bits(size_t bits) {
  Model model;
  model.nodes.emplace_back().l4.enabled = true;
  for (size_t bit = 0; bit < bits; ++bit) {
    Acl& acl = model.acls.emplace_back();
    acl.name = std::to_string(bit);
    for (uint32_t first = 1U << bit; first < 1U << bits; first += 2U << bit) {
      acl.networks.push_back(*Cidr::parse(fmt::format("10.0.{}.{}/{}", first / 256, first % 256, 32 - bit)));
    }
  }
  return model;
}

Model with_one_list_more(const Model& before) {
  Model model = before;
  Acl& one_more = model.acls.emplace_back();
  one_more.name = "one more";
  one_more.networks = {*Cidr::parse("192.0.2.0/24")};
  return model;
}

TEST(Plans, TellThatListsOfClientsOverlapInMoreWaysThanAForwarderKnows) {
  const Model before = with_lists_of_bits(16);
  auto more = std::make_shared<Model>(with_one_list_more(before));
  const PlannedVersion planned = plan_element(more, "acls", before, nullptr);
  ASSERT_THAT(planned.faults, ::testing::SizeIs(1));
  EXPECT_EQ(planned.faults[0].pointer, "/acls");
  EXPECT_THAT(planned.faults[0].detail, HasSubstr("overlap in more than 65,536 ways"));
  more->nodes[0].l4.enabled = false;
  EXPECT_THAT(plan_version(more, nullptr).faults, IsEmpty()) << "no forwarder has lists";
}

TEST(LongPlans, TakeAsManyOverlapsAsAForwarderDoes) {
  auto model = std::make_shared<Model>(with_lists_of_bits(16));
  EXPECT_THAT(plan_version(model, nullptr).faults, IsEmpty());
  auto more = std::make_shared<Model>(with_one_list_more(*model));
  EXPECT_THAT(plan_version(more, nullptr).faults, ::testing::SizeIs(1));
  const auto build = [](const std::shared_ptr<Model>& each) {
    return l4::ForwardingBuilder(HashKey{}).build(make_snapshot(1, "d", each, std::make_shared<const LiveState>()),
                                                  each->nodes[0], 0);
  };
  EXPECT_TRUE(build(model));
  const auto refused = build(more);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("overlap in more than 65,536 ways"));
}

TEST(Plans, TakeOverTheZonesThatDidNotChange) {
  const auto model_of = [](const std::string& second) {
    auto model = std::make_shared<Model>();
    for (const auto& [name, text] : {std::pair<std::string, std::string>{"one.test.", kZone}, {"two.test.", second}}) {
      tidegate::Zone zone;
      zone.name = name;
      zone.file = {name + "zone", std::to_string(std::hash<std::string>{}(text)),
                   std::make_shared<const std::string>(text)};
      model->zones.push_back(zone);
    }
    return std::shared_ptr<const Model>(model);
  };
  const PlannedVersion first = plan_version(model_of(kZone), nullptr);
  ASSERT_NE(first.plans, nullptr);
  const PlannedVersion second = plan_version(model_of(std::string(kZone) + "x IN A 192.0.2.2\n"), first.plans.get());
  ASSERT_NE(second.plans, nullptr);
  EXPECT_EQ(second.plans->dns->zones[0].zone, first.plans->dns->zones[0].zone);
  EXPECT_NE(second.plans->dns->zones[1].zone, first.plans->dns->zones[1].zone);
  const PlannedVersion faulty = plan_version(model_of("x IN A 1\n"), second.plans.get());
  EXPECT_EQ(faulty.plans, nullptr);
  EXPECT_THAT(faulty.faults, ::testing::SizeIs(1));
}

}  // namespace tidegate::testing::plans_test
