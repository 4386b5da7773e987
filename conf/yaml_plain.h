// SPDX-License-Identifier: Apache-2.0
// A reader of plain YAML, many times as fast as yaml-cpp: a large configuration is read at every start. It knows the
// forms of almost every configuration, and gives the same events as yaml-cpp. It leaves everything else, and every
// mistake, to yaml-cpp.
//
// Plain are: maps and lists in blocks, maps and lists in braces and brackets within one line, plain scalars and quoted
// ones without escapes within one line, comments. Not plain are: anchors, aliases, tags, block scalars, empty values,
// tabs, keys that are no words, several documents.
#pragma once

#include <yaml-cpp/eventhandler.h>

#include <string_view>

namespace tidegate {

// Returns false if the text is not plain. Then ignore the events that were given.
bool read_plain_yaml(std::string_view text, YAML::EventHandler& events);

}  // namespace tidegate
