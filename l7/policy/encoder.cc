// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/encoder.h"

#include <brotli/encode.h>
#include <isa-l/igzip_lib.h>
#include <zstd.h>

#include <cstdlib>
#include <new>

#include "core/assert.h"

namespace tidegate::l7 {
namespace {

constexpr int kWindowBits = 16;  // of brotli and zstd: 64 KiB; deflate has 32 KiB

class GzipEncoder final : public Encoder {
 public:
  explicit GzipEncoder(char* room) : room_(room) {
    isal_deflate_init(&stream_);
    stream_.level = 1;
    stream_.level_buf = tokens_.data();
    stream_.level_buf_size = static_cast<uint32_t>(tokens_.size());
    reset();
  }
  Coding coding() const override { return Coding::gzip; }
  void reset() override {
    isal_deflate_reset(&stream_);
    stream_.gzip_flag = IGZIP_GZIP;
    stream_.end_of_stream = 0;
  }
  void encode(std::string_view piece, End end, Sink& sink) override {
    stream_.next_in = reinterpret_cast<uint8_t*>(const_cast<char*>(piece.data()));  // it only reads
    stream_.avail_in = static_cast<uint32_t>(piece.size());
    stream_.end_of_stream = end == End::finish ? 1 : 0;
    stream_.flush = end == End::flush ? SYNC_FLUSH : NO_FLUSH;
    do {
      stream_.next_out = reinterpret_cast<uint8_t*>(room_);
      stream_.avail_out = kBlockBytes;
      const int result = isal_deflate(&stream_);
      TIDEGATE_ASSERT(result == COMP_OK, "igzip takes any bytes");
      if (stream_.avail_out < kBlockBytes) sink.take({room_, kBlockBytes - stream_.avail_out});
    } while (stream_.avail_out == 0 || stream_.avail_in > 0);
  }

 private:
  char* const room_;
  isal_zstream stream_;
  alignas(64) std::array<uint8_t, ISAL_DEF_LVL1_SMALL> tokens_;
};

class ZstdEncoder final : public Encoder {
 public:
  explicit ZstdEncoder(char* room) : room_(room), context_(ZSTD_createCCtx()) {
    if (context_ == nullptr) throw std::bad_alloc();
    ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_compressionLevel, 3);
    ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_windowLog, kWindowBits);
  }
  Coding coding() const override { return Coding::zstd; }
  void reset() override { ZSTD_CCtx_reset(context_.get(), ZSTD_reset_session_only); }
  void encode(std::string_view piece, End end, Sink& sink) override {
    ZSTD_inBuffer in{piece.data(), piece.size(), 0};
    const ZSTD_EndDirective directive = end == End::finish  ? ZSTD_e_end
                                        : end == End::flush ? ZSTD_e_flush
                                                            : ZSTD_e_continue;
    for (;;) {
      ZSTD_outBuffer out{room_, kBlockBytes, 0};
      const size_t left = ZSTD_compressStream2(context_.get(), &out, &in, directive);
      TIDEGATE_ASSERT(ZSTD_isError(left) == 0, "zstd takes any bytes");
      if (out.pos > 0) sink.take({room_, out.pos});
      if (end == End::none ? in.pos == in.size : left == 0) return;
    }
  }

 private:
  struct Free {
    void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  };
  char* const room_;
  std::unique_ptr<ZSTD_CCtx, Free> context_;
};

class BrotliEncoder final : public Encoder {
 public:
  BrotliEncoder() { reset(); }
  Coding coding() const override { return Coding::br; }
  void reset() override {
    state_.reset(BrotliEncoderCreateInstance(nullptr, nullptr, nullptr));
    if (state_ == nullptr) throw std::bad_alloc();
    BrotliEncoderSetParameter(state_.get(), BROTLI_PARAM_QUALITY, 4);
    BrotliEncoderSetParameter(state_.get(), BROTLI_PARAM_LGWIN, kWindowBits);
  }
  void encode(std::string_view piece, End end, Sink& sink) override {
    const BrotliEncoderOperation operation = end == End::finish  ? BROTLI_OPERATION_FINISH
                                             : end == End::flush ? BROTLI_OPERATION_FLUSH
                                                                 : BROTLI_OPERATION_PROCESS;
    size_t left = piece.size();
    const auto* next = reinterpret_cast<const uint8_t*>(piece.data());
    do {
      size_t no_room = 0;
      const BROTLI_BOOL taken =
          BrotliEncoderCompressStream(state_.get(), operation, &left, &next, &no_room, nullptr, nullptr);
      TIDEGATE_ASSERT(taken == BROTLI_TRUE, "brotli takes any bytes");
      while (BrotliEncoderHasMoreOutput(state_.get()) == BROTLI_TRUE) {
        size_t bytes = kBlockBytes;
        const uint8_t* const out = BrotliEncoderTakeOutput(state_.get(), &bytes);
        if (bytes > 0) sink.take({reinterpret_cast<const char*>(out), bytes});
      }
    } while (left > 0 || (end == End::finish && BrotliEncoderIsFinished(state_.get()) != BROTLI_TRUE));
  }

 private:
  struct Free {
    void operator()(BrotliEncoderState* state) const { BrotliEncoderDestroyInstance(state); }
  };
  std::unique_ptr<BrotliEncoderState, Free> state_;
};

}  // namespace

EncoderPool::Lease EncoderPool::lease(Coding coding) {
  TIDEGATE_ASSERT(has_room() && coding != Coding::identity, "the caller has asked");
  std::vector<std::unique_ptr<Encoder>>& free = free_[static_cast<size_t>(coding)];
  Encoder* encoder = nullptr;
  if (!free.empty()) {
    encoder = free.back().release();
    free.pop_back();
    encoder->reset();
  } else if (coding == Coding::gzip) {
    encoder = new GzipEncoder(room());
  } else if (coding == Coding::zstd) {
    encoder = new ZstdEncoder(room());
  } else {
    encoder = new BrotliEncoder();
  }
  ++leased_;
  return Lease(encoder, Return(this));
}

void EncoderPool::give_back(Encoder* encoder) {
  TIDEGATE_ASSERT(leased_ > 0, "each lease comes back once");
  --leased_;
  std::unique_ptr<Encoder> given(encoder);
  std::vector<std::unique_ptr<Encoder>>& free = free_[static_cast<size_t>(given->coding())];
  if (given->coding() != Coding::br && free.size() < kKeptEncoders) free.push_back(std::move(given));
}

char* EncoderPool::room() {
  if (room_ == nullptr) room_ = std::make_unique<char[]>(kBlockBytes);
  return room_.get();
}

}  // namespace tidegate::l7
