// SPDX-License-Identifier: Apache-2.0
// Functions that make rows of the field table. Only the field tables include this.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "conf/elements.h"
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
struct ListOf<Elements<T>> {
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

// How values of one type are written and read, with the type erased. Hundreds of keys have a row, but their members
// have only a few types. So the code for a type is compiled once.
struct ValueAccess {
  void (*assign)(void* slot, ScalarValue&& value, uint64_t scale);
  std::optional<ScalarValue> (*default_of)(const void* slot, uint64_t scale);
};
struct ListAccess {
  void (*resize)(void* list, size_t count);
  void* (*item)(void* list, size_t index);
};

template <class T>
void assign(void* slot, ScalarValue&& value, uint64_t scale) {
  T& typed = *static_cast<T*>(slot);
  if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, double>) {
    typed = std::get<T>(value);
  } else if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) {
    typed = static_cast<T>(std::get<uint64_t>(value) / scale);
  } else if constexpr (Optional<T>::kIs) {
    typed = std::get<typename T::value_type>(std::move(value));
  } else {
    typed = std::get<T>(std::move(value));
  }
}

template <class T>
std::optional<ScalarValue> default_of(const void* slot, uint64_t scale) {
  const T& typed = *static_cast<const T*>(slot);
  if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, double>) {
    return ScalarValue(typed);
  } else if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) {
    return ScalarValue(static_cast<uint64_t>(typed) * scale);
  } else if constexpr (std::is_same_v<T, std::string>) {
    return typed.empty() ? std::nullopt : std::optional<ScalarValue>(typed);
  } else {
    return std::nullopt;
  }
}

template <class T>
constexpr ValueAccess kValueAccess{assign<T>, default_of<T>};

template <class List>
constexpr ListAccess kListAccess{
    [](void* list, size_t count) { static_cast<List*>(list)->resize(count); },
    [](void* list, size_t index) -> void* { return &(*static_cast<List*>(list))[index]; },
};

// Where a member is in its struct, and what its default is.
struct Place {
  size_t offset;  // offset in bytes
  const void* by_default;

  void* in(void* owner) const { return static_cast<std::byte*>(owner) + offset; }
};

template <class Owner>
const Owner& defaults_of() {
  static const Owner defaults{};
  return defaults;
}

template <class Owner, class Member>
Place place_of(Member Owner::*member) {
  const Owner& owner = defaults_of<Owner>();
  const auto* slot = reinterpret_cast<const std::byte*>(&(owner.*member));
  return {static_cast<size_t>(slot - reinterpret_cast<const std::byte*>(&owner)), slot};
}

Field value_row(std::string_view key, FieldType type, Place place, const ValueAccess& access, std::string_view sentence,
                uint64_t scale);
Field list_row(std::string_view key, FieldType type, Place place, const ListAccess& list, const ValueAccess& item,
               std::string_view sentence, uint64_t scale);

template <class Owner, class Member>
Field row(std::string_view key, FieldType type, Member Owner::*member, std::string_view sentence, uint64_t scale = 1) {
  if constexpr (ListOf<Member>::kIs) {
    return list_row(key, type, place_of(member), kListAccess<Member>, kValueAccess<typename ListOf<Member>::Item>,
                    sentence, scale);
  } else {
    return value_row(key, type, place_of(member), kValueAccess<Member>, sentence, scale);
  }
}

template <class Owner>
Field boolean(std::string_view key, bool Owner::*member, std::string_view sentence) {
  return row(key, FieldType::boolean, member, sentence);
}

Field on_when_present(Field field);

// The key `enabled` of a section that is on as soon as it is written.
template <class Owner>
Field enabled() {
  return on_when_present(boolean("enabled", &Owner::enabled, "`false` turns the section off without deleting it."));
}

Field within(Field field, Range range);

template <class Owner, class Member>
Field bounded(std::string_view key, FieldType type, Member Owner::*member, Range range, std::string_view sentence,
              uint64_t scale = 1) {
  return within(row(key, type, member, sentence, scale), range);
}

