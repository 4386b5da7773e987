#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The Debian package: built, judged by Debian's own tools, installed on a fresh root, served from, and removed.

Prints "ok NAME" for each test. Needs root, and the registry of packages that this machine's apt uses.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))
from service_manager import Service  # noqa: E402

sys.path.insert(0, str(ROOT / "packaging"))
from sbom import owner  # noqa: E402

NAMESPACE = "tgpackage"
UNITS = ("tidegate-control", "tidegate-l7", "tidegate-dns", "tidegate-l4")
# The most that `systemd-analyze security` may find, in tenths. The forwarder drives devices.
EXPOSURE, EXPOSURE_OF_THE_FORWARDER = 25, 32
INSTALLED_WITHIN_S = 60
# Checks the bill of materials: the library, and what it needs to read schemas.
SBOM_PACKAGES = ("@cyclonedx/cyclonedx-library@10.3.0", "ajv@8.20.0", "ajv-formats@3.0.1", "ajv-formats-draft2019@1.6.1")


def run(*command, **kwargs):
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **kwargs)
    assert done.returncode == 0, f"{' '.join(map(str, command))} ended with {done.returncode}\n{done.stdout[-4000:]}"
    return done.stdout


def in_root(root, *command):
    return run("chroot", root, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", *command)


def build(folder, umask):
    """The committed tree, built in a folder of its own. Returns the package."""
    source = Path(folder) / "tidegate"
    source.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "x"], cwd=source, input=archive, check=True)
    # Without the package of debug symbols: to compress it takes longer than to build, and nothing here looks into it.
    run("sh", "-c", f"umask {umask}; DEB_BUILD_OPTIONS=noautodbgsym exec dpkg-buildpackage -b -us -uc -j{os.cpu_count()}", cwd=source)
    (package,) = [path for path in Path(folder).glob("tidegate_*.deb")]
    return package


def mirror():
    return run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").split()[0]


def make_root(root):
    """Debian as a machine has it before the package comes: a copy of one that is made once."""
    fresh = root.parent / "fresh"
    if not fresh.exists():
        run("debootstrap", "--variant=minbase", "--include=ca-certificates,curl,bind9-dnsutils,iproute2,python3,systemd", "bookworm", fresh, mirror())
    run("cp", "--archive", fresh, root)
    for source in Path("/etc/apt/sources.list.d").glob("*"):
        shutil.copy(source, root / "etc/apt/sources.list.d")
    for source in ("sources.list", "apt.conf.d"):
        if (at := Path("/etc/apt") / source).is_file():
            shutil.copy(at, root / "etc/apt" / source)
    policy = root / "usr/sbin/policy-rc.d"  # nothing is started: no manager runs here
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    in_root(root, "apt-get", "update")


@contextlib.contextmanager
def mounted(root):
    """The root with the kernel's file systems, and a network of its own."""
    mounts = [("proc", "proc"), ("sysfs", "sys"), ("tmpfs", "run")]
    run("ip", "netns", "add", NAMESPACE)
    try:
        run("ip", "-n", NAMESPACE, "link", "set", "lo", "up")
        for kind, at in mounts:
            run("mount", "-t", kind, kind, root / at)
        yield
    finally:
        for _, at in reversed(mounts):
            subprocess.run(["umount", "-l", root / at], check=False)
        run("ip", "netns", "delete", NAMESPACE)


def files_of(root):
    """Every file but those that dpkg, apt and ldconfig keep for themselves."""
    own = re.compile(r"^/(proc|sys|run|tmp|dev|var/(lib/(dpkg|apt|systemd|pam)|cache/(apt|ldconfig|debconf|man)|log)|etc/(ld\.so\.cache|.*-|systemd/.*)|root/)")
    return {line for line in run("find", root, "-printf", "/%P\n").splitlines() if not own.match(line)}


def asked(*command):
    return run("ip", "netns", "exec", NAMESPACE, *command)


