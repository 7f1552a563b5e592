# The R side of the session: reads requests from a named pipe, evaluates, answers on another.
#
# The agent sources this at R's own prompt; it never returns. An R that falls back to its prompt (a jump to top level)
# shows the prompt, which is a marker, and the agent sources it again.
#
# - Text goes through the terminal by itself. Markers are written into the same terminal through a connection of ours,
#   so that sink() cannot take them; their order with text is exact.
# - A plot or table goes over the pipe before its marker is printed.
# - Interrupts are suspended but in the user's code, so that a late one cannot break a frame.
# - No name of ours is on the search path or in the global environment.
#
# Requests and results are unnamed lists in columns (columns.R); the other end is remote/session.py. A request has
# code, print, inputs, outputs, plots, without what is NULL at its end; a result has the value and the outputs.

kinds <- c(display = 20, result = 21, failure = 25, interrupted = 26, ready = 32)
magic <- readBin(as.raw(c(0x89, 0x70, 0x70, 0x65, 0x52, 0x0d, 0x0a, 0x40)), "double", endian = "little")
folder <- Sys.getenv("PPE_RUN")
marker <- Sys.getenv("PPE_MARKER")
saving <- file.path(folder, "saving")
workspace <- file.path(folder, "workspace.RData")
surroundings <- file.path(folder, "surroundings.rds")

requests <- NULL; results <- NULL; terminal <- NULL; current <- 0

serve <- function() {
  requests <<- file(file.path(folder, "requests"), "rb", raw = TRUE)
  results <<- file(file.path(folder, "results"), "wb", raw = TRUE)
  terminal <<- file(Sys.getenv("PPE_TERMINAL"), "wb", raw = TRUE)
  on.exit(for (con in list(requests, results, terminal)) try(close(con), silent = TRUE))
  options(device = open_device, help_type = "text", menu.graphics = FALSE)
  on_rescue(rescue)
  restore()
  reg.finalizer(environment(), function(e) try(mark("q"), silent = TRUE), onexit = TRUE)
  write_frame(kinds[["ready"]], charToRaw(sprintf("{\"pid\": %d, \"version\": \"%s\"}", Sys.getpid(), getRversion())))
  suspendInterrupts(repeat answer())
}

answer <- function() {
  # A frame's header, and the first number of its body.
  header <- .Internal(readBin(requests, "double", 6L, NA_integer_, TRUE, swap))
  # The agent is gone, and with it whoever could ask.
  if (length(header) < 6L || header[1L] != magic) quit("no", status = 1, runLast = FALSE)
  current <<- header[3L]
  result <- evaluate(header[5L], header[6L], whole = header[4L] == 1)
  cat("")  # flushes what C code has printed
  mark(sprintf("e%.0f", current))
  if (!is.null(result)) write_frame(result[[1L]], result[[2L]])
}

write_frame <- function(kind, body) {
  size <- if (is.raw(body)) length(body) else body$bytes
  write_block(c(magic, kind, current, 0, size), results)
  if (is.raw(body)) write_block(body, results) else write_columns(body, results)
  flush(results)
}

mark <- function(what) {
  write_block(charToRaw(paste0(marker, what, "\a")), terminal)
  flush(terminal)
}

# --- The workspace, when R hangs and the agent makes it save itself and quit (SIGUSR1)

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
  saveRDS(list(packages = rev(.packages()), directory = getwd()), surroundings)
  save.image(workspace, compress = FALSE)
}

restore <- function() {
  if (!file.exists(workspace)) return()
  around <- tryCatch(readRDS(surroundings), error = function(e) list())
  for (package in around$packages) {
    suppressPackageStartupMessages(try(library(package, character.only = TRUE), silent = TRUE))
  }
  try(setwd(around$directory), silent = TRUE)
  load(workspace, envir = .GlobalEnv)
  unlink(c(workspace, surroundings))
}

# --- Evaluation

