"""What the pages are served with: each file of others is checked and licensed."""

from importlib.resources import files
from pathlib import Path

from fastapi.testclient import TestClient

from service.http.pages.assets import address as address_of

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


def test_what_is_large_is_packed_but_for_files_and_their_parts(pages: TestClient, workspace: Path) -> None:
    ask = {"Accept-Encoding": "gzip"}
    (workspace / "run" / "report.html").write_text("<p>" + "all alike " * 1000)
    for address in ("/runs/run", "/static/app.js", address_of("vendor/cytoscape.min.js")):
        packed, plain = pages.get(address, headers=ask), pages.get(address, headers={"Accept-Encoding": "identity"})
        assert packed.headers.get("content-encoding") == "gzip", address
        assert packed.num_bytes_downloaded < len(plain.content) / 2
        assert "content-encoding" not in plain.headers
        assert packed.content == plain.content
    whole = "/api/v1/runs/run/artefacts/report.html"
    part = pages.get(whole, headers=ask | {"Range": "bytes=3-12"})
    assert (part.status_code, part.text) == (206, "all alike ")
    for reply in (
        part,
        pages.get(whole, headers=ask),
        pages.get("/static/app.js", headers=ask | {"Range": "bytes=0-9"}),
    ):
        assert "content-encoding" not in reply.headers
