// SPDX-License-Identifier: Apache-2.0
#include "conf/field_builders.h"

namespace tidegate::fields {

namespace {

Field field_of(std::string_view key, FieldType type, std::string_view sentence) {
  Field field;
  field.key = key;
  field.type = type;
  field.sentence = sentence;
  return field;
}

}  // namespace

Field value_row(std::string_view key, FieldType type, Place place, const ValueAccess& access, std::string_view sentence,
                uint64_t scale) {
  Field field = field_of(key, type, sentence);
  field.scale = scale;
  field.default_value = access.default_of(place.by_default, scale);
  field.store = [place, scale, assign = access.assign](void* owner, size_t, ScalarValue&& value) {
    assign(place.in(owner), std::move(value), scale);
  };
  return field;
}

Field list_row(std::string_view key, FieldType type, Place place, const ListAccess& list, const ValueAccess& item,
               std::string_view sentence, uint64_t scale) {
  Field field = field_of(key, type, sentence);
  field.scale = scale;
  field.list = type != FieldType::text_map;
  field.resize = [place, &list](void* owner, size_t count) { list.resize(place.in(owner), count); };
  field.store = [place, scale, &list, assign = item.assign](void* owner, size_t index, ScalarValue&& value) {
    assign(list.item(place.in(owner), index), std::move(value), scale);
  };
  return field;
}

Field choice_row(std::string_view key, Place place, const ValueAccess& access, std::vector<Word> words,
                 std::optional<size_t> by_default, std::string_view sentence) {
  Field field = field_of(key, FieldType::choice, sentence);
  for (const Word& each : words) field.choices.push_back(each.word);
  if (by_default) field.default_value = ScalarValue(uint64_t{*by_default});
  field.store = [place, words = std::move(words), assign = access.assign](void* owner, size_t, ScalarValue&& value) {
    assign(place.in(owner), ScalarValue(words[std::get<uint64_t>(value)].value), 1);
  };
  return field;
}

Field word_row(std::string_view key, Place place, const std::vector<std::string_view>& words,
               std::string_view sentence) {
  std::vector<Word> values;
  std::optional<size_t> by_default;
  for (const std::string_view word : words) {
    if (*static_cast<const std::string*>(place.by_default) == word) by_default = values.size();
    values.push_back({word, std::string(word)});
  }
  return choice_row(key, place, kValueAccess<std::string>, std::move(values), by_default, sentence);
}

Field section_row(std::string_view key, Place place, const SectionAccess& access, const Section& section,
                  std::string_view sentence) {
  Field field = field_of(key, FieldType::section, sentence);
  field.section = &section;
  if (access.list != nullptr) {
    field.list = true;
    field.resize = [place, list = access.list](void* owner, size_t count) { list->resize(place.in(owner), count); };
    field.enter = [place, list = access.list](void* owner, size_t index) { return list->item(place.in(owner), index); };
    field.clear = [place, access](void* owner, size_t index) { access.clear(place.in(owner), index); };
  } else if (access.emplace != nullptr) {
    field.enter = [place, emplace = access.emplace](void* owner, size_t) { return emplace(place.in(owner)); };
  } else {
    field.enter = [place](void* owner, size_t) { return place.in(owner); };
  }
  return field;
}

Field within(Field field, Range range) {
  field.min = range.min;
  field.max = range.max;
  return field;
}

Field or_word(Field field, std::string_view word) {
  field.choices = {word};
  return field;
}

Field on_when_present(Field field) {
  field.on_when_present = true;
  return field;
}

Field refers(Field field, std::string_view refers_to) {
  field.refers_to = refers_to;
  field.default_value.reset();
  return field;
}

Field required(Field field) {
  field.required = true;
  field.default_value.reset();
  return field;
}

Field secret(Field field) {
  field.secret = true;
  return field;
}

Field identity(Field field) {
  field.identity = true;
  return required(std::move(field));
}

}  // namespace tidegate::fields
