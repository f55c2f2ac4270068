"""Requests that a cluster cannot serve: each is refused with what is wrong, where, and what to do about it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
import yaml
from kubernetes.client.exceptions import ApiException

from assets.graph import graph
from assets.preflight import preflight
from pipelines.errors import BAD_INPUT_EXIT_CODE, BadInput
from pipelines.lake.location import check_usable
from pipelines.launch import naming
from pipelines.launch.api import Api
from pipelines.launch.cluster import Cluster, Volume, read_cluster
from pipelines.launch.kubernetes import KubernetesLauncher
from pipelines.launch.preflight import image_missing, problems
from pipelines.launch.refusals import explained
from pipelines.launch.render import render
from pipelines.launch.spec import JobSpec, Report, Resources
from pipelines.launch.start import start_or_find
from pipelines.recipe import read_recipe
from tests.assets.toy_stage import ToySpec
from tests.dagster_home import TINY_RECIPE, Home
from tests.launch.apiserver.cluster import IMAGE, FakeCluster
from tests.launch.conftest import messages
from tests.launch.test_kubernetes_toy import SMALL, job, run_in_thread
from tests.object_store import ENVIRONMENT, s3_server


def refusal(cluster: Cluster, wanted: JobSpec) -> str:
    with pytest.raises(BadInput) as raised:
        KubernetesLauncher(cluster).run(wanted, lambda report: None)
    return str(raised.value)


def test_a_kubeconfig_that_is_not_there_or_lacks_the_context_is_named(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    missing = refusal(cluster.settings(kubeconfig=tmp_path / "nowhere"), job(tmp_path))
    assert "no usable kubeconfig" in missing and "nowhere" in missing and "get-contexts" in missing
    other = refusal(cluster.settings(context="production"), job(tmp_path))
    assert "production" in other


@pytest.mark.parametrize("text", ["clusters: [a", "hello", ""])
def test_a_file_that_is_no_kubeconfig_is_named(text: str, cluster: FakeCluster, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    words = refusal(cluster.settings(kubeconfig=path), job(tmp_path))
    assert "there is no usable kubeconfig" in words and str(path) in words and "get-contexts" in words


def test_one_whom_the_cluster_does_not_know_is_told_to_log_in_and_not_to_grant_rights() -> None:
    message = 'jobs.batch is forbidden: User "system:anonymous" cannot list resource "jobs"'
    answer = ApiException(403, "Forbidden")
    answer.body = json.dumps({"message": message})
    words = str(explained(answer, "list jobs", server="https://k", found="kubeconfig", namespace="vlm"))
    assert "does not know who asks" in words and "kubectl auth whoami" in words and "rbac" not in words


def test_a_server_that_does_not_answer_is_not_waited_for_long(cluster: FakeCluster, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    document = yaml.safe_load(cluster.kubeconfig().read_text())
    document["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:9"
    path.write_text(yaml.safe_dump(document))
    words = refusal(cluster.settings(kubeconfig=path, patience_seconds=1.0), job(tmp_path))
    assert "cannot be reached" in words and "127.0.0.1:9" in words and "kubectl cluster-info" in words


def test_credentials_that_are_not_known_are_told_from_rights_that_lack(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    unknown = refusal(cluster.settings("expired"), job(tmp_path))
    assert "does not know these credentials" in unknown
    forbidden = refusal(cluster.settings("gpu-worker"), job(tmp_path))
    assert "system:serviceaccount:vlm:gpu-worker may not list jobs" in forbidden
    assert "k8s/base/rbac.yaml" in forbidden


def test_a_refusal_names_the_key_of_the_recipe_that_asks(cluster: FakeCluster, tmp_path: Path) -> None:
    wanted = replace(job(tmp_path, Resources(nodes=2)), stage="clip_scores")
    assert "recipe: resources.clip_scores.nodes" in refusal(cluster.settings(), wanted)


def test_a_namespace_that_does_not_exist_is_named(cluster: FakeCluster, tmp_path: Path) -> None:
    words = refusal(cluster.settings("admin", namespace="elsewhere"), job(tmp_path))
    assert "namespace 'elsewhere' does not exist" in words and "make k8s-render" in words


def test_an_unknown_queue_is_named_before_anything_is_created(cluster: FakeCluster, tmp_path: Path) -> None:
    words = refusal(cluster.settings(), job(tmp_path, Resources(**{**SMALL.model_dump(), "queue": "h100"})))
    assert "queue 'h100' does not exist" in words and "get localqueues" in words
    assert cluster.created("Job") == []


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"gpus": 16}, "gpus: 16 for each node, and the largest node has 8"),
        ({"gpus": 8, "memory": "4Ti"}, "memory: 4Ti for each node, and the largest node has 1Ti"),
        ({"gpus": 8, "nodes": 9}, "9 nodes with 8 GPUs are 72, and a job may hold 64"),
        ({"memory": "1Gi", "shared_memory": "2Gi"}, "shared_memory 2Gi is more than memory 1Gi"),
        ({"nodes": 2}, "has no ranks that could work as a group"),
    ],
)
def test_a_request_that_can_never_be_met_is_refused_at_once(
    asked: dict[str, object], words: str, cluster: FakeCluster, tmp_path: Path
) -> None:
    capacity = {"cpus": 96, "memory": "1Ti", "gpus": 8}
    settings = cluster.settings(gpu={"capacity": capacity}, max_gpus=64)
    assert words in refusal(settings, job(tmp_path, Resources(**asked)))  # type: ignore[arg-type]
    assert cluster.created("Job") == []


def test_what_the_cluster_refuses_when_it_makes_the_pods_is_told_too(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    wrong_class = refusal(cluster.settings(priority="urgent"), job(tmp_path))
    assert "priority class 'urgent' does not exist" in wrong_class
    account = refusal(cluster.settings(data_service_account="nobody"), job(tmp_path))
    assert "service account 'nobody' does not exist" in account
    capability = refusal(cluster.settings(cpu={"capabilities": ["IPC_LOCK"]}), job(tmp_path))
    assert "admits no such pod" in capability and "unrestricted capabilities" in capability
    cluster.add("ResourceQuota", "resourcequotas", "small", spec={"hard": {"requests.memory": "1Gi"}})
    quota = refusal(cluster.settings(), job(tmp_path))
    assert "more than the namespace's whole quota" in quota
    assert cluster.left() == []


def test_a_rule_that_admits_no_such_pod_is_told_and_ends_the_wait(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    limits = {"limits": [{"type": "Container", "max": {"cpu": "500m"}}]}
    cluster.add("LimitRange", "limitranges", "small", spec=limits)
    words = refusal(cluster.settings(), job(tmp_path))
    assert "maximum cpu usage per Container is 500m, but limit is 1" in words and "get limitranges" in words
    cluster.store.remove("limitranges", "vlm", "small")
    policy = (
        "ValidatingAdmissionPolicy 'owners' with binding 'owners' denied request: a pod must name its owner"
    )
    cluster.controllers.policy = policy
    assert policy in refusal(cluster.settings(), job(tmp_path))
    assert cluster.left() == []


def test_a_quota_that_others_fill_is_waited_for_and_told(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.add("ResourceQuota", "resourcequotas", "full", spec={"hard": {"requests.memory": "3Gi"}})
    reports: list[Report] = []
    # Another's pod, for which there is no node.
    cluster.kubelet.hold = True
    other = KubernetesLauncher(cluster.settings())
    first = start_or_find(other.api, other.cluster, replace(job(tmp_path), name="other"))
    cluster.wait_for(lambda: cluster.pods(), "the pod of the other job")
    run = run_in_thread(cluster, job(tmp_path), reports, start_patience_seconds=0.0)
    cluster.wait_for(
        lambda: "0 of 1 pods are created: Error creating: pods" in messages(reports), "the reason"
    )
    assert "exceeded quota: full" in messages(reports)
    other.api.delete_job(first.name)
    cluster.kubelet.hold = False
    assert run.wait().usage is not None


def test_parts_of_a_stage_that_cannot_be_divided_are_refused_before_anything_is_created(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    words = refusal(cluster.settings(), job(tmp_path, Resources(**{**SMALL.model_dump(), "parts": 4})))
    assert "cannot be divided into parts" in words and "leave `parts` out" in words
    assert cluster.created("Job") == []
    path = tmp_path / "recipe.yaml"
    path.write_text(TINY_RECIPE.read_text() + "resources: {training_shards: {parts: 4}}")
    with pytest.raises(BadInput, match=r"cannot be divided into parts: training_shards[\s\S]*clip_scores"):
        graph(read_recipe(path))


def test_a_relative_workspace_means_nothing_in_a_pod(cluster: FakeCluster) -> None:
    assert "the workspace is a relative path" in refusal(cluster.settings(), job(Path("data/tiny")))


def test_a_workspace_on_no_volume_that_pods_can_write_on_is_refused(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    volumes = [Volume(claim="work", path="/work"), Volume(claim="crawls", path=str(tmp_path), read_only=True)]
    words = refusal(cluster.settings(volumes=volumes), job(tmp_path))
    assert f"no volume of the pods holds {job(tmp_path).spec.output}" in words
    assert "(volumes to write on: /work)" in words
    assert "(volumes to write on: none)" in refusal(cluster.settings(volumes=[]), job(tmp_path))


def test_long_names_are_shortened_and_stay_different(cluster: FakeCluster) -> None:
    settings = cluster.settings()
    names = set()
    for end in ("one", "two"):
        spec = JobSpec("A crawl_with-a.very/long name " * 5 + end, "m", ToySpec(output=Path("/x")), resources=Resources(nodes=2), distributed=True)  # fmt: skip
        made = render(spec, settings, 999)
        assert len(f"{made.name}-9999") <= naming.MAX_NAME
        names.add(made.name)
    assert len(names) == 2


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("namespace", "n" * 64, "has 64 characters"),
        ("cpu", {"queue": "Big Queue"}, "cannot be the name of a queue"),
        ("queue", "Big Queue", "cannot be the name of a queue"),
        ("secrets", {"gpu": ["s" * 64]}, "the name of the secret has 64 characters"),
        ("image", "registry.example/vlm/gpu:latest", "not pinned by its digest"),
        ("gpus", 8, "gpus: unknown key"),
    ],
)
def test_a_cluster_file_is_checked_whole(key: str, value: object, words: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump({"namespace": "vlm", "image": IMAGE, key: value}))
    with pytest.raises(BadInput, match=words):
        read_cluster(path)


@pytest.mark.parametrize("key", ["queue", "priority"])
def test_a_name_in_the_recipe_that_no_object_can_have_is_named(key: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(TINY_RECIPE.read_text() + f"\nresources: {{pretrained: {{{key}: {'q' * 64}}}}}\n")
    with pytest.raises(BadInput, match=rf"resources.pretrained.{key}[\s\S]*pattern[\s\S]*remedy"):
        read_recipe(path)


def test_without_a_cluster_file_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLUSTER_FILE", raising=False)
    with pytest.raises(BadInput, match="CLUSTER_FILE"):
        read_cluster()


def test_a_volume_is_mounted_where_the_cluster_file_says(cluster: FakeCluster) -> None:
    settings = cluster.settings(volumes=[Volume(claim="work", path="/work")])
    made = render(JobSpec("x", "m", ToySpec(output=Path("/x"))), settings, 0)
    (container,) = made.job["spec"]["template"]["spec"]["containers"]
    assert {"name": "claim-0", "mountPath": "/work", "readOnly": False} in container["volumeMounts"]


# Preflight


@pytest.fixture
def registry() -> Iterator[str]:
    """A registry that has the image of ones alone."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200 if self.path.endswith("1" * 64) else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_preflight_finds_an_image_that_is_not_in_its_registry(registry: str) -> None:
    assert image_missing(f"{registry}/vlm/gpu@sha256:{'1' * 64}") == ""
    assert "has no image" in image_missing(f"{registry}/vlm/gpu@sha256:{'3' * 64}")
    assert "has no digest yet" in image_missing(
        read_cluster(Path("k8s/overlays/eks-a100/cluster.yaml")).image
    )


