// SPDX-License-Identifier: Apache-2.0
#include "conf/expansion.h"
#include "conf/model.h"
#include "conf/model/pool.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "conf/limits.h"

namespace tidegate::expansion_test {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

using Texts = std::map<std::string, std::string>;

struct Expanded {
  std::unique_ptr<Document> document;
  std::shared_ptr<const Model> model;
  std::vector<Fault> faults;
  std::string text;

  std::string rendered() const { return render_faults(faults, text, false); }
  nlohmann::json json() const { return document->to_json(); }
};

// Reads files["edge.yaml"] as /etc/edge/edge.yaml.
Expanded expanded(const Texts& files, const Texts& variables = {}) {
  Expanded out;
  out.text = files.at("edge.yaml");
  const FileReader reader = [&](const std::string& path, std::string& error) -> std::shared_ptr<const std::string> {
    const auto found = files.find(path);
    if (found != files.end()) return std::make_shared<const std::string>(found->second);
    error = "there is no such file";
    return nullptr;
  };
  const Surroundings surroundings{[&](const std::string& name) -> std::optional<std::string> {
                                    const auto found = variables.find(name);
                                    return found == variables.end() ? std::nullopt : std::optional(found->second);
                                  },
                                  reader, reader};
  ExpandedDocument read = expand_document("/etc/edge/edge.yaml", out.text, surroundings, out.faults);
  out.document = std::move(read.document);
  if (read.complete) out.model = load_model(*out.document, reader, out.faults);
  return out;
}

std::string redirect(const Expanded& of) { return of.json().at("routes").at(0).at("redirect"); }
std::string route(const std::string& to) { return "routes:\n  - {name: r, redirect: \"" + to + "\"}\n"; }

TEST(Insertions, AreVariablesDefaultsAndFiles) {
  const Texts variables = {{"HOST", "a.test"}, {"EMPTY", ""}};
  const auto value = [&](const std::string& text) {
    return redirect(expanded({{"edge.yaml", route(text)}, {"secret", "s3cret\r\n"}, {"two", "x\n\n"}}, variables));
  };
  EXPECT_EQ(value("https://${HOST}/x"), "https://a.test/x");
  EXPECT_EQ(value("https://${HOST}${HOST}"), "https://a.testa.test");
  EXPECT_EQ(value("https://${NONE:-b.test}/"), "https://b.test/");
  EXPECT_EQ(value("https://${EMPTY:-b.test}/"), "https://b.test/") << "as in a shell";
  EXPECT_EQ(value("https://a${EMPTY}/"), "https://a/");
  EXPECT_EQ(value("https://a/${file:secret}"), "https://a/s3cret");
  EXPECT_EQ(value("https://a/$${HOST}"), "https://a/${HOST}");
  EXPECT_EQ(value("https://a/$HOST$"), "https://a/$HOST$") << "only ${ begins one";
}

TEST(Insertions, AreNotExpandedAgain) {
  EXPECT_EQ(redirect(expanded({{"edge.yaml", route("https://a/${A}")}}, {{"A", "${B}"}, {"B", "x"}})),
            "https://a/${B}");
}

TEST(Insertions, StandForNumbersInFlowLists) {
  const Expanded out = expanded(
      {{"edge.yaml", "pools:\n  - {name: p, backends: [{name: b, addresses: [\"${IP}\"], port: \"${PORT}\"}]}\n"}},
      {{"IP", "192.0.2.1"}, {"PORT", "8080"}});
  ASSERT_NE(out.model, nullptr) << out.rendered();
  EXPECT_EQ(out.model->pools[0].backends[0].port, 8080);
  EXPECT_TRUE(out.document->expanded());
}

TEST(Insertions, OfNothingLeaveTheDocumentAsItIs) {
  EXPECT_FALSE(expanded({{"edge.yaml", route("https://a/")}}).document->expanded());
}

TEST(Insertions, ThatFailAreFaultsAtTheirValue) {
  const auto fault = [](const std::string& text, const Texts& variables = {}) {
    const Expanded out = expanded({{"edge.yaml", route(text)}}, variables);
    EXPECT_EQ(out.model, nullptr);
    EXPECT_EQ(out.faults.size(), 1U) << out.rendered();
    EXPECT_EQ(out.faults.at(0).line, 2U);
    EXPECT_EQ(out.faults.at(0).column, 25U);
    EXPECT_EQ(out.faults.at(0).pointer, "/routes/0/redirect");
    return out.faults.at(0).code + ": " + out.faults.at(0).detail + " (" + out.faults.at(0).hint + ")";
  };
  EXPECT_EQ(fault("${HOST}"),
            "unset_variable: the environment has no variable HOST (set it, or write ${HOST:-default})");
  EXPECT_THAT(fault("${HOST"), HasSubstr("never closed"));
  EXPECT_THAT(fault("${a.b}"), HasSubstr("'a.b' is not the name of a variable (write $${"));
  EXPECT_THAT(fault("${}"), HasSubstr("is not the name of a variable"));
  EXPECT_THAT(fault("${file:none}"), HasSubstr("cannot read 'none': there is no such file"));
  EXPECT_THAT(fault("${file:}"), HasSubstr("no file is named"));
  EXPECT_THAT(fault("${A}", {{"A", "\x01"}}), HasSubstr("no document may have"));
  EXPECT_THAT(fault("${A}", {{"A", std::string(kMaxInsertedValueBytes + 1, 'x')}}), HasSubstr("too many bytes"));
}

TEST(Insertions, AreBoundedTogether) {
  std::string text = "routes:\n";
  const size_t enough = kMaxInsertedBytes / kMaxInsertedValueBytes;
  for (size_t i = 0; i <= enough; ++i) text += fmt::format("  - {{name: r{}, status: 200, body: \"${{A}}\"}}\n", i);
  const Texts variables = {{"A", std::string(kMaxInsertedValueBytes, 'x')}};
  const Expanded out = expanded({{"edge.yaml", text}}, variables);
  ASSERT_EQ(out.faults.size(), 1U);
  EXPECT_EQ(out.faults[0].code, "too_large");
  EXPECT_EQ(out.faults[0].line, enough + 2);
}

TEST(Insertions, OfAVersionComeBackAfterTheirEscape) {
  for (const std::string text : {"https://a/${X}", "https://a/$${X}", "https://a/$$${", "https://a/$ {"}) {
    EXPECT_EQ(redirect(expanded({{"edge.yaml", route(escape_expansions(text))}})), text);
  }
}

const std::string kMain =
    "include: [parts/pools.yaml, parts/routes.yaml]\n"
    "pools:\n  - {name: a, backends: [{name: b, addresses: [192.0.2.1], port: 80}]}\n"
    "geo:\n  networks: [{network: 192.0.2.0/24, location: {latitude: 1, longitude: 1}}]\n";

TEST(Includes, AddTheirListsAndJoinTheirMaps) {
  const Expanded out = expanded(
      {{"edge.yaml", kMain},
       {"parts/pools.yaml",
        "pools:\n  - {name: b, backends: [{name: b, addresses: [192.0.2.2], port: 80}]}\ngeo: {default_site: s}\n"},
       {"parts/routes.yaml", "include: parts/sites.yaml\nroutes: [{name: r, pool: b}]\n"},
       {"parts/sites.yaml", "sites: [{name: s, location: {latitude: 1, longitude: 1}}]\n"}});
  ASSERT_NE(out.model, nullptr) << out.rendered();
  EXPECT_EQ(out.model->pools.size(), 2U);
  EXPECT_EQ(out.model->pools[1].name, "b");
  EXPECT_EQ(out.json().at("geo").at("default_site"), "s");
  EXPECT_EQ(out.json().at("geo").at("networks").size(), 1U);
  EXPECT_EQ(out.json().count("include"), 0U) << "a version has the content";
}

TEST(Includes, OfEmptyDocumentsAddNothing) {
  const Expanded out = expanded({{"edge.yaml", "include: a.yaml\n"}, {"a.yaml", "# nothing yet\n"}});
  EXPECT_THAT(out.rendered(), ::testing::Not(HasSubstr("a.yaml")));
}

TEST(Includes, HaveTheirFaultsAtTheirOwnPlace) {
  const Expanded out =
      expanded({{"edge.yaml", kMain},
                {"parts/pools.yaml", "# two\npools:\n  - {name: b, backend: []}\n"},
                {"parts/routes.yaml", "routes:\n  - {name: ö, polo: a}\n  - name: \"é\"\n    status: 700\n"}});
  EXPECT_EQ(out.model, nullptr);
  const std::string told = out.rendered();
  EXPECT_THAT(told, HasSubstr("/etc/edge/parts/pools.yaml:3:"));
  EXPECT_THAT(told, HasSubstr("  3 |   - {name: b, backend: []}"));
  EXPECT_THAT(told, HasSubstr("/etc/edge/parts/routes.yaml:2:15: ")) << "characters are counted\n" << told;
  EXPECT_THAT(told, HasSubstr("/etc/edge/parts/routes.yaml:4:13: status is 700")) << told;
  EXPECT_THAT(told, ::testing::Not(HasSubstr("edge.yaml:"))) << told;
}

TEST(Includes, HaveTheirSyntaxFaultsAtTheirOwnPlace) {
  const Expanded out = expanded({{"edge.yaml", "include: [a.yaml]\n"}, {"a.yaml", "pools:\n  - {name: b\nx: 1\n"}});
  ASSERT_EQ(out.faults.size(), 1U) << out.rendered();
  EXPECT_EQ(out.faults[0].file, "/etc/edge/a.yaml");
  EXPECT_EQ(out.faults[0].line, 2U);
  EXPECT_THAT(out.rendered(), HasSubstr("  2 |   - {name: b"));
}

TEST(Includes, NameTheOtherFileOfADuplicate) {
  const std::string pool = "pools:\n  - {name: a, backends: [{name: b, addresses: [192.0.2.1], port: 80}]}\n";
  const Expanded out = expanded({{"edge.yaml", "include: [x.yaml]\n" + pool}, {"x.yaml", pool}});
  ASSERT_FALSE(out.faults.empty());
  EXPECT_THAT(out.rendered(), HasSubstr("/etc/edge/x.yaml:2:12: pool 'a' stands twice"));
  EXPECT_THAT(out.rendered(), HasSubstr("the first is at line 3 of /etc/edge/edge.yaml"));
  const Expanded keys = expanded(
      {{"edge.yaml", "include: [x.yaml]\ngeo: {default_site: a}\n"}, {"x.yaml", "\n\ngeo: {default_site: b}\n"}});
  ASSERT_EQ(keys.faults.size(), 1U) << keys.rendered();
  EXPECT_THAT(keys.rendered(), HasSubstr("/etc/edge/x.yaml:3:7: key 'default_site' is in two documents"));
  EXPECT_THAT(keys.rendered(), HasSubstr("at line 2 of /etc/edge/edge.yaml"));
  EXPECT_EQ(keys.faults[0].pointer, "/geo/default_site");
}

TEST(Includes, ThatCannotBeAreFaultsAtTheirPath) {
  const auto code = [](const std::string& include, Texts files = {}) {
    files["edge.yaml"] = "# first\ninclude: [" + include + "]\n";
    const Expanded out = expanded(files);
    EXPECT_EQ(out.faults.size(), 1U) << out.rendered();
    return fmt::format("{} {}:{}", out.faults.at(0).code, out.faults.at(0).file, out.faults.at(0).line);
  };
  const std::string here = " /etc/edge/edge.yaml:2";
  EXPECT_EQ(code("none.yaml"), "unreadable_file" + here);
  EXPECT_EQ(code("../x.yaml"), "outside_folder" + here);
  EXPECT_EQ(code("a/../../x.yaml"), "outside_folder" + here);
  EXPECT_EQ(code("/etc/passwd"), "outside_folder" + here);
  EXPECT_EQ(code("\"\""), "outside_folder" + here);
  EXPECT_EQ(code("{a: b}"), "wrong_type" + here);
  EXPECT_EQ(code("edge.yaml"), "include_cycle" + here);
  EXPECT_EQ(code("./a/../edge.yaml"), "include_cycle" + here);
  EXPECT_EQ(code("list.yaml", {{"list.yaml", "[1, 2]\n"}}), "wrong_type" + here);
  EXPECT_EQ(code("a.yaml", {{"a.yaml", "include: b.yaml\n"}, {"b.yaml", "include: a.yaml\n"}}),
            "include_cycle /etc/edge/b.yaml:1");
}

// A folder with a document and files, and one beside it.
class Folders : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "expansion-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    home = name;
    fs::create_directories(home / "edge/parts");
    fs::create_directory(home / "outside");
    put("outside/site.yaml", "sites: [{name: x}]\n");
  }
  void TearDown() override { fs::remove_all(home); }
  void put(const std::string& path, const std::string& text) const { std::ofstream(home / path) << text; }
  std::string loaded() const {
    const LoadedFile file = load_file((home / "edge/edge.yaml").string());
    if (file.faults.empty()) return "";
    const Fault& fault = file.faults.front();
    return fmt::format("{} {}:{}:{} {}", fault.code, fs::path(fault.file).filename().string(), fault.line, fault.column,
                       fault.detail);
  }

  fs::path home;
};

