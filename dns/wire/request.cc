// SPDX-License-Identifier: Apache-2.0
#include "dns/wire/request.h"

namespace tidegate::dns {
namespace {

constexpr size_t kRrFixedBytes = 10;  // type, class, TTL, RDLENGTH

std::optional<QueryOutcome> parse_additional(std::span<const uint8_t> message, Request& request) {
  size_t at = request.question_end != 0 ? request.question_end : kHeaderBytes;
  for (uint16_t i = load_u16(&message[header::kAdditionals]); i > 0; --i) {
    const size_t owner_at = at;
    at = detail::skip_name(message, at);
    if (at == SIZE_MAX || message.size() - at < kRrFixedBytes) return QueryOutcome::bad_record;
    const uint16_t type = load_u16(&message[at]);
    const uint16_t klass = load_u16(&message[at + 2]);
    const uint32_t ttl = load_u32(&message[at + 4]);
    const size_t rdata_bytes = load_u16(&message[at + 8]);
    at += kRrFixedBytes;
    if (message.size() - at < rdata_bytes) return QueryOutcome::bad_record;
    const auto rdata = message.subspan(at, rdata_bytes);
    at += rdata_bytes;
    if (type != rrtype::kOpt) continue;  // a signature with an unknown key, or noise
    if (request.has_edns || message[owner_at] != 0) return QueryOutcome::bad_edns;  // RFC 6891 §6.1.1
    request.has_edns = true;
    if (const auto fault = parse_opt(klass, ttl, rdata, request.edns)) return fault;
  }
  if (at != message.size()) return QueryOutcome::bad_record;
  return std::nullopt;
}

// RFC 7873 §5.4: a message without a question may ask for a server cookie.
QueryOutcome parse_questionless(std::span<const uint8_t> message, Request& request) {
  if (const auto fault = parse_additional(message, request)) return *fault;
  if (!request.has_edns || !request.edns.has_cookie) return QueryOutcome::bad_count;
  return request.edns.version != 0 ? QueryOutcome::edns_version : QueryOutcome::only_cookie;
}

}  // namespace

std::optional<QueryOutcome> parse_request(std::span<const uint8_t> message, Request& request) {
  request.message = message;
  if (message.size() < kHeaderBytes) return QueryOutcome::bad_short;
  request.flags = load_u16(&message[header::kFlags]);
  if ((request.flags & header::kResponse) != 0) return QueryOutcome::bad_response;
  if (request.opcode() != 0) return QueryOutcome::opcode;
  const uint16_t questions = load_u16(&message[header::kQuestions]);
  const bool no_records = load_u32(&message[header::kAnswers]) == 0;  // answers and authorities
  if (questions == 0 && no_records) return parse_questionless(message, request);
  if (questions != 1 || !no_records) return QueryOutcome::bad_count;
  if (!request.name.parse(message.subspan(kHeaderBytes))) return QueryOutcome::bad_question;
  const size_t name_end = kHeaderBytes + request.name.bytes();
  if (message.size() < name_end + 4) return QueryOutcome::bad_question;
  request.type = load_u16(&message[name_end]);
  request.klass = load_u16(&message[name_end + 2]);
  request.question_end = name_end + 4;
  if (auto fault = parse_additional(message, request)) return fault;
  if (request.has_edns && request.edns.version != 0) return QueryOutcome::edns_version;
  if (request.klass != kClassIn) return QueryOutcome::klass;
  switch (request.type) {
    case 0:
    case rrtype::kOpt:
    case rrtype::kTkey:
    case rrtype::kTsig:
      return QueryOutcome::bad_question;
    case rrtype::kIxfr:
    case rrtype::kAxfr:
      return QueryOutcome::transfer;
    default:
      return std::nullopt;
  }
}

size_t write_query(std::span<uint8_t> out, std::span<const uint8_t> wire_name, uint16_t type) {
  std::memset(out.data(), 0, kHeaderBytes);
  store_u16(&out[header::kQuestions], 1);
  std::memcpy(&out[kHeaderBytes], wire_name.data(), wire_name.size());
  const size_t name_end = kHeaderBytes + wire_name.size();
  store_u16(&out[name_end], type);
  store_u16(&out[name_end + 2], kClassIn);
  return name_end + 4;
}

}  // namespace tidegate::dns
