"""The manifests of every overlay: valid for several versions of Kubernetes, hardened, and as `kubectl` renders them."""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from pipelines.declaration import Reach
from pipelines.deploy.__main__ import OVERLAYS, UNSET, check_one_orchestrator, names
from pipelines.deploy.kustomize import documents, pod_specs, render
from pipelines.errors import BadInput
from pipelines.lake import location
from pipelines.launch.cluster import Cluster, as_bytes
from pipelines.launch.render import render as render_job
from pipelines.launch.spec import JobSpec, Resources
from pipelines.recipe import read_recipe
from pipelines.systems.recipe import read_system
from tests.assets.toy_stage import ToySpec
from tests.launch.apiserver.admission import DIGEST, restricted, unhardened, valid

Manifest = dict[str, Any]
WITHOUT_SCHEMA = {"ResourceFlavor", "ClusterQueue", "LocalQueue"}
STORE = "192.0.2."
ROOT = Path(__file__).parents[2]


SHIPPED = ("eks-a100", "gke-a100", "infiniband", "jobset", "kueue")
"""A person's own stand beside them."""


def test_all_shipped_overlays_are_offered() -> None:
    assert set(SHIPPED) <= set(names())


@pytest.fixture(params=SHIPPED)
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


def test_every_account_that_opens_the_store_has_an_identity_or_keys(
    overlay: Path, rendered: list[Manifest]
) -> None:
    """The code server reads tables for its schedules, and both web servers show the runs' logs."""
    accounts = of_kind(rendered, "ServiceAccount")
    opening = {
        "run-worker", "code-server", "webserver", "viewer", "gpu-worker", "data-worker", "downloader",
    }  # fmt: skip
    assert accounts.keys() == opening | {"daemon", "unprivileged"}
    with_identity = {name for name, one in accounts.items() if one["metadata"].get("annotations")}
    if with_identity:
        assert with_identity == opening
        return
    keys = {"secretRef": {"name": "store", "optional": True}}
    for name in ("code-server", "webserver", "viewer"):
        (spec,) = pod_specs(of_kind(rendered, "Deployment")[name])
        assert keys in spec["containers"][0]["envFrom"]
    assert settings(rendered).secrets.keys() == {"gpu", "data", "client", "downloader"}
    told, pods = of_kind(rendered, "ConfigMap")["factory"]["data"], settings(rendered).environment
    stores = {name: value for name, value in told.items() if name.startswith(("AWS_", "LAKE_"))}
    assert stores == pods, "Dagster's processes and the jobs' pods open the same store"


def test_only_accounts_that_call_the_api_have_a_token(rendered: list[Manifest]) -> None:
    bound = {
        subject["name"] for item in of_kind(rendered, "RoleBinding").values() for subject in item["subjects"]
    }
    assert bound == {"run-worker", "daemon", "webserver"}
    for item in rendered:
        for spec in pod_specs(item):
            assert spec["automountServiceAccountToken"] is (spec["serviceAccountName"] in bound)


def reached(rendered: list[Manifest], role: str, *, store: bool = False) -> list[Manifest]:
    """Blocks of addresses that pods of this role may open connections to; of the object store's policy or of the others."""
    return [
        peer["ipBlock"]
        for name, policy in of_kind(rendered, "NetworkPolicy").items()
        if (name == "object-store") is store and _selects(policy["spec"]["podSelector"], {"vlm/role": role})
        for rule in policy["spec"].get("egress", [])
        for peer in rule["to"]
        if "ipBlock" in peer and rule["ports"][0]["port"] != 53
    ]


@pytest.mark.parametrize("role", ["downloader", "client"])
def test_what_reads_the_web_reaches_no_private_address(rendered: list[Manifest], role: str) -> None:
    blocks = reached(rendered, role)
    for address in (
        "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "127.0.0.1",
        "168.63.129.16", "192.0.0.192", "0.1.2.3", "::1", "fd00:ec2::254", "fe80::1", "::ffff:10.0.0.1",
    ):  # fmt: skip
        assert not any(_covers(block, ipaddress.ip_address(address)) for block in blocks), address
    for address in ("93.184.216.34", "2606:2800:220:1::1"):
        assert any(_covers(block, ipaddress.ip_address(address)) for block in blocks), address


