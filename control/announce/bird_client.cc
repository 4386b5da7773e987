// SPDX-License-Identifier: Apache-2.0
#include "control/announce/bird_client.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "control/limits.h"

namespace tidegate {

namespace {

constexpr size_t kCodeBytes = 4;

bool is_code(const std::string& line) {
  if (line.size() <= kCodeBytes) return false;
  for (size_t i = 0; i < kCodeBytes; ++i) {
    if (line[i] < '0' || line[i] > '9') return false;
  }
  return line[kCodeBytes] == ' ' || line[kCodeBytes] == '-';
}

}  // namespace

BirdClient::BirdClient(EventLoop& loop, std::string socket_path, std::function<void()> on_change)
    : loop_(loop),
      socket_path_(std::move(socket_path)),
      on_change_(std::move(on_change)),
      deadline_(loop, [this] { close(fmt::format("no answer for {} ms", kBirdAnswerMs)); }) {}

BirdClient::~BirdClient() {
  if (fd_) loop_.remove(fd_.get());
}

Result<void> BirdClient::connect() {
  if (fd_) return {};
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path_.size() >= sizeof address.sun_path) return fail(socket_path_ + ": the path is too long");
  std::memcpy(address.sun_path, socket_path_.data(), socket_path_.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return fail(std::string("no socket: ") + std::strerror(errno));
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail(socket_path_ + ": " + std::strerror(errno));
  }
  fd_ = std::move(fd);
  loop_.add(fd_.get(), EPOLLIN, this);
  deadline_.arm_after_ms(kBirdAnswerMs);  // until the greeting
  return {};
}

void BirdClient::ask(const std::string& command, Answer answer) {
  waiting_.push_back(std::move(answer));
  const std::string line = command + "\n";
  // Commands are short and few, so the socket takes them. If BIRD reads nothing, the deadline closes the connection.
  if (!fd_ || ::send(fd_.get(), line.data(), line.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(line.size())) {
    deadline_.arm_after_ns(0);
    return;
  }
  if (!deadline_.armed()) deadline_.arm_after_ms(kBirdAnswerMs);
}

void BirdClient::on_io(uint32_t) {
  std::array<char, 4'096> buffer;
  const ssize_t got = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) return close("BIRD closed the connection");
  buffer_.append(buffer.data(), static_cast<size_t>(got));
  for (size_t end = buffer_.find('\n'); end != std::string::npos; end = buffer_.find('\n')) {
    const std::string line = buffer_.substr(0, end);
    buffer_.erase(0, end + 1);
    if (!take_line(line)) return;
  }
  if (buffer_.size() + text_.size() > kMaxBirdAnswerBytes) close("the answer is too long");
}

// Returns false if the connection is closed.
bool BirdClient::take_line(const std::string& line) {
  const bool coded = is_code(line);
  text_ += (text_.empty() ? "" : "; ") + (coded ? line.substr(kCodeBytes + 1) : line);
  if (!coded || line[kCodeBytes] == '-') return true;
  const std::string text = std::exchange(text_, {});
  if (!greeted_) {
    greeted_ = true;
    deadline_.cancel();
    on_change_();
    return bool(fd_);
  }
  if (waiting_.empty()) return close("an answer that nobody asked for"), false;
  const Answer answer = std::move(waiting_.front());
  waiting_.pop_front();
  deadline_.cancel();
  if (!waiting_.empty()) deadline_.arm_after_ms(kBirdAnswerMs);
  const bool is_error = line[0] == '8' || line[0] == '9';
  answer(is_error ? Result<std::string>(fail(text)) : Result<std::string>(text));
  return bool(fd_);
}

void BirdClient::close(const std::string& why) {
  if (fd_) loop_.remove(fd_.get());
  fd_.reset();
  deadline_.cancel();
  buffer_.clear();
  text_.clear();
  greeted_ = false;
  for (const Answer& answer : std::exchange(waiting_, {})) answer(fail(why));
  on_change_();
}

}  // namespace tidegate
