// SPDX-License-Identifier: Apache-2.0
// The key reference: the field table as Markdown.
#include <fmt/format.h>

#include "conf/document.h"
#include "conf/fields.h"
#include "conf/log_template.h"
#include "conf/scalar.h"

namespace tidegate {
namespace {

std::string type_text(const Field& field) {
  switch (field.type) {
    case FieldType::boolean:
      return "true or false";
    case FieldType::integer:
      return field.choices.empty() ? "integer" : fmt::format("integer or `{}`", field.choices.front());
    case FieldType::number:
      return "number";
    case FieldType::duration:
      return "duration";
    case FieldType::size:
      return "size";
    case FieldType::name:
      return "name";
    case FieldType::text:
      return "text";
    case FieldType::lines:
      return "text of several lines";
    case FieldType::choice: {
      std::string words;
      for (const std::string_view word : field.choices) words += fmt::format("{}`{}`", words.empty() ? "" : ", ", word);
      return words;
    }
    case FieldType::address:
      return "address";
    case FieldType::interface_address:
      return "address/length";
    case FieldType::cidr:
      return "network";
    case FieldType::endpoint:
      return "address:port";
    case FieldType::domain:
      return "domain name";
    case FieldType::host_pattern:
      return "host pattern";
    case FieldType::path_pattern:
      return "path pattern";
    case FieldType::method:
      return "method";
    case FieldType::reference:
      return fmt::format("name from [{0}](#{0})", field.refers_to);
    case FieldType::file:
      return "file";
    case FieldType::text_map:
      return "map of header fields";
    case FieldType::section:
      return "map";
  }
  return {};
}

std::string bounds_text(const Field& field) {
  switch (field.type) {
    case FieldType::integer:
      return fmt::format("{} to {}", field.min, field.max);
    case FieldType::number:
      return fmt::format("{:g} to {:g}", field.lowest, field.highest);
    case FieldType::duration:
      return fmt::format("{} to {}", duration_text(field.min), duration_text(field.max));
    case FieldType::size:
      return fmt::format("{} to {}", size_text(field.min), size_text(field.max));
    default:
      return {};
  }
}

std::string default_text(const Field& field) {
  if (field.required) return "*required*";
  if (field.on_when_present) return "`true`";
  return field.default_value ? fmt::format("`{}`", scalar_text(field, *field.default_value)) : std::string();
}

void write_table(const Section& section, const std::string& path, std::string& out) {
  out += "| key | value | bounds | default | |\n|---|---|---|---|---|\n";
  for (const Field& field : section.fields) {
    const std::string type = (field.list ? "list: " : "") + type_text(field);
    out += fmt::format("| `{}` | {} | {} | {} | {} |\n", field.key, type, bounds_text(field), default_text(field),
                       field.sentence);
  }
  for (const Field& field : section.fields) {
    if (field.section == nullptr) continue;
    const std::string deeper = path + "." + std::string(field.key);
    out += fmt::format("\n### {}\n\n{}\n\n", deeper, field.sentence);
    write_table(*field.section, deeper, out);
  }
}

}  // namespace

std::string key_reference() {
  std::string out =
      "# Configuration keys\n\n"
      "Every key of a configuration document, from the table that the parser itself uses (`conf/fields*.cc`, "
      "`conf/policy`).\n"
      "A document is one YAML map (or JSON) with the sections below; all of them may be left out.\n\n"
      "*Durations* are a whole number and a unit: `200ms`, `5s`, `1m`, `2h`, `7d`. *Sizes* likewise: `512B`, `64KB`, "
      "`1GB`, `1TB`,\n"
      "in powers of 1024. *Names* are letters, digits, `.`, `_` and `-`, at most 63. Numbers are decimal, without "
      "leading zeros.\n"
      "A duplicate key, an unknown key and a value out of bounds are faults, and nothing of a faulty document is ever "
      "used.\n\n"
      "A document in a file may leave parts of itself to others. `tidegate` and a daemon with `--config` put them in "
      "when "
      "they\n"
      "read the file, before there is a version. A version has the whole content; the API takes nothing else.\n\n"
      "- `include: [parts/app.yaml]` adds the sections of other documents: lists go on, maps are joined. All paths "
      "are\n"
      "  relative to the folder of the first document, and included documents are below it.\n"
      "- `${NAME}` in a value is a variable of the environment; it is a fault if that is not set. `${NAME:-default}` "
      "has "
      "a\n"
      "  default for one that is not set or empty. `${file:PATH}` is the content of a file, without the newline at its "
      "end.\n"
      "- `$${` stands for the two characters `${`. What was put in is not searched again.\n"
      "- In brackets and braces write quotes: `{port: \"${PORT}\"}`. A value that is nothing else than one `${...}` "
      "may be "
      "a number.\n"
      "- Certificates, keys and zone files are taken as they are.\n";
  for (const Field& field : root_section().fields) {
    out += fmt::format("\n## {}\n\n{}\n\n", field.key, field.sentence);
    write_table(*field.section, std::string(field.key), out);
  }
  return out + log_variable_reference();
}

}  // namespace tidegate
