// SPDX-License-Identifier: Apache-2.0
// A candidate on its way to the planes: a configuration that may become the next version. Control sends its difference
// from a version that the host's state has. A plane answers with its vote.
//
// A candidate has an id and no version number. A plane recognizes it at the commit by the digest of its manifest.
//
// Pure: any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/state_store.h"
#include "core/result.h"

namespace tidegate {

struct CandidateChange {
  std::string kind, name;
  std::string hash;                          // empty: the object is gone
  std::shared_ptr<const std::string> bytes;  // null: the state has the object, or it is a withheld private key
  bool withheld = false;
};

struct CandidateVersion {
  uint64_t id = 0;          // grows from one candidate of a control to the next, also over restarts; never 0
  uint64_t base = 0;        // the version that the changes start from; 0: none
  std::string base_digest;  // digest of the base's manifest; empty for version 0
  std::string digest;       // digest of the candidate's own manifest
  std::vector<CandidateChange> changes;  // ordered by kind and name
};

// The answer of a plane, or of a host for its planes.
struct Vote {
  enum class Choice : uint8_t {
    yes,     // it holds everything that the candidate needs
    no,      // see `why`; it holds nothing
    behind,  // it cannot judge the candidate, because it does not have the base; see `why`
  };
  Choice choice = Choice::yes;
  std::string why;
  // Keys that the candidate changes and that take effect only at the next start of the plane: "l7.workers".
  std::vector<std::string> needs_restart;
  // In a host's vote: its planes that could not be asked.
  std::vector<std::string> missing;

  bool yes() const { return choice == Choice::yes; }
  static Vote no(std::string why) { return {Choice::no, std::move(why), {}, {}}; }
  static Vote behind(std::string why) { return {Choice::behind, std::move(why), {}, {}}; }
};
const char* name(Vote::Choice choice);

// JSON. Without keys, the bytes of private keys are left out.
std::string encode_candidate(const CandidateVersion& candidate, bool with_keys);
// Checks shapes, order, and that all bytes match their hashes. An Error names the fault.
Result<CandidateVersion> decode_candidate(std::string_view text);
std::string encode_vote(const Vote& vote);
Result<Vote> decode_vote(std::string_view text);

// The changes that lead from `base` to a version with these entries, which are in order. `object` gives the bytes of an
// entry that the base does not have. For an entry that the base has, it may return null.
CandidateVersion candidate_between(
    uint64_t id, const Manifest& base, const std::vector<ManifestEntry>& entries,
    const std::function<std::shared_ptr<const std::string>(const ManifestEntry&)>& object);

// The candidate that changes the content of one object. Nothing if `base` does not have the object.
std::optional<CandidateVersion> candidate_with(uint64_t id, const Manifest& base, CandidateChange change);

// The candidate's manifest, with the version number that it gets if no other version is committed first. An Error if
// `base` is not the candidate's base, or if the result does not have the candidate's digest.
Result<Manifest> manifest_of(const CandidateVersion& candidate, const Manifest& base);

// The objects of versions and of one candidate.
class ObjectSource {
 public:
  // Both are borrowed. `candidate` may be null.
  explicit ObjectSource(const StateStore& store, const CandidateVersion* candidate = nullptr);
  Result<std::string> object(const std::string& hash) const;
  bool withholds(const std::string& hash) const;
  Result<std::vector<ConfigObject>> objects(const Manifest& manifest) const;

 private:
  const StateStore& store_;
  std::map<std::string_view, const CandidateChange*> brought_;  // the candidate's objects, by hash
};

}  // namespace tidegate
