// SPDX-License-Identifier: Apache-2.0
#include "conf/follower.h"
#include "conf/model.h"
#include "conf/model/pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <sstream>

#include "conf/document.h"
#include "conf/served_version.h"
#include "core/clock.h"
#include "core/lmdb.h"
#include "tests/unit/conf/forked.h"

namespace tidegate::follower_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string document_with(const std::string& backend_address) {
  return "nodes: [{name: here}]\n"
         "pools:\n"
         "  - name: web\n"
         "    backends: [{name: a, addresses: [" +
         backend_address +
         "], port: 80}]\n"
         "  - name: other\n"
         "    backends: [{name: b, addresses: [10.0.0.9], port: 80}]\n";
}

std::vector<ConfigObject> objects_of(const std::string& yaml) {
  std::vector<Fault> faults;
  const std::unique_ptr<Document> document = Document::parse("test.yaml", yaml, faults);
  EXPECT_TRUE(document) << render_faults(faults, yaml, false);
  return split_objects(*document, files_from({}));
}

// The calls that one follower has made to its plane.
struct Heard {
  std::vector<std::shared_ptr<const Snapshot>> snapshots;
  std::vector<Purge> purges;
  std::vector<std::string> order;        // the order of the calls
  std::string refuse_with;               // if not empty, the plane refuses with this text
  uint64_t refuse_version = UINT64_MAX;  // the plane refuses this version
  std::string plane;                     // the name under which it remembers what it served
  std::string cannot_prepare;            // if not empty, preparing fails with this text

  FollowerHooks hooks(PurgePosition purge_from = {}) {
    FollowerHooks hooks;
    hooks.plane = plane;
    hooks.on_snapshot = [this](std::shared_ptr<const Snapshot> snapshot) -> Result<void> {
      if (!refuse_with.empty()) return fail(refuse_with);
      if (snapshot->version == refuse_version) return fail("no such port: eth9");
      order.push_back("snapshot " + std::to_string(snapshot->version));
      snapshots.push_back(std::move(snapshot));
      return {};
    };
    hooks.on_purge = [this](const Purge& purge) {
      order.push_back("purge " + std::to_string(purge.sequence));
      purges.push_back(purge);
    };
    hooks.prepare = [this, purge_from](const std::shared_ptr<const Snapshot>& snapshot) -> Result<PurgePosition> {
      if (!cannot_prepare.empty()) return fail(cannot_prepare);
      order.push_back("prepare " + std::to_string(snapshot->version));
      return purge_from;
    };
    return hooks;
  }
  std::string address() const { return snapshots.back()->model->pools[0].backends[0].addresses[0].to_string(); }
};

// Runs the loop until `happened` holds. Returns false after a minute.
template <class Happened>
bool run_until(EventLoop& loop, Happened&& happened) {
  const uint64_t deadline_ns = monotonic_ns() + 60 * kNsPerS;
  while (!happened()) {
    if (monotonic_ns() > deadline_ns) return false;
    loop.run_once(kNsPerS);
  }
  return true;
}

// --- a host's state; another process writes it, as in production

enum Command : uint64_t { kStop = 1, kCommit, kCommitFaulty, kHealth, kDrain, kPurge, kAdoptLatePurges, kDamagePurge };

// Overwrites the newest purge with bytes that no writer writes.
bool damage_purge(const std::string& directory) {
  auto env = lmdb::Env::open(directory + "/state", {});
  if (!env) return false;
  auto txn = lmdb::Txn::begin(*env, lmdb::Access::write);
  if (!txn) return false;
  const auto purges = txn->open_db("purge");
  if (!purges) return false;
  std::string newest;
  {
    lmdb::Cursor cursor(*txn, *purges);
    if (!cursor.last()) return false;
    newest = cursor.key();
  }
  return txn->put(*purges, newest, "?").has_value() && txn->commit().has_value();
}

