"""The command line of gradcheck: selection, exit statuses, reports, workers, interrupts.

Suites are files in a temporary folder.  What a check would say is said by a check of their own, ``told``, so that none of
this depends on the numbers; the last section has real gradients.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

import gradcheck
from gradcheck.__main__ import main
from gradcheck.cli.report import UsageError
from gradcheck.cli.select import matcher

ROOT = Path(gradcheck.__file__).parents[1]
#: Seconds after which a process that should have ended long ago is taken for hanging.
PATIENCE = 300.0  # of a machine that does much else; only what hangs takes so long

SUITE = """
import os, sys, time
from pathlib import Path
import numpy as np
from gradcheck import Case, Curve, Finding, Result, Verdict
from gradcheck._checks import CHECKS

def told(
    f=None, grad=None, x=None, *args,
    seed=0, verdict="pass", resolution=1e-9, message="wrong by 3 sigma", then=None, result={},
):
    if then:
        then()
    verdict = Verdict(verdict)
    steps = (1e-2, 1e-4, 1e-6, 1e-8)
    curve = Curve("grad[7, 3]", steps, (1e-4, 1e-8, 0.0, float("nan")), (1e-14, 1e-12, 1e-10, 1e-8))
    findings = () if verdict else (Finding("value", verdict, message, 0, 1, (7, 3), 1.0, 2.0, 1e-9, "the sign"),)
    return Result("told", verdict, **{"resolution": resolution, "resolution_entry": 10 * resolution, "evaluations": 100,
        "gradient_evaluations": 3, "findings": findings, "seed": seed, "curve": curve, **result})

CHECKS["told"] = told

def case(name, check="told", labels={}, quick=True, **arguments):
    return Case(name, arguments, check, labels, quick)
"""

MIXED = """
def suite():
    for loss, verdict in (("mse", "pass"), ("bce", "inconclusive"), ("bad", "fail")):
        for dtype in ("float32", "float64"):
            labels = {"loss": loss, "dtype": dtype, "device": "cpu", "derivative": "gradient", "reduction": "mean"}
            yield case(f"{loss} {dtype}", labels=labels, verdict=verdict)
    yield case("mse full", labels={"loss": "mse", "dtype": "float64"}, quick=False)
    yield case("mse cuda", labels={"loss": "mse", "device": "cuda", "skip": "no GPU here"})
