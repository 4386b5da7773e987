# SPDX-License-Identifier: Apache-2.0
"""Which files differ from the last commit, and which rooms' unit tests must run for them."""

import subprocess

from trees import ROOT

# A header of a room can change its includers' behaviour: core <- conf <- { l4, cache <- l7, dns, control }.
READERS = {"core": ("conf", "cache", "l7", "dns", "control", "l4"), "conf": ("cache", "l7", "dns", "control", "l4"), "cache": ("l7",)}
ROOMS = ("core", "conf", "cache", "l7", "dns", "control", "l4")


def changed_files():
    git = lambda *command: subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    files = git("diff", "--name-only", "--diff-filter=d", "HEAD") + git("ls-files", "--others", "--exclude-standard")
    # Directly after a commit: the files that the commit changed.
    return files or git("diff", "--name-only", "--diff-filter=d", "HEAD~1", "HEAD")


def rooms_of(files):
    """In the order of the rooms. `rooms` itself, which reads every #include, is always among them."""
    wanted = set()
    for file in files:
        parts = file.split("/")
        room = parts[2] if parts[:2] == ["tests", "unit"] and len(parts) > 3 else parts[0]
        if room not in ROOMS or not file.endswith((".cc", ".h", ".def", "meson.build")):
            continue
        wanted.add(room)
        if parts[0] != "tests" and not file.endswith(".cc"):
            wanted.update(READERS.get(room, ()))
    return [room for room in ROOMS if room in wanted] + ["rooms"] if wanted else []
