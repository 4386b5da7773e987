#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Prints what our programs are made of, as a CycloneDX 1.5 document: every Debian package that the dynamic linker
loads a library from, and those whose headers are compiled in. Who needs whom is there too. The document depends on the
programs and on the installed packages alone, so two builds print the same.

Usage: sbom.py VERSION PROGRAM...     SOURCE_DATE_EPOCH is the time that it states.
"""

import datetime
import hashlib
import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

HEADERS_ONLY = ("libcli11-dev", "nlohmann-json3-dev")
# What DPDK loads when it starts; debian/control depends on them by name.
PLUGINS = {"tidegate-l4": ("librte-bus-pci23", "librte-bus-vdev23", "librte-mempool-ring23", "librte-net-af-packet23", "librte-net-af-xdp23")}


def run(*command):
    return subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "LC_ALL": "C"}).stdout


def needed(path):
    return re.findall(r"^\s*NEEDED\s+(\S+)$", run("objdump", "-p", path), re.MULTILINE)


def loaded(program):
    """The files that the dynamic linker would load: {name: path}."""
    return {name: os.path.realpath(path) for name, path in re.findall(r"^\s*(\S+) => (/\S+) \(", run("ldd", program), re.MULTILINE)} | {
        os.path.basename(path): os.path.realpath(path) for path in re.findall(r"^\s*(/\S+) \(", run("ldd", program), re.MULTILINE)
    }


def owner(path):
    """The binary package that has the file. dpkg knows it by the path before or after the merge of /usr."""
    for name in (path, path.removeprefix("/usr"), "/usr" + path):
        found = subprocess.run(["dpkg-query", "--search", name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
        if found:
            return found.split(":")[0]
    raise SystemExit(f"sbom: no package has {path}")


def component(package):
    version, architecture, source, source_version = run("dpkg-query", "--show", "--showformat", "${Version}\t${Architecture}\t${source:Package}\t${source:Version}", package).splitlines()[0].split("\t")
    reference = f"pkg:deb/debian/{package}@{version.replace('+', '%2B').replace(':', '%3A')}?arch={architecture}"
    properties = [{"name": "tidegate:source-package", "value": f"{source} {source_version}"}]
    if package in HEADERS_ONLY:
        properties.append({"name": "tidegate:linked", "value": "headers"})
    if any(package in plugins for plugins in PLUGINS.values()):
        properties.append({"name": "tidegate:linked", "value": "loaded at the start"})
    return {"type": "library", "bom-ref": reference, "name": package, "version": version, "purl": reference, "properties": properties}


def main():
    version, *programs = sys.argv[1:]
    components, edges, of_path = {}, {}, {}

    def reference_of(path):
        if path not in of_path:
            made = component(owner(path))
            components[made["bom-ref"]] = made
            edges.setdefault(made["bom-ref"], set())
            of_path[path] = made["bom-ref"]
        return of_path[path]

    product = f"pkg:generic/tidegate@{version}"
    edges[product] = set()

    def reference_by_name(package):
        made = component(package)
        components[made["bom-ref"]] = made
        edges.setdefault(made["bom-ref"], set())
        return made["bom-ref"]

    headers = {reference_by_name(package) for package in HEADERS_ONLY}
    for program in map(Path, programs):
        reference = f"{product}#{program.name}"
        components[reference] = {
            "type": "application", "bom-ref": reference, "name": program.name, "version": version,
            "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(program.read_bytes()).hexdigest()}],
        }  # fmt: skip
        edges[product].add(reference)
        paths = loaded(program)
        edges[reference] = {reference_of(paths[name]) for name in needed(program)} | headers
        edges[reference] |= {reference_by_name(package) for package in PLUGINS.get(program.name, ())}
        for path in paths.values():
            edges[reference_of(path)] |= {reference_of(paths[name]) for name in needed(path) if name in paths} - {reference_of(path)}
    moment = datetime.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), datetime.timezone.utc)
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json", "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {
            "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {"type": "application", "bom-ref": product, "name": "tidegate", "version": version, "licenses": [{"license": {"id": "Apache-2.0"}}], "purl": product},
        },
        "components": [components[key] for key in sorted(components)],
        "dependencies": [{"ref": key, "dependsOn": sorted(edges[key])} for key in sorted(edges)],
    }  # fmt: skip
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(document, sort_keys=True))}"
    print(json.dumps(document, indent=1, sort_keys=True))


if __name__ == "__main__":
    main()
