"""The API server as the tests ask it: one process, one connection, plain data in and out.

`kubectl` is what users type and is tested as such (`kubectl.py`); hundreds of objects that must be refused go
through here, where one costs a few milliseconds.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from kubernetes.client import ApiClient
from kubernetes.config import new_client_from_config

from engram.spec.names import API_VERSION, KIND, PLURAL

Object = dict[str, Any]
"""A Kubernetes object as plain data."""

JSON = "application/json"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"

_KINDS = {
    KIND: (API_VERSION, PLURAL, True),
    "ConfigMap": ("v1", "configmaps", True),
    "CustomResourceDefinition": ("apiextensions.k8s.io/v1", "customresourcedefinitions", False),
    "Event": ("v1", "events", True),
    "Job": ("batch/v1", "jobs", True),
    "Namespace": ("v1", "namespaces", False),
    "NetworkPolicy": ("networking.k8s.io/v1", "networkpolicies", True),
    "Node": ("v1", "nodes", False),
    "PersistentVolume": ("v1", "persistentvolumes", False),
    "PersistentVolumeClaim": ("v1", "persistentvolumeclaims", True),
    "Pod": ("v1", "pods", True),
    "ResourceQuota": ("v1", "resourcequotas", True),
    "Secret": ("v1", "secrets", True),
    "Service": ("v1", "services", True),
    "ServiceAccount": ("v1", "serviceaccounts", True),
}
"""Kind -> apiVersion, plural, whether namespaced."""


def path_of(kind: str, namespace: str = "", name: str = "", part: str = "") -> str:
    """Return the path of an object, of a list (no `name`) or of a subresource (`part`)."""
    version, plural, namespaced = _KINDS[kind]
    root = "/api" if version == "v1" else "/apis"
    place = f"namespaces/{namespace}" if namespaced and namespace else ""
    return "/".join(filter(None, (root, version, place, plural, name, part)))


class ApiError(Exception):
    """The API server refused: `code`, the sentence in `message`, the whole Status in `status`."""

    def __init__(self, code: int, status: Object | str) -> None:
        self.code, self.status = code, status
        self.message = str(status.get("message", "")) if isinstance(status, dict) else status
        super().__init__(f"{code}: {self.message}")

    @property
    def causes(self) -> list[str]:
        """`field: message` of each cause of a 422."""
        if not isinstance(self.status, dict):
            return []
        causes = (self.status.get("details") or {}).get("causes") or ()
        return [f"{cause.get('field', '')}: {cause.get('message', '')}" for cause in causes]


@dataclass(frozen=True)
class Answer:
    """What the API server said."""

    code: int
    body: Any
    """Plain data, or text for what is no JSON."""
    warnings: tuple[str, ...]


class Api:
    """A client with the rights of `kubeconfig`'s user; not for several threads at once."""

    def __init__(self, kubeconfig: Path, agent: str = "engram-tests") -> None:
        self.client: ApiClient = new_client_from_config(  # type: ignore[no-untyped-call]
            config_file=str(kubeconfig)
        )
        self._agent = agent

    def close(self) -> None:
        """Close its connections."""
        self.client.close()  # type: ignore[no-untyped-call]

    def connection(self) -> tuple[str, dict[str, str], ssl.SSLContext]:
        """Return the server's URL, the headers and the TLS settings, for a client of another kind."""
        settings = self.client.configuration
        headers = {"User-Agent": self._agent}
        self.client.update_params_for_auth(headers, [], ["BearerToken"], "/", "GET", None)
        tls = ssl.create_default_context(cafile=settings.ssl_ca_cert)
        if settings.cert_file:
            tls.load_cert_chain(settings.cert_file, settings.key_file)
        if not settings.verify_ssl:
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        return settings.host, headers, tls

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content: str = JSON,
        query: Mapping[str, str] | None = None,
    ) -> Answer:
        """Return the answer to one request, `body` sent as JSON. Raises ApiError from 400 on."""
        headers = {"Content-Type": content, "Accept": JSON, "User-Agent": self._agent}
        self.client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = f"{self.client.configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        found = self.client.rest_client.pool_manager.request(method, url, body=data, headers=headers)
        text = found.data.decode("utf-8", "replace")
        is_json = found.headers.get("Content-Type", "").startswith(JSON)
        answer = Answer(
            found.status,
            json.loads(text) if is_json else text,
            tuple(found.headers.getlist("Warning")),
        )
        if answer.code >= 400:
            raise ApiError(answer.code, answer.body)
        return answer

    def get(self, kind: str, name: str, namespace: str = "") -> Object:
        """Return an object. Raises ApiError, code 404 for none."""
        found: Object = self.ask("GET", path_of(kind, namespace, name)).body
        return found

    def list(self, kind: str, namespace: str = "", labels: str = "") -> list[Object]:
        """Return all objects of a kind, in one namespace or everywhere, that `labels` selects."""
        query = {"labelSelector": labels} if labels else None
        found: list[Object] = self.ask("GET", path_of(kind, namespace), query=query).body["items"]
        return found

    def create(self, item: Object, *, dry_run: bool = False) -> Object:
        """Create an object (its namespace is in its metadata); return it as stored."""
        query = {"fieldValidation": "Strict", **({"dryRun": "All"} if dry_run else {})}
        path = path_of(item["kind"], item["metadata"].get("namespace", ""))
        found: Object = self.ask("POST", path, item, query=query).body
        return found

    def apply(self, item: Object, *, manager: str = "engram-tests", dry_run: bool = False) -> Object:
        """Apply an object server-side under the field manager; return it as stored."""
        query = {
            "fieldManager": manager,
            "fieldValidation": "Strict",
            **({"dryRun": "All"} if dry_run else {}),
        }
        path = path_of(item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"])
        found: Object = self.ask("PATCH", path, item, content=APPLY, query=query).body
        return found

    def patch(
        self,
        kind: str,
        name: str,
        change: Object,
        *,
        namespace: str = "",
        part: str = "",
        content: str = MERGE,
        dry_run: bool = False,
    ) -> Object:
        """Patch an object or its subresource `part`; return it as stored."""
        query = {"dryRun": "All"} if dry_run else None
        path = path_of(kind, namespace, name, part)
        found: Object = self.ask("PATCH", path, change, content=content, query=query).body
        return found

    def delete(self, kind: str, name: str, namespace: str = "", *, now: bool = False) -> None:
        """Delete an object, dependants in the background; what is absent is no error.

        `now` leaves out a pod's grace period.
        """
        options: Object = {"propagationPolicy": "Background"}
        if now:
            options["gracePeriodSeconds"] = 0
        try:
            self.ask("DELETE", path_of(kind, namespace, name), options)
        except ApiError as error:
            if error.code != 404:
                raise
