"""Every wrong input ends with exit status 2, one message that says what, where and what to do, and untouched files.

Each row of the table is one command line through a real front door, and the fragments its message must hold: the value
received, the file, flag or row, and the way out. The fragments are written by hand.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT
from doors import call
from safetensors import safe_open
from safetensors.numpy import save_file

from gru4rec.cli import main as gru4rec_door
from gru4rec.cli import run as run_door

SMALL = "layers=4,n_sample=8,batch_size=4,n_epochs=1"
HEADER = "SessionId\tItemId\tTime\n"
GOOD_ROWS = "1\t101\t5\n1\t102\t6\n2\t101\t7\n2\t103\t8\n"
OLD_BYTES = b"what an earlier run saved"
N_ITEMS = 30


def good_log() -> str:
    """Twenty sessions of four events over thirty items."""
    events = [(session, 100 + (7 * session + 3 * place) % N_ITEMS) for session in range(1, 21) for place in range(4)]
    assert len({item for _, item in events}) == N_ITEMS
    return HEADER + "".join(f"{session}\t{item}\t{time}\n" for time, (session, item) in enumerate(events))


class Lab:
    """A folder with a good log, a model, and an output folder that holds a file of an earlier run."""

    locked: Path
    hidden: Path

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.old = self.out / "old.model"
        self.model = model
        self.out.mkdir()
        self.old.write_bytes(OLD_BYTES)
        self.log = self.file("log.tsv", good_log())

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def tsv(self, rows: str, name: str = "wrong.tsv") -> Path:
        return self.file(name, HEADER + rows)

    def parquet(self, **columns: Any) -> Path:
        good = {"SessionId": [1, 1, 2], "ItemId": [7, 8, 7], "Time": [1, 2, 3]}
        path = self.folder / "wrong.parquet"
        pq.write_table(pa.table(good | columns), path)
        return path

    def parameters(self, text: str | bytes) -> Path:
        return self.file("parameters.py", text)

    def damaged(self, change: Callable[[bytearray], Any]) -> Path:
        content = bytearray(self.model.read_bytes())
        change(content)
        return self.file("damaged.model", bytes(content))

    def pipe(self) -> Path:
        """Make something that is no regular file; never a real device, which a defect would replace for everyone."""
        os.mkfifo(self.out / "pipe")
        return self.out / "pipe"

    def snapshot(self) -> dict[str, tuple[bytes, int]]:
        files = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
        return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    log, model = folder / "log.tsv", folder / "good.model"
    log.write_text(good_log())
    status, _, stderr = call(run_door.main, [log, "-ps", SMALL, "-s", model, "-d", "cpu", "-q"])
    assert (status, stderr) == (0, "")
    return model


@pytest.fixture
def lab(tmp_path: Path, model_file: Path) -> Lab:
    return Lab(tmp_path, model_file)


# --- the table ---


@dataclass(frozen=True)
class Row:
    """A wrong input: its command line, made in a lab, and fragments of the message that it must get."""

    name: str
    argv: Callable[[Lab], Sequence[Any]]
    fragments: tuple[str, ...]
    door: Callable[[Sequence[str]], int] = run_door.main
    by_argparse: bool = False

    @property
    def param(self) -> Any:
        return pytest.param(self, id=self.name)


def train(name: str, data: Callable[[Lab], Path], *fragments: str, flags: Sequence[str] = ()) -> Row:
    """A wrong training log; the run would save over an existing file."""
    return Row(
        name,
        lambda lab: [data(lab), "-ps", SMALL, "-s", lab.old, "-d", "cpu", "-q", *flags],
        fragments,
    )


def test_log(name: str, data: Callable[[Lab], Path], *fragments: str) -> Row:
    """A wrong test log beside a good training log."""
    return Row(
        f"test-{name}",
        lambda lab: [lab.log, "-ps", SMALL, "-s", lab.old, "-d", "cpu", "-q", "-m", "5", "-t", data(lab)],
        fragments,
    )


test_log.__test__ = False  # type: ignore[attr-defined]


def flags(name: str, words: Sequence[Any], *fragments: str, by_argparse: bool = False) -> Row:
    """Wrong flags beside a good log and settings."""
    return Row(
        name,
        lambda lab: [
            lab.log,
            "-ps",
            SMALL,
            "-d",
            "cpu",
            "-q",
            *(word(lab) if callable(word) else word for word in words),
        ],
        fragments,
        by_argparse=by_argparse,
    )


def settings(text: str, *fragments: str, flags: Sequence[str] = ()) -> Row:
    """Wrong settings in -ps, or flags that do not go with them, beside a good log."""
    return Row(
        f"ps-{' '.join([text[:60], *flags])}",
        lambda lab: [lab.log, "-ps", text, "-s", lab.old, "-d", "cpu", "-q", *flags],
        fragments,
    )


def parameter_file(name: str, text: str | bytes, *fragments: str) -> Row:
    """A wrong parameter file beside a good log."""
    return Row(
        f"pf-{name}",
        lambda lab: [lab.log, "-pf", lab.parameters(text), "-s", lab.old, "-d", "cpu", "-q"],
        fragments,
    )


def load(name: str, model: Callable[[Lab], Path], *fragments: str) -> Row:
    """A wrong model file for -l."""
    return Row(
        f"model-{name}",
        lambda lab: [model(lab), "-l", "-t", lab.log, "-s", lab.old, "-d", "cpu", "-q", "-m", "5"],
        fragments,
    )


def command(name: str, argv: Callable[[Lab], Sequence[Any]], *fragments: str, **options: Any) -> Row:
    """A wrong command line of ``gru4rec``."""
    return Row(f"gru4rec-{name}", argv, fragments, door=gru4rec_door.main, **options)


def gzip_of(text: str) -> bytes:
    return gzip.compress(text.encode())


def rewrite_model(lab: Lab, change: Callable[[dict[str, Any], dict[str, np.ndarray]], Any]) -> Path:
    """Write the good model again after a change, with checksums that fit: damage that only a look at it can find."""
    with safe_open(lab.model, framework="numpy") as file:
        content = json.loads(file.metadata()["gru4rec"])
        tensors = {name: file.get_tensor(name).copy() for name in file.keys()}  # noqa: SIM118
    change(content, tensors)
    content["checksums"] = {name: zlib.crc32(np.ascontiguousarray(array).tobytes()) for name, array in tensors.items()}
    content.pop("header_checksum")
    content["header_checksum"] = zlib.crc32(json.dumps(content, sort_keys=True).encode())
    path = lab.folder / "rewritten.model"
    save_file(tensors, path, metadata={"gru4rec": json.dumps(content)})
    return path


def foreign_safetensors(lab: Lab) -> Path:
    save_file({"weight": np.zeros(3, dtype=np.float32)}, lab.folder / "foreign.safetensors")
    return lab.folder / "foreign.safetensors"


def torch_file(lab: Lab) -> Path:
    torch.save({"layers": [100]}, lab.folder / "official.model")
    return lab.folder / "official.model"


def flip(place: int) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        content[place] ^= 1

    return change


def flip_at_text(text: bytes) -> Callable[[bytearray], None]:
    """Flip the last bit of the last byte of a text in the header."""

    def change(content: bytearray) -> None:
        content[content.index(text) + len(text) - 1] ^= 1

    return change


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"SessionId": [1, 1, 2], "ItemId": [7, 8, 7], "Time": [1, 2, 3]} | columns)


LOG_ROWS = [
    train("no-session-column", lambda lab: lab.file("wrong.tsv", "Session\tItemId\tTime\n1\t2\t3\n"),
          "no column 'SessionId' in", "wrong.tsv (it has: Session, ItemId, Time)", "--session_key"),
    train("no-item-column", lambda lab: lab.file("wrong.tsv", "SessionId\titem\tTime\n1\t2\t3\n"),
          "no column 'ItemId' in", "wrong.tsv (it has: SessionId, item, Time)", "--item_key"),
    train("no-time-column", lambda lab: lab.file("wrong.tsv", "SessionId\tItemId\tts\n1\t2\t3\n"),
          "no column 'Time' in", "wrong.tsv (it has: SessionId, ItemId, ts)", "--time_key"),
    train("no-column-of-the-name-given", lambda lab: lab.log, "no column 'sku' in", "log.tsv", "--item_key",
          flags=["-ik", "sku"]),
    train("no-parquet-column", lambda lab: pq.write_table(pa.table({"SessionId": [1], "Time": [1]}),
          lab.folder / "wrong.parquet") or lab.folder / "wrong.parquet", "no column 'ItemId'", "wrong.parquet",
          "--item_key"),
    train("same-column-twice", lambda lab: lab.log, "three columns", "ItemId, ItemId, Time",
          "--session_key, --item_key", flags=["-sk", "ItemId"]),
    train("column-name-twice", lambda lab: lab.file("wrong.tsv", "SessionId\tItemId\tTime\tItemId\n1\t2\t3\t4\n"),
          "'ItemId' stands 2 times", "wrong.tsv", "Keep one"),
    train("empty-file", lambda lab: lab.file("wrong.tsv", ""), "wrong.tsv is empty", "header", "two events"),
    train("blank-lines-only", lambda lab: lab.file("wrong.tsv", "\n\n\n"), "no column 'SessionId'", "wrong.tsv",
          "no columns"),
    train("header-only", lambda lab: lab.tsv(""), "wrong.tsv has no events", "Give a log", "two events"),
    train("header-without-line-end", lambda lab: lab.file("wrong.tsv", HEADER.strip()),
          "wrong.tsv has no events", "Give a log", "two events"),
    train("one-event", lambda lab: lab.tsv("1\t2\t3\n"), "no session of", "wrong.tsv has two events", "longer log"),
    train("sessions-of-one-event", lambda lab: lab.tsv("1\t2\t3\n2\t3\t4\n3\t2\t5\n"),
          "no session of", "wrong.tsv has two events", "longer log"),
    Row("one-session-and-no-samples", lambda lab: [lab.tsv("1\t2\t3\n1\t3\t4\n"), "-ps", "layers=4,n_sample=0", "-q"],
        ("wrong.tsv has one session", "n_sample=0", "Raise n_sample")),
    train("text-time", lambda lab: lab.tsv(GOOD_ROWS + "3\t101\tMonday\n"), "Time is 'Monday'", "row 5 of",
          "must be an integer or float"),
    train("date-time", lambda lab: lab.tsv("1\t101\t2020-01-31T10:00:00\n"), "'2020-01-31T10:00:00'", "row 1",
          "such as seconds"),
    train("python-only-number", lambda lab: lab.tsv(GOOD_ROWS + "3\t101\t1_000\n"), "Time is '1_000'", "row 5",
          "must be an integer"),
    train("hexadecimal-among-floats", lambda lab: lab.tsv("1\t101\t0x10\n1\t102\t1.5\n"), "'0x10'", "row 1",
          "integer or float"),
    train("nan-time", lambda lab: lab.tsv(GOOD_ROWS + "3\t101\tnan\n"), "no finite Time", "nan in row 5",
          "1 of 5 rows", "Drop or fill"),
    train("inf-time", lambda lab: lab.tsv(GOOD_ROWS + "3\t101\tinf\n"), "no finite Time", "inf in row 5",
          "Drop or fill"),
    train("overflowing-time", lambda lab: lab.tsv(GOOD_ROWS + "3\t101\t1e999\n"), "no finite Time",
          "inf in row 5", "Drop or fill"),
    train("empty-time", lambda lab: lab.tsv("1\t101\t\n" + GOOD_ROWS), "no finite Time", "nothing in row 1",
          "1 of 5 rows", "Drop or fill"),
    train("empty-session-id", lambda lab: lab.tsv(GOOD_ROWS + "\t101\t9\n"), "1 of 5 rows",
          "no SessionId (first: row 5)", "Fill or drop"),
    train("empty-item-id", lambda lab: lab.tsv(GOOD_ROWS + "3\t\t9\n3\t\t10\n"), "2 of 6 rows",
          "no ItemId (first: row 5)", "Fill or drop"),
    train("empty-item-id-in-parquet", lambda lab: lab.parquet(ItemId=["a", "", "b"]), "1 of 3 rows",
          "no ItemId (first: row 2)", "Fill"),
    train("null-item-id-in-parquet", lambda lab: lab.parquet(ItemId=[7, None, 8]), "1 of 3 rows",
          "no ItemId (first: row 2)", "Fill"),
    train("commas-in-tsv", lambda lab: lab.file("wrong.tsv", "SessionId,ItemId,Time\n1,2,3\n"),
          "wrong.tsv (it has: SessionId,ItemId,Time)", "with a comma in it",
          ".csv files are read as comma separated"),
    train("tabs-in-csv", lambda lab: lab.file("wrong.csv", HEADER + GOOD_ROWS), "wrong.csv", "with a TAB in it",
          "TAB separated"),
    train("semicolons-in-csv", lambda lab: lab.file("wrong.csv", "SessionId;ItemId;Time\n1;2;3\n"),
          "wrong.csv (it has: SessionId;ItemId;Time)", "with a semicolon in it", "comma separated"),
    train("ragged-row-too-short", lambda lab: lab.tsv(GOOD_ROWS + "3\t101\n"), "2 fields and the header 3",
          "row 5 of", "'3\\t101'", "Mend"),
    train("ragged-row-too-long", lambda lab: lab.tsv(GOOD_ROWS + "3\t101\t9\t9\n"), "4 fields and the header 3",
          "row 5 of", "Mend"),
    train("quote-never-closed", lambda lab: lab.tsv('1\t"101\t5\n1\t102\t6\n2\t10"\t7\n'), "an id in column 'ItemId'",
          "'101\\t5\\n1\\t102\\t6\\n2\\t10'", "Close the quote"),
    train("truncated-gzip", lambda lab: lab.file("wrong.tsv.gz", gzip_of(good_log())[:-20]), "wrong.tsv.gz",
          "damaged gzip", "copy it again"),
    train("flipped-gzip", lambda lab: lab.file("wrong.tsv.gz", gzip_of(good_log())[:-5] + b"xxxxx"),
          "wrong.tsv.gz", "damaged gzip", "again"),
    train("folder", lambda lab: lab.folder, "is a folder", "Give the path of one file"),
    train("missing-file", lambda lab: lab.folder / "nowhere.tsv", "there is no file", "nowhere.tsv",
          "Check the path"),
    train("file-in-a-file", lambda lab: lab.log / "x.tsv", "there is no file", "log.tsv/x.tsv", "Check the path"),
    train("name-too-long", lambda lab: lab.folder / ("x" * 300), "cannot read", "too long"),
    train("binary-file", lambda lab: lab.file("wrong.tsv", bytes(range(256)) * 8), "wrong.tsv is not a text file",
          ".parquet"),
    train("json", lambda lab: lab.file("stats.json", '{\n "SessionId": 1}'), "stats.json is JSON", "gru4rec prepare"),
    train("json-list", lambda lab: lab.file("rows.json", '[ {"SessionId": 1}]'), "rows.json is JSON", "JSON lines"),
    train("binary-after-a-while", lambda lab: lab.tsv(GOOD_ROWS * 30 + "9\t\0\t9\n"),
          "'ItemId'", "wrong.tsv", "'\\x00'"),
    train("header-without-end", lambda lab: lab.file("wrong.tsv", "x" * 200_000), "wrong.tsv has no header",
          "first line"),
    train("not-utf8", lambda lab: lab.file("wrong.tsv", HEADER.encode() + b"1\tcaf\xe9\t3\n1\tb\t4\n"),
          "wrong.tsv is not UTF-8", "Convert"),
    train("not-utf8-after-a-while",
          lambda lab: lab.file("wrong.tsv", (HEADER + GOOD_ROWS * 50_000).encode() + b"1\tcaf\xe9\t3\n"),
          "wrong.tsv is not UTF-8", "Convert"),
    train("utf16", lambda lab: lab.file("wrong.tsv", good_log().encode("utf-16")), "wrong.tsv is not a text file",
          ".tsv"),
    train("pickle", lambda lab: lab.file("wrong.pickle", pickle.dumps(frame())), "wrong.pickle is a pickle",
          "can execute code",
          "--trust-pickle"),
    train("pickle-under-another-name", lambda lab: lab.file("wrong.tsv", pickle.dumps(frame())),
          "wrong.tsv is a pickle", "--trust-pickle"),
    train("broken-pickle", lambda lab: lab.file("wrong.pickle", pickle.dumps(frame())[:-40]),
          "cannot read the pickle", "wrong.pickle",
          ".parquet", flags=["--trust-pickle"]),
    train("pickle-of-no-frame", lambda lab: lab.file("wrong.pickle", pickle.dumps({"SessionId": [1]})),
          "it is a dict", "wrong.pickle",
          "pandas", flags=["--trust-pickle"]),
    train("pickle-of-mixed-ids", lambda lab: lab.file("wrong.pickle", pickle.dumps(frame(ItemId=["a", 1, "b"]))),
          "ItemId",
          "wrong.pickle", "all integers (64 bit) or all text", flags=["--trust-pickle"]),
    train("pickle-of-huge-ids", lambda lab: lab.file("wrong.pickle", pickle.dumps(frame(ItemId=[2**70, 1, 2]))),
          "too large",
          "wrong.pickle", "64 bit", flags=["--trust-pickle"]),
    train("list-ids", lambda lab: lab.parquet(ItemId=[[1], [2], [3]]), "column 'ItemId' of", "holds list",
          "integers or text"),
    train("bool-ids", lambda lab: lab.parquet(ItemId=[True, False, True]), "column 'ItemId' of", "holds bool",
          "integers or text"),
    train("struct-ids", lambda lab: lab.parquet(SessionId=[{"a": 1}] * 3), "column 'SessionId' of",
          "holds struct", "integers or text"),
    train("timestamp-ids", lambda lab: lab.parquet(SessionId=pa.array([1, 2, 3], pa.timestamp("s"))),
          "'SessionId'", "holds timestamp",
          "integers or text"),
    train("fractional-ids", lambda lab: lab.parquet(ItemId=[1.0, 2.5, 3.0]), "'ItemId'", "2.5", "integers or text"),
    train("float-ids-that-lost-digits", lambda lab: lab.parquet(ItemId=[1.0, 2.0**60, 3.0]), "'ItemId'",
          "1152921504606846976",
          "integers or text"),
    train("unsigned-ids-beyond-63-bit", lambda lab: lab.parquet(ItemId=pa.array([2**63, 1, 2], pa.uint64())),
          "'ItemId'",
          "9223372036854775808", "signed 64-bit integers or text"),
    train("bool-times", lambda lab: lab.parquet(Time=[True, False, True]), "column 'Time' of", "holds bool",
          "must be an integer or float"),
    train("list-times", lambda lab: lab.parquet(Time=[[1], [2], [3]]), "column 'Time' of", "holds list",
          "must be an integer or float"),
    train("text-times-in-parquet", lambda lab: lab.parquet(Time=["1", "2", "3"]), "'Time'", "holds string",
          "integer or float"),
    train("times-of-day", lambda lab: lab.parquet(Time=pa.array([1, 2, 3], pa.time32("s"))), "'Time'",
          "holds time32", "integer or float"),
    train("unsigned-times-beyond-63-bit", lambda lab: lab.parquet(Time=pa.array([2**63, 1, 2], pa.uint64())),
          "'Time'",
          "9223372036854775808", "integer or float"),
    train("truncated-parquet", lambda lab: lab.file("wrong.parquet", lab.parquet().read_bytes()[:-30]),
          "cannot read", "wrong.parquet",
          "export it again"),
    test_log("missing", lambda lab: lab.folder / "nowhere.tsv", "there is no file", "nowhere.tsv", "Check the path"),
    test_log("no-known-item", lambda lab: lab.tsv("1\t901\t1\n1\t902\t2\n"), "none of the 2 items of",
          "wrong.tsv", "is in the training log",
             "same item column"),
    test_log("sessions-of-one-event", lambda lab: lab.tsv("1\t101\t1\n2\t102\t2\n"), "no session of",
          "wrong.tsv has two events",
             "longer log"),
    test_log("one-known-event-each", lambda lab: lab.tsv("1\t101\t1\n1\t901\t2\n"), "no session of",
          "wrong.tsv has two events", "longer"),
]  # fmt: skip

SETTING_ROWS = [
    settings("layer=4", "unknown parameter 'layer'", "did you mean 'layers'?", "Choose from layers, loss"),
    settings("lerning_rate=0.1", "'lerning_rate'", "did you mean 'learning_rate'?"),
    settings("self=1", "unknown parameter 'self'",
          "Choose from"),
    settings("loss=bprmax", "unknown loss 'bprmax'", "loss=bprmax", "did you mean 'bpr-max'?"),
    settings("loss=top1", "unknown loss 'top1'", "loss=top1", "Choose 'cross-entropy' or 'bpr-max'"),
    settings("gru_variant=reset_afte", "unknown gru_variant 'reset_afte'", "did you mean 'reset_after'?"),
    settings("layers=0", "layers='0'", "whole numbers >= 1", "200/100"),
    settings("layers=", "cannot read 'layers='", "-ps", "name=value"),
    settings("layers=a/b", "layers='a/b'", "whole numbers >= 1", "200/100"),
    settings("layers=100/", "layers='100/'", "whole numbers >= 1"),
    settings("layers=100.5", "layers='100.5'", "whole numbers >= 1"),
    settings("batch_size=99999999999999999999", "batch_size='99999999999999999999'", "whole number"),
    settings("layers=4", "precision=tf32", "NVIDIA GPUs", "Give precision=bf16", flags=["--precision", "tf32"]),
    settings("layers=4", "precision=bf16", "needs the fast engine", "Give engine=fast",
             flags=["--precision", "bf16", "--engine", "plain"]),
    settings("layers=4", "tables=host is for GPUs", "Leave it out", flags=["--tables", "host"]),
    settings("n_sample=all,logq=1", "logq corrects for sampling", "n_sample=all", "Set logq=0"),
    settings("n_sample=0,batch_size=1", "n_sample=0 with batch_size=1", "no negative", "Raise one"),
    settings("embedding=16", "embedding=16", "constrained_embedding=True", "Set constrained_embedding=False"),
    settings("embedding=layersize", "embedding=layersize", "Set constrained_embedding=False, or embedding=0"),
    settings("embedding=layrsize,constrained_embedding=False", "embedding='layrsize'", "'layersize'"),
    settings("constrained_embedding=maybe", "constrained_embedding='maybe'", "True or False"),
    settings("layers", "cannot read 'layers'", "-ps", "name=value"),
    settings("layers=4,", "cannot read ''", "-ps 'layers=4,'", "name=value"),
    settings("layers=4,layers=8", "'layers' stands twice", "-ps", "Give it once"),
    settings("layers=4,loss=x,momentum=2", "unknown loss 'x'", "momentum='2'", "< 1"),
    *[settings(f"{name}={value}", f"{name}='{value}'", requirement)
      for name, values, requirement in [
          ("batch_size", ["0", "-1", "1.5", "nan", "x"], "a whole number, >= 1"),
          ("n_epochs", ["0", "-3", "0.5", "inf", "x"], "a whole number, >= 1"),
          ("grad_accumulation", ["0", "1.5", "x"], "a whole number, >= 1"),
          ("n_sample", ["-1", "2.5", "nan", "x"], "a whole number >= 0 or 'all'"),
          ("seed", ["-1", "1.5", "9223372036854775808", "x"], "a whole number >= 0, or none"),
          ("dropout_p_embed", ["-0.1", "1", "1.5", "nan", "inf", "x"], "a number, >= 0, < 1"),
          ("dropout_p_hidden", ["-0.1", "1", "nan", "inf", "x"], "a number, >= 0, < 1"),
          ("momentum", ["-0.1", "1", "nan", "inf", "x"], "a number, >= 0, < 1"),
          ("learning_rate", ["0", "-0.1", "nan", "inf", "1e999", "x"], "a number, > 0"),
          ("sample_alpha", ["-0.5", "nan", "inf", "x"], "a number, >= 0"),
          ("bpreg", ["-1", "nan", "inf", "x"], "a number, >= 0"),
          ("elu_param", ["-1", "nan", "inf", "x"], "a number, >= 0"),
          ("logq", ["-1", "nan", "inf", "x"], "a number, >= 0"),
          ("embedding", ["-1", "1.5", "nan"], "a whole number >= 0 or 'layersize'"),
      ] for value in values],
]  # fmt: skip

_PARAMETERS = "gru4rec_params = OrderedDict([('layers', [4])])\n"

PARAMETER_FILE_ROWS = [
    Row("pf-missing", lambda lab: [lab.log, "-pf", lab.folder / "nowhere.py", "-q"],
        ("cannot read parameter file", "nowhere.py", "Check the path given to -pf")),
    Row("pf-folder", lambda lab: [lab.log, "-pf", lab.folder, "-q"],
        ("cannot read parameter file", "Is a directory", "Check the path given to -pf")),
    parameter_file("imports", "import os\n" + _PARAMETERS, "parameters.py", "line 1", "would have to be executed",
          "literal values"),
    parameter_file("statement-after", _PARAMETERS + "gru4rec_params['layers'] = [8]\n", "parameters.py", "line 2",
          "executed", "one assignment"),
    parameter_file("function-call", "gru4rec_params = OrderedDict([('layers', [int('4')])])", "parameters.py",
          "line 1", "never executed",
                   "Write numbers"),
    parameter_file("comprehension", "gru4rec_params = OrderedDict([('layers', [n for n in (4,)])])",
          "parameters.py", "line 1",
                   "never executed", "Write numbers"),
    parameter_file("f-string", "gru4rec_params = OrderedDict([('loss', f'{1}')])", "parameters.py", "line 1",
          "never executed", "texts"),
    parameter_file("name-of-a-variable", "gru4rec_params = OrderedDict([('layers', sizes)])", "parameters.py",
          "line 1", "Write numbers"),
    parameter_file("other-call", "gru4rec_params = make([('layers', [4])])", "parameters.py", "line 1",
          "never executed"),
    parameter_file("other-name", "params = OrderedDict([('layers', [4])])", "parameters.py", "line 1",
          "gru4rec_params = OrderedDict"),
    parameter_file("no-settings", "from collections import OrderedDict\n", "no gru4rec_params", "parameters.py",
          "Add gru4rec_params"),
    parameter_file("no-dictionary", "gru4rec_params = []", "parameters.py", "line 1", "not an OrderedDict"),
    parameter_file("syntax-error", "gru4rec_params = OrderedDict([('layers', [4]", "parameters.py",
          "not a Python file", "paramfiles/"),
    parameter_file("not-utf8", b"gru4rec_params = {'loss': '\xe9'}", "parameters.py", "not a Python file",
          "paramfiles/"),
    parameter_file("name-twice", "gru4rec_params = OrderedDict([('layers', [4]), ('layers', [8])])",
          "parameters.py", "stands twice", "once"),
    parameter_file("name-that-is-no-text", "gru4rec_params = {1: 2}", "parameters.py", "not text",
          "('layers', [100])"),
    parameter_file("unknown-setting", "gru4rec_params = {'layer': [4]}", "unknown parameter 'layer'",
          "did you mean 'layers'?"),
    parameter_file("truth-for-a-number", "gru4rec_params = {'batch_size': True}", "batch_size=True",
          "a whole number"),
    parameter_file("infinite-number", "gru4rec_params = {'learning_rate': 1e999}", "learning_rate=inf",
          "a number, > 0"),
    Row("pf-where-is-the-file", lambda lab: [lab.log, "-pf", lab.parameters("gru4rec_params = {'loss': 'x'}"), "-q"],
        ("unknown loss 'x'", "parameters.py")),
    Row("ps-where-is-the-flag", lambda lab: [lab.log, "-ps", "loss=x", "-q"],
        ("unknown loss 'x'", "in -ps")),
]  # fmt: skip

FLAG_ROWS = [
    Row("no-settings", lambda lab: [lab.log], ("one of the arguments", "-ps/--parameter_string",
          "-pf/--parameter_file"), by_argparse=True),
    Row("two-settings", lambda lab: [lab.log, "-ps", SMALL, "-pf", "x.py"],
        ("-pf/--parameter_file", "not allowed with", "-ps"), by_argparse=True),
    Row("settings-and-model", lambda lab: [lab.model, "-ps", SMALL, "-l"], ("-l/--load_model", "not allowed with",
          "-ps"), by_argparse=True),
    Row("no-log", lambda lab: ["-ps", SMALL], ("required", "PATH"), by_argparse=True),
    flags("unknown-flag", ["--tset", "x"], "unrecognized arguments", "--tset", by_argparse=True),
    Row("absent-device", lambda lab: [lab.log, "-ps", SMALL, "-d", "cuda:9",
          "-q"], ("'cuda:9' is not on this machine", "CUDA devices", "-d cpu")),
    Row("unknown-device", lambda lab: [lab.log, "-ps", SMALL, "-d", "tpu", "-q"], ("unknown device 'tpu'",
          "auto, cpu or cuda:N")),
    Row("second-cpu", lambda lab: [lab.log, "-ps", SMALL, "-d", "cpu:3", "-q"], ("'cpu:3'", "auto, cpu or cuda:N")),
    flags("k-zero", ["-t", lambda lab: lab.log, "-m", "0"], "k=0", "30 items", "from 1 to 30 with -m"),
    flags("k-negative", ["-t", lambda lab: lab.log, "-m", "5", "-3"], "k=-3", "30 items", "from 1 to 30 with -m"),
    flags("k-above-the-items", ["-t", lambda lab: lab.log, "-m", "31"], "k=31", "30 items", "from 1 to 30 with -m"),
    flags("k-no-number", ["-t", lambda lab: lab.log, "-m", "ten"], "-m/--measure", "'ten'", "int", by_argparse=True),
    flags("unknown-ties", ["-e", "pessimistic"], "-e/--eval_type", "'pessimistic'", "conservative", by_argparse=True),
    flags("unknown-primary-metric", ["-pm", "ndcg"], "-pm/--primary_metric", "'ndcg'", "recall", by_argparse=True),
    flags("primary-metric-without-test", ["-lpm"], "-lpm", "none is given", "Add -t TEST"),
    flags("negative-store", ["-ss", "-1"], "sample_store_size=-1", "negative", "Give"),
    flags("store-no-number", ["-ss", "many"], "-ss/--sample_store_size", "'many'", by_argparse=True),
    flags("module-missing", ["-g", "no_such_module"], "no module 'no_such_module'", "-g", "gru4rec_pytorch"),
    flags("module-without-class", ["-g", "json"], "module json", "-g", "no class GRU4Rec that builds on"),
    flags("module-with-suffix", ["-g", "gru4rec_pytorch.py"], "'gru4rec_pytorch.py'", "-g", "without .py"),
    flags("module-as-path", ["-g", "./gru4rec_pytorch.py"], "'./gru4rec_pytorch.py'", "-g", "without .py"),
    flags("module-in-missing-package", ["-g", "no_such_package.model"], "no module 'no_such_package.model'", "-g",
          "gru4rec_pytorch"),
    flags("save-to-missing-folder", ["-s", lambda lab: lab.out / "new" / "x.model"], "cannot save to",
          "out/new/x.model",
          "Make the folder"),
    flags("save-to-folder", ["-s", lambda lab: lab.out], "cannot save to", "it is a folder", "out/model.pt"),
    flags("save-into-file", ["-s", lambda lab: lab.old / "x.model"], "cannot save to", "Not a directory",
          "another path"),
    flags("save-to-long-name", ["-s", lambda lab: lab.out / ("x" * 300)], "cannot save to", "too long",
          "another path"),
    flags("save-to-pipe", ["-s", lambda lab: lab.pipe()], "cannot save to", "out/pipe", "not a regular file",
          "another path"),
    flags("save-over-the-log", ["-s", lambda lab: lab.log], "log.tsv",
          "-s"),
    flags("save-over-the-test-log", ["-t", lambda lab: lab.tsv(GOOD_ROWS), "-m", "5",
          "-s", lambda lab: lab.folder / "wrong.tsv"],
          "wrong.tsv", "-s"),
]  # fmt: skip

MODEL_ROWS = [
    load("missing", lambda lab: lab.folder / "nowhere.model", "no model file", "nowhere.model", "Check the path"),
    load("empty", lambda lab: lab.file("empty.model", b""), "empty.model is empty", "again"),
    load("folder", lambda lab: lab.folder, "is a folder", "Give the path of a model file"),
    load("text", lambda lab: lab.log, "log.tsv is not a model file", "Give a model that gru4rec saved"),
    load("first-byte-flipped", lambda lab: lab.damaged(flip(0)), "damaged.model", "damaged", "again"),
    load("header-brace-flipped", lambda lab: lab.damaged(flip(8)), "damaged.model", "damaged", "gru4rec saved"),
    load("header-setting-flipped", lambda lab: lab.damaged(flip_at_text(b'learning_rate\\": 0.05')),
          "damaged.model is damaged", "header", "again"),
    load("header-status-flipped", lambda lab: lab.damaged(flip_at_text(b"finished")), "damaged.model is damaged",
          "header", "again"),
    load("header-type-flipped",
         lambda lab: lab.damaged(lambda content: content.__setitem__(content.index(b"F32"), ord("I"))),
         "damaged.model is damaged", "int32", "again"),
    load("header-shape-flipped", lambda lab: lab.damaged(flip_at_text(b'"shape":[3')), "damaged.model is damaged",
          "again"),
    load("weights-flipped", lambda lab: lab.damaged(flip(-100)), "damaged.model is damaged", "checksum", "again"),
    load("truncated", lambda lab: lab.damaged(lambda content: content.__delitem__(slice(-50, None))),
          "damaged.model is damaged", "again"),
    load("truncated-in-header", lambda lab: lab.damaged(lambda content: content.__delitem__(slice(200, None))),
          "damaged.model is damaged", "again"),
    load("extra-bytes", lambda lab: lab.damaged(lambda content: content.extend(b"more")),
          "damaged.model is damaged", "again"),
    load("foreign-safetensors", foreign_safetensors, "foreign.safetensors", "another program", "gru4rec saved"),
    load("newer-format", lambda lab: rewrite_model(lab, lambda content, _: content.update(format_version=4)),
          "format version 4",
         "reads up to 3", "pip install -U gru4rec"),
    load("item-too-few",
         lambda lab: rewrite_model(lab, lambda _, tensors: tensors.update({"Wy.weight": tensors["Wy.weight"][:-1]})),
         "Wy.weight has shape (29, 4)", "30 items ask for (30, 4)", "again"),
    load("other-layers",
         lambda lab: rewrite_model(lab, lambda content, _: content["settings"].update(layers=[8])),
         "rewritten.model is damaged", "shape", "again"),
    load("support-too-few",
         lambda lab: rewrite_model(lab, lambda _, tensors: tensors.update(item_support=tensors["item_support"][:-1])),
         "30 items but 29 supports", "again"),
    load("weight-missing", lambda lab: rewrite_model(lab, lambda _, tensors: tensors.pop("By.weight")),
          "By.weight", "None", "again"),
    load("item-twice",
         lambda lab: rewrite_model(lab, lambda _, tensors: tensors["item_ids"].__setitem__(0, tensors["item_ids"][1])),
         "rewritten.model is damaged", "twice", "again"),
    load("setting-out-of-range",
         lambda lab: rewrite_model(lab, lambda content, _: content["settings"].update(momentum=7)),
         "rewritten.model", "momentum=7", "again"),
    load("settings-missing", lambda lab: rewrite_model(lab, lambda content, _: content.pop("settings")),
          "rewritten.model is damaged", "settings"),
    load("official", torch_file, "official.model is a pickle", "can execute code", "gru4rec convert"),
    load("pickle", lambda lab: lab.file("plain.model", pickle.dumps({"layers": [4]})), "plain.model is a pickle",
          "gru4rec convert"),
]  # fmt: skip

COMMAND_ROWS = [
    command("nothing", lambda lab: [], "required", "COMMAND", by_argparse=True),
    command("unknown", lambda lab: ["tarin"], "invalid choice", "'tarin'", "train", by_argparse=True),
    command("recommend-k-zero", lambda lab: ["recommend", lab.model, "101", "-k", "0", "-d", "cpu"], "k=0",
          "30 items", "from 1"),
    command("recommend-k-too-high", lambda lab: ["recommend", lab.model, "101", "-k", "31", "-d", "cpu"], "k=31",
          "30 items", "from 1"),
    command("recommend-missing-model", lambda lab: ["recommend", lab.folder / "nowhere.model",
          "101"], "no model file", "nowhere.model", "Check"),
    command("recommend-two-exclusions", lambda lab: ["recommend", lab.model, "101", "--exclude-seen", "--exclude",
          "1"], "--exclude",
            "not allowed with", by_argparse=True),
    command("recommend-absent-device", lambda lab: ["recommend", lab.model, "101", "-d", "cuda:9"], "'cuda:9'",
          "CUDA devices", "-d cpu"),
    command("evaluate-no-log", lambda lab: ["evaluate", lab.model], "required", "LOG", by_argparse=True),
    command("evaluate-wrong-item-column", lambda lab: ["evaluate", lab.model, lab.log, "-m", "5", "-ik", "Time",
          "-tk", "ItemId", "-q"],
            "none of the 80 items", "log.tsv", "same item column"),
    command("train-wrong-setting", lambda lab: ["train", lab.log, "--loss", "bprmax",
          "-o", lab.old, "-q"], "unknown loss 'bprmax'",
            "did you mean 'bpr-max'?"),
    command("train-wrong-number", lambda lab: ["train", lab.log, "--momentum", "1",
          "-o", lab.old, "-q"], "momentum='1'", "< 1"),
    command("train-unwritable", lambda lab: ["train", lab.log, "--layers", "4",
          "-o", lab.out, "-q"], "cannot save to", "folder", "model.pt"),
    command("convert-log", lambda lab: ["convert", lab.log, lab.old], "log.tsv", "official", "again"),
    command("convert-own-model", lambda lab: ["convert", lab.model, lab.old], "good.model", "official"),
    command("convert-other-torch-file", lambda lab: ["convert", torch_file(lab), lab.old], "official.model",
          "official GRU4Rec"),
    command("convert-missing", lambda lab: ["convert", lab.folder / "nowhere.model", lab.old], "nowhere.model",
          "Check the path"),
    command("convert-folder", lambda lab: ["convert", lab.folder, lab.old], "is a folder", "official"),
    command("convert-to-missing-folder", lambda lab: ["convert", torch_file(lab), lab.out / "new" / "x"],
          "cannot save to", "Make the folder"),
]  # fmt: skip

TABLE = LOG_ROWS + SETTING_ROWS + PARAMETER_FILE_ROWS + FLAG_ROWS + MODEL_ROWS + COMMAND_ROWS


def check_message(row: Row, status: Any, stdout: str, stderr: str) -> None:
    assert status == 2, (status, stdout, stderr)
    assert "Traceback" not in stderr
    assert "Epoch" not in stdout
    lines = stderr.splitlines()
    if row.by_argparse:
        assert lines[0].startswith("usage: ")
        assert [line for line in lines if "error: " in line] == lines[-1:]
    else:
        assert len(lines) == 1, stderr
        assert lines[0].partition(": ")[0] in ("DataError", "ConfigError", "DeviceError", "ModelFileError")
    missing = [fragment for fragment in row.fragments if fragment not in lines[-1]]
    assert not missing, (missing, lines[-1])


@pytest.mark.parametrize("row", [row.param for row in TABLE])
def test_command_wrong_input_says_what_where_and_what_to_do(row: Row, lab: Lab) -> None:
    argv = row.argv(lab)
    before = lab.snapshot()
    status, stdout, stderr = call(row.door, argv)
    assert lab.snapshot() == before
    check_message(row, status, stdout, stderr)


def test_table_has_every_row_once_and_enough_of_them() -> None:
    names = [row.name for row in TABLE]
    assert len(names) >= 45
    assert len(set(names)) == len(names)
    assert all(len(row.fragments) >= 2 for row in TABLE)


# --- the same through real processes ---

PROCESS_ROWS = {
    "run-missing-column": (["run.py"], LOG_ROWS[1]),
    "run-no-settings": (["run.py"], FLAG_ROWS[0]),
    "gru4rec-damaged-model": (
        ["-c", "from gru4rec.cli.main import command; command()"],
        command(
            "damaged-model",
            lambda lab: ["recommend", lab.damaged(flip(-1)), "101"],
            "damaged.model",
            "checksum",
            "again",
        ),
    ),
}


@pytest.mark.parametrize(("program", "row"), PROCESS_ROWS.values(), ids=PROCESS_ROWS.keys())
def test_process_wrong_input_exits_with_2_and_no_traceback(program: list[str], row: Row, lab: Lab) -> None:
    argv = [str(word) for word in row.argv(lab)]
    before = lab.snapshot()
    done = subprocess.run([sys.executable, *program, *argv], cwd=ROOT, capture_output=True, text=True, check=False)
    assert lab.snapshot() == before
    check_message(row, done.returncode, done.stdout, done.stderr)


# Everything is imported before privileges are dropped: the interpreter itself may lie where only root can read.
UNPRIVILEGED = """
import contextlib, io, json, os, sys
from gru4rec.cli import run
import gru4rec_pytorch, gru4rec.cli.pipeline
commands = json.load(sys.stdin)
with contextlib.redirect_stderr(io.StringIO()):
    run.main(commands[0])
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for argv in commands:
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        status = run.main(argv)
    print(json.dumps([status, stdout.getvalue(), stderr.getvalue()]))
