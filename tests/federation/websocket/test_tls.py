"""TLS with a CA of the job's own, and endpoints that fail: one clear sentence, the next one, no hang."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from engram.errors import ConfigurationError, RefusedError, RetryError
from engram.federation.inprocess import run_in_process
from engram.federation.outcome import Outcome
from engram.federation.tokens import authenticator
from engram.federation.websocket import dial
from engram.federation.websocket.client import run_worker
from engram.federation.websocket.server import serve
from engram.federation.websocket.tls import TlsClient, server_context
from engram.spec.tokens import worker_token
from tests.federation.certificates import NAME, Authority

KEY = b"a key of the tests"
A, B = "trainworker-edge-0", "trainworker-edge-1"


class Run:
    """One aggregator on a free port of loopback, and workers as threads."""

    def __init__(self, federation: Any, tls: ssl.SSLContext | None) -> None:
        self.federation, self.tls = federation, tls
        self.ends: dict[str, str | Exception] = {}
        self.endpoints: Callable[[int], Sequence[str]] = lambda port: [f"127.0.0.1:{port}"]
        self.changes: dict[str, Any] = {}

    def __call__(self, *, workers: Sequence[str] = (A, B)) -> Outcome:
        """Run until the end, or until all `workers` have ended."""
        return asyncio.run(self._run(workers))

    async def _run(self, workers: Sequence[str]) -> Outcome:
        stop = asyncio.Event()
        listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(
            serve(
                self.federation.aggregator(),
                host="127.0.0.1",
                port=0,
                authenticate=authenticator(KEY, "uid"),
                stop=stop,
                listening=listening.set_result,
                tls=self.tls,
            )
        )
        port = await listening
        async with asyncio.timeout(30):
            await asyncio.gather(*(asyncio.to_thread(self._work, name, port) for name in workers))
            stop.set()
            return await serving

    def _work(self, name: str, port: int) -> None:
        options: dict[str, Any] = {"token": worker_token(KEY, "uid", name), "orphan_seconds": 20.0}
        try:
            self.ends[name] = run_worker(
                self.federation.workers()[name],
                worker=name,
                job_digest="job",
                endpoints=lambda: self.endpoints(port),
                attempt=1,
                stop=threading.Event(),
                **{**options, **self.changes},
            )
        except Exception as error:
            self.ends[name] = error


MakeRun = Callable[..., Run]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")


@pytest.fixture
def make_run(make_federation: Callable[..., Any], authority: Authority) -> MakeRun:
    def make(*, tls: bool = True, ca: Path | None = authority.ca, name: str = NAME, **settings: Any) -> Run:
        federation = make_federation(
            workers=2, tick_seconds=0.02, hello_seconds=0.5, linger_seconds=1.0, **settings
        )
        run = Run(federation, server_context(*authority.issue()) if tls else None)
        run.changes["tls"] = None if ca is None else TlsClient(ca, name)
        return run

    return make


def failure(run: Run, **changes: Any) -> str:
    """Run one worker that cannot connect; return the sentence that it leaves with."""
    run.changes |= {"orphan_seconds": 0.4, **changes}
    run(workers=[A])
    error = run.ends[A]
    assert isinstance(error, RetryError), error
    assert "Traceback" not in str(error)
    assert "\n" not in str(error)
    return str(error)


def test_the_same_bits_over_tls_whatever_address_is_dialled(
    make_run: MakeRun, same_bits: Callable[..., bool]
) -> None:
    run = make_run()
    outcome = run()
    assert outcome.reason == "complete"
    assert run.ends == {A: "complete", B: "complete"}
    plain = run_in_process(run.federation.aggregator(), run.federation.workers(), lambda: False)
    assert same_bits(outcome.weights, plain.weights)


def test_another_ca_is_not_trusted(
    make_run: MakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sentence = failure(make_run(ca=Authority(tmp_path / "other").ca))
    assert "TLS: its certificate is not one of the CA in " in sentence
    assert f"for {NAME}: " in sentence
    said = [record.getMessage() for record in caplog.records if "TLS" in record.getMessage()]
    assert len(said) == 1  # though it was tried again and again
    assert said[0].startswith(f"{A}: cannot reach the aggregator at 127.0.0.1:")
    assert not any(record.exc_info for record in caplog.records)


def test_another_name_is_not_accepted(make_run: MakeRun) -> None:
    assert "for other.default.svc: Hostname mismatch" in failure(make_run(name="other.default.svc"))


def test_a_ca_that_is_renewed_is_taken_at_the_next_attempt(make_run: MakeRun, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    run = make_run(ca=other.ca)
    right = tmp_path.joinpath("pki", "ca.crt").read_bytes()

    def endpoints(port: int) -> list[str]:
        asked.append(port)
        if len(asked) == 8:
            other.ca.write_bytes(right)
        return [f"127.0.0.1:{port}"]

    asked: list[int] = []
    run.endpoints = endpoints
    assert run().reason == "complete"
    assert len(asked) >= 8


def test_a_ca_whose_volume_is_emptied_stands(make_run: MakeRun, authority: Authority) -> None:
    run = make_run()
    tls = run.changes["tls"]
    tls.context()
    authority.ca.unlink()
    assert run().reason == "complete"


def test_without_tls_on_a_tls_port(make_run: MakeRun) -> None:
    assert "TLS: no WebSocket answer: give the job's CA (--ca, ENGRAM_CA_FILE)" in failure(make_run(ca=None))


def test_with_tls_on_a_plain_port(make_run: MakeRun) -> None:
    assert "TLS: no TLS comes back" in failure(make_run(tls=False))


def test_a_peer_that_never_speaks_on_a_tls_port_holds_nobody_up(make_run: MakeRun) -> None:
    run = make_run()
    mute: list[socket.socket] = []

    def endpoints(port: int) -> list[str]:
        if not mute:
            mute.append(socket.create_connection(("127.0.0.1", port)))
        return [f"127.0.0.1:{port}"]

    run.endpoints = endpoints
    try:
        assert run().reason == "complete"
    finally:
        for connection in mute:
            connection.close()


@pytest.mark.parametrize("content", [b"", b"no PEM"])
def test_a_ca_file_that_is_none_ends_the_worker_at_once(
    make_run: MakeRun, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "ca.crt"
    path.write_bytes(content)
    run = make_run(ca=path)
    run(workers=[A])
    assert isinstance(run.ends[A], ConfigurationError)
    assert str(run.ends[A]).startswith(f"{path}: --ca: no certificate of a CA")


def test_a_key_of_another_certificate_is_refused(authority: Authority, tmp_path: Path) -> None:
    files, other = authority.issue(), Authority(tmp_path / "other").issue()
    with pytest.raises(ConfigurationError, match="do not belong together"):
        server_context(files.certificate, other.key)
    with pytest.raises(ConfigurationError, match="No such file"):
        server_context(files.certificate, tmp_path / "absent")


def test_plain_endpoints_are_refused_where_a_ca_is_given(make_run: MakeRun) -> None:
    run = make_run()
    run.endpoints = lambda port: [f"ws://127.0.0.1:{port}"]
    run(workers=[A])
    assert "without TLS, but a CA was given" in str(run.ends[A])


# Endpoints that fail.


def test_a_name_that_nobody_answers_for_costs_little_and_the_aggregator_hears_of_it(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dial, "RESOLVE_SECONDS", 0.1)
    over = threading.Event()

    def stuck(*arguments: object, **options: object) -> list[Any]:
        over.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "gave up")

    run = make_run()
    run.endpoints = lambda port: ["agg.default.svc:7363", f"127.0.0.1:{port}"]
    monkeypatch.setattr(socket, "getaddrinfo", _only_for("agg.default.svc", stuck))
    start = time.monotonic()
    try:
        assert run().reason == "complete"
    finally:
        over.set()
    assert time.monotonic() - start < 10
    hello = run.federation.observer.hellos[A]
    assert hello.endpoint.startswith("127.0.0.1:")
    assert hello.trouble == "agg.default.svc:7363: DNS: no answer for agg.default.svc within 0.1 s"


def _only_for(host: str, instead: Callable[..., Any]) -> Callable[..., Any]:
    real = socket.getaddrinfo

    def look_up(name: Any, *arguments: Any, **options: Any) -> Any:
        return (instead if name == host else real)(name, *arguments, **options)

    return look_up


def test_every_step_that_can_fail_is_named(make_run: MakeRun, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{unused.getsockname()[1]}"
        run.endpoints = lambda port: ["no such host.invalid:1", dead]
        sentence = failure(run, orphan_seconds=0.3)
    assert "DNS: no such host.invalid is not known here" in sentence
    assert f"{dead}: TCP: 127.0.0.1:{dead.rpartition(':')[2]}: " in sentence
    # A refused connection is no news yet: the aggregator may be starting.
    assert [record.getMessage().split(": ")[2] for record in caplog.records] == ["DNS"]


def test_a_wrong_token_ends_the_worker_unless_another_endpoint_takes_it(make_run: MakeRun) -> None:
    run = make_run()
    run.changes["token"] = "guessed"
    run(workers=[A])
    assert isinstance(run.ends[A], RefusedError)
    assert "token: unknown worker or wrong token" in str(run.ends[A])


def test_endpoints_that_are_found_later_are_used(make_run: MakeRun) -> None:
    run = make_run()
    asked: list[int] = []

    def endpoints(port: int) -> list[str]:
        asked.append(port)
        return [f"127.0.0.1:{port}"] if len(asked) > 12 else ["127.0.0.1:1"]

    run.endpoints = endpoints
    assert run().reason == "complete"
