from __future__ import annotations

import json
from pathlib import Path

import pytest
from kubernetes.aio.client import Configuration

from engram_operator import login
from engram_operator.api import Api
from engram_operator.errors import ApiError, StartError
from engram_operator.login import connection_info, load_configuration, runs_in_pod
from engram_operator.settings import Settings
from tests.control.api_server import Asked, Refusal, serving
from tests.control.builders import SETTINGS
from tests.control.edge import run


def kubeconfig(folder: Path, **user: str) -> Path:
    file = folder / "kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "c", "cluster": {"server": "https://there:6443", "insecure-skip-tls-verify": True}}
        ],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file.write_text(json.dumps(content))
    return file


def test_a_named_kubeconfig_serves_us_and_kopf(tmp_path: Path) -> None:
    file = kubeconfig(tmp_path, token="secret")
    configuration = run(load_configuration(Settings(kubeconfig=str(file))))
    info = connection_info(configuration)
    assert (info.server, info.scheme, info.token, info.insecure) == (
        "https://there:6443",
        "Bearer",
        "secret",
        True,
    )


def test_client_certificates_need_no_token(tmp_path: Path) -> None:
    for name in ("crt", "key"):
        (tmp_path / name).write_text("x")
    file = kubeconfig(
        tmp_path, **{"client-certificate": str(tmp_path / "crt"), "client-key": str(tmp_path / "key")}
    )
    info = connection_info(run(load_configuration(Settings(kubeconfig=str(file)))))
    assert (info.token, info.scheme) == (None, None)
    assert (info.certificate_path, info.private_key_path) == (str(tmp_path / "crt"), str(tmp_path / "key"))


def test_the_environment_names_a_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, token="t")))
    assert run(load_configuration(Settings())).host == "https://there:6443"


def test_in_a_pod_the_service_account_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    monkeypatch.setattr(login, "SERVICE_ACCOUNT", token)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    assert runs_in_pod(Settings())
    assert not runs_in_pod(Settings(kubeconfig="x")), "a named kubeconfig wins"
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    assert not runs_in_pod(Settings())


@pytest.mark.parametrize("content", ["", "{}", "[]", "current-context: x", "not: [yaml", "clusters: 1"])
def test_a_kubeconfig_that_cannot_be_used_is_one_sentence(tmp_path: Path, content: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(content)
    with pytest.raises(StartError, match=r"kubeconfig .* cannot be used: "):
        run(load_configuration(Settings(kubeconfig=str(file))))


def test_an_unknown_context_is_one_sentence(tmp_path: Path) -> None:
    settings = Settings(kubeconfig=str(kubeconfig(tmp_path)), context="none")
    with pytest.raises(StartError, match=r"cannot be used: .*none"):
        run(load_configuration(settings))


def test_a_401_logs_in_again_once_and_then_gives_up() -> None:
    async def scenario() -> None:
        logins = 0
        async with serving() as server:
            refused = True

            def refuse(asked: Asked) -> Refusal | None:
                return Refusal(401, "Unauthorized") if refused and logins < 2 else None

            async def fresh() -> Configuration:
                nonlocal logins
                logins += 1
                return Configuration(host=server.url)

            server.other["/version"] = {"minor": "32"}
            server.refuse = refuse
            api = Api(fresh, SETTINGS)
            try:
                assert await api.request("GET", "/version") == {"minor": "32"}
                assert logins == 2
                server.refuse = lambda asked: Refusal(401, "Unauthorized")
                with pytest.raises(ApiError, match="Unauthorized"):
                    await api.request("GET", "/version")
                assert logins == 3
            finally:
                await api.close()

    run(scenario())
