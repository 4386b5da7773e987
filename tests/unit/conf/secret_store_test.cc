// SPDX-License-Identifier: Apache-2.0
// Private keys are in their own environment. Users who may read the rest of the state cannot read them there. No key is
// lost or left over, at whatever time a process ends.
#include "conf/secret_store.h"
#include "conf/model.h"
#include "conf/model/certificate.h"
#include "conf/model/zone.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <iterator>
#include <set>

#include "conf/model_builder.h"
#include "conf/state_store.h"
#include "conf/state_store_impl.h"
#include "core/crypto.h"
#include "tests/unit/conf/documents.h"
#include "tests/unit/conf/forked.h"
#include "tests/unit/core/made_identity.h"

namespace tidegate::secret_store_test {

using ::testing::HasSubstr;
using Mode = StateStore::Mode;

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::unique_ptr<StateStore> open(const std::string& directory, Mode mode = Mode::read_write) {
  Result<std::unique_ptr<StateStore>> store = StateStore::open(directory, mode);
  EXPECT_TRUE(store) << (store ? "" : store.error().message);
  return store ? *std::move(store) : nullptr;
}

// Looks like a key, with different content for each number.
std::string fake_key(uint64_t number) {
  return "-----BEGIN PRIVATE KEY-----\n" + sha256_hex("key " + std::to_string(number)) +
         "\n-----END PRIVATE KEY-----\n";
}
// The part that is in no other file.
std::string core_of(const std::string& key) { return key.substr(28, 64); }

std::vector<ConfigObject> objects_with(const std::string& key) {
  return {{"file", "a.key", key}, {"file", "a.crt", "a certificate"}, {"pools", "p", "{\"name\":\"p\"}"}};
}

std::vector<std::string> kept_secrets(const std::string& state_dir) {
  return *(*SecretStore::open_for_reading(state_dir))->hashes();
}

TEST(HoldsPrivateKey, KnowsEveryKindThatOpenSslReadsAndNothingElse) {
  for (const char* kind : {"", "RSA ", "EC ", "ENCRYPTED ", "ANY "}) {
    const std::string pem = std::string("-----BEGIN ") + kind + "PRIVATE KEY-----\nMII\n";
    EXPECT_TRUE(holds_private_key(pem)) << kind;
    EXPECT_TRUE(holds_private_key("-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n" + pem)) << kind;
  }
  const TlsIdentity identity = make_identity("a");
  EXPECT_TRUE(holds_private_key(identity.key_pem));
  EXPECT_FALSE(holds_private_key(identity.certificate_pem));
  EXPECT_FALSE(holds_private_key(""));
  EXPECT_FALSE(holds_private_key("a TXT \"-----BEGIN PRIVATE KEY-----\"\n")) << "within a line";
  EXPECT_FALSE(holds_private_key("-----BEGIN PUBLIC KEY-----\nMII\n"));
  EXPECT_TRUE(holds_private_key(R"( {"keys": [{"kty": "RSA", "n": "x"}, {"kty": "oct", "k": "c2VjcmV0"}]})"));
  EXPECT_TRUE(holds_private_key(R"({"keys": [{"kty": "EC", "d": "cHJpdmF0ZQ"}]})"));
  EXPECT_FALSE(holds_private_key(R"({"keys": [{"kty": "RSA", "n": "x", "e": "AQAB"}, 7]})"));
  EXPECT_FALSE(holds_private_key(R"({"keys": 7})"));
  EXPECT_FALSE(holds_private_key(R"([{"k": "x"}])"));
  EXPECT_FALSE(holds_private_key("{"));
}

TEST(Secrets, LieInAnEnvironmentOfTheirOwnForTheirOwnerAlone) {
  const TempDir directory;
  const std::string key = fake_key(1);
  const auto store = open(directory / "host");
  ASSERT_TRUE(store->commit_version(objects_with(key), 0, "ann", ""));
  EXPECT_EQ(read_file(directory / "host/state/data.mdb").find(core_of(key)), std::string::npos);
  EXPECT_NE(read_file(directory / "host/secrets/data.mdb").find(core_of(key)), std::string::npos);
  struct stat file {};
  ASSERT_EQ(::stat((directory / "host/secrets").c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 07777, 0700U);
  EXPECT_EQ(*store->object(sha256_hex(key)), key) << "its writer reads it as before";
  EXPECT_EQ(store->objects(*store->manifest(1))->size(), 3U);
}

TEST(Secrets, AreWithheldFromAReaderThatHasNoUseForThem) {
  const TempDir directory;
  const TlsIdentity identity = make_identity("a.test", "DNS:a.test");
  std::vector<Fault> faults;
  const auto document = Document::parse("edge.yaml",
                                        "certificates:\n"
                                        "  - {name: a, certificate_file: a.crt, key_file: a.key}\n"
                                        "zones:\n"
                                        "  - {name: a.test, file: a.zone}\n",
                                        faults);
  ASSERT_TRUE(document && faults.empty());
  const FileReader files = files_from({{"a.crt", std::make_shared<const std::string>(identity.certificate_pem)},
                                       {"a.key", std::make_shared<const std::string>(identity.key_pem)},
                                       {"a.zone", std::make_shared<const std::string>("@ 60 IN NS ns\n")}});
  {
    const auto store = open(directory.path());
    ASSERT_TRUE(store->commit_version(split_objects(*document, files), 0, "ann", ""));
  }
  for (const auto& [mode, has_key] : {std::pair(Mode::without_keys, false), std::pair(Mode::read_only, true)}) {
    const auto store = open(directory.path(), mode);
    const Manifest manifest = *store->manifest(1);
    EXPECT_EQ(store->withholds(sha256_hex(identity.key_pem)), !has_key);
    const auto model = ModelBuilder().build(*store, manifest);
    ASSERT_TRUE(model) << model.error().message;
    const Certificate& certificate = (*model)->certificates.at(0);
    EXPECT_NE(certificate.certificate.bytes, nullptr);
    EXPECT_EQ(certificate.key.bytes != nullptr, has_key);
    EXPECT_NE((*model)->zones.at(0).file.bytes, nullptr);
    EXPECT_EQ(static_cast<bool>(store->object(sha256_hex(identity.key_pem))), has_key);
  }
}

// A name server must read its zones, so a key in a zone would be withheld from it.
TEST(Secrets, InAZoneFileAreAFault) {
  std::vector<Fault> faults;
  const auto document = Document::parse("edge.yaml", "zones:\n  - {name: a.test, file: a.zone}\n", faults);
  const std::string zone = "@ 60 IN NS ns\n" + fake_key(1);
  for (const auto& bytes : {std::make_shared<const std::string>(zone), withheld_file()}) {
    faults.clear();
    EXPECT_EQ(load_model(*document, files_from({{"a.zone", bytes}}), faults), nullptr);
    ASSERT_EQ(faults.size(), 1U);
    EXPECT_THAT(faults[0].detail, HasSubstr("private key"));
  }
}

class OtherUsers : public ::testing::Test {
 protected:
  static constexpr uid_t kUser = 12'345;
  static constexpr gid_t kReadersOfState = 23'456;

  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "only root can become other users";
    ::chmod(directory_.path().c_str(), 0755);
    ASSERT_EQ(::mkdir(host().c_str(), 02770), 0);
    ASSERT_EQ(::chown(host().c_str(), 0, kReadersOfState), 0);
    ASSERT_EQ(::chmod(host().c_str(), 02770), 0);
  }
  std::string host() const { return directory_ / "host"; }

  // Runs `body` in a process of that user, with these groups.
  static int as_user(const std::vector<gid_t>& groups, const std::function<int()>& body) {
    Forked other([&](Talk&) {
      if (::setgroups(groups.size(), groups.data()) != 0 ||
          ::setresgid(kReadersOfState, kReadersOfState, kReadersOfState) != 0) {
        return 100;
      }
      if (::setresuid(kUser, kUser, kUser) != 0) return 101;
      return body();
    });
    return other.wait();
  }

  const TempDir directory_;
};

TEST_F(OtherUsers, WhoReadTheStateReadNoKeyUnlessTheyAreInTheGroupOfKeys) {
  const std::string key = fake_key(1);
  const gid_t keys_group = ::getgrnam("daemon")->gr_gid;
  {
    const Result<std::unique_ptr<StateStore>> store = StateStore::open(host(), Mode::read_write, "daemon");
    ASSERT_TRUE(store) << store.error().message;
    ASSERT_TRUE((*store)->commit_version(objects_with(key), 0, "ann", ""));
  }
  const auto read_all = [&](Mode mode, std::string& why) {
    const Result<std::unique_ptr<StateStore>> store = StateStore::open(host(), mode);
    if (!store) return why = store.error().message, 1;
    const Result<std::vector<ConfigObject>> objects = (*store)->objects(*(*store)->manifest(1));
    if (!objects) return why = objects.error().message, 2;
    return objects->size() == 3 ? 0 : 3;
  };
  EXPECT_EQ(as_user({},
                    [&] {
                      std::string why;
                      for (const char* file : {"/secrets/data.mdb", "/secrets/lock.mdb"}) {
                        if (UniqueFd(::open((host() + file).c_str(), O_RDONLY))) return 10;
                      }
                      if (read_file(host() + "/state/data.mdb").find(core_of(key)) != std::string::npos) return 11;
                      if (read_file(host() + "/state/data.mdb").empty()) return 12;
                      if (read_all(Mode::without_keys, why) != 0) return 13;
                      if (read_all(Mode::read_only, why) != 2) return 14;
                      return why.find("--secrets-group") != std::string::npos &&
                                     why.find("Permission denied") != std::string::npos
                                 ? 0
                                 : 15;
                    }),
            0);
  EXPECT_EQ(as_user({keys_group},
                    [&] {
                      std::string why;
                      return read_all(Mode::read_only, why);
                    }),
            0)
      << "the proxy's user";
  struct stat file {};
  ASSERT_EQ(::stat((host() + "/secrets").c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 07777, 02750U);
  EXPECT_EQ(file.st_gid, keys_group);
}

TEST_F(OtherUsers, AGroupThatIsNotThereIsAnError) {
  const Result<std::unique_ptr<StateStore>> store = StateStore::open(host(), Mode::read_write, "no-such-group");
  ASSERT_FALSE(store);
  EXPECT_THAT(store.error().message, HasSubstr("there is no group 'no-such-group'"));
}

TEST(Secrets, WithoutAVersionThatNamesThemAreSweptAtTheNextStart) {
  const TempDir directory;
  {
    const auto store = open(directory.path());
    ASSERT_TRUE(store->commit_version(objects_with(fake_key(1)), 0, "ann", ""));
  }
  {
    // The state after a process that ended between the two transactions.
    const auto secrets = *SecretStore::open_for_writing(directory.path(), "");
    ASSERT_TRUE(secrets->add({{*hex_decode(sha256_hex(fake_key(2))), fake_key(2)}}));
  }
  open(directory.path()).reset();
  EXPECT_EQ(kept_secrets(directory.path()), std::vector<std::string>{*hex_decode(sha256_hex(fake_key(1)))});
}

TEST(Secrets, GoWithTheLastVersionThatNamesThem) {
  const TempDir directory;
  const auto store = open(directory.path());
  store->keep_versions(3);
  for (uint64_t version = 0; version < 10; ++version) {
    ASSERT_TRUE(store->commit_version(objects_with(fake_key(version)), version, "ann", ""));
  }
  // Two files with the same key, one of which is removed.
  std::vector<ConfigObject> twice = objects_with(fake_key(9));
  twice.push_back({"file", "b.key", fake_key(9)});
  ASSERT_TRUE(store->commit_version(twice, 10, "ann", ""));
  ASSERT_TRUE(store->commit_version(objects_with(fake_key(9)), 11, "ann", ""));
  Forked reader([&](Talk&) {
    std::set<std::string> kept;
    for (const std::string& hash : kept_secrets(directory.path())) kept.insert(hash);
    return kept == std::set<std::string>{*hex_decode(sha256_hex(fake_key(9)))} ? 0 : static_cast<int>(kept.size());
  });
  EXPECT_EQ(reader.wait(), 0);
  EXPECT_TRUE(store->object(sha256_hex(fake_key(9))));
}

TEST(Secrets, OfEveryCommittedVersionAreThereWhenTheirWriterIsKilled) {
  const TempDir directory;
  uint64_t acknowledged = 0;
  {
    Forked writer([&](Talk& talk) {
      const auto store = open(directory.path());
      for (uint64_t version = 0;; ++version) {
        if (!store->commit_version(objects_with(fake_key(version)), version, "ann", "")) return 1;
        talk.say(version + 1);
      }
    });
    while (acknowledged < 30) {
      acknowledged = writer.talk().hear();
      ASSERT_NE(acknowledged, 0U);
    }
    writer.kill(SIGKILL);
    EXPECT_EQ(writer.wait(), -SIGKILL);
  }
  const auto store = open(directory.path());
  const uint64_t head = store->head()->version;
  ASSERT_GE(head, acknowledged);
  for (uint64_t version = 1; version <= head; ++version) {
    EXPECT_EQ(*store->object(sha256_hex(fake_key(version - 1))), fake_key(version - 1));
  }
}

TEST(Secrets, ThatAreMissingAreDamageThatSaysWhatToDo) {
  const TempDir directory;
  {
    const auto store = open(directory.path());
    ASSERT_TRUE(store->commit_version(objects_with(fake_key(1)), 0, "ann", ""));
  }
  std::filesystem::remove_all(directory / "secrets");
  const Result<std::unique_ptr<StateStore>> store = StateStore::open(directory.path(), Mode::read_write);
  ASSERT_FALSE(store);
  EXPECT_TRUE(is_damage(store.error())) << store.error().message;
  EXPECT_THAT(store.error().message, HasSubstr("1 private key"));
}

TEST(Secrets, OfAStateThatWasLostArePutAsideAndNotDeleted) {
  const TempDir directory;
  {
    const auto store = open(directory.path());
    ASSERT_TRUE(store->commit_version(objects_with(fake_key(1)), 0, "ann", ""));
  }
  std::filesystem::remove_all(directory / "state");
  open(directory.path()).reset();
  EXPECT_TRUE(kept_secrets(directory.path()).empty());
  size_t aside = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory.path())) {
    if (!entry.path().filename().string().starts_with("secrets.of-lost-state-")) continue;
    ++aside;
    EXPECT_NE(read_file(entry.path() / "data.mdb").find(core_of(fake_key(1))), std::string::npos);
    EXPECT_EQ(static_cast<unsigned>(std::filesystem::status(entry.path()).permissions()), 0700U);
  }
  EXPECT_EQ(aside, 1U);
}

