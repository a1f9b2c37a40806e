"""What `oxcart.create` leaves: durable episodes, in the same bytes, by one writer at a time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import oxcart
from killed import WATCH
from oxcart.compile.sources.recordings import writer
from oxcart.manifests.ownership import SOURCE, owners
from oxcart.shards.errors import ConfigError, CorruptError, OxcartError, StoreError
from recorded import ACTION, CAMERAS, STATE, created, episode, record
from sample_compile import one_line, tree

MURDERED = """
import json, os, shutil, sys
from pathlib import Path
import oxcart.compile.sources.recordings.writer
from recorded import created, episode

folder, watch, calls = Path(sys.argv[1]), sys.argv[2], [episode(number) for number in range(3)]
lives = [(at, 0) for at in range(1, 15)] + [(0, size) for size in range(1000, 30000, 4001)]
for at, size in lives:
    got, told = os.pipe()
    child = os.fork()
    if not child:
        os.setsid()
        os.environ |= {"CRASH_OUT": str(folder), "CRASH_AT": str(at), "CRASH_BYTES": str(size)}
        os.environ |= {"CRASH_WHOM": "group", "CRASH_COUNTER": f"{folder}.events"}
        Path(f"{folder}.events").unlink(missing_ok=True)
        exec(watch, {})
        with created(folder) as out:
            for call in calls[len(out):]:
                out.add_episode(**call)
                os.write(told, bytes([len(out)]))
        os._exit(0)
    os.close(told)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with open(got, "rb") as pipe:
        returned = max(pipe.read(), default=0)
    there = os.listdir(folder / "episodes") if (folder / "episodes").is_dir() else []
    print(json.dumps([size, code, returned, sorted(there)]), flush=True)
    if code == 0 and (at, size) != lives[-1]:
        shutil.rmtree(folder)
"""
"""Records three episodes again and again, killed at each change of the folder and at sizes of a file."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "episodes").iterdir())


def refused(folder: Path, **changes: object) -> str:
    with pytest.raises(ConfigError) as caught:
        created(folder, **changes)
    return one_line(caught.value)


@pytest.mark.parametrize("codec", ["zstd", "raw", "jpeg"])
def test_the_same_calls_give_the_same_bytes(codec: str, tmp_path: Path) -> None:
    calls = [episode(number, steps=37) for number in range(3)]
    keys = record(tmp_path / "one" / "mine", calls, codec=codec)
    assert keys == ["mine-000000", "mine-000001", "mine-000002"]
    for call in calls:  # one at a time, from memory that is not contiguous, as lists
        call["frames"] = {name: one[:, :, ::-1][:, :, ::-1] for name, one in call["frames"].items()}
        call["action"] = call["action"].tolist()
        record(tmp_path / "two" / "mine", [call], codec=codec)
    assert tree(tmp_path / "one" / "mine") == tree(tmp_path / "two" / "mine")


def test_a_file_is_a_plain_tar_with_the_members_of_a_compiled_episode(tmp_path: Path) -> None:
    record(tmp_path / "mine", [episode(0)])
    (name,) = names(tmp_path / "mine")
    with tarfile.open(tmp_path / "mine" / "episodes" / name) as tar:
        ends = ["action.npy", "state.npy", "image_0.tzst", "wrist.tzst", "json"]
        assert tar.getnames() == [f"mine-000000.{end}" for end in ends]
        file = tar.extractfile("mine-000000.json")
        assert file is not None
        metadata = json.load(file)
    assert (metadata["environment"], metadata["success"], metadata["steps"]) == ("kitchen 0", True, 5)


