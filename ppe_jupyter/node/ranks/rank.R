# One R rank of a team: runs one cell after the other in the global environment, as Rscript would print them.
#
# rank.py starts R with this file. Requests come on descriptor 3, answers go to 4, framed as frames.py tells: a
# cell is list(code, inputs, outputs, names of those for the master's session) in columns (columns.R). MPI is the cells' own: library(Rmpi) or library(pbdMPI).
# Interrupts are suspended but in the cell's code. No name of ours is on the search path.

local({
  ours <- new.env(parent = environment())
  folder <- dirname(normalizePath(sub("^-f$|^--file=", "", grep("rank[.]R$", commandArgs(), value = TRUE)[1L])))
  for (file in c("columns.R", "decoding.R", "evaluation.R")) sys.source(file.path(dirname(folder), "r", file), ours)
  kinds <- c(value = 1, stopped = 13, done = 14, failed = 15)
  rank <- as.double(commandArgs(TRUE)[1L])
  # Not fifo(), which takes what one read() gives, at most a pipe full, for the end.
  requests <- file("/proc/self/fd/3", "rb", raw = TRUE)
  answers <- file("/proc/self/fd/4", "wb", raw = TRUE)
  # Of the cell at work: where it was called, and where the error was.
  call <- NULL; depth <- 0L; calls <- NULL
  failed_value <- NULL

  tell <- function(kind, body = raw()) {
    writeBin(c(rank, kinds[[kind]], length(body)), answers, endian = "little")
    if (length(body)) writeBin(body, answers)
    flush(answers)
  }
  tell_columns <- function(encoded) {
    writeBin(c(rank, kinds[["done"]], encoded$bytes), answers, endian = "little")
    ours$write_columns(encoded, answers)
    flush(answers)
  }

  named <- function(name, data) c(charToRaw(enc2utf8(name)), as.raw(0), data)
  take <- function(body) {
    nul <- match(as.raw(0), body)
    name <- rawToChar(body[seq_len(nul - 1L)])
    Encoding(name) <- "UTF-8"
    assign(name, unserialize(body[-seq_len(nul)]), envir = .GlobalEnv)
  }

  perform <- function(cell) {
    if (!is.null(failed_value)) stop(simpleError(paste("a value of R's session cannot be read here:", failed_value)))
    call <<- sys.call()
    depth <<- Inf
    inputs <- cell[[2L]]
    for (name in names(inputs)) assign(name, inputs[[name]], envir = .GlobalEnv)
    lines <- strsplit(cell[[1L]], "\n", fixed = TRUE)[[1L]]
    expressions <- tryCatch(parse(text = lines, keep.source = TRUE, srcfile = srcfilecopy("<cell>", lines)),
                            error = function(e) stop(simpleError(conditionMessage(e))))
    depth <<- sys.nframe()
    for (i in seq_along(expressions)) {
      # A promise, as in evaluation.R: there is no frame of ours between the user's code and the top level.
      .Internal(delayedAssign("value", expressions[[i]], .GlobalEnv, environment()))
      result <- allowInterrupts(.Internal(withVisible(value)))
      if (result$visible) allowInterrupts(if (isS4(result$value)) methods::show(result$value) else print(result$value))
    }
    wanted <- cell[[3L]]
    missing <- Filter(function(name) !exists(name, envir = .GlobalEnv, inherits = FALSE), c(wanted, cell[[4L]]))
    if (length(missing)) stop(simpleError(sprintf("object '%s' not found", missing[1L])))
    for (name in cell[[4L]]) tell("value", named(name, serialize(get(name, envir = .GlobalEnv), NULL, xdr = FALSE)))
    unname(mget(as.character(wanted), envir = .GlobalEnv))
  }

  # At the top level the call is ours.
  of_user <- function(condition) {
    its <- conditionCall(condition)
    if (!identical(its, call) && !identical(its[[1L]], quote(allowInterrupts))) its
  }

  # R's words, and the calls between the cell's code and the place of the error.
  failure <- function(e) {
    text <- ours$error_text(enc2utf8(conditionMessage(e)), of_user(e))
    trace <- utils::head(as.list(calls), -2L)
    trace <- trace[-seq_len(min(length(trace), depth + 1L))]
    shown <- if (length(trace) > 1L) paste0("  ", seq_along(trace), ". ", vapply(trace, ours$one_line, ""))
    writeLines(c(text, if (length(shown)) c("Calls:", shown)), stderr())
    substr(gsub("[[:space:]]+", " ", text), 1L, 300L)
  }

  on_warning <- function(w) {
    if (is.null(conditionCall(w)) || !is.null(of_user(w)) || !isTRUE(getOption("warn") == 1)) return()
    .Internal(.dfltWarn(conditionMessage(w), NULL))
    invokeRestart("muffleWarning")
  }

  answer <- function(cell) {
    tryCatch(allowInterrupts(NULL), interrupt = function(i) NULL)  # a late one
    tryCatch({
      outputs <- withCallingHandlers(
        perform(cell),
        error = function(e) calls <<- sys.calls(),
        warning = on_warning,
        interrupt = function(i) tell("stopped"))
      flush(stdout())
      tell_columns(ours$encode(outputs))
    }, error = function(e) tell("failed", charToRaw(failure(e))),
    interrupt = function(i) tell("failed", charToRaw("interrupted")))
  }

  options(warn = 1, device = function(...) stop("a rank has no place for plots: open a file, as with png(\"plot.png\")",
                                                call. = FALSE))
  suspendInterrupts(repeat {
    head <- readBin(requests, "double", 3L, endian = "little")
    if (length(head) < 3L) break
    if (head[2L] == kinds[["value"]]) {
      body <- readBin(requests, "raw", head[3L])
      tryCatch(take(body), error = function(e) failed_value <<- conditionMessage(e))
      next
    }
    count <- readBin(requests, "double", 1L, endian = "little")
    cell <- tryCatch(ours$decode(requests, head[3L], count), error = identity)
    if (inherits(cell, "error")) tell("failed", charToRaw(paste("its inputs cannot be read here:", conditionMessage(cell))))
    else answer(cell)
    failed_value <- NULL
  })
  # mpi.finalize's absence would look like a failure to mpirun; the packages' own .Last or finalizers do it.
  quit("no", runLast = TRUE)
})
