// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/made_schema.h"

#include <google/protobuf/any.pb.h>
#include <google/protobuf/compiler/parser.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/timestamp.pb.h>
#include <google/protobuf/wrappers.pb.h>

namespace tidegate::test {
namespace {

namespace pb = google::protobuf;

class AnyError final : public pb::io::ErrorCollector {
 public:
  void AddError(int, int, const std::string&) override { seen = true; }
  bool seen = false;
};

}  // namespace

std::string made_schema(std::string_view text, bool alone) {
  pb::io::ArrayInputStream in(text.data(), static_cast<int>(text.size()));
  AnyError error;
  pb::io::Tokenizer tokens(&in, &error);
  pb::compiler::Parser parser;
  pb::FileDescriptorSet set;
  pb::FileDescriptorProto file;
  file.set_name("made.proto");
  if (!parser.Parse(&tokens, &file) || error.seen) return {};
  for (int i = 0; i < file.dependency_size() && !alone; ++i) {
    for (const pb::FileDescriptor* known :
         {pb::Any::descriptor()->file(), pb::Struct::descriptor()->file(), pb::Timestamp::descriptor()->file(),
          pb::Int32Value::descriptor()->file()}) {
      if (known->name() == file.dependency(i)) known->CopyTo(set.add_file());
    }
  }
  *set.add_file() = file;
  return set.SerializeAsString();
}

}  // namespace tidegate::test
