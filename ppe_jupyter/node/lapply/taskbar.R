# What is seen of a run: its bar, and what its tasks say, with their index. Part of lapply.R.

BAR_SECONDS <- c(0.5, 0.5)  # until the first, and between two
BAR_WIDTH <- 16

tick <- function(run) {
  if (run$progress && seconds() - run$begun > BAR_SECONDS[[1L]] && seconds() - run$shown > BAR_SECONDS[[2L]]) {
    run$shown <- seconds()
    bar(run, bar_text(run))
  }
  if (!is.null(run$checkpoint)) checkpoint_sometimes(run)
}

bar_text <- function(run) {
  rate <- (run$done - run$resumed) / (seconds() - run$begun)
  busy <- if (is.null(run$given)) 1L else sum(lengths(run$given[run$ranks]) > 0L)
  filled <- floor(BAR_WIDTH * run$done / run$n)
  paste0(sprintf("%3.0f%% ", floor(100 * run$done / run$n)), strrep("\u2588", filled), strrep("\u2591", BAR_WIDTH - filled),
         sprintf(" %.0f of %d", run$done, run$n),
         if (rate > 0) sprintf(" \u00b7 %s a second \u00b7 ETA %s", format(rate, digits = 2),
                               duration((run$n - run$done) / rate)),
         sprintf(" \u00b7 %d of %d slots busy", busy, slots_of(run)),
         if (run$failed) sprintf(" \u00b7 %.0f failed", run$failed))
}

slots_of <- function(run) if (is.null(run$ranks)) 1L else length(run$ranks)

duration <- function(seconds) {
  if (seconds < 90) sprintf("%.0f s", seconds) else if (seconds < 5400) sprintf("%.0f min", seconds / 60)
  else sprintf("%.1f h", seconds / 3600)
}

# On the standard error, where neither sink() nor capture.output() takes it.
bar <- function(run, text) {
  gap <- max(0L, run$width - nchar(text))
  cat("\r", text, strrep(" ", gap), sep = "", file = stderr())
  run$width <- nchar(text)
}

clear_bar <- function(run) {
  if (!is.null(run$width)) cat("\r", strrep(" ", run$width), "\r", sep = "", file = stderr())
  run$width <- NULL
}

end_bar <- function(run) {
  if (is.null(run$width)) return()
  bar(run, sprintf("%.0f of %d in %s on %d slots%s", run$done, run$n, duration(seconds() - run$begun), slots_of(run),
                   if (run$failed) sprintf(" \u00b7 %.0f failed", run$failed) else ""))
  cat("\n", file = stderr())
  run$width <- NULL
}

tell <- function(run, text) {
  clear_bar(run)
  message(text)
}

hear <- function(run, what) {
  run$said[[length(run$said) + 1L]] <- what
  if (what$kind == "warning") return()
  clear_bar(run)
  if (what$kind == "message") message(sprintf("[%.0f] %s", what$index, sub("\n$", "", what$text)))
  else cat(sprintf("[%.0f] %s\n", what$index, strsplit(what$text, "\n", fixed = TRUE)[[1L]]), sep = "")
}

# Equal ones at once, with the tasks that gave them.
warn_of <- function(run) {
  warnings <- Filter(function(what) what$kind == "warning", run$said)
  texts <- vapply(warnings, function(w) paste0(if (length(w$call)) sprintf("in %s: ", w$call), w$text), "")
  by_text <- split(vapply(warnings, `[[`, 0, "index"), factor(texts, unique(texts)))
  said <- sprintf("%s: %s", vapply(by_text, function(index) tasks_text(unique(index)), ""), unique(texts))
  for (text in said) warning(text, call. = FALSE)
  if (run$failed && run$on_error == "collect") {
    known <- collected(run)
    index <- which(known$failed)
    warning(sprintf("%s failed, the first with: %s", tasks_text(index), conditionMessage(known$values[[index[1L]]])),
            call. = FALSE)
  }
}

tasks_text <- function(index) {
  index <- sort(index)
  shown <- paste(format(utils::head(index, 5L), trim = TRUE, scientific = FALSE), collapse = ", ")
  if (length(index) == 1L) sprintf("task %s", shown)
  else if (length(index) <= 5L) sprintf("tasks %s", shown)
  else sprintf("%d tasks (%s, \u2026)", length(index), shown)
}
