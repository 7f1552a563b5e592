# R values as columns on a connection, and back.
#
# A value is a tree of nodes. All nodes' heads come first, as one vector of doubles in preorder: for each node its type,
# its length, its number of attributes, then what the type needs (strings: bytes, how many are NA, and whether they are
# ASCII (0), UTF-8 (1) or have other bytes among them (2); opaque: bytes of its serialization, and of its printed text).
# An attribute is its number in `attributes_known`, or 0 and a node of its name, and a node. The nodes' data follow in
# the same order, little-endian, each padded to 8 bytes, so that the other end may use them in place.
#
# Strings have a NUL behind each, as writeBin and readBin have it in C. The positions of NA follow, from 0, as integers.
# Logicals are integers; NA of integer, logical and double are R's own bits.
#
# What the other end has no place for (attributes, the storage of a date) it keeps beside the values, and sends back.
# Private attributes make that complete: the instants of times whose wall clock does not tell them, the positions of
# strings that are marked as bytes, and the serialization of what crosses as something simpler (POSIXlt as POSIXct).
#
# Columns of a data frame that have no other form are opaque; those that return have the rows that are left of them.
#
# decoding.R is the way back; the other end is remote/values/wire.py. Nothing here knows of requests or frames.

types <- c("NULL" = 0, logical = 1, integer = 2, double = 3, complex = 4, character = 5, raw = 6, list = 7, opaque = 8)
bytes_per <- c(logical = 4, integer = 4, double = 8, complex = 16, raw = 1)
attributes_known <- c("names", "dim", "dimnames", "levels", "class", "tzone", "units", "row.names", ".ppe_instants",
                      ".ppe_bytes", ".ppe_original", ".ppe_rows")
swap <- .Platform$endian != "little"
block <- 2^26  # elements a call: writeBin and readBin take at most 2^31 - 1 bytes at once
many <- 64L  # elements of a list, from which on it is tried to take all at once
deepest <- 100L  # level of lists in lists; deeper ones are opaque, for neither end recurs without end
farthest <- 8e12  # seconds from 1970 that the other end can tell
seconds_per <- c(secs = 1, mins = 60, hours = 3600, days = 86400, weeks = 604800)

# --- R to the other end

# What `x` becomes: list(head = doubles, data = vectors to be written as they are, bytes = size of all).
encode <- function(x) {
  heads <- list(); data <- list(); bytes <- 0; h <- 0L; d <- 0L
  head <- function(...) heads[[h <<- h + 1L]] <<- c(...)
  put <- function(v, size) {
    data[[d <<- d + 1L]] <<- v
    padding <- -size %% 8
    if (padding) data[[d <<- d + 1L]] <<- raw(padding)
    bytes <<- bytes + size + padding
  }
  node <- function(x, depth = 0L, in_frame = FALSE) {
    type <- typeof(x)
    kept <- attributes(x)
    if (!is.null(kept) || !(type %in% names(types)) || depth > deepest) {
      original <- x
      if (inherits(x, "POSIXlt") && length(x$year)) x <- as.POSIXct(x)
      if (depth > deepest || !is_column(x, in_frame)) return(opaque(original))
      if (inherits(x, "POSIXct")) x <- wall_clock(x)
      type <- typeof(x)
      kept <- attributes(x)
      if (inherits(original, "POSIXlt")) kept$.ppe_original <- serialize(original, NULL, xdr = FALSE)
      if (is.data.frame(x)) kept <- frame_attributes(x, kept)
    }
    n <- length(x)
    if (type == "character") {
      x <- bare(x)
      marks <- Encoding(x)
      if ("bytes" %in% marks) kept$.ppe_bytes <- which(marks == "bytes") - 1L
      # Not enc2utf8 for all, which makes "<e9>" of bytes that are no text in this session's encoding.
      if (!l10n_info()[["UTF-8"]]) x <- enc2utf8(x)
      else if ("latin1" %in% marks) x[marks == "latin1"] <- enc2utf8(x[marks == "latin1"])
      missing <- if (anyNA(x)) which(is.na(x))
      if (length(missing)) x[missing] <- ""
      size <- sum(nchar(x, "bytes")) + n
      head(5, n, length(kept), size, length(missing), 2)
      put(x, size)
      if (length(missing)) put(as.integer(missing - 1), 4 * length(missing))
    } else {
      head(types[[type]], n, length(kept))
      if (type != "NULL" && type != "list") put(x, n * bytes_per[[type]])
    }
    for (name in names(kept)) {
      head(match(name, attributes_known, 0L))
      if (!(name %in% attributes_known)) node(name)
      # unclass: a class of its own would recur.
      node(if (name == "class") as.vector(kept[[name]]) else kept[[name]], depth + 1L)
    }
    if (type == "list") {
      in_frame <- is.data.frame(x)
      all <- if (n >= many) scalars_of(x)
      if (is.null(all)) for (i in seq_len(n)) node(.subset2(x, i), depth + 1L, in_frame)
      else {
        head(rep(c(types[[typeof(all)]], 1, 0), n))
        put(if (is.double(all)) all else as.vector(rbind(all, 0L)), 8 * n)
      }
    }
  }
  opaque <- function(x) {
    body <- serialize(x, NULL, xdr = FALSE)
    text <- charToRaw(enc2utf8(paste(printed(x), collapse = "\n")))
    head(8, 1, 1, length(body), length(text))
    put(body, length(body))
    put(text, length(text))
    head(match("class", attributes_known))
    node(as.vector(class(x)))
  }
  node(x)
  head <- as.double(unlist(heads))
  list(head = head, data = data, bytes = 8 * (1 + length(head)) + bytes)
}