TEST_F(Folders, KeepWhatIsIncludedBelowThemAlsoByLinks) {
  put("edge/edge.yaml", "include:\n  - parts/a.yaml\n");
  const auto link = [&](const fs::path& to) {
    fs::remove_all(home / "edge/parts");
    fs::create_directory(home / "edge/parts");
    fs::create_symlink(to, home / "edge/parts/a.yaml");
    return loaded();
  };
  const std::string refused =
      "outside_folder edge.yaml:2:5 'parts/a.yaml' is not below the document's folder: a symbolic link leads out of "
      "the "
      "document's folder";
  EXPECT_EQ(link("../../outside/site.yaml"), refused);
  EXPECT_EQ(link(home / "outside/site.yaml"), refused);
  put("edge/site.yaml", "sites: [{name: x}]\n");
  EXPECT_EQ(link("../site.yaml"), "");
  EXPECT_EQ(link(home / "edge/site.yaml"), "");
  EXPECT_THAT(link("nowhere"), HasSubstr("unreadable_file edge.yaml:2:5"));
  EXPECT_THAT(link("a.yaml"), HasSubstr("unreadable_file edge.yaml:2:5"));
  // A folder that is a link is no way out either. Folders of a similar name are others.
  fs::remove_all(home / "edge/parts");
  fs::create_symlink(home / "outside", home / "edge/parts");
  put("edge/edge.yaml", "include: parts/site.yaml\n");
  EXPECT_THAT(loaded(), HasSubstr("outside_folder edge.yaml:1:10"));
  fs::rename(home / "outside", home / "edge-2");
  fs::remove(home / "edge/parts");
  fs::create_symlink("../edge-2", home / "edge/parts");
  EXPECT_THAT(loaded(), HasSubstr("outside_folder"));
  // The document's own folder may be reached by a link.
  fs::remove(home / "edge/parts");
  fs::create_directory(home / "edge/parts");
  put("edge/parts/site.yaml", "sites: [{name: x}]\n");
  fs::rename(home / "edge", home / "real");
  fs::create_symlink("real", home / "edge");
  EXPECT_EQ(loaded(), "");
}

