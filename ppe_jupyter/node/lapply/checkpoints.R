# Partial results on the disk, and going on from there. Part of lapply.R.
#
# The file says of which call it is: one with other data, another function or seed is refused. Errors are not kept:
# those tasks are tried again.

SAVE_SECONDS <- 5
SAVE_SHARE <- 0.05  # of the time, at most, is spent on saving

fingerprints <- function(run) {
  if (is.null(run$checkpoint)) return(NULL)
  run$checkpoint <- normalizePath(run$checkpoint, mustWork = FALSE)
  if (!dir.exists(dirname(run$checkpoint))) stop(sprintf("there is no folder %s", dirname(run$checkpoint)), call. = FALSE)
  work <- run$work
  globals <- work$globals[sort(names(work$globals))]
  list(X = fingerprint(list(plain(run$X), run$names)), FUN = fingerprint(plain(work$fun)),
       "the further arguments" = fingerprint(plain(work$arguments)),
       "what FUN uses" = fingerprint(plain(globals)),
       "methods of its classes" = fingerprint(plain(Filter(length, lapply(work$s4, function(x) {
         if (is.list(x)) x else functions_of_class(x)
       })))),
       seed = if (!is.null(run$seed)) fingerprint(as.numeric(run$seed)))
}

# Compiling a function, or its place in a file, does not make it another; what it uses of where it was defined does,
# up to the global environment (`globals`) or a package. Functions that use each other end at `depth`.
plain <- function(value, depth = 5L) {
  if (is.list(value) && !is.object(value)) return(lapply(value, plain, depth))
  if (!is.function(value) || is.primitive(value)) return(value)
  names <- setdiff(all.names(as.call(as.list(value))), "...")
  around <- environment(value)
  used <- list()
  while (depth && !nzchar(environmentName(around))) {
    used <- c(used, mget(setdiff(intersect(names, ls(around, all.names = TRUE)), names(used)), around))
    around <- parent.env(around)
  }
  list(deparse(args(value)), deparse(body(value)), lapply(used, plain, depth - 1L))
}

# In the format's version 2, whose bytes are the same however R keeps the value (1:3 is also a first and a last number).
fingerprint <- function(value) {
  file <- tempfile()
  on.exit(unlink(file))
  con <- file(file, "wb")
  serialize(value, con, xdr = FALSE, version = 2L)
  close(con)
  unname(tools::md5sum(file))
}

read_checkpoint <- function(run, mark) {
  path <- run$checkpoint
  if (is.null(path) || !file.exists(path)) return(NULL)
  found <- tryCatch(readRDS(path), error = function(e) NULL)
  if (!is.list(found) || is.null(found$ppe)) {
    stop(sprintf("%s is no checkpoint of ppe.lapply: give another name", path), call. = FALSE)
  }
  differ <- Filter(function(name) !identical(found$mark[[name]], mark[[name]]), names(mark))
  # Without a seed the run goes on with the one that was drawn for it.
  if (!is.null(found$mark$seed) && is.null(mark$seed)) differ <- c(differ, "seed")
  if (length(differ)) {
    stop(sprintf("%s is of another call (%s differ): give that one again, another file, or remove it", path,
                 paste(differ, collapse = ", ")), call. = FALSE)
  }
  found
}

resume <- function(run, earlier) {
  if (!length(earlier$at)) return()
  run$parts <- list(list(at = earlier$at, values = earlier$values, failed = integer()))
  run$done <- length(earlier$at)
  left <- setdiff(seq_len(run$n), earlier$at)
  run$queue <- if (length(left)) unname(lapply(split(left, cumsum(c(1, diff(left) != 1))), range)) else list()
  message(sprintf("%s: %.0f of %d results are there already", run$checkpoint, run$done, run$n))
}

write_checkpoint <- function(run) {
  begun <- seconds()
  known <- collected(run)
  at <- which(known$done)
  new <- paste0(run$checkpoint, ".new")
  tryCatch({
    saveRDS(list(ppe = 1L, mark = run$mark, seed = run$seed, at = at, values = unname(known$values[at])), new,
            compress = FALSE)
    if (!file.rename(new, run$checkpoint)) stop("it cannot be renamed")
  }, error = function(e) {
    unlink(new)
    tell(run, sprintf("%s was not written: %s", run$checkpoint, conditionMessage(e)))
  })
  run$saved <- seconds()
  run$saving <- run$saved - begun
}

checkpoint_sometimes <- function(run) {
  if (seconds() - run$saved > max(SAVE_SECONDS, run$saving / SAVE_SHARE)) write_checkpoint(run)
}
