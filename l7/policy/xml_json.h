// SPDX-License-Identifier: Apache-2.0
// XML as JSON, and back, for bodies that a transform changes. Pure functions of a whole text.
//
// An element is a member of its parent, the document an object with one member. An element with nothing but text is a
// string. Else it is an object: attributes are members "@name", children are members, text is the member "#text".
// Children of one name are a list, at the place of the first one. The order between children of different names, white
// space around text beside children, comments and the XML declaration are not kept. All values of XML are strings.
//
//   <order id="7"><item>tea</item><item>milk</item><note/></order>
//   {"order":{"@id":"7","item":["tea","milk"],"note":""}}
//
// Of JSON, numbers and literals become text as they are written; null and "" become an empty element.
//
// XML is taken without a document type, without processing instructions, with the five entities of XML and characters
// by number, in UTF-8. So nothing is ever fetched, and nothing grows: the expansion attacks of XML have no ground.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "l7/limits.h"
#include "l7/wire/arena.h"

namespace tidegate::l7::policy {

// Why a text cannot be read, or written in the other form. The first is none.
enum class XmlFault : uint8_t {
  none,
  malformed,   // no XML, or nested more than kXmlDepth
  not_taken,   // a document type, a processing instruction, another entity, another encoding
  too_large,   // more than `most` bytes, before or after, or more than kXmlElements
  no_name,     // a member's name is none of XML, or an attribute stands twice
  no_element,  // a list in a list, or an attribute that is no scalar
};

// Both append to `out`, which is empty, and leave it unfinished after a fault. `json` was read by scan_json().
XmlFault xml_to_json(std::string_view xml, size_t most, std::string& out);
// `root`: the name of the document's element where `json` is no object with one member that is no list. Items of a list
// at the top are elements `item`. The arena is used during the call.
XmlFault json_to_xml(std::string_view json, std::string_view root, size_t most, std::string& out, Arena& arena);

}  // namespace tidegate::l7::policy