template <class Owner, class Member>
Field integer(std::string_view key, Member Owner::*member, Range range, std::string_view sentence) {
  return bounded(key, FieldType::integer, member, range, sentence);
}

Field or_word(Field field, std::string_view word);

// A number, or a word instead of it. The member is 0 for the word.
template <class Owner, class Member>
Field integer_or(std::string_view word, std::string_view key, Member Owner::*member, Range range,
                 std::string_view sentence) {
  return or_word(integer(key, member, range, sentence), word);
}

// `unit`: the ms in one unit of the member.
template <class Owner, class Member>
Field duration(std::string_view key, Member Owner::*member, Range range, std::string_view sentence,
               uint64_t unit = kMs) {
  return bounded(key, FieldType::duration, member, range, sentence, unit);
}

// `unit`: the bytes in one unit of the member.
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

// One word of a choice, with its value for the member.
struct Word {
  std::string_view word;
  ScalarValue value;
};
// `by_default`: the index of the word for the member's default; nothing if no word stands for it.
Field choice_row(std::string_view key, Place place, const ValueAccess& access, std::vector<Word> words,
                 std::optional<size_t> by_default, std::string_view sentence);

// `words` are the words of a choice, each with its value for the member.
template <class Owner, class Member>
Field choice(std::string_view key, Member Owner::*member,
             std::initializer_list<std::pair<std::string_view, std::type_identity_t<Member>>> words,
             std::string_view sentence) {
  std::vector<Word> values;
  std::optional<size_t> by_default;
  for (const auto& [word, value] : words) {
    if (defaults_of<Owner>().*member == value) by_default = values.size();
    if constexpr (std::is_same_v<Member, bool>) {
      values.push_back({word, value});
    } else {
      values.push_back({word, static_cast<uint64_t>(value)});
    }
  }
  return choice_row(key, place_of(member), kValueAccess<Member>, std::move(values), by_default, sentence);
}

// A choice whose member stores the word itself.
Field word_row(std::string_view key, Place place, const std::vector<std::string_view>& words,
               std::string_view sentence);
template <class Owner>
Field word(std::string_view key, std::string Owner::*member, const std::vector<std::string_view>& words,
           std::string_view sentence) {
  return word_row(key, place_of(member), words, sentence);
}

Field refers(Field field, std::string_view refers_to);

template <class Owner, class Member>
Field reference(std::string_view key, Member Owner::*member, std::string_view refers_to, std::string_view sentence) {
  return refers(row(key, FieldType::reference, member, sentence), refers_to);
}

// How the struct of a section is reached.
struct SectionAccess {
  const ListAccess* list = nullptr;                   // null: it is none
  void (*clear)(void* list, size_t index) = nullptr;  // of a list: resets an element to its defaults
  void* (*emplace)(void* optional) = nullptr;         // null: it is always there
};

template <class List>
void clear_element(void* list, size_t index) {
  List& typed = *static_cast<List*>(list);
  if constexpr (requires { typed.renew(index); }) {
    typed.renew(index);
  } else {
    typed[index] = {};
  }
}

template <class Member>
constexpr SectionAccess section_access() {
  if constexpr (ListOf<Member>::kIs) {
    return {&kListAccess<Member>, clear_element<Member>, nullptr};
  } else if constexpr (Optional<Member>::kIs) {
    return {nullptr, nullptr, [](void* optional) -> void* { return &static_cast<Member*>(optional)->emplace(); }};
  } else {
    return {};
  }
}

Field section_row(std::string_view key, Place place, const SectionAccess& access, const Section& section,
                  std::string_view sentence);

template <class Owner, class Member>
Field nested(std::string_view key, Member Owner::*member, const Section& section, std::string_view sentence) {
  return section_row(key, place_of(member), section_access<Member>(), section, sentence);
}

Field required(Field field);

// Marks a key whose values may be seen only with the right to write the configuration.
Field secret(Field field);

// A required key that must be different for each element of its list.
Field identity(Field field);

template <class Owner>
Field name(std::string Owner::*member, std::string_view sentence) {
  return identity(row("name", FieldType::name, member, sentence));
}

}  // namespace tidegate::fields
