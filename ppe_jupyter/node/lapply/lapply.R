# ppe.lapply() and its relatives: lapply() whose tasks run on all slots of the cluster.
#
# Rprofile.site loads this with its parts (`parts` there) when one of the names is first used; it asks that file for the
# workers (the hook "ppe.mpi"). Where that has none (Rscript, a worker) the tasks run in this R.
#
# - Task i draws its random numbers from the i-th stream after the seed's (L'Ecuyer-CMRG, parallel::nextRNGStream), so
#   they are the same on any number of slots, in any order, when repeated, and in this R.
# - Results are told in parts, as they come; a run's `parts` are all that is known of them.

last <- new.env()
setHook("ppe.last", function() last$run)  # for the evaluator

ppe.lapply <- function(X, FUN, ..., seed = NULL, progress = interactive(), checkpoint = NULL, retries = 0L,
                       packages = NULL, export = NULL, on_error = c("stop", "collect"), slots = NULL) {
  if (!is.vector(X) || is.object(X)) X <- as.list(X)
  options <- list(seed = seed, progress = progress, checkpoint = checkpoint, retries = retries, slots = slots,
                  on_error = match.arg(on_error))
  export <- mget(as.character(export), envir = parent.frame(), inherits = TRUE)
  perform(new_run(X, match.fun(FUN), list(...), options, packages, export))
}

ppe.sapply <- function(X, FUN, ..., simplify = TRUE, USE.NAMES = TRUE) {
  FUN <- match.fun(FUN)
  answer <- do.call(ppe.lapply, list(X, FUN, ...), quote = TRUE, envir = parent.frame())
  if (USE.NAMES && is.character(X) && is.null(names(answer))) names(answer) <- X
  # An error among the results would quietly make something else of the others.
  failed <- any(vapply(answer, inherits, NA, "ppe_task_error"))
  if (isFALSE(simplify) || !length(answer) || failed) answer
  else simplify2array(answer, higher = identical(simplify, "array"))
}

ppe.replicate <- function(n, expr, ..., simplify = "array") {
  task <- eval.parent(substitute(function(...) expr))
  do.call(ppe.sapply, list(integer(n), task, ..., simplify = simplify), quote = TRUE, envir = parent.frame())
}

# Arguments with the names of ppe.lapply's own are those.
ppe.Map <- function(f, ...) {
  f <- match.fun(f)
  given <- list(...)
  ours <- names(given) %in% setdiff(names(formals(ppe.lapply)), c("X", "FUN", "..."))
  options <- given[ours]
  if (any(ours)) given <- given[!ours]
  count <- if (length(given) && all(lengths(given))) max(lengths(given)) else 0L
  each <- lapply(seq_len(count), function(i) lapply(given, function(x) x[[(i - 1L) %% length(x) + 1L]]))
  labels <- if (length(given)) names(given[[1L]])
  if (count && is.null(labels) && is.character(given[[1L]])) labels <- given[[1L]]
  if (!is.null(labels)) names(each) <- labels
  call_it <- function(x) do.call(f, x, quote = TRUE)
  environment(call_it) <- list2env(list(f = f), parent = globalenv())  # not all that is here
  do.call(ppe.lapply, c(list(each, call_it), options), quote = TRUE, envir = parent.frame())
}

ppe.last <- function() {
  run <- last$run
  if (is.null(run)) stop("no ppe.lapply has run yet in this session", call. = FALSE)
  run$unseen <- FALSE
  known <- collected(run)
  said <- run$said
  list(values = known$values, done = which(known$done), failed = which(known$failed), seed = run$seed,
       said = data.frame(index = vapply(said, `[[`, 0, "index"), kind = vapply(said, `[[`, "", "kind"),
                         text = vapply(said, `[[`, "", "text")),
       seconds = run$seconds, slots = run$slots, lost = run$lost, bytes = c(out = run$bytes, back = run$bytes_back))
}

# --- A run

new_run <- function(X, FUN, arguments, options, packages, export) {
  run <- list2env(options, parent = emptyenv())
  run$X <- unname(X)
  run$names <- names(X)
  run$n <- length(X)
  needs <- needs_of(FUN, arguments)
  run$work <- list(fun = FUN, arguments = arguments, packages = packages, attached = attached_packages(),
                   needed = needs$packages, options = options_here(), globals = c(needs$globals, export),
                   s4 = needs$s4)
  run$parts <- run$said <- run$attempts <- list()
  run$done <- run$failed <- run$bytes <- run$bytes_back <- run$ticked <- run$shown <- 0
  run$begun <- seconds()
  run
}

