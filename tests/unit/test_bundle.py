"""The model file: what goes in comes out, writing is atomic. More damaged files: tests/contract."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from gru4rec.bundle import Bundle, check_writable, load_bundle, save_bundle
from gru4rec.config import hyper_parameters
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.errors import ModelFileError
from gru4rec.model.initial import initialise
from gru4rec.model.network import GRU4RecModel


def make_bundle(items: list, **settings: object) -> Bundle:
    checked = hyper_parameters({"layers": [4], **settings})
    model = GRU4RecModel(len(items), checked)
    initialise(model, seed=1)
    weights = {name: weight.numpy() for name, weight in model.state_dict().items()}
    return Bundle(checked, weights, Vocabulary(items), np.arange(len(items)) * 3, "finished", 2)


@pytest.mark.parametrize(
    "items",
    [[5, -3, 2**62], ["b", "a", "ä", "日本", "07", ""]],
    ids=["integers", "text"],
)
def test_bundle_round_trip_keeps_everything(items: list, tmp_path: Path) -> None:
    saved = make_bundle(items, loss="bpr-max", momentum=0.3, seed=7)
    save_bundle(saved, tmp_path / "model.gru4rec")
    loaded = load_bundle(tmp_path / "model.gru4rec")
    assert loaded.settings == saved.settings
    assert loaded.items.ids_of(range(len(items))) == items
    assert loaded.support.tolist() == [3 * place for place in range(len(items))]
    assert (loaded.status, loaded.n_epochs_done) == ("finished", 2)
    assert loaded.weights.keys() == saved.weights.keys()
    for name, weight in saved.weights.items():
        np.testing.assert_array_equal(loaded.weights[name], weight, strict=True)


def test_saved_file_is_plain_safetensors_with_readable_settings(tmp_path: Path) -> None:
    save_bundle(make_bundle([1, 2]), tmp_path / "m.pt")
    with safe_open(tmp_path / "m.pt", framework="numpy") as file:
        content = json.loads(file.metadata()["gru4rec"])
        assert content["format_version"] == 1
        assert content["settings"]["layers"] == [4]
        assert file.get_tensor("item_ids").tolist() == [1, 2]


def test_save_replaces_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    for n_items in (2, 3):
        save_bundle(make_bundle(list(range(n_items))), tmp_path / "m.pt")
    assert load_bundle(tmp_path / "m.pt").items.n_items == 3
    assert os.listdir(tmp_path) == ["m.pt"]


def test_save_through_a_link_keeps_the_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "current.pt").symlink_to(tmp_path / "real" / "m.pt")
    for n_items in (2, 3):
        save_bundle(make_bundle(list(range(n_items))), tmp_path / "current.pt")
        assert (tmp_path / "current.pt").is_symlink()
        assert load_bundle(tmp_path / "real" / "m.pt").items.n_items == n_items


def test_saved_file_has_the_usual_mode(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    save_bundle(make_bundle([1, 2]), tmp_path / "m.pt")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("m.pt", "plain")]
    assert modes[0] == modes[1]


def test_killed_save_leaves_the_old_file(tmp_path: Path) -> None:
    """A process that is killed while it writes, at a moment when part of the new file is on disk."""
    save_bundle(make_bundle([1, 2]), tmp_path / "m.pt")
    before = (tmp_path / "m.pt").read_bytes()
    script = textwrap.dedent(
        """
        import os, signal, sys
        import gru4rec.bundle as bundle
        sys.path.insert(0, "tests/unit")
        from test_bundle import make_bundle

        def half_a_save(tensors, path, metadata):
            with open(path, "wb") as file:
                file.write(b"x" * 1000)
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)

        bundle.save_file = half_a_save
        bundle.save_bundle(make_bundle(list(range(50))), sys.argv[1])
        """
    )
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "m.pt")], cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "m.pt").read_bytes() == before


def test_failed_save_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_bundle(make_bundle([1, 2]), tmp_path / "m.pt")
    before = (tmp_path / "m.pt").read_bytes()

    def full_disk(tensors: dict, path: Path, metadata: dict) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gru4rec.bundle.save_file", full_disk)
    with pytest.raises(ModelFileError, match=r"cannot save to .*m\.pt: .*No space left on device.* Free some space"):
        save_bundle(make_bundle([1, 2, 3]), tmp_path / "m.pt")
    assert (tmp_path / "m.pt").read_bytes() == before
    assert os.listdir(tmp_path) == ["m.pt"]


def test_check_writable_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "old.pt").write_text("old")
    check_writable(tmp_path / "new.pt")
    check_writable(tmp_path / "old.pt")
    assert os.listdir(tmp_path) == ["old.pt"]
    assert (tmp_path / "old.pt").read_text() == "old"


def test_restored_network_does_not_share_memory_with_the_bundle() -> None:
    bundle = make_bundle([1, 2])
    model = bundle.restore()
    model.Wy.weight.zero_()
    assert bundle.weights["Wy.weight"].any()


def test_load_of_every_single_byte_flip_in_the_header_is_refused_or_harmless(tmp_path: Path) -> None:
    """Whatever byte of the header is wrong, the answer is our error or the very same model."""
    save_bundle(make_bundle([1, 2]), tmp_path / "m.pt")
    good = (tmp_path / "m.pt").read_bytes()
    weight = load_bundle(tmp_path / "m.pt").weights["Wy.weight"]
    n_header = 8 + int.from_bytes(good[:8], "little")
    refused = 0
    for place in range(0, n_header, 7):
        damaged = bytearray(good)
        damaged[place] ^= 0x01
        (tmp_path / "m.pt").write_bytes(damaged)
        try:
            loaded = load_bundle(tmp_path / "m.pt")
        except ModelFileError:
            refused += 1
        else:
            np.testing.assert_array_equal(loaded.weights["Wy.weight"], weight)
    assert refused > n_header / 7 / 2


def test_load_of_a_byte_flip_in_any_tensor_is_refused(tmp_path: Path) -> None:
    save_bundle(make_bundle([1, 2]), tmp_path / "m.pt")
    good = (tmp_path / "m.pt").read_bytes()
    n_header = 8 + int.from_bytes(good[:8], "little")
    for place in range(n_header, len(good), 11):
        damaged = bytearray(good)
        damaged[place] ^= 0x10
        (tmp_path / "m.pt").write_bytes(damaged)
        with pytest.raises(ModelFileError, match="damaged: the checksum of"):
            load_bundle(tmp_path / "m.pt")