// Executes orders from the test, and answers 1 when each is committed.
int obey(const std::string& directory, Talk& talk) {
  std::unique_ptr<StateStore> store;
  for (uint64_t step = 1;; ++step) {
    const uint64_t command = talk.hear();
    if (command == kStop || command == 0) return 0;
    if (!store) {
      Result<std::unique_ptr<StateStore>> opened = StateStore::open(directory, StateStore::Mode::read_write);
      if (!opened) return 1;
      store = *std::move(opened);
    }
    const uint64_t head = store->head()->version;
    bool done = false;
    switch (command) {
      case kCommit:
        done = store->commit_version(objects_of(document_with("10.0.0." + std::to_string(head + 1))), head, "t", "")
                   .has_value();
        break;
      case kCommitFaulty:
        done = store->commit_version(objects_of("pools: [{name: web, wieght: 1}]\n"), head, "t", "").has_value();
        break;
      case kHealth:
        done = store->set_verdicts({{"backend/web/a", HealthVerdict{step % 2 == 0, "refused", step}}}).has_value();
        break;
      case kDrain:
        done = store->set_override("backend/web/a", Override{}, "t").has_value();
        break;
      case kPurge:
        done = store->add_purge(PurgeKind::tag, "t", false, "t").has_value();
        break;
      case kDamagePurge:
        store.reset();
        done = damage_purge(directory);
        break;
      case kAdoptLatePurges:  // purges of another host whose log was trimmed up to 300
        done = store->replicate_purge({301, PurgeKind::tag, "t", false, 1, "t"}).has_value() &&
               store->replicate_purge({302, PurgeKind::tag, "t", false, 2, "t"}).has_value();
        break;
      default:
        return 2;
    }
    talk.say(done ? 1 : 2);
  }
}

class StateFollowerTest : public ::testing::Test {
 protected:
  void tell(Command command) {
    writer_.talk().say(command);
    EXPECT_EQ(writer_.talk().hear(), 1U);
  }
  std::unique_ptr<Follower> follow(PurgePosition purge_from = {}) {
    Result<std::unique_ptr<Follower>> follower = Follower::of_state(loop_, state_dir_, heard_.hooks(purge_from));
    EXPECT_TRUE(follower);
    return *std::move(follower);
  }
  bool snapshots_are(size_t count) {
    return run_until(loop_, [&] { return heard_.snapshots.size() == count; });
  }

  TempDir directory_;
  std::string state_dir_ = directory_ / "not/there/yet";
  Forked writer_{[this](Talk& talk) {
    std::filesystem::create_directories(directory_ / "not/there");
    return obey(state_dir_, talk);
  }};
  EventLoop loop_;
  Heard heard_;
};

TEST_F(StateFollowerTest, DeliversWhatIsThereBeforeItReturns) {
  tell(kCommit);
  const auto follower = follow();
  ASSERT_EQ(heard_.snapshots.size(), 1U);
  EXPECT_EQ(follower->current()->version, 1U);
  EXPECT_EQ(follower->applied().version, 1U);
  EXPECT_EQ(heard_.address(), "10.0.0.1");
  EXPECT_FALSE(follower->current()->version_digest.empty());
}

TEST_F(StateFollowerTest, WaitsForAStateThatIsNotThereYet) {
  const auto follower = follow();
  EXPECT_EQ(follower->current(), nullptr);
  EXPECT_EQ(follower->refused(), "");
  tell(kHealth);  // there is a state, but no version
  tell(kCommit);
  ASSERT_TRUE(snapshots_are(1));
  EXPECT_EQ(follower->current()->live_state->sequence, 1U);
}

TEST_F(StateFollowerTest, WakesByTheBellNotByThePoll) {
  tell(kCommit);
  const auto follower = follow();
  const uint64_t begin_ns = monotonic_ns();
  for (size_t i = 2; i <= 21; ++i) {
    tell(i % 2 == 0 ? kHealth : kCommit);
    ASSERT_TRUE(snapshots_are(i));
  }
  // With polling alone, each of the 20 would have waited for the next second.
  EXPECT_LT(monotonic_ns() - begin_ns, 10 * kNsPerS);
}

TEST_F(StateFollowerTest, SharesTheModelWhenOnlyWordsChange) {
  tell(kCommit);
  const auto follower = follow();
  tell(kDrain);
  ASSERT_TRUE(snapshots_are(2));
  EXPECT_EQ(heard_.snapshots[0]->model.get(), heard_.snapshots[1]->model.get());
  EXPECT_EQ(heard_.snapshots[1]->pools[0].backends[0].state, BackendState::draining);
  EXPECT_EQ(follower->applied().live_state, 1U);
}

