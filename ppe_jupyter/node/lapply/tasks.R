# Runs tasks: in a worker, or in the session itself where there are none. Part of lapply.R.
#
# `enter`, `worker` and `runner` travel to the workers, so they know base R, Rmpi and each other only. A SIGINT in a worker
# means that the job is cancelled: what a task has not finished is left, and no further one is begun.

# A job -> run(first, xs, stream, send): FUN of each x, each with the next stream, the first one `stream`. `send` gets
# list(first, values, failed (which of the values are errors), said, seconds, last, cancelled), the last part and, of
# what takes long, parts before it.
runner <- function(job) {
  for (package in job$packages) library(package, character.only = TRUE)
  there <- vapply(job$attached, function(package) suppressWarnings(suppressPackageStartupMessages(
    require(package, character.only = TRUE, quietly = TRUE))), NA)
  lacks <- job$attached[!there]
  if (any(lacks %in% job$needed)) stop("there is no package ", paste(intersect(lacks, job$needed), collapse = ", "))
  theirs <- options(job$options)
  here <- globalenv()
  own <- c(names(job$globals), names(job$s4), ".Random.seed")
  before <- mget(own, here, ifnotfound = list(NULL), inherits = FALSE)
  existed <- vapply(own, exists, NA, envir = here, inherits = FALSE)
  restore <- function(values) for (name in names(values)) assign(name, values[[name]], envir = here)
  restore(job$globals)
  restore(lapply(job$s4, function(x) if (is.list(x)) list2env(x, parent = here) else x))
  if (length(job$s4)) methods::cacheMetaData(here, TRUE)
  next_stream <- parallel::nextRNGStream

  FUN <- job$fun
  call_with <- function(...) function(x) FUN(x, ...)
  evaluate <- do.call(call_with, job$arguments, quote = TRUE)
  cancelled <- FALSE
  said <- list()
  now <- 0L
  say <- function(kind, text, call = NULL) {
    call <- if (!is.null(call)) deparse(call, nlines = 1L)[1L]
    said[[length(said) + 1L]] <<- list(index = now, kind = kind, text = text, call = call)
  }
  on_warning <- function(w) {
    if (isTRUE(getOption("warn") >= 2)) return()  # R makes an error of it
    say("warning", conditionMessage(w), conditionCall(w))
    tryInvokeRestart("muffleWarning")
  }
  on_message <- function(m) {
    say("message", conditionMessage(m))
    tryInvokeRestart("muffleMessage")
  }
  calls <- NULL
  on_error <- function(e) calls <<- sys.calls()
  failure <- function(e) {
    trace <- vapply(calls, function(call) deparse(call, nlines = 1L)[1L], "")
    first <- match("evaluate(x)", trace, nomatch = 0L)
    last <- match(TRUE, startsWith(trace, ".handleSimpleError"), nomatch = length(trace) + 1L)
    structure(class = c("ppe_task_error", "error", "condition"),
              list(message = conditionMessage(e), call = conditionCall(e), index = now,
                   traceback = trace[seq_along(trace) > first & seq_along(trace) < last]))
  }
  stopped <- structure(list(), class = "ppe_cancelled")
  one <- function(x) tryCatch(
    allowInterrupts(withCallingHandlers(list(evaluate(x)), warning = on_warning, message = on_message,
                                        error = on_error)),
    error = failure, interrupt = function(i) stopped)

  # Nothing is to be told of a sink that nothing was written to.
  output <- depth <- NULL
  capture <- function() {
    output <<- textConnection(NULL, "w", local = TRUE)
    sink(output)
    depth <<- sink.number()
  }
  release <- function() {
    while (sink.number() >= depth) sink()
    if (isIncomplete(output)) cat("\n", file = output)
    text <- textConnectionValue(output)
    close(output)
    if (length(text)) say("output", paste(text, collapse = "\n"))
  }

  run <- function(first, xs, stream, send) {
    begun <- sent <- proc.time()[[3L]]
    values <- vector("list", length(xs))
    failed <- integer()
    count <- from <- 0L
    part <- function(last) {
      send(list(first = first + from, values = values[seq_len(count - from) + from], failed = failed - from,
                said = said, seconds = proc.time()[[3L]] - begun, last = last, cancelled = cancelled))
      from <<- count
      failed <<- integer()
      said <<- list()
      begun <<- sent <<- proc.time()[[3L]]
    }
    # One that came late, to what was before.
    if (!cancelled) cancelled <<- tryCatch(allowInterrupts({ Sys.sleep(0); FALSE }), interrupt = function(i) TRUE)
    if (!cancelled) capture()
    for (x in xs) {
      if (cancelled) break
      now <<- first + count
      assign(".Random.seed", stream, envir = here)
      stream <- next_stream(stream)
      value <- one(x)
      if (inherits(value, "ppe_cancelled")) {
        cancelled <<- TRUE
        release()
        break
      }
      # sink.number() takes a fifth of what a task costs here.
      if (length(textConnectionValue(output)) || isIncomplete(output) || .Internal(sink.number(TRUE)) != depth) {
        release()
        capture()
      }
      count <- count + 1L
      if (is.null(class_of <- attr(value, "class"))) values[count] <- value
      else {
        values[[count]] <- value
        failed <- c(failed, count)
      }
      if (proc.time()[[3L]] - sent > 0.5 && count < length(xs)) {
        release()
        part(FALSE)  # in the session this prints
        capture()
      }
    }
    if (!cancelled) release()
    part(TRUE)
  }
  end <- function() {
    if (!is.null(depth)) while (sink.number() >= depth) sink()
    options(theirs)
    if (length(job$s4)) methods::cacheMetaData(here, FALSE)
    rm(list = own[existed == FALSE & vapply(own, exists, NA, envir = here, inherits = FALSE)], envir = here)
    restore(before[existed])
    if (length(job$s4)) methods::cacheMetaData(here, TRUE)
  }
  list(run = run, end = end, lacks = lacks)
}