"""


@pytest.fixture
def suite(tmp_path):
    """Writes a suite; its target."""

    def write(body: str, name: str = "cases.py") -> str:
        (tmp_path / name).write_text(SUITE + body, encoding="utf-8", errors="surrogatepass")
        return f"{tmp_path / name}:suite"

    return write


@pytest.fixture
def mixed(suite):
    return suite(MIXED)


@pytest.fixture(autouse=True)
def _no_own_check():
    """Suites of tests that run in this process add their check to the table."""
    from gradcheck._checks import CHECKS

    yield
    CHECKS.pop("told", None)


def environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "CI", "PYTHONPATH")}
    return {**kept, "PYTHONPATH": str(ROOT), **variables}


def start(*arguments: object, code: Sequence[str] = ("-m", "gradcheck"), **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *code, *map(str, arguments)], env=environment(**variables), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=heed_interrupts,
    )  # fmt: skip


def heed_interrupts() -> None:
    """As a program does that is started by hand: what a shell starts in the background ignores them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(path: Path) -> None:
    """Until the code under test has made the file, and a little longer, so that it is where it stays."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} is not made"
        time.sleep(0.02)
    time.sleep(0.2)


def names(listing: str) -> list[str]:
    """Names of the cases that --list has printed."""
    return [re.split(" {2,}", line)[1] for line in listing.splitlines()[1:]]


# --- selection -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["mse float32", "mse float64", "bce float32", "bce float64", "bad float32", "bad float64", "mse cuda"]),
        (["--full", "-k", "mse"], ["mse float32", "mse float64", "mse full", "mse cuda"]),
        (["-k", "MSE and not (float32 or cuda)"], ["mse float64"]),
        (["-k", "gradient and bce"], ["bce float32", "bce float64"]),
        (["--loss", "mse,bce", "--dtype", "float32"], ["mse float32", "bce float32"]),
        (["--loss", "mse", "--loss", "bad", "--dtype=float64"], ["mse float64", "bad float64"]),
        (["--device", "cuda"], ["mse cuda"]),
        (["--derivative", "gradient", "--reduction", "mean", "-k", "bad"], ["bad float32", "bad float64"]),
        (["--case", "mse full"], ["mse full"]),
        (["--quick", "--case", "mse cuda", "--case", "mse float32"], ["mse float32", "mse cuda"]),
    ],
)
def test_selection(mixed, capsys, options, expected):
    assert main([mixed, "--list", *options]) == 0
    assert names(capsys.readouterr().out) == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--loss", "mse,nonsense"], "--loss: no case has 'nonsense'; known: bad, bce, mse"),
        (["--device", "tpu"], "known: cpu, cuda"),
        (["--dtype", ","], "--dtype: a value is empty"),
        (["--case", "mse float"], "close: 'mse float"),
        (["-k", "mse and"], "-k: expected a word, 'not' or '(' and found 'the end'"),
        (["-k", "(mse"], "-k: a parenthesis is not closed"),
        (["-k", "mse bce"], "-k: expected 'and', 'or' or the end before 'bce'"),
        (["-k", "(" * 5000], "-k: the expression is nested too deeply"),
        (["-j", "0"], "must be a whole number of at least 1, was '0'"),
        (["--seed", "-1"], "at least 0"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--strict", "--allow-inconclusive"], "not allowed with"),
        (["--json", "/nonexistent/a.json"], "--json: there is no folder '/nonexistent'"),
        (["--html", "/"], "--html: '/' is a folder"),
    ],
)
def test_wrong_usage_is_one_line(mixed, capsys, options, words):
    assert main([mixed, *options]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert words in output.err
    assert output.err.startswith("gradcheck: ")
    assert output.err.count("\n") == 1


def test_unwritable_file_is_told_before_the_run(mixed, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # chmod does not keep root out
    assert main([mixed, "--junit", str(tmp_path / "a.xml")]) == 2
    assert "--junit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("suite = 3", "must be an iterable of cases"),
        ("1 / 0", "ZeroDivisionError"),
        ("sys.exit('no licence')", "no licence"),
        ("def suite(): raise RuntimeError('no\\nluck')", "RuntimeError: no luck"),
        ("def suite(): yield 3", "a case must be"),
        ("def suite(): yield {'name': 3, 'arguments': {}}", "name must be a str"),
        ("def suite(): yield case('twice'); yield case('twice')", "two cases are called 'twice'"),
        ("other = ()", "has no 'suite'"),
    ],
)
def test_broken_suite_is_one_line(suite, capsys, body, words):
    assert main([suite(body)]) == 2
    output = capsys.readouterr()
    assert words in output.err
    assert output.err.count("\n") == 1


@pytest.mark.parametrize("target", ["nonsense", "no_such_module:suite", "no_such_file.py:suite"])
def test_missing_target(capsys, target):
    assert main([target]) == 2
    assert target.rpartition(":")[0] in capsys.readouterr().err


def test_words_fit_as_in_pytest():
    assert matcher("a and b or c")(["C"])
    assert matcher("not a and b")(["b"])
    assert not matcher("not (a or b)")(["xbx"])
    assert matcher("kl_div[mean] or a=1")(["the kl_div[mean] case"])
    assert matcher("")(["anything"])
    assert not matcher("__import__")(["os"])
    with pytest.raises(UsageError, match="and"):
        matcher("and")


def test_selftest_and_version(capsys):
    assert main(["--version"]) == 0
    assert re.match(r"gradcheck \S+", capsys.readouterr().out)
    if not (ROOT / "gradcheck" / "selftest.py").exists():
        assert main(["selftest"]) == 2


# --- exit statuses and text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "status", "meaning"),
    [
        (["-k", "mse"], 0, "PASSED: 2 pass, 1 not run"),
        ([], 1, "FAILED: 2 pass, 2 fail, 2 inconclusive, 1 not run"),
        (["-k", "bce or mse"], 3, "INCONCLUSIVE: 2 pass, 2 inconclusive, 1 not run"),
        (["-k", "bce or mse", "--allow-inconclusive"], 0, "PASSED, INCONCLUSIVE ALLOWED"),
        (["-k", "bce or mse", "--strict"], 1, "FAILED: 2 pass, 2 inconclusive"),
        (["-k", "mse or bad", "-x"], 1, "FAILED: 2 pass, 1 fail, 1 not run, 1 not reached"),
        (["-k", "bce or bad", "-x", "--strict"], 1, "FAILED: 1 inconclusive, 3 not reached"),
        (["--device", "cuda"], 0, "NOTHING WAS RUN: 1 not run"),
    ],
)
def test_status(mixed, capsys, options, status, meaning):
    assert main(["run", mixed, *options]) == status
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(meaning)
    assert last.endswith(f"(seed 0, exit {status})")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-k", "nonsense"], "none of 8 cases is selected"),
        (["-k", "full"], "--full has some"),
    ],
)
def test_nothing_selected(mixed, capsys, arguments, words):
    assert main([mixed, *arguments]) == 4
    assert words in capsys.readouterr().err
    assert main([mixed, *arguments, "--list"]) == 4


def test_no_suite_at_all(monkeypatch, capsys, suite):
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **selection: [])
    assert main([]) == 4
    assert "no suite is installed" in capsys.readouterr().err
    assert main([suite("suite = []")]) == 4
    assert "no cases" in capsys.readouterr().err


def test_text(mixed, capsys):
    main([mixed, "--durations", "2"])
    output = capsys.readouterr().out
    assert "\x1b" not in output
    assert output.startswith("FAIL bad float32: grad[7, 3] analytic")
    assert "  likely: the sign\n" in output
    assert f"  reproduce: python -m gradcheck {mixed} --case 'bad float32' --seed 0\n" in output
    assert output.index("FAIL bad float64 ") < output.index("INCONCLUSIVE bce float32 ")
    rows = [line.split() for line in output.splitlines()]
    assert ["mse", "2", "1", "1.0e-09", "1.0e-08", "206", "0.0"] in rows
    assert ["all", "2", "2", "2", "1", "1.0e-09", "1.0e-08", "618", "0.0"] in rows
    assert "1 not run: no GPU here" in output
    assert output[output.index("slowest") :].splitlines()[1].strip()[-2:] in ("32", "64")


ELSEWHERE = """
here = os.environ.get("TEST_DEVICE")
labels = {"device": "cuda", "environment": "TEST_DEVICE=1 OTHER=2", "note": "in a simulator"}

