/* Lets a rank that waits leave its core to those that compute.
 *
 * A waiting rank of Open MPI polls, and calls sched_yield() whenever it finds nothing (mpi_yield_when_idle). Linux
 * lets it poll on nevertheless: the R session that waits for its workers takes half a core from them, and ranks of
 * nodes that share one machine starve each other. Loaded with LD_PRELOAD, this naps once a wait has lasted for
 * BRIEF_NS; a briefer one is as quick as ever. A nap is at most a thousandth of the wait, or NAP_NS. Compiled by
 * setup.py.
 */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BRIEF_NS = 100000, NAP_NS = 50000, LONG_NAP_NS = 2000000, PART = 1000, WORKED_NS = 50000, AWAY_NS = 5000000 };

static long long ns_of(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

int sched_yield(void) {
  static _Thread_local long long begun, left, left_cpu;
  long long now = ns_of(CLOCK_MONOTONIC), part = (now - begun) / PART;
  /* Not polling in between: a new wait. A machine with too much to do may keep us from polling, too. */
  if (ns_of(CLOCK_THREAD_CPUTIME_ID) - left_cpu > WORKED_NS || now - left > AWAY_NS) begun = now;
  if (now - begun < BRIEF_NS) {
    syscall(SYS_sched_yield);
  } else {
    struct timespec nap = {0, part < NAP_NS ? NAP_NS : part > LONG_NAP_NS ? LONG_NAP_NS : part};
    nanosleep(&nap, 0);
  }
  left = ns_of(CLOCK_MONOTONIC);
  left_cpu = ns_of(CLOCK_THREAD_CPUTIME_ID);
  return 0;
}