# Reads a request, does it, and encodes what came of it: list(kind, columns). NULL if its client did not send it all.
evaluate <- function(size, heads, whole) {
  state <- new.env(parent = emptyenv())
  state$line <- 0L; state$value <- NULL; state$warned <- FALSE; state$depth <- Inf
  result <- tryCatch(
    withCallingHandlers({
      request <- decode(requests, size, heads)
      if (!whole && readBin(requests, "integer", 1L) != 1L) return(NULL)
      tryCatch(allowInterrupts(NULL), interrupt = function(i) NULL)
      allowInterrupts(list(kinds[["result"]], perform(request, state)))
    },
    error = function(e) state$calls <- sys.calls(),
    warning = function(w) on_warning(w, state),
    message = on_message,
    # A pending interrupt would end R's rescue of the workspace (SIGUSR1) half-way.
    interrupt = function(i) if (file.exists(saving)) invokeRestart("resume")),
    error = function(e) list(kinds[["failure"]], failure(e, state)),
    interrupt = function(i) list(kinds[["interrupted"]], encode(NULL)))
  if (state$warned) deferred_warnings()
  if (length(pages$devices)) try(finish_pages(), silent = TRUE)
  result
}

# With `print`, visible values print; else the last one is the value. `outputs` are names of variables to send along.
perform <- function(request, state) {
  length(request) <- 5L
  page <<- if (is.null(request[[5L]])) page_default else request[[5L]]
  inputs <- request[[3L]]
  for (name in names(inputs)) assign(name, inputs[[name]], envir = .GlobalEnv)
  print <- isTRUE(request[[2L]])
  if (length(request[[1L]])) {
    expressions <- parsed(request[[1L]])
    run(expressions, print, state)
  }
  finish_pages()
  if (length(request[[4L]])) encode(list(if (!print) state$value, lapply(request[[4L]], output)))
  else if (print) encode(list()) else encode(list(state$value))
}

output <- function(name) {
  if (exists(name, envir = .GlobalEnv)) get(name, envir = .GlobalEnv)
  else stop(simpleError(sprintf("object '%s' not found", name)))
}

parsed <- function(code) {
  # Source references cost 15 of the 20 us of a parse; one line without a function has no use for them.
  if (!grepl("\n|function|\\\\", code)) return(parse(text = code, keep.source = FALSE))
  lines <- strsplit(code, "\n", fixed = TRUE)[[1L]]
  parse(text = lines, keep.source = TRUE, srcfile = srcfilecopy("<cell>", lines))
}

run <- function(expressions, print, state) {
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
    if (print && result$visible) show_value(result$value)
    if (length(pages$devices)) deliver_pages()
    if (state$warned) {
      state$warned <- FALSE
      deferred_warnings()
    }
  }
}

show_value <- function(value) {
  if (is.data.frame(value) && !isS4(value)) {
    text <- utils::capture.output(print(value))
    display(list("text/plain" = paste(text, collapse = "\n"), "text/html" = html_table(value)))
  } else if (isS4(value)) methods::show(value)
  else print(value)
}

# --- Conditions, worded and placed as R's console does

stderr_text <- function(expr) {
  mark("m")
  on.exit(mark("o"))
  expr
}

# R words them, but for an error that has been printed before them.
deferred_warnings <- function() {
  words <- textConnection(NULL, "w", local = TRUE)
  before <- sink.number("message")
  sink(words, type = "message")
  .Internal(printDeferredWarnings())
  sink(getConnection(before), type = "message")
  text <- textConnectionValue(words)
  close(words)
  if (!length(text)) return()
  addition <- gettext("In addition: ", domain = "R")
  if (startsWith(text[1L], addition)) text[1L] <- substring(text[1L], nchar(addition) + 1L)
  stderr_text(writeLines(text, stderr()))
}

on_message <- function(m) {
  for (restart in computeRestarts(m)) if (restart$name == "muffleMessage") {
    stderr_text(cat(conditionMessage(m), file = stderr()))
    invokeRestart(restart)
  }
}

