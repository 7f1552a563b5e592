# Plots that an evaluation draws, page by page. Part of evaluator.R.
#
# R draws on a PNG device, which is fast whatever is drawn; a finished page is drawn again as SVG from R's own record
# of it, unless that would be larger than `most_svg`.

page_default <- list(width = 640, height = 480, units = "px", res = 72, pointsize = 12, bg = "white", scale = 2,
                     format = "svg")
page <- page_default
pages <- new.env(parent = emptyenv())
pages$devices <- list()
most_svg <- 2^20
# So many numbers are 30,000 points: 0.8 MB as a line, 9 MB as symbols. Drawings of more are not tried.
most_numbers <- 6e4

# What R calls when something is drawn and no device is open.
open_device <- function(...) {
  prefix <- tempfile("plot")
  scale <- if (page$units == "px") page$scale else 1
  grDevices::png(paste0(prefix, "-%05d.png"), width = page$width * scale, height = page$height * scale,
                 units = page$units, res = page$res * page$scale, pointsize = page$pointsize, bg = page$bg,
                 type = if (capabilities("cairo")) "cairo" else getOption("bitmapType"))
  if (page$format == "svg" && capabilities("cairo")) grDevices::dev.control("enable")
  pages$devices <- c(pages$devices, list(list(number = grDevices::dev.cur(), prefix = prefix, page = page)))
}

# Keeps what is drawn now, before a next page begins or the device is closed.
keep_drawing <- function(...) {
  for (i in seq_along(pages$devices)) {
    device <- pages$devices[[i]]
    if (device$page$format == "svg" && device$number == grDevices::dev.cur() && is_ours(device)) {
      pages$devices[[i]]$drawing <- tryCatch(grDevices::recordPlot(), error = function(e) NULL)
    }
  }
}

# Sends the pages that are finished: a page is written when the next one begins or its device is closed.
deliver_pages <- function(...) {
  for (device in pages$devices) {
    files <- sort(Sys.glob(paste0(device$prefix, "-*.png")))
    for (path in files[file.size(files) > 0]) {
      png <- readBin(path, "raw", file.size(path))
      unlink(path)
      svg <- if (!is.null(device$drawing)) tryCatch(as_svg(device$drawing, device$page), error = function(e) NULL)
      if (!is.null(svg)) display(list("image/svg+xml" = svg))
      else if (!identical(png[length(png) - 7:0], png_end)) lose_page()
      else {
        pixels <- readBin(png[17:24], "integer", 2L, endian = "big")
        size <- list(width = pixels[1L] / device$page$scale, height = pixels[2L] / device$page$scale)
        display(list("image/png" = png), list("image/png" = size))
      }
    }
  }
}

finish_pages <- function() {
  if (!length(pages$devices)) return()
  deliver_pages()
  keep_drawing()
  for (device in pages$devices) {
    if (device$number %in% grDevices::dev.list() && is_ours(device)) grDevices::dev.off(device$number)
  }
  deliver_pages()
  for (device in pages$devices) for (path in Sys.glob(paste0(device$prefix, "-*.png"))) {
    unlink(path)
    lose_page()
  }
  pages$devices <- list()
}

png_end <- as.raw(c(0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82))

lose_page <- function() {
  stderr_text(writeLines(paste("A plot is lost: where R draws it, the disk has no room for it:", tempdir()), stderr()))
}

# A device's number is taken again when the user closes it and opens another one.
is_ours <- function(device) {
  identical(attr(.Devices[[device$number]], "filepath"), paste0(device$prefix, "-%05d.png"))
}

# How many numbers a record holds. Its size tells nothing: a grob has functions, and a few points may be 4 MB.
numbers <- function(record) {
  found <- 0
  count <- function(x) {
    if (is.double(x)) found <<- found + length(x)
    else if (is.list(x) || is.pairlist(x) || is.call(x)) {
      for (each in as.list(x)) if (found <= most_numbers && !missing(each)) count(each)
    }
  }
  count(record)
  found
}

# The drawing as SVG, or NULL if that would be too large.
as_svg <- function(drawing, page) {
  if (numbers(drawing[[1L]]) > most_numbers) return(NULL)
  inches <- c(page$width, page$height) / c(px = page$res, "in" = 1, cm = 2.54, mm = 25.4)[[page$units]]
  path <- tempfile(fileext = ".svg")
  before <- grDevices::dev.cur()
  grDevices::svg(path, inches[1L], inches[2L], page$pointsize, onefile = TRUE, bg = page$bg)
  ours <- grDevices::dev.cur()
  on.exit({
    if (ours %in% grDevices::dev.list()) grDevices::dev.off(ours)
    if (before > 1L) grDevices::dev.set(before)
    unlink(path)
  })
  grDevices::dev.control("inhibit")
  grDevices::replayPlot(drawing)
  grDevices::dev.off(ours)
  if (file.size(path) > most_svg) return(NULL)
  svg <- readChar(path, file.size(path), useBytes = TRUE)
  svg <- sub("<svg ([^>]*?)width=\"[^\"]*\" height=\"[^\"]*\"",
             sprintf("<svg \\1width=\"%.6g\" height=\"%.6g\"", inches[1L] * page$res, inches[2L] * page$res),
             svg, perl = TRUE, useBytes = TRUE)
  # A notebook is one page, where two plots must not use each other's letters. Not R's random numbers, which are the user's.
  own <- basename(tempfile("p"))
  svg <- gsub("( id=\"|\"#|url\\(#)", paste0("\\1", own, "-"), svg, perl = TRUE, useBytes = TRUE)
  Encoding(svg) <- "UTF-8"
  if (endsWith(svg, "</svg>\n")) svg  # else the disk was full
}

for (hook in c("before.plot.new", "before.grid.newpage")) setHook(hook, keep_drawing, "append")
for (hook in c("plot.new", "grid.newpage")) setHook(hook, deliver_pages, "append")
