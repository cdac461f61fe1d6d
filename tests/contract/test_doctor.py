"""``gru4rec doctor`` as a command: exit statuses, output for people and for programs, and the page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import doors
import numpy as np
import pytest
from conftest import ROOT
from unit.doctor.planted import Rows, clean, joined, split

from gru4rec import __version__
from gru4rec.cli.main import main

Write = Callable[..., Path]


def call(*words: Any) -> tuple[int, str, str]:
    """Run the command without its training run; returns exit status, standard output, standard error."""
    return doors.call(main, ["doctor", *words, "--no-timing"])


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(rows: Rows, name: str = "log.tsv", separator: str = "\t") -> Path:
        lines = [separator.join(rows), *(separator.join(map(str, row)) for row in zip(*rows.values(), strict=True))]
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


# --- exit statuses and text


def test_clean_log_says_so_and_passes_strict(write: Write) -> None:
    train, test = split(clean())
    status, stdout, stderr = call(write(train), write(test, "test.tsv"), "--strict")
    assert status == 0
    assert "clean, no error and no warning" in stdout.splitlines()[0]
    assert "WARNING" not in stdout
    assert "events in" in stderr


def test_faulty_log_fails_strict_only(write: Write) -> None:
    log = write(joined(clean(), clean()))
    assert call(log)[0] == 0
    status, stdout, _ = call(log, "--strict", "-q")
    assert status == 1
    assert "clean" not in stdout.splitlines()[0]
    assert stdout.splitlines()[2].startswith("ERROR    duplicated-file: every row stands 2 times")


def test_notes_alone_pass_strict(write: Write) -> None:
    rows = clean()
    rows["ItemId"][0] = 1  # an item of one event
    status, stdout, _ = call(write(rows), "--strict", "-q")
    assert status == 0
    assert "NOTE     rare-items: 1 item of 301" in stdout


def test_gravest_findings_come_first(write: Write) -> None:
    rows = clean()
    rows["ItemId"][rows["Time"] > np.median(rows["Time"])] += 10**8
    rows["ItemId"][0] = 1
    train, test = split(rows)
    stdout = call(write(joined(train, test)), write(test, "test.tsv"), "-q")[1]
    found = re.findall("^(ERROR|WARNING|NOTE)", stdout, flags=re.MULTILINE)
    assert set(found) == {"ERROR", "WARNING", "NOTE"}
    assert found == sorted(found, key=["ERROR", "WARNING", "NOTE"].index)


@pytest.mark.parametrize(
    ("name", "separator", "word"),
    [("log.csv", ";", "semicolon"), ("log.csv", "\t", "TAB"), ("log.tsv", ",", "comma"), ("log.txt", "|", "bar")],
)
def test_wrong_separator_is_named_and_exits_with_2(name: str, separator: str, word: str, write: Write) -> None:
    path = write(clean(), name, separator)
    status, stdout, stderr = call(path)
    assert (status, stdout) == (2, "")
    assert stderr.startswith("DataError: no column")
    assert f"with a {word} in it" in stderr
    assert call(write(clean(), "right.csv", ","))[0] == 0


def test_missing_test_log_exits_with_2(write: Write, tmp_path: Path) -> None:
    status, stdout, stderr = call(write(clean()), tmp_path / "nowhere.tsv")
    assert (status, stdout) == (2, "")
    assert "there is no file" in stderr


@pytest.mark.parametrize(
    ("flags", "fragment"),
    [
        (["-ps", "loss=bprmax"], "did you mean 'bpr-max'?"),
        (["-pf", "nowhere.py"], "cannot read parameter file nowhere.py"),
        (["-ik", "Item"], "Pass --item_key NAME"),
    ],
)
def test_wrong_flags_exit_with_2(flags: list[str], fragment: str, write: Write) -> None:
    status, stdout, stderr = call(write(clean()), *flags)
    assert (status, stdout) == (2, "")
    assert fragment in stderr


def test_settings_decide_the_memory(write: Write) -> None:
    log = write(clean())
    small, large = (
        json.loads(call(log, "--json", "-q", "-ps", f"layers={size}")[1])["numbers"]["cost"]["training_bytes"]
        for size in (10, 1_000)
    )
    # 300 items x 1,001 and 3 x 1,000 x 2,002 numbers, twice, of 4 bytes, are 50 MB
    assert large - small == pytest.approx(50.4e6, rel=0.02)


@pytest.mark.parametrize("fault", ["ISO times", "missing ids", "a folder", "semicolons"])
def test_log_that_cannot_be_read_is_sent_to_prepare(fault: str, write: Write) -> None:
    log = write({"SessionId": np.array([1, 1]), "ItemId": np.array([2, 3]), "Time": np.array([1, 2])})
    text = log.read_text()
    log.write_text(text.replace("\t1\n", "\t2026-01-01T00:00:00Z\n") if fault == "ISO times" else
                   text.replace("1\t2", "\t2") if fault == "missing ids" else text.replace("\t", ";"))  # fmt: skip
    status, stdout, stderr = call(log.parent if fault == "a folder" else log)
    assert (status, stdout) == (2, "")
    assert stderr.startswith("DataError: ")
    assert str(log.parent) in stderr  # what was said before the hint
    assert stderr.endswith(". If this is a raw log, gru4rec prepare reads it, and writes what doctor reads\n")
    assert ".. " not in stderr


def test_help_says_which_logs_are_read() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from gru4rec.cli.main import main; main(['doctor', '--help'])"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert "a log with numeric times, as gru4rec prepare writes it" in " ".join(done.stdout.split())


# --- JSON


def test_json_is_one_object_with_the_findings_of_the_text(write: Write) -> None:
    train, test = split(clean())
    logs = write(joined(train, test, test)), write(test, "test.tsv")
    stdout = call(*logs, "--json", "-q")[1]
    assert len(stdout.splitlines()) == 1
    report = json.loads(stdout, parse_constant=pytest.fail)  # NaN and Infinity are no JSON
    text = " ".join(call(*logs, "-q")[1].split())
    assert report["event"] == "doctor"
    assert report["clean"] is False
    assert (report["log"], report["test"]) == tuple(map(str, logs))
    assert {"shared-sessions", "identical-rows"} <= {finding["name"] for finding in report["findings"]}
    shown = re.findall(r"(ERROR|WARNING|NOTE) ([\w-]+):", text)
    assert shown == [(finding["severity"].upper(), finding["name"]) for finding in report["findings"]]
    assert all(" ".join(finding["message"].split()) in text for finding in report["findings"])


# --- the page


class Loads(HTMLParser):
    """Collects what a browser would fetch, and the text it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action") and not (value or "").startswith("#"):
                self.addresses.append(f"{tag} {name}={value}")
            if name == "id":
                self.ids.append(str(value))

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(*words: Any) -> tuple[str, Loads]:
    page = Path(words[0]).with_name("page.html")
    assert call(*words, "-o", page, "-q")[0] == 0
    loads = Loads()
    loads.feed(page.read_text())
    return page.read_text(), loads


