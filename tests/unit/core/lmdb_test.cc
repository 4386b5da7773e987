// SPDX-License-Identifier: Apache-2.0
#include "core/lmdb.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "core/lmdb_check.h"
#include "core/lmdb_damage.h"

namespace tidegate::lmdb::lmdb_test {

using ::testing::HasSubstr;

class Lmdb : public ::testing::Test {
 protected:
  Lmdb() {
    char pattern[] = "/tmp/tidegate-lmdb-XXXXXX";
    directory_ = ::mkdtemp(pattern);
  }
  ~Lmdb() override { std::filesystem::remove_all(directory_); }

  Env open(const EnvOptions& options = {.map_bytes = 1 << 20}) {
    Result<Env> env = Env::open(directory_, options);
    EXPECT_TRUE(env) << env.error().message;
    return *std::move(env);
  }

  std::string directory_;
};

TEST_F(Lmdb, KeepsWhatWasCommittedAndForgetsWhatWasNot) {
  {
    const Env env = open();
    Txn txn = *Txn::begin(env, Access::write);
    const MDB_dbi db = *txn.open_db("things", MDB_CREATE);
    ASSERT_TRUE(txn.put(db, "a", "1"));
    ASSERT_TRUE(txn.commit());
    Txn lost = *Txn::begin(env, Access::write);
    ASSERT_TRUE(lost.put(db, "b", "2"));
  }
  const Env env = open();
  Txn txn = *Txn::begin(env, Access::read);
  const MDB_dbi db = *txn.open_db("things");
  EXPECT_EQ(txn.get(db, "a"), "1");
  EXPECT_FALSE(txn.get(db, "b"));
  EXPECT_EQ(txn.entries(db), 1u);
}

TEST_F(Lmdb, AReaderSeesItsMomentUntilItIsRenewed) {
  const Env env = open();
  Txn setup = *Txn::begin(env, Access::write);
  const MDB_dbi db = *setup.open_db(nullptr);
  ASSERT_TRUE(setup.put(db, "k", "old"));
  ASSERT_TRUE(setup.commit());
  Txn reader = *Txn::begin(env, Access::read);
  Txn writer = *Txn::begin(env, Access::write);
  ASSERT_TRUE(writer.put(db, "k", "new"));
  ASSERT_TRUE(writer.commit());
  EXPECT_EQ(reader.get(db, "k"), "old");
  reader.reset();
  ASSERT_TRUE(reader.renew());
  EXPECT_EQ(reader.get(db, "k"), "new");
}

TEST_F(Lmdb, CursorsWalkInKeyOrderAndSeekToTheNextKey) {
  const Env env = open();
  Txn txn = *Txn::begin(env, Access::write);
  const MDB_dbi db = *txn.open_db("numbers", MDB_CREATE);
  for (const uint64_t n : {300u, 2u, 70'000u}) ASSERT_TRUE(txn.put(db, be64(n), "x"));
  Cursor cursor(txn, db);
  std::vector<uint64_t> seen;
  for (bool more = cursor.first(); more; more = cursor.next()) seen.push_back(be64(cursor.key()));
  EXPECT_EQ(seen, (std::vector<uint64_t>{2, 300, 70'000}));
  ASSERT_TRUE(cursor.seek(be64(3)));
  EXPECT_EQ(be64(cursor.key()), 300u);
  EXPECT_EQ(cursor.value(), "x");
  ASSERT_TRUE(cursor.last());
  ASSERT_TRUE(cursor.previous());
  EXPECT_EQ(be64(cursor.key()), 300u);
  EXPECT_FALSE(cursor.seek(be64(70'001)));
}

TEST_F(Lmdb, ReservesErasesAndSaysWhatWasNotThere) {
  const Env env = open();
  Txn txn = *Txn::begin(env, Access::write);
  const MDB_dbi db = *txn.open_db("things", MDB_CREATE);
  std::memcpy(*txn.reserve(db, "k", 3), "abc", 3);
  EXPECT_EQ(txn.get(db, "k"), "abc");
  EXPECT_TRUE(*txn.erase(db, "k"));
  EXPECT_FALSE(*txn.erase(db, "k"));
}

TEST_F(Lmdb, AFullMapIsAnErrorThatChangesNothing) {
  const Env env = open({.map_bytes = 64 * 1024});
  {
    Txn txn = *Txn::begin(env, Access::write);
    const MDB_dbi db = *txn.open_db("things", MDB_CREATE);
    ASSERT_TRUE(txn.put(db, "small", "x"));
    ASSERT_TRUE(txn.commit());
  }
  Txn txn = *Txn::begin(env, Access::write);
  const MDB_dbi db = *txn.open_db("things");
  const Result<void> put = txn.put(db, "large", std::string(1 << 20, 'x'));
  ASSERT_FALSE(put);
  EXPECT_THAT(put.error().message, HasSubstr("MDB_MAP_FULL"));
  txn.abort();
  Txn reader = *Txn::begin(env, Access::read);
  EXPECT_EQ(reader.get(db, "small"), "x");
}

TEST_F(Lmdb, NamesTheDirectoryItCannotOpen) {
  const Result<Env> missing = Env::open("/nowhere/at/all", {});
  ASSERT_FALSE(missing);
  EXPECT_THAT(missing.error().message, HasSubstr("/nowhere/at/all: No such file"));
}

TEST_F(Lmdb, RefusesADamagedEnvironment) {
  std::ofstream(directory_ + "/data.mdb") << std::string(64 * 1024, 'x');
  const Result<Env> damaged = Env::open(directory_, {});
  ASSERT_FALSE(damaged);
  EXPECT_THAT(damaged.error().message, HasSubstr(directory_));
}

// Enough entries that a lookup visits pages beyond the first ones.
void fill(const Env& env) {
  Txn txn = *Txn::begin(env, Access::write);
  const MDB_dbi db = *txn.open_db("things", MDB_CREATE);
  for (uint64_t i = 0; i < 500; ++i) ASSERT_TRUE(txn.put(db, be64(i), std::string(200, 'v')));
  ASSERT_TRUE(txn.commit());
}

TEST_F(Lmdb, AFileThatWasCutOffRefusesEveryTransactionUntilItIsWholeAgain) {
  const Env env = open();
  fill(env);
  Txn kept = *Txn::begin(env, Access::read);
  kept.reset();
  const std::string data = directory_ + "/data.mdb", copy = directory_ + "/copy";
  std::filesystem::copy_file(data, copy);
  std::filesystem::resize_file(data, 8192);
  for (const Access access : {Access::read, Access::write}) {
    const Result<Txn> txn = Txn::begin(env, access);
    ASSERT_FALSE(txn);
    EXPECT_THAT(txn.error().message, HasSubstr(directory_ + "/data.mdb was cut off from "));
  }
  EXPECT_FALSE(kept.renew());
  std::filesystem::copy_file(copy, data, std::filesystem::copy_options::overwrite_existing);
  EXPECT_TRUE(Txn::begin(env, Access::write));
  EXPECT_TRUE(kept.renew());
}

// Like a copy over a live directory. LMDB touches the lock file's map in every transaction.
TEST_F(Lmdb, ALockFileThatWasCutOffEndsNoProcessAndIsMadeAnewWhenAllHaveClosedIt) {
  for (const bool expendable : {false, true}) {
    {
      const Env env = open({.map_bytes = 1 << 20, .expendable = expendable});
      fill(env);
      Txn kept = *Txn::begin(env, Access::read), open_one = *Txn::begin(env, Access::read);
      const MDB_dbi db = *open_one.open_db("things");
      kept.reset();
      std::filesystem::resize_file(directory_ + "/lock.mdb", 0);
      EXPECT_TRUE(open_one.get(db, be64(7))) << "it has its snapshot";
      for (const Access access : {Access::read, Access::write, Access::read}) {
        const Result<Txn> txn = Txn::begin(env, access);
        ASSERT_FALSE(txn);
        EXPECT_THAT(txn.error().message, HasSubstr(directory_ + "/lock.mdb was cut off"));
      }
      EXPECT_FALSE(kept.renew());
      EXPECT_FALSE(kept.renew_unlooked());
    }
    const Env again = open({.map_bytes = 1 << 20, .expendable = expendable});
    Txn txn = *Txn::begin(again, Access::read);
    EXPECT_EQ(txn.entries(*txn.open_db("things")), 500u);
    EXPECT_TRUE(Txn::begin(again, Access::write));
  }
}

TEST_F(Lmdb, APageThatIsGoneUnderAReaderEndsTheProcessByNameAndLeavesAMark) {
  const auto read_what_is_gone = [this] {
    const Env env = open();
    fill(env);
    Txn txn = *Txn::begin(env, Access::read);
    const MDB_dbi db = *txn.open_db("things");
    std::filesystem::resize_file(directory_ + "/data.mdb", 8192);
    (void)txn.get(db, be64(250));
    std::_Exit(0);
  };
  EXPECT_EXIT(read_what_is_gone(), ::testing::KilledBySignal(SIGBUS),
              directory_ + "/data.mdb was cut off or cannot be read");
  EXPECT_TRUE(std::filesystem::exists(directory_ + kMark));
}

TEST_F(Lmdb, AGarbledPageEndsTheProcessByNameAndLeavesAMark) {
  const auto read_what_is_garbled = [this](bool does_without) {
    const Env env = open({.map_bytes = 1 << 20, .expendable = does_without});
    fill(env);
    Txn txn = *Txn::begin(env, Access::read);
    const MDB_dbi db = *txn.open_db("things");
    std::fstream data(directory_ + "/data.mdb", std::ios::in | std::ios::out | std::ios::binary);
    // Every page of the trees claims to be a branch with one entry that leads back to itself. No real tree has that.
    const auto pages = std::filesystem::file_size(directory_ + "/data.mdb") / 4096;
    for (uint64_t page = 2; page < pages; ++page) {
      data.seekp(static_cast<std::streamoff>(page * 4096 + 10));
      data.write("\x01\x00\x12\x00", 4);
    }
    data.flush();
    const bool is_found = txn.get(db, be64(250)).has_value();
    const bool is_told = !txn.sound() && !Txn::begin(env, Access::read) && !Txn::begin(env, Access::write);
    std::_Exit(!is_found && is_told ? 0 : 1);
  };
  EXPECT_EXIT(read_what_is_garbled(true), ::testing::ExitedWithCode(0), directory_ + "/data.mdb is garbled");
  EXPECT_TRUE(std::filesystem::exists(directory_ + kMark)) << "who can do without it goes on";
  std::filesystem::remove_all(directory_);
  std::filesystem::create_directories(directory_);
  EXPECT_EXIT(read_what_is_garbled(false), ::testing::KilledBySignal(SIGABRT), directory_ + "/data.mdb is garbled");
  EXPECT_TRUE(std::filesystem::exists(directory_ + kMark));
}

TEST_F(Lmdb, WhatIsNotFoundForDamageIsToldFromWhatIsNotThere) {
  const Env env = open();
  fill(env);
  const auto db_of = [](Txn& txn) { return *txn.open_db("things"); };
  {
    Txn txn = *Txn::begin(env, Access::write);
    EXPECT_FALSE(txn.get(db_of(txn), "absent"));
    EXPECT_TRUE(txn.sound());
  }
  // Every page of the trees becomes a branch with two entries that lead far beyond the file.
  const auto pages = std::filesystem::file_size(directory_ + "/data.mdb") / 4096;
  Txn reader = *Txn::begin(env, Access::read);
  const MDB_dbi db = db_of(reader);
  Txn writer = *Txn::begin(env, Access::write);
  std::fstream data(directory_ + "/data.mdb", std::ios::in | std::ios::out | std::ios::binary);
  for (uint64_t page = 2; page < pages; ++page) {
    data.seekp(static_cast<std::streamoff>(page * 4096 + 10));
    data.write("\x01\x00\x14\x00\x00\x01\x00\x01\x00\x01", 10);
    data.seekp(static_cast<std::streamoff>(page * 4096 + 256));
    data.write("\xff\xff\xff\xff\x00\x00\x08\x00", 8);
  }
  data.flush();
  for (Txn* txn : {&reader, &writer}) {
    EXPECT_FALSE(txn->get(db, be64(250)));
    ASSERT_FALSE(txn->sound());
    EXPECT_THAT(txn->sound().error().message, HasSubstr("damaged file"));
    Cursor cursor(*txn, db);
    EXPECT_FALSE(cursor.first());
    EXPECT_FALSE(txn->commit());
  }
}

// --- damage in an environment that the process can do without

// Two databases: leaf pages, overflow pages and free pages.
void fill_and_thin(const Env& env) {
  Txn txn = *Txn::begin(env, Access::write);
  const MDB_dbi things = *txn.open_db("things", MDB_CREATE), large = *txn.open_db("large", MDB_CREATE);
  for (uint64_t i = 0; i < 500; ++i) ASSERT_TRUE(txn.put(things, be64(i), std::string(200, 'v')));
  for (uint64_t i = 0; i < 40; ++i) ASSERT_TRUE(txn.put(large, be64(i), std::string(10'000, 'w')));
  ASSERT_TRUE(txn.commit());
  for (uint64_t round = 0; round < 4; ++round) {
    Txn thin = *Txn::begin(env, Access::write);
    for (uint64_t i = round; i < 40; i += 5) ASSERT_TRUE(thin.erase(large, be64(i)));
    ASSERT_TRUE(thin.commit());
  }
}

constexpr int kHarms = 5;
void harm(const std::string& path, int kind, std::mt19937& random) {
  const uint64_t bytes = std::filesystem::file_size(path), pages = bytes / 4096;
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  const auto scribble = [&](uint64_t at, uint64_t length) {
    std::string noise(length, '\0');
    for (char& c : noise) c = static_cast<char>(random());
    file.seekp(static_cast<std::streamoff>(at));
    file.write(noise.data(), static_cast<std::streamsize>(noise.size()));
  };
  switch (kind) {
    case 0:  // all but the meta pages
      return scribble(8192, bytes - 8192);
    case 1:  // everything
      return scribble(0, bytes);
    case 2:  // a page here and there
      for (uint64_t page = 2; page < pages; page += 1 + random() % 4) scribble(page * 4096, 4096);
      return;
    case 3:  // headers and node offsets
      for (uint64_t page = 2; page < pages; ++page) scribble(page * 4096 + 12, 40);
      return;
    default:
      std::filesystem::resize_file(path, 8192);
  }
}

// Any result is right, as long as the call returns.
void use(const Env& env, Txn& reader, MDB_dbi things, MDB_dbi large) {
  std::string out(10'000, '\0');
  for (const MDB_dbi db : {things, large}) {
    for (uint64_t i = 0; i < 500; i += 7) {
      const auto value = reader.get(db, be64(i));
      if (value && value->size() <= out.size()) (void)reader.copy(*value, out.data());
    }
    Cursor cursor(reader, db);
    int steps = 0;
    for (bool more = cursor.first(); more && steps < 2'000; more = cursor.next()) ++steps;
    (void)reader.entries(db);
  }
  (void)reader.is_latest();
  reader.reset();
  (void)reader.renew();
  for (uint64_t i = 0; i < 40; ++i) {
    Result<Txn> writer = Txn::begin(env, Access::write);
    if (!writer) continue;
    if (!writer->put(things, be64(1'000 + i * 37 % 500), std::string(300, 'n'))) continue;
    if (!writer->erase(things, be64(i * 11 % 500))) continue;
    if (!writer->put(large, be64(i), std::string(9'000, 'n'))) continue;
    (void)writer->commit();
  }
}

void survive_harm(const std::string& directory, unsigned seed) {
  std::mt19937 random(seed);
  std::filesystem::remove_all(directory);
  std::filesystem::create_directories(directory);
  Result<Env> env = Env::open(directory, {.map_bytes = 4 << 20, .expendable = true});
  ASSERT_TRUE(env);
  fill_and_thin(*env);
  Txn reader = *Txn::begin(*env, Access::read);
  const MDB_dbi things = *reader.open_db("things"), large = *reader.open_db("large");
  harm(directory + "/data.mdb", static_cast<int>(seed % kHarms), random);
  use(*env, reader, things, large);
  EXPECT_FALSE(Txn::begin(*env, Access::write)) << seed;
  EXPECT_FALSE(check(directory)) << seed;
}

TEST_F(Lmdb, NoDamageInAnExpendableEnvironmentEndsTheProcess) {
  for (unsigned seed = 0; seed < 4 * kHarms; ++seed) survive_harm(directory_, seed);
}

class LongLmdb : public Lmdb {};
TEST_F(LongLmdb, NoDamageInAnExpendableEnvironmentEndsTheProcess) {
  for (unsigned seed = 0; seed < 60 * kHarms; ++seed) survive_harm(directory_, seed);
}

TEST_F(Lmdb, AMissingDatabaseIsAnError) {
  const Env env = open();
  Txn txn = *Txn::begin(env, Access::read);
  const Result<MDB_dbi> db = txn.open_db("nothing");
  ASSERT_FALSE(db);
  EXPECT_THAT(db.error().message, HasSubstr("nothing"));
}

TEST_F(Lmdb, BigEndianKeysSortByValue) {
  EXPECT_LT(be64(255), be64(256));
  EXPECT_EQ(be64(be64(0x0102030405060708)), 0x0102030405060708u);
}

}  // namespace tidegate::lmdb::lmdb_test
