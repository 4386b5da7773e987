// SPDX-License-Identifier: Apache-2.0
#include "core/protobuf.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/dynamic_message.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/stubs/common.h>
#include <google/protobuf/stubs/logging.h>
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/type_resolver.h>
#include <google/protobuf/util/type_resolver_util.h>

#include <algorithm>
#include <exception>
#include <map>
#include <set>
#include <utility>

#include "core/limits.h"
#include "core/mutex.h"

namespace tidegate {
namespace {

namespace pb = google::protobuf;

constexpr const char* kUrlPrefix = "type.googleapis.com";
// The bytes that libprotobuf may write beyond a bound, because it asks for room in advance.
constexpr size_t kAhead = 64;

// libprotobuf writes to stderr what it finds wrong with bytes. Clients could fill a disk with that.
void silence_library() { static const pb::LogSilencer silent; }

class FirstError final : public pb::DescriptorPool::ErrorCollector {
 public:
  void AddError(const std::string& file, const std::string& element, const pb::Message*, ErrorLocation,
                const std::string& message) override {
    if (text.empty())
      text = element.empty() || element == file ? file + ": " + message : file + ": " + element + ": " + message;
  }
  std::string text;
};

// Writes into a string, up to a bound.
class BoundedOutput final : public pb::io::ZeroCopyOutputStream {
 public:
  BoundedOutput(std::string& out, size_t most) : out_(out), room_(most + kAhead) {}

  bool Next(void** data, int* size) override {
    constexpr size_t kLeast = 256, kMost = 64 * 1024;
    const size_t before = out_.size();
    const size_t more = std::min(std::clamp(before, kLeast, kMost), room_ - before);
    if (more == 0) {
      full_ = true;
      return false;
    }
    out_.resize(before + more);
    *data = out_.data() + before;
    *size = static_cast<int>(more);
    return true;
  }
  void BackUp(int count) override { out_.resize(out_.size() - static_cast<size_t>(count)); }
  int64_t ByteCount() const override { return static_cast<int64_t>(out_.size()); }
  bool exceeds(size_t most) const { return full_ || out_.size() > most; }

 private:
  std::string& out_;
  const size_t room_;
  bool full_ = false;
};

// Scanner: checks that all fields are complete, also in inner messages and groups, and not nested too deeply.
// libprotobuf's converter accepts some fields that are cut off, and counts the depth from zero in each
// google.protobuf.Any.
//
// libprotobuf converts the bytes of an Any in their order. If a field is written in several places, the JSON object
// would have its member several times. So within an Any each field must be written in one place, as a serializer does.
class Scanner {
 public:
  struct Shared {
    const pb::DescriptorPool& pool;
    pb::DynamicMessageFactory& factory;
    size_t room;  // how many more fields and packed values there may be
  };
  Scanner(std::string_view bytes, Shared& shared, bool in_any = false)
      : rest_(bytes), shared_(shared), in_any_(in_any) {}

  // `type`: null if nothing is known of these fields. `group`: the field whose group this is; 0: none.
  bool scan(const pb::Descriptor* type, uint64_t group, int depth) {
    if (depth > kProtobufDepth) return false;
    const bool is_any = type != nullptr && type->well_known_type() == pb::Descriptor::WELLKNOWNTYPE_ANY;
    Order order(in_any_ ? type : nullptr);
    while (!rest_.empty()) {
      uint64_t tag = 0;
      if (!read_varint(tag) || tag >> 32 != 0 || tag >> 3 == 0) return false;
      const uint64_t number = tag >> 3;
      if ((tag & 7) == 4) return number == group;
      const pb::FieldDescriptor* const field =
          type == nullptr || number > INT32_MAX ? nullptr : type->FindFieldByNumber(static_cast<int>(number));
      bytes_ = {};
      if (field != nullptr && !order.follows(*field)) return false;
      if (!count(1) || !skip_value(tag, field == nullptr ? nullptr : field->message_type(), depth)) return false;
      if (field != nullptr && field->is_packable() && (tag & 7) == 2 && !count(packed_values(*field))) return false;
      // UTF-8 is checked here, because libprotobuf drops text that is not UTF-8 without an error.
      const bool is_text = field != nullptr && field->type() == pb::FieldDescriptor::TYPE_STRING;
      if (is_text && !pb::internal::IsStructurallyValidUTF8(bytes_.data(), static_cast<int>(bytes_.size())))
        return false;
      if (is_any && number == 1) any_type_ = bytes_;
      if (is_any && number == 2) any_value_ = bytes_;
    }
    return group == 0 && (!is_any || scan_any(depth)) && order.is_whole();
  }

 private:
  // The order in which the fields of one message come.
  class Order {
   public:
    // `type`: null if any order will do.
    explicit Order(const pb::Descriptor* type) : type_(type) {
      if (type != nullptr) met_.resize(static_cast<size_t>(type->field_count() + type->oneof_decl_count()));
    }
    bool follows(const pb::FieldDescriptor& field) {
      if (type_ == nullptr || (field.is_repeated() && last_ == &field)) return true;
      last_ = &field;
      const pb::OneofDescriptor* const oneof = field.containing_oneof();
      const int at = oneof == nullptr ? field.index() : type_->field_count() + oneof->index();
      return !std::exchange(met_[static_cast<size_t>(at)], true);
    }
    // The converter leaves out an entry of a map without its key or its value.
    bool is_whole() const {
      return type_ == nullptr || !type_->options().map_entry() || std::count(met_.begin(), met_.end(), true) == 2;
    }

