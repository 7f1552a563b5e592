# All slots of the cluster for future, foreach and parallel: what they start without an argument are PSOCK workers on
# every node, started over its own SSH. Rprofile.site loads this on the master, into its own environment.
#
# - The slots are those of ~/ompi-hostfile at the moment of the call, so that a grown cluster's are found.
# - Workers connect back to the master directly, to a port from 11000 to 11999 that is open as long as they start: only
#   members of the cluster reach it. Their data go over that plain connection; through SSH each would need a process.
# - One thread each, as Rmpi's workers have; what the session has from mpirun, or from us, is not for them.
#
# Only defaults change: makeCluster(2), plan(multisession) and their like mean what they mean elsewhere.

all_hosts <- function() {
  lines <- readLines(path.expand("~/ompi-hostfile"), warn = FALSE)
  rep(sub(" .*", "", lines), as.integer(sub(".*slots=", "", lines)))
}
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
  formals(make)$revtunnel <- FALSE
  replace("parallelly", "makeNodePSOCK", make)
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
