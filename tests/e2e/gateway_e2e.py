# SPDX-License-Identifier: Apache-2.0
"""What `tidegate import` makes of the Gateway API, field by field, and of what protects and cannot be said."""

import json

import box
from marks import long

GATEWAY = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: infra}
spec:
  gatewayClassName: tidegate
  listeners:
    - {name: web, port: 80, protocol: HTTP, hostname: "*.shop.test", allowedRoutes: {namespaces: {from: All}}}
    - {name: own, port: 8080, protocol: HTTP}
    - {name: secure, port: 8443, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
    - {name: mail, port: 25, protocol: TCP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: shop}
spec:
  parentRefs: [{name: edge, namespace: infra}]
  hostnames: [www.shop.test, other.test]
  useDefaultGateways: All
  rules:
    - matches: [{path: {value: /add}}]
      filters:
        - type: RequestHeaderModifier
          requestHeaderModifier: {set: [{name: X-Set, value: a}], add: [{name: X-Add, value: "b{c}"}], remove: [X-Gone]}
        - type: ResponseHeaderModifier
          responseHeaderModifier: {add: [{name: X-More, value: d}]}
      backendRefs: [{name: cart, port: 80}]
    - matches: [{path: {value: /host}}]
      filters: [{type: RequestRedirect, requestRedirect: {hostname: new.test}}]
    - matches: [{path: {value: /code}}]
      filters: [{type: RequestRedirect, requestRedirect: {statusCode: 301}}]
    - matches: [{path: {value: /tls}}]
      filters: [{type: RequestRedirect, requestRedirect: {scheme: https, port: 8443}}]
    - matches: [{path: {type: Exact, value: /part-of}}]
      filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}}}]
    - matches: [{path: {value: /part}}]
      filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}}}]
    - matches: [{path: {value: /rewrite}}]
      filters: [{type: URLRewrite, urlRewrite: {hostname: in.test, path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]
      backendRefs: [{name: cart, port: 80}]
    - matches: [{path: {value: /mirror}}]
      filters: [{type: RequestMirror, requestMirror: {percent: 10, backendRef: {name: cart, port: 81}}}]
      backendRefs: [{name: cart, port: 81}]
      timeouts: {request: 1m30s, backendRequest: 500ms}
      retry: {attempts: 3, codes: [503, 200], backoff: 1s}
      sessionPersistence: {sessionName: sid, absoluteTimeout: 1h, idleTimeout: 1m}
    - matches: [{path: {value: /extension}}]
      filters: [{type: ExtensionRef, extensionRef: {group: a, kind: b, name: c}}]
      backendRefs: [{name: cart, port: 80}]
    - matches: [{path: {value: /weights}}]
      backendRefs: [{name: cart, port: 80, weight: 3}, {name: none, port: 80, weight: 1}, {name: cart, port: 81, weight: 0}]
    - matches: [{path: {value: /edits}}]
      backendRefs:
        - {name: cart, port: 80, weight: 9}
        - {name: cart, port: 81, weight: 1, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Of, value: new}], remove: [X-Old]}}, {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-By, value: new}]}}]}
    - matches: [{path: {value: /adds}}]
      backendRefs:
        - {name: cart, port: 80, weight: 3}
        - {name: cart, port: 81, weight: 1, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: X-Of, value: new}]}}]}
    - matches: [{path: {value: /nothing}}]
    - matches: [{path: {value: /zero}}]
      backendRefs: [{name: cart, port: 80, weight: 0}]
    - matches: [{path: {value: /waits}}]
      backendRefs: [{name: waits, port: 80}]
    - matches: [{path: {value: /far}}]
      backendRefs: [{name: far, namespace: far, port: 80}]
    - matches: [{path: {value: /near}}]
      backendRefs: [{name: near, namespace: far, port: 80}]
    - matches: [{path: {value: /strange}, weather: rain}]
      backendRefs: [{name: cart, port: 80}]
    - matches:
        - {path: {value: /m}, method: GET}
        - {path: {value: /m}, headers: [{name: X-A, value: "1"}, {name: X-B, value: "2"}]}
        - {path: {value: /m}, queryParams: [{name: q, type: RegularExpression, value: "[0-9]+"}]}
        - {path: {type: Exact, value: /m}}
      backendRefs: [{name: cart, port: 80, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Of, value: backend}]}}]}]
