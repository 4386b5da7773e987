// SPDX-License-Identifier: Apache-2.0
#include "l4/pcap_file.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "l4/wire.h"

namespace tidegate::l4 {
namespace {

constexpr uint32_t kPcapMicroseconds = 0xa1b2c3d4, kPcapNanoseconds = 0xa1b23c4d;
constexpr uint32_t kSectionBlock = 0x0a0d0d0a, kInterfaceBlock = 1, kSimpleBlock = 3, kPacketBlock = 6;
constexpr uint32_t kSectionOrder = 0x1a2b3c4d;
constexpr uint32_t kLinkEthernet = 1;
constexpr size_t kPcapHeaderBytes = 24, kPcapRecordBytes = 16, kLeastBlockBytes = 12;
constexpr uint16_t kOptionEnd = 0, kOptionComment = 1, kOptionIfName = 2, kOptionIfResolution = 9;

// Reads numbers in the byte order of the machine that wrote the file.
class CaptureReader {
 public:
  CaptureReader(std::string_view file, size_t most) : file_(file), most_(most) {}

  Result<std::vector<CaptureRecord>> read() {
    if (file_.size() < 4) return fail("the file is too short for a capture");
    if (at32(0) == kSectionBlock) return read_blocks();
    for (const bool swapped : {false, true}) {
      swapped_ = swapped;
      const uint32_t magic = at32(0);
      if (magic == kPcapMicroseconds || magic == kPcapNanoseconds) return read_pcap(magic == kPcapNanoseconds);
    }
    return fail("the file is neither pcap nor pcapng");
  }

 private:
  struct Interface {
    uint32_t link = 0;
    uint64_t units_per_second = 1'000'000;
  };

  uint16_t at16(size_t place) const {
    uint16_t value;
    std::memcpy(&value, file_.data() + place, sizeof value);
    return swapped_ ? __builtin_bswap16(value) : value;
  }
  uint32_t at32(size_t place) const {
    uint32_t value;
    std::memcpy(&value, file_.data() + place, sizeof value);
    return swapped_ ? __builtin_bswap32(value) : value;
  }
  void add(size_t place, uint32_t bytes, uint32_t whole_bytes, uint64_t time_ns) {
    const auto* begin = reinterpret_cast<const uint8_t*>(file_.data()) + place;
    records_.push_back({time_ns, {begin, bytes}, std::max(bytes, whole_bytes)});
  }
  static Error cut_short() { return fail("the capture is cut short or damaged"); }
  static Error no_ethernet() { return fail("the capture holds no Ethernet frames"); }

  Result<std::vector<CaptureRecord>> read_pcap(bool nanoseconds) {
    if (file_.size() < kPcapHeaderBytes) return cut_short();
    if ((at32(20) & 0x0fffffff) != kLinkEthernet) return no_ethernet();
    for (size_t place = kPcapHeaderBytes; place != file_.size() && records_.size() < most_;) {
      if (file_.size() - place < kPcapRecordBytes) return cut_short();
      const uint32_t bytes = at32(place + 8);
      if (bytes > file_.size() - place - kPcapRecordBytes) return cut_short();
      const uint64_t fraction = at32(place + 4);
      const uint64_t time_ns = uint64_t{at32(place)} * 1'000'000'000 + fraction * (nanoseconds ? 1 : 1'000);
      add(place + kPcapRecordBytes, bytes, at32(place + 12), time_ns);
      place += kPcapRecordBytes + bytes;
    }
    return std::move(records_);
  }

  Result<std::vector<CaptureRecord>> read_blocks() {
    for (size_t place = 0; place != file_.size() && records_.size() < most_;) {
      if (file_.size() - place < kLeastBlockBytes) return cut_short();
      // The type of a section is the same in both byte orders. The order comes after its length.
      if (at32(place) == kSectionBlock && !begin_section(place)) return cut_short();
      const uint32_t bytes = at32(place + 4);
      if (bytes < kLeastBlockBytes || bytes % 4 != 0 || bytes > file_.size() - place) return cut_short();
      if (Result<void> read = read_block(at32(place), place + 8, bytes - kLeastBlockBytes); !read) return read.error();
      place += bytes;
    }
    return std::move(records_);
  }

  bool begin_section(size_t place) {
    uint32_t order;
    std::memcpy(&order, file_.data() + place + 8, sizeof order);
    swapped_ = order != kSectionOrder;
    interfaces_.clear();
    return order == kSectionOrder || __builtin_bswap32(order) == kSectionOrder;
  }

