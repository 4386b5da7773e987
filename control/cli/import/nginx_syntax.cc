// SPDX-License-Identifier: Apache-2.0
#include "control/cli/import/nginx_syntax.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace tidegate::cli {
namespace {

struct Token {
  enum class Kind : uint8_t { word, opens, closes, ends, over };
  Kind kind = Kind::over;
  std::string text;
  uint32_t line = 0;
};

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  // Returns an Error if quotes are never closed.
  Result<Token> next() {
    skip_blanks();
    if (at_ == text_.size()) return Token{Token::Kind::over, {}, line_};
    const uint32_t line = line_;
    switch (text_[at_]) {
      case '{':
        ++at_;
        return Token{Token::Kind::opens, {}, line};
      case '}':
        ++at_;
        return Token{Token::Kind::closes, {}, line};
      case ';':
        ++at_;
        return Token{Token::Kind::ends, {}, line};
      default:
        return word(line);
    }
  }

 private:
  void skip_blanks() {
    for (; at_ < text_.size(); ++at_) {
      if (text_[at_] == '#') at_ = std::min(text_.find('\n', at_), text_.size());
      if (at_ == text_.size()) return;
      if (text_[at_] == '\n') ++line_;
      if (std::string_view(" \t\r\n").find(text_[at_]) == std::string_view::npos) return;
    }
  }

  Result<Token> word(uint32_t line) {
    Token token{Token::Kind::word, {}, line};
    const char quote = text_[at_] == '"' || text_[at_] == '\'' ? text_[at_++] : '\0';
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '\n') ++line_;
      if (c == '\\' && at_ + 1 < text_.size()) {
        // nginx keeps a backslash, except before quotes and another backslash, because it may belong to a regular
        // expression.
        const char escaped = text_[++at_];
        if (escaped == '\n') ++line_;
        if (escaped != '"' && escaped != '\'' && escaped != '\\') token.text += '\\';
        token.text += escaped;
        continue;
      }
      if (quote != '\0' && c == quote) {
        ++at_;
        return token;
      }
      // "${name}" is part of a word.
      const bool variable = c == '{' && !token.text.empty() && token.text.back() == '$';
      if (quote == '\0' && variable) {
        const size_t end = std::min(text_.find('}', at_), text_.size() - 1);
        token.text += text_.substr(at_, end - at_ + 1);
        at_ = end;
        continue;
      }
      if (quote == '\0' && std::string_view(" \t\r\n;{").find(c) != std::string_view::npos) {
        if (c == '\n') --line_;  // skip_blanks() counts it again
        return token;
      }
      token.text += c;
    }
    if (quote != '\0') return fail(fmt::format("line {}: quotes that are never closed", line));
    return token;
  }

  std::string_view text_;
  size_t at_ = 0;
  uint32_t line_ = 1;
};

class Parser {
 public:
  explicit Parser(std::string_view text) : reader_(text) {}

  // The directives up to the end of a block, or of the text.
  Result<void> block(std::vector<NginxDirective>& into, size_t depth) {
    for (;;) {
      Result<Token> first = reader_.next();
      if (!first) return first.error();
      if (first->kind == Token::Kind::over || first->kind == Token::Kind::closes) {
        const bool over = first->kind == Token::Kind::over;
        if (over != (depth == 0))
          return fail(fmt::format("line {}: {}", first->line, over ? "a block is never closed" : "a } too many"));
        return {};
      }
      if (first->kind != Token::Kind::word) return fail(fmt::format("line {}: no directive before this", first->line));
      NginxDirective directive;
      directive.name = std::move(first->text);
      directive.line = first->line;
      if (Result<void> rest = finish(directive, depth); !rest) return rest;
      into.push_back(std::move(directive));
    }
  }

 private:
  Result<void> finish(NginxDirective& directive, size_t depth) {
    for (;;) {
      Result<Token> token = reader_.next();
      if (!token) return token.error();
      switch (token->kind) {
        case Token::Kind::word:
          directive.arguments.push_back(std::move(token->text));
          break;
        case Token::Kind::ends:
          return {};
        case Token::Kind::opens:
          if (depth >= kMaxNginxDepth) return fail(fmt::format("line {}: too many blocks within blocks", token->line));
          directive.has_block = true;
          return block(directive.block, depth + 1);
        default:
          return fail(fmt::format("line {}: the directive {} is not ended by a ;", directive.line, directive.name));
      }
    }
  }

  Reader reader_;
};

}  // namespace

std::string NginxDirective::text() const {
  std::string out = name;
  for (const std::string& argument : arguments) out += " " + argument;
  return out;
}

Result<std::vector<NginxDirective>> parse_nginx(std::string_view text) {
  std::vector<NginxDirective> directives;
  if (Result<void> parsed = Parser(text).block(directives, 0); !parsed) return parsed.error();
  return directives;
}

}  // namespace tidegate::cli