"""

PERMISSION_ROWS = [
    Row("plain-error-for-warming-up", lambda lab: [lab.folder / "nowhere.tsv", "-ps", SMALL, "-q"],
        ("nowhere.tsv", "Check the path")),
    Row("log-without-permission", lambda lab: [lab.locked, "-ps", SMALL, "-q"],
        ("no permission to read", "locked.tsv", "Change its mode")),
    Row("model-without-permission", lambda lab: [lab.locked, "-l", "-q"],
        ("cannot read model file", "locked.tsv: Permission denied", "Check its mode")),
    Row("folder-without-permission", lambda lab: [lab.log, "-ps", SMALL, "-s", lab.out / "new.model", "-q"],
        ("cannot save to", "out/new.model: Permission denied", "another path")),
    Row("file-without-permission", lambda lab: [lab.log, "-ps", SMALL, "-s", lab.old, "-q"],
        ("cannot save to", "out/old.model: Permission denied", "another path")),
    Row("hidden-folder", lambda lab: [lab.log, "-ps", SMALL, "-s", lab.hidden / "new.model", "-q"],
        ("cannot save to", "hidden/new.model: Permission denied", "another path")),
    Row("parameter-file-without-permission", lambda lab: [lab.log, "-pf", lab.locked, "-q"],
        ("cannot read parameter file", "locked.tsv: Permission denied", "-pf")),
]  # fmt: skip


class LockedLab(Lab):
    """A lab that another user can enter, with a file and folders that this user cannot use."""

    def __init__(self, folder: Path, model: Path) -> None:
        super().__init__(folder, model)
        self.locked = self.file("locked.tsv", good_log())
        self.hidden = folder / "hidden"
        self.hidden.mkdir()
        folder.chmod(0o755)
        self.locked.chmod(0o000)
        self.out.chmod(0o555)
        self.hidden.chmod(0o000)


def test_process_without_permission_says_what_where_and_what_to_do(model_file: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lab = LockedLab(Path(folder), model_file)
        commands = [[str(word) for word in row.argv(lab)] for row in PERMISSION_ROWS]
        names = sorted(path.name for path in lab.folder.rglob("*")) if os.geteuid() == 0 else []
        done = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED],
            input=json.dumps(commands),
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert sorted(path.name for path in lab.folder.rglob("*")) == names or os.geteuid() != 0
        assert lab.old.read_bytes() == OLD_BYTES
        lab.out.chmod(0o755)
        lab.hidden.chmod(0o755)
    for row, line in zip(PERMISSION_ROWS, done.stdout.splitlines(), strict=True):
        check_message(row, *json.loads(line))


# --- the same commands with right inputs, so that the table does not pass for another reason ---


@pytest.mark.parametrize(
    ("name", "content", "flags"),
    [
        ("plain.tsv", good_log().encode(), []),
        ("packed.tsv.gz", gzip_of(good_log()), []),
        ("plain-text-named.tsv.gz", good_log().encode(), []),
        ("gzip-named.tsv", gzip_of(good_log()), []),
        ("UPPER.CSV", good_log().replace("\t", ",").encode(), []),
        ("trusted.pickle", pickle.dumps(pd.read_csv(io.StringIO(good_log()), sep="\t")), ["--trust-pickle"]),
    ],
)
def test_command_right_log_trains_and_replaces_the_old_file(
    name: str, content: bytes, flags: list[str], lab: Lab
) -> None:
    argv = [lab.file(name, content), "-ps", SMALL, "-s", lab.old, "-t", lab.log, "-m", "5", "-d", "cpu", "-q", *flags]
    status, stdout, stderr = call(run_door.main, argv)
    assert (status, stderr) == (0, "")
    assert "Epoch1" in stdout
    assert "Recall@5" in stdout
    assert [path.name for path in lab.out.iterdir()] == ["old.model"]
    assert lab.old.read_bytes() == lab.model.read_bytes()


def test_command_right_parameter_file_trains(lab: Lab) -> None:
    text = "\ufefffrom collections import OrderedDict\n" + _PARAMETERS.replace(
        "[4]", "[4]), ('n_epochs', 1), ('n_sample', 8"
    )
    status, stdout, _ = call(run_door.main, [lab.log, "-pf", lab.parameters(text), "-q", "-d", "cpu"])
    assert status == 0
    assert "Epoch1" in stdout


def test_rewritten_model_without_change_loads(lab: Lab) -> None:
    model = rewrite_model(lab, lambda content, tensors: None)
    status, stdout, stderr = call(gru4rec_door.main, ["recommend", model, "101", "-k", "3", "-d", "cpu"])
    assert (status, stderr) == (0, "")
    assert len(stdout.splitlines()) == 3
