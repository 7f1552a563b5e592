# The session's workspace as a whole: what is in it, whether its client has it too, saving and loading it.
#
# Part of evaluator.R. Questions are numbered as in protocol.py.

answer_question <- function(question, about) {
  switch(question, encode(all_objects()), summary_json(), saved_json(), encode(in_time(completions(about), 0.2)),
         encode(about_name(about, 0.18)), renewed_workers(), encode(in_time(session_state(), 5)))
}

# What results depend on beside the code: kinds of random numbers, the last ppe.lapply's seed (NULL: none), packages, and
# where the stream of random numbers is (NULL: it has not begun).
session_state <- function() {
  stream <- get0(".Random.seed", globalenv(), inherits = FALSE)
  run <- last_run()
  found <- utils::sessionInfo()
  versions <- function(packages) vapply(packages, function(each) paste(each$Package, each$Version), "", USE.NAMES = FALSE)
  list(RNGkind(), if (is.null(run)) NULL else as.integer(run$seed), versions(found$otherPkgs),
       versions(found$loadedOnly), stream)
}

# Name -> fingerprint of the value when it last went to a client or came from one. No reference is kept: it would make
# the next change of a large object copy it.
exchanged <- new.env()

remember_exchange <- function(name, value) {
  assign(name, fingerprint(value), envir = exchanged)
  value
}

# Notices most changes, and costs little beside sending the value: of large vectors it sees a sample.
fingerprint <- function(value) tryCatch(digest(value, 0L), error = function(e) NULL)

digest <- function(value, depth) {
  n <- length(value)
  if (is.list(value) && depth < 3L) return(c(n, lapply(sampled(unclass(value), 100L), digest, depth + 1L)))
  if (!is.atomic(value)) return(as.numeric(utils::object.size(value)))
  value <- as.vector(unclass(value))
  if (n > 1e5 || is.character(value)) list(n, sampled(value, 1000L))
  else list(n, sampled(value, 3L), if (!is.raw(value)) sum(value, 0.5, na.rm = TRUE))
}

sampled <- function(value, most) {
  n <- length(value)
  if (n <= most) value else value[round(seq(1, n, length.out = most))]
}

# The last ppe.lapply's, if there was one: to ask that of ppe.last() would load all that it needs.
last_run <- function() for (hook in getHook("ppe.last")) return(hook())

# The table below, and what a ppe.lapply that was stopped has kept beside the workspace, until somebody looks at it.
all_objects <- function() {
  table <- workspace_table(Inf)
  run <- last_run()
  if (!isTRUE(run$unseen)) return(table)
  Map(c, table, list(LAST_RESULTS, as.numeric(utils::object.size(run$parts)), FALSE))
}

# Names, bytes, and whether the client has them as they are; at most `seconds` are spent on sizes, the rest is NA.
workspace_table <- function(seconds) {
  names <- Filter(function(name) !bindingIsActive(name, .GlobalEnv), ls(.GlobalEnv))
  bytes <- rep(NA_real_, length(names))
  known <- logical(length(names))
  begun <- proc.time()[["elapsed"]]
  for (i in seq_along(names)) {
    if (proc.time()[["elapsed"]] - begun > seconds) break
    value <- get(names[i], envir = .GlobalEnv)
    bytes[i] <- as.numeric(utils::object.size(value))
    before <- exchanged[[names[i]]]
    known[i] <- !is.null(before) && identical(before, fingerprint(value))
  }
  list(names, bytes, known)
}

summary_json <- function() {
  table <- workspace_table(1)
  if (anyNA(table[[2L]])) return(charToRaw("null"))
  charToRaw(sprintf("{\"objects\": %d, \"bytes\": %.0f, \"unpulled\": %d}",
                    length(table[[1L]]), sum(table[[2L]]), sum(!table[[3L]])))
}

# --- Saved, and loaded again

save_workspace <- function() {
  saveRDS(list(packages = rev(.packages()), directory = getwd()), surroundings)
  # The disk may have room for a compressed one only.
  tryCatch(save.image(workspace, compress = FALSE), error = function(e) save.image(workspace))
}

saved_json <- function() {
  save_workspace()
  charToRaw(sprintf("{\"objects\": %d, \"bytes\": %.0f}", length(ls(.GlobalEnv)), file.size(workspace)))
}

# The number of objects as JSON, or null when there was nothing to load, or R's words if it could not.
restore <- function() {
  if (!file.exists(workspace)) return("null")
  around <- if (file.exists(surroundings)) tryCatch(readRDS(surroundings), error = function(e) list())
  for (package in around$packages) {
    suppressPackageStartupMessages(try(library(package, character.only = TRUE), silent = TRUE))
  }
  try(setwd(around$directory), silent = TRUE)
  loaded <- tryCatch({
    load(workspace, envir = .GlobalEnv)
    length(ls(.GlobalEnv))
  }, error = conditionMessage)
  unlink(c(workspace, surroundings))
  if (is.character(loaded)) sprintf("\"%s\"", gsub("[^][ !#-Z^-~]", " ", loaded)) else format(loaded)
}

# What Rprofile.site says that it has done about workers that were left in the middle of a call.
renewed_workers <- function() {
  said <- vapply(getHook("ppe.workers"), function(hook) hook(), "")
  charToRaw(paste0(paste(said, collapse = ""), "\n"))  # a frame's body is never empty
}