def test_every_worker_reaches_the_store_and_those_of_gpus_and_data_nothing_else(
    overlay: Path, rendered: list[Manifest]
) -> None:
    (store,) = reached(rendered, "gpu", store=True)
    for role in ("gpu", "data", "downloader", "client"):
        assert reached(rendered, role, store=True) == [store]
    assert reached(rendered, "gpu") == reached(rendered, "data") == []
    assert ipaddress.ip_network(store["cidr"]).num_addresses <= 256
    # Where the addresses are one's own, the shipped ones are nobody's, and are asked for before anything is applied.
    assert (STORE in store["cidr"]) is (overlay.name != "gke-a100")


def test_pods_of_a_group_meet_whether_they_have_gpus_or_not(rendered: list[Manifest]) -> None:
    policies = of_kind(rendered, "NetworkPolicy").values()
    for role in ("gpu", "data"):
        peer = {"podSelector": {"matchLabels": {"vlm/role": role}}}
        mine = [one["spec"] for one in policies if one["spec"]["podSelector"] == peer["podSelector"]]
        assert any({"from": [peer]} in one.get("ingress", []) for one in mine)
        assert any({"to": [peer]} in one.get("egress", []) for one in mine)


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


def test_the_jobs_of_the_launcher_match_the_network_policies(rendered: list[Manifest]) -> None:
    """A pod whose role no policy names could neither resolve names nor reach the store."""
    cluster = settings(rendered)
    reaches: list[tuple[Reach, int, str]] = [
        ("store", 8, "gpu"), ("store", 0, "data"), ("web", 0, "downloader"), ("servers", 0, "client"),
    ]  # fmt: skip
    for reach, gpus, role in reaches:
        job = JobSpec(
            "x", "pipelines.filter", ToySpec(output=Path("/x")), resources=Resources(gpus=gpus), reach=reach
        )
        template = render_job(job, cluster, 0).job["spec"]["template"]
        assert template["metadata"]["labels"]["vlm/role"] == role
        labels = template["metadata"]["labels"]
        assert any(
            policy["spec"]["podSelector"] and _selects(policy["spec"]["podSelector"], labels)
            for policy in of_kind(rendered, "NetworkPolicy").values()
            if "Egress" in policy["spec"]["policyTypes"]
        ), role


def _selects(selector: Manifest, labels: dict[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", [])
    )


def test_the_cards_between_nodes_are_asked_for_by_groups_alone(rendered: list[Manifest]) -> None:
    """Asked for by each pod with one GPU, they would take a whole node for it."""
    cluster = settings(rendered)

    def asked(**resources: int) -> set[str]:
        job = JobSpec("x", "m", ToySpec(output=Path("/x")), resources=Resources(**resources))
        (container,) = render_job(job, cluster, 0).job["spec"]["template"]["spec"]["containers"]
        return set(container["resources"]["limits"])

    usual = {"cpu", "memory", "ephemeral-storage"}
    assert asked(gpus=1, parts=32) == asked(gpus=8) == usual | {"nvidia.com/gpu"}
    assert asked() == asked(nodes=2) == usual
    assert asked(gpus=8, nodes=2) >= usual | {"nvidia.com/gpu", *cluster.group.resources}


def test_every_kind_of_pod_has_a_queue_that_covers_what_it_asks_for_and_whose_nodes_admit_it() -> None:
    rendered = render(OVERLAYS / "kueue")
    cluster = settings(rendered)
    queues, local = of_kind(rendered, "ClusterQueue"), of_kind(rendered, "LocalQueue")
    flavors = of_kind(rendered, "ResourceFlavor")
    for resources in (
        Resources(),
        Resources(gpus=1, parts=32),
        Resources(nodes=4, gpus=8, cpus=90, memory="900Gi"),
        Resources(gpus=8, spot=True),
    ):
        job = JobSpec("x", "m", ToySpec(output=Path("/x")), resources=resources)
        made = render_job(job, cluster, 0).job
        spec = made["spec"]["template"]["spec"]
        queue = queues[local[made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]]["spec"]["clusterQueue"]]
        (group,) = queue["spec"]["resourceGroups"]
        (flavor,) = group["flavors"]
        quota = {one["name"]: as_bytes(str(one["nominalQuota"])) for one in flavor["resources"]}
        asked = spec["containers"][0]["resources"]["requests"]
        assert all(as_bytes(amount) * resources.nodes <= quota[name] for name, amount in asked.items())
        if flavors[flavor["name"]]["spec"].get("nodeLabels"):
            assert any(one["key"] == "nvidia.com/gpu" for one in spec["tolerations"]), "the nodes are tainted"
        # Kueue never admits what asks for a topology that its flavor does not name.
        assert not any("topology" in key for key in made["spec"]["template"]["metadata"]["annotations"])