TEST(Secrets, AreTakenFromAnotherHostIntoThisOnesEnvironment) {
  const TempDir here, there;
  const std::string key = fake_key(1);
  const auto truth = open(there.path()), copy = open(here.path());
  const Manifest manifest = *truth->commit_version(objects_with(key), 0, "ann", "");
  std::vector<std::pair<std::string, std::string>> objects;
  for (const ManifestEntry& entry : manifest.entries) objects.emplace_back(entry.hash, *truth->object(entry.hash));
  ASSERT_TRUE(copy->replicate_version(manifest, objects));
  EXPECT_EQ(*copy->object(sha256_hex(key)), key);
  EXPECT_EQ(read_file(here / "state/data.mdb").find(core_of(key)), std::string::npos);
}

TEST(Secrets, AreInACopyOfTheStateAndForItsOwnerAlone) {
  const TempDir directory, copy;
  const auto store = open(directory.path());
  ASSERT_TRUE(store->commit_version(objects_with(fake_key(1)), 0, "ann", ""));
  ASSERT_TRUE(store->copy_to(copy / "backup"));
  EXPECT_FALSE(store->copy_to(copy / "backup")) << "nothing is over-written";
  EXPECT_EQ(read_file(copy / "backup/state/data.mdb").find(core_of(fake_key(1))), std::string::npos);
  EXPECT_EQ(static_cast<unsigned>(std::filesystem::status(copy / "backup").permissions()), 0700U);
  EXPECT_EQ(*open(copy / "backup")->object(sha256_hex(fake_key(1))), fake_key(1));
}

