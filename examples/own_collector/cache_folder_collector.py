"""How full the folder is that a data loader keeps its samples in. Needs nothing of arobust_otel."""

from __future__ import annotations

import time
from pathlib import Path


class CacheFolder:
    """Size, number and age of the files in a data loader's cache."""

    period_seconds = 2.0

    def __init__(self, folder: str = "", warn_bytes: int = 0) -> None:
        self.folder = folder
        self.warn_bytes = warn_bytes
        self.warned = False

    def is_enabled(self) -> bool:
        """Called before each `collect_data`: the folder may come later."""
        return bool(self.folder) and Path(self.folder).is_dir()

    def collect_data(self) -> list[object]:
        """Numbers become gauges (cache_folder.size, ...), texts their attributes; a text a log record."""
        stats = [path.stat() for path in Path(self.folder).iterdir() if path.is_file()]
        size = sum(stat.st_size for stat in stats)
        found: list[object] = [{"folder": self.folder, "size": size, "files": len(stats)}]
        if stats:
            newest = max(stat.st_mtime for stat in stats)
            found.append({"folder": self.folder, "newest": {"age": time.time() - newest}})
        if self.warn_bytes and size > self.warn_bytes and not self.warned:
            self.warned = True
            found.append(f"{self.folder} holds {size} bytes, more than {self.warn_bytes}")
        return found
