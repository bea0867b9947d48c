"""What every asset shares: how a contract becomes an asset's description, and how a step's outcome becomes its metadata.

An asset's body is one call into `lakehouse.flow` that returns an `Outcome` for each table it wrote; its failures come back as
sentences, not as tracebacks.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from assets.profiles import op_tags_of
from assets.retries import TRY_AGAIN, may_pass
from lakehouse.contracts.base import Table
from lakehouse.errors import ContractError, GridlakeError
from lakehouse.flow import CODE_VERSION
from lakehouse.flow.workspace import Workspace
from lakehouse.storage.lake import Commit
from resources import WorkspaceResource
from resources.executor import runs_on_one_machine
from resources.runs import FAILED_TAG, PROCESS_TAG, PUBLISHES_TAG, process_tags

DAGSTER_TYPES = {"VARCHAR": "string", "TIMESTAMP WITH TIME ZONE": "timestamp", "DOUBLE": "double", "BOOLEAN": "boolean", "DATE": "date"}
CONTRACT_CHECK = "contract"
OWNER = "team:data-platform"
BACKFILL_DAYS_VARIABLE = "GRIDLAKE_BACKFILL_DAYS"
"""How many days a run of a backfill takes, where the definitions are served; unset, all of them. deploy/kubernetes says 1: a pod a day."""


@dataclass
class Outcome:
    """What a step did to one table: the commit, further metadata, and what its checks found."""

    commit: Commit | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    checks: list[dg.AssetCheckResult] = field(default_factory=list)


Step = Callable[[dg.AssetExecutionContext, Workspace], Mapping[str, Outcome]]


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


def spec_of(contract: type[Table], *, doc: str = "", kinds: frozenset[str] = frozenset(), **more: Any) -> dg.AssetSpec:
    """The asset of a contract: name, group, description and columns follow from it."""
    return dg.AssetSpec(
        key_of(contract.name),
        group_name=contract.layer(),
        description=f"{contract.description()}\n\n{doc}".strip(),
        kinds={"delta", *kinds},
        owners=[OWNER],
        code_version=CODE_VERSION,
        metadata={
            "dagster/column_schema": column_schema(contract),
            "dagster/table_name": _sql_name(contract),
            "dagster/storage_kind": "delta",
        },
        **more,
    )


def table_assets(
    *contracts: type[Table],
    deps: Sequence[dg.AssetDep] = (),
    partitions: dg.PartitionsDefinition | None = None,
    checks: Sequence[dg.AssetCheckSpec] = (),
    kinds: frozenset[str] = frozenset(),
    name: str = "",
) -> Callable[[Step], dg.AssetsDefinition]:
    """Makes assets of a function that does one step of the flow and writes one or several tables.

    The function's docstring is the assets' documentation; it returns an `Outcome` by table name. A breach of a contract fails
    the table's blocking check `contract` and the run; nothing was committed then.

    A step that writes its tables as a whole has a pool of its own, and so has the plan, each day of which begins where the plan of
    the day before ends: two runs at once would work in vain. Different days of the other tables are written side by side.

    Args:
        contracts: the tables that the step writes.
        deps: the assets that it reads.
        partitions: its days, or None. A range of days is one run; a backfill is cut as GRIDLAKE_BACKFILL_DAYS says.
        checks: checks that the outcomes report; each table's `contract` check is added.
        kinds: shown beside "delta" in the UI.
        name: name of the step, by default that of its first table.
    """

    def decorate(step: Step) -> dg.AssetsDefinition:
        doc = " ".join((step.__doc__ or "").split())
        step_name = name or contracts[0].name.replace("/", "_")

        @dg.multi_asset(
            name=step_name,
            specs=[spec_of(c, doc=doc, kinds=kinds, deps=list(deps), partitions_def=partitions) for c in contracts],
            check_specs=[*(_contract_check(c) for c in contracts), *checks],
            backfill_policy=_backfill_policy() if partitions else None,
            pool=step_name if partitions is None or contracts[0].layer() == "dispatch" else None,
            op_tags=op_tags_of(step_name, contracts[0].layer()),
            retry_policy=TRY_AGAIN,
        )
        def body(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> Iterator[Any]:
            at_work = workspace.open(context.run.run_id)
            if PROCESS_TAG not in context.run.tags and runs_on_one_machine(context.instance):
                context.instance.add_run_tags(context.run.run_id, process_tags())
            begun = time.perf_counter()
            context.log.info(f"{', '.join(c.name for c in contracts)}: begun")
            try:
                outcomes = step(context, at_work)
            except ContractError as error:
                _note_failure(context)
                broken = next((c for c in contracts if str(error).startswith(c.name)), contracts[0])
                yield dg.AssetCheckResult(check_name=CONTRACT_CHECK, asset_key=key_of(broken.name), passed=False, description=str(error))
                raise dg.Failure(str(error), allow_retries=False) from None
            except Exception as error:
                if may_pass(error) and context.retry_number < TRY_AGAIN.max_retries:
                    raise  # the retry policy tries again
                _note_failure(context)
                told = str(error) if isinstance(error, GridlakeError) else f"{type(error).__name__}: {error}"
                raise dg.Failure(told, allow_retries=False) from (None if isinstance(error, GridlakeError) else error)
            written = sum(outcome.commit.rows for outcome in outcomes.values() if outcome.commit)
            context.log.info(f"{', '.join(outcomes)}: {written:,} rows written in {time.perf_counter() - begun:.1f} s")
            if PUBLISHES_TAG not in context.run.tags:
                at_work.publish()
            for contract in contracts:
                outcome = outcomes[contract.name]
                rows = {"rows": outcome.commit.rows} if outcome.commit else {}
                yield dg.AssetCheckResult(check_name=CONTRACT_CHECK, asset_key=key_of(contract.name), passed=True, metadata=rows)
                yield from outcome.checks
                yield dg.MaterializeResult(key_of(contract.name), metadata=_metadata(at_work, contract, outcome.commit) | outcome.metadata)

        return body

    return decorate


def check_result(table: str, name: str, passed: bool, description: str, *, blocking: bool = False, **metadata: Any) -> dg.AssetCheckResult:
    """Result of a check; one that does not block only warns."""
    severity = dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        check_name=name, asset_key=key_of(table), passed=passed, severity=severity, description=description, metadata=metadata
    )


def check_spec(table: str, name: str, description: str, *, blocking: bool = False) -> dg.AssetCheckSpec:
    """A check that a table's step reports itself."""
    return dg.AssetCheckSpec(name, asset=key_of(table), description=description, blocking=blocking)