// A state in the form of earlier releases: keys are among the other objects. It also has a key that a version gave up,
// which is only in a freed page.
class FormatOne : public ::testing::Test {
 protected:
  static std::string freed_key() { return fake_key(2); }

  void SetUp() override {
    {
      const auto store = open(directory_.path());
      ASSERT_TRUE(store->commit_version(objects_with(fake_key(1)), 0, "ann", "first"));
      ASSERT_TRUE(store->set_verdicts({{"backend/a/b", HealthVerdict{true, "", 1}}}));
      ASSERT_TRUE(store->add_purge(PurgeKind::tag, "t", false, "ops", {}));
      digest_ = store->manifest(1)->digest;
    }
    lmdb::EnvOptions options;
    options.map_bytes = kStateMapBytes;
    const Result<lmdb::Env> env = lmdb::Env::open(directory_ / "state", options);
    ASSERT_TRUE(env);
    const auto write = [&](const std::function<void(lmdb::Txn&)>& body) {
      Result<lmdb::Txn> txn = lmdb::Txn::begin(*env, lmdb::Access::write);
      ASSERT_TRUE(txn);
      body(*txn);
      ASSERT_TRUE(txn->commit());
    };
    write([&](lmdb::Txn& txn) {
      ASSERT_TRUE(txn.put(*txn.open_db(kObjectDb), *hex_decode(sha256_hex(fake_key(1))), fake_key(1)));
      ASSERT_TRUE(txn.put(*txn.open_db(kObjectDb), "freed", freed_key() + std::string(20'000, 'f')));
      ASSERT_TRUE(txn.put(*txn.open_db(kSysDb), kFormatKey, lmdb::be64(1)));
      ASSERT_EQ(mdb_drop(txn.get(), *txn.open_db(kSecretDb), 1), 0);
    });
    write([&](lmdb::Txn& txn) { ASSERT_TRUE(txn.erase(*txn.open_db(kObjectDb), "freed")); });
    std::filesystem::remove_all(directory_ / "secrets");
    for (const std::string& key : {fake_key(1), freed_key()}) {
      ASSERT_NE(read_file(directory_ / "state/data.mdb").find(core_of(key)), std::string::npos);
    }
  }

  // In another process, like planes and control.
  void migrate() {
    Forked control([&](Talk&) { return StateStore::open(directory_.path(), Mode::read_write) ? 0 : 1; });
    ASSERT_EQ(control.wait(), 0);
  }

  const TempDir directory_;
  std::string digest_;
};

TEST_F(FormatOne, BecomesFormatTwoAndLeavesNoKeyInTheMainFileNotEvenInFreedPages) {
  std::filesystem::create_directories(directory_ / "state.damaged");
  migrate();
  for (const std::string& key : {fake_key(1), freed_key()}) {
    EXPECT_EQ(read_file(directory_ / "state/data.mdb").find(core_of(key)), std::string::npos);
  }
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory_.path())) {
    names.insert(entry.path().filename());
  }
  EXPECT_EQ(names.count("state.next"), 0U);
  EXPECT_EQ(static_cast<unsigned>(std::filesystem::status(directory_ / "state.damaged").permissions()), 0700U);
  const auto store = open(directory_.path());
  EXPECT_EQ(store->manifest(1)->digest, digest_);
  EXPECT_EQ(store->manifest(1)->comment, "first");
  EXPECT_EQ(*store->object(sha256_hex(fake_key(1))), fake_key(1));
  EXPECT_EQ(store->objects(*store->manifest(1))->size(), 3U);
  EXPECT_EQ(store->purges_after(0, 10)->size(), 1U);
  EXPECT_EQ(store->head()->purge, 1U);
  EXPECT_TRUE(store->commit_version(objects_with(fake_key(3)), 1, "ann", "goes on"));
}

TEST_F(FormatOne, IsReadAsItIsUntilItsControlMigratesIt) {
  for (const Mode mode : {Mode::read_only, Mode::without_keys}) {
    const auto store = open(directory_.path(), mode);
    EXPECT_EQ(store->objects(*store->manifest(1))->size(), 3U);
  }
}

TEST_F(FormatOne, IsMigratedOnceMoreWhereThatWasCutOff) {
  std::filesystem::create_directories(directory_ / "state.next");
  std::ofstream(directory_ / "state.next/data.mdb") << "half";
  migrate();
  EXPECT_EQ(*open(directory_.path())->object(sha256_hex(fake_key(1))), fake_key(1));
  // The old state, if the exchange was the last step.
  std::filesystem::create_directories(directory_ / "state.next");
  std::ofstream(directory_ / "state.next/data.mdb") << fake_key(1);
  migrate();
  EXPECT_FALSE(std::filesystem::exists(directory_ / "state.next"));
}

IssuedCertificate issued(const std::string& certificate, const std::string& key) {
  IssuedCertificate record;
  record.names = {"a.test"};
  record.certificate_hash = sha256_hex(certificate);
  record.key_hash = sha256_hex(key);
  record.not_after_s = 7;
  return record;
}

TEST(OrderedCertificates, AreBesideVersionsAndTheirKeysAreSecrets) {
  const TempDir directory;
  const auto store = open(directory.path());
  ASSERT_TRUE(store->commit_version(objects_with(fake_key(1)), 0, "ann", ""));
  CertificateChanges changes;
  changes.certificates.emplace_back("web", issued("chain", fake_key(2)));
  changes.accounts.emplace_back("https://ca/dir", sha256_hex(fake_key(3)));
  changes.proofs = AcmeProofs{{"http/token", "token.thumb"}};
  changes.objects = {"chain", fake_key(2), fake_key(3)};
  ASSERT_TRUE(store->set_certificates(changes));
  EXPECT_EQ(kept_secrets(directory.path()).size(), 3u);

  // Neither another version nor a rollback removes them.
  for (uint64_t version = 1; version <= 3; ++version) {
    ASSERT_TRUE(store->commit_version({{"pools", "p", std::to_string(version)}}, version, "ann", "", 1));
  }
  const LiveState live_state = *store->live_state();
  EXPECT_EQ(live_state.certificates.at("web").not_after_s, 7);
  EXPECT_EQ(live_state.proofs.at("http/token"), "token.thumb");
  EXPECT_EQ(*store->object(live_state.certificates.at("web").key_hash), fake_key(2));
  EXPECT_EQ(*store->object(live_state.accounts.at("https://ca/dir")), fake_key(3));

  // An empty change writes nothing. A record that names a missing object is refused.
  const uint64_t sequence = store->head()->live_state;
  EXPECT_EQ(*store->set_certificates({}), sequence);
  CertificateChanges broken;
  broken.certificates.emplace_back("web", issued("another chain", fake_key(2)));
  EXPECT_FALSE(store->set_certificates(broken));
  EXPECT_TRUE(store->object(sha256_hex("chain")));
}

TEST(OrderedCertificates, TakeTheirKeysWithThemWhenTheyGo) {
  const TempDir directory;
  const auto store = open(directory.path());
  CertificateChanges first, renewed, gone;
  first.certificates.emplace_back("web", issued("chain", fake_key(1)));
  first.certificates.emplace_back("copy", issued("chain", fake_key(1)));
  first.objects = {"chain", fake_key(1)};
  ASSERT_TRUE(store->set_certificates(first));
  renewed.certificates.emplace_back("web", issued("chain 2", fake_key(2)));
  renewed.objects = {"chain 2", fake_key(2)};
  ASSERT_TRUE(store->set_certificates(renewed));
  EXPECT_EQ(kept_secrets(directory.path()).size(), 2u) << "the copy still has the old one";
  gone.certificates = {{"web", std::nullopt}, {"copy", std::nullopt}};
  ASSERT_TRUE(store->set_certificates(gone));
  EXPECT_TRUE(kept_secrets(directory.path()).empty());
  EXPECT_FALSE(store->has_object(sha256_hex("chain")));
}

TEST(OcspAnswers, AreObjectsOfTheLiveStateAndGoWithTheirRecords) {
  const TempDir here, there;
  const auto leader = open(here.path()), follower = open(there.path());
  StapleRecord good;
  good.certificate_hash = "hash";
  good.status = RevocationStatus::good;
  good.answer_hash = sha256_hex("answer");
  good.this_update_s = 5;
  good.next_update_s = 9;
  good.next_try_s = 7;
  CertificateChanges changes;
  changes.staples.emplace_back("web", good);
  EXPECT_FALSE(leader->set_certificates(changes)) << "the answer is missing";
  changes.objects = {"answer"};
  ASSERT_TRUE(leader->set_certificates(changes));
  ASSERT_TRUE(follower->replicate_live_state(*leader->live_state(), {"answer"}));
  for (const StateStore* store : {leader.get(), follower.get()}) {
    const StapleRecord there_now = store->live_state()->staples.at("web");
    EXPECT_EQ(there_now.status, RevocationStatus::good);
    EXPECT_EQ(there_now.next_update_s, 9);
    EXPECT_EQ(there_now.next_try_s, 7);
    EXPECT_EQ(*store->object(there_now.answer_hash), "answer");
  }
  StapleRecord revoked = good;
  revoked.status = RevocationStatus::revoked;
  revoked.answer_hash.clear();
  revoked.error = "it is revoked";
  changes = {};
  changes.staples.emplace_back("web", revoked);
  ASSERT_TRUE(leader->set_certificates(changes));
  EXPECT_EQ(leader->live_state()->staples.at("web").status, RevocationStatus::revoked);
  EXPECT_EQ(leader->audit_newest(1)->front().action, "revoked");
  EXPECT_FALSE(leader->has_object(good.answer_hash));
  changes.staples = {{"web", std::nullopt}};
  ASSERT_TRUE(leader->set_certificates(changes));
  EXPECT_TRUE(leader->live_state()->staples.empty());
}

TEST(OrderedCertificates, ReachAnotherHostByItsLiveStateAndByAWriteSet) {
  const TempDir here, there, third;
  const auto leader = open(here.path()), follower = open(there.path()), copy = open(third.path());
  CertificateChanges changes;
  changes.certificates.emplace_back("web", issued("chain", fake_key(1)));
  changes.objects = {"chain", fake_key(1)};
  leader->begin_trial();
  ASSERT_TRUE(leader->set_certificates(changes));
  const WriteSet set = leader->end_trial();
  EXPECT_TRUE(leader->live_state()->certificates.empty()) << "it was a trial";
  const Result<WriteSet> sent = decode_write_set(encode_write_set(set));
  ASSERT_TRUE(sent);
  ASSERT_TRUE(leader->adopt(*sent, {1, "digest"}, true));
  const LiveState live_state = *leader->live_state();
  EXPECT_FALSE(follower->replicate_live_state(live_state)) << "the objects are missing";
  ASSERT_TRUE(follower->replicate_live_state(live_state, {"chain", fake_key(1)}));
  JournalPosition position;
  ASSERT_TRUE(copy->adopt(*leader->everything(position), position, false));
  for (const StateStore* store : {leader.get(), follower.get(), copy.get()}) {
    EXPECT_EQ(*store->object(store->live_state()->certificates.at("web").key_hash), fake_key(1));
  }
  EXPECT_EQ(kept_secrets(there.path()).size(), 1u);
}

}  // namespace tidegate::secret_store_test
