// SPDX-License-Identifier: Apache-2.0
// Candidates: the changes from one version to the next, and what a plane has of them.
#include "conf/candidate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "conf/holding.h"
#include "conf/provisional.h"
#include "core/crypto.h"
#include "tests/unit/conf/forked.h"

namespace tidegate::candidate_test {

using ::testing::HasSubstr;

constexpr const char* kKey = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

ManifestEntry entry(const std::string& kind, const std::string& name, const std::string& bytes) {
  return {kind, name, sha256_hex(bytes)};
}

// From version 4 (a=1, b=2, d=4) to (a=1, b=3, c=a key).
struct Given {
  Manifest base;
  std::vector<ManifestEntry> entries = {entry("pools", "a", "1"), entry("pools", "b", "3"), entry("pools", "c", kKey)};
  Given() {
    base.version = 4;
    base.digest = "of four";
    base.entries = {entry("pools", "a", "1"), entry("pools", "b", "2"), entry("pools", "d", "4")};
  }
  CandidateVersion candidate() const {
    return candidate_between(77, base, entries, [](const ManifestEntry& wanted) {
      return std::make_shared<const std::string>(wanted.name == "b" ? "3" : kKey);
    });
  }
};

TEST(Candidate, HasOnlyWhatChanged) {
  const CandidateVersion candidate = Given().candidate();
  ASSERT_EQ(candidate.changes.size(), 3U);
  EXPECT_EQ(candidate.changes[0].name, "b");
  EXPECT_EQ(candidate.changes[1].name, "c");
  EXPECT_EQ(candidate.changes[2].name, "d");
  EXPECT_EQ(candidate.changes[2].hash, "") << "it is gone";
}

TEST(Candidate, LeadsFromItsBaseToItsManifest) {
  const Given given;
  const Result<CandidateVersion> sent = decode_candidate(encode_candidate(given.candidate(), true));
  ASSERT_TRUE(sent) << sent.error().message;
  const Result<Manifest> manifest = manifest_of(*sent, given.base);
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_EQ(manifest->version, 5U);
  EXPECT_EQ(manifest->entries, given.entries);
  EXPECT_EQ(manifest->digest, given.candidate().digest);

  Manifest another = given.base;
  another.digest = "of another four";
  EXPECT_FALSE(manifest_of(*sent, another));
  another = given.base;
  another.entries.pop_back();
  another.entries.push_back(entry("pools", "e", "5"));
  EXPECT_FALSE(manifest_of(*sent, another)) << "the digest finds what the base's own does not say";
}

TEST(Candidate, OfOneObjectIsTheSameAsOneBetweenItsVersions) {
  const Given given;
  const auto bytes = std::make_shared<const std::string>("20");
  std::vector<ManifestEntry> entries = given.base.entries;
  entries[1].hash = sha256_hex(*bytes);
  const auto between = candidate_between(77, given.base, entries, [&](const ManifestEntry&) { return bytes; });
  const auto with = candidate_with(77, given.base, {"pools", "b", sha256_hex(*bytes), bytes});
  ASSERT_TRUE(with);
  EXPECT_EQ(encode_candidate(*with, true), encode_candidate(between, true));
  EXPECT_EQ(manifest_of(*with, given.base)->entries, entries);
  EXPECT_FALSE(candidate_with(77, given.base, {"pools", "c", sha256_hex(*bytes), bytes})) << "the base has no such one";
  EXPECT_TRUE(candidate_with(77, given.base, {"pools", "a", sha256_hex("1"), nullptr})->changes.empty());
}

TEST(Candidate, LeavesPrivateKeysOutForThoseWhoTakeNone) {
  const Given given;
  EXPECT_THAT(encode_candidate(given.candidate(), true), HasSubstr(base64url_encode(kKey)));
  const std::string text = encode_candidate(given.candidate(), false);
  EXPECT_EQ(text.find(base64url_encode(kKey)), std::string::npos);
  const Result<CandidateVersion> sent = decode_candidate(text);
  ASSERT_TRUE(sent);
  EXPECT_TRUE(sent->changes[1].withheld);
  EXPECT_EQ(sent->changes[1].bytes, nullptr);
  EXPECT_TRUE(manifest_of(*sent, given.base)) << "its hash is known";
}

TEST(Candidate, BadOnesAreRefused) {
  const std::string good = encode_candidate(Given().candidate(), true);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  };
  ASSERT_TRUE(decode_candidate(good));
  EXPECT_FALSE(decode_candidate(""));
  EXPECT_FALSE(decode_candidate("[]"));
  EXPECT_FALSE(decode_candidate("{}"));
  EXPECT_FALSE(decode_candidate(with("\"base\":4", "\"base\":\"4\"")));
  EXPECT_FALSE(decode_candidate(with("\"candidate\":77", "\"candidate\":0")));
  EXPECT_FALSE(decode_candidate(with(base64url_encode("3"), base64url_encode("5")))) << "not what its hash says";
  EXPECT_FALSE(decode_candidate(with("\"name\":\"d\"", "\"name\":\"a\""))) << "out of order";
  EXPECT_FALSE(decode_vote("{\"vote\":\"perhaps\"}"));
  EXPECT_FALSE(decode_vote("yes"));
}

