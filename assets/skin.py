"""What every asset shares: how a contract becomes an asset's description, and how a step's outcome becomes its metadata.

An asset's body returns an `Outcome`; its failures come back as sentences, not as tracebacks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from lakehouse.contracts.base import Table
from lakehouse.errors import ContractError, GridlakeError
from lakehouse.flow import CODE_VERSION
from lakehouse.flow.workspace import Workspace
from lakehouse.storage.lake import Commit
from resources import WorkspaceResource

DAGSTER_TYPES = {"VARCHAR": "string", "TIMESTAMP WITH TIME ZONE": "timestamp", "DOUBLE": "double", "BOOLEAN": "boolean", "DATE": "date"}
CONTRACT_CHECK = "contract"
OWNER = "team:data-platform"


@dataclass
class Outcome:
    """What a step did: the commit, further metadata, and what its checks found."""

    commit: Commit | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    checks: list[dg.AssetCheckResult] = field(default_factory=list)


def key_of(name: str) -> dg.AssetKey:
    """Asset key of a table's name: "cleaned/load" is ["cleaned", "load"]."""
    return dg.AssetKey(name.split("/"))


def column_schema(contract: type[Table]) -> dg.TableSchema:
    """A contract as Dagster's table schema; units are column tags and stand at the end of descriptions."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=c.name,
                type=DAGSTER_TYPES.get(c.sql_type, c.sql_type.lower()),
                description=f"{c.description} [{c.unit}]" if c.unit else c.description,
                constraints=dg.TableColumnConstraints(nullable=c.nullable, unique=contract.key == (c.name,)),
                tags={"unit": _tag(c.unit)} if c.unit and _tag(c.unit) else {},
            )
            for c in contract.columns.values()
        ]
    )


def table_asset(
    contract: type[Table],
    *,
    deps: Sequence[dg.AssetDep | dg.AssetKey] = (),
    partitions: dg.PartitionsDefinition | None = None,
    checks: Sequence[dg.AssetCheckSpec] = (),
    kinds: frozenset[str] | set[str] = frozenset(),
    doc: str = "",
    op_tags: dict[str, Any] | None = None,
    automation: dg.AutomationCondition | None = None,
) -> Callable[[Callable[[dg.AssetExecutionContext, Workspace], Outcome]], dg.AssetsDefinition]:
    """Makes an asset of a function that does one step of the flow for one table.

    Args:
        contract: the table; name, group, description and columns follow from it.
        deps: the assets that it reads.
        partitions: its days, or None.
        checks: checks that the function's outcome reports; the contract's own is added.
        kinds: shown beside "delta" in the UI.
        doc: how the table is made, below its one-line description.
        op_tags: resources and the like.
        automation: when it is made again by itself.
    """

    def decorate(step: Callable[[dg.AssetExecutionContext, Workspace], Outcome]) -> dg.AssetsDefinition:
        key = key_of(contract.name)
        enforced = dg.AssetCheckSpec(CONTRACT_CHECK, asset=key, blocking=True, description="Columns, types, ranges and keys are as the contract says.")

        @dg.asset(
            key=key,
            group_name=contract.layer(),
            description=f"{contract.description()}\n\n{doc or (step.__doc__ or '')}".strip(),
            kinds={"delta", *kinds},
            owners=[OWNER],
            deps=list(deps),
            partitions_def=partitions,
            backfill_policy=dg.BackfillPolicy.single_run() if partitions else None,
            check_specs=[enforced, *(c._replace(asset_key=key) if hasattr(c, "_replace") else c for c in checks)],
            code_version=CODE_VERSION,
            pool=contract.name.replace("/", "_"),
            op_tags=op_tags or {},
            automation_condition=automation,
            metadata={"dagster/column_schema": column_schema(contract), "dagster/table_name": contract.name.replace("/", "."), "dagster/storage_kind": "delta"},
        )
        @functools.wraps(step)
        def body(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> Iterator[Any]:
            at_work = workspace.open(context.run_id)
            try:
                outcome = step(context, at_work)
            except ContractError as error:
                yield dg.AssetCheckResult(check_name=CONTRACT_CHECK, passed=False, description=str(error))
                raise dg.Failure(str(error), allow_retries=False) from None
            except GridlakeError as error:
                raise dg.Failure(str(error), allow_retries=False) from None
            yield dg.AssetCheckResult(check_name=CONTRACT_CHECK, passed=True)
            yield from outcome.checks
            yield dg.MaterializeResult(metadata=_metadata(at_work, contract, outcome.commit) | outcome.metadata)

        return body

    return decorate


def _metadata(workspace: Workspace, contract: type[Table], commit: Commit | None) -> dict[str, Any]:
    table = workspace.table(contract.name)
    told: dict[str, Any] = {
        "dagster/uri": table.uri,
        "dagster/table_name": contract.name.replace("/", "."),
        "dagster/column_schema": column_schema(contract),
    }
    if commit:
        told |= {"dagster/partition_row_count" if contract.partitioned_by else "dagster/row_count": commit.rows}
        told |= {"rows": commit.rows, "bytes": commit.bytes, "delta_version": commit.version}
        if commit.first is not None:
            told |= {"first_interval_utc": f"{commit.first:%Y-%m-%d %H:%M}", "last_interval_utc": f"{commit.last:%Y-%m-%d %H:%M}"}
    return told


def picture(png: bytes) -> dg.MarkdownMetadataValue:
    """A small picture as metadata that the UI shows."""
    import base64

    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")


def _tag(unit: str) -> str:
    plain = unit.replace("€", "EUR").replace("%", "percent").replace("°", "deg").replace("/", "_per_").replace("²", "2")
    return "".join(c for c in plain if c.isalnum() or c in "_-.")