def suite():
    yield case("mse", labels={"device": "cpu"})
    for k in range(3):
        yield case(f"cuda {k}", labels=labels if here else labels | {"skip": "no GPU; --device cuda simulates one"},
            verdict="pass" if here else "fail")
    yield case("cuda never", labels=labels | {"skip": "nowhere"}, quick=False)
"""


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ([], 0, ["3 not run: no GPU; --device cuda simulates one", "PASSED: 1 pass, 3 not run"]),
        (["-k", "cuda"], 0, ["NOTHING WAS RUN: 3 not run"]),
        (["--device", "cuda"], 0, ["3 run in a simulator", "PASSED: 3 pass"]),
        (["--device", "cuda,cpu", "-j", "2"], 0, ["3 run in a simulator", "PASSED: 4 pass"]),
        (["--case", "cuda 1"], 0, ["1 run in a simulator", "PASSED: 1 pass"]),
        (["--case", "cuda never"], 0, ["1 not run: not even with TEST_DEVICE=1 OTHER=2", "NOTHING WAS RUN"]),
    ],
)
def test_another_environment_where_asked_for(suite, capsys, options, status, words):
    """Cases that need variables which this process has not are run by one that has them, if the device is named."""
    assert main([suite(ELSEWHERE), *options]) == status
    output = capsys.readouterr().out
    assert all(word in output for word in words), output
    assert not {"TEST_DEVICE", "OTHER"} & set(os.environ)


def test_only_the_worst_are_shown_in_full(suite, capsys):
    main([suite("def suite():\n    for i in range(13): yield case(f'c{i}', verdict='fail')")])
    output = capsys.readouterr().out
    assert output.count("reproduce:") == 10
    assert "and 3 more that did not pass" in output


def test_whatever_a_case_raises_is_its_failure(suite, capsys):
    body = """
