// SPDX-License-Identifier: Apache-2.0
// A cache on its own event loop, with requests, fetches and bodies as a proxy worker handles them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "cache/cache.h"
#include "conf/model/route.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "core/hash.h"
#include "tests/unit/cache/fields_of.h"

namespace tidegate::cache::testing {

inline uint64_t now_ms() { return realtime_ns() / kNsPerMs; }

// A directory that is removed after the test.
class TempDir {
 public:
  TempDir() : path_(std::filesystem::temp_directory_path() / ("tidegate-cache-" + hex_encode(random_bytes(8)))) {
    std::filesystem::create_directories(path_);
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  std::string path(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

// One lookup and its result. It belongs to one loop.
struct Ask {
  std::optional<Lookup> found;
  Pending pending;
  bool called_back = false;
};

class CacheFixture : public ::testing::Test {
 protected:
  CacheFixture() { policy.enabled = true; }

  void open(Options options = {}) {
    cache = nullptr;
    auto opened = Cache::open(options, metrics);
    ASSERT_TRUE(opened) << opened.error().message;
    cache = std::move(*opened);
    cache->wait_loaded();
  }

  // Starts a lookup. The result may come later.
  std::unique_ptr<Ask> ask(const RequestView& request) { return ask(request, now_ms()); }
  std::unique_ptr<Ask> ask(const RequestView& request, uint64_t at_ms) {
    auto out = std::make_unique<Ask>();
    Lookup found = cache->lookup(request, policy, at_ms, loop, [self = out.get()](Lookup later) {
      self->found = std::move(later);
      self->called_back = true;
    });
    if (found.outcome == LookupOutcome::wait) {
      out->pending = std::move(found.pending);
    } else {
      out->found = std::move(found);
    }
    return out;
  }
  // Runs the loop until the lookup has its result.
  Lookup settle(std::unique_ptr<Ask> question) {
    while (!question->found) loop.run_once(kNsPerS);
    return std::move(*question->found);
  }
  Lookup find(const RequestView& request) { return settle(ask(request)); }
  Lookup find(const RequestView& request, uint64_t at_ms) { return settle(ask(request, at_ms)); }

  std::string read_all(Answer& answer, BodyStep expected_last = BodyStep::end) {
    std::string body;
    bool ready = false;
    answer.body.on_ready([&ready] { ready = true; });
    for (;;) {
      Slice slice;
      const BodyStep step = answer.body.next(slice);
      if (step == BodyStep::data) {
        body += slice.bytes;
      } else if (step == BodyStep::wait) {
        while (!ready) loop.run_once(kNsPerS);
        ready = false;
      } else {
        EXPECT_EQ(step, expected_last);
        return body;
      }
    }
  }

  // Returns true if all of it came, false if it broke off.
  bool read_to_end(Answer& answer, std::string& body) {
    bool ready = false;
    answer.body.on_ready([&ready] { ready = true; });
    for (;;) {
      Slice slice;
      const BodyStep step = answer.body.next(slice);
      if (step == BodyStep::data) {
        body += slice.bytes;
      } else if (step == BodyStep::wait) {
        while (!ready) loop.run_once(kNsPerS);
        ready = false;
      } else {
        return step == BodyStep::end;
      }
    }
  }

  static ResponseView response(uint16_t status, Fields fields, std::optional<uint64_t> length = std::nullopt) {
    return {status, fields, now_ms(), now_ms(), length};
  }

  // Does what a leader does with a complete answer.
  FillDecision fill(Lookup& leader, uint16_t status, Fields fields, std::string_view body) {
    EXPECT_TRUE(leader.fill);
    FillDecision decision = leader.fill.on_head(response(status, fields, body.size()), now_ms());
    if (decision.kind == FillDecision::Kind::store) {
      leader.fill.append(body);
      leader.fill.finish();
    }
    return decision;
  }
  // Fetches the path and stores `body` with `fields`.
  void store(std::string_view path, const FieldList& fields, std::string_view body, const FieldList& request = {}) {
    Lookup leader = find(get(path, request));
    ASSERT_EQ(leader.outcome, LookupOutcome::fetch) << name(leader.outcome);
    ASSERT_EQ(fill(leader, 200, fields, body).kind, FillDecision::Kind::store);
  }

  double metric(const std::string& line_start) {
    const std::string text = metrics.prometheus_text();
    const size_t at = text.find("\n" + line_start + " ");
    return at == std::string::npos ? -1 : std::stod(text.substr(at + line_start.size() + 2));
  }

  EventLoop loop;
  Metrics metrics;
  RouteCache policy;
  std::unique_ptr<Cache> cache;
};

inline const FieldList& fresh_minute() {
  static const FieldList fields{{"Cache-Control", "max-age=60"}, {"ETag", "\"v1\""}, {"Content-Type", "text/plain"}};
  return fields;
}

// A body in which every byte depends on its position, so that a misplaced chunk is visible.
inline std::string body_of(size_t bytes, uint64_t seed = 1) {
  std::string body(bytes, '\0');
  uint64_t state = seed;
  for (size_t i = 0; i < bytes; i += sizeof state) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    const uint64_t word = mix64(state);
    std::memcpy(body.data() + i, &word, std::min(sizeof word, bytes - i));
  }
  return body;
}

}  // namespace tidegate::cache::testing