@pytest.mark.parametrize("image", ["docker.io/me/gpu", "me/gpu", "index.docker.io/me/gpu"])
def test_an_image_of_docker_hub_is_looked_for_where_it_is(
    image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def urlopen(request: urllib.request.Request, timeout: float) -> BytesIO:
        asked.append(request.full_url)
        return BytesIO()

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    assert image_missing(f"{image}@sha256:{'1' * 64}") == ""
    assert asked == [f"https://registry-1.docker.io/v2/me/gpu/manifests/sha256:{'1' * 64}"]


def shown_to_preflight(cluster: FakeCluster, recipe: Path, **settings: object) -> str:
    """What the preflight has against a recipe."""
    with pytest.raises(BadInput) as raised:
        preflight(read_recipe(recipe), cluster.settings(**settings), ["tiny-1"], budget=None)
    assert cluster.jobs() == [] and cluster.created("Job") == []
    return str(raised.value)


def test_preflight_finds_what_a_launch_would_be_refused_for(cluster: FakeCluster, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    two = TINY_RECIPE.read_text().replace("processes: 1", "processes: 2")
    path.write_text(two + "resources: {finetuned: {nodes: 3}, clip_scores: {nodes: 2}}")
    words = shown_to_preflight(cluster, path)
    assert words.count("the workspace is a relative path") == 1, "of all tables alike, said once"
    path.write_text(path.read_text().replace("data/tiny", str(tmp_path / "data")))
    words = shown_to_preflight(cluster, path)
    assert "cannot be shared equally by 3 nodes" in words and "resources.finetuned.nodes" in words
    assert "could work as a group on 2 nodes" in words and "resources.clip_scores.nodes" in words


@pytest.mark.parametrize("backend", ["indexed_job", "jobset"])
def test_preflight_shows_the_api_what_would_be_launched_and_launches_nothing(
    backend: str, cluster: FakeCluster, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(TINY_RECIPE.read_text().replace("data/tiny", str(tmp_path / "data")))
    preflight(read_recipe(path), cluster.settings(backend=backend), ["tiny-1"], budget=None)
    kind = "jobs" if backend == "indexed_job" else "jobsets"
    assert cluster.api.requests[f"create {kind}"] > 0
    assert cluster.jobs() == [] and cluster.created("Job") == cluster.created("JobSet") == []
    words = shown_to_preflight(cluster, path, account="admin", namespace="elsewhere", backend=backend)
    assert "the namespace 'elsewhere' does not exist" in words


def test_a_store_that_cannot_be_used_is_named_with_what_it_wants(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(BadInput, match=r"Unable to locate credentials[\s\S]*s3://bucket/x[\s\S]*AWS_PROFILE"):
        check_usable(Path("s3://bucket/x"))
    with s3_server() as endpoint:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": endpoint}.items():
            monkeypatch.setenv(name, value)
        check_usable(Path("s3://bucket/x"))
        with pytest.raises(BadInput, match=r"bucket does not exist[\s\S]*aws s3 ls s3://bukket"):
            check_usable(Path("s3://bukket/x"))
    check_usable(tmp_path / "a folder of this machine")


def test_preflight_names_everything_that_lacks_at_once(cluster: FakeCluster) -> None:
    cluster.add("ResourceQuota", "resourcequotas", "small", spec={"hard": {"requests.nvidia.com/gpu": "8"}})
    settings = cluster.settings(queue="h100")
    found = list(problems(settings, Api(settings), {"tiny/pretrained": Resources(nodes=4, gpus=8)}))
    assert any("queue 'h100' does not exist" in words for words in found)
    assert any("asks for 32 nvidia.com/gpu, and the quota 'small'" in words for words in found)
    powerless = cluster.settings("run-worker")
    assert list(problems(powerless, Api(powerless), {})) == []


def test_preflight_asks_for_the_rights_of_queues_and_jobsets_where_they_are_used(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with the file that grants it; and the rest is looked at all the same."""
    lacking = {right for right in cluster.api.rights.granted if right[2].endswith(".x-k8s.io")}
    lacking.add(("run-worker", "list", "", "resourcequotas"))
    monkeypatch.setattr(cluster.api.rights, "granted", cluster.api.rights.granted - lacking)
    settings = cluster.settings(queue="a100", backend="jobset", max_gpus=8)
    found = list(problems(settings, Api(settings), {"tiny/pretrained": Resources(nodes=4, gpus=8)}))
    assert "this account may not get localqueues.kueue.x-k8s.io: apply k8s/overlays/kueue/rbac.yaml" in found
    for verb in ("create", "get", "patch", "delete"):
        assert (
            f"this account may not {verb} jobsets.jobset.x-k8s.io: apply k8s/overlays/jobset/rbac.yaml"
            in found
        )
    assert "this account may not list resourcequotas: apply k8s/base/rbac.yaml" in found
    assert any("32, and a job may hold 8" in words for words in found)
    plain = cluster.settings()
    assert not [words for words in problems(plain, Api(plain), {}) if "x-k8s.io" in words]


def test_a_right_of_a_queue_that_lacks_is_granted_by_the_overlay_for_queues(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    forbidden = refusal(cluster.settings("gpu-worker", queue="a100"), job(tmp_path))
    assert "may not get localqueues.kueue.x-k8s.io" in forbidden
    assert "apply k8s/overlays/kueue/rbac.yaml" in forbidden


def test_the_preflight_as_a_command(cluster: FakeCluster, tmp_path: Path) -> None:
    recipe, described = tmp_path / "recipe.yaml", tmp_path / "cluster.yaml"
    priced = "resources: {default: {hours: 0.5}, pretrained: {nodes: 2, gpus: 8, hours: 10}}"
    recipe.write_text(TINY_RECIPE.read_text().replace("data/tiny", str(tmp_path / "data")) + priced)
    settings = cluster.settings(prices={"gpu": 4.0})
    described.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude_defaults=True)))
    (tmp_path / "home").mkdir()
    home = Home.make(tmp_path / "home")

    def asked(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "jobs.preflight", "--recipe", str(recipe), "--cluster", str(described), *more],
            cwd=home.folder, env=home.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    passed = asked("--budget", "700")
    assert passed.returncode == 0, passed.stderr
    assert "total: 160.0 GPU-hours, 640.00 USD" in passed.stdout
    stopped = asked("--budget", "600")
    assert stopped.returncode == BAD_INPUT_EXIT_CODE
    assert "total: 160.0 GPU-hours" in stopped.stdout, (
        "the table is shown before it is held against the budget"
    )
    assert "would cost 640.00 USD, and the budget is 600.00" in stopped.stderr
    missing = asked("--cluster", str(tmp_path / "nowhere.yaml"))
    assert missing.returncode == BAD_INPUT_EXIT_CODE and "nowhere.yaml" in missing.stderr
    assert cluster.created("Job") == []


def test_preflight_prices_every_table_and_stops_above_the_budget(
    cluster: FakeCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.yaml"
    priced = "resources: {default: {hours: 0.5}, pretrained: {nodes: 2, gpus: 8, hours: 10}}"
    path.write_text(TINY_RECIPE.read_text().replace("data/tiny", str(tmp_path / "data")) + priced)
    settings = cluster.settings(prices={"gpu": 4.0})
    words = preflight(read_recipe(path), settings, ["tiny-1"], budget=700.0)
    assert "total: 160.0 GPU-hours, 640.00 USD" in words
    assert "tiny/pretrained" in capsys.readouterr().out
    with pytest.raises(
        BadInput, match=r"would cost 640.00 USD, and the budget is 600.00 \(dearest: tiny/pretrained"
    ):
        preflight(read_recipe(path), settings, ["tiny-1"], budget=600.0)
    unpriced = path.read_text().replace(", hours: 10", "")
    path.write_text(unpriced)
    with pytest.raises(BadInput, match="nobody knows what these stages will cost: tiny/pretrained"):
        preflight(read_recipe(path), settings, ["tiny-1"], budget=600.0)


def test_a_stage_above_the_budget_is_not_launched(cluster: FakeCluster, tmp_path: Path) -> None:
    settings = cluster.settings(prices={"gpu": 4.0}, budget=100.0)
    assert "would cost 320.00 USD" in refusal(settings, job(tmp_path, Resources(gpus=8, hours=10)))
    assert cluster.created("Job") == []


def test_a_recipe_that_asks_something_for_a_stage_it_does_not_have_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(TINY_RECIPE.read_text() + "resources: {pretrainde: {gpus: 8}}")
    with pytest.raises(BadInput, match=r"no stage is called pretrainde[\s\S]*pretrained"):
        graph(read_recipe(path))
