// SPDX-License-Identifier: Apache-2.0
// LiveState: the overrides of operators and the verdicts of probes. It is separate from the configuration and survives
// its changes. An override comes from an operator ("drain this"). A health verdict comes from a probe. Both are kept in
// the state store.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/ip.h"

namespace tidegate {

enum class OverrideState : uint8_t {
  drained,
  down,
  up,     // only of a plane: it is in service, even if control finds it down
  quota,  // only of a policy's limit: it has another quota than the configuration says
};        // no record: control decides

struct Override {
  OverrideState state = OverrideState::drained;
  std::string by;  // who set it
  std::string note;
  uint64_t since_ns = 0;             // realtime
  uint64_t requests = 0, burst = 0;  // of a quota, as in the policy (conf/policy/limit.h)
};

struct HealthVerdict {
  bool up = false;
  std::string reason;     // "connect: refused", "status 503, expected 200"
  uint64_t since_ns = 0;  // realtime of the change
  bool drains = false;    // of a plane that is not up: it gets no new work, but its running work continues
  bool operator==(const HealthVerdict&) const = default;
};

// The load of a site, and the share of its clients that it sends away, for steers of the policy `shed`. Control
// computes the share from the reports of the site's proxies (control/health/shed_controller.h). So every name server
// uses the same share.
struct SiteLoad {
  uint32_t load_percent = 0;   // when the share was decided
  uint32_t shed_permille = 0;  // share of the site's clients that are sent on
  uint64_t since_ns = 0;       // realtime of the decision
};

// A certificate that control ordered from an authority, and how the last try to get one went. The certificate and its
// key are objects of the state, like the files of a version. No version names them, so a rollback does not change them.
struct IssuedCertificate {
  std::vector<std::string> names;             // for which it was issued
  std::string certificate_hash, key_hash;     // SHA-256 in hex of the PEM chain and key; empty: none was issued yet
  int64_t not_before_s = 0, not_after_s = 0;  // epoch
  uint32_t failures = 0;                      // tries in a row that failed
  int64_t next_try_s = 0;                     // epoch; 0: as soon as it is due
  std::string error;                          // of the last try; empty if it succeeded
  // The window in which the authority wants a renewal (RFC 9773), epoch; an end of 0: it has named none. Then the time
  // at which to ask it next.
  int64_t window_start_s = 0, window_end_s = 0, ask_window_at_s = 0;
  // The content, in a plane that uses private keys. Null elsewhere, or if it cannot be read. Not part of the record.
  std::shared_ptr<const std::string> certificate, key;

  bool is_issued() const { return !certificate_hash.empty(); }
};

// The status of a certificate by the last OCSP answer of its authority (RFC 6960), as control judged the answer.
enum class RevocationStatus : uint8_t {
  not_known,  // no usable answer came yet, or the authority does not know the certificate
  good,
  revoked,
};

// The record of a certificate with stapling. The answer is an object of the state, like an issued certificate.
struct StapleRecord {
  std::string certificate_hash;  // SHA-256 in hex of the PEM chain that it is about
  RevocationStatus status = RevocationStatus::not_known;
  std::string answer_hash;                       // SHA-256 in hex of a good answer; empty: none is shown
  int64_t this_update_s = 0, next_update_s = 0;  // epoch: the answer holds between them
  uint32_t failures = 0;                         // tries in a row without a good answer
  int64_t next_try_s = 0;                        // epoch: when the authority is asked again
  std::string error;                             // of the last try; empty if it succeeded
  // The answer in DER, in a plane that shows it. Null elsewhere. Not part of the record.
  std::shared_ptr<const std::string> answer;
};

// The proofs that the edge must show to an authority while a certificate is ordered. Keys: "http/TOKEN" with the key
// authorization (RFC 8555 §8.3), "alpn/NAME" with its SHA-256 in hex (RFC 8737 §3), "dns/NAME/VALUE" with an empty
// text: the TXT record VALUE of _acme-challenge.NAME (RFC 8555 §8.4).
using AcmeProofs = std::map<std::string, std::string>;

// A server that the name of a backend leads to.
struct NamedEndpoint {
  Endpoint endpoint;      // port 0: the backend's
  uint16_t priority = 0;  // of SRV: servers with a higher number are used if those with the smallest are not enough
  uint16_t weight = 1;    // of SRV; at least 1
  // Realtime at which the name stopped leading to the server. The server stays for a while for the work that runs
  // there. 0: the name leads to it.
  uint64_t left_ns = 0;
  auto operator<=>(const NamedEndpoint&) const = default;
};

// The servers that the last lookup of a name found.
struct FoundName {
  std::vector<NamedEndpoint> endpoints;  // sorted
  std::string trouble;                   // why the last lookup found nothing new; empty: it succeeded
  bool operator==(const FoundName&) const = default;
};

// Keys: "host NAME" or "srv NAME".
using NameBook = std::map<std::string, FoundName>;

// Keys of overrides: "backend/<pool>/<backend>", "pool/<pool>", "site/<site>", "vip/<vip>" and
// "target/<steer>/<target>", where the target's name is its target_label() (conf/model.h) and the steer's has no final
// dot, and "plane/<node>/<plane>", and "limit/<policy>". Keys of health: "backend/<pool>/<backend>" and
// "plane/<node>/<plane>"; a plane without a record is up. Keys of loads: "site/<site>"; a site that sheds nothing has
// no record. In the keys of its verdict and of its own override, a server that was found by a name is called
// "<backend>/<address>:<port>".
struct LiveState {
  uint64_t sequence = 0;  // increases by one with every change of any record
  std::map<std::string, Override> overrides;
  std::map<std::string, HealthVerdict> health;
  std::map<std::string, SiteLoad> loads;
  NameBook names;  // of the backends that control looks up (conf/found_backends.h)
  std::map<std::string, IssuedCertificate> certificates;  // by their names in the configuration
  std::map<std::string, StapleRecord> staples;            // by the certificate's name in the configuration
  AcmeProofs proofs;
  std::map<std::string, std::string> accounts;  // hash of the account's key, by the URL of the authority's directory
};

// What control changes in one commit of certificates, staples, accounts and proofs. A record without a value is erased.
struct CertificateChanges {
  std::vector<std::pair<std::string, std::optional<IssuedCertificate>>> certificates;
  std::vector<std::pair<std::string, std::optional<StapleRecord>>> staples;
  std::optional<AcmeProofs> proofs;  // replaces all proofs
  std::vector<std::pair<std::string, std::string>> accounts;
  std::vector<std::string> objects;  // bytes of new certificates, keys and answers
};

std::string backend_key(std::string_view pool, std::string_view backend);
std::string pool_key(std::string_view pool);
std::string site_key(std::string_view site);
std::string vip_key(std::string_view vip);
std::string target_key(std::string_view steer, std::string_view label);
std::string plane_key(std::string_view node, std::string_view plane);
std::string limit_key(std::string_view policy);

}  // namespace tidegate
