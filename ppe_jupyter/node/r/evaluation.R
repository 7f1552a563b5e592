# One evaluation as R's console does it: expression by expression in the global environment, values, conditions.
#
# Part of evaluator.R, which holds the request's `state`.

# With `print`, visible values print; else the last one is the value. `outputs` are names of variables to send along.
perform <- function(request) {
  length(request) <- 5L
  page <<- if (is.null(request[[5L]])) page_default else request[[5L]]
  inputs <- request[[3L]]
  for (name in names(inputs)) assign(name, remember_exchange(name, inputs[[name]]), envir = .GlobalEnv)
  print <- isTRUE(request[[2L]])
  if (length(request[[1L]])) {
    expressions <- parsed(request[[1L]])
    run(expressions, print)
  }
  finish_pages()
  if (length(request[[4L]])) encode(list(if (!print) state$value, lapply(request[[4L]], output)))
  else if (print) encoded_nothing else encode_one(state$value)
}

LAST_RESULTS <- "ppe.last()"

output <- function(name) {
  if (name == LAST_RESULTS) get("ppe.last")()
  else if (exists(name, envir = .GlobalEnv)) remember_exchange(name, get(name, envir = .GlobalEnv))
  else stop(simpleError(sprintf("object '%s' not found", name)))
}

parsed <- function(code) {
  # Source references cost 15 of the 20 us of a parse; one line without a function has no use for them.
  if (!(has("\n", code) || has("function", code) || has("\\", code))) return(str2expression(code))
  lines <- strsplit(code, "\n", fixed = TRUE)[[1L]]
  parse(text = lines, keep.source = TRUE, srcfile = srcfilecopy("<cell>", lines))
}

# grepl() takes four times as long, and as a regular expression too.
has <- function(what, text) .Internal(grepl(what, text, FALSE, FALSE, FALSE, TRUE, FALSE, FALSE))

run <- function(expressions, print) {
  state$depth <- sys.nframe()
  state$call <- sys.call()
  references <- attr(expressions, "srcref")
  state$source <- attr(expressions, "srcfile")
  for (i in seq_along(expressions)) {
    state$line <- if (is.null(references)) 1L else references[[i]][1L]
    # A promise of the global environment: unlike eval(), it puts no frame between the user's code and the top level,
    # so that parent.frame() and return() do what they do at R's prompt.
    .Internal(delayedAssign("value", expressions[[i]], .GlobalEnv, environment()))
    result <- .Internal(withVisible(value))
    state$value <- result$value
    assign(".Last.value", result$value, envir = baseenv())
    if (print && result$visible) show_value(result$value)
    if (length(pages$devices)) {
      keep_drawing()
      deliver_pages()
    }
    if (state$warned) deferred_warnings()
  }
}

# --- Conditions, worded and placed as R's console does

# What comes before the user's code and has no flag is late. And while the workspace is rescued (SIGUSR1), one would
# end that half-way.
# Rprofile.site wants to know which MPI call it ends.
on_interrupt <- function(i) {
  if (!(state$begun || file.exists(pressed)) || file.exists(saving)) invokeRestart("resume")
  for (hook in getHook("ppe.interrupt")) hook()
}

stderr_text <- function(expr) {
  mark("m")
  on.exit(mark("o"))
  expr
}

deferred_warnings <- function() {
  text <- deferred_words()
  if (length(text)) stderr_text(writeLines(text, stderr()))
}

# R words them, but for an error that has been printed before them.
deferred_words <- function() {
  state$warned <- FALSE
  words <- textConnection(NULL, "w", local = TRUE)
  before <- sink.number("message")
  sink(words, type = "message")
  .Internal(printDeferredWarnings())
  sink(getConnection(before), type = "message")
  text <- textConnectionValue(words)
  close(words)
  if (length(text) && startsWith(text[1L], addition)) text[1L] <- substring(text[1L], nchar(addition) + 1L)
  text
}
addition <- gettext("In addition: ", domain = "R")

on_message <- function(m) {
  for (restart in computeRestarts(m)) if (restart$name == "muffleMessage") {
    stderr_text(cat(conditionMessage(m), file = stderr()))
    invokeRestart(restart)
  }
}

