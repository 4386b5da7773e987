// SPDX-License-Identifier: Apache-2.0
#include "conf/state_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "conf/served_version.h"
#include "conf/state_store_impl.h"
#include "core/crypto.h"
#include "tests/unit/conf/forked.h"

namespace tidegate::state_store_test {

using ::testing::HasSubstr;
using Mode = StateStore::Mode;

std::unique_ptr<StateStore> open(const std::string& directory, Mode mode = Mode::read_write) {
  Result<std::unique_ptr<StateStore>> store = StateStore::open(directory, mode);
  EXPECT_TRUE(store) << (store ? "" : store.error().message);
  return store ? *std::move(store) : nullptr;
}

std::vector<ConfigObject> pools(int count, const std::string& changed = "") {
  std::vector<ConfigObject> out;
  for (int i = 0; i < count; ++i) {
    const std::string name = "pool-" + std::to_string(i);
    out.push_back({"pools", name, "{\"name\":\"" + name + "\"" + (name == changed ? ",\"changed\":true}" : "}")});
  }
  return out;
}

size_t entry_count(const Result<std::vector<ConfigObject>>& objects) { return objects ? objects->size() : SIZE_MAX; }

TEST(StateStore, KeepsEveryVersionAsItWas) {
  const TempDir directory;
  const auto store = open(directory.path());
  std::vector<ConfigObject> objects = pools(3);
  ASSERT_TRUE(store->commit_version(objects, 0, "ann", "first"));
  objects[1].bytes = "changed";
  ASSERT_TRUE(store->commit_version(objects, 1, "bob", "second"));
  objects.erase(objects.begin());
  const Result<Manifest> third = store->commit_version(objects, 2, "bob", "third");
  ASSERT_TRUE(third);
  EXPECT_EQ(third->version, 3U);

  const Result<Manifest> first = store->manifest(1);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->author, "ann");
  EXPECT_EQ(first->comment, "first");
  EXPECT_EQ(first->entries.size(), 3U);
  EXPECT_EQ(store->objects(*first)->at(1).bytes, pools(3)[1].bytes);
  EXPECT_EQ(store->objects(*store->manifest(2))->at(1).bytes, "changed");
  EXPECT_EQ(store->manifest(3)->entries.size(), 2U);
  EXPECT_EQ(store->manifest(3)->digest, manifest_digest(store->manifest(3)->entries));
  EXPECT_FALSE(store->manifest(4));
  EXPECT_EQ(store->list_versions(2)->front().version, 3U);
  EXPECT_EQ(store->head()->version, 3U);
}

// The hash of the object of that name.
std::string entry_named(const Manifest& manifest, const std::string& name) {
  for (const ManifestEntry& entry : manifest.entries) {
    if (entry.name == name) return entry.hash;
  }
  return {};
}

TEST(StateStore, KeepsAsManyVersionsAsItIsTold) {
  const TempDir directory;
  const auto store = open(directory.path());
  store->keep_versions(5);
  for (uint64_t version = 0; version < 20; ++version) {
    ASSERT_TRUE(store->commit_version({{"pools", "p", std::to_string(version)}}, version, "ann", ""));
  }
  EXPECT_EQ(store->list_versions(100)->size(), 5U);
  EXPECT_TRUE(store->manifest(16));
  EXPECT_FALSE(store->manifest(15));
}

