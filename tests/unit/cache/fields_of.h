// SPDX-License-Identifier: Apache-2.0
// Test fields that own their text, and requests and responses made from them.
#pragma once

#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "cache/message.h"

namespace tidegate::cache::testing {

class FieldList {
 public:
  FieldList(std::initializer_list<std::pair<std::string, std::string>> lines = {}) : lines_(lines) { index(); }
  FieldList(const FieldList& other) : lines_(other.lines_) { index(); }
  FieldList& operator=(const FieldList& other) {
    lines_ = other.lines_;
    index();
    return *this;
  }
  void add(std::string name, std::string value) {
    lines_.emplace_back(std::move(name), std::move(value));
    index();
  }
  operator Fields() const { return fields_; }  // NOLINT(google-explicit-constructor)

 private:
  void index() {
    fields_.clear();
    for (const auto& [name, value] : lines_) fields_.push_back({name, value});
  }
  std::vector<std::pair<std::string, std::string>> lines_;
  std::vector<http1::Field> fields_;
};

// Borrows its arguments.
inline RequestView get(std::string_view path, Fields fields = {}, std::string_view method = "GET") {
  RequestView request;
  request.method = method;
  request.scheme = "https";
  request.host = "www.example.test";
  request.path = path;
  request.fields = fields;
  return request;
}

}  // namespace tidegate::cache::testing
