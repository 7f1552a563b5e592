# Where install.packages() finds packages, and where it puts them. Rprofile.site loads this into its own environment.
#
# - Packages come from CRAN as it was when this R was current, or from what /etc/ppe/cran says.
# - They go into a library of the user's own, which is made, so that nobody is asked.
# - share() copies that to the other nodes, if it was changed since. All that starts R there calls it first, packages
#   that are not ours by getHook("ppe.packages")[[1]]().

# The days before the next R's: CRAN's src/base/R-4, as in the images of rocker-org/rocker-versioned2.
last_days <- c("4.0" = "2021-05-17", "4.1" = "2022-04-21", "4.2" = "2023-04-20", "4.3" = "2024-04-23",
               "4.4" = "2025-04-10")
day <- last_days[sub("[.][^.]*$", "", as.character(getRversion()))]
cran <- paste0("https://packagemanager.posit.co/cran/", if (is.na(day)) "latest" else day)
if (file.exists("/etc/ppe/cran")) cran <- readLines("/etc/ppe/cran", n = 1)
repositories <- getOption("repos")
repositories[["CRAN"]] <- cran
options(repos = repositories)
own <- path.expand(sub(":.*", "", Sys.getenv("R_LIBS_USER")))
if (!own %in% c("", "NULL") && !dir.exists(own) && all(file.access(.Library.site, 2) != 0) &&
    (dir.create(own, FALSE, TRUE) || dir.exists(own))) .libPaths(c(own, .libPaths()))

# Copies to the other nodes what was installed since (own_packages.py).
shared <- path.expand("~/.ppe/own-packages.json")
tried <- list(newest = 0, until = 0)
share <- function() {
  if (!file.exists("~/ompi-hostfile")) return(invisible())  # no master
  libraries <- Sys.glob("~/R/*-library/*")
  found <- c(libraries, list.files(libraries, full.names = TRUE))
  since <- if (file.exists(shared)) as.numeric(file.mtime(shared)) else 0
  if (!length(found) || length(found) == length(libraries) && since == 0) return(invisible())
  newest <- max(as.numeric(file.info(found, extra_cols = FALSE)$ctime), na.rm = TRUE)
  # A node that does not answer is asked again later, not for each worker.
  if (newest <= since || newest == tried$newest && as.numeric(Sys.time()) < tried$until) return(invisible())
  on.exit(tried <<- list(newest = newest, until = as.numeric(Sys.time()) + 30))
  for (line in system("exec python3 ~/.ppe/node own_packages", intern = TRUE)) {
    if (startsWith(line, "!")) warning(substring(line, 2), call. = FALSE, immediate. = TRUE) else message(line)
  }
}
setHook("ppe.packages", share)
