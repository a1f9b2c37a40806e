"""What is pushed to the Hub is the dataset, whole or not at all, and nothing is uploaded twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from hub_server import TOKEN, HubServer, Repository
from oxcart.manifests import push
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.manifest import NAME
from oxcart.manifests.push import PushConfig, Pushed, execute, prepare
from oxcart.manifests.verify import verify
from oxcart.shards.errors import ConfigError, CorruptError, OxcartError, StoreError
from oxcart.train.data import Loader, Pairs
from sample_compile import Compiled, cli, complaint

REPO = "me/kitchens"
URL = f"hf://datasets/{REPO}"


@pytest.fixture
def server(hub_server: HubServer, cloud: pytest.MonkeyPatch) -> HubServer:
    """A Hub that lets this process write."""
    cloud.setenv("HF_TOKEN", TOKEN)
    return hub_server


@pytest.fixture
def few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files per commit, so that there are several."""
    monkeypatch.setattr(push, "FILES", 2)


def pushed(dataset: Path, **options: object) -> Pushed:
    return execute(prepare(PushConfig(dataset=str(dataset), name=REPO, **options)))  # type: ignore[arg-type]


def files_of(directory: Path) -> dict[str, bytes]:
    paths = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


def refusal(call: Callable[[], object], kind: type[OxcartError] = ConfigError) -> str:
    """The message of a refusal, in one line without a secret."""
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert TOKEN not in text
    return text


def check_whole(repository: Repository, dataset: Path, branch: str = "main") -> None:
    """The branch holds the dataset's files and no other of a dataset, and each commit before no manifest."""
    files = dict(repository.commits[repository.branches[branch]])
    assert files.pop(".gitattributes")
    assert b"# oxcart_kitchens" in files.pop("README.md")
    assert files == files_of(dataset)


def test_a_pushed_dataset_is_the_dataset(server: HubServer, six_episodes: Compiled) -> None:
    made = pushed(six_episodes.out)
    assert made.url == f"{URL}@{server.repositories[REPO].branches['main']}"
    assert made.fingerprint == six_episodes.manifest.fingerprint
    check_whole(server.repositories[REPO], six_episodes.out)
    read = Dataset.open(URL)
    assert read.manifest == six_episodes.manifest
    assert verify(read) == []
    remote, local = (
        Loader(place, "train", sample=Pairs(frames=1), batch_size=4)
        for place in (read, str(six_episodes.out))
    )
    for one, other in zip(islice(remote, 3), islice(local, 3), strict=True):
        np.testing.assert_array_equal(one.frames, other.frames)
        np.testing.assert_array_equal(one.action, other.action)


@pytest.mark.usefixtures("few_files")
def test_the_manifest_comes_last(server: HubServer, six_episodes: Compiled) -> None:
    pushed(six_episodes.out)
    repository = server.repositories[REPO]
    *earlier, last = list(repository.commits.values())
    assert len(earlier) > 3
    assert not any(NAME in files or "README.md" in files for files in earlier)
    assert set(last) - set(earlier[-1]) == {NAME, "README.md"}


def test_a_second_push_writes_nothing(server: HubServer, six_episodes: Compiled) -> None:
    first = pushed(six_episodes.out)
    server.faults.clear()
    again = pushed(six_episodes.out)
    assert (again.url, again.uploaded, again.bytes) == (first.url, 0, 0)
    assert {method for method, _ in server.faults.requests} == {"GET"}


