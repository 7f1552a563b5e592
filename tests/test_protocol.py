"""Frames and the terminal's stream: any split of the bytes, garbage, huge frames."""

from __future__ import annotations

import json
import os
import struct
import tempfile
import time
import zlib
from collections.abc import Iterable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppe_jupyter.node.r.terminal import Mark, Marker, Printed, TerminalReader, marker_text
from ppe_jupyter.node.sessions.eventlog import Event, EventLog, Gap
from ppe_jupyter.node.wire.packing import MAGIC_PACKED, PACKED, Packer
from ppe_jupyter.node.wire.protocol import (
    HEADER,
    MAGIC,
    MAX_EXACT,
    MAX_PREAMBLE,
    Body,
    FrameReader,
    Header,
    Kind,
    ProtocolError,
    frame,
    header,
    parse_json,
)
from ppe_jupyter.remote.values import nodes, wire

WORD = "0123456789abcdef"
numbers = st.integers(0, MAX_EXACT)
frames = st.lists(st.tuples(st.sampled_from(Kind), numbers, numbers, st.binary(max_size=300)), max_size=6)


def split(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(places)]


def read(reader: FrameReader, pieces: Iterable[bytes]) -> list[tuple[Kind, int, int, bytes]]:
    found: list[tuple[Kind, int, int, bytearray, int]] = []
    for piece in pieces:
        reader.feed(piece)
        while (event := reader.next()) is not None:
            if isinstance(event, Header):
                found.append((event.kind, event.id, event.seq, bytearray(), event.size))
            else:
                assert event.data
                found[-1][3].extend(event.data)
                assert len(found[-1][3]) + event.left == found[-1][4]
    assert all(len(body) == size for *_, body, size in found)
    return [(kind, id, seq, bytes(body)) for kind, id, seq, body, _ in found]