// A plane that has refused everything since then may go back to the version that it served, however old that is.
TEST(StateStore, KeepsTheVersionsThatPlanesServe) {
  const TempDir directory;
  const auto store = open(directory.path());
  store->keep_versions(5);
  const auto objects_of = [](uint64_t version) {
    std::vector<ConfigObject> objects = {{"pools", "p", std::to_string(version)}};
    if (version <= 3) objects.push_back({"pools", "early", "e"});
    if (version % 2 == 0) objects.push_back({"pools", "even", "x"});
    return objects;
  };
  for (uint64_t version = 1; version <= 20; ++version) {
    const auto committed = store->commit_version(objects_of(version), version - 1, "ann", "");
    ASSERT_TRUE(committed);
    if (version == 2) ASSERT_TRUE(write_served(directory.path(), "dns", {2, committed->digest}));
    if (version == 9) ASSERT_TRUE(write_served(directory.path(), "l7", {9, committed->digest}));
  }
  for (const uint64_t version : {2, 9, 16, 17, 18, 19, 20}) {
    const Result<Manifest> manifest = store->manifest(version);
    ASSERT_TRUE(manifest) << version;
    EXPECT_EQ(manifest->digest, manifest_digest(manifest->entries));
    const Result<std::vector<ConfigObject>> objects = store->objects(*manifest);
    ASSERT_TRUE(objects) << version << ": " << objects.error().message;
    EXPECT_EQ(objects->size(), objects_of(version).size()) << version;
  }
  EXPECT_FALSE(store->manifest(8));
  EXPECT_FALSE(store->manifest(15));

  // When no plane names them any more, they are removed with their objects.
  const std::string early = entry_named(*store->manifest(2), "early");
  ASSERT_TRUE(store->has_object(early));
  for (const char* plane : {"dns", "l7"})
    ASSERT_TRUE(write_served(directory.path(), plane, {20, store->manifest(20)->digest}));
  for (uint64_t version = 21; version <= 27; ++version) {
    ASSERT_TRUE(store->commit_version(objects_of(version), version - 1, "ann", ""));
  }
  EXPECT_FALSE(store->manifest(2));
  EXPECT_FALSE(store->has_object(early));
  EXPECT_EQ(store->list_versions(100)->size(), 6U) << "20 is still served";
}

TEST(StateStore, IsCopiedWholeWhileItsWriterGoesOn) {
  const TempDir directory, copy;
  const auto store = open(directory.path());
  ASSERT_TRUE(store->commit_version(pools(50), 0, "ann", "first"));
  ASSERT_TRUE(store->set_verdicts({{"backend/a/b", HealthVerdict{true, "", 1}}}));
  ASSERT_TRUE(store->copy_to(copy.path()));
  ASSERT_TRUE(store->commit_version(pools(51), 1, "ann", "second"));
  EXPECT_FALSE(store->copy_to(copy.path())) << "nothing is over-written";
  const auto copied = open(copy.path());
  EXPECT_EQ(copied->head()->version, 1U);
  EXPECT_EQ(copied->head()->live_state, 1U);
  EXPECT_EQ(entry_count(copied->objects(*copied->manifest(1))), 50U);
  EXPECT_TRUE(copied->commit_version(pools(2), 1, "bob", "from here on"));
}

TEST(StateStore, GivesEqualContentAnEqualDigestWhateverItsOrder) {
  const TempDir directory;
  const auto store = open(directory.path());
  std::vector<ConfigObject> objects = pools(10);
  const std::string digest = store->commit_version(objects, 0, "ann", "")->digest;
  std::reverse(objects.begin(), objects.end());
  EXPECT_EQ(store->commit_version(objects, 1, "ann", "")->digest, digest);
  EXPECT_NE(store->commit_version(pools(10, "pool-4"), 2, "ann", "")->digest, digest);
}

TEST(StateStore, RollsBackToTheObjectsOfAnOlderVersion) {
  const TempDir directory;
  const auto store = open(directory.path());
  ASSERT_TRUE(store->commit_version(pools(5), 0, "ann", ""));
  ASSERT_TRUE(store->commit_version(pools(2, "pool-1"), 1, "ann", ""));
  const Result<std::vector<ConfigObject>> old = store->objects(*store->manifest(1));
  const Result<Manifest> restored = store->commit_version(*old, 2, "ann", "back", 1);
  ASSERT_TRUE(restored);
  EXPECT_EQ(restored->digest, store->manifest(1)->digest);
  EXPECT_EQ(store->manifest(3)->rollback_of, 1U);
  EXPECT_EQ(store->audit_newest(1)->front().action, "rollback");
}

TEST(StateStore, RefusesAChangeThatWasBasedOnAnotherVersion) {
  const TempDir directory;
  const auto store = open(directory.path());
  ASSERT_TRUE(store->commit_version(pools(1), 0, "ann", ""));
  const Result<Manifest> late = store->commit_version(pools(2), 0, "bob", "");
  ASSERT_FALSE(late);
  EXPECT_THAT(late.error().message, HasSubstr("conflict: the configuration is at version 1"));
  EXPECT_EQ(store->manifest(1)->entries.size(), 1U);
}

