"""
Limit how many search indexes build at the same time (`run --max-building`). I/O.

A helper asks before it submits, and submits no more than it is allowed to. Builds that the script starts without a
helper are not held back. They count as soon as they build.
"""

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio

from mydocs.migrations.driver import commands, retry
from mydocs.migrations.driver.client import Database
from mydocs.migrations.indexes import capture, readiness
from mydocs.migrations.indexes.capture import Capture
from mydocs.migrations.indexes.readiness import Track
from mydocs.migrations.limits import limits
from mydocs.migrations.model import IndexState, TrackedIndex
from mydocs.migrations.reporting.events import StillWaiting

SIGN_OF_LIFE_SECONDS = 30.0


@asynccontextmanager
async def free_slots(db: Database, wanted: int) -> AsyncIterator[int]:
    """
    Yield how many of the wanted builds may be submitted now, at least one. Wait until one may.

    No other task of the step submits until the block ends. The wait has no limit except that of the builds.
    """
    captured = capture.of_database(db.name)
    if captured is None or captured.max_building is None:
        yield wanted
        return
    async with captured.submitting:
        yield min(wanted, await _free(db, captured, captured.max_building))


async def _free(db: Database, captured: Capture, limit: int) -> int:
    started = told = time.monotonic()
    tracks: list[Track] = []
    while True:
        tracks = await _look(db, captured)
        building = [track for track in tracks if _is_building(track, captured)]
        if len(building) < limit:
            return limit - len(building)
        now = time.monotonic()
        if now - told >= SIGN_OF_LIFE_SECONDS:
            told = now
            what = tuple(f"{track.index} to be built" for track in building)
            captured.context.emit(StillWaiting(what=what, seconds=now - started))
        jitter = random.uniform(-readiness.JITTER, readiness.JITTER)
        await anyio.sleep(readiness.gap(building, now, limits().look_gap, jitter))


async def _look(db: Database, captured: Capture) -> list[Track]:
    """Look at the collections whose indexes may be building. One that was seen ready or failed is not read again."""
    now = time.monotonic()
    server_now = captured.now()
    open_tracks: dict[str, list[Track]] = {}
    for index in captured.search_indexes():
        track = captured.tracks.get(_label(index))
        if track is None:
            age = 0.0 if index.asked_at is None else max(0.0, (server_now - index.asked_at).total_seconds())
            track = readiness.begin(index, asked_at=now - age, since=now - age)
        if track.outcome is None:
            open_tracks.setdefault(index.collection, []).append(track)
    for collection, tracks in open_tracks.items():
        names = [track.index.name for track in tracks]
        documents = await retry.again(partial(commands.search_listing, db, collection, names))
        listing = readiness.by_name(map(readiness.parse, documents))
        for track in tracks:
            listed = readiness.pick(track.index, listing.get(track.index.name, ()))
            captured.tracks[_label(track.index)] = readiness.look(track, listed, now, limits())
    return [captured.tracks[_label(index)] for index in captured.search_indexes()]


def _is_building(track: Track, captured: Capture) -> bool:
    """Return whether an index takes a slot. One that this step has asked for may not be listed yet."""
    if track.outcome is not None:
        return False
    absent = track.verdict.state is IndexState.ABSENT
    expected = absent and captured.has_asked_for(track.index)
    return expected or track.verdict.state in (IndexState.PENDING, IndexState.BUILDING)


def _label(index: TrackedIndex) -> tuple[object, ...]:
    return (*index.key, index.asked_at)
