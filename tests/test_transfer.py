"""Files both ways: through a shell of this machine, and to the nodes of a launched cluster."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bench.faraway import far_away
from host_r import HostConnection
from hypothesis import given
from hypothesis import strategies as st
from localcloud_nodes import until

import ppe_jupyter.node
from ppe_jupyter import errors, ssh
from ppe_jupyter.frontends import cli
from ppe_jupyter.frontends.actions.files import Bar
from ppe_jupyter.node.files import arrivals
from ppe_jupyter.node.files.arrivals import PART, Arrivals
from ppe_jupyter.node.files.exchange import Line, LineLost, Refused, parsed, receive
from ppe_jupyter.node.files.listing import Entry
from ppe_jupyter.node.wire.protocol import Kind, ProtocolError, frame
from ppe_jupyter.remote.files import transfer
from ppe_jupyter.remote.files.transfer import Tally
from ppe_jupyter.remote.sessions.session import RemoteR
from ppe_jupyter.ssh import Channel

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.manager import Manager

MB = 10**6


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of the other end."""
    home = tmp_path_factory.mktemp("far")
    software = Path(ppe_jupyter.node.__file__).parent
    shutil.copytree(software, home / ".ppe" / "node", ignore=shutil.ignore_patterns("__pycache__"))
    return home


@pytest.fixture
def line(far: Path) -> Iterator[Any]:
    yield HostConnection(far)
    for entry in far.iterdir():
        if entry.name != ".ppe":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def tree(folder: Path) -> dict[str, Any]:
    """All that is below it: kinds, contents, modes and times."""
    found: dict[str, Any] = {}
    for path in [folder, *folder.rglob("*")]:
        about = path.lstat()
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = str(path.readlink())
        else:
            content = path.read_bytes() if path.is_file() else None
            found[name] = (content, oct(about.st_mode), about.st_mtime_ns)
    return found


def parts(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if PART in path.name]


def stop_at(share: float) -> Callable[[Tally], None]:
    """The stop button, pressed when so much is done."""

    def press(tally: Tally) -> None:
        if tally.done > share * tally.bytes:
            raise KeyboardInterrupt

    return press


def odd_tree(folder: Path) -> Path:
    """Names, modes and kinds that are easily lost."""
    folder.mkdir()
    (folder / "a b\n'\"$x*.txt").write_text("x")
    (folder / "ünï ☂").mkdir(mode=0o750)
    (folder / "ünï ☂" / "zahlen").write_bytes(os.urandom(300_000))
    (folder / "ünï ☂" / "zahlen").chmod(0o604)
    os.utime(folder / "ünï ☂" / "zahlen", ns=(1, 123_456_789_123_456_789))
    Path(os.fsdecode(os.fsencode(folder) + b"/latin\xe9")).touch()
    (folder / "inside").symlink_to("ünï ☂/zahlen")
    (folder / "ünï ☂" / "up").symlink_to("../inside")
    (folder / "empty").mkdir()
    return folder


def test_a_tree_comes_back_as_it_was(line: Any, far: Path, tmp_path: Path) -> None:
    source = odd_tree(tmp_path / "source")
    (source / "outside").symlink_to("/etc/passwd")
    os.mkfifo(source / "pipe")
    done = transfer.upload(line, [str(source)], "new name")
    assert (done.files, done.base) == (3, str(far))
    assert sorted(each.split(" ")[0] for each in done.left_out) == ["source/outside", "source/pipe"]
    done = transfer.download(line, ["new*"], str(tmp_path / "back"))
    (source / "outside").unlink()
    (source / "pipe").unlink()
    os.utime(source, ns=(1, (tmp_path / "back").stat().st_mtime_ns))
    assert tree(tmp_path / "back") == tree(source)
    again = transfer.download(line, ["new name"], str(tmp_path / "back" / "."))
    assert again.base == str(tmp_path / "back"), "a folder that is there is gone into"


