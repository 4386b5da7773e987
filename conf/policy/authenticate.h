// SPDX-License-Identifier: Apache-2.0
// The keys of authenticate: how a client shows who it is.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/model/common.h"
#include "conf/model/policy.h"

namespace tidegate {

// A client that is known by a secret. Only a hash of the secret is kept.
struct KnownClient {
  std::string name;
  std::string hash;
  std::vector<std::string> roles;
};

struct ApiKeys {
  bool enabled = false;
  std::string header = "X-API-Key";
  std::string query;  // a parameter of the query; empty: the query is not read
  std::vector<KnownClient> keys;
};

struct BasicUsers {
  bool enabled = false;
  std::vector<KnownClient> users;
};

struct JwtRules {
  bool enabled = false;
  Blob keys;             // a JWK set (RFC 7517)
  std::string keys_url;  // where the set is fetched from; empty: only `keys` count
  Blob keys_ca;          // authorities for the server of that URL; empty: the system's
  uint64_t keys_refresh_ms = 600'000;
  std::vector<std::string> algorithms;
  std::string issuer;
  std::vector<std::string> audience;  // a token must be for one of them
  uint64_t skew_s = 60;
  std::string cookie;  // where the token is if it is not in Authorization
  std::string name_claim = "sub";
  std::string roles_claim = "roles";
};

struct SigningClient {
  std::string name;
  std::vector<std::string> roles;
};

// Requests that their clients sign by HMAC (RFC 9421).
struct SignatureRules {
  bool enabled = false;
  Blob keys;  // a JWK set of secrets
  std::vector<SigningClient> clients;
  std::vector<std::string> covers = {"@method", "@authority", "@path", "@query"};
  uint64_t max_age_s = 300;
  uint64_t skew_s = 30;
  uint64_t remembered = 65'536;
};

// A service is asked about each request.
struct ForwardAuth {
  enum class OnFailure : uint8_t { refuse, pass };
  bool enabled = false;
  uint32_t pool = kNone;
  // path of the question, possibly with a query
  std::string path = "/";
  std::string host;  // empty: the client's own Host
  // fields of the client's request that the service gets
  std::vector<std::string> request_headers = {"Authorization", "Cookie"};
  std::vector<std::string> to_backend;  // fields of its answer that the backend gets
  std::vector<std::string> to_client;   // fields of its refusal that the client gets
  // fields of its answer that say who the client is; empty: it does not say
  std::string name_header, roles_header;
  std::vector<uint64_t> refusals = {401, 403};  // statuses of its answers that are passed on
  uint64_t timeout_ms = 2'000;
  OnFailure on_failure = OnFailure::refuse;
  uint64_t failure_status = 503;
  uint64_t cache_ttl_ms = 0;  // 0: the service is asked about every request
  uint64_t cache_entries = 10'000;
  std::vector<std::string> cache_by;  // empty: everything that the service is told
};

// One word of `cache_by`.
struct ForwardCacheBy {
  enum class What : uint8_t { method, host, path, query, client, header, cookie };
  What what = What::method;
  std::string name;  // of the header (lower case) or of the cookie
};
// Returns nothing for any other text.
std::optional<ForwardCacheBy> parse_forward_cache_by(std::string_view word);

// A client that is known by its TLS certificate.
struct CertificateClient {
  std::string name;  // as in the certificate; a final "/*" covers all names below
  std::vector<std::string> roles;
};

// The certificate of the connection, which the listener has checked (client_certificates).
struct CertificateClients {
  bool enabled = false;
  std::string name_from = "spiffe";
  std::vector<CertificateClient> clients;  // empty: every client with a certificate is known, without roles
  bool client_cert = false;                // backends get Client-Cert (RFC 9440)
};

struct AuthenticatePolicy final : PolicyPart {
  std::string realm = "tidegate";
  bool optional = false;
  ApiKeys api_keys;
  BasicUsers basic;
  JwtRules jwt;
  SignatureRules signatures;
  CertificateClients certificates;
  ForwardAuth forward;
  bool keep_credentials = true;
  std::string identity_header;
};

// Whether `setting` is an accepted hash of crypt(5): $6$, $5$, $2y$ or $2b$, within the bounds.
bool is_password_hash(std::string_view setting);

}  // namespace tidegate