class TestFrames:
    @given(frames, st.lists(st.integers(0), max_size=20))
    def test_any_split_gives_the_same_frames(
        self, sent: list[tuple[Kind, int, int, bytes]], cuts: list[int]
    ) -> None:
        data = b"".join(frame(kind, body, id=id, seq=seq) for kind, id, seq, body in sent)
        assert read(FrameReader(), split(data, cuts)) == sent

    @given(
        st.binary(max_size=500).filter(lambda text: MAGIC not in text), st.lists(st.integers(0), max_size=9)
    )
    def test_what_a_login_shell_prints_first_is_skipped(self, text: bytes, cuts: list[int]) -> None:
        data = text + frame(Kind.WELCOME, b"{}")
        if data.find(MAGIC) != len(text):
            return  # the text ends as the magic begins
        reader = FrameReader(preamble=True)
        assert read(reader, split(data, cuts)) == [(Kind.WELCOME, 0, 0, b"{}")]
        assert reader.skipped == text

    def test_a_shell_that_never_stops_talking(self) -> None:
        reader = FrameReader(preamble=True)
        with pytest.raises(ProtocolError, match="text where the agent should answer"):
            read(reader, [b"motd\n" * 1000] * (MAX_PREAMBLE // 5000 + 1))

    @given(st.binary(min_size=1), st.lists(st.integers(0), max_size=9))
    def test_garbage_is_an_error_or_nothing_yet(self, data: bytes, cuts: list[int]) -> None:
        reader = FrameReader()
        try:
            assert read(reader, split(data, cuts)) == []
        except ProtocolError:
            with pytest.raises(ProtocolError):
                reader.next()
        else:
            assert any(magic.startswith(data[: len(MAGIC)]) for magic in (MAGIC, MAGIC_PACKED))

    @pytest.mark.parametrize("place", range(4))
    @pytest.mark.parametrize("number", [-1.0, 0.5, float("nan"), float("inf"), -float("inf"), 2.0**54, 1e300])
    def test_impossible_headers(self, place: int, number: float) -> None:
        values = [float(Kind.STDOUT), 1.0, 1.0, 1.0]
        values[place] = number
        with pytest.raises(ProtocolError):
            read(FrameReader(), [HEADER.pack(MAGIC, *values)])

    def test_garbage_between_frames(self) -> None:
        reader = FrameReader()
        with pytest.raises(ProtocolError):
            read(reader, [frame(Kind.STDOUT, b"a") + b"stray" + frame(Kind.STDOUT, b"b")])

    def test_a_line_end_that_was_rewritten(self) -> None:
        with pytest.raises(ProtocolError):
            read(FrameReader(), [frame(Kind.STDOUT, b"a").replace(b"\r\n", b"\n")])

    def test_a_huge_frame_is_passed_on_and_not_kept(self) -> None:
        size, piece = 2**40, bytes(2**20)
        reader = FrameReader()
        reader.feed(header(Kind.RESULT, size, id=7))
        assert reader.next() == Header(Kind.RESULT, 7, 0, size)
        for count in range(1, 65):
            reader.feed(piece)
            event = reader.next()
            assert isinstance(event, Body)
            assert event.left == size - count * len(piece)
            assert event.data.obj is piece  # not even copied
            assert reader.next() is None

    @pytest.mark.parametrize("body", [b"", b"[1]", b"{", b"\xff", b"null"])
    def test_bodies_that_are_no_json_object(self, body: bytes) -> None:
        with pytest.raises(ProtocolError):
            parse_json(body)

    @given(st.dictionaries(st.text(), st.integers()))
    def test_json(self, value: dict[str, int]) -> None:
        assert parse_json(json.dumps(value).encode()) == value


class TestBlocks:
    """Bodies that travel in blocks, compressed or not."""

    @given(st.sampled_from(["on", "off"]), st.binary(max_size=400), st.lists(st.integers(0), max_size=20))
    def test_any_split_gives_the_same_frame(self, mode: str, body: bytes, cuts: list[int]) -> None:
        body = body * 9 + b"."
        data = packed_frame(mode, body) + frame(Kind.STDOUT, b"next")
        assert read(FrameReader(), split(data, cuts)) == [
            (Kind.RESULT, 3, 0, body),
            (Kind.STDOUT, 0, 0, b"next"),
        ]

    @given(st.integers(0), st.binary(min_size=1, max_size=6), st.sampled_from(["on", "off"]))
    def test_a_changed_byte_never_crashes(self, at: int, change: bytes, mode: str) -> None:
        data = bytearray(packed_frame(mode, bytes(3000)))
        at = HEADER.size + at % (len(data) - HEADER.size)
        data[at : at + len(change)] = change
        with suppress(ProtocolError, AssertionError):
            read(FrameReader(), [bytes(data)])

    def test_a_block_that_would_become_more_than_there_is(self) -> None:
        bomb = zlib.compress(bytes(10**7))
        data = MAGIC_PACKED + header(Kind.RESULT, 100)[len(MAGIC_PACKED) :]
        reader = FrameReader()
        reader.feed(data + struct.pack("<I", len(bomb) | PACKED) + bomb)
        assert isinstance(reader.next(), Header)
        with pytest.raises(ProtocolError, match="too long"):
            reader.next()

    def test_it_is_compressed_when_the_line_is_slow_and_the_values_are_not_noise(self) -> None:
        assert sent_bytes(np.arange(500_000.0), rate=10**6) < 2_500_000
        assert sent_bytes(np.arange(500_000.0), rate=10**9) > 4_000_000
        noise = np.frombuffer(os.urandom(4_000_000))
        assert sent_bytes(noise, rate=10**6) > 4_000_000
        assert sent_bytes(np.arange(500_000.0), rate=10**9, told=10**6) < 2_500_000
        assert sent_bytes(np.arange(500_000.0), rate=10**6, told=10**9) < 2_500_000


def packed_frame(mode: str, body: bytes) -> bytes:
    head = MAGIC_PACKED + header(Kind.RESULT, len(body), id=3)[len(MAGIC_PACKED) :]
    return head + b"".join(bytes(block) for block in Packer(mode).blocks(body))


def sent_bytes(values: np.ndarray[Any, Any], *, rate: float, told: float | None = None) -> int:
    """How many bytes go over a line that takes ``rate`` bytes per second, once it was measured, and ``told``."""
    taken, waited = 0, 0.0
    packer = Packer("auto", clock=lambda: time.perf_counter() + waited)
    if told:
        packer.tell(told)
    for size in (0, 2 * 10**8):
        packer.measure(taken)
        taken, waited = taken + size, waited + size / rate
    packer.measure(taken)
    return sum(len(block) for block in packer.blocks(values.tobytes()))


def marked(mark: Mark, number: str = "") -> bytes:
    return f"{marker_text(WORD, mark)}{number}\a".encode()


texts = st.text().map(str.encode).filter(lambda text: b"]ppe;" not in text)
items = st.lists(st.one_of(texts, st.tuples(st.sampled_from(Mark), st.integers(0, 10**15 - 1))), max_size=8)


def printed(reader: TerminalReader, pieces: Iterable[bytes]) -> list[tuple[bytes, bool] | Marker]:
    """What came, with neighbouring texts of one stream joined."""
    found: list[tuple[bytes, bool] | Marker] = []
    for event in [event for piece in pieces for event in reader.feed(piece)] + list(reader.flush()):
        if isinstance(event, Printed):
            event.data.decode()  # whole characters
            last = found[-1] if found else None
            if isinstance(last, tuple) and last[1] == event.stderr:
                found[-1] = (last[0] + event.data, event.stderr)
            else:
                found.append((event.data, event.stderr))
        else:
            found.append(event)
    return found


class TestTerminal:
    @given(items, st.lists(st.integers(0), max_size=30))
    def test_any_split_gives_the_same_text_and_markers(
        self, sent: list[bytes | tuple[Mark, int]], cuts: list[int]
    ) -> None:
        data = b"".join(item if isinstance(item, bytes) else marked(item[0], str(item[1])) for item in sent)
        assert printed(TerminalReader(WORD), split(data, cuts)) == printed(TerminalReader(WORD), [data])
        events = printed(TerminalReader(WORD), [data])
        text = b"".join(event[0] for event in events if isinstance(event, tuple))
        assert text == b"".join(item for item in sent if isinstance(item, bytes))
        numbers = [event.number for event in events if isinstance(event, Marker)]
        assert numbers == [n for item in sent if isinstance(item, tuple) for mark, n in [item]
                           if mark not in (Mark.STDERR, Mark.STDOUT)]  # fmt: skip

    def test_streams(self) -> None:
        data = b"a" + marked(Mark.STDERR) + b"b" + marked(Mark.STDOUT) + b"c" + marked(Mark.END, "12")
        assert printed(TerminalReader(WORD), [data]) == [
            (b"a", False),
            (b"b", True),
            (b"c", False),
            Marker(Mark.END, 12),
        ]

    @given(st.binary())
    def test_any_bytes_come_out_as_they_are(self, data: bytes) -> None:
        reader = TerminalReader(WORD)
        events = [*reader.feed(data), *reader.flush()]
        assert b"".join(event.data for event in events if isinstance(event, Printed)) == data

    def test_another_session_cannot_be_imitated(self) -> None:
        data = marked(Mark.END, "1").replace(WORD.encode(), b"f" * 16)
        assert printed(TerminalReader(WORD), [data]) == [(data, False)]

    def test_text_is_not_kept_back_without_need(self) -> None:
        reader = TerminalReader(WORD)
        assert list(reader.feed(b"\x1b[1mbold")) == [Printed(b"\x1b[1mbold", False)]
        assert list(reader.feed("é".encode()[:1])) == []
        assert list(reader.feed("é".encode()[1:])) == [Printed("é".encode(), False)]


class TestColumns:
    @given(st.binary(max_size=400))
    def test_damaged_values_are_an_error(self, data: bytes) -> None:
        with pytest.raises(ProtocolError):
            wire.load(bytearray(struct.pack("<d", 9) + data[:64]))

    @given(st.integers(0, 2000), st.binary(min_size=1, max_size=8))
    def test_a_changed_byte_never_crashes(self, at: int, change: bytes) -> None:
        node = nodes.listing(
            [nodes.characters(["a", "é"]), nodes.vector(nodes.Type.INTEGER, nodes.NO_INDEXES)], ["x", "y"]
        )
        body = bytearray(b"".join(wire.dump(node)))
        body[at % len(body) : at % len(body) + len(change)] = change
        with suppress(ProtocolError):
            wire.load(body)


class TestEventLog:
    @pytest.mark.parametrize(
        ("printed", "percent"),
        [
            (["\r  |====      |  40%", "\r  |=====     |  45%"], 45.0),
            (["\r 7.5%|", "##", "| 3/40 [00:01]"], 7.5),
            (["50 %\n", "next\n"], None),
            ([], None),
        ],
    )
    def test_a_progress_bar_says_how_far_a_job_is(self, printed: list[str], percent: float | None) -> None:
        log = EventLog(None)
        log.append(Kind.STDOUT, b"99 %", job=1)
        for text in printed:
            log.append(Kind.STDOUT, text.encode(), job=2)
        log.append(Kind.DISPLAY, b"1 %", job=2)
        assert log.percent(2) == percent

    @given(st.lists(st.binary(max_size=50), max_size=40), st.integers(1, 200))
    def test_the_newest_are_kept(self, bodies: list[bytes], limit: int) -> None:
        log = EventLog(None, limit=limit)
        assert [log.append(Kind.STDOUT, body) for body in bodies] == list(range(1, len(bodies) + 1))
        kept = [each for each in log.since(0) if isinstance(each, Event)]
        assert [event.body for event in kept] == bodies[len(bodies) - len(kept) :]
        assert sum(len(event.body) for event in kept[1:]) <= limit
        assert log.first == (kept[0].seq if kept else 1)
        assert [each.seq for each in kept[1:]] == list(range(log.first + 1, log.last + 1))

    @given(
        bodies=st.lists(st.binary(max_size=50), min_size=1, max_size=60),
        limit=st.sampled_from([1, 500, 5000, 10**6]),
        since=st.integers(0, 60),
        torn=st.integers(0, 60),
    )
    def test_on_the_disk_numbers_go_on_and_what_is_missing_is_a_gap(
        self, bodies: list[bytes], limit: int, since: int, torn: int
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            log = EventLog(Path(folder), limit=limit)
            for number, body in enumerate(bodies):
                log.append(Kind.STDOUT, body, job=number)
            log.close()
            # The machine was lost while it wrote.
            last = max(Path(folder).iterdir())
            os.truncate(last, last.stat().st_size - min(torn, last.stat().st_size))
            again = EventLog(Path(folder), limit=limit)
            lost = log.last - again.last
            assert bool(lost) == bool(torn)
            number = again.append(Kind.STDERR, b"more", job=999)
            assert number == len(bodies) - lost + 1
            found = list(again.since(since))
            covered = [
                seq
                for each in found
                for seq in ([each.seq] if isinstance(each, Event) else range(each.first, each.last + 1))
            ]
            assert covered == list(range(since + 1, again.last + 1))
            for each in found:
                if isinstance(each, Event) and each.seq < number:
                    assert (each.body, each.job) == (bodies[each.seq - 1], each.seq - 1)
            if limit == 10**6:
                assert not any(isinstance(each, Gap) for each in found)
            again.close()

    def test_a_disk_that_takes_nothing(self, tmp_path: Path) -> None:
        told: list[str] = []
        (tmp_path / "file").touch()
        log = EventLog(tmp_path / "file" / "log", limit=1000, on_trouble=told.append)
        for _ in range(3):
            log.append(Kind.STDOUT, b"x")
        assert [event.seq for event in log.since(0) if isinstance(event, Event)] == [1, 2, 3]
        assert len(told) == 1
