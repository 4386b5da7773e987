// SPDX-License-Identifier: Apache-2.0
#include "l7/observe/access_log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>

#include "core/clock.h"
#include "core/log.h"
#include "core/thread.h"
#include "l7/limits.h"

namespace tidegate::l7 {
namespace {

constexpr auto kPause = std::chrono::milliseconds(50);
constexpr int kPausesPerRotationCheck = 20;
constexpr size_t kLongestOwnText = 768;  // names from the configuration, and a request id of 128 bytes, as escaped
constexpr size_t kTexts = 13, kNumbersBytes = 768;
static_assert(kLoggedMethodBytes + 2 * kLoggedHostBytes + kLoggedPolicyBytes + 4 * kLoggedTextBytes +
                  kTexts * (kLongestOwnText + 32) + kNumbersBytes <=
              kLongestLogLine);

// Appends into kLongestLogLine bytes. What others wrote is cut field by field, so that a line always fits.
class LineWriter {
 public:
  explicit LineWriter(char* out) : next_(out), begin_(out), end_(out + kLongestLogLine) {}
  size_t size() const { return static_cast<size_t>(next_ - begin_); }
  void raw(std::string_view text) {
    assert(text.size() <= static_cast<size_t>(end_ - next_));
    std::memcpy(next_, text.data(), text.size());
    next_ += text.size();
  }
  // At most `limit` bytes of the value, counted as escaped.
  void text(std::string_view name, std::string_view value, size_t limit = kLongestOwnText) {
    if (value.empty()) return;
    raw(",\"");
    raw(name);
    raw("\":\"");
    if (!escaped(value, limit)) cut_[cut_count_++] = name;
    raw("\"");
  }
  // Names the fields that were cut.
  void cut() {
    for (size_t i = 0; i < cut_count_; ++i) {
      raw(i == 0 ? ",\"cut\":[\"" : "\",\"");
      raw(cut_[i]);
    }
    if (cut_count_ > 0) raw("\"]");
  }
  void number(std::string_view key, uint64_t value) {
    raw(key);
    const fmt::format_int digits(value);
    raw({digits.data(), digits.size()});
  }
  // As milliseconds with microseconds behind the point.
  void duration(std::string_view key, uint64_t ns) {
    if (ns == 0) return;
    number(key, ns / kNsPerMs);
    char fraction[4] = {'.'};
    const uint64_t us = ns / 1000 % 1000;
    fraction[1] = static_cast<char>('0' + us / 100);
    fraction[2] = static_cast<char>('0' + us / 10 % 10);
    fraction[3] = static_cast<char>('0' + us % 10);
    raw({fraction, sizeof fraction});
  }
  void time(std::string_view key, uint64_t realtime_ns) {
    const auto seconds = static_cast<time_t>(realtime_ns / kNsPerS);
    tm utc{};
    ::gmtime_r(&seconds, &utc);
    char out[40];
    const auto end = fmt::format_to_n(out, sizeof out, "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", utc.tm_year + 1900,
                                      utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
                                      realtime_ns / kNsPerMs % 1000);
    raw(key);
    raw("\"");
    raw({out, end.size});
    raw("\"");
  }

