// SPDX-License-Identifier: Apache-2.0
// Encoders compress the content of one answer after another: gzip by ISA-L, brotli, zstd. They stream: content comes in
// pieces, and compressed bytes leave in pieces. An encoder's window (64 KiB) and its blocks bound the bytes that it
// holds back. So one piece of a block's size never produces more than kBurstBytes.
//
// The worker's pool bounds the number of encoders. gzip and zstd encoders are kept for the next answers; brotli has no
// reset, so each answer gets a new one (it allocates some hundred kilobytes).
//
// Threads: everything here belongs to one worker.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "conf/policy/compress.h"
#include "l7/limits.h"
#include "l7/wire/buffer.h"

namespace tidegate::l7 {

class Encoder {
 public:
  class Sink {
   public:
    // The next compressed bytes, at most a block. They are valid during the call.
    virtual void take(std::string_view bytes) = 0;

   protected:
    ~Sink() = default;
  };
  enum class End : uint8_t {
    none,    // more follows; the encoder may hold bytes back
    flush,   // more follows later: the client must be able to decode everything so far
    finish,  // this was the last piece
  };
  // The most bytes that one piece of at most kBlockBytes produces.
  static constexpr size_t kBurstBytes = 3 * kBlockBytes - kBlockBytes / 4;

  virtual ~Encoder() = default;
  virtual Coding coding() const = 0;
  // Makes it ready for another answer, even if the last one did not end.
  virtual void reset() = 0;
  virtual void encode(std::string_view piece, End end, Sink& sink) = 0;
};

class EncoderPool {
 public:
  class Return {
   public:
    explicit Return(EncoderPool* pool = nullptr) : pool_(pool) {}
    void operator()(Encoder* encoder) const { pool_->give_back(encoder); }

   private:
    EncoderPool* pool_;
  };
  using Lease = std::unique_ptr<Encoder, Return>;

  bool has_room() const { return leased_ < kWorkerEncoders; }
  // An encoder that is ready for an answer. Call has_room() before. `coding` must not be identity.
  Lease lease(Coding coding);
  size_t leased() const { return leased_; }

 private:
  void give_back(Encoder* encoder);
  char* room();

  std::unique_ptr<char[]> room_;  // a block for the output of the encoder that is running
  std::array<std::vector<std::unique_ptr<Encoder>>, kCodings> free_;
  size_t leased_ = 0;
};

}  // namespace tidegate::l7
