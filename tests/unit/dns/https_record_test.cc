// SPDX-License-Identifier: Apache-2.0
// HTTPS records (RFC 9460) that steers make from our own listeners.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/route.h"
#include "conf/model/steer.h"
#include "tests/unit/dns/support.h"

namespace tidegate::dns::test::https_record_test {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// The content of one record, read by an independent parser.
struct Service {
  uint16_t priority = 0;
  std::string target;  // in wire form
  std::vector<std::pair<uint16_t, std::string>> parameters;
};

class HttpsRecord : public ::testing::Test {
 protected:
  HttpsRecord() {
    edge_.add_zone("example.test.", kZone);
    const uint32_t eu = edge_.add_site("eu", 50.11, 8.68), us = edge_.add_site("us", 40.71, -74.0);
    edge_.add_network("10.1.0.0/16", eu);
    edge_.add_network("10.2.0.0/16", us);
    edge_
        .add_steer("www.example.test.", SteerPolicy::nearest,
                   {to_vip(edge_.add_vip("eu", eu, {"203.0.113.1", "2001:db8:1::1"})),
                    to_vip(edge_.add_vip("us", us, {"203.0.113.2"}))})
        .https_record = true;
    edge_.model().steers[0].ttl_s = 5;
    listen("https", 443, true);
    route({"www.example.test"}, {0});
  }
  void listen(const std::string& name, uint16_t port, bool tls) {
    Listener listener;
    listener.name = name;
    listener.bind = {{*IpAddress::parse("0.0.0.0"), port}};
    listener.tls.enabled = tls;
    edge_.model().listeners.push_back(listener);
  }
  void route(std::vector<std::string> hosts, std::vector<uint32_t> listeners) {
    Route route;
    route.hosts = std::move(hosts);
    route.listeners = std::move(listeners);
    edge_.model().routes.push_back(route);
  }
  std::vector<Service> ask(const std::string& client = "10.1.0.1", const std::string& name = "www.example.test") {
    const auto wire = edge_.ask_wire(make_query(name, rrtype::kHttps), client);
    std::vector<Service> services;
    for_each_record(wire, [&](const RecordView& record) {
      if (record.section != RecordView::Section::answer || record.type != rrtype::kHttps) return;
      EXPECT_EQ(record.ttl_s, 5U);
      Service service{load_u16(record.rdata.data()), std::string(1, static_cast<char>(record.rdata[2])), {}};
      for (size_t at = 3; at + 4 <= record.rdata.size();) {
        const size_t bytes = load_u16(&record.rdata[at + 2]);
        const auto* begin = reinterpret_cast<const char*>(&record.rdata[at + 4]);
        service.parameters.emplace_back(load_u16(&record.rdata[at]), std::string(begin, bytes));
        at += 4 + bytes;
      }
      services.push_back(service);
    });
    return services;
  }

  Edge edge_;
};

const std::pair<uint16_t, std::string> kH2{1, "\x02h2"};

TEST_F(HttpsRecord, TellsAlpnAndTheClientsAddresses) {
  const auto services = ask("10.2.0.1");
  ASSERT_THAT(services, SizeIs(1));
  EXPECT_EQ(services[0].priority, 1);
  EXPECT_EQ(services[0].target, std::string(1, '\0')) << "the name itself";
  const std::pair<uint16_t, std::string> v4{4, std::string("\xcb\x00\x71\x02", 4)};
  const std::pair<uint16_t, std::string> v6{6, std::string("\x20\x01\x0d\xb8\0\x01\0\0\0\0\0\0\0\0\0\x01", 16)};
  EXPECT_THAT(services[0].parameters, ElementsAre(kH2, v4, v6));
  EXPECT_EQ(ask("10.1.0.1")[0].parameters[1].second, std::string("\xcb\x00\x71\x01", 4));
}

TEST_F(HttpsRecord, FollowsTheListenersAndRoutes) {
  edge_.model().listeners[0].http2 = false;
  edge_.changed();
  EXPECT_EQ(ask()[0].parameters[0].first, 4) << "no ALPN: http/1.1 is the default";
  edge_.model().listeners[0].bind[0].port = 8443;
  edge_.changed();
  EXPECT_EQ(ask()[0].parameters[0], (std::pair<uint16_t, std::string>(3, "\x20\xfb")));
  edge_.model().routes[0].hosts = {"*.example.test"};
  edge_.changed();
  EXPECT_THAT(ask(), SizeIs(1)) << "a wildcard's";
  edge_.model().routes[0].hosts = {"other.example.test"};
  edge_.changed();
  EXPECT_THAT(ask(), IsEmpty()) << "nobody serves it";
  EXPECT_EQ(edge_.ask("www.example.test", rrtype::kHttps).rcode(), 0);
  edge_.model().routes[0].hosts = {};
  edge_.model().listeners[0].tls.enabled = false;
  edge_.changed();
  EXPECT_THAT(ask(), IsEmpty()) << "no TLS";
}

TEST_F(HttpsRecord, IsThereOnlyOnRequestAndBehindTheZonesOwn) {
  edge_.model().steers[0].https_record = false;
  edge_.changed();
  EXPECT_THAT(ask(), IsEmpty());
  edge_.model().steers[0].https_record = true;
  edge_.add_zone("own.test.",
                 "$ORIGIN own.test.\n@ 5 IN SOA ns h 1 1 1 1 5\n@ 5 IN NS ns\nwww 5 IN HTTPS 7 . alpn=h2\n");
  edge_.add_steer("www.own.test.", SteerPolicy::failover, {to_vip(0)}).https_record = true;
  route({"www.own.test"}, {});
  edge_.changed();
  const auto services = ask("10.1.0.1", "www.own.test");
  ASSERT_THAT(services, SizeIs(1));
  EXPECT_EQ(services[0].priority, 7);
}

}  // namespace tidegate::dns::test::https_record_test