   private:
    const pb::Descriptor* const type_;
    const pb::FieldDescriptor* last_ = nullptr;
    std::vector<char> met_;
  };

  size_t packed_values(const pb::FieldDescriptor& field) const {
    switch (field.type()) {
      case pb::FieldDescriptor::TYPE_FIXED32:
      case pb::FieldDescriptor::TYPE_SFIXED32:
      case pb::FieldDescriptor::TYPE_FLOAT:
        return bytes_.size() / 4;
      case pb::FieldDescriptor::TYPE_FIXED64:
      case pb::FieldDescriptor::TYPE_SFIXED64:
      case pb::FieldDescriptor::TYPE_DOUBLE:
        return bytes_.size() / 8;
      default:  // the last byte of a varint has no high bit
        return static_cast<size_t>(std::count_if(bytes_.begin(), bytes_.end(), [](char byte) { return byte >= 0; }));
    }
  }
  bool count(size_t values) {
    if (shared_.room < values) return shared_.room = 0, false;
    shared_.room -= values;
    return true;
  }
  bool scan_any(int depth) const {
    const std::string name(any_type_.substr(std::min(any_type_.rfind('/') + 1, any_type_.size())));
    const pb::Descriptor* const type = shared_.pool.FindMessageTypeByName(name);
    if (type == nullptr) return true;
    if (!Scanner(any_value_, shared_, true).scan(type, 0, depth + 1)) return false;
    pb::Arena arena;
    return shared_.factory.GetPrototype(type)->New(&arena)->ParsePartialFromArray(any_value_.data(),
                                                                                  static_cast<int>(any_value_.size()));
  }
  bool skip_value(uint64_t tag, const pb::Descriptor* type, int depth) {
    uint64_t value = 0;
    switch (tag & 7) {
      case 0:
        return read_varint(value);
      case 1:
        return skip(8);
      case 2:
        if (!read_varint(value) || value > rest_.size()) return false;
        bytes_ = rest_.substr(0, value);
        rest_.remove_prefix(value);
        return type == nullptr || Scanner(bytes_, shared_, in_any_).scan(type, 0, depth + 1);
      case 3:
        return scan(type, tag >> 3, depth + 1);
      case 5:
        return skip(4);
      default:
        return false;
    }
  }
  bool skip(size_t bytes) {
    if (rest_.size() < bytes) return false;
    rest_.remove_prefix(bytes);
    return true;
  }
  bool read_varint(uint64_t& out) {
    constexpr size_t kMost = 10;
    out = 0;
    for (size_t i = 0; i < std::min(rest_.size(), kMost); ++i) {
      const auto byte = static_cast<uint8_t>(rest_[i]);
      out |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
      if (byte < 0x80) return skip(i + 1);
    }
    return false;
  }

  std::string_view rest_;
  std::string_view bytes_;  // of the last field, if it has a length
  std::string_view any_type_, any_value_;
  Shared& shared_;
  const bool in_any_;
};

// An upper bound for the number of values in a JSON text.
size_t values_of_json(std::string_view json) {
  size_t values = 1;
  bool in_text = false;
  for (size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (in_text && c == '\\') {
      ++i;
    } else if (c == '"') {
      in_text = !in_text;
    } else if (!in_text && (c == ',' || c == '[' || c == '{')) {
      ++values;
    }
  }
  return values;
}

}  // namespace

struct ProtobufSchema::Types {
  // Adds the file and all files that it imports. They must be in the set. Returns an empty text, or a sentence with the
  // fault.
  std::string add(const std::string& name) {
    const auto found = files.find(name);
    if (found == files.end()) return "it lacks the file " + name + ", which another one imports";
    if (pool.FindFileByName(name) != nullptr) return {};
    if (!begun.insert(name).second) return name + ": files import each other";
    for (const std::string& import : found->second->dependency()) {
      if (std::string fault = add(import); !fault.empty()) return fault;
    }
    FirstError error;
    if (pool.BuildFileCollectingErrors(*found->second, &error) != nullptr) return {};
    return error.text.empty() ? name + ": it is no schema" : error.text;
  }