---
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80, targetPort: 8080}, {name: admin, port: 81, targetPort: 9090}]}
---
kind: Service
metadata: {name: waits, namespace: shop}
spec: {ports: [{port: 80}]}
---
kind: Service
metadata: {name: far, namespace: far}
spec: {clusterIP: 10.96.0.2, ports: [{port: 80}]}
---
kind: Service
metadata: {name: near, namespace: far}
spec: {clusterIP: 10.96.0.3, ports: [{port: 80}]}
---
kind: ReferenceGrant
metadata: {name: g, namespace: far}
spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}], to: [{group: "", kind: Service, name: near}]}
---
kind: EndpointSlice
metadata: {name: cart-1, namespace: shop, labels: {kubernetes.io/service-name: cart}}
endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}}, {addresses: [10.0.0.2], conditions: {ready: false}}, {addresses: [10.0.0.3]}]
ports: [{name: http, port: 8080}, {name: admin, port: 9090}]
---
kind: EndpointSlice
metadata: {name: cart-1, namespace: other, labels: {kubernetes.io/service-name: cart}}
endpoints: [{addresses: [10.9.9.9]}]
ports: [{name: http, port: 8080}]
---
kind: EndpointSlice
metadata: {name: waits-1, namespace: shop, labels: {kubernetes.io/service-name: waits}}
endpoints: [{addresses: [10.0.0.9], conditions: {ready: false}}]
ports: [{port: 8080}]
---
kind: HTTPRoute
metadata: {name: bad}
spec: [1]
"""
# The expected elements of the document. The lines of one route are joined.
EXPECTED = (
    "{name: http-80, bind: [0.0.0.0:80]}",
    # The listener's hostnames keep other.test out; the listener of another namespace's own is not asked.
    "name: shop-1 listeners: [http-80] hosts: [www.shop.test] path: /add/* pool: shop-1 request_headers: {x-gone: '', x-set: a} policies: [changes]",
    "name: shop-1-2 listeners: [http-8443] hosts: [www.shop.test, other.test] path: /add/* pool: shop-1",
    "{request_headers: [{add: x-add, value: b{{c}}}], response_headers: [{add: x-more, value: d}]}",
    # The ready endpoints of the port of that name, in the namespace.
    "name: shop-1 backends: - {name: b1, addresses: [10.0.0.1], port: 8080, weight: 10000} - {name: b2, addresses: [10.0.0.3], port: 8080, weight: 10000} -",
    "name: shop-8-mirror backends: [{name: b1, addresses: [10.0.0.1], port: 9090}, {name: b2, addresses: [10.0.0.3], port: 9090}]",
    "path: /host/* redirect: http://new.test{path} -",
    "path: /host/* redirect: http://new.test:8443{path} -",
    "path: /code/* redirect: http://{host}{path} status: 301",
    "path: /tls/* redirect: https://{host}:8443{path} -",
    "{name: shop-5, listeners: [http-80], hosts: [www.shop.test], path: /part-of, status: 500}",
    "path: /part/* redirect: http://{host}/x{rest}{query} -",
    "{name: changes-2, transform: {path: {value: /, prefix: /rewrite}, host: in.test}}",
    "{name: mirror, mirror: {pool: shop-8-mirror, percent: 10.0}}",
    "retry_attempts: 3 sticky: {by: cookie, name: sid, ttl: 1h}",
    "path: /mirror/* pool: shop-8 total_timeout: 90s try_timeout: 500ms retry_statuses: [503] policies: [mirror]",
    "path: /extension/*, status: 500}",
    "path: /weights/* pool: shop-10 policies: [no-backend]",
    "{name: no-backend, fault: {abort: 500, abort_percent: 25.0}}",
    "path: /edits/* pool: shop-11 policies: [backends]",
    "name: backends split: variants: - {name: shop-11, pool: shop-11, weight: 9} - name: shop-11-2 pool: shop-11-2 weight: 1 request_headers: {x-of: new, x-old: } response_headers: {x-by: new}",
    "path: /adds/* pool: shop-12 policies: [no-backend]",
    "path: /nothing/*, status: 500}",
    "path: /zero/*, status: 500}",
    "path: /waits/*, status: 503}",
    "path: /far/*, status: 500}",
    "path: /near/*, pool: shop-17}",
    "{name: shop-17, backends: [{name: b1, addresses: [10.96.0.3], port: 80, weight: 10000}]}",
    "path: /strange/*, status: 500}",
    "path: /m/* methods: [GET] priority: 5",
    "path: /m/* match: {headers: {x-a: 1, x-b: 2}} priority: 3",
    "path: /m/* match: {query_regex: {q: [0-9]+}} priority: 1",
    "path: /m pool: shop-19 request_headers: {x-of: backend}",
)
LEFT = (
    "listener mail: a listener speaks HTTP or HTTPS",
    "spec.useDefaultGateways: there is no counterpart of this field",
    "retry.codes: '200' is none of 400 to 599",
    "retry.backoff: there is no counterpart of this field",
    "sessionPersistence.idleTimeout: there is no counterpart of this field",
    "match of shop-5: the beginning of a path is replaced where the match is of a beginning; it answers 500 instead",
    "filter ExtensionRef: there is no such filter; the rule answers 500 instead",
    "backendRef none: the file has no address of Service 'none': add it and its EndpointSlices; its share is answered by 500 instead",
    "backendRef cart: fields of one of several backends are set and removed, not added; its share is answered by 500 instead",
    "match.weather: there is no counterpart of this field",
    "backendRef waits: no endpoint of it is ready; its share is answered by 503 instead",
    "backendRef far: no ReferenceGrant of namespace 'far' lets namespace 'shop' in; its share is answered by 500 instead",
    "match of shop-18: what else it asks for is not taken; it answers 500 instead",
    "kind: HTTPRoute: it has no spec",
)
# Inside a server or a frontend, with what closes it.
NGINX_CLOSED = (
    ("location / { auth_basic x; auth_basic_user_file none; proxy_pass http://app; }", 403),
    ("location / { auth_jwt x; proxy_pass http://app; }", 403),
    ("location / { access_by_lua_block { x; } proxy_pass http://app; }", 403),
    ("location / { secure_link $arg_md5; proxy_pass http://app; }", 403),
    ("location / { auth_request /none; proxy_pass http://app; }", 403),
    ("location / { deny nobody; proxy_pass http://app; }", 403),
    ("valid_referers none; if ($invalid_referer) { return 403; } location / { proxy_pass http://app; }", 403),
    ("if ($odd) { rewrite ^ /x last; } location / { proxy_pass http://app; }", 403),
    ("location / { include rules.conf; proxy_pass http://app; }", 403),
    ("ssl_verify_client on; location / { proxy_pass http://app; }", 403),
    ("set_real_ip_from 10.0.0.0/8; location / { deny 10.0.0.1; proxy_pass http://app; }", 403),
    ("location ~ ^/(?!open) { deny all; } location / { proxy_pass http://app; }", 403),
    ("satisfy any; allow 10.0.0.0/8; deny 11.0.0.0/8; auth_basic x; auth_basic_user_file users; location / { proxy_pass http://app; }", 403),
    ("location / { fastcgi_pass 127.0.0.1:9000; }", 503),
    ("return 444;", 403),
)
HAPROXY_CLOSED = (
    ("http-request deny if { env(X) -m found }\n default_backend app", 403),
    ("http-request deny unless { src -f allowed.lst }\n default_backend app", 403),
    ("http-request auth unless { http_auth(nobody) }\n default_backend app", 403),
    ("tcp-request connection reject if { src_get_gpc0 gt 0 } \n default_backend app", 403),
    ("tcp-request content reject if !{ req.ssl_sni a.test }\n default_backend app", 403),
    ("http-request lua.check\n default_backend app", 403),
    ("use_backend app if { env(X) -m found }\n default_backend app", 503),
    ("use_backend %[req.hdr(host)]\n default_backend app", 503),
    ("redirect location /login unless { env(X) -m found }\n default_backend app", 503),
    ("default_backend none", 503),
    ("http-response deny if { res.hdr(x-secret) -m found }\n default_backend app", 403),
    ("http-response deny if { res.hdr(x-secret) -m found }\n use_backend app if { path_beg /a }\n default_backend app", 403),
)


def read(node, name, text):
    done = node.tidegate("--output", "json", "import", node.write(name, text))
    assert done.returncode == 0, (done.stdout, done.stderr)
    return json.loads(done.stdout)


def test_each_field_of_the_gateway_api_is_taken_or_told(lab):
    with box.raised() as node:
        told = read(node, "httproute.yaml", GATEWAY)
        document = " ".join(told["document"].replace('"', "").split()).replace("x-gone: ,", "x-gone: '',") + " -"
        missing = [each for each in EXPECTED if each not in document]
        assert not missing, (missing, told["document"])
        assert sorted(f"{left['text']}: {left['why']}" for left in told["left"]) == sorted(LEFT), told["left"]
        lines = GATEWAY.split("\n")
        for left in told["left"]:
            if left["text"].count(".") == 1 and "match" not in left["text"]:
                assert left["text"].split(".")[1] in lines[left["line"] - 1], left
        assert told["document"].count("# closed: line ") == 14, told["document"]


@long
def test_what_protects_and_cannot_be_said_closes_its_route(lab):
    with box.raised() as node:
        node.write("users", "")
        for inside, status in NGINX_CLOSED:
            told = read(node, "nginx.conf", f"upstream app {{ server 192.0.2.1:80; }} server {{ listen 80; server_name a.test; {inside} }}")
            check_closed(told, inside, status)
        for inside, status in HAPROXY_CLOSED:
            told = read(node, "haproxy.cfg", f"defaults\n mode http\nfrontend f\n bind :80\n {inside}\nbackend app\n server a 192.0.2.1:80\n")
            check_closed(told, inside, status)


def check_closed(told, inside, status):
    document = told["document"]
    assert "# closed: line " in document and f"status: {status}" in document, (inside, document)
    routes = document.split("routes:")[1].split("policies:")[0]
    assert told["left"] and "pool: app" not in routes, (inside, document)
