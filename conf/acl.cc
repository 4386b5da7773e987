// SPDX-License-Identifier: Apache-2.0
#include "conf/acl.h"

#include <fmt/format.h>

#include <algorithm>
#include <list>
#include <mutex>
#include <string_view>
#include <utility>

#include "conf/limits.h"
#include "core/assert.h"

namespace tidegate {
namespace {

std::string_view trimmed_acl_line(std::string_view line) {
  constexpr std::string_view kBlanks = " \t\r";
  line = line.substr(0, line.find('#'));
  const size_t begin = line.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return line.substr(begin, line.find_last_not_of(kBlanks) + 1 - begin);
}

std::string why_no_network(std::string_view text) {
  constexpr size_t kShownBytes = 60;
  const size_t slash = text.find('/');
  const bool has_host_bits = slash != std::string_view::npos && IpAddress::parse(text.substr(0, slash)) &&
                             text.find_first_not_of("0123456789", slash + 1) == std::string_view::npos;
  return fmt::format("'{}' {}", text.substr(0, kShownBytes),
                     has_host_bits ? "has bits set after its prefix, or too long a prefix" : "is no network");
}

std::shared_ptr<const AclFile> parse_acl_file(std::string_view text) {
  auto file = std::make_shared<AclFile>();
  uint32_t number = 0;
  while (!text.empty()) {
    ++number;
    const size_t end = text.find('\n');
    const std::string_view line = trimmed_acl_line(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.empty()) continue;
    const std::optional<Cidr> network = Cidr::parse(line);
    if (!network) {
      file->fault = AclFileFault{number, why_no_network(line)};
      break;
    }
    if (file->networks.size() == kMaxAclNetworks) {
      file->fault = AclFileFault{number, fmt::format("more than {} networks", kMaxAclNetworks)};
      break;
    }
    file->networks.push_back(*network);
  }
  file->networks.shrink_to_fit();
  return file;
}

// The most recently requested files, as many as one version may have.
class AclFiles {
 public:
  std::shared_ptr<const AclFile> find(const std::string& hash) {
    const std::lock_guard lock(mutex_);
    const auto known = std::find_if(files_.begin(), files_.end(), [&](const auto& each) { return each.first == hash; });
    if (known == files_.end()) return nullptr;
    files_.splice(files_.begin(), files_, known);
    return known->second;
  }

  void keep(const std::string& hash, std::shared_ptr<const AclFile> file) {
    const std::lock_guard lock(mutex_);
    networks_ += file->networks.size();
    files_.emplace_front(hash, std::move(file));
    while (files_.size() > kMaxAcls || networks_ > kMaxNetworksOfAcls) {
      networks_ -= files_.back().second->networks.size();
      files_.pop_back();
    }
  }

 private:
  std::mutex mutex_;
  std::list<std::pair<std::string, std::shared_ptr<const AclFile>>> files_;  // the most recently requested one first
  size_t networks_ = 0;                                                      // in all of them
};

}  // namespace

std::shared_ptr<const AclFile> read_acl_file(const Blob& file) {
  static AclFiles files;
  if (std::shared_ptr<const AclFile> known = files.find(file.hash)) return known;
  std::shared_ptr<const AclFile> read = parse_acl_file(*file.bytes);
  files.keep(file.hash, read);
  return read;
}

std::vector<Cidr> networks_of(const Acl& acl) {
  std::vector<Cidr> networks = acl.networks;
  if (acl.file.bytes == nullptr) return networks;
  const std::shared_ptr<const AclFile> file = read_acl_file(acl.file);
  TIDEGATE_ASSERT(!file->fault, "the file of a valid list was checked with the document");
  networks.insert(networks.end(), file->networks.begin(), file->networks.end());
  return networks;
}

}  // namespace tidegate
