// SPDX-License-Identifier: Apache-2.0
// AccessLog: one line for each request, JSON or by a template (log_line.h). A worker formats into its own ring and
// never waits. One thread gives the rings to the file, to standard output or to syslog (log_sink.h). Every request gets
// a line: values that are too long are cut. Lines are lost only if a ring is full because the disk or the collector is
// slow or gone; they are counted.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "conf/log_target.h"
#include "conf/log_template.h"
#include "conf/model/node.h"
#include "core/metrics.h"
#include "core/result.h"
#include "l7/exchange/failure.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

class LogSink;  // log_sink.h

// The values of a request for its log line. Views need only live for the call. Durations are in nanoseconds from the
// request's head; 0: it did not happen.
struct AccessRecord {
  uint64_t realtime_ns = 0;
  std::string_view request_id, client, peer, listener, method, host, path, query, route, pool, backend, cache,
      user_agent;
  std::string_view upgrade;       // the protocol of a tunnel
  std::string_view backend_path;  // the path of the backend's request, if policies have changed it
  std::string_view variant;       // the variant that a split has chosen
  std::string_view request_line;  // of a request that could not be read
  std::string_view policies;      // "per-client.limit=passed", with commas between
  std::string_view identity;      // the client's name, as a policy has found it
  std::string_view tls_version;
  std::string_view certificate;         // the client's SPIFFE ID, or else its subject
  std::string_view certificate_serial;  // hexadecimal
  bool tls_resumed = false;
  bool background = false;  // no client: a revalidation for the cache
  HttpVersion version = HttpVersion::http11;
  uint16_t status = 0;
  Failure failure = Failure::none;
  std::string_view failure_detail;                 // the words of the kernel or of OpenSSL, or the parser's fault
  uint64_t request_bytes = 0, response_bytes = 0;  // bytes of bodies
  uint32_t tries = 0;
  uint64_t config_version = 0;
  std::string_view content_coding;  // the coding that a policy has chosen
  bool coding_stored = false;       // the cache had the content in that coding
  uint64_t handshake_ns = 0;        // TLS handshake with the client; only for the first request of a connection
  uint64_t policies_ns = 0;         // how long policies have held it, in total
  uint64_t queued_ns = 0;           // how long it waited for room at a backend, in total
  uint64_t connect_ns = 0;          // TCP connect to the last backend
  uint64_t backend_tls_ns = 0;      // TLS handshake with the last backend
  uint64_t connected_ns = 0, first_byte_ns = 0, total_ns = 0;  // since the request's head
  const FieldList* request_fields = nullptr;                   // for templates; null: none
  std::span<const Field> response_fields;  // those of AccessLog::response_fields(), as the client got them
};

// Bytes from one worker to the log's thread: single producer, single consumer, no lock.
class LogRing {
 public:
  static constexpr size_t kBytes = size_t{1} << 20;
  LogRing() : data_(new char[kBytes]) {}
  bool push(std::string_view line);  // for the worker; false: there is no room
  // For the log's thread: peek() returns the bytes that wait, up to the ring's end. take() removes as many of them as
  // were written.
  std::string_view peek() const;
  void pop(size_t bytes) { head_.store(head_.load(std::memory_order_relaxed) + bytes, std::memory_order_release); }

 private:
  std::unique_ptr<char[]> data_;
  alignas(64) std::atomic<uint64_t> head_{0};  // bytes taken
  alignas(64) std::atomic<uint64_t> tail_{0};  // bytes given
};

constexpr size_t kLongestLogLine = 30 * 1024;

struct AccessLogOptions {
  LogTarget target;
  LogTemplate format;     // no parts: the line is JSON
  uint8_t facility = 23;  // of syslog: its number
  std::string tag;        // of syslog: APP-NAME
  std::string host;       // of syslog: HOSTNAME
};
// The options of a node that was validated.
AccessLogOptions access_log_options(const Node& node);

class AccessLog {
 public:
  // A file may be rotated by renaming it: the log notices this within a second, or at once after reopen_soon(). It may
  // also be copied and truncated, because each line is appended at the current end of the file. A syslog collector need
  // not exist yet. Each worker has one ring. `dropped` counts lines that could not be written when the log ends.
  static Result<std::unique_ptr<AccessLog>> open(AccessLogOptions options, size_t workers, Counter& dropped);
  ~AccessLog();  // writes the remaining lines

  bool enabled() const { return options_.target.kind != LogTarget::Kind::none; }
  // Writes `record` as one line with its newline into `out`, of kLongestLogLine bytes; returns its length.
  size_t format(const AccessRecord& record, char* out) const;
  // The names of the answer's fields that the template uses, in lower case.
  const std::vector<std::string>& response_fields() const { return response_fields_; }
  LogRing& ring(size_t worker) { return *rings_[worker]; }
  // Checks at once whether the file was renamed (SIGUSR1). Each line goes to one of the files as a whole. Any thread.
  void reopen_soon() { reopen_soon_.store(true, std::memory_order_release); }

 private:
  AccessLog(AccessLogOptions options, Counter& dropped);
  void run();
  bool drain_rings();
  bool note_written(ssize_t written);
  void drop_rest_of_line();
  void count_the_rest();

  const AccessLogOptions options_;
  // the parts of a message's header before and after its time; empty: no syslog
  const std::string syslog_begin_, syslog_middle_;
  std::vector<std::string> response_fields_;
  Counter& dropped_;
  std::unique_ptr<LogSink> sink_;
  size_t first_ = 0;          // the ring to write next
  bool amid_line_ = false;    // the file ends in the middle of one of our lines
  int trouble_ = 0;           // errno of the last write; 0: it succeeded
  uint32_t full_pauses_ = 0;  // number of pauses in which the collector has had no room
  std::vector<std::unique_ptr<LogRing>> rings_;
  std::atomic<bool> stop_{false}, reopen_soon_{false};
  std::thread thread_;
};

}  // namespace tidegate::l7