  Result<void> read_block(uint32_t type, size_t place, size_t bytes) {
    if (type == kInterfaceBlock) {
      if (bytes < 8) return cut_short();
      interfaces_.push_back({at16(place), resolution(place + 8, place + bytes)});
      return {};
    }
    if (type == kPacketBlock) {
      if (bytes < 20 || at32(place) >= interfaces_.size() || at32(place + 12) > bytes - 20) return cut_short();
      const Interface& interface = interfaces_[at32(place)];
      if (interface.link != kLinkEthernet) return no_ethernet();
      const uint64_t units = uint64_t{at32(place + 4)} << 32 | at32(place + 8);
      const uint64_t per_second = interface.units_per_second;
      const auto fraction =
          static_cast<uint64_t>(static_cast<double>(units % per_second) * 1e9 / static_cast<double>(per_second));
      add(place + 20, at32(place + 12), at32(place + 16), units / per_second * 1'000'000'000 + fraction);
    } else if (type == kSimpleBlock) {
      if (bytes < 4 || interfaces_.empty()) return cut_short();
      if (interfaces_[0].link != kLinkEthernet) return no_ethernet();
      add(place + 4, static_cast<uint32_t>(std::min<size_t>(at32(place), bytes - 4)), at32(place), 0);
    }
    return {};
  }

  // if_tsresol: a power of ten, or of two if the first bit is set.
  uint64_t resolution(size_t place, size_t end) const {
    while (end - place >= 4) {
      const uint16_t code = at16(place), bytes = at16(place + 2);
      if (code == kOptionEnd || bytes > end - place - 4) break;
      if (code == kOptionIfResolution && bytes == 1) {
        const auto value = static_cast<uint8_t>(file_[place + 4]);
        if ((value & 0x80) != 0) return uint64_t{1} << std::min(value & 0x7f, 62);
        uint64_t units = 1;
        for (int i = 0; i < std::min<int>(value, 18); ++i) units *= 10;
        return units;
      }
      place += 4 + (size_t{bytes} + 3) / 4 * 4;
      if (place > end) break;
    }
    return 1'000'000;
  }

  std::string_view file_;
  size_t most_;
  bool swapped_ = false;
  std::vector<Interface> interfaces_;
  std::vector<CaptureRecord> records_;
};

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_option(std::string& out, uint16_t code, std::string_view value) {
  value = value.substr(0, UINT16_MAX);
  put(out, code);
  put(out, static_cast<uint16_t>(value.size()));
  out += value;
  out.resize((out.size() + 3) / 4 * 4);
}

}  // namespace

Result<std::vector<CaptureRecord>> read_capture(std::string_view file, size_t most) {
  return CaptureReader(file, most).read();
}

PcapngWriter::PcapngWriter(const std::vector<std::string>& interfaces) {
  std::string section;
  put(section, kSectionOrder);
  put(section, uint16_t{1});  // version 1.0
  put(section, uint16_t{0});
  put(section, UINT64_MAX);  // the length of the section is not given
  block(kSectionBlock, section);
  for (const std::string& name : interfaces) {
    std::string interface;
    put(interface, static_cast<uint16_t>(kLinkEthernet));
    put(interface, uint16_t{0});
    put(interface, uint32_t{0});  // frames may be of any length
    put_option(interface, kOptionIfName, name);
    put_option(interface, kOptionIfResolution, std::string(1, 9));  // nanoseconds
    put_option(interface, kOptionEnd, "");
    block(kInterfaceBlock, interface);
  }
}

void PcapngWriter::append(const CaptureRecord& record, uint32_t interface, std::string_view comment) {
  std::string packet;
  put(packet, interface);
  put(packet, static_cast<uint32_t>(record.time_ns >> 32));
  put(packet, static_cast<uint32_t>(record.time_ns));
  put(packet, static_cast<uint32_t>(record.bytes.size()));
  put(packet, record.whole_bytes);
  packet.append(reinterpret_cast<const char*>(record.bytes.data()), record.bytes.size());
  packet.resize((packet.size() + 3) / 4 * 4);
  if (!comment.empty()) {
    put_option(packet, kOptionComment, comment);
    put_option(packet, kOptionEnd, "");
  }
  block(kPacketBlock, packet);
}

void PcapngWriter::block(uint32_t type, std::string_view body) {
  const auto bytes = static_cast<uint32_t>(kLeastBlockBytes + body.size());
  put(out_, type);
  put(out_, bytes);
  out_ += body;
  put(out_, bytes);
}

}  // namespace tidegate::l4