 private:
  // False when it was cut.
  bool escaped(std::string_view value, size_t limit) {
    static constexpr char kHex[] = "0123456789abcdef";
    const char* const end = next_ + limit;
    size_t from = 0;
    for (size_t i = 0; i < value.size(); ++i) {
      const auto byte = static_cast<unsigned char>(value[i]);
      // Bytes that need not be UTF-8 are escaped as the code points of their values, so that a line is always JSON.
      const bool plain = byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\';
      const char escape[6] = {'\\', 'u', '0', '0', kHex[byte >> 4], kHex[byte & 15]};
      if (i - from + (plain ? 1 : sizeof escape) > static_cast<size_t>(end - next_)) {
        raw(value.substr(from, i - from));
        return false;
      }
      if (plain) continue;
      raw(value.substr(from, i - from));
      raw({escape, sizeof escape});
      from = i + 1;
    }
    raw(value.substr(from));
    return true;
  }
  char* next_;
  char* begin_;
  char* end_;
  std::array<std::string_view, 22> cut_;  // one for each text
  size_t cut_count_ = 0;
};

}  // namespace

size_t format_record(const AccessRecord& r, char* out) {
  LineWriter line(out);
  line.time("{\"time\":", r.realtime_ns);
  line.text("request_id", r.request_id);
  line.text("client", r.client);
  if (r.peer != r.client) line.text("peer", r.peer);
  line.text("listener", r.listener);
  line.text("protocol", name(r.version));
  line.text("tls", r.tls_version);
  if (r.tls_resumed) line.raw(",\"tls_resumed\":true");
  line.text("certificate", r.certificate, kLoggedHostBytes);
  line.text("certificate_serial", r.certificate_serial, kLoggedMethodBytes);
  line.text("method", r.method, kLoggedMethodBytes);
  line.text("host", r.host, kLoggedHostBytes);
  line.text("path", r.path, kLoggedTextBytes);
  line.text("query", r.query, kLoggedTextBytes);
  line.number(",\"status\":", r.status);
  line.text("upgrade", r.upgrade, kLoggedMethodBytes);
  if (r.failure != Failure::none) line.text("failure", info(r.failure).name);
  line.text("failure_detail", r.failure_detail, kLoggedHostBytes);
  line.text("request_line", r.request_line, kLoggedTextBytes);
  line.number(",\"request_bytes\":", r.request_bytes);
  line.number(",\"response_bytes\":", r.response_bytes);
  line.text("route", r.route);
  line.text("identity", r.identity, kLoggedHostBytes);
  line.text("policies", r.policies, kLoggedPolicyBytes);
  line.text("backend_path", r.backend_path, kLoggedTextBytes);
  line.text("variant", r.variant);
  line.text("pool", r.pool);
  line.text("backend", r.backend);
  if (r.tries > 1) line.number(",\"tries\":", r.tries);
  line.text("cache", r.cache);
  if (r.background) line.raw(",\"background\":true");
  if (r.queued_ns != 0) line.duration(",\"queued_ms\":", r.queued_ns);
  line.duration(",\"connected_ms\":", r.connected_ns);
  line.duration(",\"first_byte_ms\":", r.first_byte_ns);
  line.duration(",\"total_ms\":", r.total_ns == 0 ? 1 : r.total_ns);
  line.number(",\"version\":", r.config_version);
  line.text("user_agent", r.user_agent, kLoggedTextBytes);
  line.cut();
  line.raw("}\n");
  return line.size();
}

bool LogRing::push(std::string_view line) {
  const uint64_t tail = tail_.load(std::memory_order_relaxed);
  if (kBytes - (tail - head_.load(std::memory_order_acquire)) < line.size()) return false;
  const size_t at = tail % kBytes;
  const size_t first = std::min(line.size(), kBytes - at);
  std::memcpy(data_.get() + at, line.data(), first);
  std::memcpy(data_.get(), line.data() + first, line.size() - first);
  tail_.store(tail + line.size(), std::memory_order_release);
  return true;
}

std::string_view LogRing::peek() const {
  const uint64_t head = head_.load(std::memory_order_relaxed);
  const uint64_t waiting = tail_.load(std::memory_order_acquire) - head;
  const size_t at = head % kBytes;
  return {data_.get() + at, std::min<size_t>(waiting, kBytes - at)};
}

Result<std::unique_ptr<AccessLog>> AccessLog::open(const std::string& path, size_t workers, Counter& dropped) {
  std::unique_ptr<AccessLog> log(new AccessLog(dropped));
  log->path_ = path;
  for (size_t i = 0; i < workers; ++i) log->rings_.push_back(std::make_unique<LogRing>());
  if (path.empty()) return log;
  if (Result<void> opened = log->reopen(); !opened) return opened.error();
  log->thread_ = start_thread("access-log", [raw = log.get()] { raw->run(); });
  return log;
}

AccessLog::~AccessLog() {
  stop_.store(true, std::memory_order_release);
  if (thread_.joinable()) thread_.join();
}

Result<void> AccessLog::reopen() {
  UniqueFd file(path_ == "-" ? ::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0)
                             : ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640));
  if (!file) return fail(fmt::format("cannot open the access log {}: {}", path_, std::strerror(errno)));
  file_ = std::move(file);
  return {};
}

