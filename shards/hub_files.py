"""A store that is a dataset repository of the Hugging Face Hub, for reading only.

    hf://datasets/OWNER/NAME[@REVISION][/PATH]     HF_TOKEN or the token file of `hf auth login`; HF_ENDPOINT

A revision is resolved to its commit when the store is opened, and the store's URL names the commit, so that
readers in other processes read the same files while the repository changes.

huggingface_hub says where the bytes of a file are; obstore reads them. The Hub answers a request for a large
file with a signed URL of another host, which is valid for about an hour. It is kept, so that reading a range
is one request to that host, without the token, as from any web server. The price is a client of its own for
each file. A URL that is refused is looked up once more, since it may have expired.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import lru_cache
from typing import Any

import obstore
from huggingface_hub import get_hf_file_metadata, hf_hub_url
from obstore.store import HTTPStore

from oxcart.shards import hub, retry
from oxcart.shards.bucket import Bucket
from oxcart.shards.directory import WORK
from oxcart.shards.endpoint import Endpoint, client_options

CLIENTS = 128
"""Files whose connections are kept; those of others are opened again."""
IDLE = 4
"""Idle connections that are kept for each file."""
IDLE_S = 15.0
"""Seconds that an idle connection is kept."""

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class FilePlace:
    """A file, and where its bytes are."""

    size: int
    """Size in bytes."""
    url: str = field(repr=False)
    """Where the bytes are; a signed URL is a secret while it is valid."""


class HubFiles(Bucket):
    """The files under a URL; the methods are those of `oxcart.shards.store.Store`."""

    def __init__(self, url: str) -> None:
        repository = hub.parse(url)
        self._hub = opened = hub.connection(repository.url)
        super().__init__(
            Endpoint(
                url=repository.url,
                scheme="hf",
                reader=None,
                writer=None,
                uploader=None,
                anonymous=opened.token is None,
                credentials="HF_TOKEN",
                unsigned="",
                server=opened.server,
                timeout_s=opened.timeout_s,
            )
        )
        self.writable = False
        self._files: dict[str, FilePlace] = {}
        self._looking: dict[str, threading.Lock] = {}
        self._trees: dict[tuple[str, bool], dict[str, int]] = {}
        self._name, self._folder = repository.name, repository.path
        self._commit = repository.revision or ""
        if not _COMMIT.fullmatch(self._commit):
            self._commit = self._do("open", "", lambda attempt: hub.head_of(opened, repository))
            self.url = replace(repository, revision=self._commit).url

    def names(self, folder: str, limit: int | None) -> list[str]:
        def call(attempt: int) -> list[str]:
            names = sorted(self._tree(folder, recursive=True))
            return [name for name in names if folder or not name.startswith(WORK + "/")][:limit]

        return self._do("list", folder, call)

    def _listed(self, folder: str) -> dict[str, int]:
        return self._do("list", folder, lambda attempt: self._tree(folder, recursive=False))

    def _size(self, name: str) -> int | None:
        def call(attempt: int) -> int | None:
            try:
                return self._file(name).size
            except retry.JudgedError as error:
                if error.failure.code == "EntryNotFound":
                    return None
                raise

        return self._do("stat", name, call)

    def _get(self, name: str, span: tuple[int, int] | None = None) -> Any:
        options: Any = {"range": span} if span else {}
        file = self._file(name)
        try:
            return obstore.get(self._client(file), "", options=options)
        except retry.ERRORS as error:
            if retry.judge(error, self._hub.timeout_s).status not in (401, 403):
                raise
        return obstore.get(self._client(self._file(name, but=file)), "", options=options)

    def _client(self, file: FilePlace) -> HTTPStore:
        return _client(file.url, self._hub.token_for(file.url), self._hub.timeout_s)

    def _file(self, name: str, but: FilePlace | None = None) -> FilePlace:
        """Size and place of a file, looked up once; `but` is one that is no longer of use."""
        found = self._files.get(name)
        if found is not None and found is not but:
            return found
        with self._looking.setdefault(name, threading.Lock()):  # many threads may want it at once
            found = self._files.get(name)
            if found is None or found is but:
                found = self._files[name] = self._look_up(name)
            return found

    def _look_up(self, name: str) -> FilePlace:
        opened, endpoint = self._hub, self._hub.api.endpoint
        path = self._path(name)
        url = hf_hub_url(self._name, path, repo_type="dataset", revision=self._commit, endpoint=endpoint)
        with opened.judging():
            found = get_hf_file_metadata(url, token=opened.token or False, timeout=opened.timeout_s)
            if found.size is None:
                raise LookupError("no size")
            return FilePlace(size=found.size, url=found.location)

    def _tree(self, folder: str, *, recursive: bool) -> dict[str, int]:
        """Name -> bytes of the files in a folder of the commit, which never change."""
        if (folder, recursive) not in self._trees:
            path = self._path(folder)
            files = hub.tree(self._hub, self._name, self._commit, path, recursive=recursive)
            start = len(self._path("x")) - 1
            self._trees[folder, recursive] = {file.name[start:]: file.size for file in files}
        return self._trees[folder, recursive]

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}".strip("/")

    def _reason(self, operation: str, error: retry.FailedError) -> str:
        return self._hub.explain(error, self._name)


@lru_cache(maxsize=CLIENTS)
def _client(url: str, token: str | None, timeout_s: float) -> HTTPStore:
    """obstore's store of one file, whose name in it is ""."""
    options: Any = client_options(timeout_s)
    options |= {"pool_max_idle_per_host": str(IDLE), "pool_idle_timeout": timedelta(seconds=IDLE_S)}
    if token:
        options["default_headers"] = {"Authorization": f"Bearer {token}"}
    return HTTPStore(url, client_options=options, retry_config={"max_retries": 0})
