# SPDX-License-Identifier: Apache-2.0
"""HTTP servers with equal settings: one worker, no access log, unlimited keep-alive, the same certificate, TLS 1.3
chooses the ciphers.

Each function returns a start(folder) for a Contender: it writes the server's configuration and returns the pinned
Program. Ports: 7080 plain, 7443 TLS, 7090 the origin."""

import json
import os
import random
import subprocess
from pathlib import Path

from measure import BUILD, GENERATOR_CORE, SERVER_CORE, Program, tcp_ready

PLAIN, TLS, ORIGIN = 7080, 7443, 7090
H2C = 7081  # HTTP/2 without TLS, for servers that need a separate port for it


def certificate(folder):
    folder = Path(folder)
    if not (folder / "c.crt").exists():
        subprocess.run(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=www.example.test "
            f"-addext subjectAltName=DNS:www.example.test -keyout {folder}/c.key -out {folder}/c.crt".split(),
            check=True, capture_output=True,
        )  # fmt: skip
        (folder / "both.pem").write_text((folder / "c.crt").read_text() + (folder / "c.key").read_text())
        os.chmod(folder / "c.key", 0o644)


class Server(Program):
    """The server under test, and the origin that it needs. The origin runs on the generator's core."""

    def __init__(self, name, command, folder, ready, origin=None, **options):
        self.origin = origin
        try:
            super().__init__(name, command, SERVER_CORE, folder, ready, **options)
        except BaseException:
            if origin:
                origin.stop()
            raise

    def stop(self):
        super().stop()
        if self.origin:
            self.origin.stop()


def origin(folder, body_bytes, max_age=None):
    command = [BUILD / "bench" / "floor_http", f"127.0.0.1:{ORIGIN}", body_bytes] + ([max_age] if max_age else [])
    return Program("origin", command, GENERATOR_CORE, folder, tcp_ready(ORIGIN))


def grpc_origin(folder):
    """nginx on the generator's core: it answers each unary call of gRPC over HTTP/2, by prior knowledge. It answers when
    it has read the message (the mirror reads it), as every server of gRPC does. If it answers before that, its frames
    for a call whose answer has ended meet nginx's grpc_pass in the next call, which then fails ("upstream sent frame for
    unknown stream")."""
    home = Path(folder) / "grpc"
    home.mkdir()
    (home / "nginx.conf").write_text(f"""
worker_processes 1; daemon off; pid nginx.pid; error_log stderr crit; user root;
events {{ worker_connections 1000; }}
http {{
  access_log off; keepalive_requests 1000000000; http2_max_concurrent_streams 1000; default_type application/grpc;
  client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
  server {{
    listen 127.0.0.1:{ORIGIN} http2; root .; log_not_found off;
    location / {{ mirror /read; error_page 404 =200 @answer; }}
    location = /read {{ internal; return 204; }}
    location @answer {{ add_trailer grpc-status 0; return 200 "{"m" * 69}"; }}
  }}
}}""")
    return Program("grpc-origin", ["nginx", "-p", home, "-c", "nginx.conf", "-e", "stderr"], GENERATOR_CORE, home, tcp_ready(ORIGIN))


def json_origin(folder):
    """Answers everything with 20 kB of JSON, as an API lists things."""
    rng = random.Random(7)
    words = ["tide", "gate", "edge", "north", "harbour", "lantern", "quay"]
    items, text = [], ""
    while len(text) < 20_000:
        items.append({"id": rng.randrange(10**6), "name": f"{rng.choice(words)} {rng.choice(words)}", "price": rng.randrange(10_000) / 100, "open": rng.random() < 0.5})
        text = json.dumps({"items": items})
    (Path(folder) / "list.json").write_text(text)
    return Program("origin", [BUILD / "bench" / "floor_http", f"127.0.0.1:{ORIGIN}", "@list.json"], GENERATOR_CORE, folder, tcp_ready(ORIGIN))


def slow_origin(body_bytes, delay_ms, cache_control, port=ORIGIN):
    """A start for an origin that answers slowly and counts its requests."""
    command = [BUILD / "bench" / "herd", "origin", port, delay_ms, body_bytes, cache_control]
    return lambda folder: Program("origin", command, GENERATOR_CORE, folder, tcp_ready(port))


def floor(body_bytes):
    return lambda folder: Program("floor", [BUILD / "bench" / "floor_http", f"127.0.0.1:{PLAIN}", body_bytes], SERVER_CORE, folder, tcp_ready(PLAIN))


