"""Kubeconfigs, and clusters that do not answer as they should: one sentence each, the right exit code."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web

from engram.errors import ConfigurationError, EngramError
from engram.spec.names import PLURAL
from engram_kubectl.connection import Target
from engram_kubectl.errors import UnreachableError
from engram_kubectl.looking import get
from tests.cluster.pki import Authority
from tests.cluster.ports import free_port
from tests.control.api_server import ApiServer, Refusal, serving
from tests.control.builders import job_object
from tests.control.edge import run
from tests.kubectl.jobs import kubeconfig, plugin


def asked(target: Target, name: str = "digits") -> EngramError:
    """What becomes of `get NAME`."""
    with pytest.raises(EngramError) as caught:
        run(get(target, name, watch=False, everywhere=False))
    assert "\n" not in str(caught.value)
    return caught.value


def test_no_kubeconfig_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    error = asked(Target())
    assert str(error) == (
        f"there is no kubeconfig at {tmp_path}/none: name one with --kubeconfig FILE or in $KUBECONFIG"
    )
    assert error.exit_code == 42


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be used: "),
        ("- a", "cannot be used: "),
        ("contexts: [{context: {}}]", "cannot be used: 'name'"),
        ("{}", "names no current context: name one with --context"),
        ("current-context: gone", "--context: there is no context gone in kubeconfig"),
        ("{current-context: a, contexts: [{name: a, context: {cluster: c, user: u}}]}", "cannot be used: "),
    ],
)
def test_a_kubeconfig_that_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    error = asked(Target(str(file)))
    assert says in str(error)
    assert str(file) in str(error)
    assert error.exit_code == 42


def test_a_wrong_context_is_told_the_right_ones(tmp_path: Path) -> None:
    error = asked(Target(str(kubeconfig(tmp_path, "http://127.0.0.1:1")), context="prod"))
    assert str(error).startswith("--context: there is no context prod in kubeconfig ")
    assert str(error).endswith(": it has lab")


def test_nobody_listens(tmp_path: Path) -> None:
    host = f"http://127.0.0.1:{free_port()}"
    error = asked(Target(str(kubeconfig(tmp_path, host))))
    assert (
        str(error)
        == f"nobody listens at {host}: start the cluster, or name another --context or --kubeconfig"
    )
    assert isinstance(error, UnreachableError)
    assert error.exit_code == 75


def test_a_name_that_no_dns_knows(tmp_path: Path) -> None:
    error = asked(Target(str(kubeconfig(tmp_path, "https://nowhere.invalid:6443"))))
    assert "https://nowhere.invalid:6443" in str(error)
    assert error.exit_code == 75


@contextmanager
def tls_server(folder: Path) -> Iterator[str]:
    """A server with a certificate that no one's kubeconfig trusts."""
    pair = Authority(folder).issue("server", "server", addresses=["127.0.0.1"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                try:
                    context.wrap_socket(connection, server_side=True).close()
                except OSError:
                    connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def test_a_certificate_of_another_cluster(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    with tls_server(tmp_path / "pki") as host:
        error = asked(Target(str(kubeconfig(tmp_path, host))))
    assert str(error).startswith(f"TLS with the cluster at {host} fails: ")
    assert "certificate-authority-data" in str(error)
    assert error.exit_code == 42


def answered(tmp_path: Path, prepare: object) -> EngramError:
    """What becomes of `get digits` on a fake server that `prepare` has changed."""

    async def scenario() -> EngramError:
        async with serving() as server:
            prepare(server)  # type: ignore[operator]
            with pytest.raises(EngramError) as caught:
                await get(
                    Target(str(kubeconfig(tmp_path, server.url))), "digits", watch=False, everywhere=False
                )
            return caught.value

    return run(scenario())


def test_a_cluster_without_engram(tmp_path: Path) -> None:
    path = f"/apis/engram.dev/v1alpha1/namespaces/lab/{PLURAL}/digits"

    def prepare(server: ApiServer) -> None:
        server.failures[path] = lambda: web.Response(status=404, text="404 page not found")

    error = answered(tmp_path, prepare)
    assert str(error).startswith("engram is not installed in the cluster at http://127.0.0.1:")
    assert "engram crd | kubectl apply" in str(error)
    assert error.exit_code == 42


@pytest.mark.parametrize(
    ("refusal", "says", "code"),
    [
        (Refusal(401, "Unauthorized"), "does not accept these credentials: log in again", 42),
        (
            Refusal(403, "Forbidden", 'User "me" cannot get'),
            'User "me" cannot get: ask for the role engram-view',
            42,
        ),
        (Refusal(503, "ServiceUnavailable", "etcd is away"), "is not well: etcd is away: try again", 75),
        (Refusal(429, "TooManyRequests", "slow down"), "is not well: slow down: try again", 75),
        (Refusal(400, "BadRequest", "no such field"), "refuses: no such field", 1),
    ],
)
def test_answers_that_are_none(tmp_path: Path, refusal: Refusal, says: str, code: int) -> None:
    def prepare(server: ApiServer) -> None:
        server.refuse = lambda asked: refusal

    error = answered(tmp_path, prepare)
    assert says in str(error)
    assert error.exit_code == code


def test_a_server_that_speaks_something_else(tmp_path: Path) -> None:
    path = f"/apis/engram.dev/v1alpha1/namespaces/lab/{PLURAL}/digits"

    def prepare(server: ApiServer) -> None:
        server.failures[path] = lambda: web.Response(text="<html>a proxy's login</html>")

    assert "cannot be reached" in str(answered(tmp_path, prepare))


def test_who_asks_is_said(tmp_path: Path) -> None:
    async def scenario() -> str:
        async with serving() as server:
            await server.put(job_object())
            seen = []

            def note(asked: object) -> None:
                seen.append(asked)

            server.refuse = note
            await get(Target(str(kubeconfig(tmp_path, server.url))), "digits", watch=False, everywhere=False)
            return str(seen[0].path)  # type: ignore[attr-defined]

    assert run(scenario()) == f"/apis/engram.dev/v1alpha1/namespaces/lab/{PLURAL}/digits"


@pytest.mark.process
def test_an_error_is_a_line_and_a_code_and_no_traceback(tmp_path: Path) -> None:
    done = plugin("get", "digits", "--kubeconfig", tmp_path / "none")
    assert (done.returncode, done.stdout) == (42, "")
    assert done.stderr == (
        f"engram: error: there is no kubeconfig at {tmp_path}/none: "
        "name one with --kubeconfig FILE or in $KUBECONFIG\n"
    )
    help_text = plugin("--help").stdout
    for command in ("get", "describe", "logs", "report", "wait", "check"):
        assert f"  {command} " in help_text


def test_a_plug_in_without_its_client_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from engram_kubectl import edge

    async def body(target: Target) -> int:
        raise ModuleNotFoundError("No module named 'kubernetes'", name="kubernetes.aio")

    assert edge.carry_out(body, "", "", "") == 42
    assert (
        capsys.readouterr().err
        == "engram: error: kubernetes is not installed: pip install 'engram[kubectl]'\n"
    )


def test_a_crash_is_told_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    from engram_kubectl import edge

    async def body(target: Target) -> int:
        raise ZeroDivisionError("oh")

    assert edge.carry_out(body, "", "", "") == 1
    assert capsys.readouterr().err.endswith("engram: unexpected error: ZeroDivisionError: oh\n")


def test_two_kubeconfigs_are_one(tmp_path: Path) -> None:
    first = kubeconfig(tmp_path, "http://127.0.0.1:1")
    (tmp_path / "second").write_text(json.dumps({"contexts": [{"name": "other", "context": {}}]}))
    error = asked(Target(f"{first}:{tmp_path}/second", context="none"))
    assert isinstance(error, ConfigurationError)
    assert str(error).endswith("it has lab, other")
