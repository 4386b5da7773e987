// SPDX-License-Identifier: Apache-2.0
// A reader of plain YAML, many times as fast as yaml-cpp: a large configuration is read at every start. It knows what
// almost every configuration consists of, and gives the events that yaml-cpp would give. Whatever else it meets, it
// leaves to yaml-cpp, also every mistake.
//
// Plain are: maps and lists in blocks, maps and lists in braces and brackets within one line, plain scalars and quoted
// ones without escapes within one line, comments. Not plain are: anchors, aliases, tags, block scalars, empty values,
// tabs, keys that are no words, several documents.
#pragma once

#include <yaml-cpp/eventhandler.h>

#include <string_view>

namespace tidegate {

// False: the text is not plain. Then the events that were given are worth nothing.
bool read_plain_yaml(std::string_view text, YAML::EventHandler& events);

}  // namespace tidegate
