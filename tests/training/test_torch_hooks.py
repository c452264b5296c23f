"""What the hooks see of real trainings with PyTorch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.training.conftest import Runner, Until

pytestmark = [pytest.mark.torch, pytest.mark.timeout(180)]

SINGLE = """
import os, time
import torch
from torch.utils.data import DataLoader, TensorDataset
model = torch.nn.Linear(4, 1)
warm = torch.optim.SGD(model.parameters(), lr=0.1)
model(torch.ones(1, 4)).sum().backward(); warm.step(); del warm
main = torch.optim.SGD(model.parameters(), lr=0.1)
other = torch.optim.Adam(model.parameters())
loader = DataLoader(TensorDataset(torch.randn(8, 4)), batch_size=2, num_workers=1)
for number, (x,) in enumerate(loader):
    loss = model(x).pow(2).mean()
    if number == 2:
        while not os.path.exists("look"): time.sleep(0.02)
        loss = loss * float("nan")
    main.zero_grad(); loss.backward(); main.step(); other.step()
torch.save(model.state_dict(), "state.pt")
model.eval()
list(loader)
print("evaluating", flush=True)
while not os.path.exists("go"): time.sleep(0.02)
raise RuntimeError("the end")
"""


def test_steps_phases_states_and_losses_of_plain_python(
    run: Runner, until: Until, torch_env: dict[str, str], tmp_path: Path
) -> None:
    started = run(SINGLE, env=torch_env | {"AROBUST_JOB_ID": "job"})
    until(lambda: started.has_rank(0) and started.rank(0).step == 3, seconds=90)
    assert 0 < started.rank(0).loss < 1e6
    (tmp_path / "look").touch()
    until(lambda: started.has_rank(0) and started.rank(0).state == "evaluation", seconds=90)
    (tmp_path / "go").touch()
    started.end()
    seen = started.rank(0)
    assert seen.step == 5
    assert seen.step_duration_ns > 0
    assert seen.loss is None  # no value that is out of date stands for one that is not finite
    assert seen.nonfinite_step == 3
    assert seen.gaps == ()
    assert {"optimizer_steps", "loader_steps", "backward", "checkpoint", "loss"} <= set(seen.capabilities)
    assert (seen.exception.type, seen.exception.message, seen.exception.step) == (
        "RuntimeError",
        "the end",
        5,
    )
    assert len(list(started.folder().glob("*.beacon"))) == 1


GROUPS = """
import os, time
import torch, torch.distributed as dist
dist.init_process_group("gloo")
rank = dist.get_rank()
short = dist.new_group([0, 1]); dist.destroy_process_group(short) if rank in (0, 1) else None
members = [[0, 1], [2, 3], [1, 2]]
groups = [dist.new_group(ranks) for ranks in members]
one = torch.ones(1)
dist.all_reduce(one)
for ranks, group, times in zip(members, groups, (3, 5, 7)):
    for _ in range(times if rank in ranks else 0):
        dist.all_reduce(one, group=group)
while not os.path.exists("go"): time.sleep(0.02)
dist.destroy_process_group()
"""


def test_groups_with_different_local_ids_are_joined_by_their_shared_name(
    run: Runner, until: Until, torch_env: dict[str, str], tmp_path: Path
) -> None:
    script = tmp_path / "groups.py"
    script.write_text(GROUPS)
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "4",
        str(script),
    ]
    started = run.command(launcher, torch_env)
    expected = {0: {"0-3": 1, "0-1": 3}, 1: {"0-3": 1, "0-1": 3, "1-2": 7}}
    expected |= {2: {"0-3": 1, "2-3": 5, "1-2": 7}, 3: {"0-3": 1, "2-3": 5}}

    def counted(rank: int) -> dict[str, int]:
        return {group.ranks: group.completed for group in started.rank(rank).groups}

    for rank, counters in expected.items():
        until(lambda rank=rank: started.has_rank(rank), seconds=90)
        until(lambda rank=rank, counters=counters: counted(rank) == counters, seconds=90)
    names = {(group.ranks, group.name) for rank in range(4) for group in started.rank(rank).groups}
    assert len(names) == len({name for _, name in names}) == 4
    assert all(group.enqueued == group.completed for rank in range(4) for group in started.rank(rank).groups)
    assert {started.rank(rank).state for rank in range(4)} == {"first_step"}
    (tmp_path / "go").touch()
    started.end()
    assert [(child.rank, child.wait_status) for child in started.launcher().children] == [
        (n, 0) for n in range(4)
    ]
    assert {started.rank(rank).state for rank in range(4)} == {"done"}
    assert started.rank(1).gaps == ()