# R itself collects warnings and words them. Those that it would print at once are printed here, to tag them, and
# those of the top level lose the call, which is ours.
on_warning <- function(w, state) {
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

failure <- function(e, state) {
  call <- conditionCall(e)
  if (identical(call, state$call)) call <- NULL
  message <- enc2utf8(conditionMessage(e))
  where <- regmatches(message, regexec("^<(text|cell)>:([0-9]+):([0-9]+): ([^\n]*)(.*)$", message))[[1L]]
  if (length(where) && is.infinite(state$depth)) {
    message <- sprintf("%s at line %s, column %s of the cell%s", where[5L], where[3L], where[4L], where[6L])
    return(encode(list(message, "", character(), as.integer(where[3L]), paste0("Error: ", message))))
  }
  trace <- frames(state$calls, state$depth)
  encode(list(message, if (is.null(call)) "" else one_line(call), vapply(trace, one_line, ""),
              line_of(trace, state), error_text(message, call)))
}

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

line_of <- function(trace, state) {
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

# --- Plots and tables

page_default <- list(width = 640, height = 480, units = "px", res = 72, pointsize = 12, bg = "white", scale = 2)
page <- page_default
pages <- new.env(parent = emptyenv())
pages$devices <- list()

# What R calls when something is drawn and no device is open.
open_device <- function(...) {
  prefix <- tempfile("plot")
  scale <- if (page$units == "px") page$scale else 1
  grDevices::png(paste0(prefix, "-%05d.png"), width = page$width * scale, height = page$height * scale,
                 units = page$units, res = page$res * page$scale, pointsize = page$pointsize, bg = page$bg,
                 type = if (capabilities("cairo")) "cairo" else getOption("bitmapType"))
  pages$devices <- c(pages$devices, list(list(number = grDevices::dev.cur(), prefix = prefix, page = page)))
}

# Sends the pages that are finished: a page is written when the next one begins or its device is closed.
deliver_pages <- function() {
  for (device in pages$devices) {
    files <- sort(Sys.glob(paste0(device$prefix, "-*.png")))
    for (path in files[file.size(files) > 0]) {
      png <- readBin(path, "raw", file.size(path))
      unlink(path)
      pixels <- readBin(png[17:24], "integer", 2L, endian = "big")
      display(list("image/png" = png),
              list("image/png" = list(width = pixels[1L] / device$page$scale, height = pixels[2L] / device$page$scale)))
    }
  }
}

finish_pages <- function() {
  if (!length(pages$devices)) return()
  for (device in pages$devices) {
    if (device$number %in% grDevices::dev.list() && is_ours(device)) grDevices::dev.off(device$number)
  }
  deliver_pages()
  pages$devices <- list()
}

# A device's number is taken again when the user closes it and opens another one.
is_ours <- function(device) {
  identical(attr(.Devices[[device$number]], "filepath"), paste0(device$prefix, "-%05d.png"))
}

setHook("plot.new", function(...) deliver_pages(), "append")
setHook("grid.newpage", function(...) deliver_pages(), "append")

display <- function(data, metadata = NULL) {
  write_frame(kinds[["display"]], encode(list(data, metadata)))
  mark("d")
}

html_table <- function(x, rows = 30L, columns = 20L) {
  shown <- x[seq_len(min(rows, nrow(x))), seq_len(min(columns, ncol(x))), drop = FALSE]
  escape <- function(text) gsub("<", "&lt;", gsub("&", "&amp;", enc2utf8(text), fixed = TRUE), fixed = TRUE)
  cells <- as.matrix(format(as.data.frame(shown)))
  number <- vapply(shown, is.numeric, NA)
  align <- ifelse(number, " style=\"text-align: right\"", " style=\"text-align: left\"")
  head <- paste0("<th", align, ">", escape(names(shown)), "</th>", collapse = "")
  body <- vapply(seq_len(nrow(cells)), function(i) {
    paste0("<tr><th>", escape(rownames(shown)[i]), "</th>",
           paste0("<td", align, ">", escape(cells[i, ]), "</td>", collapse = ""), "</tr>")
  }, "")
  note <- if (nrow(x) > rows || ncol(x) > columns) sprintf("<p>%d rows, %d columns</p>", nrow(x), ncol(x))
  paste0("<table><thead><tr><th></th>", head, "</tr></thead><tbody>", paste(body, collapse = "\n"), "</tbody></table>", note)
}
