// SPDX-License-Identifier: Apache-2.0
// StateStore: a host's state in LMDB (<state>/state). It holds versions as manifests of content-hashed objects, the
// live state (overrides and health), the purge log, the audit trail, and answers for repeated requests. Private keys
// lie in an environment of their own (<state>/secrets, conf/secret_store.h). There is one writer, this host's
// tidegate-control. Every plane of the host reads.
//
// A version is immutable. One write is one transaction: objects, manifest, head, audit and answer together. Then the
// notify file is touched.
//
// Threads: an instance belongs to one thread. Readers copy the data and close their transaction before they return.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/document.h"
#include "conf/live_state.h"
#include "conf/write_set.h"
#include "core/lmdb.h"
#include "core/result.h"

namespace tidegate {

// The file in the state directory that a writer touches after each commit. Followers watch it by inotify. On disk it is
// called "bell", because planes of the first versions look for that name.
inline const std::string kNotifyFile = "bell";

struct ManifestEntry {
  std::string kind, name;
  std::string hash;  // SHA-256, hex
  auto operator<=>(const ManifestEntry&) const = default;
};

struct Manifest {
  uint64_t version = 0;
  uint64_t created_ns = 0;  // realtime
  std::string author, comment;
  std::string digest;                  // SHA-256 over the entries; equal digest means equal configuration
  uint64_t rollback_of = 0;            // the version whose content this one restores, or 0
  std::vector<ManifestEntry> entries;  // ordered by kind and name
};

enum class PurgeKind : uint8_t { url, tag, all };
struct Purge {
  uint64_t sequence = 0;
  PurgeKind kind = PurgeKind::url;
  std::string value;   // the URL, or the tag
  bool soft = false;   // marks as stale instead of removing
  uint64_t at_ns = 0;  // realtime
  std::string by;
  // Set only for kind `all` and only by a follower: the purge log was replaced, or set back. From now on the new log's
  // sequence counts, even if it is lower.
  bool anew = false;
};

// A position in the purge log. The time distinguishes it from the same position in another log; 0: not known.
struct PurgePosition {
  uint64_t sequence = 0;
  uint64_t at_ns = 0;
  bool operator==(const PurgePosition&) const = default;
};

struct AuditRecord {
  uint64_t sequence = 0;
  uint64_t at_ns = 0;
  std::string who, action, target, detail;
};

// The answer to a request that may be sent again.
struct KeptAnswer {
  std::string request;  // the key of the answer: 1 to 511 bytes
  std::string answer;
};
// Makes the answer to a write from what is about to be committed. The answer is stored in the same transaction, so a
// repeated request finds both or neither. An empty function stores no answer.
template <class Written>
using AnswerTo = std::function<KeptAnswer(const Written&)>;

// Positions that a follower compares to see what changed. All three only grow.
struct StateHead {
  uint64_t version = 0;
  uint64_t live_state = 0;
  uint64_t purge = 0;
  bool operator==(const StateHead&) const = default;
};

// The last write that this state adopted, if a journal decides writes. Sequence 0: writes are decided on this host.
struct JournalPosition {
  uint64_t sequence = 0;
  std::string digest;  // digest over all write sets up to this one, in hex
  bool operator==(const JournalPosition&) const = default;
};

// True if a write was refused because there is no room: on the disk, in a quota, or within the state's own limit.
bool is_disk_full(const Error& error);
// Whether a state was refused because something in it is missing or damaged.
bool is_damage(const Error& error);

class StateStore {
 public:
  // An empty data file beside a notify file is damage, because there was a state. Without a notify file it is a first
  // start that was interrupted. For any other file, returns the result of lmdb::check.
  static Result<void> check(const std::string& state_dir);

  enum class Mode {
    without_keys,  // reads everything except private keys
    read_only,     // opens the private keys when the first one is needed
    read_write,
  };
  // Creates directories and files if the mode is read_write, and migrates a state of an earlier format. A damaged
  // environment gives an Error that says what to do, never a crash. `secrets_group` is for the writer: the group that
  // may read private keys. If it is empty, the directory keeps its group and mode; a new one is for its owner only.
  static Result<std::unique_ptr<StateStore>> open(const std::string& state_dir, Mode mode,
                                                  const std::string& secrets_group = {});
  ~StateStore();

  // --- for readers
  Result<StateHead> head() const;
  Result<Manifest> manifest(uint64_t version) const;
  Result<Manifest> manifest_without_entries(uint64_t version) const;
  Result<std::vector<Manifest>> list_versions(size_t newest) const;  // without entries, newest first
  Result<std::string> object(const std::string& hash) const;
  // True if the object is a private key that this reader does not get. Then object() returns an Error, and objects()
  // returns the object without its bytes.
  bool withholds(const std::string& hash) const;
  bool has_object(const std::string& hash) const;
  Result<std::vector<ConfigObject>> objects(const Manifest& manifest) const;
  Result<LiveState> live_state() const;
  Result<std::vector<Purge>> purges_after(uint64_t sequence, size_t limit) const;
  Result<std::vector<AuditRecord>> audit_newest(size_t count) const;

