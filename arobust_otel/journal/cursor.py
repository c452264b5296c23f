"""How far a reader has come, kept in a small file that is replaced atomically."""

from __future__ import annotations

from pathlib import Path

from arobust_otel.errors import JournalError
from arobust_otel.journal.durable import make_private_folder, write_atomically


class Cursor:
    """A durable offset: the next record to be read."""

    def __init__(self, path: str | Path) -> None:
        """The file need not exist."""
        self.path = Path(path)

    def load(self) -> int:
        """The stored offset, 0 where none was stored.

        Raises:
            JournalError: the file holds something else: better to stop than to deliver everything again.
        """
        try:
            text = self.path.read_text("ascii")
        except FileNotFoundError:
            return 0
        except UnicodeDecodeError:
            text = ""
        digits = text.removesuffix("\n")
        if not digits.isdecimal():
            raise JournalError(f"{self.path} is not a cursor: delete it to begin with the oldest record")
        return int(digits)

    def store(self, offset: int) -> None:
        """Replace the offset, durably."""
        make_private_folder(self.path.parent)
        write_atomically(self.path, b"%d\n" % offset)