def test_what_is_there_already_is_not_sent_again(line: Any, far: Path, tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv", "c.txt"):
        (tmp_path / name).write_text(name * 1000)
    assert transfer.upload(line, [str(tmp_path / "*.csv")], "data/").bytes == 10_000
    (tmp_path / "b.csv").write_text("other" * 1000)
    assert transfer.upload(line, [str(tmp_path / "*")], "data/").bytes == 10_000
    assert tree(far / "data")["b.csv"][0] == b"other" * 1000


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("way", ["up", "down"])
def test_a_cut_file_is_gone_on_with_if_its_beginning_is_right(
    line: Any, far: Path, tmp_path: Path, way: str, damaged: bool
) -> None:
    here, there = tmp_path / "here", far / "there"
    source, folder = (tmp_path / "big", there) if way == "up" else (far / "big", here)
    source.write_bytes(os.urandom(20 * MB))
    folder.mkdir()
    (folder / "big").write_text("what was there before")

    def carry(on_progress: Callable[[Tally], None] = lambda tally: None) -> transfer.Transferred:
        if way == "up":
            return transfer.upload(line, [str(source)], "there/", on_progress=on_progress)
        return transfer.download(line, ["big"], str(here), on_progress=on_progress)

    with pytest.raises(errors.RemoteInterrupted, match="do the same again to go on"):
        carry(stop_at(0.5))
    assert (folder / "big").read_text() == "what was there before"
    (part,) = parts(folder)
    until(lambda: part.stat().st_size > 8 * MB)
    if damaged:
        with part.open("r+b") as file:
            file.seek(1000)
            file.write(b"damage")
    done = carry()
    assert (folder / "big").read_bytes() == source.read_bytes()
    assert (done.bytes == 20 * MB) if damaged else (done.bytes < 13 * MB)
    assert not parts(folder)


def test_the_part_of_a_file_that_was_changed_since_is_dropped(line: Any, far: Path, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(9 * MB))
    with pytest.raises(errors.RemoteInterrupted):
        transfer.upload(line, [str(tmp_path / "big")], on_progress=stop_at(0.5))
    until(lambda: parts(far))
    (tmp_path / "big").write_bytes(b"other")
    transfer.upload(line, [str(tmp_path / "big")])
    assert (far / "big").read_bytes() == b"other"
    assert not parts(far)


def test_thousands_of_small_files(line: Any, far: Path, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for number in range(3000):
        (tmp_path / "many" / str(number)).write_text(f"{number}")
    assert transfer.upload(line, [str(tmp_path / "many")]).files == 3000
    assert {each.name: each.read_text() for each in (far / "many").iterdir()} == {
        f"{number}": f"{number}" for number in range(3000)
    }


def arriving(folder: Path, *entries: Entry) -> Arrivals:
    taken = Arrivals(str(folder), entries, rename=False)
    taken.plan()
    return taken


def test_damage_on_the_way_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    taken = arriving(tmp_path, Entry("file", "x", 4))
    taken.write(0, 0, b"dat?")
    taken.end(0, hashlib.sha256(b"data").digest())
    assert "damaged on the way" in taken.finish()["failures"]["x"]
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.tuples(st.integers(0), st.binary(min_size=1, max_size=5)), min_size=1, max_size=3))
def test_garbage_on_the_line_is_an_error_and_never_a_wrong_file(changes: list[tuple[int, bytes]]) -> None:
    body = bytes(range(250))
    sent = bytearray(
        frame(Kind.DATA, body) + frame(Kind.END, hashlib.sha256(body).digest()) + frame(Kind.DONE, b"{}")
    )
    for at, change in changes:
        sent[at % len(sent) : at % len(sent) + len(change)] = change
    came = iter([bytes(sent)])
    line = Line(lambda: next(came, b""), lambda data: None)
    with tempfile.TemporaryDirectory() as folder:
        taken = Arrivals(folder, parsed([["file", "x", 250, 0, 0o600, ""]]), rename=False)
        with suppress(ProtocolError, LineLost, Refused, AssertionError):
            receive(line, taken)
        found = Path(folder) / "x"
        assert not found.exists() or found.read_bytes() == body


def test_a_list_of_files_that_is_none() -> None:
    for row in (["file"], ["file", "x", "1", 0, 0, ""], ["file", None, 1, 0, 0, ""]):
        with pytest.raises(ProtocolError):
            parsed([row])


