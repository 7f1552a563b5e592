# R values as columns on a connection, and back.
#
# A value is a tree of nodes. All nodes' heads come first, as one vector of doubles in preorder: for each node its type,
# its length, its number of attributes, then what the type needs (strings: bytes, and how many are NA; opaque: bytes of
# its serialization, and of its printed text). An attribute is its number in `attributes_known` and a node. The nodes'
# data follow in the same order, little-endian, each padded to 8 bytes, so that the other end may use them in place.
#
# Strings: R writes each with a NUL behind it, as writeBin does in C; they are read with a 0xFF behind each, which
# is in no UTF-8 text, because R cannot hold a NUL in a string and splits at a byte in C. The positions of NA follow,
# from 0, as integers. Logicals are integers; NA of integer, logical and double are R's own bits.
#
# The other end is remote/wire.py. Nothing here knows of requests or frames.

types <- c("NULL" = 0, logical = 1, integer = 2, double = 3, complex = 4, character = 5, raw = 6, list = 7, opaque = 8)
bytes_per <- c(logical = 4, integer = 4, double = 8, complex = 16, raw = 1)
attributes_known <- c("names", "dim", "dimnames", "levels", "class", "tzone", "units", "row.names")
classes_known <- list("factor", c("ordered", "factor"), "Date", c("POSIXct", "POSIXt"), "difftime", "data.frame",
                      c("tbl_df", "tbl", "data.frame"), c("data.table", "data.frame"), "table")
swap <- .Platform$endian != "little"
block <- 2^26  # elements a call: writeBin and readBin take at most 2^31 - 1 bytes at once

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
  node <- function(x) {
    type <- typeof(x)
    kept <- attributes(x)
    if (!is.null(kept) || !(type %in% names(types))) {
      if (inherits(x, "POSIXlt")) x <- as.POSIXct(x)
      if (inherits(x, "AsIs")) class(x) <- setdiff(class(x), "AsIs")
      if (!is_column(x)) return(opaque(x))
      if (inherits(x, "POSIXct")) x <- wall_clock(x)
      type <- typeof(x)
      kept <- attributes(x)[intersect(names(attributes(x)), attributes_known)]
    }
    n <- length(x)
    if (type == "character") {
      x <- enc2utf8(x)
      missing <- if (anyNA(x)) which(is.na(x))
      if (length(missing)) x[missing] <- ""
      size <- sum(nchar(x, "bytes")) + n
      head(5, n, length(kept), size, length(missing))
      put(if (is.null(kept)) x else as.vector(x), size)
      if (length(missing)) put(as.integer(missing - 1), 4 * length(missing))
    } else {
      head(types[[type]], n, length(kept))
      if (type != "NULL" && type != "list") put(x, n * bytes_per[[type]])
    }
    for (name in names(kept)) {
      head(match(name, attributes_known))
      # unclass: a data frame's automatic row names are c(NA, -n), and a class of its own would recur.
      node(if (name == "row.names") .row_names_info(x, 0L) else kept[[name]])
    }
    if (type == "list") for (i in seq_len(n)) node(.subset2(x, i))
  }
  opaque <- function(x) {
    body <- serialize(x, NULL, xdr = FALSE)
    text <- charToRaw(enc2utf8(paste(printed(x), collapse = "\n")))
    class <- enc2utf8(class(x))
    head(8, 1, 1, length(body), length(text))
    put(body, length(body))
    put(text, length(text))
    head(match("class", attributes_known))
    node(class)
  }
  node(x)
  head <- as.double(unlist(heads))
  list(head = head, data = data, bytes = 8 * (1 + length(head)) + bytes)
}

# Whether the other end has a form for `x` that loses nothing but attributes that R itself attaches to results.
is_column <- function(x) {
  if (isS4(x) || !(typeof(x) %in% names(types))) return(FALSE)
  if (!is.object(x)) return(!is.list(x) || is.null(dim(x)))
  class <- class(x)
  if (!any(vapply(classes_known, identical, NA, class))) return(FALSE)
  if (is.data.frame(x)) {
    return(all(vapply(x, function(column) is.null(dim(column)) && !inherits(column, "POSIXlt") &&
                        (is_column(column) || inherits(column, "AsIs")), NA)))
  }
  if (is.factor(x)) return(typeof(x) == "integer" && is.null(dim(x)))
  typeof(x) %in% c("double", "integer", "logical") && (class[1] == "table" || is.null(dim(x)))
}

