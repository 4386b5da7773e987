// SPDX-License-Identifier: Apache-2.0
#include "core/hand_over.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <filesystem>
#include <optional>

#include "core/limits.h"
#include "core/shared_port.h"

namespace tidegate::hand_over_test {

using ::testing::HasSubstr;

HandOverItem item(HandOverItemKind kind, const char* endpoint) { return {kind, *Endpoint::parse(endpoint)}; }

struct Pair {
  Pair() {
    auto ends = HandOverChannel::make_pair();
    EXPECT_TRUE(ends);
    a.emplace(std::move(ends->first), kHandOverFormats.newest);
    b.emplace(std::move(ends->second), kHandOverFormats.newest);
  }
  std::optional<HandOverChannel> a, b;
};

size_t open_descriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

void send_raw(const HandOverChannel& channel, const std::string& bytes) {
  ASSERT_EQ(::send(channel.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
}

TEST(HandOverTest, AMessageIsReadAsItWasWritten) {
  HandOverMessage message{HandOverKind::sockets, 42, "some text", {}};
  message.items = {item(HandOverItemKind::stream, "10.0.0.1:443"), item(HandOverItemKind::datagram, "[fd00::1]:53")};
  const Result<HandOverMessage> read = decode_hand_over(encode(message, kHandOverFormats.newest));
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->kind, HandOverKind::sockets);
  EXPECT_EQ(read->number, 42U);
  EXPECT_EQ(read->text, "some text");
  ASSERT_EQ(read->items.size(), 2U);
  EXPECT_EQ(read->items[0].endpoint.to_string(), "10.0.0.1:443");
  EXPECT_EQ(read->items[1].endpoint.to_string(), "[fd00::1]:53");
  EXPECT_EQ(read->items[1].kind, HandOverItemKind::datagram);
}

TEST(HandOverTest, AnotherFormatIsRefusedByNameAndOneVersionApartIsUnderstood) {
  const std::string of_next = encode({HandOverKind::hello, 0, "l7", {}}, 2);
  const Result<HandOverMessage> refused = decode_hand_over(of_next, {1, 1});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("the hand-over's format is 2; this program speaks 1 to 1"));
  EXPECT_TRUE(decode_hand_over(of_next, {1, 2}));
  EXPECT_TRUE(decode_hand_over(encode({HandOverKind::hello, 0, "l7", {}}, 1), {1, 2}));
}

TEST(HandOverTest, ARefusalIsUnderstoodInEveryFormat) {
  const Result<HandOverMessage> read = decode_hand_over(encode({HandOverKind::refusal, 0, "too old", {}}, 9), {1, 1});
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->text, "too old");
}

TEST(HandOverTest, WhatIsMalformedIsRefusedWithAReason) {
  const std::string whole = encode({HandOverKind::progress, 7, "x", {item(HandOverItemKind::lock, "0.0.0.0:0")}}, 1);
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_FALSE(decode_hand_over(whole.substr(0, length))) << length;
  }
  EXPECT_FALSE(decode_hand_over(whole + "x"));
  const auto changed = [&](size_t at, char value) {
    std::string bytes = whole;
    bytes[at] = value;
    const Result<HandOverMessage> message = decode_hand_over(bytes);
    return message ? std::string("taken") : message.error().message;
  };
  EXPECT_THAT(changed(0, 'x'), HasSubstr("no message of a hand-over"));
  EXPECT_THAT(changed(7, 99), HasSubstr("unknown kind 99"));
  EXPECT_THAT(changed(16, 99), HasSubstr("larger than its limits"));
  EXPECT_THAT(changed(18, 99), HasSubstr("larger than its limits"));
  EXPECT_THAT(changed(17, 9), HasSubstr("length is not what its head says"));
  EXPECT_THAT(changed(21, 99), HasSubstr("an item of the unknown kind 99"));
  EXPECT_THAT(changed(22, 5), HasSubstr("unknown family 5"));
}

