"""The user's key pair: its private half stays in a 0600 file on this machine, EC2 gets the public one.

A key pair that we generate is named after its public half, so that a name in EC2 always means the same key
whatever has become of this machine's files.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from .. import ssh
from ..errors import SettingsError
from ..person import host, os_user
from ..settings import Settings


class KeyStore:
    """The private keys in ``settings.state_dir/keys``, and the one that the settings name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.state_dir / "keys"

    def chosen(self, key_name: str | None) -> tuple[str, str]:
        """Name and public half of the key pair to launch with; the half is "" if the key pair is the user's.

        Without a name in spec or settings it is ours, generated when there is none yet.
        """
        name = key_name or self._settings.key_name
        return (name, "") if name else self._generated()

    def path(self, key_name: str) -> Path:
        """Where the private half of that key pair is, or would be."""
        if key_name == self._settings.key_name and self._settings.key_file is not None:
            return self._settings.key_file
        return self._folder / Path(key_name).name

    def private(self, key_name: str) -> str:
        """The private half. Raises SettingsError when it is not on this machine."""
        path = self.path(key_name)
        try:
            return path.read_text(encoding="ascii")
        except (OSError, ValueError) as exc:
            raise SettingsError(
                f"the private half of EC2 key pair {key_name!r} cannot be read from {path}; "
                "name its file with: %ppe_config key_name NAME and %ppe_config key_file FILE"
            ) from exc

    def opening(self, key_name: str) -> str:
        """What opens a cluster of that key pair for this user: its private half, else the key of ``usable``, which the
        cluster's owner may have let in. Raises SettingsError when there is neither."""
        path = self.usable(key_name)
        if path == self.path(key_name):
            return self.private(key_name)
        try:
            return path.read_text(encoding="ascii")
        except (OSError, ValueError) as exc:
            raise SettingsError(f"your private key cannot be read from {path}: {exc}") from exc

    def usable(self, key_name: str) -> Path:
        """The private half of the key pair, if it is here; else the settings' key file, or the one generated here."""
        path = self.path(key_name)
        public = self._own()
        others = [self._settings.key_file, public and public.with_suffix("")]
        return next((each for each in (path, *others) if each is not None and each.exists()), path)

    def _own(self) -> Path | None:
        """The public half of the key pair that was generated here."""
        name = f"{self._prefix}-{8 * '[0-9a-f]'}.pub"
        return next((each for each in sorted(self._folder.glob(name)) if each.with_suffix("").exists()), None)

    @property
    def _prefix(self) -> str:
        return f"ppe-{os_user()}-{host()}"

    def _generated(self) -> tuple[str, str]:
        if public := self._own():
            return public.stem, public.read_text(encoding="ascii").strip()
        pair = ssh.generate_key_pair(self._prefix)
        name = f"{self._prefix}-{hashlib.sha256(pair.public.encode()).hexdigest()[:8]}"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The public half is written last: a key pair is there when both are.
        for path, text in [(self._folder / name, pair.private), (self._folder / f"{name}.pub", pair.public)]:
            path.touch(mode=0o600, exist_ok=False)
            path.write_text(text, encoding="ascii")
        return name, pair.public
