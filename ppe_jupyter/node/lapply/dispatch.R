# Gives a run's tasks to the workers, and takes what they answer. Part of lapply.R.
#
# - Messages are point to point, all on Rmpi's communicator 1. A worker of Rmpi's waits for a command under tag
#   50000 + its rank, which here is to call `worker` (tasks.R). A lost one is passed over; a collective call would hang.
# - A chunk takes about CHUNK_SECONDS by what tasks took so far, and at most half of an equal share of those that are
#   left. Where tasks are brief and many the next chunk goes out ahead; but never more than Open MPI sends at once, for
#   a worker that computes takes nothing.
# - The session waits in naps, so that it takes no core from the workers, and can be interrupted.

TAGS <- c(24117L, 24118L)  # to a worker, from one
CHUNK_SECONDS <- 0.1
BRIEF_SECONDS <- 0.25
EAGER_BYTES <- 4000L
NAP_SECONDS <- c(0.0002, 0.004)
TICK_SECONDS <- 0.25
CANCEL_SECONDS <- 1.6
MOST_LOSSES <- 3L

# Workers that were lost, by "host pid", until the agent has others started in their place.
gone <- new.env()
# Those that are at a job, likewise.
open <- new.env()
jobs <- 0L
# The workers that were started here: the first of them, and how many slots there were.
started <- NULL

mpi <- function() {
  hook <- getHook("ppe.mpi")
  if (length(hook)) hook[[1L]]()
}

# Ranks of the workers to use, started if there are none; nothing where the tasks are to run in this R.
find_workers <- function(slots) {
  ours <- mpi()
  if (isTRUE(slots == 0)) return(integer())
  if (is.null(ours) || !requireNamespace("Rmpi", quietly = TRUE)) {
    if (!any(nzchar(Sys.getenv(c("PPE_WORKER", "PPE_PSOCK"))))) {
      message("this R has no workers (those of remote cells have): the tasks run in it")
    }
    return(integer())
  }
  if (ours$abandoned(1L)) {
    said <- ours$renew()
    if (nzchar(said)) message(said)
  }
  ours$share()
  # Of a cluster that was resized since: only if they are ours, for the user's own may have what he gave them.
  mine <- Rmpi::mpi.comm.size(1L) > 1L && identical(started$first, name_of(1L))
  if (mine && started$slots != Rmpi::mpi.universe.size()) Rmpi::mpi.close.Rslaves()
  if (Rmpi::mpi.comm.size(1L) < 2L) {
    Rmpi::mpi.spawn.Rslaves(quiet = TRUE)
    started <<- list(first = name_of(1L), slots = Rmpi::mpi.universe.size())
  }
  if (is.null(ours$processes(1L)) || "snow" %in% loadedNamespaces() && !is.null(asNamespace("snow")$getMPIcluster())) {
    stop("the workers are snow's, which take no tasks of ppe.lapply: stopCluster() ends them", call. = FALSE)
  }
  ranks <- Filter(function(rank) is.null(gone[[name_of(rank)]]), seq_along(ours$processes(1L)))
  if (!length(ranks)) stop("all workers are lost; mpi.close.Rslaves() lets others be started", call. = FALSE)
  if (is.null(slots)) ranks else ranks[seq_len(min(slots, length(ranks)))]
}

name_of <- function(rank) {
  process <- mpi()$processes(1L)[[rank]]
  paste(process$host, process$pid)
}

send_to <- function(rank, bytes, tag) Rmpi::mpi.send(bytes, type = 4L, dest = rank, tag = tag, comm = 1L)