def test_a_killed_push_resumes(server: HubServer, six_episodes: Compiled) -> None:
    server.cdn_faults.add("", times=4, method="PUT")
    server.cdn_faults.add("stall", method="PUT")
    code = (
        "from oxcart.manifests import push; push.FILES = 3; push.THREADS = 1; push.GROUP_BYTES = 1; "
        f"push.execute(push.prepare(push.PushConfig(dataset={str(six_episodes.out)!r}, name={REPO!r})))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "HF_HUB_DISABLE_XET": "1"})
    assert server.cdn_faults.stalled.wait(60)
    process.kill()
    process.wait()
    repository = server.repositories[REPO]
    assert len(repository.history) == 2
    assert refusal(lambda: Dataset.open(URL)).endswith("compile a source into it first")
    assert len(server.uploads) == 4
    done: list[tuple[int, int]] = []
    prepared = prepare(PushConfig(dataset=str(six_episodes.out), name=REPO))
    execute(prepared, lambda now, size: done.append((now, size)))
    check_whole(repository, six_episodes.out)
    assert set(Counter(server.uploads).values()) == {1}
    assert prepared.bytes_there > 0
    whole = sum(len(data) for name, data in files_of(six_episodes.out).items() if name != NAME)
    assert done[-1] == (whole, whole - prepared.bytes_there)


def test_another_dataset_is_replaced_only_on_demand(
    server: HubServer, six_episodes: Compiled, whole: Compiled
) -> None:
    pushed(six_episodes.out)
    repository = server.repositories[REPO]
    before = repository.branches["main"]
    assert refusal(lambda: pushed(whole.out)) == (
        f"{URL}: holds the dataset {six_episodes.manifest.fingerprint[:12]}, which is not of {whole.out} "
        f"({whole.manifest.fingerprint[:12]}); --overwrite replaces it, or choose another repository"
    )
    assert repository.branches["main"] == before
    repository.commit({**repository.files, "notes.txt": b"mine"})
    commits = len(repository.history)
    pushed(whole.out, overwrite=True)
    assert repository.files["notes.txt"] == b"mine"
    between, last = list(repository.commits.values())[commits:]
    assert NAME not in between
    assert "shards/train-00001.tar" not in last or "shards/train-00001.tar" in files_of(whole.out)
    repository.commit({name: data for name, data in last.items() if name != "notes.txt"})
    check_whole(repository, whole.out)


def test_files_without_a_manifest_are_of_another_dataset_unless_they_are_the_same(
    server: HubServer, six_episodes: Compiled
) -> None:
    repository = server.repository(REPO)
    repository.commit({**repository.files, "shards/val-00000.tar": b"x", "README.md": b"# my card"})
    assert "holds shards/val-00000.tar, which is not of" in refusal(lambda: pushed(six_episodes.out))
    shard = (six_episodes.out / "shards" / "val-00000.tar").read_bytes()
    repository.commit({**repository.files, "shards/val-00000.tar": shard})
    pushed(six_episodes.out)
    check_whole(repository, six_episodes.out)
    assert len(server.uploads) == len(set(server.uploads))


def test_a_card_that_was_edited_is_kept(server: HubServer, six_episodes: Compiled) -> None:
    pushed(six_episodes.out)
    repository = server.repositories[REPO]
    repository.commit({**repository.files, "README.md": b"# mine"})
    assert pushed(six_episodes.out).uploaded == 0
    assert repository.files["README.md"] == b"# mine"
    assert pushed(six_episodes.out, overwrite=True).uploaded == 1
    check_whole(repository, six_episodes.out)


def test_a_branch_is_made_and_read(server: HubServer, six_episodes: Compiled) -> None:
    pushed(six_episodes.out, branch="v2", private=True)
    repository = server.repositories[REPO]
    assert repository.private
    assert set(repository.files) == {".gitattributes"}
    check_whole(repository, six_episodes.out, "v2")
    assert (
        b'Loader("hf://datasets/me/kitchens@v2"' in repository.commits[repository.branches["v2"]]["README.md"]
    )
    assert Dataset.open(f"{URL}@v2").manifest == six_episodes.manifest


class TestFailures:
    def test_a_commit_is_tried_again_and_made_once(
        self, server: HubServer, six_episodes: Compiled, waits: list[float]
    ) -> None:
        server.faults.add("503", method="POST", name="/commit/")
        server.faults.add("lost", method="POST", name="/commit/")
        pushed(six_episodes.out)
        assert len(waits) == 2
        repository = server.repositories[REPO]
        assert len(repository.history) == 3
        check_whole(repository, six_episodes.out)

    def test_a_branch_that_changes_meanwhile_is_said(self, server: HubServer, six_episodes: Compiled) -> None:
        repository = server.repository(REPO)
        prepared = prepare(PushConfig(dataset=str(six_episodes.out), name=REPO))
        repository.commit({"other": b""})
        assert refusal(lambda: execute(prepared), StoreError) == (
            f"{URL}: commit: the branch has changed meanwhile (HTTP 412 Precondition Failed); "
            "run the command again"
        )
        assert repository.files == {"other": b""}
        execute(prepare(prepared.config))
        assert NAME in repository.files

    def test_an_upload_that_is_refused_is_one_line(self, server: HubServer, six_episodes: Compiled) -> None:
        server.cdn_faults.add("403", times=99, method="PUT")
        said = refusal(lambda: pushed(six_episodes.out), StoreError)
        assert said.startswith(f"{URL}: upload: access denied (HTTP 403 Forbidden)")
        assert "signature" not in said

    def test_the_hubs_own_words_are_said(self, server: HubServer, six_episodes: Compiled) -> None:
        server.faults.add("403", method="POST", name="/commit/", X_Error_Message="Your quota is used up.")
        said = refusal(lambda: pushed(six_episodes.out), StoreError)
        assert said == (
            f"{URL}: commit: access denied (HTTP 403 Forbidden: Your quota is used up.); "
            "check the name, and that the token has the right to it"
        )

    def test_a_token_is_needed(
        self, hub_server: HubServer, cloud: pytest.MonkeyPatch, six_episodes: Compiled
    ) -> None:
        assert refusal(lambda: pushed(six_episodes.out)) == (
            f"{URL}: expected a token that may write there in HF_TOKEN, or that of `hf auth login`"
        )
        cloud.setenv("HF_TOKEN", "hf_wrong")
        said = refusal(lambda: pushed(six_episodes.out), StoreError)
        assert "the token is not valid" in said

    def test_a_public_repository_is_not_taken_for_a_private_one(
        self, server: HubServer, six_episodes: Compiled
    ) -> None:
        server.repository(REPO)
        said = refusal(lambda: pushed(six_episodes.out, private=True))
        assert said == f"--private: {URL} exists and is public; make it private in its settings first"
        server.repositories[REPO].private = True
        pushed(six_episodes.out, private=True)

    @pytest.mark.parametrize("what", ["short", "missing"])
    def test_a_damaged_dataset_is_not_pushed(self, server: HubServer, root: Path, what: str) -> None:
        shard = root / "shards" / "val-00000.tar"
        size = shard.stat().st_size
        shard.write_bytes(b"") if what == "short" else shard.unlink()
        got = "has 0 bytes" if what == "short" else "is missing"
        said = f"{shard}: {got}, the manifest says {size}; oxcart verify lists all damage"
        assert refusal(lambda: pushed(root), CorruptError) == said
        assert REPO not in server.repositories

    def test_what_is_no_dataset_or_repository(
        self, server: HubServer, six_episodes: Compiled, tmp_path: Path
    ) -> None:
        assert "not a compiled dataset" in refusal(lambda: pushed(tmp_path))
        pushed(six_episodes.out)
        assert "expected a directory" in refusal(lambda: prepare(PushConfig(dataset=URL, name=REPO)))
        for name in ("kitchens", "me/kitchens@v1", "me/kitchens/sub"):
            config = replace(PushConfig(dataset=str(six_episodes.out), name=REPO), name=name)
            assert "OWNER/NAME" in refusal(lambda config=config: prepare(config))  # type: ignore[misc]


def test_by_command(server: HubServer, six_episodes: Compiled, tmp_path: Path) -> None:
    dataset = shutil.copytree(six_episodes.out, tmp_path / "dataset")
    result = cli("push", dataset, REPO, "--json", "--private")
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    assert made["fingerprint"] == six_episodes.manifest.fingerprint
    assert made["page"] == f"{server.url}/datasets/{REPO}"
    assert made["uploaded"] == len(files_of(dataset)) + 1
    assert "pushing: " in result.stderr
    again = cli("push", dataset, REPO)
    assert again.stdout.startswith(
        f"{made['page']}: nothing to upload, fingerprint {made['fingerprint'][:12]}"
    )
    assert f"next: oxcart inspect {made['url']}" in again.stdout
    assert "intact" in cli("verify", made["url"]).stdout
    assert complaint(cli("push", dataset, "kitchens")).startswith("store 'hf://datasets/kitchens': expected")
