# All slots of the cluster for future, foreach and parallel: what they start without an argument are PSOCK workers on
# every node, started over its own SSH. Rprofile.site loads this on the master, into its own environment.
#
# - The slots are those of ~/ompi-hostfile at the moment of the call, so that a grown cluster's are found.
# - Workers connect back through the SSH that has started each of them, so that their data need no open port, and that
#   one whose node falls silent is given up after SILENT_SECONDS: R itself would wait for a month.
# - A lost worker is an error that names it and says what to do; nothing is started in its place. The others end with
#   their cluster: R's own stopCluster() would leave those behind the lost one for ever.
# - What workers still answer to a call that was stopped is dropped: R itself would take it for the next call's results.
# - One thread each, as Rmpi's workers have; what the session has from mpirun, or from us, is not for them.
#
# Only defaults change: makeCluster(2), plan(multisession) and their like mean what they mean elsewhere.

all_hosts <- function() {
  lines <- readLines(path.expand("~/ompi-hostfile"), warn = FALSE)
  rep(sub(" .*", "", lines), as.integer(sub(".*slots=", "", lines)))
}
SILENT_SECONDS <- 9
options(parallelly.availableWorkers.custom = all_hosts,
        parallelly.availableWorkers.methods = c("custom", "mc.cores", "system", "fallback"))

worker_rscript <- function() {
  share()  # the user's packages, before workers look for them
  theirs <- grep("^(LD_PRELOAD$|PPE_|OMPI_|OPAL_|ORTE_|PMIX_|PRTE_)", names(Sys.getenv()), value = TRUE)
  c("env", sprintf("--unset=%s", theirs), threads, "PPE_PSOCK=1", "*")
}

setHook(packageEvent("parallelly", "onLoad"), function(...) {
  make <- asNamespace("parallelly")$makeNodePSOCK
  formals(make)$rscript <- as.call(list(worker_rscript))
  formals(make)$revtunnel <- NA  # through SSH, but to those on the master
  formals(make)$rshopts <- c("-o", sprintf("ServerAliveInterval=%d", SILENT_SECONDS / 3), "-o", "ServerAliveCountMax=2")
  replace("parallelly", "makeNodePSOCK", make)
  make <- asNamespace("parallelly")$makeClusterPSOCK
  # Each worker's end of its tunnel is a port of its node, one after the other from the cluster's: few may be taken.
  formals(make)$port <- quote(11000:30999)
  replace("parallelly", "makeClusterPSOCK", before(make, bquote(if (is.character(workers)) .(check_nodes)(workers))))
})

# Those that do not answer.
silent <- function(hosts) {
  looks <- sprintf("timeout 9 %s %s true >/dev/null 2>&1 </dev/null || echo %s &", ssh, hosts, hosts)
  if (length(hosts)) system(paste("{", paste(looks, collapse = " "), "wait; }"), intern = TRUE)
}
mend <- "Mend the cluster with %ppe_retry; R's variables are kept"
check_nodes <- function(hosts) {
  lost <- silent(setdiff(intersect(hosts, all_hosts()), Sys.info()[["nodename"]]))
  if (length(lost)) {
    stop("workers cannot be started, since nodes do not answer: ", paste(lost, collapse = ", "), ". ", mend,
         call. = FALSE)
  }
}

stopping <- FALSE
lost <- function(node, error) {
  if (stopping || !grepl("connection", conditionMessage(error))) stop(error)
  info <- node$session_info
  host <- c(info$system$nodename, node$host)[[1L]]
  others <- "start other workers with plan(cluster), registerDoParallel() or makeCluster(), and run this again"
  if (length(silent(intersect(node$host, all_hosts())))) others <- paste0(mend, ". Then ", others)
  stop(sprintf("worker %d on %s was lost%s: %s", node$rank, host,
               if (is.null(info)) "" else sprintf(" (process %d)", info$process$pid), others), call. = FALSE)
}
# By the number of its connection: how many answers a worker owes, and whether to a call that has ended without them.
owed <- new.env()
id_of <- function(con) deparse(attr(con, "conn_id"))  # itself would keep R from closing what nobody uses
debt <- function(con) {
  known <- owed[[as.character(con)]]
  if (identical(known$id, id_of(con))) known else list(id = id_of(con), count = 0L, old = FALSE)
}
owes <- function(con, count, old = FALSE) {
  assign(as.character(con), list(id = id_of(con), count = count, old = old && count > 0L), envir = owed)
}
received <- function(node) {
  now <- debt(node$con)
  owes(node$con, max(0L, now$count - 1L), now$old)
}
given_up <- function(...) for (con in ls(owed)) owed[[con]]$old <- owed[[con]]$count > 0L
setHook("ppe.interrupt", given_up)

STALE_SECONDS <- 2
sending <- function(node, data) {
  if (!is.list(data) || !identical(data$type, "EXEC")) return()  # the end of a worker waits for nothing
  con <- node$con
  while (debt(con)$old) {
    if (!socketSelect(list(con), timeout = STALE_SECONDS)) {
      stop(sprintf(paste("worker %d on %s is still at a task that was stopped: wait for its end, or start other workers",
                         "with plan(cluster), registerDoParallel() or makeCluster()"), node$rank, node$host), call. = FALSE)
    }
    tryCatch(unserialize(con), error = function(e) lost(node, e))
    received(node)
  }
  owes(con, debt(con)$count + 1L)
}

# As it was, but between these calls; an error names the worker.
telling <- function(method, node, first = NULL, then = NULL) {
  body(method) <- bquote({
    ended <- FALSE
    on.exit(if (!ended) .(given_up)())
    .(first)
    value <- tryCatch(.(body(method)), error = function(e) .(lost)(.(node), e))
    .(then)
    ended <- TRUE
    value
  })
  method
}
setHook(packageEvent("parallel", "onLoad"), function(...) {
  ours <- function(name, ...) replace("parallel", name, telling(asNamespace("parallel")[[name]], ...))
  for (kind in c("SOCKnode", "SOCK0node")) {
    ours(paste0("sendData.", kind), quote(node), first = bquote(.(sending)(node, data)))
    ours(paste0("recvData.", kind), quote(node), then = bquote(.(received)(node)))
  }
  ours("recvOneData.SOCKcluster", quote(cl[[n]]), then = bquote(.(received)(cl[[n]])))
  stop_node <- asNamespace("parallel")$stopNode
  replace("parallel", "stopNode", function(n) {
    stopping <<- TRUE
    on.exit(stopping <<- FALSE)
    tryCatch(stop_node(n), error = function(e) try(asNamespace("parallel")$closeNode(n), silent = TRUE))
  })
})

setHook(packageEvent("parallel", "onLoad"), function(...) {
  make <- asNamespace("parallel")$makeCluster
  replace("parallel", "makeCluster", before(make, bquote(
    if (missing(spec) && type == "PSOCK" && requireNamespace("parallelly", quietly = TRUE)) {
      return(parallelly::makeClusterPSOCK(.(all_hosts)(), ...))
    }
  )))
})

setHook(packageEvent("doParallel", "onLoad"), function(...) {
  register <- asNamespace("doParallel")$registerDoParallel
  replace("doParallel", "registerDoParallel", before(register, quote(
    if (missing(cl) && missing(cores)) {
      stopImplicitCluster()
      cl <- parallel::makeCluster()
      registerDoParallel(cl, ...)
      assign(".revoDoParCluster", cl, pos = .options)  # for stopImplicitCluster()
      return(invisible())
    }
  )))
})