dispatch <- function(run, ranks) {
  jobs <<- jobs + 1L
  run$job <- jobs
  run$ranks <- ranks
  run$ready <- logical(max(ranks))
  run$given <- vector("list", max(ranks))  # by rank: chunks that are not answered yet, as c(first, last)
  run$mean <- NA
  run$losses <- list()
  run$cancel <- FALSE
  # A long message would wait for each worker in turn, and Rmpi's look for one ten times a second.
  command <- serialize(list(scmd = as.call(list(enter, 1L, TAGS[[1L]])), arg = list()), NULL, xdr = FALSE)
  bytes <- serialize(list(worker, list(run$work, 1L, run$job, TAGS, runner)), NULL, xdr = FALSE)
  if (length(bytes) > .Machine$integer.max) {
    stop(sprintf("what the tasks need is %.1f GB, and MPI sends 2 GB at most; have FUN read it from a file",
                 length(bytes) / 1e9), call. = FALSE)
  }
  ending <- "error"
  # However it is left, also by a second interrupt that follows the first at once.
  on.exit(if (length(open_ranks(run))) suspendInterrupts(cancel(run, ending == "interrupt")))
  ending <- tryCatch({
    for (rank in ranks) {
      if (isTRUE(open[[name_of(rank)]])) guarded(run, end_job(rank))
      assign(name_of(rank), TRUE, envir = open)
      guarded(run, send_to(rank, command, 50000L + rank))
    }
    for (rank in run$ranks) guarded(run, send_to(rank, bytes, TAGS[[1L]]))
    run$bytes <- length(bytes) * length(ranks)
    work_off(run)
    "done"
  }, interrupt = function(i) "interrupt")
  if (ending == "done" && !run$cancel) for (rank in run$ranks) guarded(run, end_job(rank))
  ending
}

# The worker goes back to what Rmpi has it do.
end_job <- function(rank) {
  send_to(rank, serialize(NULL, NULL), TAGS[[1L]])
  assign(name_of(rank), FALSE, envir = open)
}

open_ranks <- function(run) Filter(function(rank) isTRUE(open[[name_of(rank)]]), run$ranks)

work_off <- function(run) {
  nap <- NAP_SECONDS[[1L]]
  repeat {
    if (run$cancel) return()
    deal(run)
    # Also one that has had no task tells that it is ready: a message that comes later would be taken for another's,
    # and spoil the communicator that gets this one's number after mpi.close.Rslaves() (it did: the next call hung).
    if (!length(run$queue) && !length(unlist(run$given[run$ranks])) && all(run$ready[run$ranks])) return()
    if (isTRUE(guarded(run, answered()))) {
      guarded(run, receive(run))
      nap <- NAP_SECONDS[[1L]]
    } else {
      Sys.sleep(nap)
      nap <- min(1.5 * nap, NAP_SECONDS[[2L]])
    }
    if (seconds() - run$ticked > TICK_SECONDS) {
      run$ticked <- seconds()
      take_losses(run)
      tick(run)
    }
  }
}

# --- Chunks

deal <- function(run) {
  for (rank in run$ranks) if (run$ready[[rank]] && length(run$queue)) {
    ahead <- length(run$given[[rank]])
    left <- left_over(run)
    if (ahead > (isTRUE(run$mean < BRIEF_SECONDS) && left > 2 * length(run$ranks))) next
    chunk <- next_chunk(run, left)
    bytes <- serialize(list(job = run$job, first = chunk[[1L]], xs = run$X[chunk[[1L]]:chunk[[2L]]],
                            stream = run$streams[, chunk[[1L]]]), NULL, xdr = FALSE)
    if (ahead && length(bytes) > EAGER_BYTES) {
      run$queue <- c(list(chunk), run$queue)
      next
    }
    run$given[[rank]] <- c(run$given[[rank]], list(chunk))
    run$bytes <- run$bytes + length(bytes)
    guarded(run, send_to(rank, bytes, TAGS[[1L]]))
  }
}

left_over <- function(run) {
  ends <- as.numeric(unlist(run$queue))
  sum(ends[c(FALSE, TRUE)] - ends[c(TRUE, FALSE)] + 1)
}

