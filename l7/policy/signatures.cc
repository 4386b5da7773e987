// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/signatures.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "core/crypto.h"
#include "l7/limits.h"
#include "l7/policy/names.h"

namespace tidegate::l7::policy {
namespace {

// Reads the text of a field from its beginning.
class Reader {
 public:
  explicit Reader(std::string_view text) : rest_(text) {}
  bool at_end() const { return rest_.empty(); }
  bool next_is(char c) const { return !rest_.empty() && rest_.front() == c; }
  bool take(char c) {
    if (!next_is(c)) return false;
    rest_.remove_prefix(1);
    return true;
  }
  // RFC 8941 §3.1.2: a key. Empty if there is none.
  std::string_view key() {
    const auto is_key = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.' || c == '*';
    };
    return take_while(is_key);
  }
  // A string without escapes (§3.3.3). Nothing if it is not such a string.
  std::optional<std::string_view> text() {
    if (!take('"')) return std::nullopt;
    const std::string_view inside = take_while([](char c) { return c >= ' ' && c < '\x7f' && c != '"' && c != '\\'; });
    return take('"') ? std::optional(inside) : std::nullopt;
  }
  // An integer that is not negative, at most 15 digits (§3.3.1).
  std::optional<uint64_t> integer() {
    const std::string_view digits = take_while([](char c) { return c >= '0' && c <= '9'; });
    uint64_t value = 0;
    if (digits.empty() || digits.size() > 15) return std::nullopt;
    std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return value;
  }
  std::string_view rest() const { return rest_; }

 private:
  template <class Is>
  std::string_view take_while(Is is) {
    const auto end = std::find_if_not(rest_.begin(), rest_.end(), is);
    const std::string_view taken = rest_.substr(0, static_cast<size_t>(end - rest_.begin()));
    rest_.remove_prefix(taken.size());
    return taken;
  }
  std::string_view rest_;
};

// The only field of that name. Null if there is none, or several.
const Field* only(const RequestHead& request, std::string_view lower) {
  const Field* found = nullptr;
  for (const Field& field : request.fields) {
    if (field.name != lower) continue;
    if (found != nullptr) return nullptr;
    found = &field;
  }
  return found;
}

void append(fmt::memory_buffer& out, std::string_view text) { out.append(text.data(), text.data() + text.size()); }

// RFC 9421 §2.2.3: in lower case, without the usual port.
void append_authority(fmt::memory_buffer& out, const RequestHead& request, std::string_view scheme) {
  std::string_view authority = request.authority;
  const std::string_view usual = scheme == "https" ? ":443" : ":80";
  if (authority.ends_with(usual)) authority.remove_suffix(usual.size());
  for (const char c : authority) out.push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c);
}

// §2.1: the values of all its lines, joined by ", ".
bool append_field(fmt::memory_buffer& out, const RequestHead& request, std::string_view lower) {
  bool found = false;
  if (lower == "host") {
    append(out, request.authority);
    return !request.authority.empty();
  }
  for (const Field& field : request.fields) {
    if (field.name != lower) continue;
    if (found) append(out, ", ");
    append(out, field.value);
    found = true;
  }
  return found;
}

// The value of a component (§2). Returns false if the request has none.
bool append_component(fmt::memory_buffer& out, const RequestHead& request, std::string_view scheme,
                      std::string_view component) {
  const std::string_view path = request.path.empty() ? std::string_view("/") : request.path;
  if (component == "@method") {
    append(out, request.method);
  } else if (component == "@authority") {
    append_authority(out, request, scheme);
  } else if (component == "@scheme") {
    append(out, scheme);
  } else if (component == "@path") {
    append(out, path);
  } else if (component == "@query") {
    out.push_back('?');
    append(out, request.query);
  } else if (component == "@target-uri") {
    append(out, scheme);
    append(out, "://");
    append_authority(out, request, scheme);
    append(out, path);
    if (request.has_query) out.push_back('?');
    append(out, request.query);
  } else {
    return !component.starts_with('@') && append_field(out, request, component);
  }
  return true;
}

std::shared_ptr<SeenSignatures> seen_of(const SignatureRules& rules, Compiling& out, TableMemories& memories) {
  const std::string key = fmt::format("{}/signatures/{}", out.policy, rules.remembered);
  return out.registry.get<SeenSignatures>(key, memories, key, rules.remembered);
}

}  // namespace

// What Signature-Input says.
struct SignatureVerifier::Input {
  std::string_view label;
  std::string_view value;  // without the label: the text of @signature-params
  std::array<std::string_view, kSignatureComponents> components;
  size_t count = 0;
  std::optional<uint64_t> created, expires;
  std::string_view nonce, key_id, algorithm;

