"""A stand-in for a Kubernetes cluster: the part of its API that Dagster's run launcher and step executor speak to, over HTTP.

Jobs and their pods are kept in memory; a pod's container runs as a local process, with its environment, its log, and its memory
limit. Tests bring misfortune on pods and on the API itself. It knows nothing of scheduling, networks or volumes, admits no
retries of a Job (`backoffLimit` must be 0, as Dagster sets it), and checks neither identity nor permissions: manifests are
validated elsewhere, against the schemas that every submitted Job is validated against here too.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

NAMESPACE = "gridlake"
SCHEMA_VERSION = "1.32"
WATCH_SECONDS = 0.05
ROUTE = re.compile(
    r"^/(?:api/v1|apis/batch/v1)/namespaces/(?P<namespace>[^/]+)/(?P<kind>jobs|pods|events)(?:/(?P<name>[^/]+))?(?:/(?P<sub>\w+))?$"
)
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@dataclass(frozen=True)
class Misfortune:
    """What befalls a pod: "killed", "out of memory", "evicted" or "stuck"; but for the last, once its log has a text."""

    kind: str
    once_log_has: str = ": begun"


class RefusedError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


@dataclass
class Pod:
    """A pod with its process, once it has one."""

    body: dict[str, Any]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    evicted: bool = False
    out_of_memory: bool = False

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])

    @property
    def job(self) -> str:
        return str(self.body["metadata"]["labels"]["job-name"])

    @property
    def component(self) -> str:
        """What Dagster says it is: run_worker or step_worker."""
        return str(self.body["metadata"]["labels"].get("app.kubernetes.io/component"))

    @property
    def memory_limit(self) -> str:
        """As its Job says it."""
        return str(self.body["spec"]["containers"][0]["resources"]["limits"]["memory"])


@dataclass
class Cluster:
    """One namespace.

    Args:
        folder: for the pods' logs.
        environment: of every container, before what its Job says: what an image would bring.
        secrets: name → variables, for `envFrom`.
    """

    folder: Path
    environment: Mapping[str, str]
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    misfortunes: dict[str, deque[Misfortune]] = field(default_factory=dict)
    """Component → what befalls its next pods, one after the other."""
    befallen: list[str] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    most_at_once: int = 0
    down: bool = False
    refuse_creations: int = 0
    delay_seconds: float = 0.0
    lock: threading.RLock = field(default_factory=threading.RLock)

    # -- what the API does

    def answer(self, verb: str, path: str, query: dict[str, list[str]], body: dict[str, Any]) -> Any:
        """The answer to a request, as JSON or text."""
        route = ROUTE.match(path)
        if not route or route["namespace"] != NAMESPACE:
            raise RefusedError(404, "NotFound", f"the server could not find the requested resource {path}")
        kind, name, sub = route["kind"], route["name"], route["sub"]
        with self.lock:
            self.requests[f"{verb} {kind}{'/' + sub if sub else ''}"] += 1
            if verb == "POST" and kind == "jobs":
                return self._create(body)
            if verb == "DELETE" and name:
                return self._delete(kind, name, body.get("propagationPolicy") or query.get("propagationPolicy", [""])[0])
            if verb == "GET" and not name:
                return _listed(kind, self._selected(kind, query))
            if verb == "GET" and name:
                found = self._found(kind, name)
                return self.pods[name].log.read_text(errors="replace") if sub == "log" else found
        raise RefusedError(405, "MethodNotAllowed", f"{verb} {path}")

    def _create(self, job: dict[str, Any]) -> dict[str, Any]:
        if self.refuse_creations > 0:
            self.refuse_creations -= 1
            raise RefusedError(503, "ServiceUnavailable", "the apiserver is overloaded")
        name = job["metadata"]["name"]
        if fault := _fault_of(job):
            raise RefusedError(422, "Invalid", f'Job.batch "{name}" is invalid: {fault}')
        if name in self.jobs:
            raise RefusedError(409, "AlreadyExists", f'jobs.batch "{name}" already exists')
        job["metadata"] |= {"uid": str(uuid.uuid4()), "namespace": NAMESPACE, "creationTimestamp": _now()}
        job["status"] = {"active": 1, "startTime": _now()}
        self.jobs[name] = job
        pod = self._pod_of(job)
        self.pods[pod.name] = pod
        self._tell(pod.body, "Scheduled", f"Successfully assigned {NAMESPACE}/{pod.name} to this machine")
        threading.Thread(target=self._run, args=(pod, job), daemon=True).start()
        return job

    def _pod_of(self, job: dict[str, Any]) -> Pod:
        template = json.loads(json.dumps(job["spec"]["template"]))
        name = f"{job['metadata']['name']}-{uuid.uuid4().hex[:5]}"
        labels = template["metadata"].get("labels", {}) | {"job-name": job["metadata"]["name"]}
        owner = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": job["metadata"]["name"],
            "uid": job["metadata"]["uid"],
            "controller": True,
        }
        metadata = {"name": name, "namespace": NAMESPACE, "uid": str(uuid.uuid4()), "labels": labels, "ownerReferences": [owner]}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata | {"creationTimestamp": _now()},
            "spec": template["spec"],
            "status": {"phase": "Pending", "startTime": _now(), "containerStatuses": []},
        }
        log = self.folder / f"{name}.log"
        log.touch()
        return Pod(body, log)

    def _selected(self, kind: str, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        everything = {"jobs": list(self.jobs.values()), "pods": [p.body for p in self.pods.values()], "events": self.events}[kind]
        conditions = [(c, False) for c in ",".join(query.get("fieldSelector", [])).split(",") if c]
        conditions += [(c, True) for c in ",".join(query.get("labelSelector", [])).split(",") if c]
        for condition, is_label in conditions:
            path, _, wanted = condition.replace("==", "=").partition("=")
            everything = [o for o in everything if (o["metadata"].get("labels", {}).get(path) if is_label else _at(o, path)) == wanted]
        return everything

    def _found(self, kind: str, name: str) -> dict[str, Any]:
        found = self.jobs.get(name) if kind == "jobs" else self.pods[name].body if kind == "pods" and name in self.pods else None
        if found is None:
            raise RefusedError(404, "NotFound", f'{kind} "{name}" not found')
        return found

    def _delete(self, kind: str, name: str, propagation: str) -> dict[str, Any]:
        found = self._found(kind, name)
        if kind == "jobs":
            del self.jobs[name]
            if propagation in ("Background", "Foreground"):  # without a word the real API leaves a Job's pods behind
                for pod in [p for p in self.pods.values() if p.job == name]:
                    self._delete("pods", pod.name, propagation)
        else:
            pod = self.pods.pop(name)
            if pod.process is not None:
                _signal(pod.process, signal.SIGTERM)
                threading.Timer(5, _signal, (pod.process, signal.SIGKILL)).start()
            for job in [j for j in self.jobs.values() if _belongs_to(j, found)]:  # the garbage collector's part
                self._delete("jobs", job["metadata"]["name"], "Background")
        return found

    def _tell(self, about: dict[str, Any], reason: str, message: str, kind: str = "Normal") -> None:
        reference = {"kind": about["kind"], "name": about["metadata"]["name"], "namespace": NAMESPACE, "uid": about["metadata"]["uid"]}
        times = {"firstTimestamp": _now(), "lastTimestamp": _now(), "count": 1}
        self.events.append(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": uuid.uuid4().hex, "namespace": NAMESPACE, "labels": {}},
                "type": kind,
            }
            | {"reason": reason, "message": message, "involvedObject": reference, "source": {"component": "stand-in"}}
            | times
        )

    # -- what a node does

    def _run(self, pod: Pod, job: dict[str, Any]) -> None:
        container = pod.body["spec"]["containers"][0]
        with self.lock:
            waiting = self.misfortunes.get(pod.component)
            fate = waiting.popleft() if waiting else None
        if fate and fate.kind == "stuck":
            self.befallen.append(f"{pod.component} stuck")
            self._tell(pod.body, "FailedScheduling", "0/1 nodes are available: 1 Insufficient memory.", "Warning")
            return
        command = [*container.get("command", []), *container.get("args", [])]
        with pod.log.open("wb") as log:
            pod.process = subprocess.Popen(
                command, env=self._environment_of(pod, container), stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        self._set(pod, "Running", {"running": {"startedAt": _now()}})
        with self.lock:
            running = sum(p.process is not None and p.process.poll() is None for p in self.pods.values())
            self.most_at_once = max(self.most_at_once, running)
        limit = _bytes_of(container.get("resources", {}).get("limits", {}).get("memory"))
        while pod.process.poll() is None:
            if fate and fate.once_log_has in pod.log.read_text(errors="replace"):
                self.befallen.append(f"{pod.component} {fate.kind}")
                limit = 1 if fate.kind == "out of memory" else limit
                pod.evicted = fate.kind == "evicted"
                if fate.kind != "out of memory":
                    _signal(pod.process, signal.SIGKILL)
                fate = None
            if limit and _resident_bytes(pod.process.pid) > limit:
                pod.out_of_memory = True
                _signal(pod.process, signal.SIGKILL)
            time.sleep(WATCH_SECONDS)
        self._end(pod, job, pod.process.returncode)

    def _environment_of(self, pod: Pod, container: dict[str, Any]) -> dict[str, str]:
        environment = dict(self.environment) | {"HOSTNAME": pod.name}
        for source in container.get("envFrom", []):
            environment |= self.secrets[source["secretRef"]["name"]]
        return environment | {e["name"]: e.get("value") or "" for e in container.get("env", [])}

    def _end(self, pod: Pod, job: dict[str, Any], code: int) -> None:
        reason = "Completed" if code == 0 else "OOMKilled" if pod.out_of_memory else "Error"
        self._set(pod, "Failed" if code else "Succeeded", {"terminated": {"exitCode": abs(code), "reason": reason, "finishedAt": _now()}})
        if pod.evicted:
            pod.body["status"] |= {"reason": "Evicted", "message": "The node was low on resource: memory."}
            self._tell(pod.body, "Evicted", "The node was low on resource: memory.", "Warning")
        with self.lock:
            job["status"] = {"startTime": job["status"]["startTime"]} | (
                {"failed": 1} if code else {"succeeded": 1, "completionTime": _now()}
            )
            condition = "Failed" if code else "Complete"
            job["status"]["conditions"] = [{"type": condition, "status": "True", "lastTransitionTime": _now()}]
            if code:
                self._tell(job, "BackoffLimitExceeded", "Job has reached the specified backoff limit", "Warning")

    def _set(self, pod: Pod, phase: str, state: dict[str, Any]) -> None:
        container = pod.body["spec"]["containers"][0]
        one = {"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0, "ready": "running" in state}
        with self.lock:
            pod.body["status"] |= {"phase": phase, "containerStatuses": [one | {"state": state, "lastState": {}}]}

    # -- what tests ask

    def is_idle(self) -> bool:
        """Whether no pod's process is at work, and each that ended has been told of."""
        return all(p.process is None or "terminated" in p.body["status"]["containerStatuses"][0]["state"] for p in list(self.pods.values()))

    def reasons(self) -> set[str]:
        """Why containers ended."""
        states = [s["state"] for p in list(self.pods.values()) for s in p.body["status"]["containerStatuses"]]
        return {s["terminated"]["reason"] for s in states if "terminated" in s}

    def pods_of(self, run: str) -> list[Pod]:
        """The pods of a run and of its steps."""
        return [p for p in list(self.pods.values()) if p.body["metadata"]["labels"].get("dagster/run-id") == run]

    def stop(self) -> None:
        """Ends the processes of all pods."""
        with self.lock:
            for pod in self.pods.values():
                if pod.process is not None and pod.process.poll() is None:
                    _signal(pod.process, signal.SIGKILL)