def test_nothing_is_written_outside_the_destination(tmp_path: Path) -> None:
    target = tmp_path / "in" / "dest"
    (tmp_path / "away").mkdir()
    target.mkdir(parents=True)
    (target / "old").symlink_to(tmp_path / "away")
    (target / "file").symlink_to(tmp_path / "away" / "file")
    bad = ["../x", "/x", "a/../../x", "a//x", "", ".", "a/..", "old/x", "a\0"]
    entries = [Entry("file", path) for path in bad]
    entries += [Entry("folder", "old"), Entry("folder", "..")]
    links = {"a/1": "/etc", "a/2": "../..", "a/3": "b/../../..", "top": "x", "a/b/l": "../../.."}
    entries += [Entry("link", path, target=to) for path, to in links.items()]
    entries += [Entry("file", "file"), Entry("link", "a/fine", target="b/x")]
    taken = arriving(target, *entries)
    nothing = hashlib.sha256().digest()
    for index, entry in enumerate(entries):
        if entry.kind == "file":
            taken.end(index, nothing)
    report = taken.finish()
    assert set(report["failures"]) == {*bad, "old", ".."}
    assert [each.split(" ")[0] for each in report["left_out"]] == list(links)
    assert list((tmp_path / "away").iterdir()) == []
    assert (target / "a" / "fine").is_symlink()
    assert not (target / "file").is_symlink(), "replaced, not written through"
    assert sorted(each.name for each in (tmp_path / "in").iterdir()) == ["dest"]


def test_a_full_disk_is_said_and_not_left_full(
    line: Any, far: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    (far / "big").write_bytes(bytes(9 * MB))
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", small], check=False).returncode:
        pytest.skip("cannot mount here")
    try:
        with pytest.raises(errors.TransferFailed, match=r"has 5.24 MB free, and 9 MB are to come"):
            transfer.download(line, ["big"], str(small))
        monkeypatch.setattr(arrivals.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**12))
        with pytest.raises(errors.TransferFailed, match="No space left on device"):
            transfer.download(line, ["big"], str(small))
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


HOLDER = """
import fcntl, os, sys, time
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.lockf(file, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(600)
"""


