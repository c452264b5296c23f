"""docker-compose.yml as a file: pins, limits, rights. `make test-compose` runs it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from arobust_otel.demo.torch_env import VERSION
from tools.stack.engine import IMAGES
from tools.stack.programs import BY_NAME

ROOT = Path(__file__).parents[2]
FILE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
OURS = ("arobust-otel:local", "arobust-otel-training:local")
FOREIGN = sorted(name for name, service in SERVICES.items() if service["image"] not in OURS)


def load(path: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((ROOT / "collector_config" / path).read_text(encoding="utf-8"))
    return values


@pytest.mark.parametrize("name", [name for name in FOREIGN if name != "grafana"])
def test_the_version_is_the_one_that_tests_run(name: str) -> None:
    image, _, tag = SERVICES[name]["image"].partition(":")
    (version,) = {BY_NAME[program].version for program in IMAGES[image].programs}
    known_as = {"1.62.0": "2.0.0-rc2"}  # Jaeger's module and image are numbered differently
    assert tag.removeprefix("v") == known_as.get(version, version)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_is_bounded_and_has_no_rights_to_spare(name: str) -> None:
    service = SERVICES[name]
    assert service["mem_limit"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    if service.get("user", "").startswith("0"):
        assert service["network_mode"] == "none"


def test_everything_that_can_be_asked_has_a_health_check() -> None:
    without = {name for name, service in SERVICES.items() if "healthcheck" not in service}
    assert without == {"identity", "collector", "training"}  # the head of the file says why


def test_only_what_writes_outside_of_its_volumes_may_write_anywhere() -> None:
    writing = {name for name, service in SERVICES.items() if not service.get("read_only")}
    assert writing == {"identity", "grafana", "training"}


def test_torch_is_the_one_of_the_demo() -> None:
    wanted = f"torch=={VERSION} numpy"
    assert SERVICES["training"]["build"]["args"]["TORCH"] == f"${{AROBUST_TORCH-{wanted}}}"
    assert f'ARG TORCH="{wanted}"\n' in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_jaeger_does_not_trace_itself() -> None:
    assert SERVICES["jaeger"]["environment"]["OTEL_TRACES_SAMPLER"] == "always_off"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_ports_are_published_on_this_machine_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", ()))


def test_only_the_board_can_be_left_out() -> None:
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["grafana"]
    assert (ROOT / ".env").read_text(encoding="utf-8").splitlines()[-1] == "COMPOSE_PROFILES=board"


def provisioned(kind: str) -> dict[str, Any]:
    text = (ROOT / "dashboards" / "provisioning" / kind / "arobust.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = yaml.safe_load(text)
    return values


def test_grafana_finds_every_board_where_its_provider_looks() -> None:
    (provider,) = provisioned("dashboards")["providers"]
    mounts = dict(mount.split(":")[:2] for mount in SERVICES["grafana"]["volumes"])
    boards = sorted((ROOT / "dashboards").glob("*.json"))
    for board in boards:
        assert mounts[f"./dashboards/{board.name}"] == f"{provider['options']['path']}/{board.name}"
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home in mounts.values()


def test_boards_and_links_name_the_data_sources_that_are_there() -> None:
    sources = {source["uid"]: source for source in provisioned("datasources")["datasources"]}
    for source in sources.values():
        assert source["url"].strip("${}") in SERVICES["grafana"]["environment"]
    for path in (ROOT / "dashboards").glob("*.json"):
        for variable in json.loads(path.read_text(encoding="utf-8"))["templating"]["list"]:
            if variable["type"] == "datasource":
                assert sources[variable["current"]["value"]]["type"] == variable["query"]
    linked = set(
        re.findall(
            r"datasourceUid: (\S+)", (ROOT / "dashboards/provisioning/datasources/arobust.yaml").read_text()
        )
    )
    assert linked
    assert linked <= set(sources)


def test_files_that_are_mounted_exist() -> None:
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", ())]
    paths = [mount.split(":")[0] for mount in mounts if mount.startswith("./")]
    assert len(paths) > 8
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_volumes_are_declared() -> None:
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", ())]
    named = {mount.split(":")[0] for mount in mounts if not mount.startswith(("./", "/"))}
    assert named == set(FILE["volumes"])


def test_prometheus_is_the_one_of_the_guide_with_other_names() -> None:
    own, guide = load("compose/prometheus.yml"), load("prometheus.yml")
    for section in ("otlp", "storage"):
        assert own[section] == guide[section]
    (own_scrape,), (scrape,) = own["scrape_configs"], guide["scrape_configs"]
    assert own_scrape["job_name"] == scrape["job_name"]
    assert "metric_relabel_configs" not in {**own_scrape, **scrape}
    assert [Path(path).name for path in own["rule_files"]] == [
        Path(path).name for path in guide["rule_files"]
    ]


def test_alertmanager_is_the_one_of_the_guide_with_a_pager() -> None:
    own, guide = load("compose/alertmanager.yml"), load("alertmanager.yml")
    assert own["inhibit_rules"] == guide["inhibit_rules"]
    for key in ("group_by", "repeat_interval", "routes"):
        assert own["route"][key] == guide["route"][key]
    # what wakes nobody is not printed as if it did
    assert [set(receiver) for receiver in own["receivers"]] == [{"name", "webhook_configs"}, {"name"}]
    assert own["route"]["receiver"] == own["receivers"][0]["name"]


def mounted(volume: str) -> dict[str, str]:
    """Where each service mounts it, and how."""
    return {
        name: mount.partition(":")[2]
        for name, service in SERVICES.items()
        for mount in service.get("volumes", ())
        if mount.partition(":")[0] == volume
    }


def test_only_the_master_can_read_its_key() -> None:
    place = "/master-identity"
    assert mounted("master-identity") == {"identity": place, "master": f"{place}:ro"}
    settings = (ROOT / "collector_config/compose/master.toml").read_text(encoding="utf-8")
    assert f'tls_key = "{place}/master.key"' in settings
    assert SERVICES["master"]["command"][-1] == f"{place}/master.toml"


def test_the_collectors_queue_is_on_the_disk_and_bounded() -> None:
    collector = SERVICES["collector"]
    folder = collector["environment"]["OTELCOL_QUEUE"]
    assert mounted("queue") == {"identity": "/queue", "collector": folder}
    assert not any(folder.startswith(place.partition(":")[0]) for place in collector["tmpfs"])
    assert any("sending_queue::queue_size: 1073741824" in word for word in collector["command"])


def test_nobody_can_change_prometheus_over_the_network() -> None:
    command = SERVICES["prometheus"]["command"]
    assert not [word for word in command if "lifecycle" in word or "admin-api" in word]


def test_no_secret_is_in_a_file() -> None:
    text = (ROOT / "collector_config/compose/master.toml").read_text(encoding="utf-8")
    assert 'token = "@TOKEN@"' in text
