#!/usr/bin/python3
"""Who may include whom (design.md §9, docs/architecture.md). Read from the #include lines; then the
test breaks each rule once in memory and must see it, for a test that cannot fail proves nothing."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Folder -> the folders it may include from, besides itself. "engines" is engine.h and what stands
# beside it; a driver's folder is below it and private.
BASE = ("core", "config", "engines")
STAGE = BASE + ("schemas", "journal", "control")
OVER = STAGE + ("snapshot", "capture", "apply")
RUN = OVER + ("verify", "cutover", "observe")
ALLOWED = {
    "core": (),
    "config": ("core",),
    "engines": ("core", "config"),
    "engines/postgres": ("core", "config", "engines"),
    "engines/mysql": ("core", "config", "engines"),
    "engines/scripted": ("core", "config", "engines"),
    "schemas": BASE,
    "schemas/avro": BASE + ("schemas",),
    "journal": BASE,
    "control": BASE + ("journal",),
    "snapshot": STAGE,
    "capture": STAGE + ("schemas/avro",),
    "apply": STAGE + ("schemas/avro",),
    "verify": OVER + ("schemas/avro",),
    "cutover": OVER,
    "observe": OVER,
    "run": RUN,
    "cli": RUN + ("run",),
}
# The one header of a driver that others may name, and who.
DRIVERS = {"engines/postgres/driver.h": ("cli",), "engines/mysql/driver.h": ("cli",)}
# A foreign library's headers -> the one folder that knows it.
LIBRARIES = {
    r"(libpq-fe|libpq/.*|postgres_fe|pg_config.*)\.h": "engines/postgres",
    r"(mysql|mariadb)(/.*)?\.h": "engines/mysql",
    r"avro(/.*)?\.h": "schemas",
    r"(librdkafka/)?rdkafka\.h": "journal",
    r"yaml\.h": "config",
    r"curl/.*\.h": "journal",
    r"microhttpd\.h": "observe",
}
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]', re.M)


def folder_of(path):
    """The most specific folder with a rule: engines/postgres before engines."""
    parts = path.split("/")[:-1]
    for n in range(len(parts), 0, -1):
        name = "/".join(parts[:n])
        if name in ALLOWED:
            return name
    return None


def verdict(path, kind, name):
    """Why this include is not allowed, or None."""
    mine = folder_of(path)
    if kind == "<":
        for pattern, owner in LIBRARIES.items():
            if re.fullmatch(pattern, name) and not (mine + "/").startswith(owner + "/"):
                return f"only {owner} knows {name}"
        return None
    if "/" not in name:
        return f'"{name}" must be named from the root of the tree'
    theirs = folder_of(name)
    if theirs is None:
        return f"{name} is in no folder of the design"
    if theirs == mine or mine in DRIVERS.get(name, ()):
        return None
    if theirs not in ALLOWED[mine]:
        return f"{mine} must not include {theirs}"
    return None


def complaints(files):
    found = []
    for path, text in sorted(files.items()):
        for match in INCLUDE.finditer(text):
            why = verdict(path, *match.groups())
            if why:
                line = text.count("\n", 0, match.start()) + 1
                found.append(f"{path}:{line}: {why}")
    return found


def read_tree():
    files = {}
    for top in sorted({name.split("/")[0] for name in ALLOWED}):
        for path in (ROOT / top).rglob("*.[ch]"):
            name = str(path.relative_to(ROOT))
            if folder_of(name):
                files[name] = path.read_text(errors="replace")
    return files


PLANTS = {
    "core/x.c": '#include "config/config.h"',
    "snapshot/x.c": '#include "capture/capture.h"',
    "apply/x.h": '#  include "snapshot/snapshot.h"',
    "capture/x.c": "#include <libpq-fe.h>",
    "journal/x.c": "#include <avro.h>",
    "cli/x.c": '#include "engines/postgres/conn.h"',
    "run/x.c": '#include "engines/postgres/driver.h"',
    "control/x.c": '#include "run/run.h"',
    "verify/x.c": '#include "driver.h"',
}


def main():
    files = read_tree()
    if len(files) < 20:
        sys.exit(f"layering: only {len(files)} files found: the test looks at the wrong place")
    for path, line in PLANTS.items():
        if len(complaints({path: line + "\n"})) != 1:
            sys.exit(f"layering: the test does not see a planted {line} in {path}")
    found = complaints(files)
    print("\n".join(found))
    print(f"layering: {len(files)} files, {len(found)} wrong includes")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
