// SPDX-License-Identifier: Apache-2.0
// Client lists and the limits of services, as a document defines them.
#include "conf/acl.h"
#include "conf/model.h"
#include "conf/model/service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "conf/limits.h"
#include "tests/unit/conf/documents.h"

namespace tidegate::acl_test {

using testing::content;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::load_text;
using testing::Loaded;

const std::string kRest =
    "vips: [{name: v, addresses: [192.0.2.1]}]\n"
    "pools: [{name: p, backends: [{name: b, addresses: [192.0.2.9]}]}]\n";

Loaded with_service(const std::string& keys, const std::string& acls = "") {
  return load_text(acls + kRest + "services: [{name: s, vip: v, port: 80, pool: p" + keys + "}]\n");
}
std::vector<std::string> codes(const std::string& keys) { return with_service(keys).codes(); }

Loaded with_list(const std::string& keys, const std::string& file = "", const std::string& geo = "") {
  return load_text(
      "acls: [{name: a" + keys + "}]\n" + geo + kRest + "services: [{name: s, vip: v, port: 80, pool: p, deny: [a]}]\n",
      {{"list.txt", content(file)}});
}

TEST(Acls, AreLoadedWithTheirNetworksFilesAndCountries) {
  const Loaded loaded =
      with_list(", networks: [192.0.2.0/24, '2001:db8::/32', 198.51.100.7], file: list.txt, countries: [DE]",
                "# mine\n203.0.113.0/24\n\n  233.252.0.0/24 # two\r\n", "geo: {mmdb: /x.mmdb}\n");
  ASSERT_THAT(loaded.faults, IsEmpty()) << loaded.rendered();
  const Acl& acl = loaded.model->acls[0];
  EXPECT_THAT(networks_of(acl),
              ElementsAre(*Cidr::parse("192.0.2.0/24"), *Cidr::parse("2001:db8::/32"), *Cidr::parse("198.51.100.7/32"),
                          *Cidr::parse("203.0.113.0/24"), *Cidr::parse("233.252.0.0/24")));
  EXPECT_THAT(acl.countries, ElementsAre("DE"));
  EXPECT_THAT(loaded.model->services[0].deny, ElementsAre(0));
}

TEST(Acls, FilesAreReadOnceAsLongAsTheirContentIsTheSame) {
  const auto file_of = [](const std::string& text) { return with_list(", file: list.txt", text).model->acls[0].file; };
  const Blob one = file_of("203.0.113.0/24\n"), again = file_of("203.0.113.0/24\n"),
             other = file_of("203.0.113.0/25\n");
  ASSERT_NE(one.bytes, again.bytes);
  const std::shared_ptr<const AclFile> first = read_acl_file(one);
  EXPECT_EQ(first, read_acl_file(again)) << "it was not parsed again";
  EXPECT_THAT(read_acl_file(other)->networks, ElementsAre(*Cidr::parse("203.0.113.0/25")));
  EXPECT_EQ(first, read_acl_file(one));
  for (size_t i = 0; i < kMaxAcls; ++i) {
    const std::string text = "10.0.0." + std::to_string(i) + "\n";
    read_acl_file({"filler", text, std::make_shared<const std::string>(text)});
  }
  EXPECT_NE(first, read_acl_file(one)) << "as many as a version may have are remembered";
  EXPECT_EQ(first->networks, read_acl_file(one)->networks);
}

TEST(Acls, AreRefusedWithTheLineOfTheFileThatIsWrong) {
  for (const char* line : {"192.0.2.1/24", "192.0.2.0/33", "192.0.2.0 198.51.100.0", "example.com", "2001:db8::/129"}) {
    const Loaded loaded = with_list(", file: list.txt", "198.51.100.0/24\n# fine\n" + std::string(line) + "\n");
    ASSERT_THAT(loaded.codes(), ElementsAre("unusable_file")) << line;
    EXPECT_EQ(loaded.faults[0].pointer, "/acls/0/file");
    EXPECT_NE(loaded.faults[0].detail.find("list.txt:3: '"), std::string::npos) << loaded.faults[0].detail;
  }
}

TEST(Acls, AreRefusedWithoutClientsAndWithWhatIsNoCountry) {
  EXPECT_THAT(with_list("").codes(), ElementsAre("missing_key"));
  EXPECT_THAT(with_list(", countries: [de]", "", "geo: {mmdb: /x.mmdb}\n").codes(), ElementsAre("bad_value"));
  EXPECT_THAT(with_list(", countries: [DE]").codes(), ElementsAre("missing_key")) << "nothing tells where clients are";
  EXPECT_THAT(with_service(", deny: [b]", "acls: [{name: a, networks: [192.0.2.0/24]}]\n").codes(),
              ElementsAre("no_such_name"));
  EXPECT_THAT(with_list(", file: list.txt", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").codes(),
              ElementsAre("unusable_file"));
}

TEST(Acls, HaveABoundOfNetworks) {
  std::string file;
  for (size_t i = 0; i < kMaxAclNetworks; ++i) {
    file += std::to_string(1 + i / 65'536) + "." + std::to_string(i / 256 % 256) + "." + std::to_string(i % 256) +
            ".0/24\n";
  }
  EXPECT_THAT(with_list(", file: list.txt", file).codes(), IsEmpty());
  EXPECT_THAT(with_list(", file: list.txt", file + "9.0.0.0/8").codes(), ElementsAre("unusable_file"));
  EXPECT_THAT(with_list(", networks: [9.0.0.0/8], file: list.txt", file).codes(), ElementsAre("too_many_networks"));
  std::string lists = "acls:\n";
  for (size_t i = 0; i <= kMaxAcls; ++i) lists += "  - {name: a" + std::to_string(i) + ", networks: [9.0.0.0/8]}\n";
  EXPECT_THAT(with_service("", lists).codes(), ElementsAre("too_many_lists"));
}

TEST(ServiceLimits, AreLoadedAndChecked) {
  const Loaded loaded = with_service(
      ", limits: {packets: 1000, packets_burst: 60000, source_flows: 5, source_prefix_v4: 24, source_prefix_v6: 48}, "
      "reset_unknown: true");
  ASSERT_THAT(loaded.faults, IsEmpty()) << loaded.rendered();
  const Service& service = loaded.model->services[0];
  EXPECT_EQ(service.limits.packets, 1'000u);
  EXPECT_EQ(service.limits.packets_burst, 60'000u);
  EXPECT_EQ(service.limits.source_flows, 5u);
  EXPECT_EQ(service.limits.source_prefix_v4, 24);
  EXPECT_EQ(service.limits.source_prefix_v6, 48);
  EXPECT_TRUE(service.reset_unknown);
  EXPECT_THAT(codes(", limits: {packets_burst: 5}"), ElementsAre("bad_value")) << "a burst without a rate";
  EXPECT_THAT(codes(", limits: {flows: 10, flows_burst: 601}"), ElementsAre("bad_value"));
  EXPECT_THAT(codes(", limits: {source_prefix_v4: 33}"), ElementsAre("out_of_range"));
  EXPECT_THAT(codes(", tracking: false, limits: {flows: 10}"), ElementsAre("bad_value"));
  EXPECT_THAT(codes(", tracking: false, limits: {packets: 10}"), IsEmpty());
  EXPECT_THAT(codes(", tracking: false, reset_unknown: true"), ElementsAre("bad_value"));
  EXPECT_THAT(codes(", protocol: udp, reset_unknown: true"), ElementsAre("bad_value"));
}

}  // namespace tidegate::acl_test
