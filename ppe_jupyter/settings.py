"""Settings: the only reader of ~/.ppe-config and of the environment.

The file is TOML, made with mode 0600 and refused when others can read it. An environment variable
``PPE_<KEY>`` overrides the file's key. The local cloud is the default: credentials for AWS are no consent to
use it (``cloud = "aws"`` is). Knows nothing of what the settings are used for.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import platformdirs
import tomlkit

from .errors import SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CloudName = Literal["local", "aws"]


def _described(text: str, **kwargs: Any) -> Any:
    return field(metadata={"help": text}, **kwargs)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the user chose. Times are seconds."""

    cloud: CloudName = _described("local (containers on this machine, free) or aws", default="local")
    region: str | None = _described("AWS region; boto3's own default if not set", default=None)
    profile: str | None = _described("AWS profile of the shared credentials file", default=None)
    endpoint_url: str | None = _described("EC2 endpoint to use instead of the region's own", default=None)
    proxy: str | None = _described("HTTPS proxy for the cloud's API", default=None)
    key_name: str | None = _described("EC2 key pair to use; one is generated if not set", default=None)
    key_file: Path | None = _described("private half of key_name", default=None)
    caller_cidr: str | None = _described(
        "address range that may reach port 22; asked for if not set", default=None
    )
    caller_url: str = _described(
        "URL that answers with the caller's address", default="https://checkip.amazonaws.com"
    )
    connect_timeout: float = _described("seconds to wait for a connection", default=15.0)
    boot_timeout: float = _described("seconds to wait for a node to boot", default=600.0)
    retries: int = _described("how often a call to the cloud is tried", default=5)
    proxy_jump: str | None = _described(
        "[user@]host[:port] of a jump host on the way to the master", default=None
    )
    proxy_command: str | None = _described(
        "command whose standard input and output lead to %h, port %p; such as AWS Session Manager's",
        default=None,
    )
    idle_hours: float = _described(
        "a cluster without work for so many hours is parked; 0: never", default=2.0
    )
    max_usd_per_hour: float | None = _described("refuse launches that cost more", default=None)
    max_nodes: int | None = _described("refuse launches of more nodes", default=None)
    state_dir: Path = _described(
        "keys and the local cloud's state",
        default=platformdirs.user_state_path("ppe_jupyter", appauthor=False),
    )
    local_root: Path = _described("the local cloud's images and disks", default=Path("/var/lib/ppe_jupyter"))


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the configuration file is: ``PPE_CONFIG`` or ~/.ppe-config."""
    return Path(environ.get("PPE_CONFIG") or Path.home() / ".ppe-config")


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings of the file, overridden by the environment.

    Raises SettingsError for a file that others can read, that is not TOML, or for an unknown key or value.
    """
    path = config_path(environ)
    values = _from_file(path)
    for setting in fields(Settings):
        variable = f"PPE_{setting.name.upper()}"
        if environ.get(variable):
            values[setting.name] = _checked(setting.name, environ[variable], source=variable)
    return replace(Settings(), **values)


def save(key: str, value: str, *, environ: Mapping[str, str] = os.environ) -> Path:
    """Write one setting to the configuration file (made with mode 0600) and return its path."""
    checked = _checked(key, value, source="ppe config")
    path = config_path(environ)
    _from_file(path)
    document = tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
    document[key] = str(checked) if isinstance(checked, Path) else checked
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(tomlkit.dumps(document))
    temporary.replace(path)
    return path


def _from_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise SettingsError(f"cannot read {path}: {exc.strerror}") from exc
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsError(f"{path} can be read by others; make it yours alone with: chmod 600 {path}")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise SettingsError(f"{path} is not TOML: {exc}") from exc
    return {key: _checked(key, value, source=str(path)) for key, value in values.items()}


def _checked(key: str, value: object, *, source: str) -> Any:
    """The value in its setting's type; a string (from the environment or a command) is converted."""
    kinds = {setting.name: str(setting.type) for setting in fields(Settings)}
    if key not in kinds:
        raise SettingsError(f"{source}: there is no setting {key!r}; known: {', '.join(kinds)}")
    kind = kinds[key]
    try:
        if kind == "CloudName":
            if value not in get_args(CloudName):
                raise ValueError
            return value
        if "Path" in kind:
            return Path(str(value)).expanduser()
        if "float" in kind:
            return float(str(value))
        if "int" in kind:
            return int(str(value))
        return str(value)
    except ValueError:
        wanted = " or ".join(get_args(CloudName)) if kind == "CloudName" else kind.split(" ")[0]
        raise SettingsError(f"{source}: {key} = {value!r} is not {wanted}") from None
