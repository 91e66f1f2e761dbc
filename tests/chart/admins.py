"""People who may do everything in one namespace, and nothing outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from engram.spec.names import PLURAL
from tests.cluster.api import Api
from tests.cluster.fixtures import Cluster
from tests.cluster.waiting import NotYet, until


def admin_of(cluster: Cluster, namespace: str) -> Path:
    """Make anna the admin of a namespace; return her kubeconfig."""
    own = cluster.control_plane
    if own is None:
        pytest.skip("users of a cluster of the user's are not ours to make")
    binding = ("create", "rolebinding", "anna", "--clusterrole=admin", "--user=anna")
    cluster.kubectl.inside(namespace).run(*binding)
    return own.authority.kubeconfig("anna", own.server)


def until_may_grant(api: Api, namespace: str) -> None:
    """Wait until anna holds what she is to grant: aggregation takes a moment."""
    asked = {"namespace": namespace, "group": "engram.dev", "resource": PLURAL}
    attributes = [
        {**asked, "subresource": "status", "verb": "patch"},
        {**asked, "verb": "delete"},
    ]

    def may() -> bool:
        for item in attributes:
            review = {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SubjectAccessReview",
                "spec": {"user": "anna", "resourceAttributes": item},
            }
            answer = api.ask("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
            if not answer.body["status"]["allowed"]:
                raise NotYet(str(item))
        return True

    until(may, "anna to have the rights of engram-admin")
