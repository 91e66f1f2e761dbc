"""Answers that no API server gives of itself: from a pod that it forwards to, or from a proxy before it."""

from __future__ import annotations

import pytest
from aiohttp import web

from engram_operator.api import Api
from engram_operator.errors import ApiError
from tests.control.api_server import ApiServer, serving
from tests.control.edge import api_of, run

PATH = "/api/v1/namespaces/lab/pods/digits"
ELSEWHERE = "/api/v1/namespaces/other/secrets/theirs"
DEEP = "[" * 200_000


async def refused(api: Api, path: str = PATH) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await api.request("GET", path)
    return caught.value


async def watched(api: Api, path: str = PATH) -> ApiError:
    events = api.watch(path, {"resourceVersion": "1"})
    with pytest.raises(ApiError) as caught:
        await anext(events)
    return caught.value


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_error_and_never_followed(status: int) -> None:
    async def scenario() -> None:
        async with serving() as server, api_of(server) as api:
            redirect(server, status, ELSEWHERE)
            assert (await refused(api)).status == status
            assert (await watched(api)).status == status
            with pytest.raises(ApiError):
                await api.text(PATH, {})
            assert {asked.path for asked in server.asked} == {PATH}

    run(scenario())


def redirect(server: ApiServer, status: int, to: str) -> None:
    server.failures[PATH] = lambda: web.Response(status=status, headers={"Location": to})


@pytest.mark.parametrize("status", [200, 403, 500])
def test_json_that_nests_without_end_is_an_error(status: int) -> None:
    async def scenario() -> None:
        async with serving() as server, api_of(server) as api:
            server.failures[PATH] = lambda: web.Response(status=status, text=DEEP)
            error = await refused(api)
            assert (error.status, error.reason) == ((0, "NoJson") if status == 200 else (status, ""))
            assert len(str(error)) < 400
            await watched(api)

    run(scenario())