def broken(rng): raise ValueError("no\\n arguments")
def leaves(): raise SystemExit(7)
def suite():
    yield Case("raises", broken, "told")
    yield case("leaves", then=leaves)
    yield case("fine")
"""
    assert main([suite(body)]) == 1
    output = capsys.readouterr().out
    assert "FAIL raises: error: ValueError: no arguments" in output
    assert "FAIL leaves: error: SystemExit: 7" in output
    assert "1 pass, 2 fail" in output


def test_seed_reaches_the_cases(suite, tmp_path):
    target = suite("def suite():\n    yield Case('c', lambda rng: {'resolution': rng.random()}, 'told')")

    def resolution(*options: str) -> float:
        main([target, *options, "--json", str(tmp_path / "a.json")])
        return json.loads((tmp_path / "a.json").read_text())["cases"][0]["result"]["resolution"]

    assert resolution() == resolution("--seed", "0")
    assert resolution() != resolution("--seed", "1")


def test_without_rich_and_without_terminal(mixed):
    code = "import sys; sys.modules['rich'] = None; from gradcheck.__main__ import main; sys.exit(main())"
    process = start(mixed, code=("-c", code), PYTHONIOENCODING="ascii")
    out, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert errors == ""
    assert out.splitlines()[-1].startswith("FAILED: ")


@pytest.mark.parametrize("rich", [True, False])
@pytest.mark.parametrize("colour", [True, False])
def test_terminal(mixed, rich, colour):
    pty = pytest.importorskip("pty", reason="needs a terminal of Unix")
    if rich:
        pytest.importorskip("rich", reason="the bar is by rich, an extra")
    code = "import sys; from gradcheck.__main__ import main; "
    code += "sys.exit(main())" if rich else "sys.modules['rich'] = None; import importlib.util as u; find = u.find_spec; "
    if not rich:
        code += "u.find_spec = lambda name, *rest: None if name == 'rich' else find(name, *rest); sys.exit(main())"
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code, mixed], stdout=theirs, stderr=theirs,
        env=environment(TERM="xterm", **({} if colour else {"NO_COLOR": "1"})),
    )  # fmt: skip
    os.close(theirs)
    screen = b""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            read = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not read:
            break
        screen += read
    os.close(ours)
    assert process.wait(PATIENCE) == 1
    text = screen.decode()
    assert "FAIL" in text
    assert "FAILED: 2 pass" in text
    assert ("\x1b[1;31mFAIL" in text) is colour
    assert ("left" in text) is rich


def test_broken_pipe_is_quiet(suite):
    body = "def suite():\n    for i in range(400): yield case(f'case {i}', verdict='fail', message='long ' * 200)"
    process = start(suite(body))
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(PATIENCE) == 141
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.read() == ""


@pytest.mark.skipif(os.name != "posix", reason="closes standard output by a shell of Unix")
def test_closed_output(mixed, tmp_path):
    command = f"exec {shlex.quote(sys.executable)} -m gradcheck {shlex.quote(mixed)} --json {tmp_path}/a.json >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], env=environment(), timeout=PATIENCE).returncode == 1
    assert len(json.loads((tmp_path / "a.json").read_text())["cases"]) == 7


def test_what_is_installed():
    path = ROOT / "pyproject.toml"
    if not path.exists():
        pytest.skip("not the source tree")
    project = tomllib.loads(path.read_text())
    folders = {file.parent for file in (ROOT / "gradcheck").rglob("__init__.py")}
    packages = project["tool"]["setuptools"]["packages"]
    assert {".".join(folder.relative_to(ROOT).parts) for folder in folders} <= set(packages)
    assert project["project"]["scripts"]["gradcheck"] == "gradcheck.__main__:main"
    assert project["project"]["entry-points"]["pytest11"]["gradcheck"] == "gradcheck.pytest_plugin"


# --- workers ---------------------------------------------------------------------------------------------------------


def read(path: Path) -> list[dict]:
    """Cases of a report without what takes a different time each run."""
    cases = json.loads(path.read_text())["cases"]
    for case in cases:
        del case["seconds"]
    return cases


def test_workers_report_the_same(mixed, tmp_path, capsys):
    one, two = tmp_path / "1.json", tmp_path / "2.json"
    assert main([mixed, "--full", "--json", str(one)]) == 1
    assert main([mixed, "--full", "--json", str(two), "-j", "2"]) == 1
    assert read(one) == read(two)
    assert len(read(one)) == 8


def test_death_of_a_worker_is_its_case_s_failure(suite, tmp_path):
    body = """
