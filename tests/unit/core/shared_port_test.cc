// SPDX-License-Identifier: Apache-2.0
// Ports that are held before they are used: nobody else can get them, and clients do not notice.
#include "core/shared_port.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <string>

namespace tidegate::shared_port_test {

using ::testing::HasSubstr;

Endpoint endpoint_of(int fd) {
  sockaddr_storage storage{};
  socklen_t bytes = sizeof storage;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &bytes);
  return Endpoint::from(storage);
}

bool bind_to(int fd, const Endpoint& endpoint) {
  sockaddr_storage address{};
  const socklen_t length = endpoint.to_sockaddr(address);
  return ::bind(fd, reinterpret_cast<sockaddr*>(&address), length) == 0;
}

// A socket of another program on that endpoint, with these SOL_SOCKET options.
UniqueFd stranger(const Endpoint& endpoint, int type, std::initializer_list<int> options) {
  UniqueFd fd(::socket(endpoint.address.is_v6() ? AF_INET6 : AF_INET, type | SOCK_CLOEXEC, 0));
  const int on = 1;
  for (const int option : options) ::setsockopt(fd.get(), SOL_SOCKET, option, &on, sizeof on);
  return bind_to(fd.get(), endpoint) ? std::move(fd) : UniqueFd();
}

// A port that was free a moment ago.
Endpoint free_port(int type, const char* address = "127.0.0.1") {
  const UniqueFd fd = stranger({*IpAddress::parse(address), 0}, type, {});
  return endpoint_of(fd.get());
}

bool readable(int fd, int timeout_ms) {
  pollfd wanted{fd, POLLIN, 0};
  return ::poll(&wanted, 1, timeout_ms) == 1;
}

TEST(SharedPort, AStrangerOnThePortIsSeenAlsoIfItWouldShare) {
  for (const int type : {SOCK_STREAM, SOCK_DGRAM}) {
    const Endpoint port = free_port(type);
    EXPECT_TRUE(check_port_is_free(port, type));
    const UniqueFd other = stranger(port, type, {SO_REUSEPORT, SO_REUSEADDR});
    ASSERT_TRUE(other);
    if (type == SOCK_STREAM) ASSERT_EQ(::listen(other.get(), 1), 0);
    EXPECT_TRUE(bind_shared_port(port, type)) << "the kernel itself lets processes of one user share";
    const Result<void> free = check_port_is_free(port, type);
    ASSERT_FALSE(free) << type;
    EXPECT_THAT(free.error().message, HasSubstr("Address already in use"));
  }
}

TEST(SharedPort, AStrangerOnAllAddressesIsSeen) {
  const UniqueFd other = stranger({*IpAddress::parse("0.0.0.0"), 0}, SOCK_DGRAM, {});
  EXPECT_FALSE(check_port_is_free({*IpAddress::parse("127.0.0.1"), endpoint_of(other.get()).port}, SOCK_DGRAM));
}

TEST(SharedPort, AnAddressThatMayComeLaterIsNoFault) {
  const Endpoint absent = *Endpoint::parse("192.0.2.77:8080");
  EXPECT_TRUE(check_port_is_free(absent, SOCK_STREAM));
  EXPECT_TRUE(bind_shared_port(absent, SOCK_STREAM, {.free_bind = true}));
  EXPECT_FALSE(bind_shared_port(absent, SOCK_STREAM));
}

TEST(SharedPort, AHeldPortIsNobodyElses) {
  for (const char* address : {"127.0.0.1", "::1"}) {
    for (const int type : {SOCK_STREAM, SOCK_DGRAM}) {
      const Endpoint port = free_port(type, address);
      HeldPorts held;
      ASSERT_TRUE(held.hold(port, type, 3));
      EXPECT_TRUE(held.holds(port, type));
      EXPECT_FALSE(stranger(port, type, {})) << type;
      EXPECT_FALSE(stranger(port, type, {SO_REUSEADDR})) << type;
      held.clear();
      EXPECT_TRUE(stranger(port, type, {})) << "let go: " << type;
    }
  }
}

TEST(SharedPort, AHeldTcpPortRefusesClientsUntilItListens) {
  const Endpoint port = free_port(SOCK_STREAM);
  HeldPorts held;
  ASSERT_TRUE(held.hold(port, SOCK_STREAM, 1));
  const auto connects = [&] {
    sockaddr_storage address{};
    const socklen_t length = port.to_sockaddr(address);
    const UniqueFd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    return ::connect(client.get(), reinterpret_cast<sockaddr*>(&address), length) == 0;
  };
  EXPECT_FALSE(connects());
  const UniqueFd taken = held.take(port, SOCK_STREAM);
  ASSERT_TRUE(taken);
  ASSERT_EQ(::listen(taken.get(), 8), 0);
  EXPECT_TRUE(connects());
  EXPECT_FALSE(held.take(port, SOCK_STREAM)) << "there was one";
}

