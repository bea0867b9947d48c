"""Two searches on two cores: HiGHS proves a bound while a neighbourhood search improves the plan, each telling the other.

Each search is a process of its own that runs `main`, fed through its standard input and gone as soon as that
closes: nothing outlives the process that asked. `race` starts, feeds and stops them. What is being solved is a
`SparseProgram`; the meaning of its columns lives in `formulation`.
"""

from __future__ import annotations

import io
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Any, BinaryIO

import numpy as np

from lakehouse.dispatch.algebra import Array, SparseProgram, highs_with
from lakehouse.dispatch.columns import Settled, exact_bound, settle
from lakehouse.dispatch.pricing import Prices
from lakehouse.dispatch.runs import PricedUnits

SLACK_TOLERANCE = 1e-5
INTEGER_LIMIT_IN_PROCESS = 1_500
# Above this size the relaxation takes minutes: the search for plans does without it.
VERY_LARGE_COLUMNS = 250_000
# HiGHS' presolve rules 15 and 16: probing and enumeration took most of the presolve of a 934-unit instance and removed little.
SLOW_PRESOLVE_RULES = 1 << 15 | 1 << 16
# The price game's share of the time: its bound hardly moves after this many seconds on a large instance.
SHARE_FOR_PRICES, SECONDS_FOR_PRICES = 0.3, 15.0
# With less time than this, branch and bound would not get past the relaxation of a very large instance.
SECONDS_FOR_A_VERY_LARGE_TREE = 900.0
# Of a very large instance's time: to climb, to settle prices, and to prove their bound.
SHARE_TO_CLIMB, SHARE_TO_SETTLE, SHARE_TO_PROVE = 0.02, 0.18, 0.4
# Commitments are open where a schedule is at most so much dearer than its unit's best: for the first plans, and for the neighbourhoods.
FIRST_OPEN_EUR, OPEN_EUR = (200.0, 1000.0), 3000.0
# A plan to begin from is improved at once if it is so near the relaxation; else a new first plan is made beside it.
CLOSE_TO_RELAXATION = 0.005
PROVE, IMPROVE = "prove", "improve"


@dataclass(frozen=True)
class SearchTask:
    """What a search needs to know.

    Args:
        program: the programme, cost in EUR.
        commitment: columns of the commitment, start and stop variables, shape (3, units, horizon).
        slack: columns of the shortfalls.
        last_resort: shortfalls are allowed only where there is no plan without them.
        gap: relative gap that is good enough.
        seconds: time left when the search starts.
        start: a known plan as values of all columns (empty: none).
        sketch: the same problem in coarser intervals, for a first plan before the relaxation is known (None: none).
        sketch_commitment: its columns, as `commitment`, on which the commitments of this problem's intervals lie (repeated).
        units: the thermal units as the game of prices plays them, where the relaxation takes long (None: it does not).
    """

    program: SparseProgram
    commitment: Array
    slack: Array
    last_resort: bool
    gap: float
    seconds: float
    start: Array
    sketch: SparseProgram | None = None
    sketch_commitment: Array | None = None
    units: PricedUnits | None = None


@dataclass
class Race:
    """The best of both searches."""

    objective: float = np.inf
    solution: Array | None = None
    bound: float = -np.inf
    finished: bool = False
    infeasible_without_slack: bool = False
    peak_mb: float = 0.0
    found_by: str = ""

    @property
    def gap(self) -> float:
        """Relative distance between objective and bound; infinite while one is missing."""
        if self.solution is None or not np.isfinite(self.bound):
            return np.inf
        return max(0.0, self.objective - self.bound) / max(abs(self.objective), 1e-9)


