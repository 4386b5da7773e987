// SPDX-License-Identifier: Apache-2.0
// The compress policy (conf/policy/compress.h). It changes only the answer's head: it chooses a coding and sets the
// fields for it. The transaction then compresses the content on its way to this client (transaction_coding.cc).
//
// It acts after the cache, for each client: the cache keeps the answer as the backend sent it, so ranges, ETags and
// revalidation are those of the backend's representation. The cache also keeps the compressed form for the next client
// (Transaction::take_stored_coding), so a hit is compressed only once for each coding. Not compressed are: answers of
// the proxy itself, parts (206), and answers with a coding, with no-transform, or with a digest of their bytes.
//
//   ETag    a strong one becomes weak (RFC 9110 §8.8.3): the bytes differ, the meaning does not. A suffix would keep it
//           strong, but then the suffix would have to be removed from If-None-Match before the cache and backends see
//           it. A weak one is compared as it is (§13.1.2). A 304 to a client that shows the weak one has the weak one.
//   Vary    Accept-Encoding, on every answer that could have been compressed (§12.5.5), and on 206 and 304 of it
//   BREACH  an answer to a request that shows who the client is, or that `authenticate` has let in, is left as it is,
//           unless it is `public`
//
// A request without a client (a revalidation) has no answer to compress.
// Runtime: CodingCounts, by policy.
#include "l7/policy/compress.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cache/policy/fields.h"
#include "conf/model/policy.h"
#include "l7/exchange/exchange.h"
#include "l7/policy/accept_encoding.h"
#include "l7/policy/kinds.h"
#include "l7/wire/arena.h"

namespace tidegate::l7::policy {
namespace {

constexpr const char* kCompressKind = "compress";
constexpr std::string_view kVary = "Accept-Encoding";

// Whether the list that all fields of that name form has an element.
bool lists(const FieldList& fields, std::string_view lower_name, std::string_view element) {
  bool found = false;
  for (const Field& field : fields) {
    if (field.name != lower_name) continue;
    http1::for_each_element(field.value,
                            [&](std::string_view each) { found |= http1::equals_ignore_case(each, element); });
  }
  return found;
}

// A digest of the bytes as they are sent or represented. Another coding would make it wrong (RFC 9530).
bool has_digest(const FieldList& fields) {
  constexpr std::string_view kDigests[] = {"content-digest", "repr-digest", "digest", "content-md5"};
  return std::any_of(std::begin(kDigests), std::end(kDigests),
                     [&](std::string_view name) { return fields.find(name) != nullptr; });
}

bool has_coding(const FieldList& fields) {
  const Field* const field = fields.find("content-encoding");
  return field != nullptr && !http1::equals_ignore_case(field->value, "identity");
}

bool shows_who(const RequestHead& request, std::string_view identity) {
  return !identity.empty() || request.fields.find("authorization") != nullptr;
}

// Whether a policy has admitted the request because of its sender. A forward service need not name the sender, and the
// credentials may be removed from the request by now.
bool was_let_in(const PolicyUse& use) {
  for (size_t i = 0; i < use.chain->rules.size(); ++i) {
    if (use.chain->rules[i]->stage != Stage::authenticate) continue;
    if (use.notes[i].verdict == RuleVerdict::passed || use.notes[i].verdict == RuleVerdict::waited) return true;
  }
  return false;
}

void add_vary(FieldList& fields) {
  if (lists(fields, "vary", kVary) || lists(fields, "vary", "*")) return;
  fields.add_own("Vary", "vary", kVary, FieldKind::other);
}

// Makes a strong ETag weak.
void weaken_etag(FieldList& fields, Arena& arena) {
  const Field* const field = fields.find("etag");
  if (field == nullptr || !field->value.starts_with('"')) return;
  char* const weak = arena.allocate(field->value.size() + 2);
  std::copy_n("W/", 2, weak);
  std::copy(field->value.begin(), field->value.end(), weak + 2);
  const std::string_view text(weak, field->value.size() + 2);
  fields.remove_named("etag");
  fields.add_own("ETag", "etag", text, FieldKind::other);
}

// Whether the client shows the weak form of a strong ETag. Then it has a compressed answer.
bool shows_weak_form(const FieldList& request_fields, std::string_view etag) {
  bool found = false;
  for (const Field& field : request_fields) {
    if (field.name != "if-none-match") continue;
    http1::for_each_element(field.value,
                            [&](std::string_view each) { found |= each.starts_with("W/") && each.substr(2) == etag; });
  }
  return found;
}

class CompressRule final : public Rule {
 public:
  CompressRule(const CompressPolicy& compress, Compiling& out)
      : Rule(Stage::compress, out.policy, kCompressKind, out.registry),
        minimum_(compress.minimum),
        store_(compress.store),
        preference_(compress.preference()),
        types_(compress.media_types()),
        coding_counts_(out.registry.get<CodingCounts>(fmt::format("{}/{}/codings", out.policy, kCompressKind))) {}

