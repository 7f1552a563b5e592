# The R side of the session: reads requests from a named pipe, evaluates, answers on another.
#
# The agent sources this, with its neighbours, at R's own prompt; it never returns. An R that falls back to its prompt
# (a jump to top level) shows the prompt, which is a marker, and the agent sources it again.
#
# - Text goes through the terminal by itself. Markers are written into the same terminal through a connection of ours,
#   so that sink() cannot take them; their order with text is exact.
# - A plot or table goes over the pipe before its marker is printed.
# - Interrupts are suspended but in the user's code, so that a late one cannot break a frame.
# - No name of ours is on the search path or in the global environment.
#
# Requests and results are unnamed lists in columns (columns.R); the other end is remote/sessions/session.py.
# A request has code, print, inputs, outputs, plots, without what is NULL at its end; a result has the value and
# the outputs.

kinds <- c(ask = 7, display = 20, result = 21, failure = 25, interrupted = 26, ready = 32)
magic <- readBin(as.raw(c(0x89, 0x70, 0x70, 0x65, 0x52, 0x0d, 0x0a, 0x40)), "double", endian = "little")
folder <- Sys.getenv("PPE_RUN")
marker <- Sys.getenv("PPE_MARKER")
saving <- file.path(folder, "saving")
pressed <- file.path(folder, "pressed")  # process.py
workspace <- file.path(folder, "workspace.RData")
surroundings <- file.path(folder, "surroundings.rds")

requests <- NULL; results <- NULL; terminal <- NULL
# Of the present request: its number, and an environment of what is known of it.
current <- 0; state <- NULL
fresh <- list(line = 0L, value = NULL, warned = FALSE, depth = Inf, begun = FALSE)

hot <- c("strings_in", "encode_one", "parsed", "has", "finish", "mark", "put_frame", "write_block")

serve <- function() {
  requests <<- file(file.path(folder, "requests"), "rb", raw = TRUE)
  results <<- file(file.path(folder, "results"), "wb", raw = TRUE)
  terminal <<- file(Sys.getenv("PPE_TERMINAL"), "wb", raw = TRUE)
  # The prompt is a marker at R's own top level only: source(echo = TRUE) and example() print it.
  on.exit({
    options(prompt = paste0(marker, "p\a"))
    for (con in list(requests, results, terminal)) try(close(con), silent = TRUE)
  })
  options(prompt = "> ", device = open_device, help_type = "text", menu.graphics = FALSE, pager = show_files,
          browser = function(url) writeLines(url), viewer = view)
  for (name in c(".Last.value", ".Traceback")) unlockBinding(name, baseenv())
  on_rescue(rescue)
  for (name in hot) assign(name, compiler::cmpfun(get(name)), envir = parent.env(environment()))
  restored <- restore()
  reg.finalizer(environment(), function(e) try(mark("q"), silent = TRUE), onexit = TRUE)
  write_frame("ready", charToRaw(sprintf("{\"pid\": %d, \"version\": \"%s\", \"restored\": %s}",
                                         Sys.getpid(), getRversion(), restored)))
  # The handlers are set once, not for every request: that would be a fifth of a short one's time.
  suspendInterrupts(repeat tryCatch(
    withCallingHandlers(
      repeat answer(),
      error = function(e) state$calls <- sys.calls(),
      warning = function(w) on_warning(w),
      message = function(m) on_message(m),
      interrupt = function(i) on_interrupt(i)),
    error = function(e) finish("failure", failure(e)),
    interrupt = function(i) finish("interrupted", encode(NULL))))
}

answer <- function() {
  # A frame's header, and the first number of its body.
  header <- .Internal(readBin(requests, "double", 6L, NA_integer_, TRUE, swap))
  # The agent is gone, and with it whoever could ask.
  if (length(header) < 6L || header[1L] != magic) quit("no", status = 1, runLast = FALSE)
  current <<- header[3L]
  state <<- list2env(fresh, parent = emptyenv())
  if (header[2L] == kinds[["ask"]]) {
    about <- rawToChar(readBin(requests, "raw", header[5L] - 8))
    Encoding(about) <- "UTF-8"
    return(finish("result", answer_question(header[6L], about)))
  }
  if (header[4L] %% 2 == 1) request <- decode(requests, header[5L], header[6L])
  else {
    # A large request is followed by whether its client sent it all.
    request <- tryCatch(decode(requests, header[5L], header[6L]), error = identity)
    if (readBin(requests, "integer", 1L) != 1L) return(end_text())
    if (inherits(request, "error")) stop(request)
  }
  if (header[4L] >= 2) allowInterrupts(Sys.sleep(0))  # one that came late, for the request before, ends here
  state$begun <- TRUE
  finish("result", allowInterrupts(perform(request)))
}

# Ends the request: its last text and plots, then the frame.
finish <- function(kind, columns) {
  force(columns)  # the evaluation itself
  if (.Internal(file.exists(pressed))) {
    unlink(pressed)
    # The signal follows the flag; one that the request has not taken ends it now.
    if (kind == "result" && is_interrupted(0.05)) return(finish("interrupted", encode(NULL)))
  }
  if (!state$begun && kind == "failure") is_interrupted(0)  # late, and to be forgotten
  if (state$warned) deferred_warnings()
  if (length(pages$devices)) try(finish_pages(), silent = TRUE)
  cat("")  # flushes what C code has printed
  write_frame(kind, columns)
  state <<- NULL  # lets go of the value
}

# Whether an interrupt is there, or comes within so many seconds; it is none any more.
is_interrupted <- function(seconds) {
  tryCatch({
    allowInterrupts(Sys.sleep(seconds))
    FALSE
  }, interrupt = function(i) TRUE)
}

# The end of a request that its client did not finish.
end_text <- function() {
  is_interrupted(0)
  cat("")
  mark(sprintf("e%.0f", current))
}

write_frame <- function(kind, body) {
  put_frame(kind, body)
  .Internal(flush(results))
}

put_frame <- function(kind, body) {
  head <- c(magic, kinds[[kind]], current, length(.GlobalEnv))
  if (is.double(body)) write_block(c(head, 8 * length(body), body), results)
  else {
    write_block(c(head, if (is.raw(body)) length(body) else body$bytes), results)
    if (is.raw(body)) write_block(body, results) else write_columns(body, results)
  }
}

mark <- function(what) {
  write_block(charToRaw(paste0(marker, what, "\a")), terminal)
  .Internal(flush(terminal))
}

# --- The workspace when R hangs and the agent makes it save itself and quit (SIGUSR1)

# R calls sys.save.image() then; without the agent's flag it is the user's own signal.
on_rescue <- function(fun) {
  unlockBinding("sys.save.image", baseenv())
  assign("sys.save.image", fun, envir = baseenv())
  lockBinding("sys.save.image", baseenv())
}

rescue <- function(name) {
  if (!file.exists(saving)) {
    closeAllConnections()
    return(save.image(name))
  }
  save_workspace()
}
