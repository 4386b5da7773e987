// SPDX-License-Identifier: Apache-2.0
// Faults as people see them, byte for byte.
#include <gtest/gtest.h>

#include "tests/unit/conf/documents.h"

namespace tidegate::render_test {

using testing::load_text;

TEST(RenderFaults, ShowsThreeTyposWithThreeCarets) {
  const auto loaded = load_text(R"(pools:
  - name: origins
    backends:
      - {name: a, addresses: [192.0.2.1], port: 8080, wieght: 10}
      - {name: b, addresses: [192.0.2.2], port: 80800}
routes:
  - {name: all, pool: orgins}
)");
  EXPECT_EQ(loaded.rendered(), R"(edge.yaml:4:55: a backend has no key 'wieght'
  4 |       - {name: a, addresses: [192.0.2.1], port: 8080, wieght: 10}
    |                                                       ^~~~~~
hint: did you mean 'weight'?
edge.yaml:5:49: port is 80800; expected 0 to 65535
  5 |       - {name: b, addresses: [192.0.2.2], port: 80800}
    |                                                 ^~~~~
edge.yaml:7:23: pool is 'orgins', which does not exist; expected a name from pools
  7 |   - {name: all, pool: orgins}
    |                       ^~~~~~
hint: did you mean 'origins'?
)");
}

TEST(RenderFaults, ShowsTheFirstSyntaxFault) {
  EXPECT_EQ(load_text("pools:\n  - name: 'a\n").rendered(), R"(edge.yaml:2:11: these quotes are never closed
  2 |   - name: 'a
    |           ^~
hint: a closing quote is missing
)");
}

TEST(RenderFaults, CountsCellsAndNotBytesBeforeTheCaret) {
  EXPECT_EQ(render_faults({{"x", "", "e.yaml", 1, 9, "wrong", "", ""}}, "{é: 日本, no: 1}\n", false),
            R"(e.yaml:1:9: wrong
  1 | {é: 日本, no: 1}
    |           ^~
)");
}

TEST(RenderFaults, CountsCharactersAndNotBytesInPlaces) {
  const auto loaded = load_text("\xef\xbb\xbfgeo: {note: \"é日\", wieght: 1}\n");
  ASSERT_EQ(loaded.faults.size(), 2U) << loaded.rendered();
  EXPECT_EQ(loaded.faults[1].column, 19U);
  EXPECT_NE(loaded.rendered().find("edge.yaml:1:19: "), std::string::npos) << loaded.rendered();
  EXPECT_NE(loaded.rendered().find("\n    |                    ^~~~~~\n"), std::string::npos) << loaded.rendered();
}

TEST(RenderFaults, PointsAtTheOpeningOfWhatIsNeverClosed) {
  const auto place = [](const std::string& text) {
    const auto loaded = load_text(text);
    return loaded.faults.empty() ? std::string() : loaded.rendered().substr(10, loaded.rendered().find('\n') - 10);
  };
  EXPECT_EQ(place("sites:\n  - {name: eu\nnodes: [\n"), "2:5: this { is never closed");
  EXPECT_EQ(place("pools: [{name: a, backends: [{name: b}]\nroutes: []\n"), "1:8: this [ is never closed");
  EXPECT_EQ(place("pools:\n  - {name: a, backends: [1, 2}\n"), "2:25: this [ is never closed");
  EXPECT_EQ(place("pools:\n  - {name: p, backends: [{name: a}]  # } missing\nroutes:\n  - {name: r}\n"),
            "2:5: this { is never closed");
  EXPECT_EQ(place("pools:\n  - {name: p, backends: [{name: a}\n  - {name: r}\n"), "2:5: this { is never closed");
  EXPECT_EQ(place("pools: [{name: a}\nroutes:\n  - name: r\n    path: /\n"), "1:8: this [ is never closed");
  EXPECT_EQ(place("pools:\n  - {name: p, - x}\nroutes: [\n"), "2:15: a '-' where no list was expected");
  EXPECT_EQ(place("pools:\n  - name: \"a\n  - name: b\n"), "2:11: these quotes are never closed");
  EXPECT_EQ(place("a: |\n  text { with [ brackets\nb: it's # {\nc: {é: [\n"), "4:4: this { is never closed");
}

TEST(RenderFaults, WidensTabs) {
  EXPECT_EQ(render_faults({{"x", "", "e.yaml", 1, 4, "wrong", "", ""}}, "a:\tb\n", false),
            "e.yaml:1:4: wrong\n  1 | a:      b\n    |         ^\n");
}

TEST(RenderFaults, ShowsAWindowOfALongLine) {
  const std::string line = std::string(200, 'x') + " here " + std::string(200, 'y');
  EXPECT_EQ(render_faults({{"x", "", "e.yaml", 1, 202, "wrong", "", ""}}, line, false),
            "e.yaml:1:202: wrong\n  1 | …" + std::string(39, 'x') + " here " + std::string(55, 'y') + "…\n    |  " +
                std::string(40, ' ') + "^~~~\n");
}

TEST(RenderFaults, PutsFaultsWithoutAPlaceLastAndNamesThemByPointer) {
  EXPECT_EQ(render_faults({{"x", "/a/0", "", 0, 0, "no place", "", ""}, {"y", "/b", "", 1, 1, "placed", "", ""}},
                          "b: 1\n", false),
            "configuration:1:1: placed\n  1 | b: 1\n    | ^\nconfiguration: /a/0: no place\n");
}

TEST(RenderFaults, SurvivesPlacesOutsideTheDocument) {
  EXPECT_EQ(render_faults({{"x", "", "e.yaml", 9, 9, "gone", "", ""}}, "a: 1\n", false), "e.yaml:9:9: gone\n");
  EXPECT_EQ(render_faults({{"x", "", "e.yaml", 1, 99, "gone", "", ""}}, "a\n", false),
            "e.yaml:1:99: gone\n  1 | a\n    |  ^\n");
}

TEST(RenderFaults, ColoursOnlyWhenAsked) {
  const std::vector<Fault> faults = {{"x", "", "e.yaml", 1, 1, "wrong", "", "look"}};
  EXPECT_EQ(render_faults(faults, "a\n", true),
            "\x1b[1me.yaml:1:1:\x1b[0m wrong\n  1 | a\n    | \x1b[1;31m^\x1b[0m\n\x1b[36mhint:\x1b[0m look\n");
}

}  // namespace tidegate::render_test