# encode(list(x)); all of it as one vector of doubles, of less than 4 kB, if `x` is NULL or some plain ones, in a tenth
# of the time. And encode(list()).
encode_one <- function(x) {
  if (is.null(x)) c(6, 7, 1, 0, 0, 0, 0)
  else if (is.double(x) && is.null(attributes(x)) && length(x) <= 400L) c(6, 7, 1, 0, 3, length(x), 0, x)
  else encode(list(x))
}
encoded_nothing <- c(3, 7, 0, 0)

# The elements of a list that are all plain numbers of one type, or all truth values, as a vector; else NULL.
scalars_of <- function(x) {
  first <- .subset2(x, 1L)
  plain <- typeof(first) %in% c("logical", "integer", "double") && is.null(attributes(first))
  if (!plain || any(lengths(x, FALSE) != 1L)) return(NULL)
  all <- unlist(x, FALSE, FALSE)
  if (identical(as.list(all), bare(x))) all
}

bare <- function(x) {
  attributes(x) <- NULL
  x
}

# Whether the other end has a form for `x`. A vector of any class has one as a column of a data frame, where the class
# is kept beside it (package haven's labels, glue); else only if that class does not change what its values mean.
is_column <- function(x, in_frame = FALSE) {
  if (isS4(x) || !(typeof(x) %in% names(types)) || (in_frame && length(dim(x)) > 1)) return(FALSE)
  if (is.data.frame(x)) return(is_frame(x))
  class <- if (is.object(x)) class(x)
  last <- class[length(class)]
  if (is.list(x)) {
    return(if (in_frame) is.null(class) || last %in% c("AsIs", "list")
           else is.null(class) && all(names(attributes(x)) %in% "names"))
  }
  if (is.null(class) || identical(class, "AsIs") || identical(class, "noquote")) return(TRUE)
  if (last == "table") return(typeof(x) %in% c("integer", "double", "logical") && !is.null(dim(x)))
  if (!is.null(dim(x)) && !in_frame) return(FALSE)
  if (inherits(x, "factor")) return(is_factor(x))
  if (inherits(x, "integer64")) return(typeof(x) == "double" && requireNamespace("bit64", quietly = TRUE))
  if (!inherits(x, c("Date", "POSIXct", "difftime"))) return(in_frame)
  if (!(typeof(x) %in% c("integer", "double"))) return(FALSE)
  if (inherits(x, "Date")) return(is_near(x, 86400))
  if (inherits(x, "POSIXct")) return(is_near(x, 1))
  units <- attr(x, "units")
  length(units) == 1 && units %in% names(seconds_per) && is_near(x, seconds_per[[units]])
}