  bool covers(std::string_view component) const {
    const auto end = components.begin() + static_cast<ptrdiff_t>(count);
    return std::find(components.begin(), end, component) != end;
  }
  bool read(std::string_view text) {
    Reader in(text);
    label = in.key();
    if (label.empty() || !in.take('=')) return false;
    value = in.rest();
    return read_components(in) && read_parameters(in) && created && !key_id.empty();
  }
  bool read_components(Reader& in) {
    if (!in.take('(')) return false;
    while (!in.next_is(')')) {
      if (count > 0 && !in.take(' ')) return false;
      const std::optional<std::string_view> component = in.text();
      if (!component || component->empty() || count == components.size() || covers(*component)) return false;
      components[count++] = *component;
    }
    return in.take(')');
  }
  bool read_parameters(Reader& in) {
    while (!in.at_end()) {
      if (!in.take(';')) return false;
      const std::string_view key = in.key();
      if (!in.take('=')) return false;
      if (key == "created" || key == "expires") {
        std::optional<uint64_t>& moment = key == "created" ? created : expires;
        if (moment) return false;
        moment = in.integer();
        if (!moment) return false;
        continue;
      }
      const std::optional<std::string_view> text = in.text();
      std::string_view ignored;
      std::string_view* const to = key == "nonce"   ? &nonce
                                   : key == "keyid" ? &key_id
                                   : key == "alg"   ? &algorithm
                                   : key == "tag"   ? &ignored
                                                    : nullptr;
      if (!text || text->empty() || to == nullptr || !to->empty()) return false;
      *to = *text;
    }
    return true;
  }
};

const char* name(SignatureFault fault) {
  constexpr const char* kNames[] = {"",
                                    "signature_malformed",
                                    "signature_covers_too_little",
                                    "signature_missing_component",
                                    "signature_algorithm",
                                    "signature_no_key",
                                    "signature_too_old",
                                    "signature_too_early",
                                    "signature_wrong",
                                    "signature_replayed",
                                    "signature_memory_full"};
  return kNames[static_cast<size_t>(fault)];
}

SignatureVerifier::SignatureVerifier(const SignatureRules& rules, std::shared_ptr<const Signers> signers,
                                     Compiling& out)
    : rules_(rules),
      signers_(std::move(signers)),
      memories_(out.registry.get<TableMemories>(TableMemories::kRegistryKey)),
      seen_(seen_of(rules, out, *memories_)) {}

SignatureFault SignatureVerifier::verify(const RequestHead& request, std::string_view scheme, uint64_t now_s,
                                         Arena& arena, const Known*& who) const {
  const Field* const input_field = only(request, "signature-input");
  const Field* const signature_field = only(request, "signature");
  if (input_field == nullptr || signature_field == nullptr) return SignatureFault::malformed;
  Input input;
  if (!input.read(input_field->value)) return SignatureFault::malformed;
  Reader in(signature_field->value);
  if (in.key() != input.label || !in.take('=') || !in.take(':')) return SignatureFault::malformed;
  std::string_view encoded = in.rest();
  if (!encoded.ends_with(':')) return SignatureFault::malformed;
  encoded.remove_suffix(1);
  const std::optional<std::string_view> shown = decode_base64(encoded, arena);
  if (!shown) return SignatureFault::malformed;
  if (!input.algorithm.empty() && input.algorithm != "hmac-sha256") return SignatureFault::algorithm;
  if (!covers_enough(input)) return SignatureFault::covers_too_little;
  const auto key = signers_->find(input.key_id);
  if (key == signers_->end()) return SignatureFault::no_key;
  if (const SignatureFault fault = check_time(input, now_s); fault != SignatureFault::none) return fault;

  // §2.5: the signature base.
  fmt::memory_buffer base;
  for (size_t i = 0; i < input.count; ++i) {
    base.push_back('"');
    append(base, input.components[i]);
    append(base, "\": ");
    if (!append_component(base, request, scheme, input.components[i])) return SignatureFault::missing_component;
    base.push_back('\n');
  }
  append(base, "\"@signature-params\": ");
  append(base, input.value);
  const bool good = std::any_of(key->second.secrets.begin(), key->second.secrets.end(), [&](const std::string& secret) {
    const Sha256 wanted = hmac_sha256(secret, {base.data(), base.size()});
    return equal_constant_time(*shown, {reinterpret_cast<const char*>(wanted.data()), wanted.size()});
  });
  if (!good) return SignatureFault::wrong;

  // A repeated request has the same signature, which nobody else can make.
  const uint64_t until_s = *input.created + rules_.max_age_s + rules_.skew_s;
  switch (seen_->add(*shown, until_s, now_s)) {
    case SeenSignatures::Answer::fresh:
      break;
    case SeenSignatures::Answer::seen:
      return SignatureFault::replayed;
    case SeenSignatures::Answer::full:
      return SignatureFault::memory_full;
  }
  who = &key->second.known;
  return SignatureFault::none;
}

SignatureFault SignatureVerifier::check_time(const Input& input, uint64_t now_s) const {
  if (*input.created > now_s + rules_.skew_s) return SignatureFault::too_early;
  if (now_s >= *input.created + rules_.max_age_s + rules_.skew_s) return SignatureFault::too_old;
  if (input.expires && now_s >= *input.expires + rules_.skew_s) return SignatureFault::too_old;
  return SignatureFault::none;
}

bool SignatureVerifier::covers_enough(const Input& input) const {
  constexpr std::string_view kParts[] = {"@scheme", "@authority", "@path", "@query"};
  return std::all_of(rules_.covers.begin(), rules_.covers.end(), [&](const std::string& wanted) {
    if (input.covers(wanted)) return true;
    const bool part = std::find(std::begin(kParts), std::end(kParts), wanted) != std::end(kParts);
    return part && input.covers("@target-uri");
  });
}

}  // namespace tidegate::l7::policy
