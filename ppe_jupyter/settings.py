"""Settings: the only reader of ~/.ppe-config and of the environment.

The file is TOML, made with mode 0600 and refused when others can read it. An environment variable
``PPE_<KEY>`` overrides the file's key. The local cloud is the default: credentials for AWS are no consent to
use it (``cloud = "aws"`` is). It holds no secrets: those are boto3's. cloudRmpi's file of the same name, which
did, is recognized and converted. Knows nothing of what the settings are used for.
"""

from __future__ import annotations

import configparser
import difflib
import math
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import quote

import platformdirs
import tomlkit

from .errors import SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CloudName = Literal["local", "aws"]
Compression = Literal["auto", "on", "off"]
CHOICES = {"CloudName": get_args(CloudName), "Compression": get_args(Compression)}

# Keys of cloudRmpi's ~/.ppe-config and ~/.ppe-aws-client-config, which are "key=value" lines in any case of
# letters (its ParamHt, ParamsEc2 and AwsClientConfigParams), and what became of them.
ANCESTORS_SECRETS = ("awsaccesskey", "awssecretkey")
ANCESTORS_SETTINGS = {"keyname": "key_name", "rsakeypairfile": "key_file", "maxerrorretry": "retries"}
ANCESTORS_PROXY = ("proxyhost", "setproxyport", "setproxyusername", "proxypassword")
ANCESTORS_MILLISECONDS = {"connectiontimeout": "connect_timeout"}
ANCESTORS_OPTIONS = {
    "instancetype": "--type",
    "imageid": "--image",
    "ninstances": "--nodes",
    "securitygroup": "--security-group",
    "usespotinstances": "--spot",
    "spotprice": "--spot-price",
}
ANCESTORS_KEYS = {
    *(*ANCESTORS_SECRETS, *ANCESTORS_SETTINGS, *ANCESTORS_PROXY, *ANCESTORS_MILLISECONDS, *ANCESTORS_OPTIONS),
    *("awsuserid", "uid", "networkname", "usecluster", "clustergroupname", "disablehyperthreading"),
}
ANCESTORS_PROFILE = "cloudRmpi"


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
    compress: Compression = _described(
        "compress large values on their way: when it pays (auto), always (on) or never (off)", default="auto"
    )
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
    cran_url: str | None = _described(
        "repository of R packages for nodes; Posit's snapshot of CRAN for their R if not set", default=None
    )
    rstudio_url: str | None = _described(
        "Debian package of RStudio Server to install; the pinned release if not set", default=None
    )
    rstudio_sha256: str | None = _described("its SHA-256", default=None)
    debian_snapshot: str | None = _described(
        "archive that --locked takes Debian's former packages from, {date} being the lock's; such as "
        "https://snapshot.debian.org/archive/debian/{date}/",
        default=None,
    )
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
    """Write one setting to the configuration file (made with mode 0600) and return its path.

    An empty value takes the setting out of the file, so that its default holds again.
    """
    checked = _checked(key, value, source="ppe config") if value else None
    path = config_path(environ)
    _from_file(path)
    document = tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
    if value:
        document[key] = str(checked) if isinstance(checked, Path) else checked
    else:
        document.pop(key, None)
    _write(path, tomlkit.dumps(document))
    return path