  // --- for the writer
  // How many answers are kept, the newest ones. Fewer if they are large, but always the last one.
  static constexpr size_t kAnswersKept = 1024;
  static constexpr size_t kAnswerBytesKept = 32 << 20;
  Result<std::optional<std::string>> kept_answer(std::string_view request) const;
  // Replaces an earlier answer to the same request.
  Result<void> keep_answer(const KeptAnswer& kept);

  // Sets how many of the newest versions are kept (kVersionsKept by default). It applies from the next commit on.
  static constexpr size_t kVersionsKept = 1'000;
  void keep_versions(size_t count);

  // `expected_head` is the version on which the change was based. If the head is another one now, returns an Error
  // ("conflict: ...").
  Result<Manifest> commit_version(const std::vector<ConfigObject>& objects, uint64_t expected_head,
                                  std::string_view author, std::string_view comment, uint64_t rollback_of = 0,
                                  const AnswerTo<Manifest>& answer = {});
  // Replaces the head's object of the same kind and name.
  Result<Manifest> commit_change(const ConfigObject& object, uint64_t expected_head, std::string_view author,
                                 std::string_view comment);
  // Where a journal decides, a provisional version has a record in the state, so that every host learns of it with the
  // version. The next commit of a version stores `record`. A commit without a record removes the old one. An empty
  // `record` undoes this call.
  void set_next_provisional(std::string record);
  // Returns nothing if the version in force is not provisional.
  Result<std::optional<std::string>> provisional() const;
  // Makes the version permanent. An Error begins with "not_provisional" if it is not in force, or has no record.
  Result<void> end_provisional(uint64_t version, std::string_view who);
  // For a host that follows another host's control: stores the version under its number there. `new_objects` must
  // contain the objects that this store lacks.
  Result<void> replicate_version(const Manifest& manifest,
                                 const std::vector<std::pair<std::string, std::string>>& new_objects);
  Result<uint64_t> set_override(const std::string& key, const std::optional<Override>& record, std::string_view who);
  // Stores several verdicts in one commit. Returns the new sequence.
  Result<uint64_t> set_verdicts(const std::vector<std::pair<std::string, std::optional<HealthVerdict>>>& verdicts);
  // Changes the load shares of sites. A site without a value sheds nothing.
  Result<uint64_t> set_loads(const std::vector<std::pair<std::string, std::optional<SiteLoad>>>& loads);
  // Changes the records of names. A name without a value loses its record.
  Result<uint64_t> set_names(const std::vector<std::pair<std::string, std::optional<FoundName>>>& names);
  // Changes the records of ordered certificates in one commit. For every hash in a record, the object must be stored
  // already or be in `changes.objects`. Private keys are stored like those of versions.
  Result<uint64_t> set_certificates(const CertificateChanges& changes);
  // Replaces the whole live state. Its sequence may also begin with kSiteWords. `new_objects` has the bytes of
  // certificates and keys that this store lacks.
  Result<void> replicate_live_state(const LiveState& live_state, const std::vector<std::string>& new_objects = {});
  // Sequences from here on belong to verdicts that a host sets while its leader is silent. Such verdicts hold here
  // until the leader's live state comes again. No leader uses these sequences.
  static constexpr uint64_t kSiteWords = uint64_t{1} << 52;
  Result<uint64_t> set_site_verdicts(const std::vector<std::pair<std::string, std::optional<HealthVerdict>>>& verdicts);
  Result<uint64_t> add_purge(PurgeKind kind, std::string_view value, bool soft, std::string_view who,
                             const AnswerTo<uint64_t>& answer = {});
  Result<void> replicate_purge(const Purge& purge);

  // --- for a writer whose writes are decided outside of this host
  // From begin_trial() on, a write changes nothing here and returns what it would return. end_trial() returns what it
  // would change. There is one write at a time. It is adopted or forgotten before the next one.
  void begin_trial();
  WriteSet end_trial();
  void forget_trial();
  Result<JournalPosition> journal_position() const;
  // Makes the changes of a decided write, which brings the state to `position`. `own`: it is what the last trial gave.
  Result<void> adopt(const WriteSet& set, const JournalPosition& position, bool own);
  // Keeps only the position: an empty digest makes the next comparison fail, so that everything is fetched again.
  Result<void> set_journal_position(const JournalPosition& position);
  // The whole state as a write set, with the position that it has.
  Result<WriteSet> everything(JournalPosition& position) const;

  // Copies everything that is committed now, with the private keys, to `directory`/state and `directory`/secrets, for
  // the owner only. Neither may exist. Writers continue meanwhile.
  Result<void> copy_to(const std::string& directory) const;

  const std::string& notify_path() const;

  struct Impl;  // defined in conf/state_store_impl.h

 private:
  StateStore();
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidegate
