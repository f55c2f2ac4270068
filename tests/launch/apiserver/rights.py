"""Role-based access as in our own manifests: nothing else is allowed, and what is never used is known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

Manifest = dict[str, Any]
Right = tuple[str, str, str, str]
"""Account, verb, API group, resource (`pods/log` for a subresource)."""


@dataclass
class Rights:
    """What the RoleBindings of the manifests grant, and which of it was used."""

    granted: set[Right] = field(default_factory=set)
    used: set[Right] = field(default_factory=set)
    accounts: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, manifests: Iterable[Manifest]) -> Rights:
        """Read ServiceAccounts, Roles and RoleBindings; anything that reaches beyond a namespace is refused."""
        found = list(manifests)
        roles = {item["metadata"]["name"]: item["rules"] for item in found if item["kind"] == "Role"}
        assert not [item for item in found if item["kind"] in ("ClusterRole", "ClusterRoleBinding")]
        rights = cls()
        rights.accounts = {item["metadata"]["name"] for item in found if item["kind"] == "ServiceAccount"}
        for binding in found:
            if binding["kind"] != "RoleBinding":
                continue
            assert binding["roleRef"]["kind"] == "Role", binding
            for subject in binding["subjects"]:
                assert subject["kind"] == "ServiceAccount", subject
                assert subject["name"] in rights.accounts, subject
                for rule in roles[binding["roleRef"]["name"]]:
                    rights.granted |= {
                        (subject["name"], verb, group, resource)
                        for verb in rule["verbs"]
                        for group in rule["apiGroups"]
                        for resource in rule["resources"]
                    }
        assert not [right for right in rights.granted if "*" in right], "a wildcard"
        return rights

    def allow(self, account: str, verb: str, group: str, resource: str) -> bool:
        right = (account, verb, group, resource)
        if right not in self.granted:
            return False
        self.used.add(right)
        return True