TEST_F(StateFollowerTest, KeepsTheOldVersionWhenANewOneIsFaultyAndStillHearsWords) {
  tell(kCommit);
  const auto follower = follow();
  tell(kCommitFaulty);
  ASSERT_TRUE(run_until(loop_, [&] { return !follower->refused().empty(); }));
  EXPECT_THAT(follower->refused(), HasSubstr("version 2: "));
  EXPECT_THAT(follower->refused(), HasSubstr("wieght"));
  EXPECT_EQ(follower->current()->version, 1U);
  tell(kDrain);
  ASSERT_TRUE(snapshots_are(2));
  EXPECT_EQ(follower->current()->version, 1U);
  EXPECT_EQ(follower->current()->pools[0].backends[0].state, BackendState::draining);
  EXPECT_THAT(follower->refused(), HasSubstr("version 2: "));
  tell(kCommit);
  ASSERT_TRUE(snapshots_are(3));
  EXPECT_EQ(follower->current()->version, 3U);
  EXPECT_EQ(follower->refused(), "");
}

TEST_F(StateFollowerTest, KeepsTheOldVersionWhenThePlaneRefusesTheNewOne) {
  tell(kCommit);
  const auto follower = follow();
  heard_.refuse_with = "no such port: eth9";
  tell(kCommit);
  ASSERT_TRUE(run_until(loop_, [&] { return !follower->refused().empty(); }));
  EXPECT_EQ(follower->refused(), "version 2: no such port: eth9");
  EXPECT_EQ(follower->applied().version, 1U);
  heard_.refuse_with.clear();
  ASSERT_TRUE(follower->reload());
  EXPECT_EQ(follower->applied().version, 2U);
  EXPECT_EQ(follower->refused(), "");
}

TEST_F(StateFollowerTest, OffersAVersionAgainThatThePlaneRefused) {
  tell(kCommit);
  const auto follower = follow();
  heard_.refuse_with = "no such port: eth9";
  tell(kCommit);
  ASSERT_TRUE(run_until(loop_, [&] { return !follower->refused().empty(); }));
  heard_.refuse_with.clear();
  ASSERT_TRUE(run_until(loop_, [&] { return follower->applied().version == 2; }));
  EXPECT_EQ(follower->refused(), "");
  ASSERT_EQ(heard_.snapshots.size(), 2U) << "what is in force is not offered again";
}

TEST_F(StateFollowerTest, ServesWhatItServedBeforeIfTheNewestIsRefusedAtItsStart) {
  heard_.plane = "dns";
  tell(kCommit);
  tell(kCommit);
  follow().reset();  // it serves version 2, and ends
  tell(kCommit);
  heard_.snapshots.clear();
  heard_.refuse_version = 3;
  const auto follower = follow();
  ASSERT_EQ(heard_.snapshots.size(), 1U) << "nothing is served";
  EXPECT_EQ(follower->applied().version, 2U);
  EXPECT_EQ(follower->newest(), 3U);
  EXPECT_EQ(follower->refused(), "version 3: no such port: eth9");
  tell(kDrain);
  ASSERT_TRUE(snapshots_are(2)) << "live state reaches what is in force";
  heard_.refuse_version = UINT64_MAX;  // the reason for the refusal is gone
  ASSERT_TRUE(run_until(loop_, [&] { return follower->applied().version == 3; }));
  EXPECT_EQ(follower->refused(), "");
}

TEST_F(StateFollowerTest, ServesNothingOfAnotherStateOrPlane) {
  heard_.plane = "dns";
  tell(kCommit);
  follow().reset();
  tell(kCommit);
  heard_.snapshots.clear();
  heard_.refuse_version = 2;
  heard_.plane = "l7";
  EXPECT_EQ(follow()->current(), nullptr) << "l7 has served nothing yet";
  ASSERT_TRUE(write_served(state_dir_, "l7", {1, std::string(64, 'a')}));
  EXPECT_EQ(follow()->current(), nullptr) << "version 1 is another one here";
  std::ofstream(state_dir_ + "/served/l7") << "1 garbage\n";
  EXPECT_EQ(follow()->current(), nullptr);
}

TEST_F(StateFollowerTest, DoesNotBeginTwiceWithAVersionThatEndedItsProcess) {
  heard_.plane = "l4";
  tell(kCommit);
  follow().reset();
  tell(kCommit);
  mark_trying(state_dir_, "l4", 2);  // the state after a process that ended during its first version
  heard_.snapshots.clear();
  const auto follower = follow();
  ASSERT_EQ(heard_.snapshots.size(), 1U);
  EXPECT_EQ(heard_.snapshots[0]->version, 1U);
  EXPECT_THAT(follower->refused(), HasSubstr("version 2: the process before ended"));
  ASSERT_TRUE(run_until(loop_, [&] { return follower->applied().version == 2; })) << "it is tried again";
  EXPECT_EQ(read_trying(state_dir_, "l4"), 0U);
}