perform <- function(run) {
  last$run <- run
  mark <- fingerprints(run)
  earlier <- read_checkpoint(run, mark)
  run$seed <- if (is.null(earlier)) first_stream(run$seed) else earlier$seed
  run$mark <- mark
  run$streams <- streams(run$seed, run$n)
  run$queue <- Filter(function(range) range[[1L]] <= range[[2L]], list(c(1, run$n)))
  if (!is.null(earlier)) resume(run, earlier)
  run$saved <- seconds()
  ranks <- if (length(run$queue) && run$n > 0) find_workers(run$slots) else integer()
  run$slots <- max(1L, length(ranks))
  run$begun <- seconds()
  run$resumed <- run$done
  answered_for <- FALSE
  on.exit({
    run$seconds <- seconds() - run$begun
    end_bar(run)
    if (!is.null(run$checkpoint)) write_checkpoint(run)
    else run$unseen <- !answered_for && run$done > run$failed
    run$X <- run$streams <- run$work <- NULL
  })
  ending <- if (length(ranks)) dispatch(run, ranks) else in_this_session(run)
  if (ending == "interrupt") {
    tell(run, sprintf("stopped: ppe.last() has %.0f of %d results", run$done - run$failed, run$n))
    signalCondition(structure(class = c("interrupt", "condition"), list(message = "", call = NULL)))
    invokeRestart("abort")
  }
  warn_of(run)
  known <- collected(run)
  if (run$failed && run$on_error == "stop") stop(first_failure(run, known))
  if (run$done < run$n) stop(sprintf("the workers were interrupted: ppe.last() has %.0f of %d results",
                                     run$done, run$n), call. = FALSE)
  answered_for <- TRUE
  known$values
}

in_this_session <- function(run) {
  if (!length(run$queue)) return("done")
  state <- get0(".Random.seed", globalenv(), inherits = FALSE)
  work <- run$work
  work$globals <- work$attached <- work$options <- work$s4 <- NULL  # they are here
  tasks <- runner(work)
  on.exit({
    tasks$end()
    set_state(state)
  })
  size <- 1
  answer <- function(part) {
    run$stopped <- part$cancelled
    if (part$cancelled) run$cancel <- TRUE
    count <- length(part$values)
    if (part$last && count) size <<- max(1, min(4 * size, floor(count * CHUNK_SECONDS / max(part$seconds, 1e-6))))
    take(run, part)
    if (seconds() - run$ticked > TICK_SECONDS) {
      run$ticked <- seconds()
      tick(run)
    }
  }
  run$cancel <- run$stopped <- FALSE
  tryCatch({
    while (length(run$queue) && !run$cancel) {
      range <- run$queue[[1L]]
      end <- min(range[[2L]], range[[1L]] + size - 1)
      run$queue <- c(if (end < range[[2L]]) list(c(end + 1, range[[2L]])), run$queue[-1L])
      suspendInterrupts(tasks$run(range[[1L]], run$X[range[[1L]]:end], run$streams[, range[[1L]]], answer))
    }
    if (run$stopped) "interrupt" else "done"
  }, interrupt = function(i) "interrupt")
}

# A part of the results, from a worker or from here.
take <- function(run, part) {
  for (what in part$said) hear(run, what)
  again <- Filter(function(at) {
    key <- as.character(part$first + at - 1)
    tried <- if (is.null(run$attempts[[key]])) 0L else run$attempts[[key]]
    run$attempts[[key]] <- tried + 1L
    tried < run$retries
  }, part$failed)
  kept <- setdiff(seq_along(part$values), again)
  if (length(kept)) {
    failed <- setdiff(part$failed, again)
    run$parts[[length(run$parts) + 1L]] <-
      list(at = part$first + kept - 1, values = part$values[kept], failed = part$first + failed - 1)
    run$done <- run$done + length(kept)
    run$failed <- run$failed + length(failed)
    if (length(failed) && run$on_error == "stop") run$cancel <- TRUE
  }
  if (length(again)) run$queue <- c(lapply(part$first + again - 1, function(i) c(i, i)), run$queue)
}

collected <- function(run) {
  values <- vector("list", run$n)
  done <- failed <- logical(run$n)
  for (part in run$parts) {
    values[part$at] <- part$values
    done[part$at] <- TRUE
    failed[part$failed] <- TRUE
  }
  names(values) <- run$names
  list(values = values, done = done & !failed, failed = failed)
}

first_failure <- function(run, known) {
  index <- which(known$failed)[[1L]]
  error <- known$values[[index]]
  error$message <- sprintf("task %d of %d: %s", index, run$n, error$message)
  error
}

# --- Random numbers

