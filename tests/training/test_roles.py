"""Who is launcher, rank, single process or helper, and what the job is called."""

from __future__ import annotations

import pytest

from arobust_otel.training.roles import Role, decide, job_id, program

RANK = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}


@pytest.mark.parametrize(
    ("command", "environ", "role"),
    [
        ("python /venv/bin/torchrun --nproc-per-node 4 train.py", {}, Role.LAUNCHER),
        ("python -m torch.distributed.run train.py", {}, Role.LAUNCHER),
        ("python -u -X dev -m torch.distributed.launch train.py", {}, Role.LAUNCHER),
        ("python /venv/bin/accelerate launch train.py", {}, Role.LAUNCHER),
        ("python /venv/bin/accelerate config", {}, Role.HELPER),
        ("python /venv/bin/deepspeed train.py", {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, Role.LAUNCHER),
        ("python -u train.py", RANK, Role.RANK),
        ("python -m trainer", RANK, Role.RANK),
        ("python train.py", {**RANK, "AROBUST_RANK_PID": "100"}, Role.RANK),
        ("python tokenise.py", {**RANK, "AROBUST_RANK_PID": "99"}, Role.HELPER),
        ("python train.py", {"RANK": "3"}, Role.SINGLE),
        ("python train.py", {}, Role.SINGLE),
        ("python", {}, Role.HELPER),
        ("python -m pip install x", RANK, Role.HELPER),
        ("python /venv/bin/pip install x", {}, Role.HELPER),
        ("python -m arobust_otel.agent --job-id x", {}, Role.HELPER),
        ("python /venv/bin/arobust demo", {}, Role.HELPER),
        ("python -m torch._inductor.compile_worker", RANK, Role.HELPER),
    ],
)
def test_a_process_knows_its_part(command: str, environ: dict[str, str], role: Role) -> None:
    assert decide(command.split(), environ, pid=100) is role


@pytest.mark.parametrize(
    "code",
    [
        "from multiprocessing.resource_tracker import main;main(5)",
        "from multiprocessing.forkserver import main; main(7, 8, ['__main__'])",
        "from multiprocessing.spawn import spawn_main; spawn_main(pipe_handle=5)",
    ],
)
def test_helpers_of_multiprocessing_are_no_ranks(code: str) -> None:
    assert decide(["python", "-c", code, "--multiprocessing-fork"], RANK, pid=100) is Role.HELPER


def test_the_program_of_a_command_line() -> None:
    assert program(["python", "-X", "importtime", "-u", "a.py", "-m", "x"]) == ("script", "a.py", ["-m", "x"])
    assert program(["python", "-c", "pass", "a"]) == ("-c", "pass", ["a"])
    assert program(["python", "-V"]) == ("", "", [])


@pytest.mark.parametrize(
    ("command", "environ", "name"),
    [
        ("python torchrun --rdzv-id run7 train.py", {}, "run7"),
        ("python torchrun train.py", {"AROBUST_JOB_ID": "mine", "TORCHELASTIC_RUN_ID": "x"}, "mine"),
        ("python torchrun --nnodes=2 --rdzv-endpoint=head:29400 train.py", {}, "head-29400"),
        (
            "python torchrun --nnodes 2 --master_addr 10.0.0.1 --master_port 29500 train.py",
            {},
            "10.0.0.1-29500",
        ),
        (
            "python torchrun --nnodes 1 --nproc-per-node 4 train_gpt.py --steps 3",
            {},
            "train_gpt-20260101-120000-9",
        ),
        ("python -m trainer.main", {}, "trainer.main-20260101-120000-9"),
    ],
)
def test_a_job_has_a_name_that_all_its_nodes_find(command: str, environ: dict[str, str], name: str) -> None:
    assert job_id(command.split(), environ, "20260101-120000", 9) == name
