"""The manifests of every overlay: valid for several versions of Kubernetes, hardened, and as `kubectl` renders them."""

from __future__ import annotations

import ipaddress
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.deploy.__main__ import OVERLAYS, UNSET, names
from pipelines.deploy.kustomize import pod_specs, render
from pipelines.errors import BadInput
from pipelines.launch.cluster import Cluster
from pipelines.launch.render import render as render_job
from pipelines.launch.spec import JobSpec, Resources
from tests.assets.toy_stage import ToySpec
from tests.launch.apiserver.admission import DIGEST, restricted, unhardened, valid

Manifest = dict[str, Any]
WITHOUT_SCHEMA = {"ResourceFlavor", "ClusterQueue", "LocalQueue"}
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=names())
def overlay(request: pytest.FixtureRequest) -> Path:
    return OVERLAYS / request.param


@pytest.fixture
def rendered(overlay: Path) -> list[Manifest]:
    return render(overlay)


def of_kind(rendered: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {item["metadata"]["name"]: item for item in rendered if item["kind"] == kind}


def settings(rendered: list[Manifest]) -> Cluster:
    """The cluster's file, as the pods will find it."""
    document = yaml.safe_load(of_kind(rendered, "ConfigMap")["cluster"]["data"]["cluster.yaml"])
    return Cluster.model_validate(document).checked("cluster.yaml")


def test_every_object_is_valid_for_every_version(rendered: list[Manifest]) -> None:
    assert len(rendered) > 40
    for item in rendered:
        if item["kind"] not in WITHOUT_SCHEMA:
            valid(item)


def test_every_pod_is_restricted_pinned_by_digest_and_limited(rendered: list[Manifest]) -> None:
    specs = [(item["metadata"]["name"], spec) for item in rendered for spec in pod_specs(item)]
    assert {name for name, _ in specs} == {
        "postgres", "code-server", "daemon", "webserver", "viewer", "proxy",
    }  # fmt: skip
    for name, spec in specs:
        assert restricted(spec) + unhardened(spec) == [], name


def test_every_pod_has_an_account_a_policy_for_what_comes_in_and_what_goes_out(
    rendered: list[Manifest],
) -> None:
    accounts = of_kind(rendered, "ServiceAccount")
    policies = of_kind(rendered, "NetworkPolicy")
    denied = policies["default-deny"]["spec"]
    assert denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for item in rendered:
        for spec in pod_specs(item):
            assert spec["serviceAccountName"] in accounts


def test_only_accounts_that_call_the_api_have_a_token(rendered: list[Manifest]) -> None:
    bound = {
        subject["name"] for item in of_kind(rendered, "RoleBinding").values() for subject in item["subjects"]
    }
    assert bound == {"run-worker", "daemon", "webserver"}
    for item in rendered:
        for spec in pod_specs(item):
            assert spec["automountServiceAccountToken"] is (spec["serviceAccountName"] in bound)


def test_the_downloader_reaches_no_private_address_and_gpu_pods_no_internet(rendered: list[Manifest]) -> None:
    policies = of_kind(rendered, "NetworkPolicy")
    blocks = [peer["ipBlock"] for rule in policies["downloader"]["spec"]["egress"] for peer in rule["to"]]
    for address in (
        "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "127.0.0.1",
        "168.63.129.16", "192.0.0.192", "0.1.2.3", "::1", "fd00:ec2::254", "fe80::1", "::ffff:10.0.0.1",
    ):  # fmt: skip
        assert not any(_covers(block, ipaddress.ip_address(address)) for block in blocks), address
    for address in ("93.184.216.34", "2606:2800:220:1::1"):
        assert any(_covers(block, ipaddress.ip_address(address)) for block in blocks), address
    workers = [
        peer["ipBlock"]
        for rule in policies["workers"]["spec"]["egress"]
        for peer in rule["to"]
        if "ipBlock" in peer
    ]
    assert not any(_covers(block, ipaddress.ip_address("93.184.216.34")) for block in workers)


def _covers(block: Manifest, address: Any) -> bool:
    def holds(network: str) -> bool:
        parsed = ipaddress.ip_network(network)
        return parsed.version == address.version and address in parsed

    return holds(block["cidr"]) and not any(holds(part) for part in block.get("except", []))


def test_a_training_job_of_every_overlay_is_valid_and_admitted(
    overlay: Path, rendered: list[Manifest]
) -> None:
    cluster = settings(rendered)
    resources = Resources(nodes=4, gpus=8, cpus=90, memory="900Gi", shared_memory="64Gi", spot=True)
    job = JobSpec("chat/pretrained", "pipelines.training.pretrain", ToySpec(output=Path("/x")), distributed=True, resources=resources)  # fmt: skip
    made = render_job(job, cluster, 0)
    valid(made.job)
    assert made.service is not None
    valid(made.service)
    spec = made.job["spec"]["template"]["spec"]
    faults = restricted(spec) + unhardened(spec)
    if overlay.name == "infiniband":
        # What the overlay's own admission policy allows to GPU pods, and nothing else.
        assert faults == ["unrestricted capabilities (container 'main')"]
        assert spec["containers"][0]["securityContext"]["capabilities"] == {
            "drop": ["ALL"],
            "add": ["IPC_LOCK"],
        }
        assert cluster.namespace in of_kind(rendered, "Namespace")
    else:
        assert faults == []
    assert spec["automountServiceAccountToken"] is False
    assert spec["serviceAccountName"] in of_kind(rendered, "ServiceAccount")
    assert spec["priorityClassName"] in of_kind(rendered, "PriorityClass")
    if cluster.queue:
        assert cluster.queue in of_kind(rendered, "LocalQueue")


def test_the_jobs_of_the_launcher_match_the_network_policies(rendered: list[Manifest]) -> None:
    """A pod whose role no policy names could neither resolve names nor reach the store."""
    cluster = settings(rendered)
    for module, gpus, role in (
        ("pipelines.training.pretrain", 8, "gpu"), ("pipelines.download", 0, "downloader"), ("pipelines.filter", 0, "data"),
    ):  # fmt: skip
        job = JobSpec("x", module, ToySpec(output=Path("/x")), resources=Resources(gpus=gpus))
        template = render_job(job, cluster, 0).job["spec"]["template"]
        assert template["metadata"]["labels"]["vlm/role"] == role


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_our_rendering_is_that_of_kubectl(overlay: Path, rendered: list[Manifest]) -> None:
    done = subprocess.run(["kubectl", "kustomize", str(overlay)], capture_output=True, text=True, check=True)
    theirs = [item for item in yaml.safe_load_all(done.stdout) if item]

    def ordered(items: list[Manifest]) -> list[str]:
        return sorted(json.dumps(item, sort_keys=True) for item in items)

    assert ordered(rendered) == ordered(theirs)


def test_the_command_prints_all_manifests_and_says_what_a_person_has_to_put_in() -> None:
    command = [sys.executable, "-m", "pipelines.deploy", "kueue"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert list(yaml.safe_load_all(done.stdout)) == render(OVERLAYS / "kueue")
    assert "no digest is set for" in done.stderr
    assert "registry.example/vlm/gpu" in done.stderr
    refused = subprocess.run([*command, "--ready"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert refused.returncode == 42
    assert UNSET not in refused.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("commonLabels: {a: b}", "commonLabels: unknown key"),
        ("resources: [nowhere.yaml]", "does not exist"),
        ("resources: [a.yaml]\nimages: [{name: other, digest: 'sha256:" + "1" * 64 + "'}]", "no container has the image"),
        ("resources: [a.yaml]\npatches: [{target: {kind: Pod, name: other}, patch: '[]'}]", "a patch has no target"),
        ("resources: [a.yaml, a.yaml]", "there twice"),
        ("configMapGenerator: [{name: c, literals: [a=b]}]", "names with a suffix"),
        (
            "resources: [a.yaml]\npatches:\n  - target: {kind: Namespace, name: x}\n"
            "    patch: '[{op: replace, path: /metadata/nowhere/b, value: 1}]'",
            "not there: /metadata/nowhere/b",
        ),
    ],
)  # fmt: skip
def test_what_the_renderer_does_not_understand_it_refuses(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("{apiVersion: v1, kind: Namespace, metadata: {name: x}}")
    head = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
    (tmp_path / "kustomization.yaml").write_text(head + text)
    with pytest.raises(BadInput, match=words):
        render(tmp_path)


def test_every_image_is_named_by_a_digest(rendered: list[Manifest]) -> None:
    for item in rendered:
        for spec in pod_specs(item):
            for container in spec["containers"]:
                assert DIGEST.fullmatch(container["image"])
    factory = of_kind(rendered, "ConfigMap")["factory"]["data"]
    assert DIGEST.fullmatch(factory["ORCHESTRATOR_IMAGE"])


def helm_values() -> Manifest:
    found: Manifest = yaml.safe_load((ROOT / "k8s/helm/values.yaml").read_text())
    return found


def test_the_charts_instance_launches_runs_as_the_one_of_the_manifests_does() -> None:
    """Above all: what a run's tags may change of its pod, and whose account it has."""
    values, deployed = helm_values(), yaml.safe_load((ROOT / "k8s/base/dagster.yaml").read_text())
    assert values["runLauncher"]["type"] == "CustomRunLauncher"
    assert values["runLauncher"]["config"]["customRunLauncher"] == deployed["run_launcher"]
    assert values["additionalInstanceConfig"]["run_retries"] == deployed["run_retries"]
    assert values["dagsterDaemon"]["runRetries"] == {"enabled": False}, "or the key would stand there twice"
    assert values["global"]["dagsterHome"] == deployed["run_launcher"]["config"]["dagster_home"]
    (server,) = values["dagster-user-deployments"]["deployments"]
    assert server["includeConfigInLaunchedRuns"] == {"enabled": False}