# R itself collects warnings and words them. Those that it would print at once are printed here, to tag them, and
# those of the top level lose the call, which is ours.
on_warning <- function(w) {
  state$warned <- TRUE
  call <- conditionCall(w)
  if (identical(call, state$call)) call <- NULL
  level <- getOption("warn")
  at_once <- is.numeric(level) && level < 2 && level >= 0 && (level >= 1 || is_immediate())
  if (at_once) {
    old <- options(warn = 1)
    stderr_text(.Internal(.dfltWarn(conditionMessage(w), call)))
    options(old)
  } else if (is.null(call) && !is.null(conditionCall(w)) && isTRUE(level == 0)) {
    .Internal(.dfltWarn(conditionMessage(w), NULL))
  } else return()
  invokeRestart("muffleWarning")
}

is_immediate <- function() {
  for (i in rev(seq_len(sys.nframe()))) {
    if (identical(sys.function(i), base::warning)) return(isTRUE(sys.frame(i)$immediate.))
  }
  FALSE
}

failure <- function(e) {
  call <- conditionCall(e)
  if (identical(call, state$call)) call <- NULL
  message <- lost_worker(enc2utf8(conditionMessage(e)))
  where <- regmatches(message, regexec("^<(text|cell)>:([0-9]+):([0-9]+): ([^\n]*)(.*)$", message))[[1L]]
  if (length(where) && is.infinite(state$depth)) {
    message <- sprintf("%s at line %s, column %s of the cell%s", where[5L], where[3L], where[4L], where[6L])
    return(encode(list(message, "", character(), as.integer(where[3L]), paste0("Error: ", message))))
  }
  trace <- frames(state$calls, state$depth)
  # For traceback(), which wants the last first.
  assign(".Traceback", rev(lapply(trace, function(call) structure(deparse(call), srcref = attr(call, "srcref")))),
         envir = baseenv())
  warnings <- if (state$warned) deferred_words()
  text <- c(error_text(message, call), if (length(warnings)) paste0(addition, paste(warnings, collapse = "\n")))
  encode(list(message, if (is.null(call)) "" else one_line(call), vapply(trace, one_line, ""),
              line_of(trace), paste(text, collapse = "\n")))
}

# A call that writes to a worker which has just died ends so, before the agent has looked and named it.
lost_worker <- function(message) {
  if (message != broken_pipe || !"Rmpi" %in% loadedNamespaces()) return(message)
  word <- file.path(folder, "lost")
  until <- proc.time()[["elapsed"]] + 5
  while (!file.exists(word) && proc.time()[["elapsed"]] < until) Sys.sleep(0.05)
  if (!file.exists(word)) return(message)
  for (hook in getHook("ppe.mpi")) if (!is.null(ours <- hook())) ours$abandon(1L)
  on.exit(unlink(word))
  readLines(word, warn = FALSE)
}
broken_pipe <- gettext("ignoring SIGPIPE signal", domain = "R")

one_line <- function(call) enc2utf8(deparse(call, nlines = 1L)[1L])

# The user's frames: without ours before them and the handler's behind them.
frames <- function(calls, depth) {
  calls <- as.list(calls)
  names <- vapply(calls, function(call) if (is.name(call[[1L]])) as.character(call[[1L]]) else "", "")
  last <- match(".handleSimpleError", names, nomatch = length(calls)) - 1L
  if (last <= depth) return(list())
  out <- calls[(depth + 1L):last]
  if (length(out) > 60L) c(out[1:30], quote(...), out[length(out) - 29:0]) else out
}

line_of <- function(trace) {
  for (call in rev(trace)) {
    reference <- attr(call, "srcref")
    if (!is.null(reference) && identical(attr(reference, "srcfile"), state$source)) return(reference[1L])
  }
  state$line
}

# As base::try words it, which follows R's console.
error_text <- function(message, call) {
  if (is.null(call)) return(paste0("Error: ", message))
  call <- one_line(call)
  width <- 14L + nchar(call, type = "w") + nchar(strsplit(message, "\n", fixed = TRUE)[[1L]][1L], type = "w")
  paste0("Error in ", call, if (isTRUE(width > 77)) " : \n  " else " : ", message)
}