is_factor <- function(x) {
  levels <- attr(x, "levels")
  codes <- bare(x)
  typeof(x) == "integer" && is.character(levels) && !anyNA(levels) && !anyDuplicated(levels) &&
    min(codes, 1L, na.rm = TRUE) >= 1L && max(codes, 0L, na.rm = TRUE) <= length(levels)
}

is_near <- function(x, seconds) {
  x <- bare(x)
  limit <- farthest / seconds
  # Two passes in C for most, not five.
  (min(x, 0, na.rm = TRUE) >= -limit && max(x, 0, na.rm = TRUE) <= limit) ||
    all(abs(x) <= limit | abs(x) == Inf, na.rm = TRUE)
}

is_frame <- function(x) {
  names <- attr(x, "names")
  is.list(x) && is.character(names) && length(names) == length(x) &&
    all(vapply(unclass(x), NROW, 0) == .row_names_info(x, 2L))
}

# A data frame's groups tell rows by number, which mean nothing once the other end has sorted it.
frame_attributes <- function(x, kept) {
  kept[["row.names"]] <- .row_names_info(x, 0L)  # automatic ones as c(NA, -n)
  if (inherits(x, c("grouped_df", "rowwise_df"))) {
    kept[["class"]] <- setdiff(class(x), c("grouped_df", "rowwise_df"))
    kept[["groups"]] <- NULL
  }
  kept[names(kept) != ".internal.selfref"]
}

# What is printed of an object that has no other form; drawing it is no way to print it.
printed <- function(x, lines = 40L) {
  shown <- c("ggplot", "trellis", "grob", "gtable", "recordedplot", "htmlwidget")
  if (inherits(x, shown) || isTRUE(attr(x, "browsable_html"))) {
    return(sprintf("<%s>", paste(class(x), collapse = ", ")))
  }
  # What is not wanted is not written: capturing 100,000 lines takes ten seconds.
  if (is.finite(lines)) {
    old <- options(max.print = min(lines * 50L, getOption("max.print")))
    on.exit(options(old))
  }
  text <- tryCatch(utils::capture.output(print(x)), error = function(e) sprintf("<%s>", class(x)[1]))
  if (length(text) > lines) c(text[seq_len(lines)], "...") else text
}

# Times without a zone are wall clock times of this session; they cross as if the clock were UTC's, with the instants
# themselves if that does not tell them (an hour that comes twice, the last digit of a second).
# Not Sys.timezone(), which runs timedatectl: noise and 50 ms on a machine without systemd.
is_utc <- function() all(format(.POSIXct(c(0, 1.5e7, 1.5e9, 1.515e9)), "%z") == "+0000")
has_zone <- function(x) { zone <- attr(x, "tzone"); length(zone) > 0 && nzchar(zone[1]) }
wall_clock <- function(x) {
  if (has_zone(x) || is_utc()) return(x)
  local <- as.POSIXlt(x)
  attr(local, "tzone") <- "UTC"
  wall <- as.double(as.POSIXct(local))
  if (!identical(instants(wall), bare(x))) attr(wall, ".ppe_instants") <- bare(x)
  attributes(wall) <- c(attributes(x), attributes(wall))
  wall
}
instants <- function(wall) {
  if (!length(wall)) return(wall)
  local <- as.POSIXlt(.POSIXct(wall, "UTC"))
  attr(local, "tzone") <- NULL
  local$isdst <- -1L  # to be found out
  as.double(as.POSIXct(local))
}
from_wall_clock <- function(x) {
  kept <- attributes(x)
  told <- kept$.ppe_instants
  if (is.null(told) && (has_zone(x) || is_utc())) return(x)
  x <- if (is.null(told)) instants(bare(x)) else told
  attributes(x) <- kept[names(kept) != ".ppe_instants"]
  x
}

write_columns <- function(encoded, con) {
  write_block(c(length(encoded$head), encoded$head), con)
  for (v in encoded$data) {
    n <- length(v)
    if (n <= block) write_block(v, con)
    else for (from in seq(1, n, by = block)) write_block(.subset(v, from:min(n, from + block - 1)), con)
  }
}

# writeBin() refuses what has attributes; taking them off a vector copies it.
write_block <- function(v, con) .Internal(writeBin(v, con, NA_integer_, swap, TRUE))