  RuleDecision on_request(Exchange&, Arena&, Note&, uint64_t) const override { return {RuleVerdict::none}; }

  void on_answer(Exchange& exchange, Arena& arena, const Note&) const override {
    if (!exchange.coding.offered || exchange.grpc) return;
    FieldList& fields = exchange.response.fields;
    const uint16_t status = exchange.response.status;
    if (status == 304) return answer_not_modified(exchange, arena);
    const Field* const type = fields.find("content-type");
    if (status < 200 || status == 204 || status == 205 || type == nullptr || !takes(type->value)) return;
    if (status == 206) return add_vary(fields);
    const std::optional<Left> left = why_left(exchange);
    if (!left || *left == Left::not_asked || *left == Left::no_room) add_vary(fields);
    if (left) return coding_counts_->left[static_cast<size_t>(*left)].add();
    const Coding coding = choose_coding(exchange.request.fields, preference_);
    exchange.coding.chosen = coding;
    exchange.coding.counts = coding_counts_.get();
    exchange.coding.store = store_;
    coding_counts_->answers[static_cast<size_t>(coding)].add();
    fields.remove_named("content-encoding");
    fields.add_own("Content-Encoding", "content-encoding", name(coding), FieldKind::other);
    fields.remove_named("accept-ranges");  // ranges would be parts of the uncompressed answer
    weaken_etag(fields, arena);
  }

  void explain(const Subject& subject, uint64_t, nlohmann::json& out) const override {
    for (const Coding coding : preference_) out["codings"].push_back(name(coding));
    out["types"] = types_;
    out["minimum"] = minimum_;
    out["store"] = store_;
    out["coding"] = name(choose_coding(subject.request.fields, preference_));
    if (shows_who(subject.request, subject.identity)) out["only_if"] = "the answer is public";
  }

  void add_samples(std::vector<Sample>& out) const override {
    for (size_t i = 1; i < kCodings; ++i) {
      out.push_back({"tidegate_l7_compress_answers_total", "counter", "Answers that a policy had compressed",
                     coding_counts_->answers[i].value(), "coding", kCodingNames[i]});
      out.push_back({"tidegate_l7_compress_bytes_in_total", "counter", "Bytes of their content before",
                     coding_counts_->bytes_in[i].value(), "coding", kCodingNames[i]});
      out.push_back({"tidegate_l7_compress_bytes_out_total", "counter", "Bytes of their content after",
                     coding_counts_->bytes_out[i].value(), "coding", kCodingNames[i]});
    }
    for (size_t i = 0; i < static_cast<size_t>(Left::count_); ++i) {
      out.push_back({"tidegate_l7_compress_left_total", "counter",
                     "Answers of a policy's media types that were left as they are, and why",
                     coding_counts_->left[i].value(), "reason", name(static_cast<Left>(i))});
    }
  }

 private:
  bool takes(std::string_view content_type) const {
    return std::any_of(types_.begin(), types_.end(),
                       [&](const std::string& pattern) { return takes_type(pattern, content_type); });
  }
  // Nothing if it must be compressed. Reasons that depend only on the answer come first, because such answers do not
  // vary.
  std::optional<Left> why_left(const Exchange& exchange) const {
    const FieldList& fields = exchange.response.fields;
    if (has_coding(fields) || has_digest(fields)) return Left::coded;
    if (lists(fields, "cache-control", "no-transform")) return Left::no_transform;
    if (exchange.coding.length && *exchange.coding.length < std::max<uint64_t>(1, minimum_)) return Left::small;
    const bool of_somebody =
        shows_who(exchange.request, exchange.policies.identity.name) || was_let_in(exchange.policies);
    if (of_somebody && !lists(fields, "cache-control", "public")) return Left::authenticated;
    const bool wants_it_as_it_is =
        lists(exchange.request.fields, "cache-control", "no-transform");  // RFC 9111 §5.2.1.6
    if (wants_it_as_it_is || choose_coding(exchange.request.fields, preference_) == Coding::identity) {
      return Left::not_asked;
    }
    if (!exchange.coding.room) return Left::no_room;
    return std::nullopt;
  }
  // RFC 9110 §15.4.5: a 304 has the Vary and the ETag that the 200 would have.
  static void answer_not_modified(Exchange& exchange, Arena& arena) {
    FieldList& fields = exchange.response.fields;
    add_vary(fields);
    const Field* const etag = fields.find("etag");
    if (etag != nullptr && shows_weak_form(exchange.request.fields, etag->value)) weaken_etag(fields, arena);
  }

  const uint64_t minimum_;
  const bool store_;
  const std::vector<Coding> preference_;
  const std::vector<std::string> types_;
  const std::shared_ptr<CodingCounts> coding_counts_;
};

}  // namespace

void compile_compress(const Policy& policy, Compiling& out) {
  out.rules.push_back(std::make_unique<CompressRule>(*policy.part<CompressPolicy>(kCompressKind), out));
}

}  // namespace tidegate::l7::policy