TEST_F(StateFollowerTest, DeliversEachPurgeOnceAndInOrder) {
  tell(kCommit);
  tell(kPurge);
  tell(kPurge);
  tell(kPurge);
  const auto follower = follow({1, 0});
  ASSERT_EQ(heard_.purges.size(), 2U);
  tell(kPurge);
  ASSERT_TRUE(run_until(loop_, [&] { return heard_.purges.size() == 3; }));
  ASSERT_TRUE(follower->reload());
  std::vector<uint64_t> sequences;
  for (const Purge& purge : heard_.purges) sequences.push_back(purge.sequence);
  EXPECT_THAT(sequences, ElementsAre(2, 3, 4));
  EXPECT_EQ(follower->applied().purge, 4U);
}

TEST_F(StateFollowerTest, TellsWhatWasPurgedBeforeTheFirstVersionIsInForce) {
  tell(kCommit);
  tell(kPurge);
  tell(kPurge);
  const auto follower = follow({1, 0});
  EXPECT_THAT(heard_.order, ElementsAre("prepare 1", "purge 2", "snapshot 1"));
  tell(kCommit);
  ASSERT_TRUE(snapshots_are(2));
  EXPECT_THAT(heard_.order, ElementsAre("prepare 1", "purge 2", "snapshot 1", "snapshot 2"));
}

TEST_F(StateFollowerTest, PurgesEverythingWhereTheLogCannotBeRead) {
  tell(kCommit);
  tell(kPurge);
  tell(kPurge);
  tell(kDamagePurge);
  const auto follower = follow({1, 0});
  EXPECT_THAT(heard_.order, ElementsAre("prepare 1", "purge 2", "snapshot 1"));
  ASSERT_EQ(heard_.purges.size(), 1U);
  EXPECT_EQ(heard_.purges[0].kind, PurgeKind::all);
  tell(kPurge);
  ASSERT_TRUE(run_until(loop_, [&] { return heard_.purges.size() == 2; }));
  EXPECT_EQ(heard_.purges[1].kind, PurgeKind::tag) << "the next can be read again";
  EXPECT_EQ(follower->applied().purge, 3U);
}

TEST_F(StateFollowerTest, KeepsPurgesForAPlaneThatCannotTakeThemYet) {
  tell(kCommitFaulty);
  tell(kPurge);
  const auto follower = follow();
  EXPECT_EQ(follower->applied().purge, 0U);
  heard_.cannot_prepare = "no disk";
  tell(kCommit);
  tell(kPurge);
  ASSERT_TRUE(run_until(loop_, [&] { return follower->refused() == "version 2: no disk"; }));
  EXPECT_THAT(heard_.order, ElementsAre());
  EXPECT_EQ(follower->applied().purge, 0U);
  heard_.cannot_prepare.clear();
  tell(kCommit);
  ASSERT_TRUE(snapshots_are(1));
  EXPECT_THAT(heard_.order, ElementsAre("prepare 3", "purge 1", "purge 2", "snapshot 3"));
  EXPECT_EQ(follower->applied().purge, 2U);
}

TEST_F(StateFollowerTest, PurgesEverythingWhenTheLogNoLongerReachesBack) {
  tell(kCommit);
  tell(kAdoptLatePurges);
  const auto follower = follow({5, 0});
  ASSERT_EQ(heard_.purges.size(), 3U);
  EXPECT_EQ(heard_.purges[0].kind, PurgeKind::all);
  EXPECT_EQ(heard_.purges[0].sequence, 300U);
  EXPECT_EQ(heard_.purges[1].sequence, 301U);
  EXPECT_EQ(heard_.purges[2].sequence, 302U);
  EXPECT_EQ(follower->applied().purge, 302U);
}

TEST_F(StateFollowerTest, PurgesEverythingWhenTheStateWasMadeAnew) {
  tell(kCommit);
  tell(kPurge);
  const auto follower = follow({77, 0});
  ASSERT_EQ(heard_.purges.size(), 1U);
  EXPECT_EQ(heard_.purges[0].kind, PurgeKind::all);
  EXPECT_TRUE(heard_.purges[0].anew);
  EXPECT_EQ(follower->applied().purge, 1U);
}

