"""The texts that a recipe's models are measured on, for methods that look at data, and the heads fitted on them."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from kinship.errors import InvalidConfig, ReferenceNotFound
from kinship.validation import Strict


class DataSource(Strict):
    """Documents: in a file, or written out."""

    file: str | None = Field(None, description="a .jsonl file, an object a line, or a text file, a document a line")
    texts: list[str] | None = Field(None, min_length=1, description="the documents themselves, instead of a file")
    field: str = Field("text", description="of a .jsonl file: the key whose value is the document")

    def require(self, where: str) -> None:
        """Raise `InvalidConfig` unless it is a file or texts; no file is looked for."""
        if (self.file is None) == (self.texts is None):
            raise InvalidConfig(
                f"The data of {where} are {'both a file and texts' if self.file else 'neither a file nor texts'}.",
                hint="Give data: {file: documents.txt}, or texts: a list; for all models, or each model its own.",
            )

    def require_there(self) -> None:
        """Raise `ReferenceNotFound` where its file is not there."""
        if self.file is not None and not Path(self.file).is_file():
            raise ReferenceNotFound(f"There is no text file at {self.file}.", hint="Give a .txt or .jsonl file.")


class DataSettings(DataSource):
    """What models are measured on, each on its own documents where it has some, and how."""

    documents: int | None = Field(None, ge=1, description="at most this many documents of each model; default: all")
    batch: int = Field(8, ge=1, description="documents that go through a model at once")
    max_length: int = Field(512, ge=2, description="tokens at which a document is cut")
    device: Literal["cpu", "cuda", "auto"] = Field("cpu", description="where models are measured")
    statistics: str | None = Field(
        None, description="folder in which to keep what was measured of each model, to be used again; default: nowhere"
    )


class SurgerySettings(Strict):
    """How the heads of Representation Surgery are fitted, one for each model merged, on its documents."""

    rank: int = Field(16, ge=0, description="of a head; 0 changes nothing")
    steps: int = Field(500, ge=0, description="steps of Adam")
    rate: float = Field(0.001, gt=0, description="learning rate")
