"""What programs of the login user find on this node: the Python environment, PATH, and the repository of R packages.

Runs as root. Must not know of clusters.
"""

from __future__ import annotations

import pwd
import subprocess
from pathlib import Path

from . import blocks

# A URL for Rprofile.site; else it chooses. The master's is what later nodes get too, whoever adds them.
CRAN = Path("/etc/ppe/cran")
# For programs that mpirun starts over SSH, then for login shells, whose PATH /etc/profile sets.
ENVIRONMENT = Path("/etc/environment")
PROFILE = Path("/etc/profile.d/ppe.sh")
USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAKE = "exec python3 ~/.ppe/node own_packages venv"
SECONDS = 60


def begin(user: pwd.struct_passwd, cran_url: str | None) -> subprocess.Popen[str] | None:
    """Write them; what makes the environment meanwhile, unless there is one."""
    use_cran(cran_url)
    programs = f"{user.pw_dir}/.ppe/venv/bin"
    old = blocks.OURS.sub("", ENVIRONMENT.read_text(encoding="utf-8")) if ENVIRONMENT.exists() else ""
    paths = [line.partition("=")[2].strip("\"'") for line in old.splitlines() if line.startswith("PATH=")]
    blocks.write(ENVIRONMENT, [f'PATH="{programs}:{paths[-1] if paths else USUAL_PATH}"'])
    blocks.replace(PROFILE, f'[ "$HOME" != {user.pw_dir} ] || PATH={programs}:$PATH\n')
    if Path(programs, "pip").exists():
        return None
    command = ["runuser", "-u", user.pw_name, "--", "env", f"HOME={user.pw_dir}", "sh", "-c", MAKE]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def cran() -> str | None:
    """The repository that R has by us, if it is not the usual one."""
    return CRAN.read_text(encoding="utf-8").strip() if CRAN.exists() else None


def use_cran(url: str | None) -> None:
    """The repository that R has from its next start on; None: the usual one."""
    CRAN.parent.mkdir(exist_ok=True)
    if url:
        blocks.replace(CRAN, f"{url}\n")
    else:
        CRAN.unlink(missing_ok=True)


def finish(making: subprocess.Popen[str] | None) -> str:
    """Wait for it; what went wrong, or ""."""
    if making is None:
        return ""
    error = making.communicate(timeout=SECONDS)[1].strip()
    return "" if making.returncode == 0 else error or f"status {making.returncode}"


def forget() -> None:
    """Take them off, for an image; the environment stays."""
    blocks.remove(ENVIRONMENT)
    PROFILE.unlink(missing_ok=True)
