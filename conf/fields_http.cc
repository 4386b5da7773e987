// SPDX-License-Identifier: Apache-2.0
// The keys of certificates, listeners and routes: what the proxy does.
#include "conf/field_builders.h"
#include "conf/limits.h"
#include "conf/model/acme.h"
#include "conf/model/certificate.h"
#include "conf/model/listener.h"
#include "conf/model/route.h"

namespace tidegate {

using namespace fields;

namespace {

const Section& listener_clients_section() {
  static const Section section{
      "client_certificates section",
      {
          enabled<ListenerClients>(),
          required(row("ca_file", FieldType::file, &ListenerClients::ca,
                       "PEM: certificates of the authorities. One that is not a root is trusted by itself.")),
          row("crl_file", FieldType::file, &ListenerClients::crl,
              "PEM: revocation lists, one of each authority of `ca_file` at least. An authority whose list has ended, "
              "or that has none, admits nobody."),
          boolean("optional", &ListenerClients::optional,
                  "`true`: a client without a certificate may come. A bad certificate is refused all the same."),
      }};
  return section;
}

const Section& listener_tls_section() {
  static const Section section{
      "tls section",
      {
          enabled<ListenerTls>(),
          required(reference("certificates", &ListenerTls::certificates, "certificates",
                             "The client's SNI selects one. If none matches, the first is used.")),
          word("min_version", &ListenerTls::min_version, {"1.2", "1.3"}, "The oldest TLS version that is accepted."),
          nested("client_certificates", &ListenerTls::clients, listener_clients_section(),
                 "Clients show a certificate (mutual TLS). Its chain, dates and purpose are checked in the handshake. "
                 "`certificates` of an `authenticate` policy makes a name and roles of it."),
      }};
  return section;
}

const Section& certificate_order_section() {
  static const Section section{
      "acme section",
      {
          required(row("names", FieldType::host_pattern, &CertificateOrder::names,
                       "The names that the certificate is for. The first one is its common name.")),
          choice<CertificateOrder, AcmeChallenge>("challenge", &CertificateOrder::challenge,
                                                  {{"http-01", AcmeChallenge::http01},
                                                   {"tls-alpn-01", AcmeChallenge::tls_alpn01},
                                                   {"dns-01", AcmeChallenge::dns01}},
                                                  "How the edge shows that the names are its own. `http-01`: by every "
                                                  "proxy's listeners without TLS, of which one is at port 80. "
                                                  "`tls-alpn-01`: by its listeners with TLS, of which one is at port "
                                                  "443. `dns-01`: by the name servers, for names in `zones`; also for "
                                                  "wildcards."),
      }};
  return section;
}

const Section& certificate_ocsp_section() {
  static const Section section{
      "ocsp section",
      {
          enabled<CertificateOcsp>(),
          text(
              "responder", &CertificateOcsp::responder,
              "URL of the authority's OCSP responder, with `http` or `https`. Without it, the one that the certificate "
              "names.",
              kMaxOcspUrlBytes),
      }};
  return section;
}

const Section& route_conditions_section() {
  static const Section section{
      "match section",
      {
          row("headers", FieldType::text_map, &RouteConditions::headers,
              "Fields and their values; `*` for any value. The values of a field that stands several times are one "
              "list, with `, ` between them."),
          row("query", FieldType::text_map, &RouteConditions::query,
              "Parameters of the query and their values, decoded; `*` for any value. The first of a name counts."),
          row("cookies", FieldType::text_map, &RouteConditions::cookies,
              "Cookies and their values; `*` for any value."),
          row("clients", FieldType::cidr, &RouteConditions::clients,
              "Networks of clients; one of them has the client's address."),
          text("path_regex", &RouteConditions::path_regex,
               "A regular expression (RE2) that takes the whole path, beside the route's `path`. The path is "
               "normalised: "
               "dot segments are gone, and `%` escapes are in upper case and only where they are needed."),
          row("headers_regex", FieldType::text_map, &RouteConditions::headers_regex,
              "Fields and regular expressions that take their whole values. The values of a field that stands several "
              "times are one list, with `, ` between them."),
          row("query_regex", FieldType::text_map, &RouteConditions::query_regex,
              "Parameters of the query and regular expressions that take their whole values, decoded. The first of a "
              "name counts."),
      }};
  return section;
}

const Section& route_cache_section() {
  static const Section section{
      "cache section",
      {
          enabled<RouteCache>(),
          duration("default_ttl", &RouteCache::default_ttl_ms, {0, 365 * kDay},
                   "Freshness lifetime of responses without one of their own. 0: by the heuristic of RFC 9111 §4.2.2."),
          duration("max_ttl", &RouteCache::max_ttl_ms, {0, 365 * kDay},
                   "The longest freshness lifetime of any response."),
          duration(
              "stale_while_revalidate", &RouteCache::stale_while_revalidate_ms, {0, 365 * kDay},
              "How long a stale response may be used while it is renewed, if the response does not say (RFC 5861)."),
          duration("stale_if_error", &RouteCache::stale_if_error_ms, {0, 365 * kDay},
                   "How long a stale response may replace an error of the backend, if the response does not say (RFC "
                   "5861)."),
          text(
              "key_query", &RouteCache::key_query,
              "Query parameters that are part of the cache key. Without it, all of them, in the order of the request."),
          boolean("ignore_query", &RouteCache::ignore_query, "The query is not part of the cache key."),
          boolean("ignore_reload", &RouteCache::ignore_reload,
                  "A client's `no-cache`, `max-age`, `min-fresh` and Pragma do not keep a stored response from being "
                  "used."),
          boolean("send_tags", &RouteCache::send_tags,
                  "True: clients get the response's `Cache-Tag` and `Surrogate-Key`. False: this proxy removes them."),
          boolean("purge_both_schemes", &RouteCache::purge_both_schemes,
                  "A purge of an `http` URL also purges the `https` URL, and the other way round. So does an unsafe "
                  "request (RFC 9111 §4.4)."),
      }};
  return section;
}

}  // namespace

const Section& certificate_section() {
  static const Section section{
      "certificate",
      {
          name(&Certificate::name, "What listeners refer to."),
          row("certificate_file", FieldType::file, &Certificate::certificate,
              "PEM: the certificate, then its intermediates. Needed unless `acme` is written."),
          row("key_file", FieldType::file, &Certificate::key,
              "PEM: the private key that belongs to it. Needed unless `acme` is written."),
          nested("acme", &Certificate::order, certificate_order_section(),
                 "Control orders the certificate from the authority of the section `acme`, and renews it. Until it is "
                 "there, the proxy serves one that it signed itself."),
          nested("ocsp", &Certificate::ocsp, certificate_ocsp_section(),
                 "Control asks the authority whether the certificate is revoked, and every proxy shows the answer to "
                 "clients that ask for it (OCSP stapling). The file must have the issuer's certificate too."),
      }};
  return section;
}

const Section& acme_section() {
  static const Section section{
      "acme section",
      {
          required(text("directory", &Acme::directory,
                        "URL of the authority's ACME directory (RFC 8555), with `https`.", kMaxAcmeDirectoryBytes)),
          text("contact", &Acme::contact, "Where the authority may reach you, as `mailto:ops@example.com`."),
          boolean("terms_agreed", &Acme::terms_agreed,
                  "`true`: you agree to the authority's terms of service. Nothing is ordered without it."),
          row("ca_file", FieldType::file, &Acme::ca,
              "PEM: roots that the authority's own server must have. Without it, the system's."),
          text("eab_key_id", &Acme::eab_key_id,
               "Name of your account at the authority, if it asks for one (external account binding)."),
          secret(text("eab_key", &Acme::eab_key, "The key that belongs to `eab_key_id`, in base64url.")),
      }};
  return section;
}

const Section& listener_section() {
  static const Section section{
      "listener",
      {
          name(&Listener::name, "What routes refer to."),
          required(row("bind", FieldType::endpoint, &Listener::bind, "Where connections are accepted.")),
          reference("site", &Listener::site, "sites",
                    "Only the proxies of this site have this listener. Without it, all proxies."),
          nested("tls", &Listener::tls, listener_tls_section(), "The listener uses TLS. Without it, plain text."),
          boolean("http2", &Listener::http2, "Accept HTTP/2: over TLS by ALPN, in plain text by prior knowledge."),
          row("trusted_proxies", FieldType::cidr, &Listener::trusted_proxies,
              "Proxies whose forwarding fields are kept. Those of others are replaced."),
          duration("header_timeout", &Listener::header_timeout_ms, {100 * kMs, kHour},
                   "Time until a request's header section is complete."),
          duration("idle_timeout", &Listener::idle_timeout_ms, {100 * kMs, kDay},
                   "Between two requests, and while a client moves nothing of a body."),
          duration("request_timeout", &Listener::request_timeout_ms, {0, kDay},
                   "For a whole exchange, its bodies and tunnels included; 0: no limit."),
          size("max_body", &Listener::max_body_bytes, {0, 1 * kTB}, "Of a request."),
          size("max_header", &Listener::max_header_bytes, {1 * kKB, 1 * kMB}, "Of a request's header section."),
          size("minimum_rate", &Listener::minimum_rate_bytes, {0, 1 * kMB},
               "A second, of a body that waits for its client, either way; 0: any byte will do."),
          boolean("merge_slashes", &Listener::merge_slashes,
                  "Routes are matched with `//` read as `/`; the backend and the cache get the path as it was sent."),
          boolean("underscores_in_headers", &Listener::underscores_in_headers,
                  "Passes on fields that an application may read as one that the proxy sets, as CGI reads "
                  "`X_Forwarded_For`; without it they are dropped."),
          integer("max_fields", &Listener::max_fields, {16, 500}, "Of a request; Cookie counts as one."),
          row("proxy_protocol_from", FieldType::cidr, &Listener::proxy_protocol_from,
              "Peers whose connections begin with a PROXY header (version 1 or 2). The client that it names counts as "
              "the peer. Connections of these peers without a header are closed."),
          boolean(
              "via", &Listener::via,
              "Adds Via to requests and answers, as RFC 9110 §7.6.3 asks of a proxy; nginx origins stop compressing "
              "where they see it. Without it a loop of proxies is not found out."),
          boolean(
              "answer_half_closed", &Listener::answer_half_closed,
              "HTTP/1: a client that closes its sending side after a whole request gets its answer. Without it such "
              "a client counts as gone, and what runs for it ends: a client that has left looks the same."),
          text("server_name", &Listener::server_name,
               "Stands for Host in redirects of requests that have none (HTTP/1.0); without it the address that the "
               "client connected to.",
               253),
          reference("policies", &Listener::policies, "policies", "What is done to each request of this listener."),
          boolean("default_deny", &Listener::default_deny,
                  "`true`: a request gets 403 unless an `authorise` policy that holds for it allows it, by `allow`, by "
                  "`allow_countries`, by `allow_asns` or by `rules`. This includes paths that no route takes."),
      }};
  return section;
}

namespace {

// Gives the route this type, and returns its part for it. Keys come in any order: the status of a redirect may be read
// before its location. If keys of several types are given, check_route_answer() refuses the route.
template <class Type>
Type* decide(Route& route) {
  if (std::holds_alternative<Type>(route.what)) return &std::get<Type>(route.what);
  if constexpr (std::is_same_v<Type, RouteRedirect>) {
    const RouteAnswer* answer = route.answer();
    const uint16_t status = answer == nullptr || answer->status == 0 ? RouteRedirect{}.status : answer->status;
    route.what = RouteRedirect{{}, status};
  } else {
    route.what = Type{};
  }
  return &std::get<Type>(route.what);
}

// A key that says what happens to a route's requests.
template <class Type>
Field decides_route(Field field) {
  field.store = [store = std::move(field.store)](void* owner, size_t index, ScalarValue&& value) {
    auto& route = *static_cast<Route*>(owner);
    if constexpr (std::is_same_v<Type, RouteAnswer>) {
      if (auto* redirect = std::get_if<RouteRedirect>(&route.what)) {
        if (const auto* status = std::get_if<uint64_t>(&value)) redirect->status = static_cast<uint16_t>(*status);
        return;
      }
    }
    store(decide<Type>(route), index, std::move(value));
  };
  field.default_value.reset();
  return field;
}

}  // namespace

const Section& route_section() {
  static const Section section{
      "route",
      {
          name(&Route::name, "Logs, metrics and explanations use it."),
          reference("listeners", &Route::listeners, "listeners",
                    "Only requests to these listeners. Without it, to all."),
          row("hosts", FieldType::host_pattern, &Route::hosts,
              "`www.example.com`, or `*.example.com` for every name below; without it any host."),
          row("path", FieldType::path_pattern, &Route::path,
              "`/exact`, `/a/{id}/b` with parameters, `/prefix/*` for `/prefix` and everything below."),
          row("methods", FieldType::method, &Route::methods, "Only these; `GET` takes HEAD too. Without it any."),
          nested("match", &Route::match, route_conditions_section(),
                 "What a request must have besides, all of it. A route whose conditions a request does not meet is as "
                 "if it were not there. Headers, cookies and clients are not for routes with a cache. At one host and "
                 "path, at "
                 "most 256 routes may have regular expressions: a request tries them one after another."),
          integer(
              "priority", &Route::priority, {0, 1'000'000},
              "Of routes with the same host and path that would take a request, the highest wins, then the one with "
              "more conditions."),
          decides_route<RouteToPool>(reference("pool", &RouteToPool::pool, "pools",
                                               "Where the requests go. Exactly one of pool, redirect and status alone "
                                               "is given.")),
          row("labels", FieldType::name, &Route::labels,
              "Only backends of the pool that have all of these labels are used."),
          boolean("labels_required", &Route::labels_required,
                  "`false`: if no backend with the labels is in service, any of the pool is used."),
          choice("queue_priority", &Route::queue_priority,
                 {{"low", QueuePriority::low}, {"normal", QueuePriority::normal}, {"high", QueuePriority::high}},
                 "Of the requests that wait because every backend has its max_connections, those of a higher priority "
                 "go first, but every eighth time the one that has waited longest. If the queue is full, the last one "
                 "of a lower priority gives way and gets 503."),
          boolean("grpc_web", &Route::grpc_web,
                  "`true`: calls of gRPC-Web, in binary and text form, become gRPC, and their answers gRPC-Web. Other "
                  "requests pass as they are. Browsers of other origins need a policy with `cors`."),
          decides_route<RouteRedirect>(text(
              "redirect", &RouteRedirect::location,
              "Location of a redirect. Replaced are `{host}`, `{authority}` (host and port, as the client wrote them), "
              "`{path}` (the query with it), `{rest}` (what stands for the `/*` of the route's path: `/b` of `/a/b` "
              "for `/a/*`), `{query}` (with its `?`; empty without one) and the path's parameters. Slashes at its "
              "beginning become one, because `//b` is another host.",
              2'048)),
          decides_route<RouteAnswer>(
              integer("status", &RouteAnswer::status, {200, 599},
                      "A fixed answer; with redirect its kind: 301, 302 (by default), 303, 307 or 308.")),
          decides_route<RouteAnswer>(
              bounded("body", FieldType::lines, &RouteAnswer::body, {0, 64 * kKB}, "Of the fixed answer.")),
          duration(
              "total_timeout", &Route::total_timeout_ms, {0, kDay},
              "From the request's head to the response's head, all tries included; never for a body or a tunnel. 0: no "
              "limit."),
          duration("try_timeout", &Route::try_timeout_ms, {0, kHour},
                   "For one try: from the request's last byte to the response's head. 0: first_byte_timeout of the "
                   "pool."),
          bounded(
              "retry_statuses", FieldType::integer, &Route::retry_statuses, {400, 599},
              "A backend's answer with one of these is thrown away, and another backend is asked, if one in service "
              "has room, the method is idempotent, and retry_attempts and retry_budget of the pool allow it. Else "
              "the client gets the answer. The backend is charged as count_5xx says."),
          row("request_headers", FieldType::text_map, &Route::request_headers,
              "Set towards the backend, also in place of what the proxy sets; an empty value removes the field. Fields "
              "of "
              "framing and of the connection cannot be set."),
          row("response_headers", FieldType::text_map, &Route::response_headers,
              "Set towards the client, also in place of what the proxy sets; an empty value removes the field. Fields "
              "of "
              "framing and of the connection cannot be set, but for Upgrade of a fixed 426."),
          nested("cache", &Route::cache, route_cache_section(), "Responses may be kept and used again (RFC 9111)."),
          reference("policies", &Route::policies, "policies",
                    "What is done to each request of this route, besides the policies of its listener."),
      }};
  return section;
}

}  // namespace tidegate
