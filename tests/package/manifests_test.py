#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The manifests for Kubernetes: typed, validated, and compared with what the image and the daemons have.

Prints "ok NAME" for each test. Needs npm and its registry. Argument: a folder with the built programs, as ninja leaves
them.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
MANIFESTS = sorted((ROOT / "packaging" / "kubernetes").glob("*.yaml"))
PACKAGES = ("kubernetes-models@4.5.1", "yaml@2.9.1", "typescript@7.0.2")


def run(*command, **kwargs):
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=300, **kwargs)
    assert done.returncode == 0, f"{' '.join(map(str, command))} ended with {done.returncode}\n{done.stdout[-4000:]}"
    return done.stdout


def install(home):
    run("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--cache", home / "cache", "--prefix", home, *PACKAGES, cwd=home)
    (home / "manifests.js").write_bytes((ROOT / "tests" / "package" / "manifests.js").read_bytes())


def read(home, manifests):
    """The objects of the manifests, judged by their schemas. Raises with every fault."""
    done = subprocess.run(["node", home / "manifests.js", *manifests], env={**os.environ, "TYPES": str(home / "types.ts")}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120, cwd=home)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def type_faults(home):
    """What the compiler says of the objects that read() saw."""
    options = ("--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler", "--types", "")
    return subprocess.run(["node_modules/.bin/tsc", *options, "types.ts"], cwd=home, stdout=subprocess.PIPE, text=True, timeout=120).stdout


def pods(objects):
    return {o["metadata"]["name"]: o["spec"]["template"]["spec"] for o in objects if o["kind"] in ("Deployment", "DaemonSet")}


def test_every_object_has_the_shape_of_its_kind(home, programs):
    kinds = sorted(o["kind"] for o in read(home, MANIFESTS))
    assert kinds == ["ConfigMap", "DaemonSet", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "PodDisruptionBudget", "Service"], kinds
    assert type_faults(home) == ""


def test_a_misspelt_key_and_a_wrong_type_are_found(home, programs):
    """So the test above can fail."""
    text = MANIFESTS[0].read_text()
    broken = home / "broken.yaml"
    broken.write_text(text.replace("readinessProbe:", "readynessProbe:", 1))
    read(home, [broken])
    assert "readynessProbe" in type_faults(home)
    broken.write_text(text.replace("terminationGracePeriodSeconds: 60", "terminationGracePeriodSeconds: soon"))
    try:
        read(home, [broken])
    except AssertionError as fault:
        assert "terminationGracePeriodSeconds must be integer" in str(fault), fault
    else:
        raise AssertionError("a word is no number of seconds")


def test_daemons_of_a_node_share_their_processes_and_only_the_forwarder_is_root(home, programs):
    containerfile = (ROOT / "packaging" / "container" / "Containerfile").read_text()
    users = {name: int(number) for name, number in re.findall(r"\b(control|l7|dns|l4):(\d+)", containerfile)}
    for name, pod in pods(read(home, MANIFESTS)).items():
        assert pod["shareProcessNamespace"] is True and pod["securityContext"]["fsGroup"] == 10640, name
        assert bool(pod.get("hostNetwork")) == any(c["name"] == "l4" for c in pod["containers"]), "the forwarder needs the host's devices"
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] and security["capabilities"]["drop"] == ["ALL"]
            if container["name"] == "l4":
                continue
            assert security["runAsUser"] == users[container["name"]], (name, container["name"])
            assert security.get("runAsNonRoot") or pod["securityContext"].get("runAsNonRoot")
            assert security["capabilities"].get("add", []) in ([], ["NET_BIND_SERVICE"])


def test_every_container_is_probed_and_its_options_are_known(home, programs):
    for name, pod in pods(read(home, MANIFESTS)).items():
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            daemon = container["name"]
            assert "livenessProbe" in container and (daemon == "control" or "readinessProbe" in container), (name, daemon)
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            program, *arguments = container["command"]
            known = run(programs / daemon / program, "--help")
            assert program == f"tidegate-{daemon}"
            for option in (a for a in arguments if a.startswith("--")):
                assert re.search(rf"{option}\b", known), f"{program} does not know {option}"
            for probe in (container[key] for key in container if key.endswith("Probe") and "httpGet" in container[key]):
                port = probe["httpGet"]["port"]
                number = next((p["containerPort"] for p in container.get("ports", []) if p["name"] == port), port)
                assert any(a.endswith(f":{number}") for a in arguments), "probes ask the port of --metrics"


def test_the_configuration_of_the_proxy_is_sound(home, programs):
    (files,) = [o["data"] for o in read(home, MANIFESTS) if o["kind"] == "ConfigMap"]
    folder = home / "configuration"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=edge", "-keyout", folder / "tls.key", "-out", folder / "tls.crt")
    run(programs / "control" / "tidegate", "check", folder / "edge.yaml")


def main():
    programs = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory(prefix="tidegate-manifests-") as folder:
        install(Path(folder))
        for name, test in [(name, value) for name, value in globals().items() if name.startswith("test_")]:
            test(Path(folder), programs)
            print(f"ok {name.removeprefix('test_').replace('_', ' ')}", flush=True)


if __name__ == "__main__":
    main()