# The command that a worker of Rmpi's gets: brief, as it is sent before the worker asks.
enter <- function(comm, tag) {
  Rmpi::mpi.probe(0L, tag, comm)
  what <- unserialize(Rmpi::mpi.recv(raw(Rmpi::mpi.get.count(4L)), 4L, 0L, tag, comm))
  do.call(what[[1L]], what[[2L]], quote = TRUE)
}

# What a worker does for a job: it tells that it is ready, or why not; then chunks, until there are no more.
worker <- function(job, comm, number, tags, make) suspendInterrupts({
  send <- function(what) {
    bytes <- serialize(what, NULL, xdr = FALSE)
    if (length(bytes) > .Machine$integer.max) stop("the answer has more than the 2 GB that MPI sends at once")
    Rmpi::mpi.send(bytes, type = 4L, dest = 0L, tag = tags[[2L]], comm = comm)
  }
  # The session waits for each answer: one that cannot be sent is an error of its tasks.
  reply <- function(what) {
    what$job <- number
    tryCatch(send(what), error = function(e) {
      failure <- list(message = conditionMessage(e), call = NULL, index = what$first, traceback = character())
      failure <- structure(failure, class = c("ppe_task_error", "error", "condition"))
      what$values <- rep(list(failure), length(what$values))
      what$failed <- seq_along(what$values)
      send(what)
    })
  }
  tasks <- tryCatch(allowInterrupts(make(job)), error = function(e) conditionMessage(e),
                    interrupt = function(i) "it was interrupted")
  reply(if (is.character(tasks)) list(unready = tasks) else list(lacks = tasks$lacks))
  repeat {
    # Rmpi answers a probe with what it has found, not with what is left.
    Rmpi::mpi.probe(0L, tags[[1L]], comm)
    chunk <- unserialize(Rmpi::mpi.recv(raw(Rmpi::mpi.get.count(4L)), 4L, 0L, tags[[1L]], comm))
    if (is.null(chunk)) break
    if (identical(chunk$job, number) && !is.character(tasks)) tasks$run(chunk$first, chunk$xs, chunk$stream, reply)
  }
  if (!is.character(tasks)) tasks$end()
  # An interrupt that came after the last task would end the worker.
  tryCatch(allowInterrupts(Sys.sleep(0)), interrupt = function(i) NULL)
  invisible()
})

for (name in c("enter", "worker", "runner")) {
  fun <- get(name)
  environment(fun) <- globalenv()
  assign(name, fun)
}
rm(name, fun)
