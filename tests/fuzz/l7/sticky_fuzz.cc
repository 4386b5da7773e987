// SPDX-License-Identifier: Apache-2.0
// Cookie fields and tokens of clients over any bytes. A cookie is found where a naive twin finds it. A token names a
// backend only if it is one that was made; what differs from it in any byte names none. Input: name of the cookie, line
// feed, field.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "conf/model.h"
#include "conf/model/pool.h"
#include "l7/exchange/sticky.h"

namespace {

using namespace tidegate;
using namespace tidegate::l7;

constexpr uint64_t kExpiryS = 1'000;

void need(bool holds) {
  if (!holds) std::abort();
}

std::shared_ptr<const Snapshot> make_pool() {
  auto model = std::make_shared<Model>();
  Pool pool;
  pool.name = "p";
  for (const char* name : {"a", "b", "c"}) {
    Backend backend;
    backend.name = name;
    backend.addresses = {*IpAddress::parse("192.0.2.1")};
    pool.backends.push_back(backend);
  }
  model->pools.push_back(pool);
  return make_snapshot(1, "d", model, std::make_shared<LiveState>());
}

std::string_view naive_cookie(std::string_view field, std::string_view name) {
  const std::string wanted = std::string(name) + "=";
  for (size_t begin = 0; begin < field.size(); ++begin) {
    const bool first = begin == 0 || field[begin - 1] == ';';
    if (!first) continue;
    const size_t at = field.find_first_not_of(' ', begin);
    if (at == std::string_view::npos || !field.substr(at).starts_with(wanted)) continue;
    const std::string_view value = field.substr(at + wanted.size());
    return value.substr(0, value.find(';'));
  }
  return {};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const HashKey key{1, 2};
  static RuntimeRegistry registry;
  static const std::shared_ptr<const Snapshot> snapshot = make_pool();
  static const BackendPool pool(*snapshot, 0, registry, key);
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t line = input.find('\n');
  if (line == 0 || line == std::string_view::npos) return 0;
  // As the configuration's names of cookies: tokens (RFC 6265 §4.1.1).
  const std::string_view name = input.substr(0, line), field = input.substr(line + 1);
  if (!http1::is_token(name)) return 0;
  const std::string_view value = cookie_of(field, name);
  need(value == naive_cookie(field, name));

  need(sticky_member(key, pool, value, 0) == nullptr);  // nobody has made it
  const PoolMember& member = pool.members()[size % pool.members().size()];
  const std::string token = sticky_token(key, pool, member, kExpiryS);
  need(sticky_member(key, pool, token, kExpiryS - 1) == &member);
  std::string changed = token;
  for (size_t i = 0; i < field.size() && i < changed.size(); ++i) changed[i] ^= field[i];
  need((sticky_member(key, pool, changed, 0) == nullptr) == (changed != token));
  return 0;
}
