#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The documentation as a site, made from the pages of the repository.

site.py OUT     writes the site into the folder OUT (needs python3-markdown)
site.py --check judges the pages only, in a second and without any library: every link leads to a page and an anchor of
                it; every command, option, metric and key that a page of docs/ shows exists; no line of text is too long

The pages of docs/ are written by hand. The references are made from what exists: conf/REFERENCE.md and LIMITS.md are
pages already; upgrade notes come from CHANGELOG.md, commands from control/cli, the API from the rows of its routes.
"""

import html
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("core", "conf", "l4", "l7", "cache", "dns", "control")
# Every page of the site, by its group in the menu. Generated ones have no file: GENERATED makes them.
MENU = {
    "Start": ["README.md", "docs/first-edge.md", "docs/concepts.md", "docs/planes.md"],
    "Operate": ["docs/operations.md", "docs/certificates.md", "docs/several-hosts.md", "docs/announce.md", "docs/containers.md", "docs/upgrade.md", "docs/troubleshooting.md", "docs/performance.md", "docs/upgrade-notes.md"],
    "Reference": ["conf/REFERENCE.md", "docs/commands.md", "docs/api.md", "LIMITS.md", "conf/examples/README.md", "CHANGELOG.md"],
    "Inside": ["ARCHITECTURE.md", *(f"{room}/README.md" for room in ROOMS), "bench/README.md", "bench/RESULTS.md", "CONTRIBUTING.md", "SECURITY.md"],
}
PAGES = [page for group in MENU.values() for page in group]
FROM_CODE = ("conf/REFERENCE.md", "LIMITS.md", "bench/RESULTS.md")  # wholly or mostly written by programs
LONGEST = 120  # characters of a line of text


# What the sources say -------------------------------------------------------------------------------------------------


def sources(pattern):
    return "\n".join(path.read_text() for path in sorted(ROOT.glob(pattern)))


STRINGS = r'(?:"(?:[^"\\]|\\.)*"\s*)+'


def joined(literals):
    """The text of adjacent C++ string literals."""
    return "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', literals)).replace('\\"', '"').replace("\\n", " ").replace("\\\\", "\\")


def commands():
    """{command: (about, example, [(option, about)])}, from the calls in control/cli."""
    found = {}
    helpers = {name: options_in(body) for name, body in re.findall(r"void (add_\w+)\(CLI::App\* command(.*?)\n\}\n", sources("control/cli/*.cc"), re.DOTALL)}
    for path in sorted(ROOT.glob("control/cli/*.cc")):
        text = re.sub(r"^\s*//.*$", "", path.read_text(), flags=re.MULTILINE)
        calls = list(re.finditer(rf'add_command\(\s*(?:app, )?({STRINGS}|\w+),\s*({STRINGS}|[^,]+?),\s*({STRINGS}|[^;]+?)\)', text))
        for call, after in zip(calls, [*calls[1:], None]):
            body = text[call.end() : after.start() if after else len(text)]
            before = calls[calls.index(call) - 1] if call is not calls[0] else None
            if after and ";" not in body:  # two commands of one statement, as COND ? a : b, have the same options
                later = calls[calls.index(after) + 1 :]
                body = text[after.end() : later[0].start() if later else len(text)]
            elif before and ";" not in text[before.end() : call.start()]:  # but for those of `if (COND) {...}`
                body = re.sub(r"\n    if \(\w+\) \{.*?\n    \}", "", body, flags=re.DOTALL)
            body = body.split("\n}\n")[0]
            options = options_in(body) + [option for name, shared in helpers.items() if f"{name}(command" in body for option in shared]
            names = [joined(call[1])] if call[1].startswith('"') else re.findall(r'\{"(\w+)"', text) or ["drain", "undrain"]
            for name in names:
                found[name] = (joined(call[2]), joined(call[3]), options)
    return found


def options_in(text):
    return [(option, joined(about)) for option, about in re.findall(rf'add_(?:option|flag)\(\s*"(-[^"]*)",[^,"]*?(?:,\s*({STRINGS}))?[,)]', text) if option != "--print-manual"]


def every_option():
    """The options of all programs, for pages that show how a daemon is started."""
    text = sources("control/**/*.cc") + sources("conf/plane_options.cc") + sources("l4/**/*.cc") + sources("l7/**/*.cc") + sources("dns/**/*.cc")
    found = {name for group in re.findall(r'"(-[-\w,]*)"', text) for name in group.split(",")}
    return found | {"--help", "--version"}


def api():
    """[(method, path, role, about)], from the rows of the routes."""
    rows = re.findall(rf'\{{"([A-Z]+)",\s*"(/v1[^"]*)",\s*Role::(\w+),\s*Effect::\w+,\s*({STRINGS})', sources("control/**/*.cc"))
    return sorted((path, method, role.rstrip("_"), joined(about)) for method, path, role, about in rows)


def metrics():
    return set(re.findall(r"\btidegate_[a-z0-9_]+", "".join(sources(f"{room}/**/*.{end}") for room in ROOMS for end in ("cc", "h", "def"))))


def upgrade_notes():
    """The entries of the changelog that speak of an upgrade, by release."""
    out, release = ["# Upgrade notes", "", "What to do, or to know, before you install a release. From the [changelog](../CHANGELOG.md).", ""], ""
    for entry in re.split(r"\n(?=- |#)", (ROOT / "CHANGELOG.md").read_text()):
        if entry.startswith("## "):
            release = entry.splitlines()[0]
        elif entry.startswith("- ") and re.search(r"\bupgrade", entry, re.IGNORECASE):
            if release:
                out += [release, ""]
                release = ""
            out += [re.sub(r"\]\((?!\w+:|#)", "](../", entry.split("\n\n")[0].rstrip()), ""]
    return "\n".join(out) + "\n"


def commands_page():
    out = ["# Commands", "", "`tidegate` is the command line of an edge. `man tidegate` and `tidegate help COMMAND` say the same.", ""]
    for name, (about, example, options) in sorted(commands().items()):
        out += [f"## tidegate {name}", "", f"{about}.", "", f"    {example}", ""]
        if options:
            out += ["| option | |", "|---|---|", *(f"| `{option}` | {text.replace('|', chr(92) + '|')} |" for option, text in options), ""]
    return "\n".join(out)


def api_page():
    out = ["# The API", "", "Over control's socket, or over TCP with `--listen`. `GET /v1/openapi.json` has parameters and answers.", "",
           "| method | path | role | |", "|---|---|---|---|"]  # fmt: skip
    out += [f"| {method} | `{path}` | {role} | {about} |" for path, method, role, about in api()]
    return "\n".join(out) + "\n"


GENERATED = {"docs/upgrade-notes.md": upgrade_notes, "docs/commands.md": commands_page, "docs/api.md": api_page}


def text_of(page):
    return GENERATED[page]() if page in GENERATED else (ROOT / page).read_text()


# The check ------------------------------------------------------------------------------------------------------------


def slug(heading):
    """The anchor of a heading, as GitHub makes it."""
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def without_code(text):
    text = re.sub(r"^(```|~~~).*?^\1\s*$", "", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join("" if line.startswith("    ") else line for line in text.split("\n"))


def anchors(text):
    seen, out = {}, set()
    for heading in re.findall(r"^#{1,6} +(.+)$", without_code(text), re.MULTILINE):
        name = slug(heading)
        out.add(name if name not in seen else f"{name}-{seen[name]}")
        seen[name] = seen.get(name, 0) + 1
    return out


def links(text):
    return re.findall(r"(?<!!)\[[^]]*\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", without_code(text)))


def bad_links(texts):
    known = {page: anchors(text) for page, text in texts.items()}
    for page, text in texts.items():
        for link in links(text):
            if re.match(r"\w+:", link):
                continue
            target, _, anchor = link.partition("#")
            path = page if not target else str((ROOT / page).parent.joinpath(target).resolve().relative_to(ROOT)) if (ROOT / page).parent.joinpath(target).resolve().is_relative_to(ROOT) else ""
            if path not in known and not (path and (ROOT / path).exists()):
                yield f"{page}: the link {link} leads nowhere"
            elif anchor and anchor not in known.get(path, {anchor}):
                yield f"{page}: {path} has no heading for #{anchor}"


def shown(text):
    """Every command line that a page shows: lines of code blocks, and back-quoted words."""
    lines = [line[4:] for line in text.split("\n") if line.startswith("    ")]
    return lines + re.findall(r"`((?:tidegate|\./run)[^`\n]*)`", text)


def bad_commands(texts):
    known, run = commands(), (ROOT / "run").read_text()
    general = {"--api", "--ca", "--token-file", "--output", "--version", "--help"}
    verbs = set(re.findall(r"^  ([a-z]+)\)", run, re.MULTILINE)) | {"format", "help"}
    everywhere = every_option()
    for page, text in texts.items():
        for line in shown(text):
            words = line.split("#")[0].split("   ")[0].split()
            if not words:
                continue
            if words[0] == "./run" and len(words) > 1 and words[1].isalpha() and words[1].islower() and words[1] not in verbs:
                yield f"{page}: there is no ./run {words[1]}"
            if re.fullmatch(r"tidegate-(l4|l7|dns|control|decap)", words[0]):
                yield from (f"{page}: {words[0]} has no {word}" for word in words if word.startswith("--") and word not in everywhere)
            if words[0] != "tidegate":
                continue
            rest = [word for word in words[1:] if word != "…"]
            while rest and rest[0].startswith("--"):
                if rest[0] not in general:
                    yield f"{page}: tidegate has no {rest[0]}"
                rest = rest[1:] if rest[0] in ("--version", "--help") else rest[2:]
            if not rest or not rest[0].islower():
                continue
            name = rest[0].rstrip(";,.")
            if re.fullmatch(r"[a-z-]+", name) and name not in known:
                yield f"{page}: there is no command in '{line}'"
            elif name in known:
                options = {part for option, _ in known[name][2] for part in option.split(",")} | general
                yield from (f"{page}: tidegate {name} has no {word}" for word in rest if word.startswith("--") and word.rstrip(";,.") not in options)


def bad_metrics(texts):
    known = metrics()
    for page, text in texts.items():
        for name in sorted(set(re.findall(r"`(tidegate_[a-z0-9_]+)", text))):
            if name not in known and not composed(name):
                yield f"{page}: there is no metric {name}"


def composed(name):
    """The names that every plane has, and those of the forwarder, are put together from a prefix and the rest."""
    plane, rest = re.fullmatch(r"tidegate_([a-z0-9]+)_(\w+)", name).groups() if name.count("_") > 1 else ("", "")
    where = {"l4": "conf/plane_admin.cc l4/*.cc", "l7": "conf/plane_admin.cc", "dns": "conf/plane_admin.cc", "control": "control/**/*.cc"}
    return any(f'"{rest}"' in sources(pattern) for pattern in where.get(plane, "").split())


def long_lines(texts):
    """Lines of paragraphs that are too long to be read in a terminal. Tables and code have the length that they need."""
    for page, text in texts.items():
        for number, line in enumerate(without_code(text).split("\n"), 1):
            if len(line) > LONGEST and not line.lstrip().startswith(("|", "#")):
                yield f"{page}: line {number} has {len(line)} characters, more than {LONGEST}: '{line[:40]}...'"


def faults():
    texts = {page: text_of(page) for page in PAGES}
    written = {page: text for page, text in texts.items() if page.startswith("docs/") or page == "README.md"}
    by_hand = {page: text for page, text in texts.items() if page not in (*GENERATED, *FROM_CODE)}
    found = [*bad_links(texts), *bad_commands(written), *bad_metrics(written), *long_lines(by_hand)]
    if len(commands()) < 20 or len(api()) < 20:
        found.append("docs/site.py does not find the commands or routes in the sources any more")
    listed = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")}
    return found + [f"{page} is not in the menu of docs/site.py" for page in sorted(listed - set(PAGES))]


# The site -------------------------------------------------------------------------------------------------------------

STYLE = """body{margin:0;font:16px/1.55 system-ui,sans-serif;color:#1b2430;display:flex;background:#fff}
nav{flex:0 0 15rem;padding:1.5rem;background:#f3f5f8;min-height:100vh;box-sizing:border-box}
nav h2{font-size:.8rem;text-transform:uppercase;color:#5b6778;margin:1.2rem 0 .3rem}nav a{display:block;padding:.15rem 0}
main{flex:1;min-width:0;max-width:58rem;padding:1.5rem 2.5rem;box-sizing:border-box}a{color:#0b5cad;text-decoration:none}
a:hover{text-decoration:underline}nav a[aria-current]{font-weight:600;color:#1b2430}
pre{background:#f3f5f8;padding:.8rem;overflow:auto}code{font:.9em ui-monospace,monospace}
table{border-collapse:collapse;display:block;overflow:auto}td,th{border:1px solid #d5dbe3;padding:.3rem .6rem;text-align:left;vertical-align:top}
@media(max-width:50rem){body{display:block}nav{min-height:0}main{padding:1rem}}"""


def title_of(text):
    return re.search(r"^# +(.+)$", text, re.MULTILINE)[1].replace("`", "")


def file_of(page):
    """README.md of a folder is its index."""
    return re.sub(r"README\.html$", "index.html", page.removesuffix(".md") + ".html")


def up(page):
    return "../" * page.count("/")


def menu(current, titles):
    out = []
    for group, pages in MENU.items():
        out.append(f"<h2>{group}</h2>")
        for page in pages:
            mark = ' aria-current="page"' if page == current else ""
            out.append(f'<a href="{up(current)}{file_of(page)}"{mark}>{html.escape(titles[page])}</a>')
    return "\n".join(out)


def page_html(page, text, titles):
    import markdown

    def link(match):
        target, hash_, anchor = match[1].partition("#")
        if re.match(r"\w+:", target) or not target:
            return match[0]
        path = str((ROOT / page).parent.joinpath(target).resolve().relative_to(ROOT))
        return f'href="{up(page)}{file_of(path) if path in titles else path}{hash_}{anchor}"'

    body = markdown.markdown(text, extensions=["tables", "fenced_code", "toc", "sane_lists"], extension_configs={"toc": {"slugify": lambda value, _: slug(value)}})
    body = re.sub(r'href="([^"]*)"', link, body)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">\n'
        f"<title>{html.escape(titles[page])} · Tidegate</title><style>{STYLE}</style>\n"
        f"<body><nav>{menu(page, titles)}</nav><main>{body}</main></body></html>\n"
    )


def write(out):
    texts = {page: text_of(page) for page in PAGES}
    titles = {page: title_of(text) for page, text in texts.items()}
    for page, text in texts.items():
        path = out / file_of(page)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page_html(page, text, titles))
    # Files that a page links to: examples, licence.
    for page, text in texts.items():
        for link in links(text):
            source = (ROOT / page).parent.joinpath(link.partition("#")[0]).resolve()
            if not re.match(r"\w+:", link) and source.is_file() and str(source.relative_to(ROOT)) not in titles:
                copy = out / source.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(source.read_bytes())
    return len(texts)


def bad_site(out):
    """Every link of the written site, by its own anchors."""
    pages = {path.resolve(): path.read_text() for path in out.rglob("*.html")}
    for path, text in pages.items():
        for link in re.findall(r'href="([^"]*)"', text):
            target, _, anchor = link.partition("#")
            file = path.parent.joinpath(target).resolve() if target else path
            if not re.match(r"\w+:", link) and not (file.exists() and (not anchor or f'id="{anchor}"' in pages.get(file, ""))):
                yield f"{path.relative_to(out.resolve())}: the link {link} leads nowhere"


def main(arguments):
    if len(arguments) != 1 or (arguments[0].startswith("-") and arguments[0] != "--check"):
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    found = faults()
    if found:
        sys.exit("\n".join(["the pages have faults:", *found]))
    if arguments[0] == "--check":
        print("ok the pages link and show what exists")
    else:
        out = Path(arguments[0])
        written = write(out)
        if found := list(bad_site(out)):
            sys.exit("\n".join(["the site has faults:", *found]))
        print(f"{written} pages in {out}/index.html")


if __name__ == "__main__":
    main(sys.argv[1:])
