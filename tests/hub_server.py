"""A server on the loopback address that answers as the Hugging Face Hub does, with a CDN on another port.

    with hub() as server:
        server.repository("me/data").commit({"a.tar": b"..."})
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        Store("hf://datasets/me/data").read("a.tar")

Large files lie on the CDN, whose URLs are signed and expire. Others are served after a redirect to another
place on the Hub. Faults and requests are those of `servers`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import re
import urllib.parse
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from servers import REASONS, Faults, running

TOKEN = "hf_thesecret"
PAGE = 3
"""Entries on a page of a listing."""
LARGE = (".tar", ".parquet", ".mp4")
"""Ends of the names of files that the Hub stores as large ones."""


def blob(data: bytes) -> str:
    """git's digest of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repository:
    """A dataset repository: the files of each commit, by branch."""

    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    """Messages of the commits."""

    def commit(self, files: Mapping[str, bytes], branch: str = "main", message: str = "files") -> str:
        """Replace all files of a branch, and return the commit."""
        self.history.append(message)
        commit = hashlib.sha1(f"{len(self.history)} {message}".encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.branches[branch] = commit
        return commit

    def find(self, revision: str) -> str | None:
        """The commit of a branch or of a commit."""
        return self.branches.get(revision, revision if revision in self.commits else None)

    @property
    def files(self) -> dict[str, bytes]:
        """Files of the branch `main`."""
        return self.commits[self.branches["main"]]


@dataclass
class HubServer:
    """A running Hub."""

    faults: Faults = field(default_factory=Faults)
    """Of the Hub itself."""
    cdn_faults: Faults = field(default_factory=Faults)
    """Of the CDN."""
    tokens: list[tuple[str, str]] = field(default_factory=list)
    """`hub` or `cdn`, and the header `Authorization` of each request."""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    """sha256 -> bytes of each large file that was uploaded."""
    uploads: list[str] = field(default_factory=list)
    """sha256 of each upload."""
    signature: int = 1
    """The signature that is valid; a larger one lets all earlier URLs expire."""
    url: str = ""
    cdn_url: str = ""

    def repository(self, name: str, **how: bool) -> Repository:
        """A new repository."""
        made = self.repositories[name] = Repository(**how)
        made.commit({".gitattributes": b"*.tar filter=lfs\n"}, message="initial commit")
        return made

    def large(self, digest: str) -> bytes | None:
        """A large file by its sha256."""
        if digest in self.objects:
            return self.objects[digest]
        every = (
            data
            for one in self.repositories.values()
            for files in one.commits.values()
            for data in files.values()
        )
        return next((data for data in every if hashlib.sha256(data).hexdigest() == digest), None)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: HubServer
    name = ""
    lost = False

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""

    def do_any(self) -> None:
        """Answer, or fail on demand."""
        faults = self.hub.faults if self.name == "hub" else self.hub.cdn_faults
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.tokens.append((self.name, self.headers.get("Authorization", "")))
        fault = faults.take(self.command, self.path)
        if fault is not None and fault.what in ("drop", "stall"):
            if fault.what == "stall":
                faults.ended.wait(20)
            self.close_connection = True
        elif fault is not None and fault.what in REASONS:
            self.reply(int(fault.what), b"a secret", fault.headers)
        else:
            parts = urllib.parse.urlsplit(self.path)
            self.query = dict(urllib.parse.parse_qsl(parts.query))
            self.lost = fault is not None and fault.what == "lost"
            self.answer(parts.path)

    do_GET = do_HEAD = do_POST = do_PUT = do_any  # noqa: N815

    @abstractmethod
    def answer(self, path: str) -> None:
        """Answer a request for a path; the Hub and its CDN do so differently."""

    def reply(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(500 if self.lost else status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def say(self, value: object, **headers: str) -> None:
        self.reply(200, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})

    def serve(self, data: bytes) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self.reply(200, data, {"ETag": f'"{blob(data)}"'})
            return
        start, end = int(asked[1]), min(int(asked[2] or len(data)) + 1, len(data))
        if start >= len(data):
            self.reply(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        else:
            self.reply(206, data[start:end], {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"})


class _Cdn(_Handler):
    name = "cdn"

    def answer(self, path: str) -> None:
        if self.query.get("signature") != str(self.hub.signature):
            self.reply(403, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>")
            return
        digest = path.rpartition("/")[2]
        if self.command == "PUT":
            assert hashlib.sha256(self.body).hexdigest() == digest
            self.hub.objects[digest] = self.body
            self.hub.uploads.append(digest)
            self.reply(200, b"")
            return
        data = self.hub.large(digest)
        assert data is not None
        self.serve(data)


class _Hub(_Handler):
    name = "hub"

    def answer(self, path: str) -> None:
        routes = (
            (r"/api/datasets/([^/]+/[^/]+)(?:/revision/([^/]+))?", self.about),
            (r"/api/datasets/([^/]+/[^/]+)/tree/([^/]+)(?:/(.+))?", self.tree),
            (r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.resolve),
            (r"/api/resolve-cache/datasets/([^/]+/[^/]+)/([^/]+)/(.+)", self.cached),
            (r"/api/datasets/([^/]+/[^/]+)/preupload/([^/]+)", self.preupload),
            (r"/datasets/([^/]+/[^/]+)\.git/info/lfs/objects/batch()", self.batch),
            (r"/api/datasets/([^/]+/[^/]+)/branch/([^/]+)", self.branch),
            (r"/api/datasets/([^/]+/[^/]+)/commit/([^/]+)", self.commit),
        )
        if self.signed and self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.refuse(401, "", "Invalid credentials in Authorization header")
        elif path == "/api/repos/create":
            self.create()
        elif path == "/api/validate-yaml":
            self.say({"errors": [], "warnings": []})
        else:
            for pattern, handle in routes:
                if found := re.fullmatch(pattern, path):
                    name, *rest = found.groups()
                    repository = self.allowed(name, reads="/resolve" in path)
                    if repository is not None:
                        handle(repository, *(urllib.parse.unquote(one or "") for one in rest))
                    return
            self.refuse(404, "", "Not found")

    @property
    def signed(self) -> bool:
        return "Authorization" in self.headers

    def refuse(self, status: int, code: str, message: str) -> None:
        self.reply(status, b'{"error": "a secret"}', {"X-Error-Code": code, "X-Error-Message": message})

    def allowed(self, name: str, reads: bool) -> Repository | None:
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self.signed):
            status = 404 if self.signed else 401
            self.refuse(status, "RepoNotFound" if self.signed else "", "Repository not found")
        elif self.command in ("POST", "PUT") and not self.signed:
            self.refuse(401, "", "Invalid username or password.")
        elif repository.gated and reads:
            self.refuse(403 if self.signed else 401, "GatedRepo", f"Access to dataset {name} is restricted.")
        else:
            self.full_name = name
            return repository
        return None

    def files(self, repository: Repository, revision: str) -> dict[str, bytes] | None:
        commit = repository.find(revision or "main")
        if commit is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        self.sha = commit
        return repository.commits[commit]

    def about(self, repository: Repository, revision: str) -> None:
        if self.files(repository, revision) is not None:
            self.say({"id": self.full_name, "sha": self.sha, "private": repository.private})

    def tree(self, repository: Repository, revision: str, folder: str) -> None:
        files = self.files(repository, revision)
        if files is None:
            return
        inside = {name: data for name, data in files.items() if not folder or name.startswith(folder + "/")}
        if folder and not inside:
            self.refuse(404, "EntryNotFound", f"{folder} does not exist")
            return
        start = len(folder) + 1 if folder else 0
        entries: dict[str, dict[str, Any]] = {}
        for name, data in sorted(inside.items()):
            parts = name[start:].split("/")
            for depth in range(1, len(parts)):
                if self.query["recursive"] == "true" or depth == 1:
                    path = name[:start] + "/".join(parts[:depth])
                    entries[path] = {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
            if self.query["recursive"] == "true" or len(parts) == 1:
                entry: dict[str, Any] = {"type": "file", "path": name, "oid": blob(data), "size": len(data)}
                if name.endswith(LARGE):
                    digest = hashlib.sha256(data).hexdigest()
                    entry["oid"] = "1" * 40
                    entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 130}
                entries[name] = entry
        at = int(self.query.get("cursor", 0))
        headers = {}
        if at + PAGE < len(entries):
            query = urllib.parse.urlencode({**self.query, "cursor": at + PAGE})
            path = urllib.parse.urlsplit(self.path).path
            headers["Link"] = f'<{self.hub.url}{path}?{query}>; rel="next"'
        self.say(list(entries.values())[at : at + PAGE], **headers)

    def resolve(self, repository: Repository, revision: str, name: str) -> None:
        files = self.files(repository, revision)
        if files is None:
            return
        if name not in files:
            self.refuse(404, "EntryNotFound", "Entry not found")
            return
        data, headers = files[name], {"X-Repo-Commit": self.sha}
        if name.endswith(LARGE):
            digest = hashlib.sha256(data).hexdigest()
            headers |= {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{digest}"'}
            headers["Location"] = (
                f"{self.hub.cdn_url}/objects/{digest}?signature={self.hub.signature}&x=a%2Fb"
            )
            self.reply(302, b"", headers)
        else:
            quoted = urllib.parse.quote(name)
            headers["Location"] = f"/api/resolve-cache/datasets/{self.full_name}/{self.sha}/{quoted}"
            self.reply(307, b"", headers)

    def cached(self, repository: Repository, revision: str, name: str) -> None:
        self.serve(repository.commits[revision][name])

    def create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        if not self.signed:
            self.refuse(401, "", "Invalid username or password.")
        elif name in self.hub.repositories:
            self.reply(409, b'{"error": "You already created this dataset repo"}')
        else:
            self.hub.repository(name, private=asked.get("visibility") == "private")
            self.say({"url": f"{self.hub.url}/datasets/{name}"})

    def branch(self, repository: Repository, branch: str) -> None:
        if branch in repository.branches:
            self.reply(409, b'{"error": "Reference already exists"}')
        else:
            repository.branches[branch] = repository.branches["main"]
            self.say({})

    def preupload(self, repository: Repository, revision: str) -> None:
        there = self.files(repository, revision)
        if there is None:
            return
        answers = []
        for file in json.loads(self.body)["files"]:
            name = file["path"]
            large, data = name.endswith(LARGE), there.get(name)
            oid = None if data is None else hashlib.sha256(data).hexdigest() if large else blob(data)
            answers.append(
                {"path": name, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}
            )
        self.say({"files": answers})

    def batch(self, repository: Repository, _: str) -> None:
        found = []
        for one in json.loads(self.body)["objects"]:
            answer = {"oid": one["oid"], "size": one["size"]}
            if self.hub.large(one["oid"]) is None:
                href = f"{self.hub.cdn_url}/upload/{one['oid']}?signature={self.hub.signature}"
                answer["actions"] = {"upload": {"href": href}}
            found.append(answer)
        self.say({"transfer": "basic", "objects": found})

    def commit(self, repository: Repository, branch: str) -> None:
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = lines[0]["value"]
        parent = repository.branches[branch]
        if header.get("parentCommit") not in (None, parent):
            self.refuse(412, "", "A commit has happened since. Please refresh and try again.")
            return
        files = dict(repository.commits[parent])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                data = self.hub.large(value["oid"])
                assert data is not None
                files[value["path"]] = data
            else:
                assert line["key"] == "deletedFile"
                del files[value["path"]]
        commit = repository.commit(files, branch, header["summary"])
        url = f"{self.hub.url}/datasets/{self.full_name}/commit/{commit}"
        self.say({"commitUrl": url, "commitOid": commit, "success": True})


class _Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that have disconnected."""


@contextlib.contextmanager
def hub() -> Iterator[HubServer]:
    """A Hub without repositories."""
    made = HubServer()
    with contextlib.ExitStack() as opened:
        for base, faults, what in ((_Hub, made.faults, "url"), (_Cdn, made.cdn_faults, "cdn_url")):
            handler = type(base.__name__, (base,), {"hub": made})
            server = _Quiet(("127.0.0.1", 0), handler)
            opened.enter_context(running(server, faults))
            setattr(made, what, f"http://127.0.0.1:{server.server_port}")
        yield made
