"""A training loop without torch: calls the extension's functions as `train_gpt.py` does.

Arguments: path of the extension, path of the file that a second thread touches while it may run.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from pathlib import Path


def beat(path: Path) -> None:
    while True:
        path.write_text(str(time.monotonic()))
        time.sleep(0.02)


def main() -> None:
    extension, pulse = Path(sys.argv[1]), Path(sys.argv[2])
    spec = importlib.util.spec_from_file_location(extension.stem, extension)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    threading.Thread(target=beat, args=(pulse,), daemon=True).start()
    step = 1
    while module.on_batch(step, 0, None) is not False:
        print(step, flush=True)
        time.sleep(0.005)
        step += 1


if __name__ == "__main__":
    main()