def import_ancestor(source: str | None = None, *, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Convert cloudRmpi's configuration file (by default the one in our own place), and say what was done.

    A file in our own place is kept as ``<file>.cloudRmpi``. Its AWS keys become a profile of the AWS tools' shared
    credentials file, since ours holds no secrets. Raises SettingsError, before anything is written.
    """
    target = config_path(environ)
    path = Path(source).expanduser() if source else target
    found = _ancestors(_read(path))
    if not found:
        raise SettingsError(f"{path} is not a configuration file of cloudRmpi")
    values = {key: _checked(key, value, source=str(path)) for key, value in _converted(found)}
    own = path.resolve() == target.resolve()
    kept = {} if own else _from_file(target)
    said = []
    if all(key in found for key in ANCESTORS_SECRETS):
        values["profile"] = ANCESTORS_PROFILE
        said.append(_keep_secrets(found, environ))
    backup = path.with_name(path.name + ".cloudRmpi")
    if own:
        _write(backup, _read(path))
        said.append(f"{path} is kept as {backup}")
    for key, value in values.items():
        kept[key] = value
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in kept.items()}
    _write(target, tomlkit.dumps(plain))
    said.append(f"set in {target}: {', '.join(values) or 'nothing'}")
    options = [f"{key} ({ANCESTORS_OPTIONS[key]})" for key in found if key in ANCESTORS_OPTIONS]
    if options:
        said.append(f"not settings but options of a launch: {', '.join(options)}")
    return [*said, "AWS is used when you say so: cloud = aws"]


def _write(path: Path, text: str) -> None:
    """Replace the file in one step by one that only its owner can read."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not text"
        raise SettingsError(f"cannot read {path}: {reason}") from exc


def _from_file(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    text = _read(path)
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsError(f"{path} can be read by others; make it yours alone with: chmod 600 {path}")
    if _ancestors(text):
        raise SettingsError(f"{path} is cloudRmpi's; convert it with: %ppe_config import {path}")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise SettingsError(f"{path} is not TOML: {exc}") from exc
    return {key: _checked(key, value, source=str(path)) for key, value in values.items()}


def _ancestors(text: str) -> dict[str, str]:
    """What cloudRmpi would read from a file, keys in small letters; empty if it is not one of its files."""
    lines = [line.strip() for line in text.splitlines() if not line.strip().startswith("#")]
    pairs = [line.partition("=") for line in lines if "=" in line]
    found = {key.strip().lower(): value.strip() for key, _, value in pairs}
    return {key: value for key, value in found.items() if key in ANCESTORS_KEYS and value}


def _converted(found: Mapping[str, str]) -> Iterator[tuple[str, object]]:
    """The ancestor's settings as ours."""
    for old, new in ANCESTORS_SETTINGS.items():
        if old in found:
            yield new, found[old]
    for old, new in ANCESTORS_MILLISECONDS.items():
        if found.get(old, "").isdecimal():
            yield new, int(found[old]) / 1000
    host, port, user, password = (found.get(key, "") for key in ANCESTORS_PROXY)
    if host:
        who = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
        yield "proxy", f"http://{who}{host}{port and ':'}{port}"


def _keep_secrets(found: Mapping[str, str], environ: Mapping[str, str]) -> str:
    """Put the AWS keys where the AWS tools look, unless they are there; what was done."""
    path = Path(environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws" / "credentials").resolve()
    known = configparser.ConfigParser(interpolation=None, strict=False)
    text = _read(path) if path.exists() else ""
    known.read_string(text)
    if known.has_section(ANCESTORS_PROFILE):
        return f"profile {ANCESTORS_PROFILE} is in {path} already, and stays as it is"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key, secret = (found[name] for name in ANCESTORS_SECRETS)
    section = f"[{ANCESTORS_PROFILE}]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
    _write(path, f"{text.rstrip()}\n\n{section}".lstrip())
    return f"the AWS keys are in {path} now, as profile {ANCESTORS_PROFILE}"


def _checked(key: str, value: object, *, source: str) -> Any:
    """The value in its setting's type; a string (from the environment or a command) is converted."""
    kinds = {setting.name: str(setting.type) for setting in fields(Settings)}
    if key not in kinds:
        near = difflib.get_close_matches(key, kinds, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(kinds)}"
        raise SettingsError(f"{source}: there is no setting {key!r}{hint}")
    kind = kinds[key]
    try:
        if kind in CHOICES:
            if value not in CHOICES[kind]:
                raise ValueError
            return value
        if "Path" in kind:
            return Path(str(value)).expanduser()
        if "float" in kind or "int" in kind:
            number = float(str(value)) if "float" in kind else int(str(value))
            if not (math.isfinite(number) and number >= 0):  # no cap is passed by "nan"
                raise ValueError
            return number
        return str(value)
    except ValueError:
        wanted = " or ".join(CHOICES[kind]) if kind in CHOICES else kind.split(" ")[0]
        raise SettingsError(f"{source}: {key} = {value!r} is not {wanted}") from None
