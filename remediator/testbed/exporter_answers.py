"""What a fake exporter puts on the wire: the page, or one of the wrong answers. No state."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from aiohttp import web

from remediator.fleet.pages import BINARY_BODY, HTML_BODY, Answer, Trouble

ENDLESS_BYTES_MAX: Final = 256 * 2**20

_ENDLESS: Final = b'DCGM_FI_DEV_GPU_TEMP{gpu="0",UUID="GPU-endless"} 40\n' * 1024


async def send(request: web.BaseRequest, answer: Answer, *, stopping: asyncio.Event) -> web.StreamResponse:
    """Answer one scrape; an endless body ends when ``stopping`` is set or the reader has gone."""
    match answer.trouble:
        case Trouble.DOWN:
            return _hang_up(request)
        case Trouble.TRUNCATED:
            return await _half(request, answer)
        case Trouble.ENDLESS:
            return await _endless(request, stopping)
        case Trouble.HTML:
            return web.Response(body=HTML_BODY, content_type="text/html")
        case Trouble.BINARY:
            return web.Response(body=BINARY_BODY, content_type="application/octet-stream")
        case Trouble.EMPTY:
            return _text(b"")
        case Trouble.NONE | Trouble.MALFORMED:
            return _text(answer.body)


def _text(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="text/plain", charset="utf-8")


def _hang_up(request: web.BaseRequest) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=503)  # never arrives


async def _half(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_type = "text/plain"
    response.content_length = len(answer.body)
    await response.prepare(request)
    await response.write(answer.body[: len(answer.body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


async def _endless(request: web.BaseRequest, stopping: asyncio.Event) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_type = "text/plain"
    await response.prepare(request)
    with suppress(ConnectionError):  # the reader has gone: the usual end
        for _ in range(ENDLESS_BYTES_MAX // len(_ENDLESS)):
            if stopping.is_set():
                break
            await response.write(_ENDLESS)
    return response