next_chunk <- function(run, left) {
  size <- if (is.na(run$mean)) 1 else CHUNK_SECONDS / max(run$mean, 1e-6)
  size <- max(1, min(floor(size), ceiling(left / (2 * length(run$ranks)))))
  range <- run$queue[[1L]]
  last <- min(range[[2L]], range[[1L]] + size - 1)
  if (last == range[[2L]]) run$queue <- run$queue[-1L]
  else run$queue[[1L]] <- c(last + 1, range[[2L]])
  c(range[[1L]], last)
}

answered <- function() Rmpi::mpi.iprobe(Rmpi::mpi.any.source(), TAGS[[2L]], 1L)

receive <- function(run) {
  from <- Rmpi::mpi.get.sourcetag()[[1L]]
  bytes <- tryCatch(Rmpi::mpi.recv(raw(Rmpi::mpi.get.count(4L)), 4L, from, TAGS[[2L]], 1L), error = function(e) {
    if (mpi()$abandoned(1L)) run$broken <- from
    stop(e)
  })
  suspendInterrupts({
    answer <- unserialize(bytes)
    # Of a job that was given up, or of a worker that is given up.
    if (!identical(answer$job, run$job) || !(from %in% run$ranks)) return()
    if (is.null(answer$first)) {
      run$ready[[from]] <- TRUE
      if (!is.null(answer$unready)) unready(run, from, answer$unready)
      new <- setdiff(answer$lacks, run$lacked)
      run$lacked <- c(run$lacked, new)
      if (length(new)) tell(run, paste("workers lack what is attached here, and run tasks without it:",
                                       paste(new, collapse = ", ")))
      return()
    }
    run$bytes_back <- run$bytes_back + length(bytes)
    count <- length(answer$values)
    if (count) {
      each <- answer$seconds / count
      run$mean <- if (is.na(run$mean)) each else (run$mean + each) / 2
    }
    given <- run$given[[from]]
    if (answer$last) given <- given[-1L] else given[[1L]][[1L]] <- given[[1L]][[1L]] + count
    run$given[from] <- list(given)
    if (answer$cancelled) run$cancel <- TRUE
    take(run, answer)
  })
}

unready <- function(run, rank, why) {
  run$unready <- sprintf("the worker on %s cannot take tasks: %s", sub(" .*", "", name_of(rank)), why)
  stop(run$unready, call. = FALSE)
}

# --- Lost workers

# An MPI call that a lost worker ends (waits.c): the others are there.
guarded <- function(run, expr) tryCatch(expr, error = function(e) {
  if (!mpi()$abandoned(1L)) stop(e)
  mpi()$resume(1L)
  take_losses(run, conditionMessage(e))
  pass_over(run)
})

# A worker that is there, but whose answer was being received when the call was ended: what it has is asked of others,
# and what it still answers nobody must wait for: it is among those that are started anew.
pass_over <- function(run) {
  rank <- intersect(run$broken, run$ranks)
  run$broken <- NULL
  if (!length(rank)) return()
  assign(name_of(rank), TRUE, envir = gone)
  run$queue <- c(run$given[[rank]], run$queue)
  run$given[rank] <- list(NULL)
  run$ranks <- setdiff(run$ranks, rank)
  end_job(rank)
  if (!length(run$ranks)) stop("no worker is left; ppe.last() has what was finished", call. = FALSE)
}

