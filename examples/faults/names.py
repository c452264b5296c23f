"""Names as an input pipeline really has them, drawn anew for each run."""

from __future__ import annotations

import random
from dataclasses import dataclass

FILES = (
    "data_pipeline.py",
    "text_shards.py",
    "corpus_cache.py",
    "batch_packing.py",
    "token_stream.py",
    "input_stage.py",
    "window_sampler.py",
    "shard_index.py",
)
FUNCTIONS = (
    "read_shard",
    "pack_batch",
    "lookup_span",
    "load_page",
    "next_window",
    "mask_tokens",
    "collate_spans",
    "fill_buffer",
    "fetch_rows",
    "decode_block",
    "merge_counts",
    "resolve_offsets",
)
ORDERS = ("rebalance", "rescan", "remap", "resort", "regroup")
TITLES = (
    "Per-batch bookkeeping of the input pipeline.",
    "What happens to a batch between the loader and the model.",
    "Shard bookkeeping beside the loader.",
)


@dataclass(frozen=True, slots=True)
class Names:
    """What one run calls its file, its function and its order; `seconds`: a helper thread's stay."""

    file: str
    function: str
    order: str
    title: str
    seconds: int


def draw_names(chance: random.Random) -> Names:
    """Equal chance states give equal names."""
    return Names(
        file=chance.choice(FILES),
        function=chance.choice(FUNCTIONS),
        order=chance.choice(ORDERS),
        title=chance.choice(TITLES),
        seconds=chance.randint(9, 15),
    )
