"""Checkpoints: whole, or not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from isthmus.parties.checkpoint import Checkpoints, read_tensors, write_tensors
from isthmus.parties.errors import InputError
from isthmus.parties.home import PartyHome

ARRAYS = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.array(7, dtype=np.int64)}


def _same(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for name, array in left.items():
        assert (array.dtype, array.shape) == (right[name].dtype, right[name].shape)
        np.testing.assert_array_equal(array, right[name])


def test_arrays_and_meta_come_back(tmp_path: Path) -> None:
    meta = {"job": "a", "epoch": 3, "best": [0.5, None], "ü": {"x": True}}
    write_tensors(tmp_path / "deep" / "er" / "x.safetensors", ARRAYS, meta, party="lab")
    arrays, got = read_tensors(tmp_path / "deep" / "er" / "x.safetensors")
    _same(ARRAYS, arrays)
    assert got == meta
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["x.safetensors"]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text("abcxyz._", min_size=1, max_size=8),
        st.sampled_from(["<f4", "<f8", "<i8", "|u1", "|b1"]).flatmap(
            lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
        ),
        max_size=4,
    )
)
def test_any_arrays_come_back(tmp_path: Path, arrays: dict[str, Any]) -> None:
    write_tensors(tmp_path / "x", arrays, {}, party="lab")
    _same(dict(sorted(arrays.items())), dict(sorted(read_tensors(tmp_path / "x")[0].items())))


def test_an_array_that_does_not_lie_in_one_piece_comes_back(tmp_path: Path) -> None:
    turned = {"a": ARRAYS["weight"].T, "b": ARRAYS["weight"][:, ::-2]}
    write_tensors(tmp_path / "x", turned, {}, party="lab")
    _same(turned, read_tensors(tmp_path / "x")[0])


def test_the_last_two_steps_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "none" / "yet", party="lab")
    assert checkpoints.steps() == []
    for step in (5, 10, 15, 100_000_001):
        checkpoints.save(step, ARRAYS, {"step": step})
        assert checkpoints.load(step)[1] == {"step": step}
    assert checkpoints.steps() == [15, 100_000_001]


def test_steps_above_the_common_one_are_forgotten(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, party="lab")
    checkpoints.save(5, ARRAYS, {})
    checkpoints.save(10, ARRAYS, {})
    checkpoints.drop_after(10)
    assert checkpoints.steps() == [5, 10]
    checkpoints.drop_after(7)
    assert checkpoints.steps() == [5]
    checkpoints.clear()
    assert checkpoints.steps() == []


def test_a_step_that_is_saved_again_replaces_the_first(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, party="lab")
    checkpoints.save(0, ARRAYS, {"try": 1})
    checkpoints.save(0, ARRAYS, {"try": 2})
    assert checkpoints.load(0)[1] == {"try": 2}


def test_what_a_killed_process_left_half_written_is_no_step(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, party="lab")
    (tmp_path / "step-00000007.safetensors.partial").write_bytes(b"half")
    (tmp_path / "step-notes.safetensors").write_bytes(b"")
    assert checkpoints.steps() == []
    checkpoints.save(7, ARRAYS, {})
    assert checkpoints.steps() == [7]
    assert not list(tmp_path.glob("*.partial"))


def test_a_full_disk_leaves_the_old_step_whole_and_no_half_of_the_new(home: PartyHome, with_little_disk: Any) -> None:
    checkpoints = Checkpoints(home.folder / "checkpoints", party="lab")
    checkpoints.save(1, ARRAYS, {"step": 1})
    program = (
        "import numpy as np\n"
        "from isthmus.parties.checkpoint import Checkpoints\n"
        "checkpoints = Checkpoints(Path(sys.argv[1]), party='lab'); big = {'weight': np.zeros(100_000)}\n"
        "fill(50_000); print(code_of(lambda: checkpoints.save(2, big, {})))\n"
        "print(code_of(lambda: checkpoints.save(1, big, {})))"
    )
    assert with_little_disk(program, home.folder / "checkpoints").stdout == "disk.full\ndisk.full\n"
    assert [path.name for path in (home.folder / "checkpoints").iterdir()] == ["step-00000001.safetensors"]
    assert checkpoints.load(1)[1] == {"step": 1}
    _same(ARRAYS, checkpoints.load(1)[0])


def test_a_folder_that_cannot_be_made_is_denied_or_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((InputError, NotADirectoryError, FileExistsError)):
        Checkpoints(tmp_path / "file", party="lab").save(1, ARRAYS, {})