import signal
def orphan():
    if os.fork() == 0:
        time.sleep(2)  # holds the pipe of its parent open
        os._exit(0)
    os._exit(4)
def suite():
    yield case("killed", then=lambda: os.kill(os.getpid(), signal.SIGKILL))
    for i in range(3): yield case(f"fine {i}")
    yield case("exits", then=lambda: os._exit(3))
    yield case("orphan", then=orphan)
    yield case("fine 3")
"""
    process = start(suite(body), "-j", 2, "--json", tmp_path / "a.json", "--junit", tmp_path / "a.xml")
    out, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "Traceback" not in errors
    cases = {case["name"]: case for case in read(tmp_path / "a.json")}
    assert [name for name, case in cases.items() if case["state"] == "pass"] == ["fine 0", "fine 1", "fine 2", "fine 3"]
    messages = {name: case["result"]["findings"][0]["message"] for name, case in cases.items() if case["state"] == "fail"}
    expected = {"killed": "its worker was ended by SIGKILL", "exits": "its worker ended with status 3"}
    assert messages == {**expected, "orphan": "its worker ended with status 4"}
    assert "FAIL killed: worker died: " in out
    assert len(ElementTree.parse(tmp_path / "a.xml").findall(".//error")) == 3


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("if __import__('multiprocessing').parent_process(): sys.exit('not here')", "not here"),
        ("if __import__('multiprocessing').parent_process(): os._exit(3)", "workers end before"),
        ("mine = 'other ' * bool(__import__('multiprocessing').parent_process())", "no case of this name"),
    ],
)
def test_workers_that_cannot_work_end_the_run(suite, capsys, body, words):
    body = f"mine = ''\n{body}\ndef suite():\n    for i in range(9): yield case(mine + str(i))"
    assert main([suite(body), "-j", "2"]) == 1
    output = capsys.readouterr().out
    assert words in output
    assert "9 fail" in output


# --- interrupts ------------------------------------------------------------------------------------------------------

SLOW = """
def suite():
    yield case("a", then=lambda: None)
    for i in range(60): yield case(f"slow {i}", then=lambda: (Path(__file__).with_name("started").touch(), time.sleep(20)))
