// SPDX-License-Identifier: Apache-2.0
// Functions that make rows of the field table. Only the field tables include this.
#pragma once

#include <type_traits>

#include "conf/fields.h"

namespace tidegate::fields {

// Units for the bounds of durations and sizes.
constexpr uint64_t kMs = 1, kSecond = 1'000, kMinute = 60 * kSecond, kHour = 60 * kMinute, kDay = 24 * kHour;
constexpr uint64_t kKB = 1'024, kMB = 1'024 * kKB, kGB = 1'024 * kMB, kTB = 1'024 * kGB;

struct Range {
  uint64_t min, max;
};

template <class T>
struct ListOf {
  using Item = T;
  static constexpr bool kIs = false;
};
template <class T>
struct ListOf<std::vector<T>> {
  using Item = T;
  static constexpr bool kIs = true;
};
template <class T>
struct Optional {
  static constexpr bool kIs = false;
};
template <class T>
struct Optional<std::optional<T>> {
  static constexpr bool kIs = true;
};

template <class T>
void assign(T& slot, ScalarValue&& value, uint64_t scale) {
  if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, double>) {
    slot = std::get<T>(value);
  } else if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) {
    slot = static_cast<T>(std::get<uint64_t>(value) / scale);
  } else if constexpr (Optional<T>::kIs) {
    slot = std::get<typename T::value_type>(std::move(value));
  } else {
    slot = std::get<T>(std::move(value));
  }
}

template <class T>
std::optional<ScalarValue> default_of(const T& slot, uint64_t scale) {
  if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, double>) {
    return ScalarValue(slot);
  } else if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) {
    return ScalarValue(static_cast<uint64_t>(slot) * scale);
  } else if constexpr (std::is_same_v<T, std::string>) {
    return slot.empty() ? std::nullopt : std::optional<ScalarValue>(slot);
  } else {
    return std::nullopt;
  }
}

template <class Owner, class Member>
Field row(std::string_view key, FieldType type, Member Owner::*member, std::string_view sentence, uint64_t scale = 1) {
  Field field;
  field.key = key;
  field.type = type;
  field.sentence = sentence;
  field.scale = scale;
  if constexpr (ListOf<Member>::kIs) {
    field.list = type != FieldType::text_map;
    field.resize = [member](void* owner, size_t count) { (static_cast<Owner*>(owner)->*member).resize(count); };
    field.store = [member, scale](void* owner, size_t index, ScalarValue&& value) {
      assign((static_cast<Owner*>(owner)->*member)[index], std::move(value), scale);
    };
  } else {
    field.store = [member, scale](void* owner, size_t, ScalarValue&& value) {
      assign(static_cast<Owner*>(owner)->*member, std::move(value), scale);
    };
    field.default_value = default_of(Owner{}.*member, scale);
  }
  return field;
}

template <class Owner>
Field boolean(std::string_view key, bool Owner::*member, std::string_view sentence) {
  return row(key, FieldType::boolean, member, sentence);
}

// The key `enabled` of a section that is on as soon as it is written.
template <class Owner>
Field enabled() {
  Field field = boolean("enabled", &Owner::enabled, "`false` turns the section off without deleting it.");
  field.on_when_present = true;
  return field;
}

template <class Owner, class Member>
Field bounded(std::string_view key, FieldType type, Member Owner::*member, Range range, std::string_view sentence,
              uint64_t scale = 1) {
  Field field = row(key, type, member, sentence, scale);
  field.min = range.min;
  field.max = range.max;
  return field;
}

template <class Owner, class Member>
Field integer(std::string_view key, Member Owner::*member, Range range, std::string_view sentence) {
  return bounded(key, FieldType::integer, member, range, sentence);
}

// `unit`: how many ms one unit of the member has.
template <class Owner, class Member>
Field duration(std::string_view key, Member Owner::*member, Range range, std::string_view sentence,
               uint64_t unit = kMs) {
  return bounded(key, FieldType::duration, member, range, sentence, unit);
}

// `unit`: how many bytes one unit of the member has.
template <class Owner, class Member>
Field size(std::string_view key, Member Owner::*member, Range range, std::string_view sentence, uint64_t unit = 1) {
  return bounded(key, FieldType::size, member, range, sentence, unit);
}

template <class Owner>
Field number(std::string_view key, double Owner::*member, double lowest, double highest, std::string_view sentence) {
  Field field = row(key, FieldType::number, member, sentence);
  field.lowest = lowest;
  field.highest = highest;
  return field;
}

template <class Owner, class Member>
Field text(std::string_view key, Member Owner::*member, std::string_view sentence, uint64_t max_bytes = 1'024) {
  return bounded(key, FieldType::text, member, {0, max_bytes}, sentence);
}

// `words` are the words of a choice, each with its value for the member.
template <class Owner, class Member>
Field choice(std::string_view key, Member Owner::*member, std::vector<std::pair<std::string_view, Member>> words,
             std::string_view sentence) {
  Field field;
  field.key = key;
  field.type = FieldType::choice;
  field.sentence = sentence;
  for (size_t i = 0; i < words.size(); ++i) {
    field.choices.push_back(words[i].first);
    if (Owner{}.*member == words[i].second) field.default_value = ScalarValue(uint64_t{i});
  }
  field.store = [member, words = std::move(words)](void* owner, size_t, ScalarValue&& value) {
    static_cast<Owner*>(owner)->*member = words[std::get<uint64_t>(value)].second;
  };
  return field;
}

// A choice whose member stores the word itself.
template <class Owner>
Field word(std::string_view key, std::string Owner::*member, const std::vector<std::string_view>& words,
           std::string_view sentence) {
  std::vector<std::pair<std::string_view, std::string>> choices;
  choices.reserve(words.size());
  for (const std::string_view each : words) choices.emplace_back(each, each);
  return choice(key, member, std::move(choices), sentence);
}

template <class Owner, class Member>
Field reference(std::string_view key, Member Owner::*member, std::string_view refers_to, std::string_view sentence) {
  Field field = row(key, FieldType::reference, member, sentence);
  field.refers_to = refers_to;
  field.default_value.reset();
  return field;
}

template <class Owner, class Member>
Field nested(std::string_view key, Member Owner::*member, const Section& section, std::string_view sentence) {
  Field field;
  field.key = key;
  field.type = FieldType::section;
  field.sentence = sentence;
  field.section = &section;
  if constexpr (ListOf<Member>::kIs) {
    field.list = true;
    field.resize = [member](void* owner, size_t count) { (static_cast<Owner*>(owner)->*member).resize(count); };
    field.enter = [member](void* owner, size_t index) -> void* {
      return &(static_cast<Owner*>(owner)->*member)[index];
    };
    field.clear = [member](void* owner, size_t index) { (static_cast<Owner*>(owner)->*member)[index] = {}; };
  } else if constexpr (Optional<Member>::kIs) {
    field.enter = [member](void* owner, size_t) -> void* { return &(static_cast<Owner*>(owner)->*member).emplace(); };
  } else {
    field.enter = [member](void* owner, size_t) -> void* { return &(static_cast<Owner*>(owner)->*member); };
  }
  return field;
}

inline Field required(Field field) {
  field.required = true;
  field.default_value.reset();
  return field;
}

// Of a key whose values are for those alone who may write the configuration.
inline Field secret(Field field) {
  field.secret = true;
  return field;
}

// A required key that must be different for each element of its list.
inline Field identity(Field field) {
  field.identity = true;
  return required(std::move(field));
}

template <class Owner>
Field name(std::string Owner::*member, std::string_view sentence) {
  return identity(row("name", FieldType::name, member, sentence));
}

}  // namespace tidegate::fields