# The stream before the first task's. A NULL seed draws one number from the session's own generator, which is what
# makes the session's next numbers others, as future.apply's do; a given one leaves them alone.
first_stream <- function(seed) {
  if (is.numeric(seed) && length(seed) == 7L && seed[[1L]] %% 100 == 7) return(as.integer(seed))
  if (!is.null(seed) && (!is.numeric(seed) || length(seed) != 1L || is.na(seed))) {
    stop("seed is one number, or a .Random.seed of L'Ecuyer-CMRG", call. = FALSE)
  }
  if (is.null(seed)) seed <- sample.int(.Machine$integer.max, 1L)
  state <- get0(".Random.seed", globalenv(), inherits = FALSE)
  on.exit(set_state(state))
  set.seed(seed, kind = "L'Ecuyer-CMRG", normal.kind = "Inversion", sample.kind = "Rejection")
  get(".Random.seed", globalenv())
}

set_state <- function(state) {
  if (!is.null(state)) return(assign(".Random.seed", state, envir = globalenv()))
  RNGkind("default", "default", "default")
  rm(".Random.seed", envir = globalenv())
}

streams <- function(stream, n) {
  all <- matrix(0L, 7L, n)
  for (i in seq_len(n)) all[, i] <- stream <- parallel::nextRNGStream(stream)
  all
}

# --- What tasks need beside themselves

# The variables and functions of the global environment that the functions use, and those that these use; likewise its
# methods and S4 classes, which nothing names; and the packages from which the functions take something.
needs_of <- function(FUN, arguments) {
  s4 <- s4_here()
  tables <- Filter(is.list, s4)
  generics <- sub("^[.]__T__(.*):[^:]*$", "\\1", names(tables))
  generics <- Filter(function(name) exists(name, globalenv(), mode = "function", inherits = FALSE), generics)
  methods <- s3_here()
  found <- c(methods, mget(generics, globalenv()))
  packages <- character()
  look <- function(fun) {
    if (is.primitive(fun) || isNamespace(topenv(environment(fun)))) return()
    used <- globals::globalsOf(fun, envir = environment(fun), mustExist = FALSE)
    where <- attr(used, "where")
    here <- vapply(where, identical, NA, globalenv())
    found[names(used)[here]] <<- unclass(used)[here]
    sub("^package:", "", unlist(lapply(Filter(is.environment, where), environmentName)))
  }
  for (fun in Filter(is.function, c(list(FUN), arguments))) packages <- c(packages, look(fun))
  for (fun in c(methods, unlist(tables, use.names = FALSE), unlist(lapply(s4, functions_of_class)))) look(fun)
  list(globals = found, s4 = s4, packages = unique(packages))
}

s3_here <- function() {
  here <- globalenv()
  names <- grep(".", ls(here), fixed = TRUE, value = TRUE)
  named <- mget(Filter(function(name) is.function(here[[name]]) && utils::isS3method(name, envir = here), names), here)
  registered <- registered_here()
  c(named, registered[setdiff(names(registered), names(named))])
}

# Methods of .S3method() and registerS3method(), which on workers are found by their names. To look at each of R's own
# takes 4 ms, so that is done when there are others than the last time.
registered <- new.env()

registered_here <- function() {
  tables <- lapply(c(globalenv(), lapply(loadedNamespaces(), asNamespace)), `[[`, ".__S3MethodsTable__.")
  tables <- lapply(Filter(is.environment, tables), as.list, all.names = TRUE)
  if (!identical(tables, registered$tables)) {
    is_ours <- function(fun) is.function(fun) && identical(topenv(environment(fun)), globalenv())
    registered$found <- unlist(lapply(tables, Filter, f = is_ours))
    registered$tables <- tables
  }
  registered$found
}

# Classes, and the methods of each generic in a list: their table has all of a package around it.
s4_here <- function() {
  here <- globalenv()
  found <- mget(ls(here, all.names = TRUE, pattern = "^[.]__[CT]__"), here)
  lapply(found, function(x) if (is.environment(x)) as.list.environment(x, all.names = TRUE, sorted = TRUE) else x)
}

# What a class calls by itself: whether an object is valid, and of a reference class its methods and computed fields.
functions_of_class <- function(class) {
  if (!methods::is(class, "classRepresentation")) return()
  members <- if (methods::is(class, "refClassRepresentation")) {
    lapply(list(class@refMethods, class@fieldPrototypes), as.list, all.names = TRUE, sorted = TRUE)
  }
  Filter(function(fun) is.function(fun) && !isNamespace(topenv(environment(fun))),
         c(validity = class@validity, unlist(members)))
}

# All but functions (`na.action` may be one), and what is the process's own.
options_here <- function() {
  all <- base::options()
  all <- all[setdiff(names(all), c("device", "echo", "prompt"))]
  is_data <- function(x) is.atomic(x) || is.list(x) && all(vapply(x, is_data, NA))
  all[names(all) == "na.action" | vapply(all, is_data, NA)]
}

attached_packages <- function() {
  packages <- sub("^package:", "", grep("^package:", search(), value = TRUE))
  rev(setdiff(packages, c(getOption("defaultPackages"), "base", "methods", "Rmpi", "snow")))
}

seconds <- function() proc.time()[[3L]]
