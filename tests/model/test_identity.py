"""Who a process is, in the environment of every launcher we know."""

from __future__ import annotations

import pytest

from arobust_otel.model.identity import (
    JobIdentity,
    resolve_job_id,
    resolve_master,
    resolve_rank,
)

TORCHRUN = {
    "RANK": "5",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "8",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1",
    "ROLE_NAME": "default",
    "TORCHELASTIC_RUN_ID": "run-7",
    "TORCHELASTIC_RESTART_COUNT": "3",
}
SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NTASKS": "8",
    "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_NODEID": "1",
    "SLURM_RESTART_COUNT": "3",
    "SLURM_JOB_ID": "991",
}
OPENMPI = {
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
}
MPICH = {"PMI_RANK": "5", "MPI_LOCALRANKID": "1", "PMI_SIZE": "8", "MPI_LOCALNRANKS": "4"}
BY_HAND = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}


@pytest.mark.parametrize(
    ("environ", "launcher", "node_rank", "incarnation"),
    [
        (TORCHRUN, "torchrun", 1, 3),
        (SLURM, "slurm", 1, 3),
        (OPENMPI, "openmpi", None, 0),
        (MPICH, "mpich", None, 0),
        (BY_HAND, "env", None, 0),
    ],
)
def test_every_launcher_gives_the_same_rank(
    environ: dict[str, str], launcher: str, node_rank: int | None, incarnation: int
) -> None:
    rank = resolve_rank(environ)
    assert rank is not None
    assert (rank.rank, rank.local_rank, rank.world_size, rank.local_world_size) == (5, 1, 8, 4)
    assert (rank.launcher, rank.node_rank, rank.incarnation) == (launcher, node_rank, incarnation)
    assert rank.attributes() == {"arobust.rank": 5, "arobust.local_rank": 1, "arobust.role": "trainer"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"RANK": "5"},  # several platforms set this to the node's rank
        {"RANK": "5", "WORLD_SIZE": "8"},
        {"RANK": "x", "LOCAL_RANK": "0"},
        {"SLURM_PROCID": "0"},  # a batch script, not a task
    ],
)
def test_what_no_launcher_set_is_no_rank(environ: dict[str, str]) -> None:
    assert resolve_rank(environ) is None


def test_torchrun_inside_slurm_is_torchruns_rank() -> None:
    rank = resolve_rank({**SLURM, **TORCHRUN, "SLURM_PROCID": "0"})
    assert rank is not None
    assert (rank.rank, rank.launcher) == (5, "torchrun")


def test_our_own_role_beats_the_launchers() -> None:
    rank = resolve_rank({**TORCHRUN, "ROLE_NAME": "actor", "AROBUST_ROLE": "critic"})
    assert rank is not None
    assert rank.role == "critic"


@pytest.mark.parametrize(
    ("environ", "job_id"),
    [
        ({"AROBUST_JOB_ID": "mine", "TORCHELASTIC_RUN_ID": "run-7"}, "mine"),
        ({"TORCHELASTIC_RUN_ID": "run-7", "SLURM_JOB_ID": "991"}, "run-7"),
        ({"TORCHELASTIC_RUN_ID": "none", "SLURM_JOB_ID": "991"}, "991"),
        ({"TORCHELASTIC_RUN_ID": "none"}, None),
        ({}, None),
    ],
)
def test_the_job_is_named_by_us_then_by_the_launcher(environ: dict[str, str], job_id: str | None) -> None:
    assert resolve_job_id(environ) == job_id


@pytest.mark.parametrize(
    ("environ", "master"),
    [
        ({"AROBUST_MASTER": "http://m:1", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://o:1"}, "http://m:1"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://o:1"}, "http://o:1"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://o:4317/"}, "grpc://o:4317"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://o:4317"}, "grpcs://o:4317"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "o:4317"}, "o:4317"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://o:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "grpc://o:1",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://o:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            "http://o:4317",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "o:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            "http://o:9",
        ),
        ({}, "http://127.0.0.1:4318"),
    ],
)
def test_the_master_is_found_by_variable_endpoint_or_localhost(environ: dict[str, str], master: str) -> None:
    assert resolve_master(environ) == master


def test_the_instance_survives_a_restart_and_the_node_rank_is_left_out_where_unknown() -> None:
    first, second = JobIdentity("job", 0, "gpu-a"), JobIdentity("job", 1, "gpu-a")
    assert first.instance_id == second.instance_id == "gpu-a/job"
    assert second.resource()["arobust.incarnation"] == 1
    assert "arobust.node.rank" not in first.resource()
    assert JobIdentity("job", 0, "gpu-a", node_rank=0).resource()["arobust.node.rank"] == 0
