// SPDX-License-Identifier: Apache-2.0
// Records over the API: each change makes a version in which only the zone's file differs.
#include "conf/model.h"
#include "conf/model/zone.h"
#include "control/api/bundle.h"
#include "control/api/zone_records.h"
#include "control/vote/plans.h"
#include "dns/plan/authority.h"
#include "tests/unit/control/host.h"

namespace tidegate::testing::zones_test {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

constexpr const char* kZone =
    "$TTL 60\n@ IN SOA ns hostmaster 1 3600 600 86400 60\n@ IN NS ns\nns IN A 192.0.2.53\nwww IN A 192.0.2.1\n"
    "$INCLUDE parts/more.inc sub\n";
constexpr const char* kIncluded = "a IN A 192.0.2.21\nb IN A 192.0.2.22\n";

class ZonesApi : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(host.directory / "parts");
    host.directory.write("z", kZone);
    host.directory.write("parts/more.inc", kIncluded);
    host.directory.write("other", "@ IN SOA ns hostmaster 1 2 3 4 5\n@ IN NS ns\nns IN A 192.0.2.53\n");
    host.options.config =
        host.directory.write("edge.yaml", R"(sites: [{name: eu, location: {latitude: 50, longitude: 8}}]
nodes: [{name: box, site: eu, l7: {workers: 1}}]
zones:
  - {name: example.test, file: z}
  - {name: 0/25.2.0.192.in-addr.arpa, file: other}
  - {name: twin-a.test, file: other2}
  - {name: twin-b.test, file: other2}
)");
    host.directory.write("other2", "@ IN SOA ns hostmaster 1 2 3 4 5\n@ IN NS ns\nns IN A 192.0.2.53\n");
    host.start();
  }
  HttpResponse put(const std::string& records, const json& body, const std::string& query = {}, Headers headers = {}) {
    if (headers.empty()) headers = {{"If-Match", "*"}};
    return host.call_json("PUT", "/v1/zones/example.test/records/" + records + query, body, headers);
  }
  HttpResponse remove(const std::string& records) {
    return host.call("DELETE", "/v1/zones/example.test/records/" + records, {}, {{"If-Match", "*"}});
  }
  // The data of the only set.
  std::vector<std::string> data(const std::string& records) {
    const HttpResponse response = host.call("GET", "/v1/zones/example.test/records/" + records);
    if (response.status != 200) return {std::to_string(response.status)};
    const json sets = body_of(response)["records"];
    return sets.size() == 1 ? sets[0]["data"].get<std::vector<std::string>>() : std::vector<std::string>{"not one"};
  }
  uint64_t version() { return host.control->host_state().head().version; }

  EventLoop loop;
  Host host{loop};
};

TEST_F(ZonesApi, ARecordIsPutReadAndRemovedAsASmallVersion) {
  const HttpResponse added = put("new/A", {{"ttl", 30}, {"data", {"192.0.2.7", "192.0.2.8"}}}, "?comment=hello");
  ASSERT_EQ(added.status, 200) << added.body;
  const json told = body_of(added);
  EXPECT_EQ(told["outcome"], "committed");
  EXPECT_EQ(told["version"], 2);
  ASSERT_EQ(told["changes"].size(), 1U) << "one object";
  EXPECT_EQ(told["changes"][0], (json{{"change", "changed"}, {"kind", "file"}, {"name", "z"}}));
  EXPECT_EQ(header(added, "etag"), header(host.call("GET", "/v1/config"), "etag").substr(0, 65) + "\"");
  EXPECT_THAT(data("new/A"), ElementsAre("192.0.2.7", "192.0.2.8"));
  EXPECT_EQ(body_of(put("new/A", {{"data", {"192.0.2.8", "192.0.2.7"}}}))["outcome"], "unchanged") << "the same again";
  ASSERT_EQ(remove("new/A").status, 200);
  EXPECT_THAT(data("new/A"), ElementsAre("404"));
  EXPECT_EQ(remove("new/A").status, 404);
  EXPECT_EQ(version(), 3U);
  const json versions = body_of(host.call("GET", "/v1/versions"))["versions"];
  EXPECT_EQ(versions[1]["comment"], "hello");
  EXPECT_EQ(versions[0]["comment"], "zone example.test: records new A");
  EXPECT_EQ(body_of(host.call("GET", "/v1/audit"))["audit"][0]["action"], "commit");
}