def test_two_transfers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    entry = Entry("file", "x", 4)
    part = arriving(tmp_path, entry)._part_name(str(tmp_path / "x"), entry)
    with subprocess.Popen([sys.executable, "-c", HOLDER, part], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout
            assert holder.stdout.readline() == b"locked\n"
            taken = Arrivals(str(tmp_path), [entry], rename=False, end_stale=True)
            taken.write(0, 0, b"data")
            assert "another transfer" in taken.failures["x"]
            os.utime(part, (0, 0))  # it has not written for long: its client is gone
            taken = Arrivals(str(tmp_path), [entry], rename=False, end_stale=True)
            taken.write(0, 0, b"data")
            taken.end(0, hashlib.sha256(b"data").digest())
            assert taken.finish()["failures"] == {}
            assert holder.wait(10) != 0
        finally:
            holder.kill()
    assert (tmp_path / "x").read_bytes() == b"data"


def test_what_cannot_be_sent_is_said_before_anything_is(line: Any, far: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").touch()
    (tmp_path / "x").touch()
    for sources, why in [
        ([str(tmp_path / "none")], "there is no .*none"),
        ([str(tmp_path / "no*")], r"there is no .*no\*"),
        ([str(tmp_path / "x"), str(tmp_path / "a" / "x")], "would both become x"),
        (["/"], "has no name"),
        (["/dev/null"], "neither a file nor a folder"),
    ]:
        with pytest.raises(errors.TransferFailed, match=why):
            transfer.upload(line, sources)
    with pytest.raises(errors.TransferFailed, match=r"there is no .*none"):
        transfer.download(line, ["none"], str(tmp_path))
    (far / "file").touch()
    with pytest.raises(errors.TransferFailed, match=r"cannot be made: (File exists|Not a directory)"):
        transfer.upload(line, [str(tmp_path / "x")], "file/y")


def test_a_file_that_changes_while_it_is_sent_is_an_error(line: Any, far: Path, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(bytes(2 * MB))

    def grow(tally: Tally) -> None:
        with (tmp_path / "log").open("ab") as file:
            file.write(b"more")

    with pytest.raises(errors.TransferFailed, match="it was changed while it was sent"):
        transfer.upload(line, [str(tmp_path / "log")], on_progress=grow)
    assert not (far / "log").exists()


def test_a_machine_without_our_software_says_so(tmp_path: Path) -> None:
    bare: Any = HostConnection(tmp_path)
    with pytest.raises(errors.TransferFailed, match=r"let go of the line: .*\.ppe"):
        transfer.download(bare, ["x"], str(tmp_path))


def test_the_bar_comes_after_a_second_with_a_rate() -> None:
    shown: list[str] = []
    seconds = iter([0.0, 0.5, 2.0, 2.1, 4.0])
    bar = Bar(
        lambda progress: shown.append(f"{progress.ready} {progress.message}"), clock=lambda: next(seconds)
    )
    for done in (1, 20, 21, 40):
        bar(Tally(files=1, bytes=100 * MB, done=done * MB, kept=10 * MB))
    assert shown == ["20 20 MB of 100 MB, 5 MB/s, 16 s left", "40 40 MB of 100 MB, 7.5 MB/s, 8 s left"]


# -- on a cluster ---------------------------------------------------------------------------------------


@pytest.fixture
def folder(cluster: Cluster, r: RemoteR) -> Iterator[str]:
    """R's working directory, on all nodes."""
    path = "/tmp/transfer test"
    cluster.run_shell(f"mkdir '{path}'", all_nodes=True, on_output=lambda output: None)
    before = r.eval(f'setwd("{path}")')
    yield path
    cluster.r().eval(f'setwd("{before}")')  # the line may have been cut
    cluster.run_shell(f"chmod u+w '{path}'; rm -r '{path}'", all_nodes=True, on_output=lambda output: None)


def on(cluster: Cluster, node: int, command: str) -> str:
    """What a command prints there."""
    address = cluster.nodes[node].private_ip
    return cluster.ssh().run(command if node == 0 else shlex.join(["ssh", address, command])).stdout.decode()


def test_files_go_where_r_is_also_while_it_is_busy(
    cluster: Cluster, r: RemoteR, folder: str, tmp_path: Path
) -> None:
    (tmp_path / "data.csv").write_text("x\n1\n")
    started = threading.Event()
    code = 'cat("here"); Sys.sleep(600)'

    def evaluate() -> None:
        with pytest.raises(errors.RemoteInterrupted):
            r.run(code, on_output=lambda output: started.set())

    thread = threading.Thread(target=evaluate)
    thread.start()
    assert started.wait(120)
    try:
        assert cluster.upload(tmp_path / "data.csv").base == folder
        cluster.download("*.csv", to=tmp_path / "back.csv")
    finally:
        r.interrupt()
        thread.join(30)
    assert r.eval('read.csv("data.csv")$x') == 1
    assert (tmp_path / "back.csv").read_text() == "x\n1\n"


def test_to_all_nodes_and_from_another(cluster: Cluster, folder: str, tmp_path: Path) -> None:
    source = odd_tree(tmp_path / "source")
    cluster.upload(source, to="all", all_nodes=True)
    for node in range(len(cluster.nodes)):
        cluster.download("all", to=tmp_path / f"{node}", node=node)
        assert tree(tmp_path / f"{node}") == tree(source)
    cluster.upload(source / "ünï ☂", to="one", node=2)
    assert [on(cluster, node, f"ls '{folder}'") for node in range(3)] == ["all\n", "all\n", "all\none\n"]


def test_what_a_node_refuses_is_named(cluster: Cluster, folder: str, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(errors.TransferFailed, match=r"x: Permission denied \(into /etc\)"):
        cluster.upload(tmp_path / "x", to="/etc/")
    on(cluster, 1, f"chmod u-w '{folder}'")
    with pytest.raises(
        errors.TransferFailed, match=f"^node {cluster.nodes[1].private_ip}: x: Permission"
    ) as caught:
        cluster.upload(tmp_path / "x", all_nodes=True)
    assert list(caught.value.failures) == [f"node {cluster.nodes[1].private_ip}"]
    assert on(cluster, 2, f"ls '{folder}'") == "x\n"


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_cut_line_is_an_error_and_the_next_one_goes_on(
    cluster: Cluster, folder: str, tmp_path: Path, way: str
) -> None:
    size = 60 * MB
    if way == "up":
        (tmp_path / "big").write_bytes(os.urandom(size))
    else:
        on(cluster, 0, f"head -c {size} /dev/urandom > '{folder}/big'")

    def carry(on_progress: Callable[[Tally], None] = lambda tally: None) -> transfer.Transferred:
        if way == "up":
            return cluster.upload(tmp_path / "big", on_progress=on_progress)
        return cluster.download("big", to=tmp_path, on_progress=on_progress)

    line = cluster.ssh()

    def cut(tally: Tally) -> None:
        if tally.done > size / 2:
            line.close()

    with pytest.raises(errors.ConnectionLost, match="do the same again to go on"):
        carry(cut)
    assert carry().bytes < size
    digest = hashlib.sha256((tmp_path / "big").read_bytes()).hexdigest()
    assert on(cluster, 0, f"cd '{folder}' && ls -A && sha256sum big") == f"big\n{digest}  big\n"


def test_a_silent_line_is_a_cut_one(
    cluster: Cluster, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(cluster, 0, f"head -c {60 * MB} /dev/zero > '{folder}/big'")
    stopped: list[str] = []

    def stop(tally: Tally) -> None:
        if not stopped and tally.done > tally.bytes / 2:
            stopped.append(on(cluster, 0, "pkill -STOP -f 'ppe/node files'"))
            monkeypatch.setattr(transfer, "SILENCE_SECONDS", 0.5)

    with pytest.raises(errors.ConnectionLost, match="was cut"):
        cluster.download("big", to=tmp_path, on_progress=stop)
    on(cluster, 0, "pkill -KILL -f 'ppe/node files'")
    monkeypatch.undo()
    assert cluster.download("big", to=tmp_path).bytes < 60 * MB


def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The bytes that go over all channels from now on."""
    sizes = {"up": 0, "down": 0}
    send, recv = Channel.send_all, Channel.recv

    def counted_send(channel: Channel, data: bytes | memoryview) -> None:
        sizes["up"] += len(data)
        send(channel, data)

    def counted_recv(channel: Channel, size: int = 2**20) -> bytes:
        data = recv(channel, size)
        sizes["down"] += len(data)
        return data

    monkeypatch.setattr(Channel, "send_all", counted_send)
    monkeypatch.setattr(Channel, "recv", counted_recv)
    return sizes


@pytest.mark.parametrize("mode", ["on", "off"])
def test_large_values_cross_compressed_if_told(
    cluster: Cluster, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = counted(monkeypatch)
    values = np.arange(10**6, dtype=float)
    with RemoteR(cluster.ssh(), compress=mode) as session:
        session.eval("1")
        session.push("large", values)
        assert np.array_equal(session.pull("large"), values)
        assert session.eval("identical(large, as.double(0:999999))")
        session.eval("rm(large); invisible(NULL)")
    for way in ("up", "down"):
        assert (sizes[way] < 6 * MB) if mode == "on" else (sizes[way] > 8 * MB), way


def test_large_values_cross_compressed_if_the_line_is_slow(
    manager: Manager, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.arange(10**6, dtype=float)
    sizes = counted(monkeypatch)
    again = manager.cluster(cluster.name)  # which has the key that the launch has left
    with far_away(cluster.master.address, 22, rate=4e6) as port, again.ssh() as connection:
        near = replace(connection.target, host="127.0.0.1", port=port)
        with ssh.connect(near, timeout=30) as slow, RemoteR(slow) as session:
            found: list[dict[str, int]] = []
            # How fast a line is is known from what has gone over it, on a busy machine from more.
            while len(found) < 8 and not (found and max(found[-1].values()) < 6 * MB):
                sizes.update(up=0, down=0)
                session.push("large", values)
                assert np.array_equal(session.pull("large"), values)
                found.append(dict(sizes))
            session.eval("rm(large); invisible(NULL)")
    assert max(found[-1].values()) < 6 * MB


def test_the_verbs(
    cluster: Cluster,
    folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt"):
        Path(name).write_text(name)
    assert cli.main(["upload", "*.txt", "texts/"]) == 0
    assert f"→ {cluster.name}:{folder}/texts\n" in capsys.readouterr().out
    assert cli.main(["download", "texts/a*", "c.txt"]) == 0
    assert Path("c.txt").read_text() == "a.txt"
    assert cli.main(["upload", "a.txt", "b.txt"]) == 2, "is b.txt a source or a destination?"
    assert "with --to" in capsys.readouterr().err
    assert cli.main(["upload", "a.txt", "b.txt", "--to", "more/", "--all"]) == 0
    assert on(cluster, 1, f"ls '{folder}/more'") == "a.txt\nb.txt\n"
    assert cli.main(["upload"]) == 2
