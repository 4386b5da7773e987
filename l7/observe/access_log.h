// SPDX-License-Identifier: Apache-2.0
// AccessLog: one JSON line for each request. A worker formats into its own ring and never waits. One thread writes the
// rings to the file. Every request gets a line: fields that are too long are cut, and "cut" names them. Lines are lost
// only if a ring is full because the disk is full or slow; they are counted.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "core/fd.h"
#include "core/metrics.h"
#include "core/result.h"
#include "l7/exchange/failure.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

// What is said of a request. Views need only live for the call. Durations in nanoseconds from the request's head; 0:
// never.
struct AccessRecord {
  uint64_t realtime_ns = 0;
  std::string_view request_id, client, peer, listener, method, host, path, query, route, pool, backend, cache,
      user_agent;
  std::string_view upgrade;       // the protocol of a tunnel
  std::string_view backend_path;  // what the backend was asked for, where policies have changed the path
  std::string_view variant;       // that a split has chosen
  std::string_view request_line;  // of a request that could not be read
  std::string_view policies;      // "per-client.limit=passed", with commas between
  std::string_view identity;      // who the client is, as a policy has found out
  std::string_view tls_version;
  std::string_view certificate;         // of the client: its SPIFFE ID, else its subject
  std::string_view certificate_serial;  // hexadecimal
  bool tls_resumed = false;
  bool background = false;  // no client: a revalidation for the cache
  HttpVersion version = HttpVersion::http11;
  uint16_t status = 0;
  Failure failure = Failure::none;
  std::string_view failure_detail;                 // in the words of the kernel, of OpenSSL, or the parser's fault
  uint64_t request_bytes = 0, response_bytes = 0;  // bodies
  uint32_t tries = 0;
  uint64_t config_version = 0;
  uint64_t queued_ns = 0;  // waited for room at a backend, in all
  uint64_t connected_ns = 0, first_byte_ns = 0, total_ns = 0;
};

// Bytes from one worker to the log's thread: single producer, single consumer, no lock.
class LogRing {
 public:
  static constexpr size_t kBytes = size_t{1} << 20;
  LogRing() : data_(new char[kBytes]) {}
  bool push(std::string_view line);  // the worker; false: no room
  // The log's thread: what is there, up to the ring's end; then how much of it was taken.
  std::string_view peek() const;
  void pop(size_t bytes) { head_.store(head_.load(std::memory_order_relaxed) + bytes, std::memory_order_release); }

 private:
  std::unique_ptr<char[]> data_;
  alignas(64) std::atomic<uint64_t> head_{0};  // taken
  alignas(64) std::atomic<uint64_t> tail_{0};  // given
};

constexpr size_t kLongestLogLine = 30 * 1024;
// Writes `record` as one line with its newline into `out`, of kLongestLogLine bytes; returns its length.
size_t format_record(const AccessRecord& record, char* out);

class AccessLog {
 public:
  // `path`: a file, "-" for stdout, or empty for none. A file may be rotated by renaming it: the
  // log notices this within a second, or at once after reopen_soon(). It may also be copied and truncated, because each
  // line is appended at its present end. One ring for each worker. `dropped`: counts what could not be written until
  // the end.
  static Result<std::unique_ptr<AccessLog>> open(const std::string& path, size_t workers, Counter& dropped);
  ~AccessLog();  // writes what is left

  bool enabled() const { return !path_.empty(); }
  LogRing& ring(size_t worker) { return *rings_[worker]; }
  // Checks at once whether the file was renamed (SIGUSR1). Each line goes to one of the files whole. Any thread.
  void reopen_soon() { reopen_soon_.store(true, std::memory_order_release); }

 private:
  explicit AccessLog(Counter& dropped) : dropped_(dropped) {}
  Result<void> reopen();
  void run();
  bool drain_rings();
  bool note_written(ssize_t written);
  void drop_rest_of_line();
  void reopen_if_rotated();

  std::string path_;
  Counter& dropped_;
  UniqueFd file_;
  size_t first_ = 0;        // the ring to be written next
  bool amid_line_ = false;  // the file ends in the middle of one of its lines
  int trouble_ = 0;         // errno of the last write; 0: it was taken
  std::vector<std::unique_ptr<LogRing>> rings_;
  std::atomic<bool> stop_{false}, reopen_soon_{false};
  std::thread thread_;
};

}  // namespace tidegate::l7