"""


def group(leader: int) -> list[int]:
    """Living processes of the session that a process leads."""
    members = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == leader and state != "Z":
            members.append(int(folder.name))
    return members


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for leftover processes in /proc")
@pytest.mark.parametrize(
    ("jobs", "number", "whole_group"),
    [(1, signal.SIGINT, False), (2, signal.SIGINT, False), (2, signal.SIGINT, True), (1, signal.SIGTERM, False),
     (2, signal.SIGTERM, False)],
)  # fmt: skip
def test_interrupt(suite, tmp_path, jobs, number, whole_group):
    files = {kind: tmp_path / f"a.{kind}" for kind in ("json", "junit", "html")}
    process = start(suite(SLOW), "-j", jobs, *(f"--{kind}={path}" for kind, path in files.items()))
    wait_for(tmp_path / "started")
    before = time.monotonic()
    (os.killpg if whole_group else os.kill)(process.pid, number)
    out, errors = process.communicate(timeout=PATIENCE)
    assert time.monotonic() - before < 10
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert "interrupted after 1 of 61 cases" in out
    assert out.splitlines()[-1].startswith(("INTERRUPTED: 1 pass, 60 not reached", "TERMINATED: 1 pass, 60 not reached"))
    report = json.loads(files["json"].read_text())
    assert (report["interrupted"], report["status"], len(report["cases"])) == (True, 128 + number, 1)
    assert 'name="interrupted" value="True"' in files["junit"].read_text()
    assert "The run was interrupted" in files["html"].read_text()
    while group(process.pid) and time.monotonic() < before + 10:
        time.sleep(0.02)
    assert group(process.pid) == []


def test_swallowed_interrupt_is_not_lost(suite):
    body = """
def swallow():
    Path(__file__).with_name("started").touch()
    try: time.sleep(20)
    except KeyboardInterrupt: pass
def suite():
    for i in range(9): yield case(str(i), then=swallow)
"""
    target = suite(body)
    process = start(target)
    wait_for(Path(target.rpartition(":")[0]).with_name("started"))
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "interrupted after 1 of 9 cases" in out


def test_interrupt_while_suites_are_imported(suite, tmp_path):
    target = suite("Path(__file__).with_name('started').touch()\ntime.sleep(20)")
    process = start(target)
    wait_for(tmp_path / "started")
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, errors) == (130, "", "")


# --- files -----------------------------------------------------------------------------------------------------------

NASTY = "<&\"\\'\x00\x1b[31m\x85\ud800\U0001f600]]>{x}\n{0}"
NASTY_SUITE = """
nasty = {nasty!r}
def suite():
    for verdict in ("pass", "fail", "inconclusive"):
        labels = {{"loss": nasty, "dtype": verdict, nasty: nasty}}
        finding = Finding(nasty, Verdict(verdict), nasty, hint=nasty)
        result = {{"curve": Curve(nasty, (1.0,), (2.0,), ()), "findings": (finding,) * (verdict != "pass")}}
        yield case(verdict + nasty, verdict=verdict, labels=labels, result=result)
    yield case("skipped" + nasty, labels={{"loss": nasty, "skip": nasty}})
