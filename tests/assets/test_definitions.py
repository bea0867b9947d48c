"""The definitions of every example site: each table an asset that says what it is, who owns it, and what is checked."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest

from assets.partitions import site_days
from assets.skin import CONTRACT_CHECK, column_schema, key_of
from definitions import build_definitions
from lakehouse.flow import CODE_VERSION
from lakehouse.flow.setup import example_sites
from lakehouse.flow.tables import tables_of
from lakehouse.site import Site, parse_site
from tests.flow.builders import SITE
from tests.generated import example

LEDGERS = {"quality/deliveries", "quality/conservation", "quality/quarantine", "quality/alerts", "cleaned/register_differences"}
"""Tables that several steps or a sensor write: told by them, and checked where they are written."""


@pytest.fixture(scope="module", params=example_sites())
def site(request: pytest.FixtureRequest) -> Site:
    return example(request.param)


@pytest.fixture(scope="module")
def graph(site: Site) -> dg.AssetGraph:
    return build_definitions(site).resolve_asset_graph()


def test_every_table_is_an_asset_and_every_asset_is_a_table(site: Site, graph: dg.AssetGraph):
    names = {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert {n for n in names if not n.startswith("landing/")} == set(tables_of(site))
    assert {n for n in names if n.startswith("landing/")} == {f"landing/{feed}" for feed in site.feeds}


def test_every_table_says_what_it_is(site: Site, graph: dg.AssetGraph):
    for name, contract in tables_of(site).items():
        node = graph.get(key_of(name))
        assert node.group_name == name.split("/")[0]
        assert node.owners == ["team:data-platform"], name
        assert node.description and node.description.startswith(contract.description()), name
        assert "delta" in node.kinds, name
        assert node.code_version == CODE_VERSION, name
        schema = node.metadata["dagster/column_schema"]
        assert [c.name for c in schema.columns] == list(contract.columns), name
        assert node.metadata["dagster/table_name"] == name.replace("/", ".")


def test_every_table_has_its_blocking_contract_check(site: Site, graph: dg.AssetGraph):
    for name in set(tables_of(site)) - LEDGERS:
        checks = {c.name: graph.get_check_spec(c) for c in graph.get(key_of(name)).check_keys}
        assert checks[CONTRACT_CHECK].blocking, name


def test_tables_with_days_are_partitioned_by_them(site: Site, graph: dg.AssetGraph):
    for name, contract in tables_of(site).items():
        by_day = bool({"date", "delivery_date"} & set(contract.partitioned_by)) and name not in LEDGERS
        partitions = graph.get(key_of(name)).partitions_def
        assert (partitions is not None) == by_day, name
        if partitions:
            assert partitions == site_days(site)


def test_days_run_as_ranges(graph: dg.AssetGraph):
    for key in graph.materializable_asset_keys:
        node = graph.get(key)
        if node.partitions_def:
            assert node.backfill_policy == dg.BackfillPolicy.single_run(), key


def test_what_a_table_depends_on_stands_in_an_earlier_or_the_same_layer(graph: dg.AssetGraph):
    order = ["landing", "raw", "cleaned", "features", "models", "forecasts", "dispatch"]
    for key in graph.get_all_asset_keys():
        for parent in graph.get(key).parent_keys:
            if "quality" not in (key.path[0], parent.path[0]):
                assert order.index(parent.path[0]) <= order.index(key.path[0]), (key, parent)
    graph.toposorted_asset_keys  # noqa: B018 - raises on a circle


def test_units_are_column_tags():
    schema = {c.name: c for c in column_schema(tables_of(example("sample"))["cleaned/weather"]).columns}
    assert schema["ghi_w_per_m2"].tags == {"unit": "W_per_m2"}
    assert schema["temperature_c"].tags == {"unit": "degC"}
    assert schema["temperature_c"].description == "Air temperature. [°C]"
    assert not schema["interval_start"].constraints.nullable and schema["temperature_c"].constraints.nullable


def village_site(**changes: str) -> Site:
    text = SITE
    for key, value in changes.items():
        line = next(one for one in text.splitlines() if one.startswith(f"{key}:"))
        text = text.replace(f"{line}\n", f"{key}: {value}\n" if value else "")
    return parse_site(text, Path("/somewhere/gridlake.yaml"))


def test_partitions_run_from_the_first_day_to_the_last_that_todays_forecasts_reach():
    keys = site_days(village_site()).get_partition_keys()
    assert keys[0] == "2026-02-28"  # a local day east of Greenwich begins on the UTC day before
    assert keys[-1] == "2026-03-22"  # today is the 20th; tomorrow's local day ends on the UTC day after it at the latest


def test_a_site_without_a_frozen_clock_ends_at_the_real_day():
    site = village_site(clock="")
    keys = site_days(site).get_partition_keys()
    assert keys[-1] == site.last_day().isoformat()
    assert date.fromisoformat(keys[-1]) - site.today() == timedelta(days=2)


def test_a_site_without_series_and_fleet_ends_at_cleaned():
    text = SITE[: SITE.index("series:\n  demand")]
    definitions = build_definitions(parse_site(text, Path("/somewhere/gridlake.yaml")))
    groups = {definitions.resolve_asset_graph().get(k).group_name for k in definitions.resolve_asset_graph().get_all_asset_keys()}
    assert groups == {"landing", "raw", "cleaned", "quality"}
    definitions.resolve_implicit_global_asset_job_def()


@pytest.mark.parametrize("name", ["sample", "spain", "octopus"])
def test_every_job_and_sensor_resolves(name: str):
    definitions = build_definitions(example(name))
    repository = definitions.get_repository_def()
    assert {"raw_layer", "features_layer", "models_layer"} <= {job.name for job in repository.get_all_jobs()}
    dg.Definitions.validate_loadable(definitions)