# The agent looks after the workers, and writes down which are lost.
take_losses <- function(run, words = NULL) {
  folder <- Sys.getenv("PPE_RUN")
  word <- file.path(folder, "lost")
  if (is.null(words)) {
    if (!file.exists(word)) return()
    words <- readLines(word, warn = FALSE)
    unlink(word)
  }
  ranks <- file.path(folder, "lost-ranks")
  lost <- if (file.exists(ranks)) scan(ranks, 0L, quiet = TRUE)
  # Said once: also those that another run would use.
  for (rank in intersect(lost, seq_along(mpi()$processes(1L)))) assign(name_of(rank), TRUE, envir = gone)
  lost <- intersect(lost, run$ranks)
  if (!length(lost)) return()
  run$ranks <- setdiff(run$ranks, lost)
  run$lost <- c(run$lost, lost)
  again <- unlist(lapply(lost, function(rank) taken_back(run, rank)), recursive = FALSE)
  run$queue <- c(again, run$queue)
  tasks <- sum(vapply(again, function(chunk) chunk[[2L]] - chunk[[1L]] + 1, 0))
  what <- if (tasks == 1) "; its task runs elsewhere" else if (tasks) sprintf("; %.0f tasks run elsewhere", tasks)
  tell(run, paste0(paste(words, collapse = " "), what))
  if (!length(run$ranks)) stop("all workers are lost; ppe.last() has what was finished", call. = FALSE)
}

# What a lost worker had. Each task of its first chunk may be what has ended it: one by one they tell.
taken_back <- function(run, rank) {
  chunks <- run$given[[rank]]
  run$given[rank] <- list(NULL)
  if (!length(chunks)) return()
  first <- chunks[[1L]][[1L]]:chunks[[1L]][[2L]]
  again <- if (length(first) > 1L || !is_given_up(run, first)) lapply(first, function(i) c(i, i))
  c(again, chunks[-1L])
}

is_given_up <- function(run, index) {
  key <- as.character(index)
  run$losses[[key]] <- c(run$losses[[key]], 1L)
  if (length(run$losses[[key]]) < MOST_LOSSES) return(FALSE)
  why <- sprintf("the worker was lost in each of %d attempts", MOST_LOSSES)
  error <- structure(class = c("ppe_task_error", "error", "condition"),
                     list(message = why, call = NULL, index = index, traceback = character()))
  take(run, list(first = index, values = list(error), failed = 1L, said = list()))
  TRUE
}

# --- The stop button, and an error

# The workers leave their tasks, and tell what they have finished. Those that do not are ended with the evaluation.
cancel <- function(run, interrupted = FALSE) {
  if (file.exists(file.path(Sys.getenv("PPE_RUN"), "saving"))) return()  # the agent ends this R
  until <- seconds() + CANCEL_SECONDS
  mpi()$resume(1L)
  run$cancel <- TRUE
  sent <- tempfile()
  on.exit(unlink(sent))
  # One that is not ready has no task, and may still be where an interrupt ends it.
  ready <- run$ranks[run$ready[run$ranks]]
  if (length(ready)) mpi()$signal(1L, ready, sent) else file.create(sent)
  # One that came after the end of the job would end the worker.
  busy <- function() {
    if (!file.exists(sent)) return(run$ranks)
    run$ranks[lengths(run$given[run$ranks]) > 0L | !run$ready[run$ranks]]
  }
  while (length(busy()) && seconds() < until) {
    if (answered()) try(receive(run), silent = TRUE)
    else tryCatch(Sys.sleep(0.005), interrupt = function(i) NULL)  # R sleeps as if none were suspended
  }
  for (rank in setdiff(run$ranks, busy())) end_job(rank)
  if (!length(busy())) return()
  mpi()$abandon(1L)
  if (!interrupted) message(mpi()$renew())  # else the agent has it done
}

# At the end of an evaluation that has lost workers all are started anew, if that can be.
setHook("ppe.workers", action = "prepend", function() {
  if (!length(gone) || !"Rmpi" %in% loadedNamespaces()) return("")
  lost <- Filter(function(rank) !is.null(gone[[name_of(rank)]]), seq_along(mpi()$processes(1L)))
  if (!length(lost)) return("")
  if (mpi()$can_spawn()) {
    mpi()$abandon(1L)
    return("")
  }
  sprintf("ppe.lapply goes on with the %d workers that are left, until %%ppe_retry has mended the cluster",
          length(mpi()$processes(1L)) - length(lost))
})
