// SPDX-License-Identifier: Apache-2.0
// XML as JSON, and back, for bodies that a transform changes. Pure functions of a whole text.
//
// An element becomes a member of its parent, and the document an object with one member. An element with only text
// becomes a string. Other elements become objects: attributes are members "@name", children are members, text is the
// member "#text". Several children with the same name become a list, at the place of the first one. The order between
// children of different names, white space around text beside children, comments and the XML declaration are not kept.
// All values of XML are strings.
//
//   <order id="7"><item>tea</item><item>milk</item><note/></order>
//   {"order":{"@id":"7","item":["tea","milk"],"note":""}}
//
// JSON numbers and literals become text as they are written. null and "" become an empty element.
//
// XML must be UTF-8 without a document type and without processing instructions. Only the five entities of XML and
// numeric characters are allowed. So nothing is fetched and no text expands, and XML expansion attacks are not
// possible.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "l7/limits.h"
#include "l7/wire/arena.h"

namespace tidegate::l7::policy {

// Why a text cannot be read, or cannot be written in the other form. The first value means no fault.
enum class XmlFault : uint8_t {
  none,
  malformed,   // not XML, or nested deeper than kXmlDepth
  not_taken,   // a document type, a processing instruction, another entity, another encoding
  too_large,   // more than `most` bytes, before or after, or more than kXmlElements
  no_name,     // a member's name is not valid in XML, or an attribute occurs twice
  no_element,  // a list in a list, or an attribute that is not a scalar
};

// Both append to `out`, which must be empty, and leave it unfinished after a fault. `json` must have been read by
// scan_json().
XmlFault xml_to_json(std::string_view xml, size_t most, std::string& out);
// `root`: the name of the document's element if `json` is not an object with one member that is no list. Items of a
// list at the top become elements `item`. The arena is used during the call.
XmlFault json_to_xml(std::string_view json, std::string_view root, size_t most, std::string& out, Arena& arena);

}  // namespace tidegate::l7::policy
