// SPDX-License-Identifier: Apache-2.0
#include "cache/serve/owned_request.h"

#include <cstring>

#include "cache/policy/key.h"
#include "cache/policy/policy.h"

namespace tidegate::cache {
namespace {

size_t text_bytes(const RequestView& request) {
  size_t bytes = request.method.size() + request.scheme.size() + request.host.size() + request.path.size() +
                 request.query.size() + request.branch.size();
  for (const http1::Field& field : request.fields) bytes += field.name.size() + field.value.size();
  return bytes;
}

}  // namespace

OwnedRequest::OwnedRequest(const RequestView& request, const std::string* vary)
    : text_(new char[text_bytes(request) + 1]) {
  char* at = text_.get();
  const auto keep = [&at](std::string_view text) {
    if (!text.empty()) std::memcpy(at, text.data(), text.size());
    const std::string_view kept(at, text.size());
    at += text.size();
    return kept;
  };
  fields_.reserve(request.fields.size());
  for (const http1::Field& field : request.fields) {
    if (vary != nullptr && is_credential(field.name) && !is_nominated(*vary, field.name)) continue;
    const std::string_view name = keep(field.name);
    fields_.push_back({name, keep(field.value)});
  }
  view_.method = keep(request.method);
  view_.scheme = keep(request.scheme);
  view_.host = keep(request.host);
  view_.path = keep(request.path);
  view_.query = keep(request.query);
  view_.branch = keep(request.branch);
  view_.fields = fields_;
}

}  // namespace tidegate::cache
