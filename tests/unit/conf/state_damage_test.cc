// SPDX-License-Identifier: Apache-2.0
// A damaged state must give an Error that says what to do. LMDB alone would end the process.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <random>
#include <sstream>

#include "conf/state_store.h"
#include "tests/unit/conf/forked.h"

namespace tidegate::state_damage_test {

using Mode = StateStore::Mode;

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream content;
  content << file.rdbuf();
  return content.str();
}

void write_file(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

class DamagedState : public ::testing::Test {
 protected:
  // About forty pages: trees of two levels, and one object on its own pages.
  void SetUp() override {
    Result<std::unique_ptr<StateStore>> store = StateStore::open(directory_.path(), Mode::read_write);
    ASSERT_TRUE(store);
    std::vector<ConfigObject> objects = {{"file", "big.zone", std::string(40'000, 'z')}};
    for (int i = 0; i < 400; ++i) objects.push_back({"pools", "pool-" + std::to_string(i), std::string(300, 'p')});
    for (uint64_t version = 0; version < 3; ++version) {
      objects[version + 1].bytes += "x";
      ASSERT_TRUE((*store)->commit_version(objects, version, "ann", "comment"));
    }
    ASSERT_TRUE((*store)->set_verdicts({{"backend/a/b", HealthVerdict{true, "", 1}}}));
    ASSERT_TRUE((*store)->add_purge(PurgeKind::tag, "t", false, "ops"));
    store->reset();
    sound_ = read_file(data_path());
    ASSERT_GT(sound_.size(), 150'000U);
  }

  void overwrite_bytes(int rounds);

  std::string data_path() const { return directory_ / "state/data.mdb"; }

  // Opens the state and reads everything, as a plane would.
  static Result<void> read_everything(const std::string& directory, Mode mode) {
    const Result<std::unique_ptr<StateStore>> store = StateStore::open(directory, mode);
    if (!store) return store.error();
    const Result<StateHead> head = (*store)->head();
    if (!head) return head.error();
    const Result<Manifest> manifest = (*store)->manifest(head->version);
    if (!manifest) return manifest.error();
    const Result<std::vector<ConfigObject>> objects = (*store)->objects(*manifest);
    if (!objects) return objects.error();
    const Result<LiveState> live_state = (*store)->live_state();
    if (!live_state) return live_state.error();
    const Result<std::vector<Purge>> purges = (*store)->purges_after(0, 100);
    if (!purges) return purges.error();
    const Result<std::vector<AuditRecord>> audits = (*store)->audit_newest(100);
    return audits ? Result<void>() : audits.error();
  }

  // 0: no error; 1: an Error that names the remedy or the record; anything else: it crashed.
  static int outcome(const std::string& directory, Mode mode) {
    Forked reader([&](Talk&) { return read_everything(directory, mode) ? 0 : 1; });
    return reader.wait();
  }

  TempDir directory_;
  std::string sound_;
};

TEST_F(DamagedState, IsReadWhenItIsSound) {
  EXPECT_EQ(outcome(directory_.path(), Mode::read_only), 0);
  EXPECT_EQ(outcome(directory_.path(), Mode::read_write), 0);
}

TEST_F(DamagedState, SaysWhatToDo) {
  write_file(data_path(), sound_.substr(0, sound_.size() / 2));
  const Result<std::unique_ptr<StateStore>> store = StateStore::open(directory_.path(), Mode::read_only);
  ASSERT_FALSE(store);
  EXPECT_THAT(store.error().message, ::testing::HasSubstr("the file seems cut off"));
  EXPECT_THAT(store.error().message, ::testing::HasSubstr("move that directory away"));
}

TEST_F(DamagedState, IsRefusedWhereverItWasCutOff) {
  for (size_t bytes : {size_t{1}, size_t{100}, size_t{4096}, size_t{5000}, size_t{8192}, sound_.size() / 4,
                       sound_.size() / 2, sound_.size() - 40'960}) {
    write_file(data_path(), sound_.substr(0, bytes));
    EXPECT_EQ(outcome(directory_.path(), Mode::read_only), 1) << "cut to " << bytes;
    EXPECT_EQ(outcome(directory_.path(), Mode::read_write), 1) << "cut to " << bytes;
  }
}

TEST_F(DamagedState, IsRefusedWhenItIsNotLmdbAtAll) {
  std::mt19937 random(1);
  std::string garbage(sound_.size(), '\0');
  for (char& byte : garbage) byte = static_cast<char>(random());
  for (const std::string& content : {garbage, std::string(10'000, '\0'), std::string("hello")}) {
    write_file(data_path(), content);
    EXPECT_EQ(outcome(directory_.path(), Mode::read_only), 1);
  }
}

void DamagedState::overwrite_bytes(int rounds) {
  std::mt19937 random(7);
  int refused = 0;
  for (int round = 0; round < rounds; ++round) {
    std::string content = sound_;
    // Overwrites a run of bytes with garbage, as a lost or foreign disk sector would.
    const size_t run = round % 3 == 0 ? 4096 : round % 3 == 1 ? 512 : 8;
    const size_t at = random() % (content.size() - run);
    for (size_t i = at; i < at + run; ++i) content[i] = static_cast<char>(random());
    write_file(data_path(), content);
    const int result = outcome(directory_.path(), Mode::read_only);
    ASSERT_GE(result, 0) << "round " << round << ": " << run << " bytes at " << at << " crashed the reader";
    ASSERT_LE(result, 1) << "round " << round << ": " << run << " bytes at " << at;
    refused += result;
  }
  EXPECT_GT(refused, rounds / 5);  // most damage hits something that is in use
}

class LongDamagedState : public DamagedState {};
TEST_F(DamagedState, NeverCrashesItsReaderWhateverBytesAreOverwritten) { overwrite_bytes(45); }
TEST_F(LongDamagedState, NeverCrashesItsReaderWhateverBytesAreOverwritten) { overwrite_bytes(150); }

// The notify file is touched when there is a state. So an empty data file next to it means that the data was lost.
TEST_F(DamagedState, IsRefusedWhereTheFileIsEmptyThoughItWasInUse) {
  write_file(data_path(), "");
  for (const Mode mode : {Mode::read_only, Mode::read_write}) {
    const Result<std::unique_ptr<StateStore>> store = StateStore::open(directory_.path(), mode);
    ASSERT_FALSE(store);
    EXPECT_THAT(store.error().message, ::testing::HasSubstr("data.mdb is empty, though the state was in use"));
  }
  EXPECT_EQ(read_file(data_path()), "") << "nobody wrote a new one over it";
}

TEST(FirstStart, ThatWasCutOffIsBegunAgain) {
  const TempDir directory;
  std::filesystem::create_directories(directory / "state");
  write_file(directory / "state/data.mdb", "");
  const Result<std::unique_ptr<StateStore>> store = StateStore::open(directory.path(), Mode::read_write);
  ASSERT_TRUE(store) << store.error().message;
  EXPECT_EQ((*store)->head()->version, 0U);
}

// LMDB identifies readers by process id, and holds a lock for each. A process in another PID namespace may have our id
// too. Here a child takes the lock that such a process would hold.
TEST(SharedState, IsNotCalledDamagedWhenAnotherProcessHasOurProcessId) {
  const TempDir directory;
  ASSERT_TRUE(StateStore::open(directory.path(), Mode::read_write));
  const pid_t ours = ::getpid();
  Forked other([&](Talk& talk) {
    const UniqueFd lock(::open((directory / "state/lock.mdb").c_str(), O_RDWR | O_CLOEXEC));
    struct flock of_reader {};
    of_reader.l_type = F_WRLCK;
    of_reader.l_whence = SEEK_SET;
    of_reader.l_start = ours;
    of_reader.l_len = 1;
    if (::fcntl(lock.get(), F_SETLK, &of_reader) != 0) return 1;
    talk.say(1);
    return talk.hear() == 1 ? 0 : 1;
  });
  ASSERT_EQ(other.talk().hear(), 1U);
  for (const Mode mode : {Mode::read_only, Mode::read_write}) {
    const Result<std::unique_ptr<StateStore>> store = StateStore::open(directory.path(), mode);
    ASSERT_FALSE(store);
    EXPECT_THAT(store.error().message, ::testing::HasSubstr("must share a PID namespace"));
    EXPECT_THAT(store.error().message, ::testing::Not(::testing::HasSubstr("move that directory away")));
  }
  other.talk().say(1);
  EXPECT_EQ(other.wait(), 0);
  EXPECT_TRUE(StateStore::open(directory.path(), Mode::read_only)) << "nothing is left of it";
}

TEST_F(DamagedState, StartsEmptyOnceItWasMovedAway) {
  write_file(data_path(), "garbage");
  std::filesystem::rename(directory_ / "state", directory_ / "state.damaged");
  const Result<std::unique_ptr<StateStore>> store = StateStore::open(directory_.path(), Mode::read_write);
  ASSERT_TRUE(store);
  EXPECT_EQ((*store)->head()->version, 0U);
}

}  // namespace tidegate::state_damage_test
