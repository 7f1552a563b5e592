"""Locks in TOML files, which ``%ppe_launch --save`` writes beside the specification and ``--locked`` reads."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit

from ..errors import SpecError
from .lock import Lock
from .software import KINDS, Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMAT = 1
HEAD = "What the nodes of a cluster had; %ppe_launch --spec FILE --locked has it again, or says what is not to be had."


def beside(spec: Path) -> Path:
    """Where the lock of a specification is: cluster.toml's is cluster.lock.toml."""
    return spec.with_name(f"{spec.name.removesuffix('.toml')}.lock.toml")


def save(lock: Lock, path: Path) -> None:
    """Write it so that ``load`` gives it again. Raises SpecError when the file cannot be written."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        new.write_text(dumps(lock), encoding="utf-8")
        new.replace(path)
    except OSError as exc:
        raise SpecError(f"cannot write {path}: {exc.strerror}") from exc


def dumps(lock: Lock) -> str:
    """The text of its file."""
    document = tomlkit.document()
    document.add(tomlkit.comment(HEAD))
    document["format"] = FORMAT
    document.update({"cluster": lock.cluster, "written": lock.written, "architecture": lock.architecture})
    document["image"] = {"id": lock.image_id, "name": lock.image_name}
    document["versions"] = dict(sorted(lock.versions.items()))
    document["packages"] = _tables(lock.packages)
    if lock.particular:
        document["nodes"] = {str(index): _tables(packages) for index, packages in lock.particular.items()}
    return tomlkit.dumps(document)


def load(path: Path) -> Lock:
    """The lock. Raises SpecError for a file that is none, and if there is none."""
    try:
        return loads(path.read_bytes(), str(path))
    except FileNotFoundError as exc:
        raise SpecError(
            f"there is no lock {path}; %ppe_launch --save writes one, and for a cluster that runs %ppe_session_info "
            "--lock FILE"
        ) from exc
    except OSError as exc:
        raise SpecError(f"cannot read {path}: {exc.strerror}") from exc


def loads(data: bytes, path: str) -> Lock:
    """The lock that is in the file of that name. Raises SpecError for what is none."""
    try:
        values: dict[str, Any] = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise SpecError(f"{path} is not TOML: {exc}") from exc
    if values.get("format") != FORMAT:
        raise SpecError(
            f"{path} is no lock that this version of ppe_jupyter reads (format = {values.get('format')!r})"
        )
    try:
        return Lock(
            cluster=str(values["cluster"]),
            written=str(values["written"]),
            image_id=str(values["image"]["id"]),
            image_name=str(values["image"]["name"]),
            architecture=str(values["architecture"]),
            versions={key: str(value) for key, value in values["versions"].items()},
            packages=_packages(values["packages"]),
            particular={int(index): _packages(each) for index, each in values.get("nodes", {}).items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise SpecError(f"{path} is a damaged lock: {exc!r}") from exc


def _tables(packages: Mapping[str, Mapping[str, Version]]) -> dict[str, Any]:
    """A table for each kind; Debian's packages, the most, as their versions alone."""
    return {
        kind: {name: _item(each) for name, each in sorted(packages[kind].items())}
        for kind in KINDS
        if packages.get(kind)
    }


def _item(each: Version) -> Any:
    if each.source == "Debian":
        return each.version
    table = tomlkit.inline_table()
    table.update({"version": each.version, "source": each.source})
    return table


def _packages(tables: Mapping[str, Any]) -> dict[str, dict[str, Version]]:
    return {kind: {name: _version(each) for name, each in tables.get(kind, {}).items()} for kind in KINDS}


def _version(item: Any) -> Version:
    if isinstance(item, str):
        return Version(item, "Debian")
    return Version(str(item["version"]), str(item["source"]))
