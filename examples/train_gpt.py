"""Train a small GPT on the source text of Python's own standard library.

One process:      python train_gpt.py --steps 200
Four processes:   torchrun --nproc-per-node 4 train_gpt.py --steps 200

Bytes are the vocabulary, so there is nothing to download. The data is split over the ranks by a
DistributedSampler, gradients are averaged by DistributedDataParallel, rank 0 writes checkpoints and
evaluates.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import math
import os
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F  # noqa: N812 - what everybody calls it
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler, RandomSampler

VOCABULARY = 256

log = logging.getLogger("train_gpt")


class Block(nn.Module):
    """Pre-norm transformer block: causal self-attention, then a two-layer perceptron."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        parts = self.qkv(self.norm_1(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm_2(x))


class GPT(nn.Module):
    """Bytes in, logits over the next byte out."""

    def __init__(self, context: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.token = nn.Embedding(VOCABULARY, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        self.head.weight = self.token.weight
        for embedding in (self.token, self.position):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.token(tokens) + self.position(positions)
        return self.head(self.norm(self.blocks(x)))


class Windows(Dataset):
    """Fixed-length windows over one long text; each item is (input, target shifted by one)."""

    def __init__(self, text: torch.Tensor, context: int) -> None:
        self.text = text
        self.context = context

    def __len__(self) -> int:
        return (len(self.text) - 1) // self.context

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        begin = index * self.context
        piece = self.text[begin : begin + self.context + 1].long()
        return piece[:-1], piece[1:]


class Extension:
    """A user's file with functions that the loop calls; a function that is not there is skipped."""

    def __init__(self, path: Path | None) -> None:
        self.module: ModuleType | None = None
        if path is not None:
            spec = importlib.util.spec_from_file_location(path.stem, path)
            if spec is None or spec.loader is None:
                raise SystemExit(f"--extension {path}: not a Python file")
            self.module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(self.module)

    def hook(self, name: str) -> Callable[..., object]:
        return getattr(self.module, name, _nothing)


def _nothing(*_: object) -> None:
    return None


def standard_library_text(limit: int) -> torch.Tensor:
    """The first ``limit`` bytes of the standard library's modules, in the order of their names."""
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "test", "__pycache__", "idlelib"}
    text = bytearray()
    for path in sorted(root.rglob("*.py")):
        if skipped.intersection(path.relative_to(root).parts):
            continue
        text += path.read_bytes() + b"\n"
        if len(text) >= limit:
            break
    return torch.frombuffer(text, dtype=torch.uint8)[:limit]


def endless(loader: DataLoader, sampler: object) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches for as many epochs as asked for, shuffled anew in each."""
    epoch = 0
    while True:
        if isinstance(sampler, DistributedSampler):
            sampler.set_epoch(epoch)
        yield from loader
        epoch += 1


def learning_rate(step: int, args: argparse.Namespace) -> float:
    """Linear warm-up, then a cosine down to a tenth."""
    if step < args.warmup:
        return args.lr * (step + 1) / args.warmup
    share = min(1.0, (step - args.warmup) / max(1, args.decay_steps - args.warmup))
    return args.lr * (0.55 + 0.45 * math.cos(math.pi * share))


def cross_entropy(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = model(inputs)
    return F.cross_entropy(logits.view(-1, VOCABULARY), targets.reshape(-1))


@torch.no_grad()
def evaluate(model: nn.Module, held_out: Windows, batches: int, batch_size: int) -> float:
    """Mean loss over the first windows of the held-out text."""
    model.eval()
    losses = []
    for index in range(batches):
        items = [held_out[(index * batch_size + i) % len(held_out)] for i in range(batch_size)]
        inputs = torch.stack([item[0] for item in items])
        targets = torch.stack([item[1] for item in items])
        losses.append(cross_entropy(model, inputs, targets).item())
    model.train()
    return sum(losses) / len(losses)


def save_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write beside the target, sync, and rename: a checkpoint is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


class Trainer:
    """Model, data and loop of one rank."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.distributed = dist.is_initialized()
        self.rank = dist.get_rank() if self.distributed else 0
        self.world_size = dist.get_world_size() if self.distributed else 1
        self.extension = Extension(args.extension)

        text = standard_library_text(args.corpus_bytes)
        cut = int(len(text) * 0.95)
        train, self.held_out = Windows(text[:cut], args.context), Windows(text[cut:], args.context)
        self.sampler = DistributedSampler(train, seed=args.seed) if self.distributed else RandomSampler(train)
        self.loader = DataLoader(
            train, args.batch, sampler=self.sampler, num_workers=args.workers, drop_last=True
        )

        self.raw_model = GPT(args.context, args.width, args.heads, args.layers)
        self.model: nn.Module = self.raw_model
        if self.distributed:
            self.model = DistributedDataParallel(self.raw_model)
        self.optimizer = torch.optim.AdamW(self.raw_model.parameters(), lr=args.lr, weight_decay=0.01)
        parameters = sum(p.numel() for p in self.raw_model.parameters())
        log.info(
            "rank %d of %d, %d parameters, %d bytes of text",
            self.rank, self.world_size, parameters, len(text),
        )  # fmt: skip

    def train(self) -> None:
        on_batch = self.extension.hook("on_batch")
        begun, tokens = time.monotonic(), 0
        for step, batch in enumerate(endless(self.loader, self.sampler), start=1):
            if step > self.args.steps or on_batch(step, self.rank, batch) is False:
                break
            loss = self.train_step(step, batch)
            tokens += batch[0].numel() * self.world_size
            if step % self.args.log_every == 0:
                speed = tokens / (time.monotonic() - begun)
                log.info("step %d loss %.4f tokens/s %.0f", step, loss.item(), speed)
                begun, tokens = time.monotonic(), 0
            if step % self.args.checkpoint_every == 0:
                self.checkpoint(step)
            if step % self.args.evaluate_every == 0:
                self.evaluation(step)
        self.finish(step - 1)

    def train_step(self, step: int, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.args)
        loss = cross_entropy(self.model, *batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.raw_model.parameters(), 1.0)
        self.optimizer.step()
        return loss.detach()

    def checkpoint(self, step: int) -> None:
        """Rank 0 writes; nobody goes on before the file is there."""
        if self.rank == 0:
            path = self.args.checkpoint_dir / f"step-{step:06d}.pt"
            save_checkpoint(path, self.raw_model, self.optimizer, step)
            self.extension.hook("on_checkpoint")(step, path)
            for old in sorted(path.parent.glob("step-*.pt"))[: -self.args.keep_checkpoints]:
                old.unlink()
            log.info("step %d checkpoint %s", step, path.name)
        if self.distributed:
            dist.barrier()

    def evaluation(self, step: int) -> None:
        """Rank 0 measures the held-out loss; the others wait for it in their next step."""
        if self.rank != 0:
            return
        loss = evaluate(self.raw_model, self.held_out, self.args.evaluate_batches, self.args.batch)
        self.extension.hook("on_evaluation")(step, self.raw_model)
        log.info("step %d held-out loss %.4f perplexity %.1f", step, loss, math.exp(min(loss, 20)))

    def finish(self, step: int) -> None:
        if self.rank == 0:
            save_checkpoint(self.args.checkpoint_dir / "final.pt", self.raw_model, self.optimizer, step)
            log.info("finished after %d steps", step)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1000, help="optimizer steps in all")
    parser.add_argument("--batch", type=int, default=8, help="windows per rank and step")
    parser.add_argument("--context", type=int, default=64, help="bytes per window")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--warmup", type=int, default=50, help="steps of linear warm-up")
    parser.add_argument("--decay-steps", type=int, default=2000, help="length of the cosine")
    parser.add_argument("--workers", type=int, default=0, help="data loader processes per rank")
    parser.add_argument("--corpus-bytes", type=int, default=4_000_000)
    parser.add_argument("--checkpoint-dir", type=Path, default=Path("checkpoints"))
    parser.add_argument("--checkpoint-every", type=int, default=200, metavar="STEPS")
    parser.add_argument("--keep-checkpoints", type=int, default=2, metavar="FILES")
    parser.add_argument("--evaluate-every", type=int, default=300, metavar="STEPS")
    parser.add_argument("--evaluate-batches", type=int, default=10)
    parser.add_argument("--log-file", type=Path, default=Path("train.log"))
    parser.add_argument("--log-every", type=int, default=20, metavar="STEPS")
    parser.add_argument("--extension", type=Path, help="Python file with functions that the loop calls")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def set_up_logging(rank: int, path: Path) -> None:
    """Rank 0 logs to the file and to standard output, the others warn only."""
    if rank != 0:
        log.setLevel(logging.WARNING)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        handlers=[logging.FileHandler(path), logging.StreamHandler(sys.stdout)],
    )


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    set_up_logging(int(os.environ.get("RANK", "0")), args.log_file)
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    Trainer(args).train()
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
