#!/usr/bin/env python3
"""Which rules are proven: compares rules.tsv with the tests that name a rule and with the tests that passed.

    check.py RESULT...            results: JUnit files of cargo-nextest, or the saved output of `cargo test`
    check.py --update RESULT...   also sets the status of every rule named by a passing test to `proven`, and of a
                                  `proven` rule without one back to `open`; deviations are never touched
    check.py --list FAMILY        prints what is open in one family, e.g. IM

A test names the rules it proves in its doc comment, on one line: `/// Proves IM-011, IM-012.` A scenario of a runner
`integration/NAME/run` or `scenarios` names them in the comment above its `case("..")`; its results come as a JUnit file, too. Tests of a
kind that did not run at all (no SIPp on this machine) are left out, visibly.

The check fails if a rule marked proven has no passing test that names it, if a test names a rule that does not exist,
or if `Proves` stands on no test function. Columns of rules.tsv: id, level, source, rule, status, note. Status is `proven`,
`deviation: REASON`, `open` or `open: WHY`.
"""

import collections
import pathlib
import re
import sys
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[2]
RULES = ROOT / "tests" / "conformance" / "rules.tsv"
COLUMNS = ["id", "level", "source", "rule", "status", "note"]
FAMILIES = ["IM", "ISC", "UL", "MS", "XD", "SH"]

PROVES = re.compile(r"^\s*(?:///|//!|//|#\[doc = \")\s*Proves\b(.*)$")
RULE_ID = re.compile(r"\b[A-Z]{2,3}-\d{3}\b")
RANGE = re.compile(r"\b([A-Z]{2,3})-(\d{3})\s*(?:…|\.\.\.?|–| to )\s*(?:([A-Z]{2,3})-)?(\d{3})\b")
FUNCTION = re.compile(r"^\s*(?:pub(?:\([^)]*\))?\s+)?(?:async\s+)?fn\s+([A-Za-z_]\w*)")
BETWEEN = re.compile(r"^\s*(?:///|//|#\[|#!\[|\)\]|$)|^\s*[^{}]*\)\]\s*$|^\s+\w[\w:. =\"]*,?\s*$")
MODULE = re.compile(r"^\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+([A-Za-z_]\w*)\s*\{")

Test = collections.namedtuple("Test", "binary module name place")


def read_rules():
    rules = {}
    lines = RULES.read_text(encoding="utf-8").splitlines()
    if lines[0].split("\t") != COLUMNS:
        sys.exit(f"{RULES.name}: the first line must name the columns {', '.join(COLUMNS)}")
    for number, line in enumerate(lines[1:], 2):
        cells = line.split("\t")
        if len(cells) != len(COLUMNS):
            sys.exit(f"{RULES.name}:{number}: {len(cells)} columns instead of {len(COLUMNS)}")
        row = dict(zip(COLUMNS, cells))
        if not RULE_ID.fullmatch(row["id"]) or row["id"] in rules:
            sys.exit(f"{RULES.name}:{number}: {row['id']} is no id or stands there twice")
        if not re.fullmatch(r"proven|open(: \S.*)?|deviation: \S.*", row["status"]):
            sys.exit(f"{RULES.name}:{number}: status {row['status']!r}")
        if len(row["rule"]) > 160:
            sys.exit(f"{RULES.name}:{number}: the rule is longer than a line")
        rules[row["id"]] = row
    return rules


def write_rules(rules):
    lines = ["\t".join(COLUMNS)]
    lines += ["\t".join(row[column] for column in COLUMNS) for row in rules.values()]
    RULES.write_text("\n".join(lines) + "\n", encoding="utf-8")


def named_ids(text):
    """Ids in one `Proves` line; `IM-011…IM-013` and `MS-001 to 003` are ranges."""
    ids = []

    def span(match):
        family, first, other, last = match.groups()
        if other not in (None, family):
            return match.group(0)
        ids.extend(f"{family}-{n:03}" for n in range(int(first), int(last) + 1))
        return " "

    ids.extend(RULE_ID.findall(RANGE.sub(span, text)))
    return ids