def test_page_loads_nothing_and_shows_every_finding(write: Write) -> None:
    train, test = split(clean())
    log = write(joined(train, test, test))
    html, loads = page_of(log, write(test, "test.tsv"))
    report = json.loads(call(log, log.with_name("test.tsv"), "--json", "-q")[1])
    assert loads.addresses == []
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(loads.tags)
    assert set(re.findall(r"https?://[^\s\"'<)]*", html)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert not re.search(r"@import|url\((?!#)", html)
    assert all(finding["message"][1:] in loads.text for finding in report["findings"])
    assert all(finding["name"] in loads.text for finding in report["findings"])
    assert loads.text.index("shared-sessions") < loads.text.index("Numbers") < loads.text.index("Figures")


def test_page_has_captioned_figures_with_ids_of_their_own(write: Write) -> None:
    _, loads = page_of(write(clean()))
    assert loads.tags.count("svg") == loads.tags.count("figure") == loads.tags.count("figcaption") == 6
    assert len(loads.ids) == len(set(loads.ids))
    for axis in ("time to the next click", "events a day", "sessions with as many"):
        assert axis in loads.text


def test_page_is_headed_by_the_log_its_date_version_and_sizes(write: Write) -> None:
    train, test = split(clean())
    html, loads = page_of(write(train), write(test, "test.tsv"))
    assert "<h1>Log report: log.tsv</h1>" in html
    assert re.search(
        rf"\d{{4}}-\d\d-\d\d \d\d:\d\d UTC · gru4rec {re.escape(__version__)} · log.tsv: 0\.\d\d MB · test.tsv: 0\.\d",
        loads.text,
    )
    assert re.search(r"2026-01-\d\d", loads.text[loads.text.index("Events per day") :])  # the axis has dates


def test_page_of_an_order_only_log_has_no_figures_of_time(write: Write) -> None:
    rows = clean()
    order = np.lexsort((rows["Time"], rows["SessionId"]))
    rows = {name: column[order] for name, column in rows.items()} | {"Time": np.arange(len(order))}
    _, loads = page_of(write(rows))
    assert loads.tags.count("svg") == 4
    assert "events a day" not in loads.text


def test_page_escapes_what_the_log_says(write: Write) -> None:
    rows = clean()
    bot = {"SessionId": np.full(900, "<script>x</script>"), "ItemId": np.resize(rows["ItemId"], 900),
           "Time": rows["Time"][0] + 40 * np.arange(900)}  # fmt: skip
    html, loads = page_of(write(joined(rows | {"SessionId": rows["SessionId"].astype(str)}, bot)))
    assert "&lt;script&gt;" in html
    assert "script" not in loads.tags


def test_page_never_replaces_a_log_that_is_read(write: Write) -> None:
    train, test = (write(rows, name) for rows, name in zip(split(clean()), ("log.tsv", "test.tsv"), strict=True))
    for path in (train, test):
        before = path.read_bytes()
        status, stdout, stderr = call(train, test, "-o", path)
        assert (status, stdout) == (2, "")
        assert "which is read" in stderr
        assert path.read_bytes() == before


def test_page_replaces_only_a_page_of_the_doctor(write: Write) -> None:
    log = write(clean())
    page, other = log.with_name("page.html"), log.with_name("notes.html")
    assert call(log, "-o", page)[0] == call(log, "-o", page)[0] == 0
    other.write_text("<html>my notes</html>")
    status, stdout, stderr = call(log, "-o", other)
    assert (status, stdout) == (2, "")
    assert stderr.startswith(f"ConfigError: {other} is there, and is no page that gru4rec doctor wrote")
    assert other.read_text() == "<html>my notes</html>"


@pytest.mark.parametrize("name", ["model.pt", "page", "page.html.gz"])
def test_page_needs_the_name_of_a_page(name: str, write: Write) -> None:
    log = write(clean())
    status, stdout, stderr = call(log, "-o", log.with_name(name))
    assert (status, stdout) == (2, "")
    assert "needs a name that ends in .html or .htm" in stderr
    assert not log.with_name(name).exists()


@pytest.mark.parametrize("page", ["missing/page.html", "."])
def test_page_that_cannot_be_written_is_refused_before_the_log_is_read(page: str, write: Write) -> None:
    log = write(clean())
    status, stdout, stderr = call(log, "-o", log.parent / page)
    assert (status, stdout) == (2, "")
    assert stderr.startswith("DataError: cannot write")
    assert len(stderr.splitlines()) == 1


def test_page_interrupted_keeps_the_old_one(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    log = write(clean())
    page = log.with_name("page.html")
    assert call(log, "-o", page)[0] == 0
    old = page.read_text()

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    status, _, stderr = call(log, "-o", page)
    assert status == 2
    assert "No space left on device" in stderr
    assert page.read_text() == old
    assert sorted(path.name for path in log.parent.iterdir()) == ["log.tsv", "page.html"]


@pytest.mark.parametrize("library", ["jinja2", "matplotlib"])
def test_page_without_its_libraries_says_what_to_install(
    library: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    log = write(clean())
    status, stdout, stderr = call(log, "-o", log.with_name("page.html"))
    assert (status, stdout) == (2, "")
    assert f"a page needs {library}" in stderr
    assert "pip install 'gru4rec[report]'" in stderr
    assert call(log)[0] == 0  # the text needs neither


def test_import_of_the_command_loads_nothing_heavy() -> None:
    heavy = "('torch', 'pandas', 'pyarrow', 'matplotlib', 'jinja2')"
    code = f"import sys, gru4rec.cli.doctor; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