  pb::DescriptorPool pool;
  mutable pb::DynamicMessageFactory factory{&pool};  // it has a lock of its own
  std::unique_ptr<pb::util::TypeResolver> resolver;
  std::vector<std::string> messages;
  // Used only while the schema is read.
  std::map<std::string, const pb::FileDescriptorProto*> files;
  std::set<std::string> begun;
};

ProtobufSchema::ProtobufSchema(std::unique_ptr<Types> types) : types_(std::move(types)) {}
ProtobufSchema::~ProtobufSchema() = default;

Result<std::shared_ptr<const ProtobufSchema>> ProtobufSchema::read(std::string_view descriptors) {
  silence_library();
  auto types = std::make_unique<Types>();
  try {
    pb::FileDescriptorSet set;
    if (!set.ParseFromArray(descriptors.data(), static_cast<int>(descriptors.size())) || set.file_size() == 0) {
      return fail("it is no set of descriptors");
    }
    if (set.file_size() > kProtobufFiles) return fail("it has more than " + std::to_string(kProtobufFiles) + " files");
    for (const pb::FileDescriptorProto& file : set.file()) types->files.emplace(file.name(), &file);
    for (const pb::FileDescriptorProto& file : set.file()) {
      if (std::string fault = types->add(file.name()); !fault.empty()) return fail(std::move(fault));
      const pb::FileDescriptor* const built = types->pool.FindFileByName(file.name());
      for (int i = 0; built != nullptr && i < built->message_type_count(); ++i) {
        types->messages.push_back(built->message_type(i)->full_name());
      }
    }
  } catch (const std::exception& error) {  // an assertion of libprotobuf
    return fail(std::string("libprotobuf cannot read it: ") + error.what());
  }
  types->files.clear();
  types->begun.clear();
  types->resolver.reset(pb::util::NewTypeResolverForDescriptorPool(kUrlPrefix, &types->pool));
  return std::shared_ptr<const ProtobufSchema>(new ProtobufSchema(std::move(types)));
}

Result<std::shared_ptr<const ProtobufSchema>> ProtobufSchema::shared(const std::string& hash,
                                                                     std::string_view descriptors) {
  struct Known {
    Mutex mutex;
    std::map<std::string, std::weak_ptr<const ProtobufSchema>> schemas TIDEGATE_GUARDED_BY(mutex);
  };
  static Known known;
  const MutexLock lock(known.mutex);
  std::erase_if(known.schemas, [](const auto& each) { return each.second.expired(); });
  if (const auto found = known.schemas.find(hash); found != known.schemas.end()) {
    if (std::shared_ptr<const ProtobufSchema> schema = found->second.lock()) return schema;
  }
  Result<std::shared_ptr<const ProtobufSchema>> made = read(descriptors);
  if (made) known.schemas[hash] = *made;
  return made;
}

std::vector<std::string> ProtobufSchema::messages() const { return types_->messages; }

bool ProtobufSchema::has(const std::string& message) const {
  const pb::Descriptor* const found = types_->pool.FindMessageTypeByName(message);
  return found != nullptr && !found->options().map_entry();
}

// A message may hold a field in several places: of one value the last counts, elements and members are joined. The
// converter would write each place as a member of its own. So the message is parsed and written again before.
ProtobufFault ProtobufSchema::to_json(const std::string& message, std::string_view body, ProtobufBounds most,
                                      std::string& out) const {
  const pb::Descriptor* const type = types_->pool.FindMessageTypeByName(message);
  Scanner::Shared shared{types_->pool, types_->factory, most.values};
  BoundedOutput bounded(out, most.bytes);
  try {
    if (!Scanner(body, shared).scan(type, 0, 0)) {
      return shared.room == 0 ? ProtobufFault::too_large : ProtobufFault::malformed;
    }
    pb::Arena arena;
    pb::Message* const parsed = types_->factory.GetPrototype(type)->New(&arena);
    if (!parsed->ParsePartialFromArray(body.data(), static_cast<int>(body.size()))) return ProtobufFault::malformed;
    parsed->DiscardUnknownFields();
    std::string plain;
    {
      pb::io::StringOutputStream stream(&plain);
      pb::io::CodedOutputStream coded(&stream);
      coded.SetSerializationDeterministic(true);  // entries of maps in the order of their keys
      parsed->SerializePartialToCodedStream(&coded);
    }
    pb::io::ArrayInputStream in(plain.data(), static_cast<int>(plain.size()));
    const auto status = pb::util::BinaryToJsonStream(types_->resolver.get(), std::string(kUrlPrefix) + "/" + message,
                                                     &in, &bounded, pb::util::JsonPrintOptions());
    if (bounded.exceeds(most.bytes)) return ProtobufFault::too_large;
    return status.ok() ? ProtobufFault::none : ProtobufFault::malformed;
  } catch (const std::exception&) {
    return ProtobufFault::malformed;
  }
}

ProtobufFault ProtobufSchema::from_json(const std::string& message, std::string_view json, ProtobufBounds most,
                                        std::string& out) const {
  if (values_of_json(json) > most.values) return ProtobufFault::too_large;
  pb::io::ArrayInputStream in(json.data(), static_cast<int>(json.size()));
  BoundedOutput bounded(out, most.bytes);
  try {
    const auto status = pb::util::JsonToBinaryStream(types_->resolver.get(), std::string(kUrlPrefix) + "/" + message,
                                                     &in, &bounded, pb::util::JsonParseOptions());
    if (bounded.exceeds(most.bytes)) return ProtobufFault::too_large;
    return status.ok() ? ProtobufFault::none : ProtobufFault::malformed;
  } catch (const std::exception&) {
    return ProtobufFault::malformed;
  }
}

}  // namespace tidegate