def test_a_folder_is_gone_on_with_after_the_episodes_that_are_there(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    assert record(folder, [episode(0), episode(1)]) == ["mine-000000", "mine-000001"]
    (folder / "episodes" / names(folder)[0]).unlink()  # an episode that somebody does not want
    (folder / "episodes" / ".oxcart.0123456789ab.tmp").write_bytes(b"of a writer that was killed")
    with created(folder) as out:
        assert len(out) == 1
        assert out.add_episode(**episode(2)) == "mine-000002"
        assert len(out) == 2
        assert repr(out) == f"<oxcart recordings {str(folder)!r}: 2 episodes>"
    assert [name[:6] for name in names(folder)] == ["000001", "000002"]
    with pytest.raises(ConfigError, match="is closed"):
        out.add_episode(**episode(3))


def test_another_description_is_refused_with_the_difference(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    record(folder, [episode(0)])
    before = tree(folder)
    assert 'was created with codec "zstd", not "raw"; create others' in refused(folder, codec="raw")
    assert 'name "mine", not "other"' in refused(folder, name="other")
    assert 'cameras[1].role "wrist", not "secondary"' in refused(
        folder, cameras={**CAMERAS, "wrist": "secondary"}
    )
    assert 'action[1].name "gripper", not "grip"' in refused(folder, action=[ACTION[0], "grip"])
    assert "control_rate 5, not null" in refused(folder, control_rate=None)
    assert "state" in refused(folder, state=[*STATE, "roll"])
    assert tree(folder) == before
    created(folder, control_rate=5.0).close()


def test_two_writers_at_once_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    with created(folder) as out:
        assert "somebody else is writing to it" in refused(folder)
        code = "import sys, recorded, pathlib; recorded.created(pathlib.Path(sys.argv[1]))"
        path = {"PYTHONPATH": os.path.dirname(sys.modules["recorded"].__file__ or "")}
        other = subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            env=os.environ | path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "ConfigError" in other.stderr.splitlines()[-1]
        assert "somebody else is writing to it" in other.stderr
        out.add_episode(**episode(0))
    with created(folder) as out:
        assert len(out) == 1


@pytest.mark.parametrize("what", ["file", "others", "url", "nothing", "dataset"])
def test_a_place_that_is_none_for_recordings_is_refused(what: str, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    if what == "file":
        folder.write_bytes(b"")
        assert "is a file; expected a directory" in refused(folder)
    elif what == "others":
        folder.mkdir()
        (folder / "recordings.json").write_text("{}")
        assert "holds other files" in refused(folder)
    elif what == "dataset":
        folder.mkdir()
        (folder / "manifest.json").write_text('{\n  "format": "oxcart/2"')
        assert "is inside the dataset" in refused(folder / "mine")
    else:
        with pytest.raises(ConfigError, match="expected a directory on this machine"):
            oxcart.create("s3://bucket/mine" if what == "url" else "", cameras=["a"])


def test_nothing_else_is_written_into_recordings(tmp_path: Path) -> None:
    record(tmp_path / "mine", [episode(0)])
    assert [owner.kind for owner in owners(tmp_path / "mine" / "report.html")] == [SOURCE]


def test_threads_that_add_episodes_get_numbers_of_their_own(tmp_path: Path) -> None:
    calls = [episode(i, steps=300) for i in range(8)]
    with created(tmp_path / "mine") as out, ThreadPoolExecutor(4) as threads:
        keys = list(threads.map(lambda call: out.add_episode(**call), calls))
    assert sorted(keys) == [f"mine-{i:06d}" for i in range(8)]
    assert len(tree(tmp_path / "mine")) == 1 + 8


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"cameras": {}}, "cameras: expected at least one"),
        ({"cameras": {"image 0": None}}, "cameras: expected a name of letters"),
        ({"cameras": {"action": None}}, "is the name of another member"),
        ({"cameras": {"a": "primery"}}, "role of a: expected one of .*did you mean primary"),
        ({"cameras": {"a": "wrist", "b": "wrist"}}, "a role of its own for each"),
        ({"name": "my data"}, "name: expected a name of letters"),
        ({"action": ["dx", "dx"]}, "action: column 'dx' is there twice"),
        ({"action": ["dx", 3]}, "action: expected names or oxcart.Column, got 3"),
        ({"codec": "zst"}, "codec: expected one of .*did you mean zstd"),
        ({"jpeg_quality": 90}, "codec zstd has none"),
        ({"control_rate": 0}, "control_rate: expected steps per second"),
        ({"control_rate": "5"}, "control_rate: expected steps per second, more than 0; got '5'"),
        ({"reward": 1}, "reward: expected True or False"),
        ({"control_rate": True}, "control_rate: expected steps per second, more than 0; got True"),
        ({"licence": "CC BY"}, "licence: expected an SPDX licence expression"),
        ({"licence": 4}, "licence: expected a text such as CC-BY-4.0, got 4"),
        ({"codec": "jpeg", "jpeg_quality": "90"}, "jpeg quality: expected 1 to 100, got '90'"),
        ({"action": 3}, "action: expected names or oxcart.Column, got 3"),
        ({"cameras": 2}, "cameras: expected names that differ, or name -> role; got 2"),
        ({"cameras": [["a"]]}, r"cameras: expected names that differ, or name -> role; got \['a'\]"),
        ({"cameras": ["a", "b", "a"]}, "cameras: expected names that differ, or name -> role; got 'a'"),
    ],
)
def test_impossible_arguments_are_refused_before_a_folder_is_made(
    arguments: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        created(tmp_path / "mine", **arguments)
    one_line(caught.value)
    assert not (tmp_path / "mine").exists()


def test_names_of_cameras_alone_have_no_role(tmp_path: Path) -> None:
    with oxcart.create(tmp_path / "mine", cameras="front") as out:
        assert out.description.cameras == {"front": None}
    with oxcart.create(tmp_path / "two", cameras=["a", "b"]) as out:
        assert out.description.cameras == {"a": None, "b": None}


def test_a_damaged_first_episode_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    record(folder, [episode(0), episode(1)])
    path = folder / "episodes" / names(folder)[0]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptError, match="damaged or cut short; remove it to go on") as caught:
        created(folder)
    assert str(path) in one_line(caught.value)
    path.unlink()
    with created(folder) as out:
        assert len(out) == 1


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine"
    with created(folder) as out:
        out.add_episode(**episode(0))
        before = tree(folder)
        with monkeypatch.context() as full:

            def no_space(*_: object) -> None:
                raise OSError(28, "No space left on device")

            full.setattr(os, "fsync", no_space)
            with pytest.raises(StoreError, match="write: No space left on device") as caught:
                out.add_episode(**episode(1))
        one_line(caught.value)
        assert tree(folder) == before
        assert out.add_episode(**episode(1)) == "mine-000001"