def crate_of(path):
    """The directory and name of the package a file belongs to."""
    for directory in path.parents:
        manifest = directory / "Cargo.toml"
        if manifest.is_file():
            name = re.search(r'^name\s*=\s*"([^"]+)"', manifest.read_text(encoding="utf-8"), re.M)
            if name:
                return directory, name.group(1)
    sys.exit(f"{path}: belongs to no crate")


def binary_and_module(path):
    """The test binary nextest runs a file's tests in, and the module path of the file in it."""
    directory, name = crate_of(path)
    parts = list(path.relative_to(directory).with_suffix("").parts)
    if parts[0] == "src":
        inner = parts[1:]
        if inner[:1] == ["main"]:
            return f"{name}::bin/{name}", []
        if inner and inner[-1] in ("mod", "lib"):
            inner = inner[:-1]
        return name, inner
    if parts[0] == "tests" and len(parts) > 1:
        inner = parts[2:]
        if inner and inner[-1] in ("mod", "main"):
            inner = inner[:-1]
        return f"{name}::{parts[1]}", inner
    return name, parts


def rust_files():
    for top in ("src", "tests", "integration"):
        for path in sorted((ROOT / top).rglob("*.rs")):
            if not {"target", "corpus", "artifacts"} & set(path.relative_to(ROOT).parts):
                yield path


def claims(problems):
    """Every `Proves` line with the test function it stands on: {id: [Test]}."""
    found = collections.defaultdict(list)
    for path in rust_files():
        binary, module = binary_and_module(path)
        waiting = []  # (line number, ids) not yet given to a function
        stack = []  # (name, indentation) of the inline modules around the line
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            indentation = len(line) - len(line.lstrip())
            if line.strip() == "}" and stack and indentation == stack[-1][1]:
                stack.pop()
                continue
            inline = MODULE.match(line)
            if inline and not line.rstrip().endswith("}"):
                stack.append((inline.group(1), indentation))
                continue
            proves = PROVES.match(line)
            if proves:
                ids = named_ids(proves.group(1))
                if ids and proves.group(1).rstrip().endswith(","):
                    problems.append(f"{path.relative_to(ROOT)}:{number}: Proves goes on in the next line; give it one line")
                if ids:
                    waiting.append((number, ids))
                continue
            function = FUNCTION.match(line)
            if function and waiting:
                test = Test(binary, module + [name for name, _ in stack], function.group(1), f"{path.relative_to(ROOT)}")
                for at, ids in waiting:
                    for rule in ids:
                        found[rule].append(test._replace(place=f"{test.place}:{at}"))
                waiting = []
            elif waiting and not BETWEEN.match(line):
                for at, ids in waiting:
                    problems.append(f"{path.relative_to(ROOT)}:{at}: Proves {', '.join(ids)} stands on no function")
                waiting = []
        for at, ids in waiting:
            problems.append(f"{path.relative_to(ROOT)}:{at}: Proves {', '.join(ids)} stands on no function")
    return found


def scenario_claims(found, problems):
    """The same for the scenarios of a runner in `integration/NAME`, whose results have NAME as the name of their suite."""
    runners = [*(ROOT / "integration").glob("*/run"), *(ROOT / "integration").glob("*/scenarios")]
    for path in sorted(runners):
        waiting = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            proves = re.match(r"^\s*#\s*Proves\b(.*)$", line)
            scenario = re.match(r"""^\s*@?case\(\s*"([^"]+)\"""", line)
            if proves:
                waiting.append((number, named_ids(proves.group(1))))
            elif scenario:
                for at, ids in waiting:
                    for rule in ids:
                        place = f"{path.relative_to(ROOT)}:{at}"
                        found[rule].append(Test(path.parent.name, [], scenario.group(1), place))
                waiting = []
            elif waiting and line.strip():
                problems.append(f"{path.relative_to(ROOT)}:{number}: Proves stands on no scenario")
                waiting = []


