"""A Hub on this machine: enough of the Hugging Face Hub's protocol for downloads, listings and range requests."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

_PIECE = 1 << 16


@dataclass
class Repo:
    """Files by commit, commits by branch or tag, and who may see them: public, private, gated or gated files."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    access: str = "public"


class HubServer:
    """Serves `repos` on 127.0.0.1 while it is used as a context manager; `log` holds (method, path) as requested.

    `sent` counts the bytes of each file that went out. ``cuts[file]`` lists after how many bytes the next answers with
    that file break off; ``broken`` answers 500 to all, ``ranges = False`` whole files to those who ask for a part.
    ``sizes[file]`` is what is told of a file's size if it is a lie. With ``redirects``, weights lie on another host, as
    those of the Hub itself do. ``handler``: answers more than is asked of it here.
    """

    def __init__(self, handler: "type[Handler] | None" = None) -> None:
        self.repos: dict[str, Repo] = {}
        self.log: list[tuple[str, str]] = []
        self.sent: Counter[str] = Counter()
        self.cuts: dict[str, list[int]] = {}
        self.sizes: dict[str, int] = {}
        self.broken = False
        self.ranges = True
        self.redirects = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (handler or Handler,), {"hub": self}))
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Be unreachable from now on; may be called twice."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def add(self, name: str, files: Mapping[str, bytes] | Path, ref: str = "main", access: str = "public") -> str:
        """Commit ``files`` (or the files of a folder) to the repository ``name``, move ``ref`` there; the commit."""
        if isinstance(files, Path):
            files = {
                str(file.relative_to(files)): file.read_bytes() for file in sorted(files.rglob("*")) if file.is_file()
            }
        repo = self.repos.setdefault(name, Repo())
        repo.access = access
        seed = repr([name, *((file, hashlib.sha1(content).hexdigest()) for file, content in sorted(files.items()))])
        commit = hashlib.sha1(seed.encode()).hexdigest()
        repo.commits[commit] = dict(files)
        repo.refs[ref] = commit
        return commit

    def downloaded(self) -> set[str]:
        """Names of the files that were asked for, contents or metadata."""
        return {path.split("/resolve/", 1)[1].split("/", 1)[1] for _, path in self.log if "/resolve/" in path}


class Handler(BaseHTTPRequestHandler):
    """HTTP/1.0: every answer ends its connection, so that a stopped server is unreachable at once."""

    hub: HubServer

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.log.append((self.command, path))
        parts = path.split("/")
        if self.hub.broken:
            self._refuse(500, "")
        elif parts[:2] == ["api", "models"] and len(parts) >= 6:
            self._api("/".join(parts[2:4]), parts[4], "/".join(parts[5:]))
        elif len(parts) >= 5 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), body, self.hub.redirects)
        elif parts[0] == "cdn":
            self._file("/".join(parts[1:3]), parts[3], "/".join(parts[4:]), body)
        else:
            self._refuse(404, "")

    def _commit(self, name: str, revision: str, closed: tuple[str, ...]) -> str | None:
        """The commit of a revision; None once it was refused, as the Hub refuses people without a token."""
        repo = self.hub.repos.get(name)
        if repo is None or repo.access == "private":
            self._refuse(401, "RepoNotFound")
        elif repo.access in closed:
            self._refuse(403, "GatedRepo")
        elif revision not in repo.commits and revision not in repo.refs:
            self._refuse(404, "RevisionNotFound")
        else:
            return repo.refs.get(revision, revision)
        return None

    def _api(self, name: str, kind: str, revision: str) -> None:
        commit = self._commit(name, revision, closed=("gated",))
        if commit is None:
            return
        files = self.hub.repos[name].commits[commit]
        if kind == "revision":
            answer: object = {"id": name, "sha": commit, "siblings": [{"rfilename": file} for file in files]}
        else:
            answer = [
                {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for file, content in files.items()
            ]
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, revision: str, file: str, body: bool, redirect: bool = False) -> None:
        commit = self._commit(name, revision, closed=("gated", "gated files"))
        if commit is None:
            return
        content = self.hub.repos[name].commits[commit].get(file)
        if content is None:
            self._refuse(404, "EntryNotFound")
            return
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": commit}
        if redirect and file.endswith(".safetensors"):
            elsewhere = self.hub.url.replace("127.0.0.1", "localhost")
            headers |= {"Location": f"{elsewhere}/cdn/{name}/{commit}/{file}", "X-Linked-Size": str(len(content))}
            self._send(302, b"", headers, body=body)
            return
        if file in self.hub.sizes:
            headers["X-Linked-Size"] = str(self.hub.sizes[file])
        status, wanted = 200, self.headers.get("Range")
        if wanted and self.hub.ranges:
            first, last = wanted.removeprefix("bytes=").split("-")
            part = content[int(first) : int(last) + 1 if last else None]
            headers["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
            status, content = 206, part
        cuts = self.hub.cuts.get(file) if body else None
        self._send(status, content, headers, sent=cuts.pop(0) if cuts else len(content), body=body, file=file)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code} if code else {}, body=self.command != "HEAD")

    def _send(
        self,
        status: int,
        content: bytes,
        headers: Mapping[str, str],
        sent: int | None = None,
        body: bool = True,
        file: str | None = None,
    ) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        going = content[:sent] if body else b""
        with suppress(ConnectionError):  # who asked has hung up
            for start in range(0, len(going), _PIECE):
                self.wfile.write(piece := going[start : start + _PIECE])
                if file:
                    self.hub.sent[file] += len(piece)
