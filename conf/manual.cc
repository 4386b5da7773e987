// SPDX-License-Identifier: Apache-2.0
#include "conf/manual.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "conf/document.h"
#include "core/exit_status.h"

namespace tidegate {
namespace {

constexpr int kDaemonSection = 8;

// In roff a backslash begins a command, and so do a dot and a quote at the beginning of a line. A plain '-' would
// become a hyphen, which cannot be copied into a shell.
std::string escaped(std::string_view text) {
  std::string out;
  bool line_begins = true;
  for (const char c : text) {
    if (line_begins && (c == '.' || c == '\'')) out += "\\&";
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out += c;
    }
    line_begins = c == '\n';
  }
  return out;
}

std::string title(const ManualPage& page) {
  return fmt::format(".TH \"{}\" {} \"\" \"Tidegate {}\" \"Tidegate\"\n.SH NAME\n{} \\- {}\n", escaped(page.name),
                     page.section, TIDEGATE_VERSION, escaped(page.name), escaped(page.purpose));
}

std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  for (;;) {
    const size_t end = text.find(at);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

void append_option(const CLI::Option& option, std::string& out) {
  if (option.get_group().empty()) return;  // not listed by --help either
  const std::string default_text = option.get_default_str();
  const bool takes_value = option.get_expected_min() > 0 && !option.get_positional();
  out += fmt::format(".TP\n\\fB{}\\fR{}\n{}{}\n", escaped(option.get_name(option.get_positional(), true)),
                     takes_value ? " \\fI" + escaped(option.get_type_name()) + "\\fR" : "",
                     escaped(option.get_description()),
                     default_text.empty() ? "" : " The default is " + escaped(default_text) + ".");
}

void append_paragraphs(std::string_view text, std::string& out) {
  for (const std::string_view line : split(text, '\n')) {
    if (!line.empty()) out += escaped(line) + "\n.br\n";
  }
}

void append_command(const CLI::App& command, std::string& out) {
  std::string usage = command.get_name();
  for (const CLI::Option* option : command.get_options()) {
    if (option->get_positional()) usage += " " + option->get_name(true);
  }
  out += fmt::format(".SS {}\n{}.\n", escaped(usage), escaped(command.get_description()));
  for (const CLI::Option* option : command.get_options()) {
    if (option->get_name() != "--help" && !(option->get_positional() && option->get_description().empty())) {
      append_option(*option, out);
    }
  }
  if (!command.get_footer().empty()) out += ".PP\n" + escaped(command.get_footer()) + "\n";
}

void append_exit_statuses(std::string& out) {
  out += fmt::format(
      ".SH EXIT STATUS\n.TP\n0\nIt was told to end.\n"
      ".TP\n{}\nIt cannot run, and one message says why. Another start would end in the same way.\n"
      ".TP\n{}\nThe options are wrong.\n"
      ".TP\n{}\nIt cannot run yet: memory, room on a disk, descriptors or an address may come by themselves.\n",
      kExitCannotRun, kExitWrongOptions, kExitTryAgain);
}

// `code` and *emphasis* of our own Markdown.
std::string inline_markup(std::string_view text) {
  std::string out;
  bool code = false, emphasis = false;
  for (const char c : escaped(text)) {
    if (c == '`') {
      out += (code = !code) ? "\\fB" : "\\fR";
    } else if (c == '*' && !code) {
      out += (emphasis = !emphasis) ? "\\fI" : "\\fR";
    } else {
      out += c;
    }
  }
  return out;
}

// "[name](#anchor)" becomes "name".
std::string without_links(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t open = text.find('['), middle = text.find("](#", open);
    const size_t close = middle == std::string_view::npos ? middle : text.find(')', middle);
    if (close == std::string_view::npos) return out.append(text);
    out.append(text.substr(0, open)).append(text.substr(open + 1, middle - open - 1));
    text.remove_prefix(close + 1);
  }
  return out;
}

// A row of the table of keys, "| `key` | value | bounds | default | sentence |", or of variables, "| `name` | sentence
// |".
void append_key(std::string_view line, std::string& out) {
  const std::vector<std::string_view> cells = split(line, '|');
  const bool is_variable = cells.size() == 4;
  if ((!is_variable && cells.size() < 7) || cells[1].find('`') == std::string_view::npos) return;
  const auto cell = [&](size_t i) {
    std::string_view text = cells[i];
    while (text.starts_with(' ')) text.remove_prefix(1);
    while (text.ends_with(' ')) text.remove_suffix(1);
    return inline_markup(text);
  };
  if (is_variable) {
    out += fmt::format(".TP\n{}\n{}\n", cell(1), cell(2));
    return;
  }
  out += fmt::format(".TP\n{}: {}", cell(1), cell(2));
  if (const std::string bounds = cell(3); !bounds.empty()) out += ", " + bounds;
  if (const std::string value = cell(4); !value.empty()) out += value.starts_with("\\fI") ? ", " + value : "; " + value;
  out += "\n" + cell(5) + "\n";
}

}  // namespace

std::string manual_of(const CLI::App& app, const ManualPage& page) {
  std::string out = title(page);
  const bool has_commands = !app.get_subcommands({}).empty();
  out += fmt::format(".SH SYNOPSIS\n\\fB{}\\fR [\\fIoptions\\fR]{}\n.SH DESCRIPTION\n", escaped(page.name),
                     has_commands ? " \\fIcommand\\fR" : "");
  append_paragraphs(app.get_description(), out);
  out += ".SH OPTIONS\n";
  for (const CLI::Option* option : app.get_options()) append_option(*option, out);
  if (has_commands) out += ".SH COMMANDS\n";
  for (const CLI::App* command : app.get_subcommands({})) append_command(*command, out);
  if (page.section == kDaemonSection) append_exit_statuses(out);
  out +=
      ".SH SEE ALSO\n.BR tidegate (1),\n.BR tidegate-control (8),\n.BR tidegate-l4 (8),\n.BR tidegate-l7 (8),\n"
      ".BR tidegate-dns (8),\n.BR edge.yaml (5)\n";
  return out;
}

std::string manual_of_keys() {
  std::string out = title({"edge.yaml", 5, "the configuration of an edge"});
  const std::string reference = key_reference();
  std::string section = ".SH DESCRIPTION\n";
  for (const std::string_view line : split(reference, '\n')) {
    if (line.starts_with("# ")) {
      out += section;
    } else if (line.starts_with("### ")) {
      out += ".SS " + inline_markup(line.substr(4)) + "\n";
    } else if (line.starts_with("## ")) {
      out += ".SH " + inline_markup(line.substr(3)) + "\n";
    } else if (line.starts_with("|")) {
      append_key(without_links(line), out);
    } else if (line.empty()) {
      if (!out.ends_with(".PP\n") && !out.ends_with(section)) out += ".PP\n";
    } else if (line.starts_with("- ")) {
      out += ".IP \\(bu 2\n" + inline_markup(without_links(line.substr(2))) + "\n";
    } else {
      // A line of roff that begins with a blank would begin a paragraph.
      const size_t begin = std::min(line.find_first_not_of(' '), line.size());
      out += inline_markup(without_links(line.substr(begin))) + "\n";
    }
  }
  return out + ".SH SEE ALSO\n.BR tidegate (1)\n";
}

void add_manual_option(CLI::App& app, const ManualPage& page) {
  app.add_flag_callback("--print-manual",
                        [&app, page] {
                          fmt::print("{}", manual_of(app, page));
                          std::exit(EXIT_SUCCESS);
                        })
      ->trigger_on_parse()
      ->group("");
}

}  // namespace tidegate
