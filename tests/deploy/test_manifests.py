"""What `kubectl apply -k` would send: rendered, valid to the letter, and at one with itself and with the profiles of the assets."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from assets.profiles import PROFILES, container_config
from lakehouse.site import parse_site

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
FOLDERS = ("base", "overlays/example", "overlays/with-access")
KUBERNETES = "1.32"
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl, which renders the manifests, is not installed")


@cache
def rendered(folder: str) -> tuple[dict[str, Any], ...]:
    command = ["kubectl", "kustomize", "--load-restrictor", "LoadRestrictionsNone", str(DEPLOY / "kubernetes" / folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(folder: str, kind: str) -> list[dict[str, Any]]:
    return [m for m in rendered(folder) if m["kind"] == kind]


def pod_specs(folder: str) -> dict[str, dict[str, Any]]:
    return {m["metadata"]["name"]: m["spec"]["template"]["spec"] for m in of_kind(folder, "Deployment")}


def run_launcher() -> dict[str, Any]:
    settings = yaml.safe_load((DEPLOY / "kubernetes" / "base" / "dagster.yaml").read_text(encoding="utf-8"))
    return dict(settings["run_launcher"]["config"])


@needs_kubectl
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_manifest_is_valid_to_the_letter(folder: str):
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    assert len(rendered(folder)) >= 30
    for manifest in rendered(folder):
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        assert manifest["kind"] == "Namespace" or manifest["metadata"]["namespace"] == "gridlake"


@needs_kubectl
def test_a_misspelt_key_would_be_found():
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    wrong = yaml.safe_load(yaml.safe_dump(of_kind("base", "Deployment")[0]))
    wrong["spec"]["template"]["spec"]["containers"][0]["resource"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="resource"):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


@needs_kubectl
@pytest.mark.parametrize("folder", FOLDERS)
def test_no_pod_is_privileged_and_memory_is_promised_once(folder: str):
    assert of_kind(folder, "Namespace")[0]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, pod in pod_specs(folder).items():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in pod["containers"]:
            context, resources = container["securityContext"], container["resources"]
            assert not context["allowPrivilegeEscalation"], name
            assert context["readOnlyRootFilesystem"], name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert resources["requests"]["memory"] == resources["limits"]["memory"], name
            assert container["livenessProbe"], name


@needs_kubectl
@pytest.mark.parametrize("folder", FOLDERS)
def test_whatever_is_named_is_there_or_is_a_secret_of_the_documentation(folder: str):
    told = (DEPLOY.parent / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    told += (DEPLOY.parent / "docs" / "access.md").read_text(encoding="utf-8")
    maps, accounts, claims = (
        {m["metadata"]["name"] for m in of_kind(folder, k)} for k in ("ConfigMap", "ServiceAccount", "PersistentVolumeClaim")
    )
    for pod in [
        *pod_specs(folder).values(),
        {"containers": [], "volumes": run_launcher()["volumes"], "serviceAccountName": "gridlake-run"},
    ]:
        assert pod.get("serviceAccountName", "gridlake-run") in accounts
        sources = [s for c in pod["containers"] for s in c.get("envFrom", [])]
        sources += [s for v in pod["volumes"] for s in v.get("projected", {}).get("sources", [])]
        wanted = {(s.get("configMapRef") or s.get("configMap") or {}).get("name") for s in [*sources, *pod["volumes"]]} - {None}
        assert wanted <= maps
        assert {v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v} <= claims
        for secret in {(s.get("secretRef") or s.get("secret") or {}).get("name") for s in sources} - {None}:
            assert f"create secret generic {secret}" in told
    assert set(run_launcher()["env_config_maps"]) <= maps
    assert not of_kind(folder, "Secret")


@needs_kubectl
def test_rights_are_the_least_that_the_client_uses():
    roles = {m["metadata"]["name"]: m["rules"] for m in of_kind("base", "Role")}
    assert set(roles) == {"gridlake-launch", "gridlake-stop"}
    for rules in roles.values():
        for rule in rules:
            assert set(rule["resources"]) <= {"jobs", "jobs/status", "pods", "pods/log", "events"}
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
    bound = {s["name"]: b["roleRef"]["name"] for b in of_kind("base", "RoleBinding") for s in b["subjects"]}
    assert bound == {"gridlake-daemon": "gridlake-launch", "gridlake-run": "gridlake-launch", "gridlake-webserver": "gridlake-stop"}
    assert not of_kind("base", "ClusterRole")


@needs_kubectl
def test_only_the_proxy_reaches_a_webserver():
    policies = {m["metadata"]["name"]: m["spec"] for m in of_kind("overlays/with-access", "NetworkPolicy")}
    assert policies["nothing-by-default"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    admitting = {name: p for name, p in policies.items() if p.get("ingress") and "webserver" in str(p["podSelector"])}
    assert list(admitting) == ["webservers-behind-proxy"]
    sources = admitting["webservers-behind-proxy"]["ingress"][0]["from"]
    assert sources == [{"podSelector": {"matchLabels": {"gridlake/role": "proxy"}}}]
    assert not [s for s in of_kind("overlays/with-access", "Service") if s["spec"].get("type", "ClusterIP") != "ClusterIP"]
    viewer = pod_specs("base")["gridlake-viewer"]["containers"][0]["args"]
    assert "--read-only" in viewer


def test_a_run_pod_is_the_small_profile():
    shipped = run_launcher()["run_k8s_config"]["container_config"]
    small = container_config(PROFILES["small"])
    assert shipped["resources"] == small["resources"]
    assert shipped["env"] == small["env"]
    helm = yaml.safe_load((DEPLOY / "helm" / "values.yaml").read_text(encoding="utf-8"))
    container = helm["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]["containerConfig"]
    assert container == {"resources": small["resources"], "env": small["env"]}


def test_the_chart_has_the_same_queue_pools_and_logs():
    shipped = yaml.safe_load((DEPLOY / "kubernetes" / "base" / "dagster.yaml").read_text(encoding="utf-8"))
    helm = yaml.safe_load((DEPLOY / "helm" / "values.yaml").read_text(encoding="utf-8"))
    runs, pools, logs = helm["concurrency"]["runs"], helm["concurrency"]["pools"], helm["pythonLogs"]
    as_in_dagster_yaml = {
        "runs": {"max_concurrent_runs": runs["maxConcurrentRuns"], "tag_concurrency_limits": runs["tagConcurrencyLimits"]},
        "pools": {"default_limit": pools["defaultLimit"], "granularity": pools["granularity"]},
    }
    assert as_in_dagster_yaml == shipped["concurrency"]
    assert list(logs.values()) == [
        shipped["python_logs"][name] for name in ("managed_python_loggers", "python_log_level", "dagster_handler_config")
    ]


@needs_kubectl
def test_the_namespace_has_room_for_as_many_runs_as_are_allowed():
    quota = of_kind("base", "ResourceQuota")[0]["spec"]["hard"]
    settings = yaml.safe_load((DEPLOY / "kubernetes" / "base" / "dagster.yaml").read_text(encoding="utf-8"))
    runs = settings["concurrency"]["runs"]["max_concurrent_runs"]
    run = PROFILES["small"].memory_mib + max(p.memory_mib for p in PROFILES.values())
    standing = sum(int(c["resources"]["limits"]["memory"].removesuffix("Mi")) for p in pod_specs("base").values() for c in p["containers"])
    assert runs * run + standing <= int(quota["limits.memory"].removesuffix("Gi")) * 1024


def test_dagsters_settings_are_such_as_dagster_takes(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("dagster_k8s")
    from dagster._config import process_config
    from dagster._core.instance.config import dagster_instance_config_schema
    from dagster_k8s import K8sRunLauncher

    monkeypatch.setenv("GRIDLAKE_IMAGE", "gridlake:0.1.0")
    monkeypatch.setenv("GRIDLAKE_POSTGRES_URL", "postgresql+psycopg2://somebody@localhost/dagster")
    settings = yaml.safe_load((DEPLOY / "kubernetes" / "base" / "dagster.yaml").read_text(encoding="utf-8"))
    whole = process_config(dagster_instance_config_schema(), settings)
    assert whole.success, whole.errors
    launcher = process_config(K8sRunLauncher.config_type(), settings["run_launcher"]["config"])
    assert launcher.success, launcher.errors


@pytest.mark.parametrize("folder", ["base", "overlays/example"])
def test_the_shipped_site_file_is_a_site_with_its_lake_on_an_object_store(folder: str):
    path = DEPLOY / "kubernetes" / folder / "gridlake.yaml"
    site = parse_site(path.read_text(encoding="utf-8"), path)
    assert site.lake_uri.startswith("s3://")
    assert site.path("landing") == Path("/site/landing")


def test_the_image_runs_as_nobody_in_particular_with_locked_versions():
    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^USER 10001:10001$", lines, re.M)
    assert "--constraint constraints.txt" in lines
    # a read-only pod that had to compile would do so at every start
    assert "PYTHONDONTWRITEBYTECODE=1" in lines
    assert re.search(r"^RUN .*compileall .*unchecked-hash /opt/gridlake$", lines, re.M)
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", lines, re.M):
        for name in source.split():
            assert (DEPLOY.parent / name).exists(), name