def test_a_secret_reaches_the_pods_of_its_role_alone() -> None:
    cluster = settings(render(OVERLAYS / "eks-a100")).model_copy(
        update={"secrets": {"client": ["judge-key"]}}
    )
    for reach, there in (("servers", True), ("web", False), ("store", False)):
        job = JobSpec("x", "m", ToySpec(output=Path("/x")), reach=cast(Reach, reach))
        (container,) = render_job(job, cluster, 0).job["spec"]["template"]["spec"]["containers"]
        assert (container.get("envFrom") == [{"secretRef": {"name": "judge-key"}}]) is there


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
    for words in (
        "the digest of registry.example/vlm/gpu", "of docker.io/library/postgres", "(my-bucket, in ConfigMap factory",
        "the addresses of the object store (192.0.2., in NetworkPolicy object-store)", "ServiceAccount viewer",
    ):  # fmt: skip
        assert words in done.stderr
    refused = subprocess.run([*command, "--ready"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert refused.returncode == 42
    assert refused.stdout == ""
    assert "my-bucket" in refused.stderr


def filled(folder: Path, **other: str) -> Path:
    """An overlay of one's own, made as docs/operations.md says: a copy of a shipped one, with everything put in."""
    mine = folder / "overlays" / "mine"
    shutil.copytree(ROOT / "k8s/base", folder / "base")
    shutil.copytree(OVERLAYS / "eks-a100", mine)
    (mine / "recipe.yaml").write_text(
        (ROOT / "recipes/parrot-7b.yaml").read_text() + "\nworkspace: s3://ours/parrot\n"
    )
    for path in mine.iterdir():
        text = path.read_text().replace("files: [cluster.yaml]", "files: [cluster.yaml, recipe.yaml]")
        for old, new in ((UNSET, "sha256:" + "1" * 64), *EXAMPLES_PUT_IN.items(), *other.items()):
            text = text.replace(old, new)
        path.write_text(text)
    return mine


EXAMPLES_PUT_IN = {
    "192.0.2.0/28": "10.0.255.0/27", "my-bucket": "ours", "registry.example": "123.dkr.ecr", "111122223333": "444455556666",
}  # fmt: skip


def test_an_overlay_in_which_all_was_put_in_is_ready_and_has_its_own_recipe(tmp_path: Path) -> None:
    mine = filled(tmp_path)
    command = [sys.executable, "-m", "pipelines.deploy", str(mine), "--ready"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr == ""
    rendered = list(yaml.safe_load_all(done.stdout))
    for item in rendered:
        valid(item)
    settings(rendered)
    told = of_kind(rendered, "ConfigMap")
    assert told["factory"]["data"]["RECIPE"] == "/etc/factory/recipe.yaml"
    assert "name: parrot-7b" in told["cluster"]["data"]["recipe.yaml"]


def test_run_workers_with_another_image_than_the_daemon_are_refused(tmp_path: Path) -> None:
    mine = filled(tmp_path, **{"digest: sha256:" + "1" * 64: "digest: sha256:" + "2" * 64})
    with pytest.raises(BadInput, match="run workers would have the image"):
        check_one_orchestrator(render(mine), mine)


def test_the_recipe_that_a_cluster_begins_with_is_the_quickstart_in_a_bucket(
    rendered: list[Manifest], tmp_path: Path
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(of_kind(rendered, "ConfigMap")["cluster"]["data"]["recipe.yaml"])
    begun = read_recipe(path)
    assert location.url(begun.workspace) == "s3://my-bucket/quickstart"
    quickstart = read_recipe(ROOT / "recipes/quickstart.yaml")
    assert begun == quickstart.model_copy(update={"workspace": begun.workspace})


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


def test_beside_the_chart_stand_no_second_processes_and_its_web_servers_are_found() -> None:
    command = [sys.executable, "-m", "pipelines.deploy", "eks-a100", "--for-chart"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    kept = list(yaml.safe_load_all(done.stdout))
    assert {item["metadata"]["name"] for item in kept if pod_specs(item)} == {"postgres", "proxy"}
    assert of_kind(kept, "ConfigMap").keys() == {"cluster", "factory", "proxy"}, (
        "dagster-instance is the chart's"
    )
    values = helm_values()
    for name in ("webserver", "viewer"):
        service = of_kind(kept, "Service")[name]["spec"]
        assert service["selector"]["component"].startswith("dagster-webserver")
        assert service["ports"] == [{"port": 80, "targetPort": values["dagsterWebserver"]["service"]["port"]}]
    # The policies go by labels: of the chart's pods, those in the values.
    policies = of_kind(kept, "NetworkPolicy")
    for policy, labels in (
        ("web", values["dagsterWebserver"]["labels"]), ("orchestrator", values["dagsterWebserver"]["labels"]),
        ("orchestrator", values["dagsterDaemon"]["labels"]),
        ("code-server", values["dagster-user-deployments"]["deployments"][0]["labels"]),
    ):  # fmt: skip
        assert _selects(policies[policy]["spec"]["podSelector"], labels)
    assert values["postgresql"]["enabled"] is False
    assert values["postgresql"]["postgresqlHost"] in of_kind(kept, "Service")


def test_a_read_only_root_of_the_charts_pods_leaves_a_place_for_temporary_files() -> None:
    """Dagster's log manager asks for one when it starts, and ends the process where there is none."""
    values = helm_values()
    (server,) = values["dagster-user-deployments"]["deployments"]
    for pod in (values["dagsterWebserver"], values["dagsterDaemon"], server):
        assert pod["securityContext"]["readOnlyRootFilesystem"] is True
        assert {"name": "tmp", "mountPath": "/tmp"} in pod["volumeMounts"]
        assert {"name": "tmp", "emptyDir": {}} in pod["volumes"]
        assert {"name": "HOME", "value": "/tmp"} in pod["env"]
        spec = {
            "securityContext": pod["podSecurityContext"], "volumes": pod["volumes"],
            "containers": [{"name": "dagster", "securityContext": pod["securityContext"]}],
        }  # fmt: skip
        assert restricted(spec) == []


def test_every_process_of_dagster_can_write_temporary_files(rendered: list[Manifest]) -> None:
    for name, deployment in of_kind(rendered, "Deployment").items():
        (spec,) = pod_specs(deployment)
        assert {"name": "tmp", "mountPath": "/tmp"} in spec["containers"][0]["volumeMounts"], name
        assert {"name": "tmp", "emptyDir": {}} in spec["volumes"], name


def test_the_job_that_fills_the_volume_of_weights_is_admitted_and_may_read_the_web() -> None:
    claim, job = yaml.safe_load_all((ROOT / "k8s/jobs/weights.yaml").read_text())
    valid(claim)
    valid(job)
    (spec,) = pod_specs(job)
    assert restricted(spec) + unhardened(spec) == []
    assert job["spec"]["template"]["metadata"]["labels"] == {"vlm/role": "downloader"}
    assert spec["volumes"][0] == {
        "name": "weights",
        "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]},
    }


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


def test_what_the_guide_names_is_there() -> None:
    guide = (ROOT / "docs/operations.md").read_text()
    for path in re.findall(r"(?:k8s|recipes|pipelines|tests)/[\w./-]*\w", guide):
        assert "/mine" in path or (ROOT / path).exists(), path
    rendered = render(OVERLAYS / "eks-a100")
    deployments = of_kind(rendered, "Deployment").keys()
    for words in re.findall(r"(?:restart|scale) deployment ([a-z -]+?)(?: --|`|\n)", guide):
        assert set(words.split()) <= deployments
    assert set(re.findall(r"deployment/([a-z-]+)", guide)) <= deployments
    for account in of_kind(rendered, "ServiceAccount"):
        assert f"`{account}`" in guide, f"what may {account} do in the bucket?"
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z0-9-]+)", guide, re.MULTILINE)) <= targets
    listed = subprocess.run(["make", "help"], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert {"k8s-render", "preflight"} <= set(listed.split())


def test_an_own_recipe_may_extend_a_shipped_one_from_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"extends: {ROOT}/recipes/parrot-7b.yaml\nworkspace: s3://ours/parrot\ncrawls_folder: s3://ours/crawls\n"
    )
    system = read_system(path)
    assert location.url(system.folder) == "s3://ours/parrot"
    assert location.url(system.crawls_folder) == "s3://ours/crawls"


@pytest.mark.parametrize("name", ["rbac", "quota", "network"])
def test_a_file_that_the_guide_applies_by_itself_lands_in_the_namespace(name: str) -> None:
    """Without `-n`, and as kubectl takes it: a binding's account needs its namespace."""
    for item in documents(ROOT / f"k8s/base/{name}.yaml"):
        assert item["metadata"]["namespace"] == "vlm", item["metadata"]["name"]
        assert all(subject["namespace"] == "vlm" for subject in item.get("subjects", []))