TEST(SharedPort, AHeldUdpPortDropsUntilItIsTaken) {
  const Endpoint port = free_port(SOCK_DGRAM);
  HeldPorts held;
  ASSERT_TRUE(held.hold(port, SOCK_DGRAM, 1));
  const UniqueFd client(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_storage address{};
  const socklen_t length = port.to_sockaddr(address);
  const auto send = [&](const char* text) {
    return ::sendto(client.get(), text, 1, 0, reinterpret_cast<sockaddr*>(&address), length);
  };
  ASSERT_EQ(send("1"), 1);
  ASSERT_EQ(send("2"), 1) << "no answer that nobody is there";
  const UniqueFd taken = held.take(port, SOCK_DGRAM);
  ASSERT_EQ(send("3"), 1);
  ASSERT_TRUE(readable(taken.get(), 30'000));
  char got = 0;
  ASSERT_EQ(::recv(taken.get(), &got, 1, MSG_DONTWAIT), 1);
  EXPECT_EQ(got, '3') << "what came before is not answered late";
}

TEST(SharedPort, TheNextProcessCanBindBesideConnectionsOfTheOneBefore) {
  const Endpoint port = free_port(SOCK_STREAM);
  HeldPorts held;
  ASSERT_TRUE(held.hold(port, SOCK_STREAM, 1));
  UniqueFd listener = held.take(port, SOCK_STREAM);
  ASSERT_EQ(::listen(listener.get(), 8), 0);
  sockaddr_storage address{};
  const socklen_t length = port.to_sockaddr(address);
  const UniqueFd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_TRUE(readable(listener.get(), 30'000));
  const UniqueFd served(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  ASSERT_TRUE(served);
  listener.reset();
  EXPECT_TRUE(check_port_is_free(port, SOCK_STREAM)) << "a connection is no listener";
  HeldPorts next;
  EXPECT_TRUE(next.hold(port, SOCK_STREAM, 1));
}

TEST(SharedPort, EndpointsThatGetInEachOthersWay) {
  const auto meet = [](const char* a, const char* b) { return share_a_port(*Endpoint::parse(a), *Endpoint::parse(b)); };
  EXPECT_TRUE(meet("192.0.2.1:80", "192.0.2.1:80"));
  EXPECT_TRUE(meet("0.0.0.0:80", "192.0.2.1:80"));
  EXPECT_TRUE(meet("[2001:db8::1]:80", "[::]:80"));
  EXPECT_FALSE(meet("192.0.2.1:80", "192.0.2.1:81"));
  EXPECT_FALSE(meet("192.0.2.1:80", "192.0.2.2:80"));
  EXPECT_FALSE(meet("0.0.0.0:80", "[::]:80"));
}

TEST(SharedPort, SocketsOfAnotherProcessAreTakenBeforeNewOnesAndNoneIsLost) {
  HeldPorts held;
  Result<UniqueFd> first = bind_shared_port({*IpAddress::parse("127.0.0.1"), 0}, SOCK_STREAM);
  ASSERT_TRUE(first);
  const Endpoint port = endpoint_of(first->get());
  ASSERT_EQ(::listen(first->get(), 8), 0);
  const int number = first->get();
  held.adopt(port, SOCK_STREAM, *std::move(first));
  Result<UniqueFd> second = bind_shared_port(port, SOCK_STREAM);
  ASSERT_TRUE(second);
  held.adopt(port, SOCK_STREAM, *std::move(second));
  EXPECT_TRUE(held.hold(port, SOCK_STREAM, 1)) << "what is there is enough";
  EXPECT_TRUE(held.holds(port, SOCK_STREAM) && held.holds_more(port, SOCK_STREAM));
  const UniqueFd one = held.take(port, SOCK_STREAM), other = held.take(port, SOCK_STREAM);
  EXPECT_TRUE(one && other);
  EXPECT_TRUE(one.get() == number || other.get() == number);
  EXPECT_FALSE(held.holds_more(port, SOCK_STREAM));
  EXPECT_TRUE(held.holds(port, SOCK_STREAM));
  EXPECT_FALSE(held.take(port, SOCK_STREAM));
}

}  // namespace tidegate::shared_port_test
