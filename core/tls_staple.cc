// SPDX-License-Identifier: Apache-2.0
// The OCSP answer that a server's context sends to a client that asks for the certificate's status (RFC 6066 §8).
#include <ctime>

#include "core/metrics.h"
#include "core/tls_context.h"

namespace tidegate {
namespace {

struct StapleCounters {
  Counter &shown, &none, &ended;
};

Counter& staple_counter(const char* result) {
  return metrics().counter("tidegate_tls_staples_total",
                           "Full handshakes whose client asked for the certificate's status, by what it got.",
                           {{"result", result}});
}

StapleCounters& staple_counters() {
  static StapleCounters counters{staple_counter("shown"), staple_counter("none"), staple_counter("ended")};
  return counters;
}

}  // namespace

void TlsContext::Impl::show_staples() {
  staple_counters();  // registers the counters, so that a scrape shows them from the start
  // These calls do the same as the macros SSL_CTX_set_tlsext_status_cb and _arg, without their old-style casts.
  SSL_CTX_callback_ctrl(context.get(), SSL_CTRL_SET_TLSEXT_STATUS_REQ_CB,
                        reinterpret_cast<void (*)()>(&Impl::choose_staple));
  SSL_CTX_ctrl(context.get(), SSL_CTRL_SET_TLSEXT_STATUS_REQ_CB_ARG, 0, this);
}

// Called once in a handshake whose client asks, after the certificate is chosen. A resumed session shows none.
int TlsContext::Impl::choose_staple(SSL* ssl, void* self) {
  if (SSL_session_reused(ssl) != 0) return SSL_TLSEXT_ERR_NOACK;
  const auto* impl = static_cast<const Impl*>(self);
  const auto shown = impl->by_certificate.find(SSL_get_certificate(ssl));
  const Staple* const staple = shown == impl->by_certificate.end() ? nullptr : shown->second->impl().staple.get();
  StapleCounters& counters = staple_counters();
  if (staple == nullptr) {
    counters.none.add();
    return SSL_TLSEXT_ERR_NOACK;
  }
  if (staple->until_s <= static_cast<int64_t>(std::time(nullptr))) {
    counters.ended.add();
    return SSL_TLSEXT_ERR_NOACK;
  }
  void* const copy = OPENSSL_memdup(staple->answer.data(), staple->answer.size());  // OpenSSL frees it
  if (copy == nullptr) return SSL_TLSEXT_ERR_NOACK;
  SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_STATUS_REQ_OCSP_RESP, static_cast<long>(staple->answer.size()), copy);
  counters.shown.add();
  return SSL_TLSEXT_ERR_OK;
}

}  // namespace tidegate
