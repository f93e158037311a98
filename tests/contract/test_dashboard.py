"""The Grafana dashboard and its provisioning, as far as they can be checked without a Grafana; tests/e2e runs the queries."""

from __future__ import annotations

import re
from itertools import combinations

import pytest
import yaml

from tests.support.dashboard import GRAFANA, read_dashboard, read_queries

DASHBOARD = read_dashboard()
PANELS = DASHBOARD["panels"]
COLUMNS = 24
COMPOSE = yaml.safe_load((GRAFANA.parent / "compose.yaml").read_text())["services"]


def provisioned(name: str) -> dict:
    return yaml.safe_load((GRAFANA / "provisioning" / name).read_text())


def test_panels_have_ids_and_titles_of_their_own() -> None:
    assert len({panel["id"] for panel in PANELS}) == len({panel["title"] for panel in PANELS}) == len(PANELS)


def test_panels_lie_in_the_grid_and_beside_each_other() -> None:
    places = [panel["gridPos"] for panel in PANELS]
    assert all(place["x"] >= 0 and place["w"] > 0 and place["x"] + place["w"] <= COLUMNS for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_every_panel_has_a_unit_and_rising_thresholds() -> None:
    for panel in PANELS:
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"], panel["title"]
        first, *others = [step["value"] for step in defaults["thresholds"]["steps"]]
        assert first is None
        assert others == sorted(others)


def test_every_query_has_a_letter_of_its_own_and_asks_the_provisioned_source() -> None:
    sources = {source["uid"] for source in provisioned("datasources/prometheus.yml")["datasources"]}
    for panel in PANELS:
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)
        assert {panel["datasource"]["uid"], *(target["datasource"]["uid"] for target in panel["targets"])} <= sources
    assert {variable["datasource"]["uid"] for variable in DASHBOARD["templating"]["list"]} <= sources


@pytest.mark.parametrize(("panel", "expression"), read_queries())
def test_a_query_knows_its_variables(panel: str, expression: str) -> None:
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]} | {"__rate_interval"}
    used = set(re.findall(r"\$\{?([a-zA-Z_]\w*)", expression))
    assert used <= variables, panel


def test_grafana_finds_the_dashboard_where_compose_puts_it() -> None:
    path = provisioned("dashboards/trireme.yml")["providers"][0]["options"]["path"]
    assert f"./grafana/dashboards:{path}:ro" in COMPOSE["grafana"]["volumes"]
    url = provisioned("datasources/prometheus.yml")["datasources"][0]["url"]
    assert url == "http://prometheus:9090"


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_monitoring_is_started_on_demand_on_the_loopback_interface_and_changes_no_file(name: str) -> None:
    service = COMPOSE[name]
    assert service["profiles"] == ["monitoring"]
    assert re.fullmatch(rf"(prom|grafana)/{name}:v?\d+\.\d+\.\d+", service["image"])
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    for volume in service["volumes"]:
        source, _, *mode = volume.split(":")
        if source.startswith("."):  # a folder of the project, not a volume of Docker's
            assert mode == ["ro"]
            assert (GRAFANA.parent / source).is_dir()


def test_prometheus_scrapes_the_server_under_its_name_and_port() -> None:
    config = yaml.safe_load((GRAFANA.parent / "prometheus/prometheus.yml").read_text())
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    for job, expected in (("trireme", "8002"), ("supervisor", "8003"), ("ingest", "8004")):
        host, _, port = jobs[job][0].partition(":")
        assert port == expected
        assert any(published.endswith(f":{port}") for published in COMPOSE[host]["ports"])
