"""Push a compiled dataset to a dataset repository of the Hugging Face Hub, resumably.

    prepared = prepare(PushConfig(dataset="bridge", name="me/bridge"))
    execute(prepared, report)

Shards, their chunk tables and the tables are committed first, up to `FILES` at a time. The manifest and the
card come last, in a commit of their own, and a manifest that is being replaced goes first: at no time does
the repository hold a manifest whose files are not there. What the repository has, by size and digest, is not
uploaded again; nor is what the Hub has stored of an interrupted push before it was committed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.utils import disable_progress_bars, logging

from oxcart.manifests.canonical import read_json
from oxcart.manifests.card import NAME as CARD
from oxcart.manifests.card import card
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.manifest import MOST_BYTES, NAME
from oxcart.manifests.tables import TABLE_FILE
from oxcart.shards.errors import ConfigError, CorruptError
from oxcart.shards.hub import Connection, ListedFile, Repository, connection, head_of, parse, tree
from oxcart.shards.names import is_shard_file
from oxcart.shards.store import Store

MAIN = "main"
"""Branch that a repository begins with."""
FILES = 100
"""Files of a commit; the Hub takes long over commits of more."""
GROUP_BYTES = 256 << 20
"""Bytes that are uploaded between two reports of progress; a larger file is a group of its own."""
THREADS = 4
"""Files that are uploaded at a time."""
_BLOCK_BYTES = 8 << 20


@dataclass(frozen=True, kw_only=True)
class PushConfig:
    """What is to be pushed, and where to."""

    dataset: str
    """Directory of the compiled dataset."""
    name: str
    """`OWNER/NAME` of the repository, which is made if there is none."""
    branch: str = MAIN
    """Branch, which is made if there is none."""
    private: bool = False
    """Whether a new repository is private; an existing one must be."""
    audit: Mapping[str, Any] | None = None
    """JSON of the audit of the dataset, whose verdict goes into the card; None if it was not audited."""
    overwrite: bool = False
    """Whether to replace another dataset in the repository."""


@dataclass(frozen=True, kw_only=True)
class PreparedPush:
    """A push that is allowed; nothing has been written yet."""

    config: PushConfig
    hub: Connection
    """The Hub."""
    fingerprint: str
    """Fingerprint of the dataset."""
    head: str | None
    """Commit of the branch; None if the branch has to be made."""
    stale: tuple[str, ...]
    """Files to delete first: those of another dataset, and a manifest to be replaced."""
    files: Mapping[str, int]
    """Name -> bytes of the files to upload before the manifest."""
    last: tuple[str, ...]
    """Files of the last commit: the manifest and the card, if the repository lacks them."""
    card: bytes
    """The card."""
    bytes_there: int
    """Bytes of the files that the repository has, without the manifest and the card."""

    @property
    def bytes_left(self) -> int:
        """Bytes of `files`."""
        return sum(self.files.values())


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """A finished push."""

    url: str
    """URL of the dataset, with its commit."""
    page: str
    """Web page of the repository."""
    fingerprint: str
    """Fingerprint of the dataset."""
    uploaded: int
    """Number of files that were committed."""
    bytes: int
    """Bytes of those files, without the manifest and the card."""


def prepare(config: PushConfig, report: Callable[[int], None] = lambda done: None) -> PreparedPush:
    """Check the dataset's files and the repository, and find what to upload. Nothing is written.

    Args:
        config: what to push, and where to.
        report: called with the bytes that are compared so far.

    Raises:
        ConfigError: the dataset or the token is missing, the repository holds another dataset, or it is
            public and should not be.
        CorruptError: a file of the dataset is missing or has another size than the manifest says.
        StoreError: the Hub cannot be reached, or refuses.
    """
    repository = _repository(config)
    if Store(config.dataset).remote:
        raise ConfigError(f"{config.dataset}: expected a directory; oxcart transcode copies a dataset to one")
    hub = connection(repository.url)
    if hub.token is None:
        raise ConfigError(
            f"{repository.url}: expected a token that may write there in HF_TOKEN, or that of `hf auth login`"
        )
    dataset = Dataset.open(config.dataset)
    files = sound_files(dataset)
    commit = _commit_of(hub, config, repository)
    entries = hub.do(config.name, "list", lambda _: tree(hub, config.name, commit, "")) if commit else []
    there = {entry.name: entry for entry in entries}
    text = card(dataset, audit=config.audit, place=repository.url).encode()
    same, compared = set(), 0
    for name in (*files, NAME, CARD):
        if _is_there(_addition(config, name, text), there):
            same.add(name)
            report(compared := compared + there[name].size)
    others = [name for name in there if _is_of_dataset(name) and name not in same]
    fingerprint = dataset.manifest.fingerprint
    if others and not config.overwrite:
        found = _fingerprint(config.name, commit) if NAME in there else None
        if found != fingerprint:
            what = others[0] if found is None else f"the dataset {found[:12]}"
            raise ConfigError(
                f"{repository.url}: holds {what}, which is not of {config.dataset} ({fingerprint[:12]}); "
                "--overwrite replaces it, or choose another repository"
            )
    anew = NAME not in same or config.audit is not None or config.overwrite
    return PreparedPush(
        config=config,
        hub=hub,
        fingerprint=fingerprint,
        head=commit,
        stale=tuple(name for name in others if name not in files),
        files={name: size for name, size in files.items() if name not in same},
        last=(*([] if NAME in same else [NAME]), *([CARD] if anew and CARD not in same else [])),
        card=text,
        bytes_there=sum(size for name, size in files.items() if name in same),
    )


def execute(prepared: PreparedPush, report: Callable[[int, int], None] = lambda done, size: None) -> Pushed:
    """Upload what the repository lacks.

    Args:
        prepared: what `prepare` returned.
        report: called with the bytes that the repository has, and how many of them were uploaded now.

    Raises:
        StoreError: the Hub cannot be reached or refuses, or the branch has changed meanwhile.
    """
    disable_progress_bars()
    logging.set_verbosity(logging.ERROR)  # its warnings hold signed URLs
    config, hub = prepared.config, prepared.hub
    head = prepared.head or _made(hub, config)
    done = 0
    stale = prepared.stale
    for names in _batches(prepared.files) or ([[]] if stale else []):
        operations = [_addition(config, name, prepared.card) for name in names]
        for group in _groups(operations):
            _upload(prepared, group)
            done += sum(one.upload_info.size for one in group)
            report(prepared.bytes_there + done, done)
        message = f"Add {len(names)} files of {prepared.fingerprint[:12]}"
        head = _commit(prepared, head, operations, stale, message)
        stale = ()
    if prepared.last:
        operations = [_addition(config, name, prepared.card) for name in prepared.last]
        head = _commit(prepared, head, operations, (), f"Add {NAME} of {prepared.fingerprint[:12]}")
    return Pushed(
        url=replace(parse(f"hf://datasets/{config.name}"), revision=head).url,
        page=hub.page(config.name),
        fingerprint=prepared.fingerprint,
        uploaded=len(prepared.files) + len(prepared.last),
        bytes=done,
    )


def sound_files(dataset: Dataset) -> dict[str, int]:
    """Name -> bytes of every file that the manifest names, which must exist and have that size.

    Raises:
        CorruptError: one of them does not.
    """
    manifest, store = dataset.manifest, dataset.store
    stated = {manifest.file(name): table["bytes"] for name, table in manifest.tables.items()}
    for shard in manifest.shards:
        stated |= {shard["name"]: shard["bytes"], shard["chunks"]: shard["chunks_bytes"]}
    there = store.found(list(stated))
    for name, size in stated.items():
        if there.get(name) != size:
            got = f"has {there[name]} bytes" if name in there else "is missing"
            raise CorruptError(
                f"{store.url}/{name}: {got}, the manifest says {size}; oxcart verify lists all damage"
            )
    return stated


def _repository(config: PushConfig) -> Repository:
    found = parse(f"hf://datasets/{config.name}")
    if found.path or found.revision:
        raise ConfigError(f"repository: expected OWNER/NAME, got {config.name!r}; --revision names a branch")
    return replace(found, revision=None if config.branch == MAIN else config.branch)


def _commit_of(hub: Connection, config: PushConfig, repository: Repository) -> str | None:
    """Commit of the branch; None if it, or the repository, has to be made."""
    name, api = config.name, hub.api
    if not hub.do(name, "open", lambda _: api.repo_exists(name, repo_type="dataset")):
        return None
    about = hub.do(name, "open", lambda _: api.dataset_info(name, expand=["private"]))
    if config.private and not about.private:
        raise ConfigError(
            f"--private: {repository.url} exists and is public; make it private in its settings first"
        )
    if not hub.do(name, "open", lambda _: api.revision_exists(name, config.branch, repo_type="dataset")):
        return None
    return hub.do(name, "open", lambda _: head_of(hub, replace(repository, revision=config.branch)))


def _made(hub: Connection, config: PushConfig) -> str:
    """Make the repository and its branch, and return the commit."""
    name, private = config.name, True if config.private else None  # None is the owner's own default

    def call(attempt: int) -> str:
        hub.api.create_repo(name, repo_type="dataset", private=private, exist_ok=True)
        if config.branch != MAIN:
            hub.api.create_branch(name, branch=config.branch, repo_type="dataset", exist_ok=True)
        return head_of(hub, Repository(name=name, revision=config.branch))

    return hub.do(name, "create", call)


def _fingerprint(name: str, commit: str | None) -> str | None:
    """Fingerprint that the manifest in a repository states; None if it cannot be parsed."""
    try:
        value = read_json(Store(f"hf://datasets/{name}@{commit}").read(NAME, MOST_BYTES))
        return str(value["fingerprint"])
    except (ValueError, LookupError, TypeError):
        return None


def _is_of_dataset(name: str) -> bool:
    """Whether a file is named as one of a compiled dataset."""
    return name == NAME or is_shard_file(name) or TABLE_FILE.fullmatch(name) is not None


def _addition(config: PushConfig, name: str, text: bytes) -> CommitOperationAdd:
    """A file of the dataset, or its card of the given text, to be committed."""
    return CommitOperationAdd(name, text if name == CARD else os.path.join(config.dataset, name))


def _is_there(addition: CommitOperationAdd, there: Mapping[str, ListedFile]) -> bool:
    """Whether the repository has the very file."""
    entry, size = there.get(addition.path_in_repo), addition.upload_info.size
    if entry is None or entry.size != size:
        return False
    digest = hashlib.sha256() if entry.large else hashlib.sha1(b"blob %d\0" % size)  # as git does
    with addition.as_file() as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest() == entry.digest


def _batches(files: Mapping[str, int]) -> list[list[str]]:
    names = list(files)
    return [names[start : start + FILES] for start in range(0, len(names), FILES)]


def _groups(operations: Sequence[CommitOperationAdd]) -> Iterator[list[CommitOperationAdd]]:
    """The files in groups of at most `GROUP_BYTES`, or of one larger file."""
    group: list[CommitOperationAdd] = []
    for one in operations:
        if group and sum(other.upload_info.size for other in group) + one.upload_info.size > GROUP_BYTES:
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def _upload(prepared: PreparedPush, group: Sequence[CommitOperationAdd]) -> None:
    """Upload files, which the repository does not show until they are committed."""
    config, hub = prepared.config, prepared.hub

    def call(attempt: int) -> None:
        hub.api.preupload_lfs_files(
            config.name,
            group,
            repo_type="dataset",
            revision=config.branch,
            num_threads=THREADS,
            free_memory=False,
        )

    hub.do(config.name, "upload", call)


def _commit(
    prepared: PreparedPush,
    parent: str,
    additions: Sequence[CommitOperationAdd],
    stale: Sequence[str],
    message: str,
) -> str:
    """Commit files to the branch, which must still be at the commit `parent`; returns the new commit."""
    config, hub = prepared.config, prepared.hub
    deletions = [CommitOperationDelete(name, is_folder=False) for name in stale]

    def call(attempt: int) -> str:
        if attempt > 1:  # the answer to an earlier attempt may have been lost
            now = head_of(hub, Repository(name=config.name, revision=config.branch))
            if now != parent and holds(now):
                return now
        return hub.api.create_commit(
            config.name,
            [*deletions, *additions],
            commit_message=message,
            repo_type="dataset",
            revision=config.branch,
            parent_commit=parent,
        ).oid

    def holds(commit: str) -> bool:
        there = {entry.name: entry for entry in tree(hub, config.name, commit, "")}
        return not any(name in there for name in stale) and all(_is_there(one, there) for one in additions)

    return hub.do(config.name, "commit", call)