def race(task: SearchTask, deadline: float, two_cores: bool) -> Race:
    """Runs the searches until the gap is reached, the bound's search ends, or the deadline passes.

    Args:
        task: the problem.
        deadline: `time.perf_counter()` at which to stop.
        two_cores: run the neighbourhood search beside the bound.

    Returns:
        The best plan and bound found; no solution if none was found in time.
    """
    state = Race()
    if len(task.start):
        state.objective, state.solution, state.found_by = float(task.program.cost @ task.start), task.start, "start"
    if int(task.program.is_integer.sum()) <= INTEGER_LIMIT_IN_PROCESS:
        _prove(task, _Local(state))
        return state
    inbox: queue.Queue[tuple[str, str, Array]] = queue.Queue()
    workers = [_Worker(role, task, deadline, inbox) for role in ((PROVE, IMPROVE) if two_cores else (PROVE,))]
    alive = {worker.role for worker in workers}
    try:
        while not state.finished and state.gap > task.gap and alive:
            left = deadline - time.perf_counter()
            if left <= 0:
                break
            try:
                role, kind, payload = inbox.get(timeout=min(left, 1.0))
            except queue.Empty:
                continue
            if kind == "gone":
                alive.discard(role)
            elif state_changed(state, kind, payload, role):
                for worker in workers:
                    if worker.role != role:
                        worker.tell("plan", np.concatenate([[state.objective], state.solution]))  # type: ignore[list-item]
            elif kind == "hopeless":
                for worker in workers:
                    if worker.role != role:
                        worker.tell("hopeless", np.zeros(0))
    finally:
        state.peak_mb = sum(worker.stop() for worker in workers)
    return state


def improves(objective: float, on: float) -> bool:
    """True if an objective is lower by more than rounding."""
    return not np.isfinite(on) or objective < on - 1e-8 * max(1.0, abs(on))


def state_changed(state: Race, kind: str, payload: Array, role: str) -> bool:
    """Takes one message into the state; True if it brought a better plan."""
    if kind == "bound":
        state.bound = max(state.bound, float(payload[0]))
    elif kind == "plan" and improves(float(payload[0]), state.objective):
        state.objective, state.solution, state.found_by = float(payload[0]), payload[1:], role
        return True
    elif kind == "hopeless":
        state.infeasible_without_slack = True
    elif kind == "finished":
        state.finished = True
    return False


# ---------------------------------------------------------------------- processes and their messages


def _write(stream: BinaryIO, kind: str, payload: Array) -> None:
    body = np.ascontiguousarray(payload, float).tobytes()
    stream.write(kind.ljust(12).encode() + len(body).to_bytes(8, "little") + body)
    stream.flush()


def _read(stream: BinaryIO) -> tuple[str, Array] | None:
    head = stream.read(20)
    if len(head) < 20:
        return None
    size = int.from_bytes(head[12:], "little")
    body = stream.read(size)
    return (head[:12].decode().strip(), np.frombuffer(body, float)) if len(body) == size else None


class _Worker:
    """A search process as seen from the one that asked for it."""

    def __init__(self, role: str, task: SearchTask, deadline: float, inbox: queue.Queue[tuple[str, str, Array]]) -> None:
        self.role = role
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", "import sys; from lakehouse.dispatch.search import main; main(sys.argv[1])", role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        self._outbox: queue.Queue[tuple[str, Array] | None] = queue.Queue()
        threading.Thread(target=self._send, args=(_packed(task), deadline), daemon=True).start()
        threading.Thread(target=self._listen, args=(inbox,), daemon=True).start()

    def tell(self, kind: str, payload: Array) -> None:
        """Sends a message without waiting for it to be read."""
        self._outbox.put((kind, payload))

    def _send(self, packed: bytes, deadline: float) -> None:
        try:
            _write(self.process.stdin, "time", np.array([deadline - time.perf_counter()]))  # type: ignore[arg-type]
            self.process.stdin.write(len(packed).to_bytes(8, "little") + packed)  # type: ignore[union-attr]
            self.process.stdin.flush()  # type: ignore[union-attr]
            while (message := self._outbox.get()) is not None:
                _write(self.process.stdin, *message)  # type: ignore[arg-type]
        except (BrokenPipeError, ValueError, OSError):
            return

    def _listen(self, inbox: queue.Queue[tuple[str, str, Array]]) -> None:
        try:
            while (message := _read(self.process.stdout)) is not None:  # type: ignore[arg-type]
                inbox.put((self.role, *message))
        except (ValueError, OSError):
            pass
        inbox.put((self.role, "gone", np.zeros(0)))

    def stop(self) -> float:
        """Ends the process at once; returns its peak memory in MB where the system tells."""
        peak = _peak_mb_of(self.process.pid)
        self._outbox.put(None)
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                stream.close()  # type: ignore[union-attr]
        return peak


