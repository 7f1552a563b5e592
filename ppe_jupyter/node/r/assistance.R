# What helps while code is typed: completions, and help on a name. Part of evaluator.R.

# The answer within about so many seconds, else nothing: names and methods of the user's own may be slow, or fail.
in_time <- function(answer, seconds) {
  on.exit(setTimeLimit())
  tryCatch(suppressWarnings(suppressMessages(allowInterrupts({
    setTimeLimit(elapsed = seconds)
    answer
  }))), error = function(e) NULL, interrupt = function(i) NULL)
}

# `code` up to the cursor -> list(the word being typed, all that it could become), by the machinery of R's own console.
completions <- function(code) {
  utils <- asNamespace("utils")
  utils$.assignLinebuffer(code)
  utils$.assignEnd(nchar(code))
  word <- utils$.guessTokenFromLine()
  library_call <- "\\b(library|require|requireNamespace|loadNamespace)\\(\\s*[\"']?[[:alnum:].]*$"
  if (grepl(library_call, code)) {
    packages <- unique(unlist(lapply(.libPaths(), list.files)))
    return(list(word, sort(packages[startsWith(packages, word)])))
  }
  utils$.completeToken()
  list(word, quoted_names(utils$.retrieveCompletions()))
}

# df$`a name` needs backticks.
quoted_names <- function(found) {
  parts <- regmatches(found, regexec("^(.*\\$)([^$]+)$", found))
  vapply(seq_along(found), function(i) {
    part <- parts[[i]]
    if (length(part) && part[3L] != make.names(part[3L])) paste0(part[2L], "`", part[3L], "`") else found[i]
  }, "")
}

# What is known of a name, `pkg::name` or `x$name`: of data its structure; of a function its arguments and help page, as
# much of it as is made within about so many seconds.
about_name <- function(name, seconds) {
  deadline <- proc.time()[["elapsed"]] + seconds
  found <- in_time(known_of(name), seconds)
  if (length(found$page)) {
    text <- help_text(found$page, max(0.05, deadline - proc.time()[["elapsed"]]))
    found$usage <- paste(c(found$usage, text), collapse = "")
  }
  list(found$usage, NULL)
}

known_of <- function(name) {
  part <- "([[:alpha:].][[:alnum:]._]*|`[^`]+`)"
  if (!grepl(sprintf("^(%s:::?)?%s([$@]%s)*$", part, part, part), name)) return(NULL)
  if (!is.null(own <- own_help(name))) return(list(usage = own))
  value <- tryCatch(eval(str2lang(name), .GlobalEnv), error = function(e) NULL)
  usage <- if (is.function(value)) {
    usage <- if (!is.null(args(value))) utils::capture.output(print(args(value)))
    if (length(usage)) paste(c(sub("^function ", name, usage[-length(usage)]), "", ""), collapse = "\n")
  } else if (!is.null(value)) {
    paste(utils::capture.output(utils::str(value, give.attr = FALSE)), collapse = "\n")
  }
  parts <- strsplit(gsub("`", "", name), ":::?")[[1L]]
  page <- if (is.null(value) || is.function(value)) {
    do.call(utils::help, list(parts[length(parts)], if (length(parts) > 1L) parts[1L], help_type = "text"))
  }
  list(usage = usage, page = page)
}

# --- R's help pages

# Of what Rprofile.site adds to R.
own_help <- function(name) {
  for (hook in getHook("ppe.help")) if (!is.null(text <- hook(name))) return(text)
}

# A long page takes half a second: it is written as it is made, so its beginning is there when the time is over.
help_text <- function(page, seconds = Inf) {
  out <- tempfile()
  on.exit(unlink(out))
  whole <- in_time({
    tools::Rd2txt(asNamespace("utils")$.getHelpFile(page[1L]), out, package = package_of(page),
                  outputEncoding = "UTF-8", options = list(underline_titles = FALSE))
    TRUE
  }, seconds)
  lines <- if (file.exists(out)) readLines(out, encoding = "UTF-8", warn = FALSE)
  paste(c(lines, if (is.null(whole)) sprintf("\n[...] The whole page: help(\"%s\")", basename(page[1L]))), collapse = "\n")
}

# Its links lead nowhere outside of R's own server.
help_html <- function(page) {
  out <- tempfile()
  on.exit(unlink(out))
  tools::Rd2HTML(asNamespace("utils")$.getHelpFile(page[1L]), out, package = package_of(page), outputEncoding = "UTF-8")
  html <- paste(readLines(out, encoding = "UTF-8"), collapse = "\n")
  gsub("(?s)^.*<body>|</body>.*$|<script.*?</script>|</?a( [^>]*)?>|<hr.*?</div>", "", html, perl = TRUE)
}

package_of <- function(page) basename(dirname(dirname(page[1L])))

# What R shows files with, such as help that is printed within a function: no pager can run here.
show_files <- function(files, header, title, delete.file) {
  for (i in seq_along(files)) {
    if (nzchar(header[i])) cat(header[i], "\n\n", sep = "")
    # Underlined and bold as on a typewriter.
    writeLines(c(gsub(".\b", "", readLines(files[i], warn = FALSE)), ""))
  }
  if (delete.file) unlink(files)
}
