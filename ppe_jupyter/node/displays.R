# Plots and tables that an evaluation shows. Part of evaluator.R.

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
  write_frame("display", encode(list(data, metadata)))
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
