// SPDX-License-Identifier: Apache-2.0
#include "l7/observe/access_log.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "core/assert.h"
#include "core/log.h"
#include "core/thread.h"
#include "l7/observe/log_line.h"
#include "l7/observe/log_sink.h"

namespace tidegate::l7 {
namespace {

constexpr auto kPause = std::chrono::milliseconds(50);
constexpr int kPausesPerLook = 20;    // until the next check for a renamed file
constexpr uint32_t kFullPauses = 20;  // the log says so after a collector has had no room this many times
constexpr int kLastTurns = 10;        // at the end: how often a collector may make room

}  // namespace

AccessLogOptions access_log_options(const Node& node) {
  AccessLogOptions options;
  const std::optional<LogTarget> target = LogTarget::parse(node.l7.access_log);
  TIDEGATE_ASSERT(target.has_value(), "the document was validated");
  options.target = *target;
  const LogTemplate::Trouble trouble = LogTemplate::parse(node.l7.access_log_format, options.format);
  TIDEGATE_ASSERT(trouble.detail.empty(), "the document was validated");
  const std::vector<std::string_view>& words = syslog_facility_words();
  const auto found = std::find(words.begin(), words.end(), node.l7.access_log_facility);
  TIDEGATE_ASSERT(found != words.end(), "the document was validated");
  options.facility = static_cast<uint8_t>(found - words.begin());
  options.tag = node.l7.access_log_tag;
  options.host = node.name;
  return options;
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

// RFC 5424 §6.2: PRI and VERSION before the time; HOSTNAME, APP-NAME, PROCID, MSGID and no STRUCTURED-DATA after it.
AccessLog::AccessLog(AccessLogOptions options, Counter& dropped)
    : options_(std::move(options)),
      syslog_begin_(options_.target.is_syslog() ? fmt::format("<{}>1 ", options_.facility * 8 + 6) : ""),
      syslog_middle_(options_.target.is_syslog()
                         ? fmt::format(" {} {} {} access - ", options_.host.empty() ? "-" : options_.host, options_.tag,
                                       ::getpid())
                         : ""),
      dropped_(dropped),
      sink_(make_log_sink(options_.target, dropped)) {
  for (const LogPart& part : options_.format.parts) {
    if (part.what == LogVariable::response_header) response_fields_.push_back(part.text);
  }
}

Result<std::unique_ptr<AccessLog>> AccessLog::open(AccessLogOptions options, size_t workers, Counter& dropped) {
  std::unique_ptr<AccessLog> log(new AccessLog(std::move(options), dropped));
  for (size_t i = 0; i < workers; ++i) log->rings_.push_back(std::make_unique<LogRing>());
  if (log->sink_ == nullptr) return log;
  if (Result<void> opened = log->sink_->open(); !opened) return opened.error();
  log->thread_ = start_thread("access-log", [raw = log.get()] { raw->run(); });
  return log;
}

AccessLog::~AccessLog() {
  stop_.store(true, std::memory_order_release);
  if (thread_.joinable()) thread_.join();
}

size_t AccessLog::format(const AccessRecord& record, char* out) const {
  const LogLineHeader header{syslog_begin_, syslog_middle_};
  return options_.format.parts.empty() ? write_json_line(record, header, out)
                                       : write_template_line(record, options_.format, header, out);
}

void AccessLog::run() {
  int pauses = 0;
  while (!stop_.load(std::memory_order_acquire)) {
    if (!drain_rings()) std::this_thread::sleep_for(kPause);
    const bool asked = reopen_soon_.exchange(false, std::memory_order_acq_rel);
    if ((asked || ++pauses % kPausesPerLook == 0) && sink_->moved()) drop_rest_of_line();
  }
  const auto something_waits = [](const std::unique_ptr<LogRing>& ring) { return !ring->peek().empty(); };
  for (int turns = 0; turns < kLastTurns && std::any_of(rings_.begin(), rings_.end(), something_waits);) {
    if (!drain_rings()) ++turns;
  }
  count_the_rest();
}

void AccessLog::count_the_rest() {
  for (const std::unique_ptr<LogRing>& ring : rings_) {
    for (std::string_view lost = ring->peek(); !lost.empty(); lost = ring->peek()) {
      dropped_.add(static_cast<uint64_t>(std::count(lost.begin(), lost.end(), '\n')));
      ring->pop(lost.size());
    }
  }
}

// Returns true if there was much. Then it is worth checking again at once.
bool AccessLog::drain_rings() {
  bool busy = false;
  for (size_t turns = rings_.size(); turns > 0; --turns) {
    LogRing& ring = *rings_[first_];
    for (std::string_view waiting = ring.peek(); !waiting.empty(); waiting = ring.peek()) {
      const ssize_t written = sink_->write(waiting);
      if (written < 0 && errno == EINTR) continue;
      if (!note_written(written)) return false;  // continues with this ring, because it may be in the middle of a line
      amid_line_ = waiting[static_cast<size_t>(written) - 1] != '\n';
      ring.pop(static_cast<size_t>(written));
      busy = busy || waiting.size() > LogRing::kBytes / 4;
    }
    first_ = (first_ + 1) % rings_.size();
  }
  return busy;
}

// Another file must begin with a whole line.
void AccessLog::drop_rest_of_line() {
  dropped_.add(amid_line_ ? 1 : 0);
  while (amid_line_) {
    const std::string_view waiting = rings_[first_]->peek();
    const size_t end = waiting.find('\n');
    amid_line_ = end == std::string_view::npos && !waiting.empty();
    rings_[first_]->pop(amid_line_ ? waiting.size() : std::min(end + 1, waiting.size()));
  }
}

// If a disk or a collector takes nothing, log lines are lost, but no request fails or waits. Bytes that it does not
// take stay in the ring and are written later. Lines that find no room in the ring are dropped and counted. Returns
// false if nothing was written.
bool AccessLog::note_written(ssize_t written) {
  const int trouble = written > 0 ? 0 : written == 0 ? EIO : errno;
  full_pauses_ = trouble == EAGAIN ? full_pauses_ + 1 : 0;
  if (trouble == EAGAIN && full_pauses_ < kFullPauses) return false;  // it only reads slowly
  if (trouble == trouble_) return trouble == 0;
  trouble_ = trouble;
  if (trouble != 0) {
    log_error("cannot write the access log {}: {}; lines are dropped once {} MB wait", sink_->where(),
              std::strerror(trouble), LogRing::kBytes >> 20);
  } else {
    log_info("the access log {} is written again", sink_->where());
  }
  return trouble == 0;
}

}  // namespace tidegate::l7
