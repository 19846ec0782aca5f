"""The part of the Hub's protocol that uploads use: repositories made, files sent, commits; see hub_server for the rest.

Weights go by LFS, as on the Hub itself for those without Xet; the rest lies in the commit.
"""

import base64
import hashlib
import json
import re
from typing import Any

import yaml

from tests.kinship.hub_server import Handler, HubServer

TOKEN = "hf_of_a_test"


class UploadServer(HubServer):
    """Takes uploads by who has `TOKEN`, into any organisation that is not ``closed``; `commits` counts them.

    ``fails[path]`` is the status with which requests for paths that hold it are refused.
    """

    def __init__(self) -> None:
        super().__init__(UploadHandler)
        self.closed = {"elsewhere"}
        self.fails: dict[str, int] = {}
        self.private: set[str] = set()
        self.commits: list[str] = []
        self.objects: dict[str, bytes] = {}

    def files(self, name: str) -> dict[str, bytes]:
        """What the main branch of a repository holds."""
        repo = self.repos[name]
        return repo.commits[repo.refs["main"]]


class UploadHandler(Handler):
    """Answers POST and PUT, and GET for a repository without a revision."""

    hub: UploadServer

    def do_GET(self) -> None:  # noqa: N802
        parts = self.path.strip("/").split("/")
        if parts[:2] != ["api", "models"] or len(parts) != 4:
            super().do_GET()
        elif self._allowed():
            self._info("/".join(parts[2:]))

    def do_POST(self) -> None:  # noqa: N802
        content = self._content()
        path = self.path.strip("/")
        if not self._allowed():
            return
        if path == "api/repos/create":
            self._create(json.loads(content))
        elif path == "api/validate-yaml":
            self._validate(json.loads(content)["content"])
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._batch(json.loads(content)["objects"])
        elif match := re.fullmatch("api/models/([^/]+/[^/]+)/(preupload|commit)/main", path):
            if match[2] == "preupload":
                self._preupload(json.loads(content)["files"])
            else:
                self._commit_all(match[1], [json.loads(line) for line in content.splitlines()])
        else:
            self._refuse(404, "")

    def do_PUT(self) -> None:  # noqa: N802
        content = self._content()
        if any(part in self.path and self._fail(status) for part, status in self.hub.fails.items()):
            return
        wanted = self.path.rpartition("/")[2]
        if hashlib.sha256(content).hexdigest() != wanted:
            self._refuse(400, "")
            return
        self.hub.objects[wanted] = content
        self._send(200, b"", {})

    def _content(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        return b"".join(pieces)

    def _allowed(self) -> bool:
        self.hub.log.append((self.command, self.path.strip("/")))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._send(401, b"{}", {"X-Error-Message": "Invalid credentials in Authorization header"})
            return False
        return not any(part in self.path and self._fail(status) for part, status in self.hub.fails.items())

    def _fail(self, status: int) -> bool:
        self._refuse(status, "")
        return True

    def _json(self, answer: object, status: int = 200) -> None:
        self._send(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _info(self, name: str) -> None:
        if name not in self.hub.repos:
            self._refuse(404, "RepoNotFound")
            return
        siblings = [{"rfilename": file} for file in self.hub.files(name)]
        sha = self.hub.repos[name].refs["main"]
        self._json({"id": name, "sha": sha, "private": name in self.hub.private, "siblings": siblings})

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        if wanted["organization"] in self.hub.closed:
            self._refuse(403, "")
        elif name in self.hub.repos:
            self._refuse(409, "")
        else:
            self.hub.add(name, {".gitattributes": b""})
            if wanted.get("visibility") == "private" or wanted.get("private"):
                self.hub.private.add(name)
            self._json({"url": f"{self.hub.url}/{name}"})

    def _validate(self, card: str) -> None:
        """The Hub refuses a ``base_model`` that cannot be one of its models."""
        parents = yaml.safe_load(card.split("---\n")[1]).get("base_model", [])
        wrong = [parent for parent in parents if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", parent)]
        errors = [{"message": f'"base_model" with value "{parent}" is not valid.'} for parent in wrong]
        self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def _preupload(self, files: list[dict[str, Any]]) -> None:
        modes = {file["path"]: "lfs" if file["path"].endswith(".safetensors") else "regular" for file in files}
        found = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]
        self._json({"files": found})

    def _batch(self, objects: list[dict[str, Any]]) -> None:
        uploads = [
            {**one, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}}
            if one["oid"] not in self.hub.objects
            else one
            for one in objects
        ]
        self._json({"objects": uploads, "transfer": "basic"})

    def _commit_all(self, name: str, lines: list[dict[str, Any]]) -> None:
        files = dict(self.hub.files(name))
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commit = self.hub.add(name, files)
        self.hub.commits.append(commit)
        self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{commit}", "commitOid": commit})