# All of the load comes from one address.
ONE_CLIENT = "max_connections_per_client: 16000, connection_rate_per_client: 0"


def tidegate(body_bytes, cached=False, ram=True, routes=0, start_origin=None, node_limits=ONE_CLIENT, build=BUILD, pool="", policy=""):
    """`pool`: more keys of the pool. `policy`: the parts of a policy of the route."""

    def start(folder):
        limits = f", {node_limits}" if node_limits else ""
        certificate(folder)
        extra = "\n".join(f'  - {{name: r{i}, path: "/r/{i}/{{id}}", pool: origin}}' for i in range(routes))
        cache = "cache: {enabled: true, default_ttl: 1h}" if cached else "cache: {enabled: false}"
        (Path(folder) / "edge.yaml").write_text(f"""
sites: [{{name: here, location: {{latitude: 50, longitude: 8}}}}]
nodes:
  - name: bench
    site: here
    l7: {{workers: 1{limits}}}
    cache: {{enabled: {str(cached).lower()}, ram: {"256MB" if ram else "0"}, disk: 1GB}}
pools: [{{name: origin, backends: [{{name: o, addresses: [127.0.0.1], port: {ORIGIN}}}]{pool and f", {pool}"}}}]
certificates: [{{name: c, certificate_file: c.crt, key_file: c.key}}]
listeners:
  - {{name: plain, bind: ["127.0.0.1:{PLAIN}"]}}
  - {{name: tls, bind: ["127.0.0.1:{TLS}"], tls: {{certificates: [c]}}}}
routes:
  - {{name: all, path: "/*", pool: origin, {cache}{policy and ", policies: [bench]"}}}
{extra}
{policy and f"policies: [{{name: bench, {policy}}}]"}
""")
        command = [build / "l7" / "tidegate-l7", "--config", "edge.yaml", "--node", "bench", "--state", folder, "--run", folder]
        return Server("tidegate-l7", command, folder, tcp_ready(TLS), start_origin(folder) if start_origin else origin(folder, body_bytes, 3600 if cached else None))

    return start


def nginx(body_bytes, cached=False, static=False, lock=False, start_origin=None, max_connections=None, grpc=False, more=""):
    """`more`: more directives of the section http."""

    def start(folder):
        certificate(folder)
        (Path(folder) / "www").mkdir()
        (Path(folder) / "www" / "x").write_bytes(b"x" * body_bytes)
        location = "grpc_pass grpc://origin;" if grpc else "root www; open_file_cache max=100; open_file_cache_valid 60s;" if static else (
            f"proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection '';" + (" proxy_cache c; proxy_cache_valid 200 1h;" if cached else "") + (" proxy_cache_lock on;" if lock else ""))  # fmt: skip
        (Path(folder) / "nginx.conf").write_text(f"""
worker_processes 1; daemon off; pid nginx.pid; error_log stderr crit; user root;
events {{ worker_connections {max_connections or 16000}; }}
http {{
  {more}
  access_log off; keepalive_requests 1000000000; sendfile on; tcp_nopush on; ssl_session_tickets on;
  http2_max_concurrent_streams 256;
  proxy_cache_path cache keys_zone=c:10m max_size=1g inactive=1h;
  client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
  upstream origin {{ server 127.0.0.1:{ORIGIN}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{PLAIN} backlog=4096; listen 127.0.0.1:{H2C} http2; listen 127.0.0.1:{TLS} ssl http2 backlog=4096;
    ssl_certificate c.crt; ssl_certificate_key c.key; ssl_protocols TLSv1.2 TLSv1.3;
    location / {{ {location} }}
  }}
}}""")
        needs_origin = None if static else start_origin(folder) if start_origin else origin(folder, body_bytes, 3600 if cached else None)
        return Server("nginx", ["nginx", "-p", folder, "-c", "nginx.conf", "-e", "stderr"], folder, tcp_ready(TLS), needs_origin)

    return start


def haproxy(body_bytes, grpc=False, frontend=""):
    """`frontend`: more lines of the frontend."""

    def start(folder):
        certificate(folder)
        (Path(folder) / "haproxy.cfg").write_text(f"""
global
  nbthread 1
  maxconn 9000
  tune.ssl.default-dh-param 2048
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 2s
  http-reuse always
frontend f
  bind 127.0.0.1:{PLAIN}
  bind 127.0.0.1:{H2C} proto h2
  bind 127.0.0.1:{TLS} ssl crt both.pem alpn h2,http/1.1
{frontend}
  default_backend o
backend o
  server o 127.0.0.1:{ORIGIN}{" proto h2" if grpc else ""}
""")
        return Server("haproxy", ["haproxy", "-db", "-f", "haproxy.cfg"], folder, tcp_ready(TLS), grpc_origin(folder) if grpc else origin(folder, body_bytes))

    return start