def test_a_kill_at_any_moment_loses_nothing_that_was_returned(tmp_path: Path) -> None:
    folder, whole = tmp_path / "killed" / "mine", tmp_path / "whole" / "mine"
    (tmp_path / "killed").mkdir()
    record(whole, [episode(number) for number in range(3)])
    script = tmp_path / "murdered.py"
    script.write_text(MURDERED)
    path = {"PYTHONPATH": os.path.dirname(sys.modules["recorded"].__file__ or "")}
    done = subprocess.run(
        [sys.executable, str(script), str(folder), WATCH],
        env=os.environ | path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lives = [json.loads(line) for line in done.stdout.splitlines()]
    assert {code for _, code, _, _ in lives} == {0, -signal.SIGKILL}
    assert sum(code == -signal.SIGKILL for _, code, _, _ in lives) > 10
    assert any(code == -signal.SIGKILL and size for size, code, _, _ in lives), "none inside a file"
    for _, _, returned, there in lives:
        finished = [name for name in there if not name.startswith(".")]
        assert finished == names(whole)[: len(finished)]
        assert len(finished) >= returned
    assert names(folder) == names(whole)
    assert tree(folder / "episodes") == tree(whole / "episodes")


def test_an_episode_that_is_interrupted_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with created(folder) as out:
        for where, what in ((os, "replace"), (writer, "sync_folder")):
            with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
                patch.setattr(where, what, interrupt)
                out.add_episode(**episode(1))
            assert names(folder) == []
        assert out.add_episode(**episode(0)) == "mine-000000"


def test_refused_episodes_leave_nothing_and_can_be_corrected(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    with created(folder) as out:
        with pytest.raises(OxcartError):
            out.add_episode(**episode(0, action=np.full((5, 2), np.nan)))
        assert names(folder) == []
        assert len(out) == 0
        assert out.add_episode(**episode(0)) == "mine-000000"