"""


class Page(HTMLParser):
    """Checks that elements are closed, and collects what links and ids there are."""

    OPTIONAL = ("td", "th", "tr")
    VOID = ("meta", "br")

    def __init__(self, text: str):
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[str] = []
        self.links: set[str] = set()
        self.ids: list[str] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in self.VOID + self.OPTIONAL:
            self.stack.append(tag)
        attributes = dict(attrs)
        assert None not in attributes.values()
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links |= {attributes["href"]} if "href" in attributes else set()

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag not in self.OPTIONAL:
            assert self.stack.pop() == tag


def check_junit(path: Path) -> ElementTree.Element:
    root = ElementTree.parse(path).getroot()
    assert root.tag == "testsuites"
    for suite in root:
        tests = suite.findall("testcase")
        assert suite.tag == "testsuite"
        assert suite.get("name")
        assert int(suite.get("tests", "")) == len(tests)
        for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.get(attribute, "")) == len(suite.findall(f"testcase/{tag}"))
        assert float(suite.get("time", "")) >= 0
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp", ""))
        assert all(test.get("name") and test.get("classname") and float(test.get("time", "")) >= 0 for test in tests)
    return root


@pytest.mark.parametrize("strict", [False, True])
def test_nasty_names(suite, tmp_path, capsys, strict):
    target = suite(NASTY_SUITE.format(nasty=NASTY))
    files = {kind: tmp_path / f"a.{kind}" for kind in ("json", "junit", "html")}
    options = [f"--{kind}={path}" for kind, path in files.items()] + ["--strict"] * strict
    assert main([target, *options]) == 1
    output = capsys.readouterr().out
    assert "\x1b" not in output
    assert "\x00" not in output
    report = json.loads(files["json"].read_text())
    assert [case["name"] for case in report["cases"]] == [name + NASTY for name in ("pass", "fail", "inconclusive", "skipped")]
    root = check_junit(files["junit"])
    assert root.get("failures") == ("2" if strict else "1")
    page = files["html"].read_text()
    assert Page(page).tags.count("svg") == 3
    assert "<&" not in page
    assert "\x1b" not in page


def test_json(mixed, tmp_path):
    main([mixed, "--seed", "5", "--json", str(tmp_path / "a.json")])
    report = json.loads((tmp_path / "a.json").read_text())
    assert {"python", "numpy", "scipy", "platform", "cpu", "gradcheck"} == set(report["versions"])
    assert (report["schema"], report["seed"], report["status"], report["interrupted"], report["selected"]) == (
        1,
        5,
        1,
        False,
        7,
    )
    assert report["totals"] == {"pass": 2, "fail": 2, "inconclusive": 2, "not run": 1}
    assert report["arguments"][0] == mixed
    assert report["seconds"] >= 0
    first, *_, last = report["cases"]
    assert first["labels"]["loss"] == "mse"
    assert first["result"]["curve"]["difference"][-1] is None
    assert (last["state"], last["result"], last["labels"]["skip"]) == ("not run", None, "no GPU here")


def test_junit(mixed, tmp_path):
    main([mixed, "--junit", str(tmp_path / "a.xml")])
    root = check_junit(tmp_path / "a.xml")
    counts = {name: root.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "7", "failures": "2", "errors": "0", "skipped": "3"}
    assert {element.get("message", "").partition(":")[0] for element in root.iter("skipped")} == {"inconclusive", "not run"}


def test_html(mixed, tmp_path):
    main([mixed, "--html", str(tmp_path / "a.html")])
    text = (tmp_path / "a.html").read_text()
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert len(page.links) == 7  # 3 losses of 2 dtypes, and the case that is not run
    assert "http" not in text.replace("http-equiv", "")
    assert "1.0e-09" in text
    assert "2 of" not in text.partition("<section>")[0]


@pytest.mark.parametrize("verdict", ["pass", "fail"])
def test_html_stays_small(suite, tmp_path, verdict):
    body = f"""
labels = lambda i: {{"loss": f"loss {{i % 30}}", "dtype": f"float{{i % 4}}", "device": f"{{i % 3}}", "reduction": f"{{i % 5}}"}}
curve = Curve("grad[0]", tuple(10.0 ** -(i / 3) for i in range(60)), (1e-3,) * 60, (1e-4,) * 60)
findings = (Finding("value", Verdict("{verdict}"), "x" * 120, 0, 0, (1, 2), 1.0, 2.0, 1e-9),) * 50 * ("{verdict}" == "fail")
def suite():
    for i in range(3000):
        yield case(f"case of a loss {{i}}", verdict="{verdict}", labels=labels(i), result=dict(curve=curve, findings=findings))
"""
    assert main([suite(body), "--html", str(tmp_path / "a.html")]) == (verdict == "fail")
    assert (tmp_path / "a.html").stat().st_size < 5e6
    assert Page((tmp_path / "a.html").read_text()).tags.count("details") == 3000


def test_a_file_that_cannot_be_written_after_all(mixed, tmp_path, capsys, monkeypatch):
    def fail(self, *rest, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    arguments = [mixed, "-k", "mse", "--json", str(tmp_path / "a.json"), "--html", str(tmp_path / "a.html")]
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.err.count("No space left on device") == 2
    assert "PASSED" in output.out


# --- diff ------------------------------------------------------------------------------------------------------------


def test_diff(suite, tmp_path, capsys):
    before, after = tmp_path / "a.json", tmp_path / "b.json"
    body = """