def picture(png: bytes) -> dg.MarkdownMetadataValue:
    """A small picture as metadata that the UI shows."""
    import base64

    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")


def _note_failure(context: dg.AssetExecutionContext) -> None:
    context.instance.add_run_tags(context.run.run_id, {FAILED_TAG: "by what it did"})


def _backfill_policy() -> dg.BackfillPolicy:
    days = os.environ.get(BACKFILL_DAYS_VARIABLE, "")
    if not days:
        return dg.BackfillPolicy.single_run()
    if not days.isdigit() or int(days) < 1:
        raise dg.DagsterInvalidDefinitionError(f"{BACKFILL_DAYS_VARIABLE}: expected a number of days, found '{days}'.")
    return dg.BackfillPolicy.multi_run(int(days))


def _contract_check(contract: type[Table]) -> dg.AssetCheckSpec:
    return check_spec(
        contract.name, CONTRACT_CHECK, "Columns, types and ranges are as the contract says; else nothing is committed.", blocking=True
    )


def _metadata(workspace: Workspace, contract: type[Table], commit: Commit | None) -> dict[str, Any]:
    told: dict[str, Any] = {
        "dagster/uri": workspace.table(contract.name).uri,
        "dagster/table_name": _sql_name(contract),
        "dagster/column_schema": column_schema(contract),
    }
    if commit:
        told["dagster/partition_row_count" if contract.partitioned_by else "dagster/row_count"] = commit.rows
        told |= {"rows": commit.rows, "bytes": commit.bytes, "delta_version": commit.version}
        if commit.first is not None:
            told |= {"first_interval_utc": f"{commit.first:%Y-%m-%d %H:%M}", "last_interval_utc": f"{commit.last:%Y-%m-%d %H:%M}"}
    return told


def _sql_name(contract: type[Table]) -> str:
    return contract.name.replace("/", ".")


def _tag(unit: str) -> str:
    plain = unit.replace("€", "EUR").replace("%", "percent").replace("°", "deg").replace("/", "_per_").replace("²", "2")
    return "".join(c for c in plain if c.isalnum() or c in "_-.")
