# How a visible value is shown: as R's console prints it, and what has a richer form in that too. Part of evaluator.R.

# Named x, as in R's console: a method's error shows its call.
show_value <- function(x) {
  if (!is.object(x)) {
    # The console does not look for methods of a class that a value has implicitly.
    if (is.function(x)) print(x) else print.default(x)
  } else if (length(rich <- representations(x))) {
    isolated <- if (inherits(x, "htmlwidget")) list("text/html" = list(isolated = TRUE))
    display(c(list("text/plain" = paste(printed(x, Inf), collapse = "\n")), rich), isolated)
  } else if (is.data.frame(x) && !isS4(x)) show_frame(x)
  else if (inherits(x, "help_files_with_topic") && length(x) == 1L && !isTRUE(attr(x, "tried_all_packages"))) {
    display(list("text/plain" = help_text(x), "text/html" = help_html(x)))
  } else if (inherits(x, "help_files_with_topic") && !is.null(own <- own_help(attr(x, "topic")))) writeLines(own)
  else if (isS4(x)) methods::show(x)
  else print(x)
}

display <- function(data, metadata = NULL) {
  write_frame("display", encode(list(data, metadata)))
  mark("d")
}

# --- Data frames

most_rows <- 200L  # of their text

show_frame <- function(x) {
  text <- utils::capture.output(print(if (nrow(x) > most_rows) x[seq_len(most_rows), , drop = FALSE] else x))
  if (nrow(x) > most_rows) text <- c(text, sprintf("[ the first %d of %d rows ]", most_rows, nrow(x)))
  html <- tryCatch(html_table(x), error = function(e) NULL)
  display(c(list("text/plain" = paste(text, collapse = "\n")), if (!is.null(html)) list("text/html" = html)))
}

html_table <- function(x, rows = 30L, columns = 20L) {
  shown <- as.data.frame(x)[seq_len(min(rows, nrow(x))), seq_len(min(columns, ncol(x))), drop = FALSE]
  escape <- function(text) gsub("<", "&lt;", gsub("&", "&amp;", enc2utf8(text), fixed = TRUE), fixed = TRUE)
  cells <- as.matrix(format(shown))
  number <- vapply(shown, is.numeric, NA)
  # A column may be a matrix of several.
  number <- if (length(number) == ncol(cells)) number else logical(ncol(cells))
  align <- ifelse(number, " style=\"text-align: right\"", " style=\"text-align: left\"")
  head <- paste0("<th", align, ">", escape(colnames(cells)), "</th>", collapse = "")
  body <- vapply(seq_len(nrow(cells)), function(i) {
    paste0("<tr><th>", escape(rownames(shown)[i]), "</th>",
           paste0("<td", align, ">", escape(cells[i, ]), "</td>", collapse = ""), "</tr>")
  }, "")
  note <- if (nrow(x) > rows || ncol(x) > columns) sprintf("<p>%d rows, %d columns</p>", nrow(x), ncol(x))
  paste0("<table><thead><tr><th></th>", head, "</tr></thead><tbody>", paste(body, collapse = "\n"), "</tbody></table>", note)
}

# --- What package repr has methods for: the user's own, of packages, and its own for widgets

formats <- c(html = "text/html", markdown = "text/markdown", latex = "text/latex", svg = "image/svg+xml",
             png = "image/png", jpeg = "image/jpeg", json = "application/json", javascript = "application/javascript")
widgets <- c("htmlwidget", "shiny.tag", "shiny.tag.list")

# MIME type -> representation; empty if package repr is not installed, or knows of no method.
representations <- function(x) {
  if (!repr_knows(class(x))) return(NULL)
  repr <- asNamespace("repr")
  found <- list()
  for (format in names(formats)) for (class in class(x)) {
    method <- utils::getS3method(paste0("repr_", format), class, optional = TRUE, envir = repr)
    # Its own for R's classes are not how the console shows them.
    if (is.null(method) || (identical(topenv(environment(method)), repr) && !(class %in% widgets))) next
    shown <- tryCatch(method(x), error = function(e) NULL)
    if (!is.null(shown)) found[[formats[[format]]]] <- if (is.raw(shown)) shown else paste(shown, collapse = "\n")
    break
  }
  found
}

# --- Pages that packages write for a viewer: print() of a widget does, in a loop or a function too

view <- function(url, ...) {
  path <- sub("^file://", "", url)
  page <- if (file.exists(path)) tryCatch(whole_page(path), error = function(e) NULL)
  if (is.null(page)) writeLines(url)
  else display(list("text/plain" = sprintf("<page %s>", url), "text/html" = page), list("text/html" = list(isolated = TRUE)))
  invisible()
}

# A page with the scripts and style sheets beside it.
whole_page <- function(path) {
  page <- paste(readLines(path, encoding = "UTF-8", warn = FALSE), collapse = "\n")
  types <- c(js = "application/javascript", css = "text/css", png = "image/png", svg = "image/svg+xml")
  found <- gregexpr("(src|href)=\"[^\":]+\"", page)
  regmatches(page, found) <- list(vapply(regmatches(page, found)[[1]], function(link) {
    file <- file.path(dirname(path), utils::URLdecode(strsplit(link, "\"")[[1]][2]))
    type <- types[tools::file_ext(file)]
    if (is.na(type) || !file.exists(file)) return(link)
    sprintf("%s=\"data:%s;base64,%s\"", sub("=.*", "", link), type, base64enc::base64encode(file))
  }, ""))
  page
}

# Loading it takes a while: only if someone has, or has a method that waits for it.
repr_knows <- function(classes) {
  if (isNamespaceLoaded("repr")) return(TRUE)
  waiting <- length(getHook(packageEvent("repr", "onLoad"))) > 0L || any(classes %in% widgets) ||
    any(vapply(outer(paste0("repr_", names(formats), "."), classes, paste0), exists, NA, envir = .GlobalEnv))
  waiting && requireNamespace("repr", quietly = TRUE)
}
