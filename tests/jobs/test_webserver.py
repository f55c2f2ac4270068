"""A run through the real web server: what a person does in the browser, as GraphQL over HTTP."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dagster_home import Home

READY_SECONDS = 90.0
RUN_SECONDS = 180.0
# No queue, which would need the daemon.
AT_ONCE = {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"}

LOCATION = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"
LAUNCH = """mutation ($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
STATUS = """query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"""
ASSET = """query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
    groupName description kinds owners { ... on TeamAssetOwner { team } }
    assetMaterializations(limit: 1) { partition metadataEntries { label ... on IntMetadataEntry { intValue } } }
    assetChecksOrError { ... on AssetChecks { checks { name blocking
        executionForLatestMaterialization { status } } } } } } }"""
PARTITIONS = """query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
    partitionKeys } } }"""


class Server:
    """The GraphQL endpoint of a running web server."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/graphql"

    def ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        (data,) = answer["data"].values()
        return data

    def launch(self, job: str, **tags: str) -> str:
        """Start a job and wait for its end; return the status."""
        (repository,) = self.ask(LOCATION)["nodes"]
        selector = {
            "repositoryName": repository["name"],
            "repositoryLocationName": repository["location"]["name"],
            "pipelineName": job,
        }
        metadata = {"tags": [{"key": key, "value": value} for key, value in tags.items()]}
        params = {"selector": selector, "runConfigData": {}, "executionMetadata": metadata}
        launched = self.ask(LAUNCH, params=params)
        assert launched["__typename"] == "LaunchRunSuccess", launched
        end = time.monotonic() + RUN_SECONDS
        while time.monotonic() < end:
            status: str = self.ask(STATUS, id=launched["run"]["runId"])["status"]
            if status in ("SUCCESS", "FAILURE", "CANCELED"):
                return status
            time.sleep(0.5)
        pytest.fail(f"{job} did not end within {RUN_SECONDS} s")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = Home.make(tmp_path_factory.mktemp("web"), run_coordinator=AT_ONCE)
    assert home.run("jobs.prepare").returncode == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = home.folder / "webserver.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster_webserver", "-m", "jobs", "-h", "127.0.0.1", "-p", str(port)],
            cwd=home.folder, env=home.environment, stdout=stream, stderr=stream,
        )  # fmt: skip
    try:
        _wait_until_ready(port, process, log)
        yield Server(port)
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5).close()
            return
        time.sleep(0.5)
    pytest.fail(f"the web server did not start:\n{log.read_text()[-3000:]}")


def test_a_job_launched_in_the_web_ui_makes_the_table_and_shows_it(server: Server) -> None:
    assert server.launch("world") == "SUCCESS"
    world = server.ask(ASSET, key={"path": ["world"]})
    assert world["groupName"] == "world"
    assert "stands in for the web" in world["description"]
    assert set(world["kinds"]) == {"python", "parquet"}
    assert world["owners"]
    (made,) = world["assetMaterializations"]
    assert made["partition"] is None
    entries = {entry["label"]: entry.get("intValue") for entry in made["metadataEntries"]}
    assert entries["crawl_rows"] == 120
    checked = {
        check["name"]: check["executionForLatestMaterialization"]["status"]
        for check in world["assetChecksOrError"]["checks"]
    }
    assert checked == {"checksums": "SUCCEEDED", "non_empty": "SUCCEEDED"}


def test_the_recipes_own_crawl_can_be_chosen_before_anything_ran(server: Server) -> None:
    assert server.ask(PARTITIONS, key={"path": ["raw_pairs"]})["partitionKeys"] == ["tiny-1"]


def test_a_run_on_an_unknown_crawl_fails_before_any_work(server: Server) -> None:
    assert server.launch("raw_pairs", **{"dagster/partition": "typo"}) == "FAILURE"
