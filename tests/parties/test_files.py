"""Files are whole or not there, for whom they are meant, and what a killed process has left goes."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isthmus.parties.errors import InputError
from isthmus.parties.files import PRIVATE, drop_partials, write_once, write_whole

WAYS: list[Callable[..., None]] = [write_whole, write_once]


@pytest.mark.parametrize("write", WAYS)
def test_a_file_is_written_with_its_folder_and_nothing_beside_it(tmp_path: Path, write: Callable[..., None]) -> None:
    path = tmp_path / "deep" / "er" / "file"
    write(path, b"content")
    assert path.read_bytes() == b"content"
    assert list(path.parent.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) & ~0o644 == 0


def test_what_was_there_is_replaced_or_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o666)
    write_once(path, b"new", mode=PRIVATE)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"old", 0o666)
    write_whole(path, b"new", mode=PRIVATE)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o600)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", WAYS)
def test_of_all_who_write_at_once_the_content_of_one_is_there(tmp_path: Path, write: Callable[..., None]) -> None:
    path, contents = tmp_path / "file", [bytes([number]) * 10_000 for number in range(8)]
    threads = [threading.Thread(target=write, args=(path, content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", WAYS)
def test_a_folder_that_is_a_file_is_denied_by_its_name_or_the_partys(
    tmp_path: Path, write: Callable[..., None]
) -> None:
    (tmp_path / "lab").write_text("")
    for more, party in (({}, "lab"), ({"party": "clinic"}, "clinic")):
        with pytest.raises(InputError) as caught:
            write(tmp_path / "lab" / "file", b"", **more)
        assert (caught.value.code, caught.value.facts) == ("disk.denied", {"party": party})


def test_a_full_disk_leaves_the_old_content_and_no_half_of_the_new(tmp_path: Path, with_little_disk: Any) -> None:
    (tmp_path / "file").write_bytes(b"old")
    program = (
        "from isthmus.parties.files import write_whole\n"
        "file = Path(sys.argv[1]) / 'file'; fill(10); print(code_of(lambda: write_whole(file, bytes(100_000))))"
    )
    assert with_little_disk(program, tmp_path).stdout == "disk.full\n"
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_what_killed_processes_left_of_a_file_is_dropped_and_nothing_else(tmp_path: Path) -> None:
    for name in ("a.json", "a.json.partial", "a.json.0123.partial", "b.json.0123.partial"):
        (tmp_path / name).write_text("")
    drop_partials(tmp_path, "a.json", party="lab")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json.0123.partial"]
    drop_partials(tmp_path / "nowhere", "a.json", party="lab")
