// SPDX-License-Identifier: Apache-2.0
#include "control/api/auth.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "control/limits.h"
#include "core/log.h"

namespace tidegate {

namespace {

struct RoleName {
  Role role;
  const char* name;
};
constexpr RoleName kRoleNames[] = {
    {Role::viewer, "viewer"}, {Role::operator_, "operator"}, {Role::publisher, "publisher"},
    {Role::admin, "admin"},   {Role::replica, "replica"},
};

bool is_visible_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

constexpr std::string_view kUidPrefix = "uid:";

// A one-way hash: the records under it do not reveal the token.
std::string key_space_of(std::string_view token) {
  const Sha256 digest = hmac_sha256(token, "tidegate idempotency keys");
  return hex_encode({reinterpret_cast<const char*>(digest.data()), digest.size()});
}

// Returns the token of an Authorization field (RFC 6750 §2.1), or an empty view.
std::string_view bearer_token(const HttpRequest& request) {
  std::string_view value = request.header("authorization");
  constexpr std::string_view kScheme = "bearer ";
  if (value.size() <= kScheme.size() || !http1::equals_ignore_case(value.substr(0, kScheme.size()), kScheme)) return {};
  value.remove_prefix(kScheme.size());
  while (!value.empty() && value.front() == ' ') value.remove_prefix(1);
  return value;
}

}  // namespace

const char* name(Role role) {
  for (const RoleName& entry : kRoleNames) {
    if (entry.role == role) return entry.name;
  }
  return "anyone";
}

std::optional<Role> parse_role(std::string_view text) {
  for (const RoleName& entry : kRoleNames) {
    if (text == entry.name) return entry.role;
  }
  return std::nullopt;
}

bool allows(Role have, Role need) {
  if (need == Role::none || have == Role::admin || have == need) return true;
  if (have == Role::none) return false;
  if (have == Role::replica || need == Role::replica) return need == Role::viewer;
  return have > need;
}

Result<Tokens> Tokens::parse(std::string_view text, const std::string& file_name) {
  Tokens tokens;
  size_t line_number = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string line(text.substr(0, std::min(text.substr(0, end).find('#'), end)));
    text.remove_prefix(std::min(end + 1, text.size()));
    ++line_number;

    std::istringstream words(line);
    std::string role_name, token, principal_name, extra;
    if (!(words >> role_name)) continue;
    words >> token >> principal_name >> extra;
    const auto refuse = [&](std::string_view why) {
      return fail(fmt::format("{}:{}: {}; expected ROLE TOKEN [name]", file_name, line_number, why));
    };
    const std::optional<Role> role = parse_role(role_name);
    if (!role) return refuse("unknown role (viewer, operator, publisher, admin, replica)");
    if (token.size() < kMinTokenBytes) return refuse(fmt::format("a token has at least {} characters", kMinTokenBytes));
    if (!is_visible_ascii(token)) return refuse("a token is visible ASCII");
    if (!is_visible_ascii(principal_name)) return refuse("a name is visible ASCII");
    if (principal_name.starts_with(kUidPrefix)) return refuse("a name that begins with uid: is a user's");
    if (!extra.empty()) return refuse("more than three words");
    if (tokens.find(token)) return refuse("the same token stands further up");
    if (tokens.entries_.size() == kMaxTokens) return refuse(fmt::format("more than {} tokens", kMaxTokens));

    if (*role == Role::replica && tokens.replica_token_.empty()) tokens.replica_token_ = token;
    Principal principal{*role, principal_name.empty() ? role_name : principal_name, key_space_of(token), false};
    for (Entry& other : tokens.entries_) {
      if (other.principal.name != principal.name) continue;
      other.principal.shares_name = principal.shares_name = true;
    }
    tokens.entries_.push_back({sha256(token), std::move(principal)});
  }
  return tokens;
}

Result<Tokens> Tokens::load(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(fmt::format("cannot read the token file {}: {}", path, std::strerror(errno)));
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0 && (status.st_mode & S_IROTH) != 0) {
    log_warn("everybody on this host can read the token file {}: chmod 0600 it", path);
  }
  std::ostringstream text;
  text << file.rdbuf();
  return parse(text.str(), path);
}

const Principal* Tokens::find(std::string_view token) const {
  const Sha256 digest = sha256(token);
  const auto view = [](const Sha256& d) { return std::string_view(reinterpret_cast<const char*>(d.data()), d.size()); };
  for (const Entry& entry : entries_) {
    if (equal_constant_time(view(entry.digest), view(digest))) return &entry.principal;
  }
  return nullptr;
}

Result<Principal> Auth::identify(const HttpRequest& request) const {
  const std::string_view token = bearer_token(request);
  if (!token.empty()) {
    const Principal* principal = tokens_.find(token);
    if (!principal) return fail("the bearer token is not known here");
    return *principal;
  }
  if (request.peer) return fail("a bearer token is needed: Authorization: Bearer TOKEN");
  const bool trusted = request.peer_uid == 0 || request.peer_uid == own_uid_;
  const std::string user = fmt::format("{}{}", kUidPrefix, request.peer_uid);
  return Principal{trusted ? Role::admin : Role::viewer, user, user, false};
}

}  // namespace tidegate
