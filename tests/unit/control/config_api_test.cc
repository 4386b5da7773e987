// SPDX-License-Identifier: Apache-2.0
// The configuration over REST: reads, entity tags, dry runs, patches, single objects, bundles, malformed bodies.

#include <map>
#include <set>

#include "conf/model.h"
#include "conf/model/pool.h"
#include "conf/model/route.h"
#include "control/api/bundle.h"
#include "tests/unit/control/host.h"

namespace tidegate::testing::config_api_test {

using ::testing::HasSubstr;
using ::testing::Not;

class ConfigApiTest : public ::testing::Test {
 protected:
  void SetUp() override { host.start(); }
  std::string tag() { return header(host.call("GET", "/v1/config"), "etag"); }
  uint64_t version() { return host.control->host_state().head().version; }

  EventLoop loop;
  Host host{loop};
};

TEST_F(ConfigApiTest, BeforeTheFirstVersionThereIsNothingToRead) {
  EXPECT_EQ(host.call("GET", "/v1/config").status, 404);
  EXPECT_EQ(host.put_config(edge_yaml()).status, 200);
  EXPECT_EQ(host.call("GET", "/v1/config").status, 200);
}

TEST_F(ConfigApiTest, ReadsBackAsYamlOrJsonByAccept) {
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  const HttpResponse yaml = host.call("GET", "/v1/config");
  EXPECT_THAT(header(yaml, "content-type"), HasSubstr("yaml"));
  EXPECT_THAT(yaml.body, HasSubstr("origins"));
  const HttpResponse json = host.call("GET", "/v1/config", "", {{"Accept", "application/json"}});
  EXPECT_EQ(body_of(json)["pools"][0]["name"], "origins");
  EXPECT_NE(header(yaml, "etag"), header(json, "etag")) << "other bytes, another strong tag";
  // Writing back what was read is not a change.
  const HttpResponse again = host.put_config(yaml.body, header(yaml, "etag"));
  EXPECT_EQ(body_of(again)["outcome"], "unchanged") << again.body;
}

TEST_F(ConfigApiTest, AWriteWithoutIfMatchIs428AndAStaleOneIs412) {
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  const std::string first = tag();
  EXPECT_EQ(host.call("PUT", "/v1/config", edge_yaml("7"), {{"Content-Type", "application/yaml"}}).status, 428);
  EXPECT_EQ(host.put_config(edge_yaml("7"), first).status, 200);
  EXPECT_EQ(host.put_config(edge_yaml("8"), first).status, 412);
  EXPECT_EQ(version(), 2u);
  EXPECT_NE(tag(), first);
}

TEST_F(ConfigApiTest, IfNoneMatchStarWritesOnlyTheFirstVersion) {
  const Headers first = {{"Content-Type", "application/yaml"}, {"If-None-Match", "*"}};
  EXPECT_EQ(host.call("PUT", "/v1/config", edge_yaml(), first).status, 200);
  EXPECT_EQ(host.call("PUT", "/v1/config", edge_yaml("7"), first).status, 412);
}

TEST_F(ConfigApiTest, IfNoneMatchStarOnAnObjectLooksAtTheObject) {
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  const Headers first = {{"Content-Type", "application/yaml"}, {"If-None-Match", "*"}};
  const std::string path = "/v1/config/routes/old";
  EXPECT_EQ(host.call("PUT", path, "{path: /old, status: 410}", first).status, 200) << "it is not there yet";
  const HttpResponse again = host.call("PUT", path, "{path: /old, status: 404}", first);
  EXPECT_EQ(again.status, 412);
  EXPECT_EQ(body_of(again)["code"], "already_there");
  EXPECT_THAT(host.call("GET", path).body, HasSubstr("410"));
  EXPECT_EQ(host.call("DELETE", path, "", {{"If-None-Match", "*"}}).status, 412);
  EXPECT_EQ(host.call("DELETE", "/v1/config/routes/none", "", {{"If-None-Match", "*"}}).status, 404);
  EXPECT_EQ(host.call("PUT", path, "{path: /old, status: 404}", {{"Content-Type", "application/yaml"}}).status, 428);
  // With both headers, both conditions must hold.
  EXPECT_EQ(host.call("PUT", "/v1/config/routes/new", "{path: /new, status: 404}",
                      {{"Content-Type", "application/yaml"}, {"If-None-Match", "*"}, {"If-Match", "\"0\""}})
                .status,
            412);
}

TEST_F(ConfigApiTest, NoTwoRepresentationsShareAStrongTagAndAWriteTakesEach) {
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  std::set<std::string> tags;
  std::map<std::string, std::string> bodies;
  for (const char* token : {kAdminToken, kViewerToken}) {
    for (const char* type : {"application/json", "application/yaml"}) {
      for (const char* path : {"/v1/config", "/v1/config/pools", "/v1/config/pools/origins"}) {
        const Headers accept = {{"Accept", type}};
        const HttpResponse answer = host.call_as(token, "GET", path, "", accept);
        const std::string tag = header(answer, "etag");
        tags.insert(tag);
        const auto [known, is_new] = bodies.emplace(path + tag, answer.body);
        EXPECT_TRUE(is_new || known->second == answer.body) << path << " " << tag;
        const HttpResponse unchanged =
            host.call_as(token, "GET", path, "", {accept.front(), {"If-None-Match", "\"x\", W/" + tag}});
        EXPECT_EQ(unchanged.status, 304) << path;
        EXPECT_EQ(header(unchanged, "etag"), tag);
        EXPECT_EQ(unchanged.body, "");
        EXPECT_EQ(host.call_as(token, "GET", path, "", {accept.front(), {"If-None-Match", "\"x\""}}).status, 200);
      }
    }
  }
  EXPECT_EQ(tags.size(), 4u);
  for (const std::string& tag : tags) {
    EXPECT_EQ(body_of(host.put_config(edge_yaml("7"), tag, "?dry_run=true"))["outcome"], "dry_run") << tag;
    EXPECT_EQ(host.put_config(edge_yaml("7"), "W/" + tag).status, 412) << "a weak one names no version";
  }
  EXPECT_EQ(host.call("GET", "/v1/config/pools/none", "", {{"If-None-Match", *tags.begin()}}).status, 404);
}

TEST_F(ConfigApiTest, AKeyThatStandsTwiceInAJsonBodyIsRefusedEverywhere) {
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  const Headers json = {{"Content-Type", "application/json"}, {"If-Match", "*"}};
  const Headers bundle = {{"Content-Type", "application/vnd.tidegate.bundle+json"}, {"If-Match", "*"}};
  const std::string pool = R"({"name":"origins","backends":[],"backends":[]})";
  const struct {
    const char *method, *path;
    std::string body;
    const Headers& headers;
  } kCalls[] = {
      {"PUT", "/v1/config/pools/origins", pool, json},
      {"PUT", "/v1/config", R"({"pools":[)" + pool + "]}", json},
      {"PATCH", "/v1/config", R"({"geo":{"default_site":"eu","default_site":"us"}})", json},
      {"PUT", "/v1/config", R"({"text":"","text":""})", bundle},
      {"PUT", "/v1/config", R"({"text":"","files":{"a":"","a":""}})", bundle},
      {"POST", "/v1/purge", R"({"all":true,"all":true})", json},
      {"POST", "/v1/rollback", R"({"to":1,"t\u006f":2})", json},
      {"PUT", "/v1/admin/pool/origins", R"({"state":"down","state":"drained"})", json},
  };
  const StateHead before = host.control->host_state().head();
  for (const auto& call : kCalls) {
    const HttpResponse answer = host.call(call.method, call.path, call.body, call.headers);
    EXPECT_EQ(answer.status / 100, 4) << call.path << " " << call.body << answer.body;
    EXPECT_THAT(answer.body, HasSubstr("twice")) << call.path << " " << call.body;
  }
  EXPECT_EQ(host.control->host_state().head(), before);
}

// Every page beyond the first two exceeds the limit, as on a full disk.
TEST_F(ConfigApiTest, AFullDiskIsNamedLoggedAndAnswered507) {
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  const StateHead before = host.control->host_state().head();
  ::testing::internal::CaptureStderr();
  {
    const FullDisk full;
    const HttpResponse refused = host.put_config(edge_yaml("7"));
    EXPECT_EQ(refused.status, 507) << refused.body;
    EXPECT_EQ(body_of(refused)["code"], "disk_full");
    EXPECT_THAT(body_of(refused)["detail"].get<std::string>(), HasSubstr(host.options.state_dir));
    EXPECT_EQ(host.call_json("POST", "/v1/purge", {{"all", true}}).status, 507);
    EXPECT_EQ(host.call_json("PUT", "/v1/admin/pool/origins", {{"state", "down"}}).status, 507);
    EXPECT_EQ(host.call("PUT", "/v1/config/pools/origins", "{backends: [{name: a, addresses: [127.0.0.1], port: 1}]}",
                        {{"Content-Type", "application/yaml"}, {"If-Match", "*"}})
                  .status,
              507);
    EXPECT_EQ(host.call("GET", "/v1/config").status, 200) << "what is there is read";
    EXPECT_EQ(host.control->host_state().head(), before);
  }
  EXPECT_EQ(host.put_config(edge_yaml("7")).status, 200);
  const std::string told = ::testing::internal::GetCapturedStderr();
  const auto count = [&](const std::string& text) {
    size_t found = 0;
    for (size_t at = told.find(text); at != std::string::npos; at = told.find(text, at + 1)) ++found;
    return found;
  };
  EXPECT_EQ(count("cannot write the state: state: no room: the disk that holds"), 1u) << told;
  EXPECT_EQ(count("the state can be written again"), 1u) << told;
}

TEST_F(ConfigApiTest, AnUnchangedReadIs304) {
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  EXPECT_EQ(host.call("GET", "/v1/config", "", {{"If-None-Match", tag()}}).status, 304);
}

TEST_F(ConfigApiTest, ADryRunSaysWhatWouldChangeAndChangesNothing) {
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  const HttpResponse answer = host.put_config(edge_yaml("7"), tag(), "?dry_run=true");
  EXPECT_EQ(answer.status, 200);
  const nlohmann::json body = body_of(answer);
  EXPECT_EQ(body["outcome"], "dry_run");
  ASSERT_EQ(body["changes"].size(), 1u);
  EXPECT_EQ(body["changes"][0]["kind"], "pools");
  EXPECT_EQ(body["changes"][0]["change"], "changed");
  EXPECT_EQ(version(), 1u);
}

TEST_F(ConfigApiTest, AMistypedParameterIsRefusedAndNotIgnored) {
  EXPECT_EQ(host.put_config(edge_yaml(), "*", "?dryrun=true").status, 400);
  EXPECT_EQ(version(), 0u);
}

TEST_F(ConfigApiTest, ADryRunIsTrueOrFalseAndAnythingElseWritesNothing) {
  for (const char* query : {"?dry_run=maybe", "?dry_run=TRUE", "?dry_run=1", "?dry_run", "?dry_run=",
                            "?dry_run=true&dry_run=false", "?%64ry_run=yes", "?dry%5frun=nein", "?comment=%f"}) {
    const HttpResponse answer = host.put_config(edge_yaml(), "*", query);
    EXPECT_EQ(answer.status, 400) << query;
  }
  EXPECT_EQ(version(), 0u);
  const nlohmann::json problem = body_of(host.put_config(edge_yaml(), "*", "?dry_run=maybe"));
  EXPECT_EQ(problem["code"], "bad_parameter");
  EXPECT_EQ(problem["parameter"], "dry_run");
  EXPECT_EQ(problem["given"], "maybe");
  EXPECT_EQ(problem["expected"], "true or false");
  EXPECT_EQ(body_of(host.put_config(edge_yaml(), "*", "?%64ry_run=true"))["outcome"], "dry_run");
  EXPECT_EQ(version(), 0u);
  EXPECT_EQ(body_of(host.put_config(edge_yaml(), "*", "?dry_run=false"))["outcome"], "committed");
}

TEST_F(ConfigApiTest, AnInvalidDocumentComesBackWithEveryFaultAndItsPlace) {
  std::string broken = edge_yaml();
  broken.replace(broken.find("pool: origins"), 13, "pool: orgins_");
  broken.replace(broken.find("weight: 100"), 11, "wieght: 100");
  const HttpResponse answer = host.put_config(broken);
  EXPECT_EQ(answer.status, 422);
  EXPECT_THAT(header(answer, "content-type"), HasSubstr("application/problem+json"));
  const nlohmann::json faults = body_of(answer)["faults"];
  ASSERT_EQ(faults.size(), 2u) << answer.body;
  for (const nlohmann::json& fault : faults) {
    EXPECT_GT(fault["line"].get<int>(), 0);
    EXPECT_GT(fault["column"].get<int>(), 0);
    EXPECT_THAT(fault["pointer"].get<std::string>(), HasSubstr("/"));
    EXPECT_FALSE(fault["detail"].get<std::string>().empty());
  }
  EXPECT_EQ(version(), 0u);
}

TEST_F(ConfigApiTest, AMergePatchChangesOneThing) {
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  const HttpResponse answer = host.call("PATCH", "/v1/config", R"({"geo": {"default_site": "eu"}})",
                                        {{"Content-Type", "application/merge-patch+json"}, {"If-Match", tag()}});
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_THAT(host.call("GET", "/v1/config").body, HasSubstr("default_site: eu"));
  EXPECT_THAT(host.call("GET", "/v1/config").body, HasSubstr("origins"));
}

TEST_F(ConfigApiTest, OneObjectIsReadReplacedAddedAndRemoved) {
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  const Headers any = {{"If-Match", "*"}, {"Content-Type", "application/yaml"}};
  EXPECT_THAT(host.call("GET", "/v1/config/pools/origins").body, HasSubstr("origin1"));
  EXPECT_EQ(host.call("GET", "/v1/config/pools/nobody").status, 404);
  EXPECT_THAT(host.call("GET", "/v1/config/pools/orgins").body, HasSubstr("did you mean 'origins'?"));
  HttpResponse answer = host.call("PUT", "/v1/config/routes/health", "{path: /healthz, status: 200, body: ok}", any);
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_THAT(answer.body, HasSubstr(R"({"change":"added","kind":"routes","name":"health"})"));
  EXPECT_EQ(host.call("PUT", "/v1/config/routes/health", "{name: other, path: /}", any).status, 400);
  answer = host.call("DELETE", "/v1/config/routes/health", "", {{"If-Match", "*"}});
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(host.call("DELETE", "/v1/config/routes/health", "", {{"If-Match", "*"}}).status, 404);
  // A removal that leaves a dangling reference is refused as a whole.
  EXPECT_EQ(host.call("DELETE", "/v1/config/pools/origins", "", {{"If-Match", "*"}}).status, 422);
}

constexpr const char* kZone =
    "$TTL 60\n@ IN SOA ns hostmaster 1 3600 600 86400 60\n@ IN NS ns\nns IN A 192.0.2.53\nwww IN A 192.0.2.1\n";

std::string bundle_with_zone(const std::string& zone, const std::string& weight = "100") {
  Bundle bundle;
  bundle.file = "edge.yaml";
  bundle.text = edge_yaml(weight, "zones:\n  - {name: example.test, file: example.zone}\n");
  bundle.files["example.zone"] = std::make_shared<const std::string>(zone);
  return encode_bundle(bundle);
}

TEST_F(ConfigApiTest, ABundleBringsItsFilesAndLaterDocumentsFindThemInTheVersion) {
  const Headers bundle = {{"Content-Type", kBundleType}, {"If-Match", "*"}};
  HttpResponse answer = host.call("PUT", "/v1/config", bundle_with_zone(kZone), bundle);
  ASSERT_EQ(answer.status, 200) << answer.body;
  const std::string text = host.call("GET", "/v1/config").body;
  EXPECT_THAT(text, HasSubstr("example.zone"));
  answer = host.put_config(text + "geo: {default_site: eu}\n", tag());
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(version(), 2u);
}

TEST_F(ConfigApiTest, ARollbackRestoresTheFilesOfThatVersion) {
  const Headers bundle = {{"Content-Type", kBundleType}, {"If-Match", "*"}};
  ASSERT_EQ(host.call("PUT", "/v1/config", bundle_with_zone(kZone), bundle).status, 200);
  const std::string first = tag();
  ASSERT_EQ(
      host.call("PUT", "/v1/config", bundle_with_zone(std::string(kZone) + "new IN A 192.0.2.9\n"), bundle).status,
      200);
  EXPECT_NE(tag(), first);
  const HttpResponse answer = host.call_json("POST", "/v1/rollback", {{"to", 1}});
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(version(), 3u);
  EXPECT_EQ(tag(), first);
  std::string error;
  EXPECT_EQ(*files_of(host.control->host_state())("example.zone", error), kZone);
  EXPECT_EQ(body_of(host.call("GET", "/v1/versions/3"))["rollback_of"], 1);
}

TEST_F(ConfigApiTest, ABundleIsReadWithAllItsFilesAndPutElsewhere) {
  const Headers bundle = {{"Content-Type", kBundleType}, {"If-Match", "*"}};
  const Headers accept = {{"Accept", kBundleType}};
  ASSERT_EQ(host.call("PUT", "/v1/config", bundle_with_zone(kZone), bundle).status, 200);
  const HttpResponse whole = host.call("GET", "/v1/config", "", accept);
  ASSERT_EQ(whole.status, 200);
  EXPECT_EQ(header(whole, "content-type"), kBundleType);
  EXPECT_EQ(host.call("GET", "/v1/versions/1/config", "", accept).body, whole.body);
  EXPECT_EQ(host.call("GET", "/v1/config", "", {accept.front(), {"If-None-Match", header(whole, "etag")}}).status, 304);
  EXPECT_EQ(host.call_as(kViewerToken, "GET", "/v1/config", "", accept).status, 403) << "private keys may be in it";
  Host elsewhere(loop);
  elsewhere.start();
  ASSERT_EQ(elsewhere.call("PUT", "/v1/config", whole.body, bundle).status, 200);
  EXPECT_EQ(elsewhere.control->host_state().manifest().digest, host.control->host_state().manifest().digest);
}

// A document with one file at this path.
std::string bundle_with_file(const std::string& path) {
  Bundle bundle;
  bundle.file = "edge.yaml";
  bundle.text = edge_yaml("100", "zones:\n  - {name: example.test, file: \"" + path + "\"}\n");
  bundle.files[path] = std::make_shared<const std::string>("@ 60 IN SOA ns hm 1 1 1 1 1\n@ 60 IN NS ns\n");
  return encode_bundle(bundle);
}

TEST_F(ConfigApiTest, BrokenBodiesAreProblemsAndChangeNothing) {
  ASSERT_EQ(host.put_config(edge_yaml("100", "geo:\n  networks: [{network: 10.0.0.0/8, site: eu}]\n")).status, 200);
  struct Broken {
    const char *method, *target, *type;
    std::string body;
  };
  const std::vector<Broken> all = {
      {"PUT", "/v1/config", "application/yaml", "sites: [\n"},
      {"PUT", "/v1/config", "application/yaml", std::string("\0\x01\xff", 3)},
      {"PUT", "/v1/config", "application/json", "{"},
      {"PUT", "/v1/config", kBundleType, "{\"text\": 3}"},
      {"PUT", "/v1/config", "text/plain", "sites: []"},
      {"PUT", "/v1/config", kBundleType, bundle_with_file(std::string(600, 'z'))},
      {"PUT", "/v1/config/pools/origins", "application/json", "[1]"},
      {"PUT", "/v1/config/geo/home", "application/json", "{}"},
      {"PUT", "/v1/config/tides/home", "application/json", "{}"},
      {"PATCH", "/v1/config", "application/json", "[1,2"},
      {"PATCH", "/v1/config", "application/json", "[]"},
      {"PATCH", "/v1/config", "application/json", std::string(50'000, '[')},
      {"POST", "/v1/rollback", "application/json", R"({"to": "yesterday"})"},
      {"POST", "/v1/rollback", "application/json", R"({"to": 99})"},
      {"POST", "/v1/rollback", "application/json", R"({"to": 1, "comment": 5})"},
      {"POST", "/v1/rollback", "application/json", R"({"to": 1, "comment": ")" + std::string(501, 'x') + R"("})"},
      {"POST", "/v1/purge", "application/json", "{}"},
      {"POST", "/v1/purge", "application/json", R"({"url": "/relative"})"},
      {"POST", "/v1/purge", "application/json", R"({"all": true, "tag": "x"})"},
      {"PUT", "/v1/admin/pool/origins", "application/json", R"({"state": "dancing"})"},
      {"PUT", "/v1/admin/pool/nobody", "application/json", R"({"state": "drained"})"},
      {"PUT", "/v1/admin/pool/origins", "application/json", R"({"state": "drained", "nota": 1})"},
      {"PUT", "/v1/admin/pool/origins", "application/json", R"({"state": "drained", "note": 1})"},
  };
  const StateHead before = host.control->host_state().head();
  for (const Broken& broken : all) {
    const HttpResponse answer =
        host.call(broken.method, broken.target, broken.body, {{"Content-Type", broken.type}, {"If-Match", "*"}});
    EXPECT_TRUE(answer.status >= 400 && answer.status < 500) << broken.target << ": " << answer.status << answer.body;
    EXPECT_THAT(header(answer, "content-type"), HasSubstr("application/problem+json")) << broken.target;
    EXPECT_FALSE(body_of(answer)["detail"].get<std::string>().empty());
  }
  EXPECT_EQ(host.control->host_state().head(), before);
}

TEST_F(ConfigApiTest, WhoMayOnlyReadSeesNoSecrets) {
  const std::string account = "httpdns:\n  accounts: [{id: \"1001\", secret: s3cret-word}]\n";
  ASSERT_EQ(host.put_config(edge_yaml("100", account)).status, 200);
  EXPECT_THAT(host.call("GET", "/v1/config").body, HasSubstr("s3cret-word"));
  EXPECT_THAT(host.call_as(kViewerToken, "GET", "/v1/config").body, Not(HasSubstr("s3cret-word")));
  EXPECT_THAT(host.call_as(kPublisherToken, "GET", "/v1/config").body, HasSubstr("s3cret-word"));
}

TEST_F(ConfigApiTest, TheSamePostWithTheSameKeyIsDoneOnce) {
  const Headers key = {{"Idempotency-Key", "k-1"}};
  const HttpResponse first = host.call_json("POST", "/v1/purge", {{"all", true}}, key);
  const HttpResponse second = host.call_json("POST", "/v1/purge", {{"all", true}}, key);
  EXPECT_EQ(first.status, 200) << first.body;
  EXPECT_EQ(first.body, second.body);
  EXPECT_EQ(host.control->host_state().head().purge, 1u);
  EXPECT_EQ(host.call_json("POST", "/v1/purge", {{"tag", "news"}}, key).status, 422);
  EXPECT_EQ(host.call_json("POST", "/v1/purge", {{"all", true}}, {{"Idempotency-Key", "k-2"}}).status, 200);
  EXPECT_EQ(host.control->host_state().head().purge, 2u);
}

TEST_F(ConfigApiTest, TheSamePostIsDoneOnceAcrossARestart) {
  const Headers key = {{"Idempotency-Key", "k-1"}};
  const HttpResponse first = host.call_json("POST", "/v1/purge", {{"all", true}}, key);
  ASSERT_EQ(first.status, 200) << first.body;
  host.stop();
  host.start();
  const HttpResponse second = host.call_json("POST", "/v1/purge", {{"all", true}}, key);
  EXPECT_EQ(second.status, 200);
  EXPECT_EQ(second.body, first.body);
  EXPECT_EQ(host.control->host_state().head().purge, 1u);
  EXPECT_EQ(host.call_json("POST", "/v1/purge", {{"tag", "news"}}, key).status, 422);
}

TEST_F(ConfigApiTest, TheFirstConfigurationComesFromTheFileAndLaterStartsKeepTheState) {
  host.stop();
  host.options.config = host.directory.write("edge.yaml", edge_yaml());
  host.start();
  EXPECT_EQ(version(), 1u);
  ASSERT_EQ(host.put_config(edge_yaml("7")).status, 200);
  host.stop();
  host.start();
  EXPECT_EQ(version(), 2u) << "the file did not overwrite what was applied since";
}

TEST_F(ConfigApiTest, AFaultyFirstConfigurationStopsTheStartWithItsFaults) {
  Host other(loop);
  other.options.config = other.directory.write("edge.yaml", "sites: [{nmae: eu}]\n");
  const Result<std::unique_ptr<Control>> started = Control::start(loop, other.options);
  ASSERT_FALSE(started);
  EXPECT_THAT(started.error().message, HasSubstr("edge.yaml:1:"));
}

// A single element takes a shorter path through the code than a document. The result must be the same.
class ElementTest : public ConfigApiTest {
 protected:
  void SetUp() override {
    ConfigApiTest::SetUp();
    ASSERT_EQ(host.put_config(edge_yaml("100", "  - {name: old, path: /old, status: 404}\n")).status, 200);
  }
  HttpResponse put_route(const std::string& name, const std::string& yaml, const std::string& query = {}) {
    return host.call("PUT", "/v1/config/routes/" + name + query, yaml,
                     {{"Content-Type", "application/yaml"}, {"If-Match", "*"}});
  }
  // The version in force must equal the one that its whole document gives.
  void expect_whole() {
    const HttpResponse again = host.put_config(host.call("GET", "/v1/config").body);
    EXPECT_EQ(body_of(again)["outcome"], "unchanged") << again.body;
  }
};

TEST_F(ElementTest, AChangeGivesWhatTheWholeDocumentWouldGive) {
  const HttpResponse answer = put_route("old", "{path: /older, redirect: /new, total_timeout: 60000ms}");
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(body_of(answer)["changes"].size(), 1u);
  EXPECT_EQ(host.control->host_state().model()->routes[1].redirect()->status, 302);
  EXPECT_EQ(version(), 2u);
  expect_whole();
  ASSERT_EQ(put_route("all", "{pool: origins, cache: {enabled: true}}").status, 200);
  ASSERT_EQ(put_route("old", "{path: /old, status: 410}").status, 200);
  EXPECT_EQ(host.control->host_state().model()->routes[1].redirect(), nullptr);
  expect_whole();
  EXPECT_EQ(version(), 4u);
  // After a document in between, changes of single elements continue from it.
  ASSERT_EQ(host.put_config(edge_yaml("7", "  - {name: old, path: /old, status: 404}\n")).status, 200);
  ASSERT_EQ(put_route("old", "{path: /old, status: 451}").status, 200);
  EXPECT_EQ(host.control->host_state().model()->pools[0].backends[0].weight, 7u);
  expect_whole();
}

TEST_F(ElementTest, AFaultNamesItsPlaceAndChangesNothing) {
  const HttpResponse typo = put_route("old", "{path: /old, staus: 404}");
  EXPECT_EQ(typo.status, 422);
  EXPECT_THAT(typo.body, HasSubstr("/routes/1/staus"));
  EXPECT_THAT(put_route("old", "{path: /old, pool: orgins}").body, HasSubstr("did you mean 'origins'"));
  EXPECT_THAT(put_route("old", "{path: /*, pool: origins}").body, HasSubstr("conflicting_routes"));
  EXPECT_EQ(version(), 1u);
  expect_whole();
  EXPECT_EQ(put_route("old", "{path: /old, status: 410}").status, 200);
  expect_whole();
}

TEST_F(ElementTest, ADryRunAndAnEqualElementChangeNothing) {
  EXPECT_EQ(body_of(put_route("old", "{path: /old, status: 410}", "?dry_run=true"))["outcome"], "dry_run");
  EXPECT_EQ(body_of(put_route("old", "{status: 404, path: /old}"))["outcome"], "unchanged");
  EXPECT_EQ(version(), 1u);
  expect_whole();
}

}  // namespace tidegate::testing::config_api_test