void AccessLog::run() {
  int pauses = 0;
  while (!stop_.load(std::memory_order_acquire)) {
    if (!drain_rings()) std::this_thread::sleep_for(kPause);
    const bool asked = reopen_soon_.exchange(false, std::memory_order_acq_rel);
    if (asked || ++pauses % kPausesPerRotationCheck == 0) reopen_if_rotated();
  }
  while (drain_rings()) continue;
  for (const std::unique_ptr<LogRing>& ring : rings_) {
    for (std::string_view lost = ring->peek(); !lost.empty(); lost = ring->peek()) {
      dropped_.add(static_cast<uint64_t>(std::count(lost.begin(), lost.end(), '\n')));
      ring->pop(lost.size());
    }
  }
}

// True when there was much: worth looking again at once.
bool AccessLog::drain_rings() {
  bool busy = false;
  for (size_t turns = rings_.size(); turns > 0; --turns) {
    LogRing& ring = *rings_[first_];
    for (std::string_view waiting = ring.peek(); !waiting.empty(); waiting = ring.peek()) {
      const ssize_t written = ::write(file_.get(), waiting.data(), waiting.size());
      if (written < 0 && errno == EINTR) continue;
      if (!note_written(written)) return busy;  // goes on with this ring: it may be amid a line
      amid_line_ = waiting[static_cast<size_t>(written) - 1] != '\n';
      ring.pop(static_cast<size_t>(written));
      busy = busy || waiting.size() > LogRing::kBytes / 4;
    }
    first_ = (first_ + 1) % rings_.size();
  }
  return busy;
}

// Another file begins with a whole line.
void AccessLog::drop_rest_of_line() {
  dropped_.add(amid_line_ ? 1 : 0);
  while (amid_line_) {
    const std::string_view waiting = rings_[first_]->peek();
    const size_t end = waiting.find('\n');
    amid_line_ = end == std::string_view::npos && !waiting.empty();
    rings_[first_]->pop(amid_line_ ? waiting.size() : std::min(end + 1, waiting.size()));
  }
}

// A disk that is full or broken costs log lines, never requests: what it does not take stays in the ring, from where it
// goes on, and the lines that find no room there are dropped and counted. False: nothing was written.
bool AccessLog::note_written(ssize_t written) {
  const int trouble = written > 0 ? 0 : written == 0 ? EIO : errno;
  if (trouble == trouble_) return trouble == 0;
  trouble_ = trouble;
  if (trouble != 0) {
    log_error("cannot write the access log {}: {}; lines are dropped once {} MB wait", path_, std::strerror(trouble),
              LogRing::kBytes >> 20);
  } else {
    log_info("the access log {} is written again", path_);
  }
  return trouble == 0;
}

void AccessLog::reopen_if_rotated() {
  if (path_ == "-") return;
  struct stat named {
  }, open{};
  if (::fstat(file_.get(), &open) != 0) return;
  if (::stat(path_.c_str(), &named) == 0 && named.st_ino == open.st_ino && named.st_dev == open.st_dev) return;
  if (Result<void> again = reopen(); !again) return;  // keep the old file until the new one can be made
  drop_rest_of_line();
}

}  // namespace tidegate::l7
