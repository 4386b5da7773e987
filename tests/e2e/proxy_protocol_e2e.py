# SPDX-License-Identifier: Apache-2.0
"""The PROXY protocol with real peers: HAProxy sends it to the proxy and takes it from it, in both versions; nginx takes
both, and sends version 1, which is all that it can send. Who takes it says which client it sees."""

import contextlib
from pathlib import Path

from honest_e2e import required
from lab import HOSTS
from marks import long
from netns import Process, wait_until

CLIENTS = {"4": "10.1.0.2", "6": HOSTS["client-eu"].v6}
HAPROXY = """
global
  log stderr format raw local0 warning
defaults
  mode http
  timeout connect 5s
  timeout client 20s
  timeout server 20s
frontend takes
  bind 10.10.0.21:8101 accept-proxy
  http-request return status 200 content-type text/plain lf-string "%[src]\\n"
frontend sends
  mode tcp
  bind 10.10.0.21:8102
  bind 10.10.0.21:8103
  bind [fd10::21]:8102 v6only
  bind [fd10::21]:8103 v6only
  use_backend v1 if { dst_port 8102 }
  default_backend v2
backend v1
  mode tcp
  server proxy 10.10.0.11:8104 send-proxy
backend v2
  mode tcp
  server proxy 10.10.0.11:8104 send-proxy-v2
"""
NGINX = """
load_module {stream};
worker_processes 1; pid {home}/pp.pid; error_log stderr warn;
events {{ worker_connections 64; }}
http {{
  access_log off; default_type text/plain;
  client_body_temp_path {home}/h2-tmp; proxy_temp_path {home}/h2-tmp; fastcgi_temp_path {home}/h2-tmp; uwsgi_temp_path {home}/h2-tmp; scgi_temp_path {home}/h2-tmp;
  server {{ listen 10.10.0.21:8105 proxy_protocol; location / {{ return 200 "$proxy_protocol_addr\\n"; }} }}
}}
stream {{
  server {{ listen 10.10.0.21:8108; listen [fd10::21]:8108; proxy_pass 10.10.0.11:8104; proxy_protocol on; }}
}}
"""
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


@contextlib.contextmanager
def peers(lab):
    assert STREAM_MODULE.exists(), "nginx has no stream module: it comes with the package libnginx-mod-stream, which './run test --long e2e' installs"
    home = lab.directory("origin1")
    (home / "h2-tmp").mkdir(exist_ok=True)
    (home / "pp-haproxy.cfg").write_text(HAPROXY)
    (home / "pp-nginx.conf").write_text(NGINX.format(home=home, stream=STREAM_MODULE))
    commands = {"haproxy": [required("haproxy", "haproxy"), "-db", "-f", home / "pp-haproxy.cfg"], "nginx": ["nginx", "-p", home, "-c", home / "pp-nginx.conf", "-e", "stderr", "-g", "daemon off;"]}
    with contextlib.ExitStack() as stack:
        for (name, command), port in zip(commands.items(), (8102, 8105)):
            process = Process(HOSTS["origin1"].namespace, f"origin1/pp-{name}", command, lab.log("origin1", f"pp-{name}")).start()
            stack.callback(process.stop)
            wait_until(f"{name} listens", lambda port=port: lab.tcp_opens("origin1", "10.10.0.21", port), process=process)
        yield


@contextlib.contextmanager
def configured(lab):
    pool = "  - {{name: {0}-{1}, proxy_protocol: {1}, backends: [{{name: b, addresses: [10.10.0.21], port: {2}}}]}}\n".format
    route = '  - {{name: {0}-{1}, listeners: [https], hosts: [www.example.test], path: "/{0}/{1}", pool: {0}-{1}}}\n'.format
    pairs = [(name, version, port) for name, port in (("haproxy", 8101), ("nginx", 8105)) for version in ("v1", "v2")]
    pools, routes = "".join(pool(*pair) for pair in pairs), "".join(route(*pair[:2]) for pair in pairs)
    routes += '  - {name: told, listeners: [told], path: "/api/*", pool: origins}\n'
    listener = '  - {name: told, bind: ["0.0.0.0:8104"], proxy_protocol_from: [10.10.0.21/32]}\n'
    with lab.configured(("pools:\n", "pools:\n" + pools), ("routes:\n", "routes:\n" + routes), ("listeners:\n", "listeners:\n" + listener)):
        yield


@long
def test_haproxy_and_nginx_see_the_client_that_the_proxy_names_and_the_reverse(lab):
    with peers(lab), configured(lab):
        for taker in ("haproxy", "nginx"):
            for version in ("v1", "v2"):
                for family, proxy in (("4", "10.10.0.11"), ("6", "fd10::11")):
                    got = lab.curl("client-eu", f"https://www.example.test/{taker}/{version}", vip=proxy).stdout
                    assert got == CLIENTS[family] + "\n", (taker, version, family, got)
        for port in (8102, 8103, 8108):  # HAProxy in both versions, nginx
            for family, address in (("4", "10.10.0.21"), ("6", "[fd10::21]")):
                got = lab.run("client-eu", "curl", "-sS", "--max-time", "20", f"http://{address}:{port}/api/x").stdout
                assert f"xff={CLIENTS[family]} " in got, (port, family, got)
