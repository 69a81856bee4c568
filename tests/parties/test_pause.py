"""Pause: a file in the home that stops everything, whatever else hangs."""

from __future__ import annotations

import os
import pwd
import stat
import threading
import time
from pathlib import Path

import filelock
import pytest

from isthmus.parties.errors import InputError, PolicyRefusal
from isthmus.parties.home import PartyHome
from isthmus.parties.pause import is_paused, pause, pause_note, refuse_paused, unpause, watch_pause


def test_a_party_is_paused_while_the_file_is_there(home: PartyHome) -> None:
    folder = home.folder
    assert not is_paused(folder)
    refuse_paused(folder, party="lab")
    assert pause(folder, party="lab")
    assert is_paused(folder)
    with pytest.raises(PolicyRefusal) as caught:
        refuse_paused(folder, party="lab")
    assert (caught.value.code, caught.value.exit_code, caught.value.facts) == ("policy.paused", 3, {"party": "lab"})
    assert unpause(folder, party="lab")
    assert not is_paused(folder)
    assert not unpause(folder, party="lab")


def test_the_file_says_when_and_which_user_and_is_the_owners_alone(home: PartyHome) -> None:
    before = os.umask(0)
    try:
        pause(home.folder, party="lab")
    finally:
        os.umask(before)
    path = home.folder / "paused"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    said = pause_note(home.folder)
    assert said.endswith(f"+00:00 by {pwd.getpwuid(os.getuid()).pw_name}")
    assert not pause(home.folder, party="lab")  # a second time keeps the first one's note
    assert pause_note(home.folder) == said


def test_a_party_that_is_not_paused_has_no_note(home: PartyHome) -> None:
    assert pause_note(home.folder) == ""


def test_pausing_waits_for_nobody_who_holds_the_state(home: PartyHome) -> None:
    with filelock.FileLock(home.state_file.with_suffix(".lock")):
        done = threading.Event()

        def stop() -> None:
            pause(home.folder, party="lab")
            done.set()

        threading.Thread(target=stop, daemon=True).start()
        assert done.wait(60)  # while the lock is held
        assert is_paused(home.folder)


def test_a_full_disk_does_not_keep_a_party_from_being_paused(home: PartyHome, with_little_disk: object) -> None:
    program = (
        "from isthmus.parties.pause import is_paused, pause\n"
        "fill(0); print(pause(Path(sys.argv[1]), party='lab'), is_paused(Path(sys.argv[1])))"
    )
    assert with_little_disk(program, home.folder).stdout == "True True\n"  # type: ignore[operator]


def test_where_it_cannot_be_found_out_a_party_counts_as_paused(home: PartyHome) -> None:
    assert is_paused(home.folder / "party.yaml")  # a file is no folder
    (home.folder / "paused").symlink_to("nowhere")
    assert is_paused(home.folder)


def test_a_home_that_is_not_there_cannot_be_paused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as caught:
        pause(tmp_path / "file", party="lab")
    assert caught.value.code == "disk.denied"


def test_a_watch_calls_once_when_the_party_is_paused(home: PartyHome) -> None:
    called: list[bool] = []
    happened = threading.Event()

    def on_pause() -> None:
        called.append(threading.current_thread().daemon)
        happened.set()

    watch_pause(home.folder, on_pause, every_s=0.01)
    assert not happened.wait(0.1)
    pause(home.folder, party="lab")
    assert happened.wait(10)
    time.sleep(0.05)
    assert called == [True]


def test_a_watch_begun_while_the_party_is_paused_calls_at_once_and_an_ended_one_never(home: PartyHome) -> None:
    happened, never = threading.Event(), threading.Event()
    ended = watch_pause(home.folder, never.set, every_s=0.01)
    ended.set()
    time.sleep(0.05)
    pause(home.folder, party="lab")
    watch_pause(home.folder, happened.set, every_s=600)
    assert happened.wait(10)
    assert not never.is_set()