# What is printed of an object that has no other form; drawing it is no way to print it.
printed <- function(x, lines = 40L) {
  if (inherits(x, c("ggplot", "trellis", "grob", "gtable", "recordedplot", "htmlwidget"))) {
    return(sprintf("<%s>", paste(class(x), collapse = ", ")))
  }
  text <- tryCatch(utils::capture.output(print(x)), error = function(e) sprintf("<%s>", class(x)[1]))
  if (length(text) > lines) c(text[seq_len(lines)], sprintf("... (%d more lines)", length(text) - lines)) else text
}

# Times without a zone are wall clock times of this session; they cross as if the clock were UTC's.
# Not Sys.timezone(), which runs timedatectl: noise and 50 ms on a machine without systemd.
is_utc <- function() all(format(.POSIXct(c(0, 1.5e7, 1.5e9, 1.515e9)), "%z") == "+0000")
has_zone <- function(x) { zone <- attr(x, "tzone"); length(zone) > 0 && nzchar(zone[1]) }
wall_clock <- function(x) {
  if (has_zone(x) || is_utc()) return(x)
  local <- as.POSIXlt(x)
  attr(local, "tzone") <- "UTC"
  structure(as.double(as.POSIXct(local)), names = names(x), class = c("POSIXct", "POSIXt"))
}
from_wall_clock <- function(x) {
  if (has_zone(x) || is_utc()) return(x)
  local <- as.POSIXlt(structure(unclass(x), class = c("POSIXct", "POSIXt"), tzone = "UTC"))
  attr(local, "tzone") <- NULL
  local$isdst <- -1L  # to be found out
  structure(as.double(as.POSIXct(local)), names = names(x), class = c("POSIXct", "POSIXt"))
}

write_columns <- function(encoded, con) {
  write_block(c(length(encoded$head), encoded$head), con)
  for (v in encoded$data) {
    n <- length(v)
    if (n <= block) write_block(v, con)
    else for (from in seq(1, n, by = block)) write_block(v[from:min(n, from + block - 1)], con)
  }
}

# writeBin() refuses what has attributes; taking them off a vector copies it.
write_block <- function(v, con) .Internal(writeBin(v, con, NA_integer_, swap, TRUE))

# --- The other end to R

# Reads `n` items of `what` in blocks.
read_block <- function(con, what, n) {
  if (n <= block) return(.Internal(readBin(con, what, n, NA_integer_, TRUE, swap)))
  out <- vector(what, n)
  for (from in seq(1, n, by = block)) {
    to <- min(n, from + block - 1)
    out[from:to] <- readBin(con, what, to - from + 1, endian = "little")
  }
  out
}

# Reads a value, whose first number (of heads) has been read. `size` is the size of it all; whatever happens, exactly
# that is consumed.
decode <- function(con, size, count) {
  used <- 8; at <- 0L; heads <- NULL
  get <- function(what, n, bytes = n * bytes_per[[what]]) {
    padded <- bytes + -bytes %% 8
    if (used + padded > size) stop("columns that are larger than their frame")
    out <- if (n) read_block(con, what, n) else vector(what, 0L)
    if (padded > bytes) read_block(con, "raw", padded - bytes)
    used <<- used + padded
    out
  }
  head <- function() heads[[at <<- at + 1L]]
  strings <- function(n, bytes, missing) {
    text <- get("raw", bytes, bytes)
    out <- if (n) {
      # One string needs no split: code, names of variables.
      if (n == 1) rawToChar(text[-bytes])
      else strsplit(rawToChar(text), "\xff", fixed = TRUE, useBytes = TRUE)[[1L]]
    } else character()
    Encoding(out) <- "UTF-8"
    if (missing) out[get("integer", missing) + 1L] <- NA
    out
  }
  node <- function() {
    type <- head(); n <- head(); kept <- head()
    if (is.na(kept) || (type == 7 && n > count)) stop("a damaged value")
    out <- switch(type + 1, NULL, get("logical", n), get("integer", n), get("double", n), get("complex", n),
                  strings(n, head(), head()), get("raw", n), vector("list", n), opaque(head(), head()))
    attributes <- list()
    for (i in seq_len(kept)) {
      name <- attributes_known[head()]
      attributes[[name]] <- node()
    }
    # Not out[[i]] <- NULL, which would remove it.
    if (type == 7) for (i in seq_len(n)) if (!is.null(child <- node())) out[[i]] <- child
    if (kept && type != 8) {
      attributes(out) <- attributes
      if (inherits(out, "POSIXct")) out <- from_wall_clock(out)
    }
    out
  }
  opaque <- function(bytes, text) {
    body <- get("raw", bytes)
    get("raw", text)
    unserialize(body)
  }
  on.exit(while (used < size && (n <- length(readBin(con, "raw", min(size - used, block))))) used <- used + n)
  heads <- get("double", count, 8 * count)
  node()
}