def suite():
    yield case("same")
    yield case("better", verdict={0!r}, resolution=1e-3)
    yield case("worse", verdict={1!r})
    yield case("coarser", resolution={2})
    yield case("a little coarser", resolution={3})
    yield case("blind", resolution={4})
    yield case("gone {5}")
    yield case("skipped", labels={6})
"""
    main([suite(body.format("fail", "pass", 1e-9, 1e-9, 1e-9, 1, {})), "--json", str(before)])
    other = body.format("pass", "inconclusive", 1e-6, 5e-9, 'float("nan")', 2, {"skip": "no GPU"})
    main([suite(other), "--json", str(after)])
    capsys.readouterr()
    assert main(["diff", str(before), str(before)]) == 0
    assert capsys.readouterr().out == "0 regressions in 8 cases\n"
    assert main(["diff", str(before), str(after)]) == 1
    output = capsys.readouterr().out
    assert "worse: pass -> inconclusive   value: wrong by 3 sigma\n" in output
    assert "\ncoarser: resolution 1.0e-09 -> 1.0e-06, 1e+03 times coarser\n" in output
    assert "\nblind: resolution 1.0e-09 -> -, coarser\n" in output
    assert "a little" not in output
    assert "1 cases only in A" in output
    assert "1 cases run in only one of them" in output
    assert output.endswith("5 regressions in 7 cases\n")  # two of them in both resolutions


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot read"),
        ("{", "is not JSON"),
        ("[]", "no report"),
        ('{"program": "gradcheck", "schema": 99}', "has layout 99"),
    ],
)
def test_diff_of_what_is_no_report(tmp_path, capsys, text, words):
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    assert main(["diff", str(path), str(path)]) == 2
    assert words in capsys.readouterr().err
    assert main(["diff", str(path)]) == 2


# --- needs the engine ------------------------------------------------------------------------------------------------


def engine_is_there() -> bool:
    """Whether `check` is more than the placeholder, which passes everything."""
    import numpy as np

    return not gradcheck.check(lambda x: np.sum(x**2), lambda x: 3 * x, np.array([0.5, -1.5, 2.0]))


def test_real_gradients_pass(suite, capsys):
    body = """
def suite():
    yield Case("sum of squares", lambda rng: dict(f=lambda x: np.sum(x**2), grad=lambda x: 2 * x, x=rng.normal(size=5)))
"""
    assert main([suite(body)]) == 0


def test_wrong_gradients_fail(suite, tmp_path, capsys):
    if not engine_is_there():
        pytest.skip("gradcheck.check is the placeholder that passes everything")
    body = """
import numba  # where it is loaded, gradients are also called with other numbers of threads; here it may be, in workers not

def suite():
    yield Case("twice", lambda rng: dict(f=lambda x: np.sum(x**2), grad=lambda x: 4 * x, x=rng.normal(size=5)))
    yield Case("fine", lambda rng: dict(f=lambda x: np.sum(x**2), grad=lambda x: 2 * x, x=rng.normal(size=5)))
"""
    one, two, page = tmp_path / "1.json", tmp_path / "2.json", tmp_path / "a.html"
    target = suite(body)
    assert main([target, "--json", str(one), "--html", str(page)]) == 1
    assert "1 pass, 1 fail" in capsys.readouterr().out
    assert main([target, "--json", str(two), "-j", "2"]) == 1
    first, second = read(one), read(two)
    for case in first + second:
        case["result"].pop("seconds")
    for one_case, other in zip(first, second, strict=True):
        results = one_case.pop("result"), other.pop("result")
        assert one_case == other
        assert {key: (value, results[1][key]) for key, value in results[0].items() if value != results[1][key]} == {}
    Page(page.read_text())
