// SPDX-License-Identifier: Apache-2.0
// A copy of a request that outlives the buffer it was parsed from.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cache/message.h"

namespace tidegate::cache {

class OwnedRequest {
 public:
  explicit OwnedRequest(const RequestView& request) : OwnedRequest(request, nullptr) {}
  // With `vary`: without credentials (policy.h), except those that `vary` names (as in StoredHead::vary).
  OwnedRequest(const RequestView& request, const std::string* vary);
  OwnedRequest(OwnedRequest&&) = default;
  OwnedRequest& operator=(OwnedRequest&&) = default;
  const RequestView& view() const { return view_; }

 private:
  std::unique_ptr<char[]> text_;
  std::vector<http1::Field> fields_;
  RequestView view_;
};

}  // namespace tidegate::cache
