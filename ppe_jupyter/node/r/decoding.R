# Columns on a connection as R values. Part of columns.R, which tells the layout and holds what both ways need.
#
# Whatever comes, as much as the frame has is consumed: a damaged value is an error, and the next request is in step.

# Reads a value, whose first number (of heads) has been read. `size` is the size of it all; whatever happens, exactly
# that is consumed.
decode <- function(con, size, count) {
  if (!identical(count, 9) || size < 80 || size > 65536) return(decode_any(con, size, count))
  heads <- .Internal(readBin(con, "double", 9L, NA_integer_, TRUE, swap))
  bytes <- heads[7L]
  if (!identical(heads[-c(7L, 9L)], one_string) || !isTRUE(size - 80 == bytes + -bytes %% 8)) {
    return(decode_any(con, size, count, heads))
  }
  x <- .Internal(readBin(con, "raw", size - 80, NA_integer_, TRUE, swap))
  list(strings_in(x[seq_len(bytes)], 1, heads[9L]))
}

# The heads of an unnamed list of one string without NA, but for its bytes and encoding: a request for an evaluation.
# By itself it takes a fifth of the time.
one_string <- c(7, 1, 0, 5, 1, 0, 0)

# `n` strings that are ASCII, UTF-8 or other bytes.
strings_in <- function(x, n, encoding) {
  out <- .Internal(readBin(x, "character", n, NA_integer_, TRUE, swap))
  if (sum(nchar(out, "bytes")) + n != length(x)) stop("a damaged value: strings are missing")
  if (encoding == 1) Encoding(out) <- "UTF-8"
  if (encoding == 2) {
    text <- validUTF8(out)
    Encoding(out)[text] <- "UTF-8"
  }
  out
}

# Any value; perhaps its heads have been read too.
decode_any <- function(con, size, count, heads = NULL) {
  used <- 8 + 8 * length(heads); at <- 0L
  read <- function(what, n) {
    out <- .Internal(readBin(con, what, n, NA_integer_, TRUE, swap))
    used <<- used + n * bytes_per[[what]]
    out
  }
  take <- function(what, n) {
    if (used + n * bytes_per[[what]] > size) stop("columns that are larger than their frame")
    if (n <= block) return(if (n) read(what, n) else vector(what, 0L))
    out <- vector(what, n)
    for (from in seq(1, n, by = block)) {
      to <- min(n, from + block - 1)
      out[from:to] <- read(what, to - from + 1)
    }
    out
  }
  get <- function(what, n) {
    out <- take(what, n)
    pad()
    out
  }
  pad <- function() if (used %% 8) take("raw", -used %% 8)
  head <- function() heads[[at <<- at + 1L]]
  # The elements of a list that are scalars of one type, if they are.
  scalars <- function(n) {
    kind <- if (n >= many && at + 3 * n <= length(heads)) heads[at + 1L] else 0
    if (!(kind %in% 1:3) || !identical(heads[at + seq_len(3 * n)], rep(c(kind, 1, 0), n))) return(NULL)
    at <<- at + 3L * as.integer(n)
    if (kind == 3) return(as.list(take("double", n)))
    v <- take("integer", 2 * n)[c(TRUE, FALSE)]
    as.list(if (kind == 1) as.logical(v) else v)
  }
  strings <- function(n) {
    bytes <- head(); missing <- head(); encoding <- head()
    out <- strings_in(get("raw", bytes), n, encoding)
    if (missing) {
      positions <- get("integer", missing)
      if (anyNA(positions) || any(positions < 0L | positions >= n)) stop("a damaged value: NA beyond the end")
      out[positions + 1L] <- NA
    }
    out
  }
  node <- function() {
    type <- head(); n <- head(); kept <- head()
    if (type == 7 && n > count) stop("a damaged value")
    out <- switch(type + 1, NULL, get("logical", n), get("integer", n), get("double", n), get("complex", n),
                  strings(n), get("raw", n), vector("list", n), opaque(),
                  stop("a damaged value"))
    attributes <- list()
    for (i in seq_len(kept)) {
      number <- head()
      name <- if (number) attributes_known[number] else node()
      attributes[[name]] <- node()
    }
    # Not out[[i]] <- NULL, which would remove it.
    if (type == 7) {
      all <- scalars(n)
      if (!is.null(all)) out <- all
      else for (i in seq_len(n)) if (!is.null(child <- node())) out[[i]] <- child
    }
    if (type == 8) some_rows(out, attributes$.ppe_rows) else if (kept) with_attributes(out, attributes) else out
  }
  opaque <- function() {
    bytes <- head(); text <- head()
    body <- get("raw", bytes)
    get("raw", text)
    unserialize(body)
  }
  on.exit(while (used < size && (n <- length(readBin(con, "raw", min(size - used, block))))) used <- used + n)
  if (!isTRUE(count >= 0 && 8 * count <= size && count == floor(count))) stop("a damaged value")
  if (is.null(heads)) heads <- take("double", count)
  if (!identical(heads, abs(trunc(heads)))) stop("a damaged value")
  node()
}

some_rows <- function(x, rows) {
  if (is.null(rows) || identical(rows, seq_len(NROW(x)) - 1L)) return(x)
  if (anyNA(rows) || any(rows < 0L | rows >= NROW(x))) stop("a damaged value: rows beyond the end")
  rows <- rows + 1L
  axes <- length(dim(x))
  if (axes < 2) x[rows]
  else if (axes == 2) x[rows, , drop = FALSE]
  else do.call(`[`, c(list(x, rows), rep(list(TRUE), axes - 1), drop = FALSE))
}

with_attributes <- function(x, attributes) {
  if (!is.null(attributes$.ppe_original)) return(unserialize(attributes$.ppe_original))
  if (!is.null(odd <- attributes$.ppe_bytes)) {
    marks <- Encoding(x)
    marks[odd + 1L] <- "bytes"
    Encoding(x) <- marks[seq_along(x)]
    attributes$.ppe_bytes <- NULL
  }
  attributes(x) <- attributes
  if (inherits(x, "POSIXct")) x <- from_wall_clock(x)
  if (inherits(x, "integer64")) loadNamespace("bit64")
  # Its pointer to itself means nothing elsewhere; without one it warns.
  if (inherits(x, "data.table") && isNamespaceLoaded("data.table")) x <- data.table::setalloccol(x)
  x
}