@contextmanager
def running_cluster(folder: Path, environment: Mapping[str, str]) -> Iterator[tuple[Cluster, Path]]:
    """Serves a cluster on loopback; yields it and the path of a kubeconfig that leads to it."""
    (folder / "logs").mkdir(parents=True)
    cluster = Cluster(folder / "logs", environment)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(cluster))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kubeconfig = folder / "kubeconfig"
    context = {"cluster": "here", "user": "nobody", "namespace": NAMESPACE}
    written = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "here", "context": context}],
    }
    kubeconfig.write_text(json.dumps(written), encoding="utf-8")
    try:
        yield cluster, kubeconfig
    finally:
        server.shutdown()
        server.server_close()
        cluster.stop()


def _handler_of(cluster: Cluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *told: object) -> None:
            pass

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else b""
            if cluster.down:
                self.close_connection = True  # no answer at all
                return
            time.sleep(cluster.delay_seconds)
            address = urlsplit(self.path)
            try:
                status, told = 200, cluster.answer(self.command, address.path, parse_qs(address.query), json.loads(body or b"{}"))
            except RefusedError as refused:
                status = refused.status
                told = {"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": status}
                told |= {"reason": refused.reason, "message": refused.message}
            text = told if isinstance(told, str) else json.dumps(told)
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(told, str) else "application/json")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_DELETE = answer  # noqa: N815

    return Handler