class H2o(Server):
    orphans_end_within_s = 2  # the process that keeps its keys has a folder in /tmp


def h2o(body_bytes, static=False):
    def start(folder):
        certificate(folder)
        (Path(folder) / "www").mkdir()
        (Path(folder) / "www" / "x").write_bytes(b"x" * body_bytes)
        handler = f"file.dir: {folder}/www" if static else f"proxy.reverse.url: http://127.0.0.1:{ORIGIN}/\n        proxy.timeout.keepalive: 60000"
        (Path(folder) / "h2o.conf").write_text(f"""
num-threads: 1
max-connections: 16000
user: root
pid-file: {folder}/h2o.pid
error-log: /dev/stderr
listen: {{host: 127.0.0.1, port: {PLAIN}}}
listen:
  host: 127.0.0.1
  port: {TLS}
  ssl: {{certificate-file: {folder}/c.crt, key-file: {folder}/c.key}}
hosts:
  default:
    paths:
      "/":
        {handler}
""")
        needs_origin = None if static else origin(folder, body_bytes)
        return H2o("h2o", ["h2o", "-m", "worker", "-c", "h2o.conf"], folder, tcp_ready(TLS), needs_origin)

    return start


def varnish(body_bytes, start_origin=None):
    def start(folder):
        (Path(folder) / "v.vcl").write_text(f'vcl 4.1;\nbackend o {{ .host = "127.0.0.1"; .port = "{ORIGIN}"; }}\n')
        command = [
            "varnishd", "-F", "-a", f"127.0.0.1:{PLAIN}", "-f", f"{folder}/v.vcl", "-n", f"{folder}/v", "-s", "malloc,256m",
            "-p", "thread_pools=1", "-p", "thread_pool_min=64", "-j", "none",
        ]  # fmt: skip
        return Server("varnish", command, folder, tcp_ready(PLAIN), start_origin(folder) if start_origin else origin(folder, body_bytes, 3600))

    return start


def trafficserver(body_bytes, start_origin=None):
    def start(folder):
        root = Path(folder)
        for part in ("etc", "log", "run", "cache"):
            (root / part).mkdir()
        (root / "runroot.yaml").write_text(
            f"prefix: {root}\nexec_prefix: {root}\nsysconfdir: {root}/etc\nlocalstatedir: {root}\nruntimedir: {root}/run\nlogdir: {root}/log\n"
            f"cachedir: {root}/cache\nbindir: /usr/bin\nsbindir: /usr/sbin\nlibexecdir: /usr/lib/trafficserver/modules\ndatadir: {root}\nincludedir: {root}\nlibdir: /usr/lib\n"
        )
        (root / "etc" / "records.config").write_text(f"""
CONFIG proxy.config.http.server_ports STRING {PLAIN}:ip-in=127.0.0.1
CONFIG proxy.config.exec_thread.autoconfig INT 0
CONFIG proxy.config.exec_thread.limit INT 1
CONFIG proxy.config.log.logging_enabled INT 0
CONFIG proxy.config.http.cache.required_headers INT 0
CONFIG proxy.config.http.keep_alive_no_activity_timeout_in INT 60
CONFIG proxy.config.admin.user_id STRING #-1
CONFIG proxy.config.http.insert_response_via_str INT 0
""")
        (root / "etc" / "remap.config").write_text(f"map / http://127.0.0.1:{ORIGIN}/\n")
        (root / "etc" / "storage.config").write_text(f"{root}/cache 256M\n")
        for empty in ("ip_allow.yaml", "cache.config", "plugin.config", "hosting.config", "volume.config"):
            (root / "etc" / empty).write_text("ip_allow:\n- {apply: in, ip_addrs: 0/0, action: allow, methods: ALL}\n" if empty == "ip_allow.yaml" else "")
        os.chmod(root, 0o777)
        for path in root.rglob("*"):
            os.chmod(path, 0o777)
        return Server("trafficserver", ["traffic_server", f"--run-root={root}/runroot.yaml"], folder, tcp_ready(PLAIN), start_origin(folder) if start_origin else origin(folder, body_bytes, 3600))

    return start
