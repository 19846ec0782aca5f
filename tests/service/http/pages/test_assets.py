"""What the pages are served with: each file of others is checked and licensed."""

from importlib.resources import files
from pathlib import Path

from service.http.pages.assets import address

VENDOR = Path(str(files("service"))) / "static/vendor"


def test_every_vendored_file_has_its_digest_and_its_licence() -> None:
    listed = {line.split()[1] for line in (VENDOR / "SHA256SUMS").read_text().splitlines()}
    there = {file.name for file in VENDOR.iterdir()}
    assert there == listed | {"SHA256SUMS", "LICENSES.txt"}
    licences = (VENDOR / "LICENSES.txt").read_text()
    assert all(name in licences for name in listed)


def test_an_address_changes_with_the_content() -> None:
    name = "vendor/htmx.min.js"
    assert address(name).startswith(f"/static/{name}?")
    assert address(name) != address("vendor/cytoscape.min.js")
