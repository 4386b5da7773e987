#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The container image: built by buildah from a base that debootstrap makes (no image is pulled), looked into, and served
from by the users that the manifests name.

Prints "ok NAME" for each test. Needs root, and the registry of packages that this machine's apt uses. With `--package
FILE` the stage that builds the package is left out, and that one is taken.
"""

import argparse
import contextlib
import json
import re
import subprocess
import tempfile
from pathlib import Path

from package_test import ROOT, mirror, run, wait_until

NAMESPACE = "tgcontainer"
BASE, IMAGE = "localhost/tidegate-base", "localhost/tidegate"
# Numbers of users and groups, as the manifests have them.
GROUP, SECRETS = 10640, 10641
USERS = {"control": (10650, [SECRETS]), "l7": (10651, [SECRETS]), "dns": (10652, [])}
DOCUMENT = """
nodes: [{name: edge, l7: {access_log: "-"}, cache: {enabled: true, path: /var/cache/tidegate, disk: 64MB}, dns: {listen: ["0.0.0.0:53"]}}]
certificates: [{name: own, certificate_file: tls.crt, key_file: tls.key}]
listeners: [{name: https, bind: ["0.0.0.0:443"], tls: {certificates: [own]}}]
routes: [{name: welcome, path: /, status: 200, body: "served from a container\\n"}]
zones: [{name: edge.test, file: edge.test.zone}]
"""


class Store:
    """The images and containers of this test alone."""

    def __init__(self, folder):
        self.options = ("--root", folder / "root", "--runroot", folder / "run", "--storage-driver", "vfs")

    def __call__(self, command, *arguments):
        return run("buildah", *self.options, command, *arguments)


def make_base(store, work):
    root = work / "base"
    run("debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", root, mirror())
    container = store("from", "scratch").strip()
    store("add", "--quiet", container, root, "/")
    store("commit", "--quiet", "--rm", container, BASE)


def build_image(store, work, package):
    context = work / "context"
    context.mkdir()
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "x"], cwd=context, input=archive, check=True)
    options = ["--isolation", "chroot", "--pull-never", "--build-arg", f"BASE={BASE}", "--tag", IMAGE, "--file", context / "packaging/container/Containerfile"]
    if package:
        (work / "built/packages").mkdir(parents=True)
        (work / "built/packages" / package.name).write_bytes(package.read_bytes())
        options += ["--build-context", f"build={work / 'built'}"]
    store("build", *options, context)


@contextlib.contextmanager
def mounted(store):
    """The root of a container of the image."""
    container = store("from", "--pull-never", IMAGE).strip()
    try:
        yield Path(store("mount", container).strip())
    finally:
        store("rm", container)


def test_the_image_has_no_root_user_no_secret_and_no_compiler(store):
    told = json.loads(store("inspect", "--type", "image", IMAGE))["OCIv1"]["config"]
    assert told["User"] == f"{USERS['l7'][0]}:{GROUP}" and told["Cmd"] == ["tidegate-l7"], told
    with mounted(store) as root:
        assert list((root / "etc/tidegate").iterdir()) == []
        assert not (root / "packages").exists() and not (root / "src").exists() and not (root / "usr/bin/gcc").exists()
        users = dict(re.findall(r"^tidegate-(\w+):x:(\d+):%d:" % GROUP, (root / "etc/passwd").read_text(), re.MULTILINE))
        assert users == {**{name: str(number) for name, (number, _) in USERS.items()}, "l4": "10653"}, users
        groups = dict(re.findall(r"^(tidegate\S*):x:\d+:(.*)$", (root / "etc/group").read_text(), re.MULTILINE))
        assert sorted(groups["tidegate-secrets"].split(",")) == ["tidegate-control", "tidegate-l7"], groups
        for program in ("tidegate-l7", "tidegate-dns"):
            assert "cap_net_bind_service=ep" in run("getcap", root / "usr/bin" / program)
        assert run("getcap", root / "usr/bin/tidegate-control").strip() == ""


def test_the_forwarder_finds_its_drivers(store):
    """DPDK loads them when it starts; no program is linked with them."""
    with mounted(store) as root:
        drivers = {path.name for path in (root / "usr/lib").glob("*/dpdk/pmds-*/*")}
        for wanted in ("librte_net_af_packet.so", "librte_net_af_xdp.so", "librte_bus_vdev.so", "librte_bus_pci.so", "librte_mempool_ring.so"):
            assert any(name.startswith(wanted) for name in drivers), (wanted, sorted(drivers))


def write_configuration(root):
    folder = root / "etc/tidegate"
    (folder / "edge.yaml").write_text(DOCUMENT)
    (folder / "edge.test.zone").write_text("$ORIGIN edge.test.\n$TTL 60\n@ IN SOA ns hostmaster 1 3600 600 604800 60\n@ IN NS ns\nns IN A 192.0.2.53\nwww IN A 192.0.2.80\n")
    (folder / "secret").write_text("a secret of sixteen bytes at least\n")
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=edge", "-keyout", folder / "tls.key", "-out", folder / "tls.crt")
    for path in folder.iterdir():
        path.chmod(0o644)


def start(root, daemon, *options):
    """As a runtime does: the user, the groups that the image gives it, and one capability to have at most."""
    user, groups = USERS[daemon]
    rights = ["setpriv", "--reuid", user, "--regid", GROUP, *(["--groups", ",".join(map(str, groups))] if groups else ["--clear-groups"])]
    rights += ["--bounding-set", "-all,+net_bind_service", "--inh-caps", "-all"]
    command = ["ip", "netns", "exec", NAMESPACE, "chroot", root, *rights, f"tidegate-{daemon}", "--node", "edge", "--secret", "/etc/tidegate/secret", *options]
    return subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL)


def test_the_daemons_serve_as_users_without_rights(store):
    with mounted(store) as root, contextlib.ExitStack() as stack:
        write_configuration(root)
        for folder in ("var/lib/tidegate", "run/tidegate"):
            (root / folder).chmod(0o2770)  # volumes with a group of their own
        run("mount", "-t", "proc", "proc", root / "proc")
        stack.callback(run, "umount", "-l", root / "proc")
        run("ip", "netns", "add", NAMESPACE)
        stack.callback(run, "ip", "netns", "delete", NAMESPACE)
        run("ip", "-n", NAMESPACE, "link", "set", "lo", "up")
        for daemon, options in (("control", ("--config", "/etc/tidegate/edge.yaml", "--secrets-group", "tidegate-secrets")), ("l7", ("--metrics", "127.0.0.1:9101")), ("dns", ("--metrics", "127.0.0.1:9102"))):
            process = start(root, daemon, *options)
            stack.callback(lambda process=process: (process.terminate(), process.wait(60)))
        inside = lambda *command: run("ip", "netns", "exec", NAMESPACE, *command)
        for port in (9101, 9102):
            wait_until(f"port {port} says that the daemon is ready", lambda port=port: "ok" in inside("curl", "-sf", f"http://127.0.0.1:{port}/healthz"), 30)
        assert inside("curl", "-sk", "https://127.0.0.1/") == "served from a container\n"
        assert inside("dig", "+short", "@127.0.0.1", "www.edge.test").strip() == "192.0.2.80"
        assert "edge" in inside("chroot", root, "tidegate", "status")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=lambda text: Path(text).resolve())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tidegate-container-", dir="/var/tmp") as folder:
        work = Path(folder)
        store = Store(work)
        make_base(store, work)
        build_image(store, work, options.package)
        print("ok the image is built", flush=True)
        for name, test in [(name, value) for name, value in globals().items() if name.startswith("test_")]:
            test(store)
            print(f"ok {name.removeprefix('test_').replace('_', ' ')}", flush=True)


if __name__ == "__main__":
    main()
