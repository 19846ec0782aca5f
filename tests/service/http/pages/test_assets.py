"""What the pages are served with: each file of others is checked and licensed."""

from importlib.resources import files
from pathlib import Path

from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.responses import FileResponse
from starlette.routing import Route

from service.http.pages.assets import address as address_of
from service.http.pages.compression import Compression

VENDOR = Path(str(files("service"))) / "static/vendor"


def test_every_vendored_file_has_its_digest_and_its_licence() -> None:
    listed = {line.split()[1] for line in (VENDOR / "SHA256SUMS").read_text().splitlines()}
    there = {file.name for file in VENDOR.iterdir()}
    assert there == listed | {"SHA256SUMS", "LICENSES.txt"}
    licences = (VENDOR / "LICENSES.txt").read_text()
    assert all(name in licences for name in listed)


def test_an_address_changes_with_the_content() -> None:
    name = "vendor/htmx.min.js"
    assert address_of(name).startswith(f"/static/{name}?")
    assert address_of(name) != address_of("vendor/cytoscape.min.js")


def test_what_is_large_is_packed_but_for_files_and_their_parts(tmp_path: Path) -> None:
    file = tmp_path / "report.txt"
    file.write_text("all alike " * 1000)
    routes = [Route(path, lambda request: FileResponse(file)) for path in ("/page", "/api/artefacts/report.txt")]
    app = Starlette(routes=routes)
    app.add_middleware(Compression)
    client = TestClient(app, headers={"Accept-Encoding": "gzip"})
    part = client.get("/api/artefacts/report.txt", headers={"Range": "bytes=3-12"})
    assert (part.status_code, part.text) == (206, " alike all")
    assert client.get("/page").headers["content-encoding"] == "gzip"
    for reply in (part, client.get("/api/artefacts/report.txt"), client.get("/page", headers={"Range": "bytes=0-9"})):
        assert "content-encoding" not in reply.headers
