// SPDX-License-Identifier: Apache-2.0
// Description: what the proxy makes of a Snapshot, without what it has learned while it serves (runtime state of
// backends, counts of policies). Making a Description changes nothing else in the process. OwnCertificates
// (l7/own_certificates.h) adds what the proxy signs itself. A Plan (l7/plan.h) is a Description together with the
// runtime state.
//
// Immutable; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "conf/backend_names.h"
#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/snapshot.h"
#include "core/hash.h"
#include "core/result.h"
#include "l7/plan/certificates.h"
#include "l7/plan/policy_bindings.h"
#include "l7/plan/policy_content.h"
#include "l7/plan/pool_tables.h"
#include "l7/route/router.h"

namespace tidegate::l7 {

// The part of a pool that routes with labels use.
struct LabelledPool {
  uint32_t pool = kNone;
  std::vector<std::string> labels;  // sorted
  std::shared_ptr<const PoolTables> tables = nullptr;
};

struct Description {
  std::shared_ptr<const Snapshot> snapshot;
  uint32_t node = kNone;
  // the same object as in the previous Description if the Model is the same
  std::shared_ptr<const Router> router;
  // Parallel to Model::pools. The same object as in the previous Description where nothing has changed.
  std::vector<std::shared_ptr<const PoolTables>> tables;
  std::vector<LabelledPool> labelled_pools;
  std::vector<uint32_t> subset_of_route;  // parallel to Model::routes: index into labelled_pools; kNone: the whole pool
  std::vector<uint32_t> listeners;        // listeners of this node's site
  // Both have the same objects as in the previous Description where nothing has changed.
  PolicyContents policy_contents;
  std::shared_ptr<const PolicyBindings> policy_bindings;
  std::shared_ptr<const NameBook> names;        // what the names of backends lead to
  std::vector<ServedCertificate> certificates;  // parallel to Model::certificates
  AcmeAnswers acme_answers;                     // usually empty; the texts are the snapshot's
  std::vector<AcmeIdentity> acme_identities;    // usually empty
  HashKey hash_key;                             // of consistent_hash; equal on every host of the site

  const Model& model() const { return *snapshot->model; }
  const Node& this_node() const { return model().nodes[node]; }
};

struct DescriptionInputs {
  std::shared_ptr<const Snapshot> snapshot;
  uint32_t node = kNone;
  HashKey router_key, hash_key;
  std::shared_ptr<const NameBook> names = nullptr;  // null: none is known
};
// Pure: equal inputs make equal Descriptions. Uses what `previous` (may be null) has in common with it. An Error if the
// content cannot be served; judge() (l7/plan/judge.h) finds such faults before a version is committed.
Result<Description> describe(const DescriptionInputs& inputs, const Description* previous);

}  // namespace tidegate::l7
