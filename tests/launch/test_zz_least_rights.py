"""Our manifests grant nothing that is never used. Runs last: it looks at what all other tests of this folder did."""

from __future__ import annotations

import pytest

from tests.launch.apiserver.rights import Rights

MODULES = {
    "test_kubernetes_toy",
    "test_jobset",
    "test_run_launcher",
    "test_bad_requests",
    "test_kubernetes_training",
}


def test_every_right_that_is_granted_was_used(rights: Rights, request: pytest.FixtureRequest) -> None:
    ran = {item.path.stem for item in request.session.items}
    if not ran >= MODULES:
        pytest.skip("only says something after all tests of this folder")
    assert rights.granted - rights.used == set(), "take these out of k8s/, or use them"
