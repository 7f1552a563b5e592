"""What the master's R session and ranks exchange: through a folder on the master, never through this machine.

For ranks of R in R's serialization, for those of Python in columns. Must not know how ranks are reached.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..sessions.session import RemoteR

_NAME = ".ppe_team"
# Both are called with what Exchange is, and the folder, which is in memory where there is such a one, and the user's.
_FILES = """
  codec <- new.env(parent = baseenv())
  in_columns <- task$language == "python"
  if (in_columns) for (file in c("columns.R", "decoding.R")) sys.source(file.path("~/.ppe/node/r", file), codec)
"""
_GIVE = f"""(function() {{
  task <- .ppe_team
  rm(.ppe_team, envir = .GlobalEnv)
  {_FILES}
  folder <- tempfile("ppe-team-", if (dir.exists("/dev/shm")) "/dev/shm" else tempdir())
  put <- function(x, name) {{
    path <- file.path(folder, paste0("from-", name))
    if (!in_columns) return(saveRDS(x, path, compress = FALSE))
    con <- file(path, "wb", raw = TRUE)
    on.exit(close(con))
    codec$write_columns(codec$encode(x), con)
  }}
  parts <- function(x, n, name) {{
    tabular <- length(dim(x)) == 2L
    odd <- is.null(x) || !(is.atomic(x) || is.list(x)) || length(dim(x)) > 2L
    if (odd || (is.list(x) && is.object(x) && !tabular)) {{
      stop(sprintf("%s cannot be scattered: what is of class %s has no first axis", name, class(x)[1L]), call. = FALSE)
    }}
    total <- if (tabular) nrow(x) else length(x)
    sizes <- total %/% n + (seq_len(n) <= total %% n)
    before <- cumsum(sizes) - sizes
    lapply(seq_len(n), function(i) {{
      rows <- before[i] + seq_len(sizes[i])
      if (tabular) x[rows, , drop = FALSE] else x[rows]
    }})
  }}
  count <- task$count
  if (count < 1) count <- sum(as.integer(sub(".*slots=([0-9]+).*", "\\\\1", readLines("~/ompi-hostfile"))))
  whole <- FALSE
  on.exit(if (!whole) unlink(folder, recursive = TRUE))
  dir.create(folder, mode = "0700")
  for (name in unlist(task$whole)) put(get(name, envir = .GlobalEnv), name)
  for (name in unlist(task$parts)) {{
    split <- parts(get(name, envir = .GlobalEnv), count, name)
    for (i in seq_len(count)) put(split[[i]], sprintf("%s.%d", name, i - 1L))
  }}
  whole <- TRUE
  folder
}})()"""
_TAKE = f"""local({{
  task <- .ppe_team
  {_FILES}
  take <- function(path) {{
    if (!in_columns) return(readRDS(path))
    con <- file(path, "rb", raw = TRUE)
    on.exit(close(con))
    codec$decode_any(con, file.size(path), readBin(con, "double", 1L, endian = "little"))
  }}
  files <- list.files(task$folder)
  for (name in unlist(task$back)) {{
    of_name <- files[startsWith(files, paste0("to-", name, "."))]
    ranks <- substring(of_name, nchar(name) + 5L)
    ranks <- sort(as.integer(ranks[grepl("^[0-9]+$", ranks)]))
    assign(name, lapply(file.path(task$folder, sprintf("to-%s.%d", name, ranks)), take), envir = .GlobalEnv)
  }}
}})"""


@dataclass(frozen=True)
class Exchange:
    """Names of the session's variables: for every rank ``whole``, or in ``parts``; and what it gets ``back``.

    ``count`` is of the ranks, -1: one for each slot.
    """

    language: str
    count: int
    whole: list[str]
    parts: list[str]
    back: list[str]

    @contextmanager
    def through(self, session: RemoteR | None) -> Iterator[str]:
        """The folder on the master where R has put what goes to the ranks; R gets what they have put there."""
        if session is None or not (self.whole or self.parts or self.back):
            yield ""
            return
        task = {"language": self.language, "count": self.count, "whole": self.whole, "parts": self.parts}
        folder = session.eval(_GIVE, inputs={_NAME: task})
        try:
            yield folder
            task = {"language": self.language, "folder": folder, "back": self.back}
            session.eval(_TAKE, inputs={_NAME: task})
        finally:
            session.eval("unlink(.ppe_team, recursive = TRUE); rm(.ppe_team)", inputs={_NAME: folder})
