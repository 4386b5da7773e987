// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include "conf/document.h"
#include "conf/follower_base.h"
#include "conf/found_backends.h"
#include "conf/model.h"
#include "conf/model/certificate.h"
#include "conf/model/listener.h"
#include "conf/model/pool.h"
#include "conf/model/probe.h"
#include "conf/model/service.h"
#include "conf/model/zone.h"
#include "core/crypto.h"

namespace tidegate {
namespace {

// A digest of everything that the Model was made from: the document and the files it names.
std::string content_digest(const LoadedFile& loaded) {
  std::string content = sha256_hex(loaded.document->expanded() ? loaded.document->to_yaml() : loaded.text);
  for (const Certificate& certificate : loaded.model->certificates) {
    content += certificate.certificate.hash + certificate.key.hash;
  }
  for (const Listener& listener : loaded.model->listeners) {
    content += listener.tls.clients.ca.hash + listener.tls.clients.crl.hash;
  }
  for (const Acl& acl : loaded.model->acls) content += acl.file.hash;
  for (const Zone& zone : loaded.model->zones) content += zone.file.hash;
  for (const Pool& pool : loaded.model->pools) content += pool.tls_ca.hash;
  for (const Probe& probe : loaded.model->probes) content += probe.tls_ca.hash;
  return sha256_hex(content);
}

class FileFollower final : public FollowerBase {
 public:
  FileFollower(std::string path, FollowerHooks hooks) : FollowerBase(std::move(hooks)), path_(std::move(path)) {}

  Result<void> reload() override {
    Result<void> outcome = load_and_offer();
    refused_ = outcome ? "" : "version 0: " + outcome.error().message;
    return outcome;
  }

 private:
  Result<void> load_and_offer() {
    LoadedFile loaded = load_file(path_);
    if (loaded.model != nullptr) {
      loaded.faults = hooks_.judge ? hooks_.judge(loaded.model) : std::vector<Fault>();
      for (Fault& fault : faults_without_control(*loaded.model, hooks_.plane))
        loaded.faults.push_back(std::move(fault));
      place_faults(*loaded.document, loaded.faults);
      if (!loaded.faults.empty()) loaded.model = nullptr;
    }
    if (loaded.model == nullptr) return fail(render_faults(loaded.faults, loaded.text, ::isatty(STDERR_FILENO) == 1));
    return offer(make_snapshot(0, content_digest(loaded), loaded.model, std::make_shared<const LiveState>()));
  }

  std::string path_;
};

}  // namespace

Result<std::unique_ptr<Follower>> Follower::of_file(EventLoop&, const std::string& path, FollowerHooks hooks) {
  auto follower = std::make_unique<FileFollower>(path, std::move(hooks));
  if (Result<void> loaded = follower->reload(); !loaded) return loaded.error();
  return std::unique_ptr<Follower>(std::move(follower));
}

}  // namespace tidegate