TEST_F(ZonesApi, TheWriteHasThePreconditionsOfEveryWrite) {
  const json body = {{"data", {"192.0.2.7"}}};
  EXPECT_EQ(host.call_json("PUT", "/v1/zones/example.test/records/new/A", body).status, 428);
  EXPECT_EQ(put("new/A", body, "", {{"If-Match", "\"0000\""}}).status, 412);
  EXPECT_EQ(put("www/A", body, "", {{"If-None-Match", "*"}}).status, 412) << "it is there already";
  EXPECT_EQ(put("new/A", body, "", {{"If-None-Match", "*"}}).status, 200);
  const std::string tag = header(host.call("GET", "/v1/zones/example.test/records/new/A"), "etag");
  EXPECT_EQ(host.call("GET", "/v1/zones/example.test/records", {}, {{"If-None-Match", tag}}).status, 304);
  EXPECT_EQ(put("new/AAAA", {{"data", {"2001:db8::1"}}}, "", {{"If-Match", tag}}).status, 200);
  EXPECT_EQ(put("new/AAAA", {{"data", {"2001:db8::2"}}}, "", {{"If-Match", tag}}).status, 412) << "stale by now";
  const uint64_t before = version();
  const HttpResponse dry = put("dry/A", body, "?dry_run=true");
  EXPECT_EQ(body_of(dry)["outcome"], "dry_run");
  EXPECT_EQ(version(), before);
  EXPECT_THAT(data("dry/A"), ElementsAre("404"));
}

TEST_F(ZonesApi, EveryFaultIsToldWithItsPlaceAndNothingChanges) {
  const HttpResponse bad = put("www/A", {{"ttl", -1}, {"data", {"192.0.2.7", 5, "192.0.2.999"}}, {"more", 1}});
  EXPECT_EQ(bad.status, 422);
  std::vector<std::string> pointers;
  const json told = body_of(bad)["faults"];
  for (const json& fault : told) pointers.push_back(fault["pointer"]);
  EXPECT_THAT(pointers, ::testing::UnorderedElementsAre("/ttl", "/data/1", "/more"));
  const json of_data = body_of(put("www/A", {{"data", {"x", "192.0.2.7", "192.0.2.999"}}}))["faults"];
  ASSERT_THAT(of_data, SizeIs(2));
  EXPECT_EQ(of_data[1]["pointer"], "/data/2");
  EXPECT_EQ(of_data[1]["column"], 1);
  EXPECT_EQ(of_data[1]["line_text"], "192.0.2.999");
  // A fault of the zone as a whole has its place in the file.
  const json of_zone = body_of(put("www/CNAME", {{"data", {"ns"}}}))["faults"];
  ASSERT_THAT(of_zone, Not(::testing::IsEmpty()));
  EXPECT_EQ(of_zone[0]["file"], "z");
  EXPECT_GT(of_zone[0]["line"], 0);
  EXPECT_EQ(remove("@/SOA").status, 422) << "a zone has a SOA";
  for (const char* body : {"", "[]", "{", "{\"data\": []}", "{\"data\": \"192.0.2.1\"}", "{}"}) {
    EXPECT_EQ(host.call("PUT", "/v1/zones/example.test/records/www/A", body,
                        {{"If-Match", "*"}, {"Content-Type", "application/json"}})
                  .status,
              422)
        << body;
  }
  EXPECT_EQ(put("www.other.test./A", {{"data", {"192.0.2.1"}}}).status, 400);
  EXPECT_EQ(put("www/ANY", {{"data", {"192.0.2.1"}}}).status, 400);
  const HttpResponse unknown = host.call("GET", "/v1/zones/exampel.test/records");
  EXPECT_EQ(unknown.status, 404);
  EXPECT_THAT(unknown.body, HasSubstr("example.test"));
  EXPECT_EQ(version(), 1U);
  EXPECT_THAT(data("www/A"), ElementsAre("192.0.2.1"));
}

TEST_F(ZonesApi, ALaterApplyOfTheFileDecidesAgain) {
  ASSERT_EQ(put("new/A", {{"data", {"192.0.2.7"}}}).status, 200);
  // The same document with the file on disk: records that the file does not have are gone.
  Bundle bundle;
  bundle.file = "edge.yaml";
  std::ifstream document(host.options.config);
  bundle.text.assign(std::istreambuf_iterator<char>(document), {});
  LoadedFile loaded = load_file(host.options.config);
  ASSERT_NE(loaded.model, nullptr);
  for (const Zone& zone : loaded.model->zones) bundle.files[zone.file.name] = zone.file.bytes;
  const HttpResponse applied =
      host.call("PUT", "/v1/config", encode_bundle(bundle), {{"If-Match", "*"}, {"Content-Type", kBundleType}});
  ASSERT_EQ(applied.status, 200) << applied.body;
  EXPECT_EQ(body_of(applied)["changes"][0]["name"], "z") << "the answer names the file";
  EXPECT_THAT(data("new/A"), ElementsAre("404"));
  // A document without files keeps the version's files, and the records in them.
  ASSERT_EQ(put("new/A", {{"data", {"192.0.2.7"}}}).status, 200);
  ASSERT_EQ(host.put_config(bundle.text + "# a comment\n").status, 200);
  EXPECT_THAT(data("new/A"), ElementsAre("192.0.2.7"));
}