def _fault_of(job: dict[str, Any]) -> str:
    """What the schema, or a rule that the schema doesn't tell, has against a Job."""
    import kubernetes_validate

    try:
        kubernetes_validate.validate(job, SCHEMA_VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}"
    name = job["metadata"]["name"]
    if len(name) > 63 or not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name):
        return f"metadata.name: '{name}'"
    labels = job["metadata"].get("labels", {}) | job["spec"]["template"]["metadata"].get("labels", {})
    for key, value in labels.items():
        if not re.fullmatch(r"(?=.{0,63}$)([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?", value):
            return f"metadata.labels.{key}: '{value}'"
    if job["spec"].get("backoffLimit") != 0:
        return "spec.backoffLimit: this stand-in knows only 0"
    for container in job["spec"]["template"]["spec"]["containers"]:
        resources = container.get("resources", {})
        if resources.get("requests", {}).get("memory") != resources.get("limits", {}).get("memory"):
            return f"resources: memory is requested and limited differently: {resources}"
    return ""


def _listed(kind: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    version = "batch/v1" if kind == "jobs" else "v1"
    return {
        "apiVersion": version,
        "kind": {"jobs": "JobList", "pods": "PodList", "events": "EventList"}[kind],
        "metadata": {},
        "items": items,
    }


def _belongs_to(job: dict[str, Any], owner: dict[str, Any]) -> bool:
    return any(r["uid"] == owner["metadata"]["uid"] for r in job["metadata"].get("ownerReferences", []))


def _at(found: Any, path: str) -> Any:
    for key in path.split("."):
        found = (found or {}).get(key)
    return found


def _bytes_of(quantity: str | None) -> int:
    return int(quantity[:-2]) * UNITS[quantity[-2:]] if quantity else 0


def _resident_bytes(session: int) -> int:
    """Memory of all processes that belong to a container's session."""
    pages = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                if os.getsid(int(entry.name)) == session:
                    pages += int(Path(f"/proc/{entry.name}/statm").read_text().split()[1])
            except (ProcessLookupError, FileNotFoundError):
                continue
    return pages * os.sysconf("SC_PAGE_SIZE")


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Condition = Callable[[], bool]


def wait_until(condition: Condition, seconds: float, what: str) -> None:
    """Waits, and says what it waited for if that doesn't come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for: {what}"
        time.sleep(0.2)