TEST(StateStore, RefusesWhatNoManifestCanHold) {
  const TempDir directory;
  const auto store = open(directory.path());
  EXPECT_THAT(store->commit_version({{"file", std::string(600, 'x'), ""}}, 0, "", "").error().message,
              HasSubstr("490 bytes at most"));
  EXPECT_THAT(store->commit_version({{"pools", "a", "1"}, {"pools", "a", "2"}}, 0, "", "").error().message,
              HasSubstr("pools 'a' is there twice"));
  EXPECT_EQ(store->head()->version, 0U);
}

TEST(StateStore, ForgetsTheOldestVersionsAndTheObjectsThatOnlyTheyNamed) {
  const TempDir directory;
  const auto store = open(directory.path());
  uint64_t version = 0;
  std::string first_hash, removed_hash;
  for (; version < 1'100; ++version) {
    std::vector<ConfigObject> objects = {{"pools", "same", "same"}, {"pools", "new", std::to_string(version)}};
    if (version == 5) objects.push_back({"pools", "short-lived", "short-lived"});
    const Result<Manifest> manifest = store->commit_version(objects, version, "ann", "");
    ASSERT_TRUE(manifest);
    if (version == 0) first_hash = manifest->entries[0].hash;
    if (version == 5) removed_hash = sha256_hex("short-lived");
  }
  const Result<std::vector<Manifest>> kept = store->list_versions(10'000);
  EXPECT_GE(kept->size(), 1'000U);
  EXPECT_LE(kept->size(), 1'050U);
  EXPECT_FALSE(store->has_object(first_hash));
  EXPECT_FALSE(store->has_object(removed_hash));
  EXPECT_TRUE(store->has_object(sha256_hex("same")));
  for (const Manifest& each : *kept) {
    const Result<Manifest> manifest = store->manifest(each.version);
    ASSERT_TRUE(manifest);
    ASSERT_EQ(manifest_digest(manifest->entries), each.digest) << each.version;
    ASSERT_EQ(entry_count(store->objects(*manifest)), 2U) << each.version;
  }
}

TEST(StateStore, KeepsWordsBesideVersions) {
  const TempDir directory;
  const auto store = open(directory.path());
  EXPECT_EQ(*store->set_override("backend/web/a", Override{OverrideState::drained, "ops", "upgrade", 5}, "ops"), 1U);
  EXPECT_EQ(*store->set_verdicts(
                {{"backend/web/a", HealthVerdict{false, "refused", 6}}, {"backend/web/b", HealthVerdict{true, "", 7}}}),
            2U);
  Result<LiveState> live_state = store->live_state();
  EXPECT_EQ(live_state->sequence, 2U);
  EXPECT_EQ(live_state->overrides.at("backend/web/a").note, "upgrade");
  EXPECT_EQ(live_state->health.at("backend/web/a").reason, "refused");
  EXPECT_EQ(live_state->health.at("backend/web/a").since_ns, 6U);
  EXPECT_TRUE(live_state->health.at("backend/web/b").up);
  EXPECT_EQ(*store->set_override("backend/web/a", std::nullopt, "ops"), 3U);
  EXPECT_TRUE(store->live_state()->overrides.empty());
  EXPECT_EQ(store->audit_newest(1)->front().action, "undrain");
}

TEST(StateStore, KeepsQuotas) {
  const TempDir directory;
  const auto store = open(directory.path());
  ASSERT_TRUE(store->set_override("limit/q", Override{OverrideState::quota, "ops", "campaign", 5, 70, 100}, "ops"));
  const Override kept = store->live_state()->overrides.at("limit/q");
  EXPECT_EQ(kept.state, OverrideState::quota);
  EXPECT_EQ(kept.requests, 70U);
  EXPECT_EQ(kept.burst, 100U);
  EXPECT_EQ(store->audit_newest(1)->front().action, "quota");
  ASSERT_TRUE(store->set_override("limit/q", std::nullopt, "ops"));
  EXPECT_EQ(store->audit_newest(1)->front().action, "quota_as_configured");
}

TEST(StateStore, KeepsWordsOnPlanes) {
  const TempDir directory;
  const auto store = open(directory.path());
  ASSERT_TRUE(store->set_override("plane/a/l4", Override{OverrideState::up, "ops", "known", 5}, "ops"));
  ASSERT_TRUE(store->set_override("plane/b/l4", Override{OverrideState::down, "ops", "", 5}, "ops"));
  ASSERT_TRUE(store->set_verdicts({{"plane/a/l4", HealthVerdict{false, "it is ending", 6, true}},
                                   {"plane/b/l4", HealthVerdict{false, "gone", 6}}}));
  const Result<LiveState> live_state = store->live_state();
  EXPECT_EQ(live_state->overrides.at("plane/a/l4").state, OverrideState::up);
  EXPECT_EQ(live_state->overrides.at("plane/b/l4").state, OverrideState::down);
  EXPECT_TRUE(live_state->health.at("plane/a/l4").drains);
  EXPECT_FALSE(live_state->health.at("plane/a/l4").up);
  EXPECT_FALSE(live_state->health.at("plane/b/l4").drains);
  EXPECT_EQ(store->audit_newest(2)->back().action, "keep_up");
}

TEST(StateStore, DoesNotMoveTheSequenceForVerdictsThatSayNothingNew) {
  const TempDir directory;
  const auto store = open(directory.path());
  const HealthVerdict up{true, "", 7};
  EXPECT_EQ(*store->set_verdicts({{"backend/web/a", up}}), 1U);
  EXPECT_EQ(*store->set_verdicts({{"backend/web/a", up}}), 1U);
  EXPECT_EQ(*store->set_verdicts({{"backend/web/none", std::nullopt}}), 1U);
  EXPECT_EQ(*store->set_verdicts({{"backend/web/a", std::nullopt}}), 2U);
}

TEST(StateStore, NumbersPurgesAndKeepsTheNewest) {
  const TempDir directory;
  const auto store = open(directory.path());
  for (int i = 1; i <= 10'020; ++i) ASSERT_TRUE(store->add_purge(PurgeKind::tag, "t" + std::to_string(i), true, "ops"));
  EXPECT_EQ(store->head()->purge, 10'020U);
  EXPECT_EQ(store->purges_after(0, 1)->front().sequence, 21U);
  const Result<std::vector<Purge>> last = store->purges_after(10'018, 100);
  ASSERT_EQ(last->size(), 2U);
  EXPECT_EQ(last->at(1).value, "t10020");
  EXPECT_EQ(last->at(1).kind, PurgeKind::tag);
  EXPECT_TRUE(last->at(1).soft);
}

TEST(StateStore, AdoptsWhatAnotherHostDecided) {
  const TempDir here, there;
  const auto truth = open(there.path());
  ASSERT_TRUE(truth->commit_version(pools(3), 0, "ann", ""));
  ASSERT_TRUE(truth->commit_version(pools(3, "pool-2"), 1, "ann", "second"));
  const Manifest manifest = *truth->manifest(2);
  std::vector<std::pair<std::string, std::string>> objects;
  for (const ManifestEntry& entry : manifest.entries) objects.emplace_back(entry.hash, *truth->object(entry.hash));

  const auto copy = open(here.path());
  auto all_but_one = objects;
  all_but_one.pop_back();
  EXPECT_THAT(copy->replicate_version(manifest, all_but_one).error().message, HasSubstr("is missing"));
  auto forged = objects;
  forged[0].second = "forged";
  EXPECT_THAT(copy->replicate_version(manifest, forged).error().message, HasSubstr("not what its hash says"));
  Manifest mixed_up = manifest;
  mixed_up.entries.pop_back();
  EXPECT_THAT(copy->replicate_version(mixed_up, objects).error().message, HasSubstr("not what its digest says"));
  EXPECT_EQ(copy->head()->version, 0U);

  ASSERT_TRUE(copy->replicate_version(manifest, objects));
  EXPECT_EQ(copy->head()->version, 2U);
  EXPECT_EQ(copy->manifest(2)->comment, "second");
  EXPECT_THAT(copy->replicate_version(manifest, objects).error().message, HasSubstr("conflict"));

  ASSERT_TRUE(truth->set_verdicts({{"backend/web/a", HealthVerdict{false, "refused", 6}}}));
  ASSERT_TRUE(truth->set_override("site/eu", Override{}, "ops"));
  ASSERT_TRUE(copy->replicate_live_state(*truth->live_state()));
  EXPECT_EQ(copy->live_state()->sequence, 2U);
  EXPECT_EQ(copy->live_state()->overrides.size(), 1U);
  ASSERT_TRUE(truth->set_override("site/eu", std::nullopt, "ops"));
  ASSERT_TRUE(copy->replicate_live_state(*truth->live_state()));
  EXPECT_TRUE(copy->live_state()->overrides.empty());

  ASSERT_TRUE(copy->replicate_purge({40, PurgeKind::url, "http://x/", false, 1, "ops"}));
  ASSERT_TRUE(copy->replicate_purge({40, PurgeKind::url, "http://x/", false, 1, "ops"}));
  EXPECT_EQ(copy->head()->purge, 40U);
  EXPECT_EQ(copy->purges_after(0, 10)->size(), 1U);
}

TEST(StateStore, LetsGroupMembersReadAndNobodyElse) {
  const TempDir directory;
  const auto store = open(directory / "host");
  const auto mode = [&](const std::string& path) {
    struct stat file {};
    EXPECT_EQ(::stat((directory / path).c_str(), &file), 0) << path;
    return file.st_mode & 07777;
  };
  EXPECT_EQ(mode("host/state"), 02770U);
  EXPECT_EQ(mode("host/state/data.mdb"), 0640U);
  EXPECT_EQ(mode("host/state/lock.mdb"), 0660U);
}

TEST(StateStore, HasOneWriter) {
  const TempDir directory;
  const auto store = open(directory.path());
  Forked other([&](Talk&) { return StateStore::open(directory.path(), Mode::read_write) ? 1 : 0; });
  EXPECT_EQ(other.wait(), 0);
}

TEST(StateStore, LosesNothingCommittedWhenItsWriterIsKilled) {
  const TempDir directory;
  uint64_t acknowledged = 0;
  {
    Forked writer([&](Talk& talk) {
      const auto store = open(directory.path());
      for (uint64_t version = 0;; ++version) {
        if (!store->commit_version(pools(50, "pool-" + std::to_string(version % 50)), version, "ann", "")) return 1;
        talk.say(version + 1);
      }
    });
    while (acknowledged < 40) {
      acknowledged = writer.talk().hear();
      ASSERT_NE(acknowledged, 0U);
    }
    writer.kill(SIGKILL);
    EXPECT_EQ(writer.wait(), -SIGKILL);
  }
  const auto store = open(directory.path());
  const uint64_t head = store->head()->version;
  EXPECT_GE(head, acknowledged);
  for (uint64_t version = 1; version <= head; ++version) {
    const Result<Manifest> manifest = store->manifest(version);
    ASSERT_TRUE(manifest);
    ASSERT_EQ(manifest_digest(manifest->entries), manifest->digest);
    ASSERT_EQ(entry_count(store->objects(*manifest)), 50U);
  }
  EXPECT_TRUE(store->commit_version(pools(1), head, "bob", "goes on"));
}

TEST(StateStore, ShowsItsReadersWholeVersionsWhileItWrites) {
  const TempDir directory;
  open(directory.path()).reset();
  Forked writer([&](Talk& talk) {
    const auto store = open(directory.path());
    for (uint64_t version = 0; version < 200; ++version) {
      if (!store->commit_version(pools(static_cast<int>(version % 20) + 1), version, "ann", "")) return 1;
      if (version == 0) talk.say(1);
    }
    return 0;
  });
  ASSERT_EQ(writer.talk().hear(), 1U);
  const auto reader = open(directory.path(), Mode::read_only);
  uint64_t seen = 0;
  while (seen < 200) {
    seen = reader->head()->version;
    const Result<Manifest> manifest = reader->manifest(seen);
    ASSERT_TRUE(manifest);
    ASSERT_EQ(manifest_digest(manifest->entries), manifest->digest);
    ASSERT_EQ(entry_count(reader->objects(*manifest)), (seen - 1) % 20 + 1);
  }
  EXPECT_EQ(writer.wait(), 0);
  EXPECT_THAT(reader->set_verdicts({}).error().message, HasSubstr("reading only"));
  EXPECT_FALSE(reader->kept_answer("asked")) << "answers are its writer's";
}

std::optional<std::string> answer_in(const StateStore& store, const std::string& request) {
  const Result<std::optional<std::string>> answer = store.kept_answer(request);
  EXPECT_TRUE(answer) << (answer ? "" : answer.error().message);
  return answer ? *answer : std::nullopt;
}

TEST(StateStore, CommitsAnAnswerWithWhatItAnswersOrNeither) {
  const TempDir directory;
  const auto told_of = [](const Manifest& manifest) {
    return KeptAnswer{"version " + std::to_string(manifest.version), manifest.digest};
  };
  std::string digest;
  {
    const auto store = open(directory.path());
    digest = store->commit_version(pools(1), 0, "ann", "", 0, told_of)->digest;
    ASSERT_TRUE(store->add_purge(PurgeKind::all, "", false, "ann", [](uint64_t sequence) {
      return KeptAnswer{"purge", std::to_string(sequence)};
    }));
    EXPECT_FALSE(store->commit_version(pools(2), 7, "bob", "", 0, told_of)) << "not based on the head";
    EXPECT_EQ(answer_in(*store, "version 2"), std::nullopt);
    const auto unspeakable = [](const Manifest&) { return KeptAnswer{"", "found by nothing"}; };
    EXPECT_FALSE(store->commit_version(pools(2), 1, "bob", "", 0, unspeakable));
    EXPECT_EQ(store->head()->version, 1U);
  }
  const auto store = open(directory.path());
  EXPECT_EQ(answer_in(*store, "version 1"), digest);
  EXPECT_EQ(answer_in(*store, "purge"), "1");
  ASSERT_TRUE(store->keep_answer({"purge", "1, and everywhere"}));
  EXPECT_EQ(answer_in(*store, "purge"), "1, and everywhere");
}

TEST(StateStore, KeepsItsNewestAnswers) {
  const TempDir directory;
  const auto store = open(directory.path());
  const auto keep = [&](size_t number) { ASSERT_TRUE(store->keep_answer({std::to_string(number), "answer"})); };
  for (size_t i = 0; i < StateStore::kAnswersKept; ++i) keep(i);
  keep(0);  // stored again, so the oldest is now 1
  keep(StateStore::kAnswersKept);
  EXPECT_EQ(answer_in(*store, "0"), "answer");
  EXPECT_EQ(answer_in(*store, "1"), std::nullopt);
  EXPECT_EQ(answer_in(*store, "2"), "answer");
}

TEST(StateStore, KeepsAsManyAnswersAsThereIsRoomForAndAlwaysTheLast) {
  const TempDir directory;
  const auto store = open(directory.path());
  const std::string large(StateStore::kAnswerBytesKept / 2 - 100, 'x');
  for (const char* request : {"a", "b", "b", "c"}) ASSERT_TRUE(store->keep_answer({request, large}));
  EXPECT_EQ(answer_in(*store, "a"), std::nullopt);
  EXPECT_EQ(answer_in(*store, "b"), large);
  EXPECT_EQ(answer_in(*store, "c"), large);
  const std::string larger(StateStore::kAnswerBytesKept + 1, 'y');
  ASSERT_TRUE(store->keep_answer({"d", larger}));
  EXPECT_EQ(answer_in(*store, "c"), std::nullopt);
  EXPECT_EQ(answer_in(*store, "d"), larger);
  ASSERT_TRUE(store->keep_answer({"e", "short"}));
  EXPECT_EQ(answer_in(*store, "d"), std::nullopt);
  EXPECT_EQ(answer_in(*store, "e"), "short");
}

TEST(StateStore, IsReadWhereItsWriterKeptNoAnswersYet) {
  const TempDir directory;
  ASSERT_TRUE(open(directory.path())->commit_version(pools(1), 0, "ann", ""));
  {
    Result<lmdb::Env> env = lmdb::Env::open(directory / "state", lmdb::EnvOptions{});
    ASSERT_TRUE(env);
    Result<lmdb::Txn> txn = lmdb::Txn::begin(*env, lmdb::Access::write);
    ASSERT_TRUE(txn);
    for (const char* name : {"answer", "answered"}) ASSERT_EQ(mdb_drop(txn->get(), *txn->open_db(name), 1), 0);
    ASSERT_TRUE(txn->commit());
  }
  EXPECT_EQ(open(directory.path(), Mode::read_only)->head()->version, 1U);
  EXPECT_EQ(answer_in(*open(directory.path()), "asked"), std::nullopt);
}

}  // namespace tidegate::state_store_test
