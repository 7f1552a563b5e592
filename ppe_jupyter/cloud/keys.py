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

    def _generated(self) -> tuple[str, str]:
        prefix = f"ppe-{os_user()}-{host()}"
        for public in sorted(self._folder.glob(f"{prefix}-{8 * '[0-9a-f]'}.pub")):
            if public.with_suffix("").exists():
                return public.stem, public.read_text(encoding="ascii").strip()
        pair = ssh.generate_key_pair(prefix)
        name = f"{prefix}-{hashlib.sha256(pair.public.encode()).hexdigest()[:8]}"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The public half is written last: a key pair is there when both are.
        for path, text in [(self._folder / name, pair.private), (self._folder / f"{name}.pub", pair.public)]:
            path.touch(mode=0o600, exist_ok=False)
            path.write_text(text, encoding="ascii")
        return name, pair.public
