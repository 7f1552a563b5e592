"""What the master's R session and ranks of R exchange: through a folder on the master, never through this machine.

Must not know how ranks are reached.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .session import RemoteR

# The folder is in memory where there is such a one, and the user's alone.
_NAMES = ".ppe_team"
_GIVE = """(function() {
  names <- unlist(.ppe_team)
  rm(.ppe_team, envir = .GlobalEnv)
  values <- lapply(names, get, envir = .GlobalEnv)
  folder <- tempfile("ppe-team-", if (dir.exists("/dev/shm")) "/dev/shm" else tempdir())
  whole <- FALSE
  on.exit(if (!whole) unlink(folder, recursive = TRUE))
  dir.create(folder, mode = "0700")
  for (i in seq_along(names)) saveRDS(values[[i]], file.path(folder, paste0("from-", names[i])), compress = FALSE)
  whole <- TRUE
  folder
})()"""
_TAKE = """local({
  files <- list.files(.ppe_team[1L])
  for (name in .ppe_team[-1L]) {
    of_name <- files[startsWith(files, paste0("to-", name, "."))]
    ranks <- substring(of_name, nchar(name) + 5L)
    ranks <- sort(as.integer(ranks[grepl("^[0-9]+$", ranks)]))
    paths <- file.path(.ppe_team[1L], sprintf("to-%s.%d", name, ranks))
    assign(name, lapply(paths, readRDS), envir = .GlobalEnv)
  }
})"""


@contextmanager
def values_of(session: RemoteR | None, from_r: Sequence[str], to_r: Sequence[str]) -> Iterator[str]:
    """The folder on the master where R has put what goes to the ranks; R gets what they have put there."""
    if session is None or not (from_r or to_r):
        yield ""
        return
    folder = session.eval(_GIVE, inputs={_NAMES: list(from_r)})
    try:
        yield folder
        session.eval(_TAKE, inputs={_NAMES: [folder, *to_r]})
    finally:
        session.eval("unlink(.ppe_team, recursive = TRUE); rm(.ppe_team)", inputs={_NAMES: folder})