TEST_F(Folders, KeepWhatAZoneFileIncludesBelowThem) {
  put("edge/edge.yaml", "nodes: [{name: n, dns: {}}]\nzones:\n  - {name: example.test, file: zone}\n");
  const std::string head = "$TTL 60\n@ SOA ns h 1 1 1 1 1\n@ NS ns\nns A 192.0.2.1\n";
  put("edge/zone", head + "$INCLUDE parts/more\n");
  put("edge/parts/more", "a A 192.0.2.2\n");
  EXPECT_EQ(loaded(), "");
  put("outside/more", "a A 192.0.2.2\n");
  fs::remove(home / "edge/parts/more");
  fs::create_symlink("../../outside/more", home / "edge/parts/more");
  EXPECT_THAT(loaded(), HasSubstr("a symbolic link leads out of the document's folder"));
}

TEST(Includes, AreBoundedInDepthAndNumber) {
  Texts chain = {{"edge.yaml", "include: 1.yaml\n"}};
  for (size_t i = 1; i <= kMaxIncludeDepth; ++i)
    chain[fmt::format("{}.yaml", i)] = fmt::format("include: {}.yaml\n", i + 1);
  chain[fmt::format("{}.yaml", kMaxIncludeDepth + 1)] = "";
  const Expanded deep = expanded(chain);
  ASSERT_EQ(deep.faults.size(), 1U) << deep.rendered();
  EXPECT_EQ(deep.faults[0].code, "too_deep");
  chain[fmt::format("{}.yaml", kMaxIncludeDepth)] = "sites: [{name: s}]\n";
  EXPECT_NE(expanded(chain).model, nullptr) << "the deepest that is allowed";

  std::string many = "include:\n";
  for (size_t i = 0; i < kMaxIncludedFiles; ++i) many += "  - a.yaml\n";
  EXPECT_EQ(expanded({{"edge.yaml", many + "sites: [{name: s}]\n"}, {"a.yaml", ""}}).faults.size(), 0U);
  const Expanded wide = expanded({{"edge.yaml", many + "  - a.yaml\n"}, {"a.yaml", ""}});
  ASSERT_EQ(wide.faults.size(), 1U);
  EXPECT_EQ(wide.faults[0].code, "too_many");
  EXPECT_EQ(wide.faults[0].line, kMaxIncludedFiles + 2);
}

}  // namespace tidegate::expansion_test