TEST_F(ZonesApi, IncludedFilesBelongToTheirZone) {
  const json set = body_of(host.call("GET", "/v1/zones/example.test/records/a.sub/A"))["records"][0];
  EXPECT_EQ(set["file"], "parts/more.inc");
  EXPECT_EQ(set["line"], 1);
  ASSERT_EQ(put("a.sub/A", {{"data", {"192.0.2.99"}}}).status, 200);
  EXPECT_THAT(data("a.sub/A"), ElementsAre("192.0.2.99"));
  EXPECT_THAT(data("b.sub/A"), ElementsAre("192.0.2.22"));
}

TEST_F(ZonesApi, AFileGoesOutAndInAgain) {
  const HttpResponse file = host.call("GET", "/v1/zones/example.test/file");
  EXPECT_EQ(header(file, "content-type"), "text/dns");
  EXPECT_THAT(file.body, Not(HasSubstr("$BEGIN-INCLUDED")));
  const auto import = [&](const std::string& text) {
    return host.call("PUT", "/v1/zones/example.test/file", text, {{"If-Match", "*"}, {"Content-Type", "text/dns"}});
  };
  ASSERT_EQ(import(file.body + "more IN A 192.0.2.5\n").status, 200);
  EXPECT_THAT(data("more.sub/A"), ElementsAre("404")) << "the origin is the zone's again";
  EXPECT_THAT(data("more/A"), ElementsAre("192.0.2.5"));
  EXPECT_THAT(data("b.sub/A"), ElementsAre("192.0.2.22"));
  const json faults = body_of(import(file.body + "bad IN A x\nworse IN\n"))["faults"];
  ASSERT_THAT(faults, SizeIs(2));
  EXPECT_EQ(faults[0]["file"], "z");
  EXPECT_GT(faults[0]["line"], 0);
  EXPECT_EQ(import(file.body + "$INCLUDE /etc/passwd\n").status, 422);
  EXPECT_EQ(import("").status, 422);
}

TEST_F(ZonesApi, ZonesOfOneFileAreNotChangedThroughEachOther) {
  const HttpResponse shared =
      host.call_json("PUT", "/v1/zones/twin-a.test/records/www/A", {{"data", {"192.0.2.1"}}}, {{"If-Match", "*"}});
  EXPECT_EQ(shared.status, 409);
  EXPECT_THAT(shared.body, HasSubstr("twin-b.test"));
}

TEST_F(ZonesApi, ZoneNamesMayHoldASlash) {
  const std::string zone = "/v1/zones/0%2F25.2.0.192.in-addr.arpa";
  ASSERT_EQ(
      host.call_json("PUT", zone + "/records/1/PTR", {{"data", {"www.example.test."}}}, {{"If-Match", "*"}}).status,
      200);
  EXPECT_EQ(body_of(host.call("GET", zone + "/records/1/PTR"))["records"][0]["data"][0], "www.example.test.");
}

TEST_F(ZonesApi, ManyWritersEachGetTheirRecord) {
  constexpr int kWriters = 40;
  std::vector<std::unique_ptr<HttpCall>> calls;
  int answered = 0;
  for (int i = 0; i < kWriters; ++i) {
    HttpTarget socket;
    socket.unix_path = host.options.run_dir + "/control.sock";
    HttpClientRequest request;
    request.method = "PUT";
    request.target = "/v1/zones/example.test/records/w" + std::to_string(i) + "/A";
    request.host = "control";
    request.headers = {{"If-Match", "*"}, {"Content-Type", "application/json"}};
    request.body = "{\"data\": [\"192.0.2.1\"]}";
    request.timeout_ms = kPatienceMs;
    calls.push_back(http_call(loop, socket, request, [&](const Result<HttpResponse>& response) {
      EXPECT_TRUE(response && response->status == 200) << (response ? response->body : response.error().message);
      ++answered;
    }));
  }
  ASSERT_TRUE(pump(loop, [&] { return answered == kWriters; }));
  EXPECT_EQ(version(), 1U + kWriters);
  for (int i = 0; i < kWriters; ++i) EXPECT_THAT(data("w" + std::to_string(i) + "/A"), ElementsAre("192.0.2.1"));
}

TEST_F(ZonesApi, AChangeTakesOverEveryOtherZone) {
  ASSERT_EQ(put("new/A", {{"data", {"192.0.2.7"}}}).status, 200);
  const std::shared_ptr<const dns::Authority> before = host.control->host_state().plans()->dns;
  ASSERT_EQ(put("new/A", {{"data", {"192.0.2.8"}}}).status, 200);
  const std::shared_ptr<const dns::Authority> after = host.control->host_state().plans()->dns;
  EXPECT_NE(before->zones[0].zone, after->zones[0].zone);
  for (size_t z = 1; z < before->zones.size(); ++z) EXPECT_EQ(before->zones[z].zone, after->zones[z].zone);
}

}  // namespace tidegate::testing::zones_test
