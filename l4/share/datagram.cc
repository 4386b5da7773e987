// SPDX-License-Identifier: Apache-2.0
#include "l4/share/datagram.h"

#include <array>
#include <cstring>

#include "core/assert.h"
#include "core/crypto.h"
#include "l4/wire.h"

namespace tidegate::l4 {
namespace {

constexpr uint8_t kShareMagic[4] = {'T', 'G', 'F', 'S'};
constexpr uint8_t kShareLayout = 1;
constexpr size_t kShareKeyBytes = 32;

struct ShareFaultRow {
  std::string_view name, sentence;
};

constexpr std::array<ShareFaultRow, kShareFaults> kShareFaultTable = {{{"none", "not refused"},
#define TIDEGATE_L4_ROW(name, sentence) {#name, sentence},
                                                                       TIDEGATE_L4_SHARE_FAULTS(TIDEGATE_L4_ROW)
#undef TIDEGATE_L4_ROW
}};

void store_be64(uint8_t* to, uint64_t value) {
  store_be32(to, static_cast<uint32_t>(value >> 32));
  store_be32(to + 4, static_cast<uint32_t>(value));
}

uint64_t load_be64(const uint8_t* from) { return uint64_t{load_be32(from)} << 32 | load_be32(from + 4); }

std::string_view text_of(const uint8_t* bytes, size_t count) { return {reinterpret_cast<const char*>(bytes), count}; }

std::string_view half_of(const Sha256& mac) { return text_of(mac.data(), kShareMacBytes); }

}  // namespace

std::string_view name(ShareFault fault) { return kShareFaultTable[static_cast<size_t>(fault)].name; }
std::string_view sentence(ShareFault fault) { return kShareFaultTable[static_cast<size_t>(fault)].sentence; }

bool ReplayGuard::is_new(const ShareHead& head, uint64_t now_ms) const {
  if (!heard_ || now_ms - heard_ms_ > kForgetMs || head.epoch > epoch_) return true;
  if (head.epoch < epoch_) return false;
  if (head.sequence > newest_) return true;
  const uint64_t behind = newest_ - head.sequence;
  return behind < 64 && (seen_ >> behind & 1) == 0;
}

void ReplayGuard::accept(const ShareHead& head, uint64_t now_ms) {
  const bool begins = !heard_ || now_ms - heard_ms_ > kForgetMs || head.epoch != epoch_;
  if (begins) {
    epoch_ = head.epoch;
    newest_ = head.sequence;
    seen_ = 1;
  } else if (head.sequence > newest_) {
    const uint64_t ahead = head.sequence - newest_;
    seen_ = ahead < 64 ? seen_ << ahead | 1 : 1;
    newest_ = head.sequence;
  } else {
    TIDEGATE_ASSERT(newest_ - head.sequence < 64, "only a datagram that is_new() is accepted");
    seen_ |= uint64_t{1} << (newest_ - head.sequence);
  }
  heard_ = true;
  heard_ms_ = now_ms;
}

std::string share_key(std::string_view secret, const Endpoint& sender) {
  return hkdf_sha256(secret, "shared flows of " + sender.to_string(), kShareKeyBytes);
}

uint64_t backend_word(const HashKey& key, const BackendKey& backend) {
  std::string text = backend.first;
  text += '\0';
  text += backend.second;
  return siphash13(key, text);
}

size_t seal_flows(std::string_view key, const ShareHead& head, const SharedFlow* flows, size_t count, uint8_t* out) {
  TIDEGATE_ASSERT(count <= kMostSharedFlows, "a datagram has room for these flows");
  std::memcpy(out, kShareMagic, sizeof kShareMagic);
  out[4] = kShareLayout;
  out[5] = 0;
  store_be16(out + 6, static_cast<uint16_t>(count));
  store_be64(out + 8, head.epoch);
  store_be64(out + 16, head.sequence);
  store_be64(out + 24, head.sent_ms);
  uint8_t* at = out + kShareHeadBytes;
  for (size_t i = 0; i < count; ++i, at += kShareFlowBytes) {
    store_be64(at, flows[i].hash);
    store_be64(at + 8, flows[i].backend);
    store_be32(at + 16, flows[i].left_ms);
  }
  const auto before = static_cast<size_t>(at - out);
  std::memcpy(at, hmac_sha256(key, text_of(out, before)).data(), kShareMacBytes);
  return before + kShareMacBytes;
}

OpenedFlows open_flows(std::string_view key, const uint8_t* datagram, size_t bytes, const ShareClock& now,
                       ReplayGuard& guard, SharedFlow* out) {
  if (bytes < kShareHeadBytes + kShareMacBytes || std::memcmp(datagram, kShareMagic, sizeof kShareMagic) != 0) {
    return {ShareFault::malformed};
  }
  if (datagram[4] != kShareLayout) return {ShareFault::layout};
  const size_t count = load_be16(datagram + 6);
  if (datagram[5] != 0 || count > kMostSharedFlows ||
      bytes != kShareHeadBytes + count * kShareFlowBytes + kShareMacBytes) {
    return {ShareFault::malformed};
  }
  const ShareHead head{load_be64(datagram + 8), load_be64(datagram + 16), load_be64(datagram + 24)};
  const uint64_t apart_ms = head.sent_ms > now.wall_ms ? head.sent_ms - now.wall_ms : now.wall_ms - head.sent_ms;
  if (apart_ms > kShareFreshMs) return {ShareFault::stale};
  if (!guard.is_new(head, now.monotonic_ms)) return {ShareFault::replayed};
  const size_t before = bytes - kShareMacBytes;
  if (!equal_constant_time(half_of(hmac_sha256(key, text_of(datagram, before))),
                           text_of(datagram + before, kShareMacBytes))) {
    return {ShareFault::forged};
  }
  guard.accept(head, now.monotonic_ms);
  const uint8_t* at = datagram + kShareHeadBytes;
  for (size_t i = 0; i < count; ++i, at += kShareFlowBytes) {
    out[i] = {load_be64(at), load_be64(at + 8), load_be32(at + 16)};
  }
  return {ShareFault::none, count};
}

}  // namespace tidegate::l4