TEST(HandOverTest, DescriptorsArriveInOrderAndAreTheSameOpenFiles) {
  Pair pair;
  const Result<UniqueFd> first = bind_shared_port(*Endpoint::parse("127.0.0.1:0"), SOCK_STREAM);
  const Result<UniqueFd> second = bind_shared_port(*Endpoint::parse("[::1]:0"), SOCK_DGRAM);
  ASSERT_TRUE(first && second);
  HandOverMessage message{HandOverKind::sockets, 0, {}, {}};
  message.items = {item(HandOverItemKind::stream, "127.0.0.1:0"), item(HandOverItemKind::datagram, "[::1]:0")};
  ASSERT_TRUE(pair.a->send(message, {first->get(), second->get()}));
  Result<HandOverReceived> received = pair.b->receive(1'000);
  ASSERT_TRUE(received) << received.error().message;
  ASSERT_EQ(received->descriptors.size(), 2U);
  const auto inode = [](int fd) {
    struct stat status {};
    EXPECT_EQ(::fstat(fd, &status), 0);
    return status.st_ino;
  };
  EXPECT_EQ(inode(received->descriptors[0].get()), inode(first->get()));
  EXPECT_EQ(inode(received->descriptors[1].get()), inode(second->get()));
  EXPECT_EQ(::fcntl(received->descriptors[0].get(), F_GETFD), FD_CLOEXEC);
}

TEST(HandOverTest, AMessageIsAsLargeAsItsLimits) {
  Pair pair;
  HandOverMessage message{HandOverKind::sockets, 0, std::string(kHandOverTextBytes, 't'), {}};
  message.items.assign(kHandOverItems, item(HandOverItemKind::stream, "[fd00::1]:443"));
  const std::vector<int> descriptors(kHandOverItems, pair.a->fd());
  ASSERT_TRUE(pair.a->send(message, descriptors));
  const Result<HandOverReceived> received = pair.b->receive(1'000);
  ASSERT_TRUE(received) << received.error().message;
  EXPECT_EQ(received->descriptors.size(), kHandOverItems);
}

TEST(HandOverTest, ARefusedMessageLeaksNoDescriptor) {
  Pair pair;
  const size_t before = open_descriptors();
  HandOverMessage message{HandOverKind::sockets, 0, {}, {item(HandOverItemKind::stream, "10.0.0.1:1")}};
  std::string bytes = encode(message, 99);
  iovec vector{bytes.data(), bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))]{};
  msghdr header{};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  cmsghdr* part = CMSG_FIRSTHDR(&header);
  part->cmsg_level = SOL_SOCKET;
  part->cmsg_type = SCM_RIGHTS;
  part->cmsg_len = CMSG_LEN(2 * sizeof(int));
  const int descriptors[] = {pair.a->fd(), pair.b->fd()};
  std::memcpy(CMSG_DATA(part), descriptors, sizeof descriptors);
  ASSERT_GT(::sendmsg(pair.a->fd(), &header, MSG_NOSIGNAL), 0);
  EXPECT_FALSE(pair.b->receive(1'000));
  bytes = encode(message, 1);  // two descriptors for one item
  vector = {bytes.data(), bytes.size()};
  ASSERT_GT(::sendmsg(pair.a->fd(), &header, MSG_NOSIGNAL), 0);
  const Result<HandOverReceived> received = pair.b->receive(1'000);
  ASSERT_FALSE(received);
  EXPECT_THAT(received.error().message, HasSubstr("1 items and 2 descriptors"));
  EXPECT_EQ(open_descriptors(), before);
}

TEST(HandOverTest, AnEndAndSilenceAreToldApart) {
  Pair pair;
  EXPECT_THAT(pair.b->receive(1).error().message, HasSubstr("nothing came within 1 ms"));
  send_raw(*pair.a, "nonsense");
  EXPECT_THAT(pair.b->receive(1'000).error().message, HasSubstr("no message of a hand-over"));
  send_raw(*pair.a, std::string(64 * 1024, 'x'));
  EXPECT_THAT(pair.b->receive(1'000).error().message, HasSubstr("larger than its limits"));
  pair.a.reset();
  EXPECT_EQ(pair.b->receive(1'000).error().message, "it ended");
  EXPECT_FALSE(pair.b->send({HandOverKind::go, 0, {}, {}}));
}

}  // namespace tidegate::hand_over_test
