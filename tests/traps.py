#!/usr/bin/python3
"""Has each trap of a cutover (tests/traps.txt) a test that names it and is run? Then the check breaks
each line once in memory and must see it, for a check that cannot fail proves nothing."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
TRAPS = [f"C{n:02d}" for n in range(1, 15)]
SUITES = ("scripts/test", "scripts/test-long")


def bodies(path, text, part):
    """The part's text with the comment above it (several classes may have one of that name), and how
    often the file speaks of it."""
    if part == "-":
        return [text], 2
    if path.endswith(".c"):
        found = re.finditer(rf"(/\*[^/]*\*/\n)?static [\w *]*\b{part}\([^;{{]*\)\n{{.*?\n}}", text, re.S)
    else:
        found = re.finditer(rf"^([ ]*)def {part}\(.*?(?=^\1(def|class)\b|^\S|\Z)", text, re.S | re.M)
    return [m.group(0) for m in found], len(re.findall(rf"\b{part}\b", text))


def is_run(path, suites):
    """Unit tests are found by glob, plants too, the simulation is a section of its own."""
    return path.startswith(("tests/unit/", "tests/simulation/")) or any(path in s for s in suites)


def wrong(lines, read, suites):
    """What is wrong with the table, as texts."""
    found, seen = [], set()
    for trap, path, part in lines:
        text = read(path)
        if text is None:
            found.append(f"{trap}: {path} is not there")
            continue
        own, mentions = bodies(path, text, part)
        if not own:
            found.append(f"{trap}: {path} has no {part}")
        elif not any(trap in one for one in own):
            found.append(f"{trap}: {part} in {path} does not name it")
        elif mentions < 2:
            found.append(f"{trap}: nothing calls {part} in {path}")
        elif not is_run(path, suites):
            found.append(f"{trap}: no suite runs {path}")
        else:
            seen.add(trap)
    return found + [f"{trap} has no test" for trap in TRAPS if trap not in seen]


def main():
    lines = [tuple(li.split()) for li in (ROOT / "tests" / "traps.txt").read_text().splitlines()
             if li and not li.startswith("#")]
    texts = {path: (ROOT / path).read_text() for _, path, _ in lines if (ROOT / path).exists()}
    suites = [(ROOT / s).read_text() for s in SUITES]
    problems = wrong(lines, texts.get, suites)
    for problem in problems:
        print(f"traps: {problem}")
    if problems:
        return 1
    for trap, path, part in lines:
        def unnamed(p, at=path, name=trap):
            return texts[p].replace(name, "C99") if p == at else texts[p]
        if not wrong(lines, unnamed, suites):
            print(f"traps: {path} without {trap} is not seen")
            return 1
        if part != "-" and not wrong(lines, lambda p, at=path, gone=part: texts[p].replace(gone, "gone")
                                     if p == at else texts[p], suites):
            print(f"traps: {path} without {part} is not seen")
            return 1
    for trap in TRAPS:
        if not wrong([li for li in lines if li[0] != trap], texts.get, suites):
            print(f"traps: the loss of {trap} is not seen")
            return 1
    print(f"{len(TRAPS)} traps, {len(lines)} parts of tests that fall into them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