def wait_until(what, ask, seconds=20):
    deadline = time.monotonic() + seconds
    while True:
        try:
            if ask():
                return
        except AssertionError:
            pass
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def differing_members(work, *packages):
    """The files that are not alike in two packages, and what of their control data."""
    found = []
    for i, package in enumerate(packages):
        folder = work / f"unpacked-{i}"
        run("dpkg-deb", "--raw-extract", package, folder)
        listed = run("dpkg-deb", "--contents", package).splitlines()  # mode, owner, size, time, name
        found.append({line.split()[-1]: line for line in listed} | {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()})
    first, second = found
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def test_built_alike_twice(work):
    first, second = build(work / "one", "022"), build(work / "another/folder", "027")
    assert first.read_bytes() == second.read_bytes(), f"two builds of one commit differ: {differing_members(work, first, second)}"
    shutil.copy(first, work)


def test_lintian_finds_no_error(work):
    print(run("lintian", "--fail-on", "error", "--allow-root", next((work / "one").glob("*.changes"))))


def test_the_bill_of_materials_is_one_and_complete(work):
    """The schema of CycloneDX judges it, and every library that a program loads is in it."""
    home, unpacked = work / "npm", work / "unpacked"
    home.mkdir()
    run("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--cache", home / "cache", "--prefix", home, *SBOM_PACKAGES, cwd=home)
    run("dpkg-deb", "--extract", next(work.glob("*.deb")), unpacked)
    bill = unpacked / "usr/share/tidegate/sbom.cdx.json"
    (home / "sbom.js").write_bytes((HERE / "sbom.js").read_bytes())
    run("node", home / "sbom.js", bill)
    broken = home / "broken.json"
    broken.write_text(bill.read_text().replace('"type": "library"', '"type": "librarian"', 1))
    assert subprocess.run(["node", home / "sbom.js", broken], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 1
    document = json.loads(bill.read_text())
    needs = {row["ref"]: row["dependsOn"] for row in document["dependencies"]}
    names = {component["bom-ref"]: component["name"] for component in document["components"]}
    for program in (unpacked / "usr/bin").glob("tidegate*"):
        (reference,) = [ref for ref, name in names.items() if name == program.name]
        packages = {owner(os.path.realpath(path)) for path in re.findall(r"=> (/\S*/lib(?:ssl|fmt|lmdb|curl|rte_eal|ldns|protobuf)\.\S+) ", run("ldd", program))}
        assert packages and packages <= {names[need] for need in needs[reference]}, (program.name, packages)


def test_installed_and_serving_within_a_minute(work):
    root = work / "root"
    make_root(root)
    before = files_of(root)
    (root / "before").write_text("\n".join(sorted(before)))
    package = next(work.glob("*.deb"))
    shutil.copy(package, root / "tmp")
    with mounted(root), contextlib.ExitStack() as stack:
        began = time.monotonic()
        in_root(root, "apt-get", "install", "-y", "--no-install-recommends", f"/tmp/{package.name}")
        run("chroot", root, "systemd-tmpfiles", "--create", "tidegate.conf")
        for name in UNITS[:3]:
            service = Service(name, root, NAMESPACE)
            stack.callback(service.stop)
            service.wait_for("READY=1")
        wait_until("the welcome page", lambda: "Tidegate serves" in asked("curl", "-sk", "https://127.0.0.1/"))
        assert "https://127.0.0.1/" in asked("curl", "-si", "http://127.0.0.1/")
        assert "192.0.2.80" in asked("dig", "+short", "@127.0.0.1", "www.edge.test")
        cache_hit(root, stack)
        took = time.monotonic() - began
        assert took < INSTALLED_WITHIN_S, f"took {took:.0f} s"
        judge_units(root)
        run("chroot", root, "tidegate", "status")
    log = root / "var/log/tidegate/access.log"
    assert log.stat().st_size > 0 and log.stat().st_mode & 0o777 == 0o640
    assert run("chroot", root, "stat", "--format", "%G", "/var/log/tidegate", "/var/log/tidegate/access.log").split() == ["adm", "adm"], "operators read it"


def cache_hit(root, stack):
    """An application behind the proxy, as the comments of edge.yaml say."""
    site = root / "srv/app"
    site.mkdir()
    (site / "page").write_text("from the application\n")
    origin = subprocess.Popen(["ip", "netns", "exec", NAMESPACE, "chroot", root, "python3", "-m", "http.server", "8080", "--bind", "127.0.0.1", "--directory", "/srv/app"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(lambda: (origin.terminate(), origin.wait(10), shutil.rmtree(site)))
    document = root / "etc/tidegate/edge.yaml"
    text = document.read_text()
    changed = text.replace("# pools:\n#   - ", "pools:\n  - ").replace("  # - {name: app,", "  - {name: app,")
    assert changed != text
    document.write_text(changed)
    stack.callback(document.write_text, text)
    run("chroot", root, "tidegate", "apply", "/etc/tidegate/edge.yaml", "--wait")
    ask = lambda: asked("curl", "-ski", "https://127.0.0.1/page").lower()
    wait_until("the application", lambda: "from the application" in ask())
    wait_until("a hit", lambda: re.search(r"cache-status: .*hit", ask()))
    # The README's first page.
    run("chroot", root, "tidegate", "init", "/tmp/first.yaml", "--backend", "127.0.0.1:8080", "--host", "www.example.com")
    run("chroot", root, "tidegate", "apply", "/tmp/first.yaml", "--wait")
    first = lambda: asked("curl", "-si", "-H", "Host: www.example.com", "http://localhost/page").lower()
    wait_until("the application by the written document", lambda: "from the application" in first())
    run("chroot", root, "tidegate", "explain", "203.0.113.9", "http://www.example.com/")
    run("chroot", root, "tidegate", "rollback", "1", "--wait")


def judge_units(root):
    """Every unit of the package."""
    units = [path for path in in_root(root, "dpkg", "--listfiles", "tidegate").splitlines() if path.endswith(".service")]
    assert {Path(unit).stem for unit in units} == {*UNITS, "tidegate-decap"}, units
    for unit in units:
        exposure = EXPOSURE_OF_THE_FORWARDER if unit.endswith("-l4.service") else EXPOSURE
        in_root(root, "systemd-analyze", "verify", "--man=no", unit)
        in_root(root, "systemd-analyze", "security", "--offline=true", f"--threshold={exposure}", unit)


def test_its_own_test_passes_where_it_is_installed(work):
    """debian/tests, as Debian's own machines run them: on a root that has the package."""
    root = work / "testbed"
    make_root(root)
    source = work / "one" / "tidegate"
    run("mount", "-t", "proc", "proc", root / "proc")
    try:
        done = subprocess.run(["autopkgtest", "--no-built-binaries", next(work.glob("*.deb")), f"{source}/", "--", "chroot", root], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    finally:
        run("umount", "-l", root / "proc")
    assert done.returncode == 0 and re.search(r"^serve +PASS", done.stdout, re.MULTILINE), done.stdout[-4000:]


def test_piuparts_finds_it_clean(work):
    """Installed, removed, purged: nothing is left, nothing of others has changed."""
    base = work / "piuparts-base"
    make_root(base)
    (base / "usr/sbin/policy-rc.d").unlink()
    run("piuparts", "--existing-chroot", base, "--distribution", "bookworm", "--mirror", f"{mirror()} main", "--no-eatmydata", "--warn-on-others", next(work.glob("*.deb")))


def test_removed_without_a_trace(work):
    root = work / "root"
    before = set((root / "before").read_text().splitlines())
    with mounted(root):
        run("chroot", root, "systemd-tmpfiles", "--create", "tidegate.conf")
        assert (root / "run/tidegate-bird").is_dir()
        in_root(root, "apt-get", "remove", "-y", "tidegate")
        assert (root / "etc/tidegate/edge.yaml").exists(), "a removal keeps the configuration"
        in_root(root, "apt-get", "purge", "-y", "tidegate")
        running = [path.name for path in (root / "run").glob("tidegate*")]
        assert not running, f"left behind in /run: {running}"
        in_root(root, "apt-get", "autoremove", "-y", "--purge")
        passwd = (root / "etc/passwd").read_text() + (root / "etc/group").read_text()
    left = files_of(root) - before - {"/before"}
    assert not left, f"left behind: {sorted(left)[:20]}"
    assert "tidegate" not in passwd


def main():
    with tempfile.TemporaryDirectory(prefix="tidegate-package-") as folder:
        for name, test in [(name, value) for name, value in globals().items() if name.startswith("test_")]:
            test(Path(folder))
            print(f"ok {name.removeprefix('test_').replace('_', ' ')}", flush=True)


if __name__ == "__main__":
    main()