TEST_F(StateFollowerTest, GoesOnFromItsPlaceInTheLog) {
  tell(kCommit);
  tell(kPurge);
  tell(kPurge);
  (void)follow();
  const Purge first = heard_.purges.at(0);
  heard_.purges.clear();
  const auto follower = follow({1, first.at_ns});
  ASSERT_EQ(heard_.purges.size(), 1U);
  EXPECT_EQ(heard_.purges[0].sequence, 2U);
  EXPECT_FALSE(heard_.purges[0].anew);
}

TEST_F(StateFollowerTest, PurgesEverythingWhenAnotherLogIsPastTheOldNumber) {
  tell(kCommit);
  tell(kPurge);
  tell(kPurge);
  tell(kPurge);
  const auto follower = follow({2, 12'345});
  ASSERT_EQ(heard_.purges.size(), 1U);
  EXPECT_EQ(heard_.purges[0].kind, PurgeKind::all);
  EXPECT_TRUE(heard_.purges[0].anew);
  EXPECT_EQ(heard_.purges[0].sequence, 3U);
  EXPECT_GT(heard_.purges[0].at_ns, 0U);
  tell(kPurge);
  ASSERT_TRUE(run_until(loop_, [&] { return heard_.purges.size() == 2; }));
  EXPECT_EQ(heard_.purges[1].sequence, 4U);
  EXPECT_EQ(heard_.purges[1].kind, PurgeKind::tag);
}

TEST_F(StateFollowerTest, PurgesEverythingWhenAnotherStateHasAsManyPurges) {
  tell(kCommit);
  tell(kPurge);
  const auto follower = follow();
  ASSERT_EQ(heard_.purges.size(), 1U);
  writer_.kill(SIGKILL);
  writer_.wait();
  Forked anew([this](Talk& talk) {
    const std::string beside = state_dir_ + "-anew";
    return obey(beside, talk);
  });
  for (const Command command : {kCommit, kPurge}) {
    anew.talk().say(command);
    ASSERT_EQ(anew.talk().hear(), 1U);
  }
  std::filesystem::rename(state_dir_ + "/state", state_dir_ + "/state.old");
  std::filesystem::rename(state_dir_ + "-anew/state", state_dir_ + "/state");
  ASSERT_TRUE(run_until(loop_, [&] { return heard_.purges.size() == 2; }));
  EXPECT_EQ(heard_.purges[1].kind, PurgeKind::all);
  EXPECT_TRUE(heard_.purges[1].anew);
  EXPECT_EQ(heard_.purges[1].sequence, 1U);
}

TEST_F(StateFollowerTest, WaitsWhileTheStateIsDamaged) {
  tell(kCommit);
  writer_.kill(SIGKILL);
  writer_.wait();
  std::ofstream(state_dir_ + "/state/data.mdb") << "garbage";
  const auto follower = follow();
  EXPECT_EQ(follower->current(), nullptr);
  EXPECT_THAT(follower->refused(), HasSubstr("move that directory away"));
  std::filesystem::remove_all(state_dir_ + "/state");
  Forked anew([this](Talk& talk) { return obey(state_dir_, talk); });
  anew.talk().say(kCommit);
  ASSERT_EQ(anew.talk().hear(), 1U);
  ASSERT_TRUE(snapshots_are(1));
  EXPECT_EQ(follower->refused(), "");
}

TEST_F(StateFollowerTest, KeepsItsDecisionWhenTheStateIsCutOffUnderIt) {
  tell(kCommit);
  const auto follower = follow();
  std::filesystem::resize_file(state_dir_ + "/state/data.mdb", 8192);
  ASSERT_TRUE(run_until(loop_, [&] { return !follower->refused().empty(); }));
  EXPECT_THAT(follower->refused(), HasSubstr("data.mdb was cut off"));
  EXPECT_EQ(follower->current()->version, 1U);
}

TEST_F(StateFollowerTest, SaysNoLongerWhatHasPassed) {
  tell(kCommit);
  const auto follower = follow();
  const std::string data = state_dir_ + "/state/data.mdb";
  std::ostringstream whole;
  whole << std::ifstream(data, std::ios::binary).rdbuf();
  std::filesystem::resize_file(data, 8192);
  ASSERT_TRUE(run_until(loop_, [&] { return !follower->refused().empty(); }));
  // The same file, whole again.
  std::fstream(data, std::ios::binary | std::ios::in | std::ios::out) << whole.str();
  ASSERT_TRUE(run_until(loop_, [&] { return follower->refused().empty(); }));
  EXPECT_EQ(follower->current()->version, 1U);
}

TEST_F(StateFollowerTest, FollowsAnotherStateThatWasPutInThePlaceOfItsOwn) {
  tell(kCommit);
  tell(kDrain);
  tell(kCommit);
  const auto follower = follow();
  ASSERT_EQ(follower->current()->version, 2U);
  writer_.kill(SIGKILL);
  writer_.wait();
  std::filesystem::rename(state_dir_ + "/state", state_dir_ + "/state.damaged");
  Forked anew([this](Talk& talk) { return obey(state_dir_, talk); });
  anew.talk().say(kCommit);
  ASSERT_EQ(anew.talk().hear(), 1U);
  ASSERT_TRUE(snapshots_are(2));
  EXPECT_EQ(follower->current()->version, 1U);
  EXPECT_TRUE(follower->current()->live_state->overrides.empty());
}

TEST_F(StateFollowerTest, FollowsAWriterThatCameBack) {
  tell(kCommit);
  const auto follower = follow();
  writer_.kill(SIGKILL);
  writer_.wait();
  Forked anew([this](Talk& talk) { return obey(state_dir_, talk); });
  anew.talk().say(kCommit);
  ASSERT_EQ(anew.talk().hear(), 1U);
  ASSERT_TRUE(snapshots_are(2));
  EXPECT_EQ(follower->current()->version, 2U);
}

// --- one file

TEST(FileFollower, ServesAFileAndKeepsTheOldOneWhenTheNewOneIsFaulty) {
  const TempDir directory;
  const std::string path = directory / "edge.yaml";
  std::ofstream(path) << document_with("10.0.0.1");
  EventLoop loop;
  Heard heard;
  const Result<std::unique_ptr<Follower>> follower = Follower::of_file(loop, path, heard.hooks());
  ASSERT_TRUE(follower) << follower.error().message;
  ASSERT_EQ(heard.snapshots.size(), 1U);
  EXPECT_EQ(heard.snapshots[0]->version, 0U);
  const std::string digest = heard.snapshots[0]->version_digest;

  std::ofstream(path) << "pools: [{name: web, wieght: 3}]\n";
  const Result<void> faulty = (*follower)->reload();
  ASSERT_FALSE(faulty);
  EXPECT_THAT(faulty.error().message, HasSubstr("edge.yaml:1:"));
  EXPECT_THAT(faulty.error().message, HasSubstr("^"));
  EXPECT_THAT((*follower)->refused(), HasSubstr("wieght"));
  EXPECT_EQ(heard.address(), "10.0.0.1");

  std::ofstream(path) << document_with("10.0.0.2");
  ASSERT_TRUE((*follower)->reload());
  EXPECT_EQ(heard.address(), "10.0.0.2");
  EXPECT_EQ((*follower)->refused(), "");
  EXPECT_NE(heard.snapshots.back()->version_digest, digest);
}

TEST(FileFollower, TellsVersionsApartByTheFilesThatTheDocumentNames) {
  const TempDir directory;
  std::ofstream(directory / "edge.yaml") << "acls: [{name: a, file: list.txt}]\n";
  std::ofstream(directory / "list.txt") << "192.0.2.0/24\n";
  EventLoop loop;
  Heard heard;
  const Result<std::unique_ptr<Follower>> follower = Follower::of_file(loop, directory / "edge.yaml", heard.hooks());
  ASSERT_TRUE(follower) << follower.error().message;
  const std::string digest = heard.snapshots.back()->version_digest;
  ASSERT_TRUE((*follower)->reload());
  EXPECT_EQ(heard.snapshots.back()->version_digest, digest);
  std::ofstream(directory / "list.txt") << "192.0.2.0/25\n";
  ASSERT_TRUE((*follower)->reload());
  EXPECT_NE(heard.snapshots.back()->version_digest, digest);
}

TEST(FileFollower, RefusesToStartOnAFaultyOrMissingFile) {
  const TempDir directory;
  EventLoop loop;
  Heard heard;
  EXPECT_FALSE(Follower::of_file(loop, directory / "none.yaml", heard.hooks()));
  std::ofstream(directory / "bad.yaml") << "pools: 3\n";
  const Result<std::unique_ptr<Follower>> follower = Follower::of_file(loop, directory / "bad.yaml", heard.hooks());
  ASSERT_FALSE(follower);
  EXPECT_THAT(follower.error().message, HasSubstr("bad.yaml:1:"));
}

}  // namespace tidegate::follower_test