TEST(Candidate, VotesComeBackAsTheyWere) {
  Vote vote = Vote::no("the port is taken");
  vote.needs_restart = {"l7.workers"};
  vote.missing = {"dns"};
  const Result<Vote> again = decode_vote(encode_vote(vote));
  ASSERT_TRUE(again);
  EXPECT_EQ(again->choice, Vote::Choice::no);
  EXPECT_EQ(again->why, vote.why);
  EXPECT_EQ(again->needs_restart, vote.needs_restart);
  EXPECT_EQ(again->missing, vote.missing);
}

using Kind = Holding::Step::Kind;

TEST(Holding, ANewerCandidateTakesThePlaceAndAnOlderOneDoesNot) {
  Holding holding;
  EXPECT_EQ(holding.on_prepare(5).kind, Kind::prepare);
  holding.prepared(5, "five", {}, 0);
  EXPECT_EQ(holding.on_prepare(5).kind, Kind::repeat);
  EXPECT_EQ(holding.on_prepare(4).kind, Kind::refuse);
  const Holding::Step newer = holding.on_prepare(6);
  EXPECT_EQ(newer.kind, Kind::prepare);
  EXPECT_TRUE(newer.release);
  holding.prepared(6, "six", Vote::no("no"), 0);
  EXPECT_FALSE(holding.holds());
  EXPECT_EQ(holding.on_prepare(6).kind, Kind::repeat);
  EXPECT_EQ(holding.on_prepare(4).kind, Kind::prepare) << "nothing stands in its way";
}

TEST(Holding, LetsGoOnceWhenToldAndWhenItsTimeIsOver) {
  Holding holding;
  holding.prepared(5, "five", {}, 100);
  EXPECT_FALSE(holding.on_release(4)) << "another one";
  EXPECT_TRUE(holding.on_release(5));
  EXPECT_FALSE(holding.on_release(5));
  EXPECT_EQ(holding.on_prepare(5).kind, Kind::refuse) << "the question comes after the release";
  holding.prepared(6, "six", {}, 100);
  EXPECT_FALSE(holding.on_time(99 + Holding::kHeldNs));
  EXPECT_TRUE(holding.on_time(100 + Holding::kHeldNs));
  EXPECT_FALSE(holding.holds());
}

TEST(Holding, IsRecognizedByItsDigestAndOutlivesAnotherVersion) {
  Holding holding;
  holding.prepared(5, "five", {}, 0);
  EXPECT_TRUE(holding.holds("five"));
  EXPECT_FALSE(holding.holds("four"));
  EXPECT_FALSE(holding.on_version("four")) << "a plane that is behind takes up the version before";
  EXPECT_TRUE(holding.holds("five"));
  EXPECT_TRUE(holding.on_version("five"));
  EXPECT_FALSE(holding.holds());
}

TEST(Provisional, PlanesServeTheVersionBeforeOnceTheHostWentBack) {
  const TempDir directory;
  const std::string state = directory / "";
  EXPECT_FALSE(read_provisional(state));
  EXPECT_EQ(version_to_serve(state, 7), 7U);
  ProvisionalVersion provisional{7, sha256_hex(""), 6, 60'000, false};
  ASSERT_TRUE(write_provisional(state, provisional));
  EXPECT_EQ(read_provisional(state), provisional);
  EXPECT_EQ(version_to_serve(state, 7), 7U);
  provisional.went_back = true;
  ASSERT_TRUE(write_provisional(state, provisional));
  EXPECT_EQ(version_to_serve(state, 7), 6U);
  EXPECT_EQ(version_to_serve(state, 8), 8U) << "the leader decided something else";
  std::ofstream(state + "/provisional") << "7 nonsense 6 1 1\n";
  EXPECT_FALSE(read_provisional(state));
  ASSERT_TRUE(remove_provisional(state));
  ASSERT_TRUE(remove_provisional(state));
}

}  // namespace tidegate::candidate_test
