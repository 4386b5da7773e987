// SPDX-License-Identifier: Apache-2.0
#include "core/lmdb_check.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "core/fd.h"

namespace tidegate::lmdb {
namespace {

// The file format as mdb.c of lmdb 0.9 writes it on a 64-bit little-endian machine.
constexpr size_t kPageHeader = 16;  // page number 8, pad 2, flags 2, lower 2, upper 2; then 2-byte node offsets
constexpr uint16_t kBranch = 0x01, kLeaf = 0x02, kOverflow = 0x04, kMeta = 0x08, kFixedLeaf = 0x20;
constexpr size_t kNodeHeader = 8;  // low and high half of size or page number 2 + 2, flags 2, key size 2
constexpr uint16_t kBigData = 0x01, kSubData = 0x02;
// Pad 4, flags 2, depth 2, branch, leaf and overflow pages and entries 8 each, root 8.
constexpr size_t kTreeBytes = 48;
constexpr uint64_t kNoPage = UINT64_MAX;
constexpr uint32_t kMagic = 0xBEEFC0DE, kVersion = 1;
constexpr size_t kMinPage = 512, kMaxPage = 65'536;
constexpr int kMaxDepth = 32;  // CURSOR_STACK
constexpr int kAttempts = 8;

template <class T>
T load(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

struct Tree {
  uint16_t depth;
  uint64_t root;
  explicit Tree(const char* at) : depth(load<uint16_t>(at + 6)), root(load<uint64_t>(at + 40)) {}
};

struct Meta {
  size_t page_bytes;
  Tree free, main;
  uint64_t last_page, transaction;
};

Error damaged(const std::string& what) { return fail("lmdb: damaged file: " + what); }

bool read_at(int fd, char* out, size_t bytes, uint64_t offset) {
  return ::pread(fd, out, bytes, static_cast<off_t>(offset)) == static_cast<ssize_t>(bytes);
}

std::optional<Meta> read_meta(int fd, uint64_t offset) {
  char page[kPageHeader + 136];
  if (!read_at(fd, page, sizeof page, offset)) return std::nullopt;
  const char* meta = page + kPageHeader;
  if ((load<uint16_t>(page + 10) & kMeta) == 0 || load<uint32_t>(meta) != kMagic ||
      load<uint32_t>(meta + 4) != kVersion) {
    return std::nullopt;
  }
  return Meta{load<uint32_t>(meta + 24), Tree(meta + 24), Tree(meta + 72), load<uint64_t>(meta + 120),
              load<uint64_t>(meta + 128)};
}

// Returns the newer of the two meta pages, as LMDB would choose.
Result<Meta> newest_meta(int fd) {
  const std::optional<Meta> first = read_meta(fd, 0);
  if (!first) return damaged("the first page is not LMDB's");
  if (first->page_bytes < kMinPage || first->page_bytes > kMaxPage ||
      (first->page_bytes & (first->page_bytes - 1)) != 0) {
    return damaged(fmt::format("a page size of {}", first->page_bytes));
  }
  const std::optional<Meta> second = read_meta(fd, first->page_bytes);
  if (!second || second->page_bytes != first->page_bytes) return damaged("the second page is not LMDB's");
  return second->transaction > first->transaction ? *second : *first;
}

class Walk {
 public:
  Walk(int fd, const Meta& meta, uint64_t file_bytes)
      : fd_(fd), meta_(meta), pages_(file_bytes / meta.page_bytes), seen_(pages_, false) {}

  Result<void> tree(const Tree& tree) {
    if (tree.root == kNoPage) return {};
    if (tree.depth == 0 || tree.depth > kMaxDepth) return damaged(fmt::format("a tree of depth {}", tree.depth));
    return page(tree.root, tree.depth);
  }
  // The tree of free pages: its values are lists of page numbers, which LMDB will write to.
  Result<void> free_tree(const Tree& free) {
    holds_free_pages_ = true;
    Result<void> sound = tree(free);
    holds_free_pages_ = false;
    return sound;
  }

 private:
  Result<void> claim(uint64_t number, uint64_t count) {
    if (number < 2 || number > meta_.last_page || number >= pages_ || count == 0 || count > pages_ - number) {
      return damaged(fmt::format("page {} (and {} on) of {} pages; the file seems cut off", number, count - 1, pages_));
    }
    for (uint64_t i = number; i < number + count; ++i) {
      if (seen_[i]) return damaged(fmt::format("page {} is used twice", i));
      seen_[i] = true;
    }
    return {};
  }

  Result<void> page(uint64_t number, int height) {
    if (Result<void> claimed = claim(number, 1); !claimed) return claimed;
    std::vector<char> bytes(meta_.page_bytes);
    if (!read_at(fd_, bytes.data(), bytes.size(), number * meta_.page_bytes)) return damaged("a page cannot be read");
    const auto flags = load<uint16_t>(bytes.data() + 10);
    const size_t lower = load<uint16_t>(bytes.data() + 12), upper = load<uint16_t>(bytes.data() + 14);
    const uint16_t wanted = height > 1 ? kBranch : kLeaf;
    if (load<uint64_t>(bytes.data()) != number || (flags & (kBranch | kLeaf | kOverflow | kMeta)) != wanted ||
        lower < kPageHeader || lower > upper || upper > meta_.page_bytes) {
      return damaged(fmt::format("page {} is garbled", number));
    }
    if ((flags & kFixedLeaf) != 0) return {};  // keys of one size, without values
    for (size_t at = kPageHeader; at < lower; at += 2) {
      if (Result<void> sound = node(bytes, load<uint16_t>(bytes.data() + at), number, height); !sound) return sound;
    }
    return {};
  }

  Result<void> node(const std::vector<char>& page_bytes, size_t at, uint64_t number, int height) {
    const auto garbled = [number] { return damaged(fmt::format("an entry of page {} is garbled", number)); };
    if (at < kPageHeader || at + kNodeHeader > page_bytes.size()) return garbled();
    const char* node = page_bytes.data() + at;
    const uint64_t low = load<uint16_t>(node), high = load<uint16_t>(node + 2);
    const auto flags = load<uint16_t>(node + 4);
    const size_t data_at = at + kNodeHeader + load<uint16_t>(node + 6);
    if (data_at > page_bytes.size()) return garbled();
    if (height > 1) return page(low | high << 16 | uint64_t{flags} << 32, height - 1);
    const uint64_t data_bytes = low | high << 16;
    const uint64_t in_page = (flags & kBigData) != 0 ? sizeof(uint64_t) : data_bytes;
    if (in_page > page_bytes.size() - data_at) return garbled();
    if ((flags & kBigData) != 0) return overflow(load<uint64_t>(page_bytes.data() + data_at), data_bytes);
    if (holds_free_pages_) return page_list(page_bytes.data() + data_at, data_bytes);
    if ((flags & kSubData) == 0) return {};
    return data_bytes == kTreeBytes ? tree(Tree(page_bytes.data() + data_at)) : Result<void>(garbled());
  }

  // A value on pages of its own. Only the first of these pages has a header.
  Result<void> overflow(uint64_t number, uint64_t bytes) {
    char header[kPageHeader];
    const uint64_t count = (kPageHeader + bytes + meta_.page_bytes - 1) / meta_.page_bytes;
    if (Result<void> claimed = claim(number, count); !claimed) return claimed;
    if (!read_at(fd_, header, sizeof header, number * meta_.page_bytes) || load<uint64_t>(header) != number ||
        (load<uint16_t>(header + 10) & kOverflow) == 0 || load<uint32_t>(header + 12) < count) {
      return damaged(fmt::format("overflow page {} is garbled", number));
    }
    if (!holds_free_pages_) return {};
    std::vector<char> list(bytes);
    if (!read_at(fd_, list.data(), bytes, number * meta_.page_bytes + kPageHeader))
      return damaged("a page cannot be read");
    return page_list(list.data(), bytes);
  }

  // A count, then that many page numbers, the largest first.
  Result<void> page_list(const char* list, uint64_t bytes) const {
    const uint64_t count = bytes < sizeof(uint64_t) ? UINT64_MAX : load<uint64_t>(list);
    bool sound = bytes >= sizeof(uint64_t) && count <= bytes / sizeof(uint64_t) - 1;
    uint64_t previous = meta_.last_page + 1;
    for (uint64_t i = 1; sound && i <= count; ++i) {
      const auto number = load<uint64_t>(list + i * sizeof(uint64_t));
      sound = number >= 2 && number < previous;
      previous = number;
    }
    return sound ? Result<void>() : Result<void>(damaged("a list of free pages is garbled"));
  }

  int fd_;
  const Meta& meta_;
  uint64_t pages_;
  std::vector<bool> seen_;
  bool holds_free_pages_ = false;
};

Result<void> walk(int fd, const Meta& meta) {
  struct stat file {};
  if (::fstat(fd, &file) != 0) return damaged("fstat failed");
  Walk walk(fd, meta, static_cast<uint64_t>(file.st_size));
  if (Result<void> sound = walk.free_tree(meta.free); !sound) return sound;
  return walk.tree(meta.main);
}

}  // namespace

Result<void> check(const std::string& directory) {
  const std::string path = directory + "/data.mdb";
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return errno == ENOENT ? Result<void>() : fail("lmdb: open " + path + ": " + std::strerror(errno));
  struct stat file {};
  if (::fstat(fd.get(), &file) == 0 && file.st_size == 0) return {};
  // A writer may reuse the pages of a transaction that is no longer the newest. Then our result says nothing, and we
  // check again.
  Result<void> outcome = damaged("unreadable");
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const Result<Meta> before = newest_meta(fd.get());
    outcome = before ? walk(fd.get(), *before) : Result<void>(before.error());
    if (outcome) return outcome;
    const Result<Meta> after = newest_meta(fd.get());
    if (before && after && before->transaction == after->transaction) return outcome;
    if (!before && !after) return outcome;
  }
  return outcome;
}

}  // namespace tidegate::lmdb
