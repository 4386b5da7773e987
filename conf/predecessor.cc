// SPDX-License-Identifier: Apache-2.0
#include "conf/predecessor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "conf/query.h"
#include "core/limits.h"
#include "core/log.h"

namespace tidegate {
namespace {

constexpr int kSocketsMs = 10'000;  // the old process has them ready
// The old process may have to wait for its disk. It has its own deadline, and ends this process then.
constexpr int kGoMs = 3'600'000;

bool is_channel(int fd) {
  int type = 0;
  socklen_t bytes = sizeof type;
  return ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes) == 0 && type == SOCK_SEQPACKET;
}

}  // namespace

Result<std::unique_ptr<Predecessor>> Predecessor::from_environment() {
  const char* variable = std::getenv("TIDEGATE_HAND_OVER");
  if (variable == nullptr) return std::unique_ptr<Predecessor>();
  const std::string text = variable;
  ::unsetenv("TIDEGATE_HAND_OVER");
  const size_t colon = std::min(text.find(':'), text.size());
  const auto fd = parse_number(text.substr(0, colon));
  const auto format = parse_number(text.substr(std::min(colon + 1, text.size())));
  if (!fd || !format || *fd > 65'535 || *format > 65'535 || !is_channel(static_cast<int>(*fd))) {
    return fail("TIDEGATE_HAND_OVER is for processes that a running daemon starts: " + text);
  }
  UniqueFd socket(static_cast<int>(*fd));
  ::fcntl(socket.get(), F_SETFD, FD_CLOEXEC);
  // The newest format that both speak. If there is none, at least a refusal can be sent.
  const auto spoken = static_cast<uint16_t>(std::min<uint64_t>(*format, kHandOverFormats.newest));
  if (!kHandOverFormats.includes(spoken)) {
    const std::string why = fmt::format("the hand-over's format is {}; this program ({}) speaks {} to {}", *format,
                                        TIDEGATE_VERSION, kHandOverFormats.oldest, kHandOverFormats.newest);
    Predecessor(HandOverChannel(std::move(socket), static_cast<uint16_t>(*format))).refuse(why);
    return fail(why);
  }
  return std::make_unique<Predecessor>(HandOverChannel(std::move(socket), spoken));
}

Result<std::vector<std::pair<HandOverItem, UniqueFd>>> Predecessor::take_sockets(const std::string& plane,
                                                                                 const std::string& data_format) {
  const HandOverMessage hello{HandOverKind::hello, 0, plane + "\n" + TIDEGATE_VERSION + "\n" + data_format, {}};
  if (Result<void> sent = channel_.send(hello); !sent) return sent.error();
  std::vector<std::pair<HandOverItem, UniqueFd>> sockets;
  for (;;) {
    Result<HandOverReceived> received = channel_.receive(kSocketsMs);
    if (!received) return fail("the process before this one: " + received.error().message);
    HandOverMessage& message = received->message;
    if (message.kind == HandOverKind::refusal) return fail("the process before this one: " + message.text);
    if (message.kind == HandOverKind::all_sockets) {
      generation_ = parse_number(message.text).value_or(1);
      if (message.number == sockets.size()) return sockets;
      return fail(fmt::format("{} sockets came of {}", sockets.size(), message.number));
    }
    if (message.kind != HandOverKind::sockets) return fail(fmt::format("it said {} out of turn", name(message.kind)));
    if (sockets.size() + message.items.size() > kHandOverSockets) return fail("more sockets than can be taken over");
    for (size_t i = 0; i < message.items.size(); ++i) {
      sockets.emplace_back(message.items[i], std::move(received->descriptors[i]));
    }
  }
}

Result<UniqueFd> Predecessor::warm(const std::string& what) {
  if (Result<void> sent = channel_.send({HandOverKind::warm, 0, what.substr(0, kHandOverTextBytes), {}}); !sent) {
    return sent.error();
  }
  Result<HandOverReceived> received = channel_.receive(kGoMs);
  if (!received) return fail("the process before this one: " + received.error().message);
  if (received->message.kind != HandOverKind::go) {
    return fail(fmt::format("it said {} out of turn", name(received->message.kind)));
  }
  return received->descriptors.empty() ? UniqueFd() : std::move(received->descriptors.front());
}

void Predecessor::refuse(const std::string& why) {
  (void)channel_.send({HandOverKind::refusal, 0, why.substr(0, kHandOverTextBytes), {}});
}

Result<UniqueFd> Predecessor::serving() {
  if (Result<void> sent = channel_.send({HandOverKind::serving, 0, {}, {}}); !sent) return sent.error();
  return channel_.release();
}

class DrainingProcesses::Process final : public IoHandler {
 public:
  Process(DrainingProcesses& owner, UniqueFd channel, std::function<void()> on_first_word)
      : owner_(owner), channel_(std::move(channel), kHandOverFormats.newest), on_first_word_(std::move(on_first_word)) {
    owner_.loop_.add(channel_.fd(), EPOLLIN, this);
  }
  ~Process() { owner_.loop_.remove(channel_.fd()); }
  int fd() const { return channel_.fd(); }
  uint64_t pid = 0;
  uint64_t connections = 0;

 private:
  void on_io(uint32_t) override {
    Result<HandOverReceived> received = channel_.receive(0);
    if (const auto tell = std::exchange(on_first_word_, nullptr)) tell();
    if (received) {
      pid = parse_number(received->message.text).value_or(pid);
      connections = received->message.number;
      return;
    }
    log_info("process {}, which this one follows, has ended", pid);
    owner_.loop_.defer([&owner = owner_, self = this] {
      std::erase_if(owner.processes_, [self](const auto& process) { return process.get() == self; });
    });
    owner_.loop_.modify(channel_.fd(), 0);
  }

  DrainingProcesses& owner_;
  HandOverChannel channel_;
  std::function<void()> on_first_word_;
};

DrainingProcesses::DrainingProcesses(EventLoop& loop) : loop_(loop) {}
DrainingProcesses::~DrainingProcesses() = default;

void DrainingProcesses::add(UniqueFd channel, std::function<void()> on_first_word) {
  processes_.push_back(std::make_unique<Process>(*this, std::move(channel), std::move(on_first_word)));
}

size_t DrainingProcesses::size() const { return processes_.size(); }

uint64_t DrainingProcesses::connections() const {
  uint64_t sum = 0;
  for (const auto& process : processes_) sum += process->connections;
  return sum;
}

nlohmann::json DrainingProcesses::status() const {
  nlohmann::json list = nlohmann::json::array();
  for (const auto& process : processes_) {
    list.push_back({{"pid", process->pid}, {"connections", process->connections}});
  }
  return list;
}

std::vector<LentSocket> DrainingProcesses::lend() const {
  std::vector<LentSocket> lent;
  for (const auto& process : processes_) lent.push_back({{HandOverItemKind::predecessor, {}}, process->fd()});
  return lent;
}

void DrainingProcesses::forget_all() { processes_.clear(); }

}  // namespace tidegate