def results(files):
    """Tests that ran: {(binary, full name): passed}."""
    ran = {}
    for file in map(pathlib.Path, files):
        text = file.read_text(encoding="utf-8", errors="replace")
        if file.suffix == ".xml":
            for suite in xml.etree.ElementTree.fromstring(text).iter("testsuite"):
                for case in suite.iter("testcase"):
                    bad = any(case.find(tag) is not None for tag in ("failure", "error", "skipped"))
                    ran[suite.get("name"), case.get("name")] = not bad
            continue
        _, name = crate_of(ROOT / "x")
        binary = name
        for line in text.splitlines():
            started = re.match(r"\s+Running (unittests )?(\S+) \(", line)
            if started:
                path = pathlib.PurePath(started.group(2))
                if not started.group(1):
                    binary = f"{name}::{path.stem if path.stem != 'main' else path.parent.name}"
                else:
                    binary = name if path.stem == "lib" else f"{name}::bin/{name}"
            outcome = re.match(r"test (\S+)(?: - should panic)? \.\.\. (\w+)", line)
            if outcome:
                ran[binary, outcome.group(1)] = outcome.group(2) == "ok"
    return ran


def passed(test, ran):
    """True or False for a test that ran, None for one that did not."""
    exact = "::".join([*test.module, test.name])
    if (test.binary, exact) in ran:
        return ran[test.binary, exact]
    # A file taken in by #[path] or a macro has another module path: the function's name then has to be enough.
    same = [ok for (binary, name), ok in ran.items() if binary == test.binary and name.rsplit("::", 1)[-1] == test.name]
    return all(same) if same else None


def table(rules):
    counts = collections.defaultdict(collections.Counter)
    for row in rules.values():
        counts[row["id"].split("-")[0]][row["status"].split(":")[0]] += 1
    print(f"{'family':8}{'proven':>8}{'deviation':>11}{'open':>6}{'all':>6}")
    for family in [*FAMILIES, "all"]:
        count = counts[family] if family != "all" else sum(counts.values(), collections.Counter())
        print(f"{family:8}{count['proven']:8}{count['deviation']:11}{count['open']:6}{sum(count.values()):6}")


def main(arguments):
    rules = read_rules()
    if arguments[:1] == ["--list"]:
        for row in rules.values():
            if row["id"].startswith(tuple(f"{f}-" for f in arguments[1:])) and row["status"].startswith("open"):
                print(row["id"], row["level"], row["rule"], sep="\t")
        return 0
    update = "--update" in arguments
    files = [argument for argument in arguments if argument != "--update"]
    if not files:
        print(__doc__, file=sys.stderr)
        return 2

    problems = []
    named = claims(problems)
    scenario_claims(named, problems)
    ran = results(files)
    kinds = {binary for binary, _ in ran}
    proven, left_out, excused = {}, set(), set()
    for rule, tests in sorted(named.items()):
        for test in tests:
            if rule not in rules:
                problems.append(f"{test.place}: {test.name} names {rule}, which is no rule")
                continue
            kind = test.binary.split("::")[0]
            if not any(binary.split("::")[0] == kind for binary in kinds):
                left_out.add(kind)
                excused.add(rule)
                continue
            outcome = passed(test, ran)
            if outcome:
                proven[rule] = test
            elif outcome is None:
                problems.append(f"{test.place}: {test.name} names {rule} but did not run")
            else:
                problems.append(f"{test.place}: {test.name} names {rule} and failed")
    for rule, row in rules.items():
        if row["status"].startswith("deviation"):
            continue
        if update:
            if rule in proven:
                row["status"] = "proven"
            elif row["status"] == "proven" and rule not in excused:
                row["status"] = "open"
        elif row["status"] == "proven" and rule not in proven and rule not in excused:
            problems.append(f"{RULES.name}: {rule} is marked proven, but no passing test names it")
    if update:
        write_rules(rules)
    table(rules)
    waiting = [rule for rule in proven if rules[rule]["status"].startswith("open")]
    if waiting:
        print(f"named by passing tests but still marked open (check.py --update): {', '.join(waiting)}")
    for kind in sorted(left_out):
        print(f"skipped: conformance of what {kind} proves (its tests did not run)")
    for problem in problems:
        print(f"conformance: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