def _peak_mb_of(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/status") as status:  # noqa: PTH123 - a kernel file
            return next((float(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM")), 0.0)
    except OSError:
        return 0.0


def _packed(task: SearchTask) -> bytes:
    buffer = io.BytesIO()
    program = {f.name: getattr(task.program, f.name) for f in fields(SparseProgram)}
    if task.sketch is not None and task.sketch_commitment is not None:
        program |= {f"sketch_{f.name}": getattr(task.sketch, f.name) for f in fields(SparseProgram)} | {
            "sketch_commitment": task.sketch_commitment
        }
    if task.units is not None:
        program |= {f"priced_{f.name}": getattr(task.units, f.name) for f in fields(PricedUnits)}
    np.savez(
        buffer,
        **program,
        commitment=task.commitment,
        slack=task.slack,
        start=task.start,
        numbers=np.array([task.last_resort, task.gap], float),
    )
    return buffer.getvalue()


def _unpacked(packed: bytes, seconds: float) -> SearchTask:
    with np.load(io.BytesIO(packed), allow_pickle=False) as stored:
        program = SparseProgram(**{f.name: stored[f.name] for f in fields(SparseProgram)})
        last_resort, gap = stored["numbers"]
        sketch = None
        if "sketch_cost" in stored:
            sketch = SparseProgram(**{f.name: stored[f"sketch_{f.name}"] for f in fields(SparseProgram)})
        columns = stored["sketch_commitment"] if sketch is not None else None
        units = PricedUnits(**{f.name: stored[f"priced_{f.name}"] for f in fields(PricedUnits)}) if "priced_zone" in stored else None
        return SearchTask(
            program, stored["commitment"], stored["slack"], bool(last_resort), float(gap), seconds, stored["start"], sketch, columns, units
        )


class _Local:
    """Both ends of the conversation in one process, for small problems."""

    def __init__(self, state: Race) -> None:
        self.state = state

    def say(self, kind: str, payload: Array | list[float]) -> None:
        state_changed(self.state, kind, np.asarray(payload, float), PROVE)

    def heard_plan(self) -> Array | None:
        return None


class _Remote:
    """The search process's end of the conversation; leaves the process when the other end closes."""

    def __init__(self, stdin: BinaryIO, stdout: BinaryIO) -> None:
        self._stdin, self._stdout = stdin, stdout
        self._lock = threading.Lock()
        self._plan: Array | None = None
        self.hopeless = False

    def listen(self) -> None:
        """Starts to hear the other end."""
        threading.Thread(target=self._hear, daemon=True).start()

    def _hear(self) -> None:
        while (message := _read(self._stdin)) is not None:
            if message[0] == "plan":
                with self._lock:
                    self._plan = message[1]
            elif message[0] == "hopeless":
                self.hopeless = True
        os._exit(0)  # the asker is gone or done: no orphan may go on searching

    def say(self, kind: str, payload: Array | list[float]) -> None:
        """Sends a message to the asker."""
        _write(self._stdout, kind, np.asarray(payload, float))

    def heard_plan(self) -> Array | None:
        """The newest plan of the other search as [objective, values...], once."""
        with self._lock:
            plan, self._plan = self._plan, None
            return plan


def main(role: str) -> None:
    """Runs one search, fed by standard input, until it ends or the input closes."""
    stdin, stdout = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not mix with the messages
    first = _read(stdin)
    if first is None:
        return
    begun = time.perf_counter()
    size = int.from_bytes(stdin.read(8), "little")
    task = _unpacked(stdin.read(size), float(first[1][0]) - (time.perf_counter() - begun))
    line = _Remote(stdin, stdout)
    line.listen()
    (_prove if role == PROVE else _improve)(task, line)
    os._exit(0)


# ---------------------------------------------------------------------- the search for the bound


def _without_slack(program: SparseProgram, slack: Array) -> SparseProgram:
    upper = program.upper.copy()
    upper[slack] = 0.0
    return replace(program, upper=upper)


def _prove(task: SearchTask, line: Any) -> None:
    """HiGHS on the whole programme: bounds and plans as they come."""
    begun = time.perf_counter()
    left = lambda: task.seconds - (time.perf_counter() - begun)  # noqa: E731
    if task.units is not None:
        if task.program.n_columns > VERY_LARGE_COLUMNS and left() < SECONDS_FOR_A_VERY_LARGE_TREE:
            _prove_by_prices(task, line, left)
            return
        task = _bound_by_prices(task, line, min(SHARE_FOR_PRICES * left(), SECONDS_FOR_PRICES))
    attempts = [task.program]
    if task.last_resort:
        attempts.insert(0, _without_slack(task.program, task.slack))
    for attempt, program in enumerate(attempts):
        strict = task.last_resort and attempt == 0
        status = _branch_and_bound(program, task, left, line, strict)
        if status != "infeasible":
            break
        line.say("hopeless", [])
    line.say("finished" if status in ("optimal", "infeasible") else "stopped", [])


def _bound_by_prices(task: SearchTask, line: Any, seconds: float) -> SearchTask:
    """A bound long before the relaxation is solved; returns the task with the best plan heard of meanwhile as its start."""
    assert task.units is not None
    known = task.start

    def cost_of_a_plan() -> float:
        nonlocal known
        plan = line.heard_plan()
        if plan is not None:
            known = plan[1:]
        return float(task.program.cost @ known) if len(known) else np.inf

    prices = Prices(task.units, task.program)
    prices.climb(seconds, prices.merit_order(), lambda bound: line.say("bound", [bound]), cost_of_a_plan)
    return replace(task, start=known)


def _settled(task: SearchTask, left: Callable[[], float], tell: Callable[[float], None]) -> tuple[Prices, Settled | None]:
    """Prices settled from merit order in a share of the time; None where a unit has no schedule at all."""
    assert task.units is not None
    prices = Prices(task.units, task.program)
    seconds = left()
    climbed = prices.climb(SHARE_TO_CLIMB * seconds, prices.merit_order(), tell, lambda: np.inf)
    if not np.isfinite(climbed.bound):
        return prices, None
    return prices, settle(prices, climbed.energy, climbed.reserve, SHARE_TO_SETTLE * seconds, tell)


def _prove_by_prices(task: SearchTask, line: Any, left: Callable[[], float]) -> None:
    """The bound of settled prices, and then a search for better plans beside the other one."""
    best = -np.inf

    def tell(bound: float) -> None:
        nonlocal best
        if bound > best:
            best = bound
            line.say("bound", [bound])

    prices, settled = _settled(task, left, tell)
    if settled is not None:
        exact_bound(prices, settled, task.program, task.commitment, SHARE_TO_PROVE * left(), tell)
        search = _Neighbourhoods(replace(task, seconds=left()), line, seed=2)
        search.doubt(settled)
        search.improve()
    line.say("stopped", [])


def _branch_and_bound(program: SparseProgram, task: SearchTask, left: Callable[[], float], line: Any, strict: bool) -> str:
    import highspy

    kinds = highspy.cb.HighsCallbackType
    highs = highs_with(program, threads=1, mip_rel_gap=task.gap, mip_abs_gap=1e-6, time_limit=max(0.1, left()))
    if program.n_columns > VERY_LARGE_COLUMNS:
        highs.setOptionValue("presolve_rule_off", SLOW_PRESOLVE_RULES)
    if len(task.start) and not (strict and task.start[task.slack].max(initial=0.0) > SLACK_TOLERANCE):
        _give_start(highs, task.start)
    best_bound = -np.inf

    def hear(kind: Any, message: str, out: Any, into: Any, data: Any) -> None:
        nonlocal best_bound
        if kind == kinds.kCallbackMipImprovingSolution:
            line.say("plan", np.concatenate([[out.objective_function_value], np.asarray(out.mip_solution)]))
        elif kind == kinds.kCallbackMipUserSolution:
            plan = line.heard_plan()
            better = plan is not None and plan[0] < out.mip_primal_bound - 1e-6
            if better and not (strict and plan[1:][task.slack].max(initial=0.0) > SLACK_TOLERANCE):
                into.setSolution(plan[1:])
        elif out.mip_dual_bound > best_bound and out.mip_dual_bound < 1e29:
            best_bound = out.mip_dual_bound
            line.say("bound", [best_bound])

    highs.setCallback(hear, None)
    for kind in (
        kinds.kCallbackMipImprovingSolution,
        kinds.kCallbackMipUserSolution,
        kinds.kCallbackMipInterrupt,
        kinds.kCallbackMipLogging,
    ):
        highs.startCallback(kind)
    highs.run()
    status = highs.getModelStatus()
    info = highs.getInfo()
    if status in (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible):
        return "infeasible"
    if info.primal_solution_status == 2:
        solution = np.array(highs.getSolution().col_value)
        line.say("plan", np.concatenate([[info.objective_function_value], solution]))
    bound = info.mip_dual_bound if program.is_integer.any() else info.objective_function_value
    if np.isfinite(bound) and (status == highspy.HighsModelStatus.kOptimal or program.is_integer.any()):
        line.say("bound", [bound])
    return "optimal" if status == highspy.HighsModelStatus.kOptimal else "stopped"


def _give_start(highs: Any, values: Array) -> None:
    import highspy

    start = highspy.HighsSolution()
    start.col_value = list(values)
    highs.setSolution(start)


# ---------------------------------------------------------------------- the search for better plans


def _improve(task: SearchTask, line: Any) -> None:
    """Relaxation, a first plan by fixing what the relaxation agrees on, then neighbourhoods of the best plan, until stopped."""
    search = _Neighbourhoods(task, line)
    if task.units is not None and task.program.n_columns > VERY_LARGE_COLUMNS:
        search.plan_by_prices()
        search.improve()
        return
    search.plan_by_sketch()
    if search.best is not None and search.left() < 4 * search.sketch_seconds:
        search.improve()
    elif search.relax():
        search.first_plan()
        search.improve()


class _Neighbourhoods:
    """Restricted programmes in which most commitments are held at a known plan.

    Danna, Rothberg & Le Pape (2005) for the disagreement with the relaxation; windows in time and groups of units are the decompositions
    a scheduler would think of. The size of each kind follows how fast its last programmes were solved.
    """

    def __init__(self, task: SearchTask, line: Any, seed: int = 1) -> None:
        self.task, self.line = task, line
        self.program = task.program
        self.columns = task.commitment[0]
        self.units, self.horizon = self.columns.shape
        self.begun = time.perf_counter()
        self.random = np.random.default_rng(seed)
        self.best, self.objective = None, np.inf
        self.other: Array | None = None
        if len(task.start):
            self.best, self.objective = task.start, float(self.program.cost @ task.start)
        self.relaxed: Array | None = None
        self.relaxed_objective = -np.inf
        self.relaxation_seconds = self.sketch_seconds = 0.0
        self.strict = task.last_resort  # no shortfalls, until no plan without them is found

    def left(self) -> float:
        return self.task.seconds - (time.perf_counter() - self.begun)

    def relax(self) -> bool:
        """Solves the linear relaxation; its values say which commitments are in doubt."""
        begun = time.perf_counter()
        highs = highs_with(self.program, threads=1, solve_relaxation=True, time_limit=max(0.1, self.left()))
        highs.run()
        info = highs.getInfo()
        if info.primal_solution_status != 2:
            return False
        values = np.array(highs.getSolution().col_value)
        self.relaxed = values[self.columns]
        self.relaxed_objective = info.objective_function_value
        self.relaxation_seconds = time.perf_counter() - begun
        if values[self.task.slack].max(initial=0.0) <= SLACK_TOLERANCE or not self.task.last_resort:
            self.line.say("bound", [info.objective_function_value])
        return True

    def restricted(self, free: Array, held: Array, seconds: float, gap: float) -> bool:
        """Solves with every commitment outside `free` held at `held`; True if that gave a better plan."""
        program = self.program
        lower, upper = program.lower.copy(), program.upper.copy()
        columns = self.columns[~free]
        lower[columns] = upper[columns] = np.clip(np.rint(held[~free]), lower[columns], upper[columns])
        if self.task.last_resort and self.strict and not getattr(self.line, "hopeless", False):
            upper[self.task.slack] = 0.0
        highs = highs_with(
            replace(program, lower=lower, upper=upper),
            threads=1,
            mip_rel_gap=gap,
            time_limit=max(0.1, min(seconds, self.left())),
            mip_heuristic_run_feasibility_jump=False,
        )
        if program.n_columns > VERY_LARGE_COLUMNS:
            highs.setOptionValue("presolve_rule_off", SLOW_PRESOLVE_RULES)
        if self.best is not None and (np.rint(self.best[columns]) == lower[columns]).all():
            _give_start(highs, self.best)
        highs.run()
        info = highs.getInfo()
        if info.primal_solution_status != 2 or not improves(info.objective_function_value, self.objective):
            return False
        self.accept(info.objective_function_value, np.array(highs.getSolution().col_value))
        self.line.say("plan", np.concatenate([[self.objective], self.best]))
        return True

    def accept(self, objective: float, values: Array) -> None:
        self.objective, self.best = objective, values
        self.strict = self.task.last_resort and values[self.task.slack].max(initial=0.0) <= SLACK_TOLERANCE

    def listen(self) -> None:
        """Takes over the other search's plan if it is better, and remembers its commitments."""
        plan = self.line.heard_plan()
        if plan is not None:
            self.other = plan[1:][self.columns]
            if improves(float(plan[0]), self.objective):
                self.accept(float(plan[0]), plan[1:])

    def close(self) -> bool:
        """True if a plan was found, or the one to begin from is near what the relaxation costs: no other has to be made first."""
        if self.best is None or self.best is not self.task.start:
            return self.best is not None
        return self.objective - self.relaxed_objective <= CLOSE_TO_RELAXATION * abs(self.objective)

    def in_doubt(self, tolerance: float = 1e-4) -> Array:
        """Commitments that the relaxation leaves open, by unit and interval."""
        if self.relaxed is None:
            return np.zeros(self.columns.shape, bool)
        return (self.relaxed > tolerance) & (self.relaxed < 1 - tolerance)

    def plan_by_prices(self) -> None:
        """First plans without the relaxation: what the mix of schedules at settled prices agrees on is held, the rest is open; then more
        is opened. If no plan comes of that, what one lacks is allowed at its price."""
        begun = time.perf_counter()
        _, settled = _settled(self.task, self.left, lambda bound: None)
        if settled is None:
            return
        self.doubt(settled)
        self.relaxation_seconds = 0.3 * (time.perf_counter() - begun)
        for within in FIRST_OPEN_EUR:
            held, free = settled.open_within(within, self.units)
            self.restricted(free, held, 0.3 * self.left(), 3e-4)
        if self.best is None:
            self.strict = False
            self.restricted(free, held, 0.3 * self.left(), 3e-4)

    def doubt(self, settled: Settled) -> None:
        """Takes the schedules near settled prices for the relaxation."""
        held, free = settled.open_within(OPEN_EUR, self.units)
        self.relaxed, self.relaxed_objective = np.where(free, 0.5, held), settled.value
        self.relaxation_seconds = 6.0

    def plan_by_sketch(self) -> None:
        """Solves the coarser problem and holds its commitments: a whole plan long before a fine grid's relaxation is solved."""
        sketch, columns = self.task.sketch, self.task.sketch_commitment
        if sketch is None or columns is None or self.close():
            return
        begun = time.perf_counter()
        highs = highs_with(sketch, threads=1, mip_rel_gap=2e-3, time_limit=max(0.5, 0.5 * self.left()))
        highs.run()
        self.sketch_seconds = time.perf_counter() - begun
        self.relaxation_seconds = 0.3 * self.sketch_seconds
        if highs.getInfo().primal_solution_status != 2:
            return
        commitment = np.array(highs.getSolution().col_value)[columns]
        free = np.zeros(self.columns.shape, bool)
        if not self.restricted(free, commitment, self.left(), 1e-3):
            # on the finer grid a unit may need longer to ramp down from its initial output: leave the first hours open
            free[:, : max(2, self.horizon // 8)] = True
            self.restricted(free, commitment, max(2.0, self.sketch_seconds), 2e-3)

    def first_plan(self) -> None:
        """Without a good plan yet, fixes what the relaxation agrees on: frees the commitments in doubt and their neighbours in time, then
        more if that is too few."""
        if self.close():
            return
        patience = max(6.0, 4.0 * self.relaxation_seconds)
        doubt = self.in_doubt()
        if self.relaxed is None:
            return
        self.restricted(_widened(doubt, max(2, self.horizon // 24)), self.relaxed, patience, 2e-3)
        if self.best is None:
            self.listen()
        if self.best is None:
            self.restricted(np.repeat(doubt.any(axis=1, keepdims=True), self.horizon, 1), self.relaxed, 2 * patience, 5e-3)
        if self.best is None and self.task.last_resort:
            self.strict = False

    def improve(self) -> None:
        """Neighbourhoods in turn until the asker ends the process; each grows while it is solved quickly and shrinks when it is not."""
        patience = max(2.5, 1.5 * self.relaxation_seconds)
        begin = 0.1 if self.program.n_columns > VERY_LARGE_COLUMNS else 0.25
        share = {"window": begin, "units": begin, "disagreement": 0.5, "crossover": 1.0}
        turn = 0
        while self.left() > 1.0:
            self.listen()
            if self.best is None:
                time.sleep(0.2)
                self.first_plan()
                continue
            kind = ("units", "units", "window", "units", "crossover", "units", "window", "disagreement")[turn % 8]
            turn += 1
            free = self.neighbourhood(kind, share[kind])
            if not free.any():
                continue
            begun = time.perf_counter()
            self.restricted(free, self.best[self.columns], 2.0 * patience, self.worthwhile_gap())
            took = time.perf_counter() - begun
            if took < 0.5 * patience:
                share[kind] = min(1.0, share[kind] * 1.25)
            elif took > 1.2 * patience:
                share[kind] = max(0.05, share[kind] * 0.75)

    def worthwhile_gap(self) -> float:
        """A neighbourhood that can't give a tenth of what is missing to the relaxation is left at once."""
        if self.relaxed is None:
            return 2e-4
        missing = (self.objective - self.relaxed_objective) / max(abs(self.objective), 1e-9)
        return float(np.clip(0.1 * missing, 1e-5, 1e-3))

    def neighbourhood(self, kind: str, share: float) -> Array:
        """Which commitments to free, shape (units, horizon)."""
        free = np.zeros((self.units, self.horizon), bool)
        plan = self.best[self.columns]  # type: ignore[index]
        if kind == "window":
            width = max(2, round(share * self.horizon))
            start = int(self.random.integers(-width // 2, max(1, self.horizon - width // 2)))
            free[:, max(0, start) : start + width] = True
        elif kind == "units":
            # units that the relaxation or the plan uses only at times are where a better plan may differ
            relevant = np.flatnonzero(self.in_doubt().any(axis=1) | ((plan > 0.5).any(axis=1) & (plan < 0.5).any(axis=1)))
            others = np.setdiff1d(np.arange(self.units), relevant)
            chosen = self.random.permutation(relevant)[: max(5, round(share * len(relevant)))]
            extra = self.random.permutation(others)[: len(chosen) // 2]
            free[np.concatenate([chosen, extra])] = True
        elif kind == "disagreement" and self.relaxed is not None:
            free = _widened(np.abs(self.relaxed - plan) > 1 - share, 1)
        elif kind == "crossover" and self.other is not None:
            free = _widened(np.abs(self.other - plan) > 0.5, 2)
        return free


def _widened(mask: Array, intervals: int) -> Array:
    wide = mask.copy()
    for k in range(1, intervals + 1):
        wide[:, k:] |= mask[:, :-k]
        wide[:, :-k] |= mask[:, k:]
    return wide
