"""Owns which Tritons make masks, and watching them."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import structlog

from frontend.errors import TritonDownError
from frontend.jobs.board import NOBODY
from frontend.masks.rendezvous import chosen
from frontend.triton.client import TritonClient
from frontend.triton.loading import loading_stage, outage_error
from frontend.triton.mask_tensors import SMART_MASK
from frontend.triton.watch import NOT_YET, TritonWatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frontend.domain.models import MaskModelState
    from frontend.jobs.board import Board
    from frontend.settings import Settings

log = structlog.get_logger()


@dataclass(eq=False)
class _Watched:
    """A Triton that may have requests."""

    watch: TritonWatch[MaskModelState]
    gone: bool = False
    """Whether it is announced no more, so that it gets no new requests."""
    requests: int = 0
    """Number of requests that it has."""


class MaskTritons:
    """The Tritons that make masks: those of the settings, or else those that dispatchers announce.

    One that is announced no more gets no new requests. It is watched until those that it has have
    ended, so at any time there are as many as are announced, and those with a request.

    An asynchronous context manager, which lets all of them go at its end.

    Args:
        settings: addresses and times.
        board: knows what dispatchers announce.
    """

    def __init__(self, settings: Settings, board: Board) -> None:
        self._settings = settings
        self._board = board
        # By the address at which all processes know it.
        self._watched: dict[str, _Watched] = {}

    async def __aenter__(self) -> Self:
        await self.ping()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*map(self._let_go, list(self._watched)))

    def __len__(self) -> int:
        """Return how many there are, ready or not."""
        return len(self._present)

    @property
    def ready(self) -> int:
        """Number of those that can make masks now."""
        return len(self._ready)

    def require(self) -> list[MaskModelState]:
        """Return the last answers of the models that can make masks now.

        Raises:
            TritonDownError: no model can; the detail gives the reason.
        """
        return [each.watch.require() for each in self._required().values()]

    @contextlib.contextmanager
    def having(self, image_id: str) -> Iterator[TritonWatch[MaskModelState]]:
        """Give the Triton that caches a picture, and keep it while the context lasts.

        It is the same one, in all processes, while the same ones are up.

        Args:
            image_id: SHA-256 of the picture's file, hexadecimal.

        Raises:
            TritonDownError: no Triton can make masks; the detail gives the reason.
        """
        ready = self._required()
        found = ready[chosen(ready, image_id)]
        found.requests += 1
        try:
            yield found.watch
        finally:
            found.requests -= 1

    async def ping(self) -> None:
        """Take up those that have come, let go those that have gone, and ping the others once."""
        addresses = self._addresses()
        for address, url in addresses.items():
            if address not in self._watched:
                client = TritonClient(url)
                timeout_s = self._settings.ping_timeout_s
                watch = TritonWatch(client, SMART_MASK, client.cancel_mask, timeout_s)
                self._watched[address] = _Watched(watch)
                log.info("triton_watched", address=address)
        idle: list[str] = []
        kept: list[str] = []
        for address, each in self._watched.items():
            each.gone = address not in addresses
            (idle if each.gone and not each.requests else kept).append(address)
        pings = [self._watched[address].watch.ping() for address in kept]
        await asyncio.gather(*map(self._let_go, idle), *pings)

    def _addresses(self) -> dict[str, str]:
        """Return at which address this process reaches each, by the one that others know."""
        settings = self._settings
        if settings.triton_grpc_urls:
            pairs = zip(settings.advertised_grpc_urls, settings.triton_grpc_urls, strict=True)
            return dict(pairs)
        return {state.url: state.url for state in self._board.tritons}

    async def _let_go(self, address: str) -> None:
        watch = self._watched.pop(address).watch
        log.info("triton_gone", address=address)
        watch.close()
        # The answer to a cancel may come behind that of the request.
        await watch.client.close(self._settings.cancel_timeout_s)

    @property
    def _present(self) -> dict[str, _Watched]:
        return {address: each for address, each in self._watched.items() if not each.gone}

    @property
    def _ready(self) -> dict[str, _Watched]:
        states = ((address, each, each.watch.state) for address, each in self._present.items())
        return {address: each for address, each, state in states if state and state.network_answers}

    def _required(self) -> dict[str, _Watched]:
        """Return the Tritons that can make masks now; see `require`."""
        if ready := self._ready:
            return ready
        watches = [each.watch for each in self._present.values()]
        if any(watch.state for watch in watches):
            raise TritonDownError("the mask network does not answer")
        if not (self._addresses() or watches):
            raise TritonDownError(NOBODY)
        raise outage_error(watches[0].reason if watches else NOT_YET, self._loading())

    def _loading(self) -> str | None:
        """Return what Tritons are loading, in words; None if none has told."""
        if self._settings.triton_grpc_urls:
            return loading_stage(self._settings.loading_file)
        return self._board.loading
