/* Rmpi's blocking MPI calls, in a form that can be interrupted.
 *
 * An MPI call that waits is deaf: R's interrupt stays pending until it returns, and it never returns once a worker is
 * lost. Preloaded into R with patience.c, this makes of each such call one that polls, and looks in between whether R
 * was interrupted, or whether the agent has written into $PPE_RUN/lost which worker is lost (an R error then). R's
 * jump happens here, outside of Open MPI. What is abandoned so is never touched again: data travels in private copies,
 * which are leaked with their requests; the communicator is leaked too when Rmpi frees it.
 *
 * - The session is the process that PPE_SESSION names: its children, which inherit the environment, are left alone.
 * - A collective call must be made in the same form by all: only those of communicators that are merged from the
 *   session and workers that it spawned with PPE_WORKER set (Rprofile.site), which are preloaded with this too.
 * - Only calls that come from Rmpi may end in a jump.
 *
 * libmpi and libR are looked up when they are there: this is loaded into shells and other programs too.
 */
#define _GNU_SOURCE
#if __has_include(<mpi.h>)
#include <dlfcn.h>
#include <fcntl.h>
#include <mpi.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { KNOWN = 64, EAGER_BYTES = 4096, LOOK_NS = 100000000, MESSAGE_BYTES = 1024 };

static void *symbol(const char *name) {
  void *found = dlsym(RTLD_DEFAULT, name);
  if (!found) { /* loaded, but for one library only */
    void *mpi = dlopen("libmpi.so.40", RTLD_LAZY | RTLD_NOLOAD | RTLD_GLOBAL);
    if (mpi) found = dlsym(mpi, name);
  }
  return found;
}

/* REAL(MPI_Send) is Open MPI's own. */
#define REAL(call) ({ \
  static __typeof__(&call) real; \
  if (!real) real = (__typeof__(&call))symbol("P" #call); \
  real; })

/* --- Communicators: which are the session's with its workers, which were abandoned */

typedef struct { MPI_Comm comm[KNOWN]; int n; } Set;
static Set spawned, ours, abandoned;

static int has(const Set *set, MPI_Comm comm) {
  for (int i = 0; i < set->n; i++) if (set->comm[i] == comm) return 1;
  return 0;
}
static int add(Set *set, MPI_Comm comm) {
  if (has(set, comm) || set->n == KNOWN) return 0;
  set->comm[set->n++] = comm;
  return 1;
}
static void drop(Set *set, MPI_Comm comm) {
  for (int i = 0; i < set->n; i++) if (set->comm[i] == comm) set->comm[i--] = set->comm[--set->n];
}

static int in_session(void) {
  static int is = -1;
  if (is < 0) is = getenv("PPE_SESSION") && atoi(getenv("PPE_SESSION")) == getpid();
  return is;
}

/* For Rprofile.site: its number in Fortran is all that R can know of a communicator. */
void ppe_abandon(int *fortran) { add(&abandoned, REAL(MPI_Comm_f2c)(*fortran)); }
/* For lapply.R, whose messages are point to point: the other workers are there. */
void ppe_resume(int *fortran) { drop(&abandoned, REAL(MPI_Comm_f2c)(*fortran)); }
void ppe_is_abandoned(int *fortran) { *fortran = has(&abandoned, REAL(MPI_Comm_f2c)(*fortran)); }

/* --- What R knows */

static int *pending, *suspended;
static void (*check)(void), (*r_error)(const char *, ...), (*save_and_quit)(int);

static int r_is_here(void) {
  if (!check) {
    pending = dlsym(RTLD_DEFAULT, "R_interrupts_pending");
    suspended = dlsym(RTLD_DEFAULT, "R_interrupts_suspended");
    check = (void (*)(void))dlsym(RTLD_DEFAULT, "R_CheckUserInterrupt");
    r_error = (void (*)(const char *, ...))dlsym(RTLD_DEFAULT, "Rf_error");
  }
  return pending && suspended && check && r_error;
}

/* An interrupt that is pending would end the saving of the workspace, which the agent wants, in the middle; and R can
 * save on its own thread only, while the signal may come to one of OpenBLAS's. */
static void save_undisturbed(int number) {
  if (syscall(SYS_gettid) != getpid()) {
    syscall(SYS_tgkill, getpid(), getpid(), number);
    return;
  }
  if (*suspended) return;
  *pending = 0;
  save_and_quit(number);
}

/* R makes an error of SIGPIPE, wherever it is: a write to a worker that was just lost would leave Open MPI half-way.
 * There it is to be an error of the write only. */
static volatile sig_atomic_t in_mpi;
static void leave_mpi(int *before) { in_mpi = *before; }
#define IN_MPI __attribute__((cleanup(leave_mpi), unused)) int before = in_mpi; in_mpi = 1

static void broken_pipe(int number) {
  if (in_mpi || syscall(SYS_gettid) != getpid()) return;
  r_error("ignoring SIGPIPE signal");
}

void ppe_guard_signals(void) {
  if (!r_is_here()) return;
  save_and_quit = signal(SIGUSR1, save_undisturbed);
  struct sigaction action = {.sa_handler = broken_pipe, .sa_flags = SA_NODEFER | SA_RESTART};
  sigaction(SIGPIPE, &action, 0);
}

/* --- Waiting */

static int from_rmpi(void *caller) {
  Dl_info info;
  return dladdr(caller, &info) && info.dli_fname && strstr(info.dli_fname, "/Rmpi.so");
}

static void abandon(MPI_Comm comm) {
  if (comm) add(&abandoned, comm);
  else for (int i = 0; i < ours.n; i++) add(&abandoned, ours.comm[i]);
}

static void look_for_lost(MPI_Comm comm, void *caller) {
  static long long next;
  static char path[4096], message[MESSAGE_BYTES];
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  if (now.tv_sec * 1000000000LL + now.tv_nsec < next) return;
  next = now.tv_sec * 1000000000LL + now.tv_nsec + LOOK_NS;
  if (!path[0]) {
    const char *run = getenv("PPE_RUN");
    if (!run || strlen(run) > sizeof path - 8) return;
    strcat(strcpy(path, run), "/lost");
  }
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  ssize_t n = read(file, message, sizeof message - 1);
  close(file);
  if (n <= 0 || !from_rmpi(caller)) return;
  message[n] = 0;
  unlink(path);
  abandon(comm);
  r_error("%s", message);
}

static void look_at_r(MPI_Comm comm, void *caller) {
  if (!r_is_here() || *suspended) return;
  if (comm && has(&abandoned, comm) && from_rmpi(caller))
    r_error("the workers of this communicator were interrupted or lost; they are replaced when this cell has ended");
  if (*pending && from_rmpi(caller)) {
    int new = comm && add(&abandoned, comm);
    check();
    if (new) drop(&abandoned, comm); /* R was told to go on */
  }
  look_for_lost(comm, caller);
}
/* Does not return if R is interrupted or a worker is lost. */
static void look(MPI_Comm comm, void *caller) {
  in_mpi = 0;
  look_at_r(comm, caller);
  in_mpi = 1;
}

static int wait_for(MPI_Request *request, MPI_Status *status, MPI_Comm comm, void *caller) {
  for (int done = 0;;) {
    int code = REAL(MPI_Test)(request, &done, status);
    if (code != MPI_SUCCESS || done) return code;
    look(comm, caller);
  }
}

/* --- Private copies of what a call reads and writes; leaked with a call that is abandoned */

typedef struct Copy { struct Copy *next; void *user; size_t bytes; char data[]; } Copy;

static long long span(long long count, MPI_Datatype type) {
  MPI_Aint low, extent;
  int size;
  REAL(MPI_Type_get_extent)(type, &low, &extent);
  REAL(MPI_Type_size)(type, &size);
  return low == 0 && extent == size && count >= 0 ? count * size : -1;
}
static int members(MPI_Comm comm) {
  int n = 0;
  REAL(MPI_Comm_size)(comm, &n);
  return n;
}
static int is_root(int root, MPI_Comm comm) {
  int rank = -1;
  REAL(MPI_Comm_rank)(comm, &rank);
  return rank == root;
}
static long long total(const int *counts, const int *displacements, MPI_Datatype type, MPI_Comm comm) {
  long long most = 0;
  for (int i = 0; i < members(comm); i++) {
    long long end = (long long)displacements[i] + counts[i];
    if (end > most) most = end;
  }
  return span(most, type);
}

/* The copy; what was given, where there is none to be made. `failed` is set if there is no memory for it. */
static void *copied(Copy **copies, const void *user, long long bytes, int written, int *failed) {
  if (!user || user == MPI_IN_PLACE || !bytes) return (void *)user;
  Copy *copy = bytes < 0 ? 0 : malloc(sizeof(Copy) + bytes);
  if (!copy) {
    *failed = 1;
    return (void *)user;
  }
  copy->next = *copies;
  copy->user = written ? (void *)user : 0;
  copy->bytes = bytes;
  *copies = copy;
  return memcpy(copy->data, user, bytes);
}

static void end_copies(Copy *copies, int write) {
  for (Copy *next; copies; copies = next) {
    next = copies->next;
    if (write && copies->user) memcpy(copies->user, copies->data, copies->bytes);
    free(copies);
  }
}

/* --- Point to point: any of the session's */

int MPI_Probe(int source, int tag, MPI_Comm comm, MPI_Status *status) {
  IN_MPI;
  void *caller = __builtin_return_address(0);
  if (!in_session()) return REAL(MPI_Probe)(source, tag, comm, status);
  for (int there = 0;;) {
    int code = REAL(MPI_Iprobe)(source, tag, comm, &there, status);
    if (code != MPI_SUCCESS || there) return code;
    look(comm, caller);
  }
}

int MPI_Iprobe(int source, int tag, MPI_Comm comm, int *there, MPI_Status *status) {
  IN_MPI;
  int code = REAL(MPI_Iprobe)(source, tag, comm, there, status);
  if (in_session() && code == MPI_SUCCESS && !*there) look(comm, __builtin_return_address(0));
  return code;
}

static int receive(void *data, int count, MPI_Datatype type, int source, int tag, MPI_Comm comm,
                   MPI_Status *status, void *caller) {
  MPI_Status coming;
  MPI_Request request;
  Copy *copies = 0;
  int code, there = 0, failed = 0;
  while (!there) { /* nothing is begun that would have to be cancelled */
    code = REAL(MPI_Iprobe)(source, tag, comm, &there, &coming);
    if (code != MPI_SUCCESS) return code;
    if (!there) look(comm, caller);
  }
  if (source != MPI_PROC_NULL) source = coming.MPI_SOURCE, tag = coming.MPI_TAG;
  long long bytes = span(count, type);
  void *own = bytes <= EAGER_BYTES ? data : copied(&copies, data, bytes, 1, &failed);
  code = REAL(MPI_Irecv)(own, count, type, source, tag, comm, &request);
  if (code == MPI_SUCCESS)
    code = copies ? wait_for(&request, status, comm, caller) : REAL(MPI_Wait)(&request, status);
  end_copies(copies, code == MPI_SUCCESS);
  return code;
}

int MPI_Recv(void *data, int count, MPI_Datatype type, int source, int tag, MPI_Comm comm, MPI_Status *status) {
  IN_MPI;
  if (!in_session()) return REAL(MPI_Recv)(data, count, type, source, tag, comm, status);
  return receive(data, count, type, source, tag, comm, status, __builtin_return_address(0));
}

/* Begins to send a copy, which `end_copies` frees. */
static int begin_to_send(const void *data, int count, MPI_Datatype type, int dest, int tag, MPI_Comm comm,
                         Copy **copies, MPI_Request *request, int *failed) {
  void *own = copied(copies, data, span(count, type), 0, failed);
  return *failed ? MPI_SUCCESS : REAL(MPI_Isend)(own, count, type, dest, tag, comm, request);
}

int MPI_Send(const void *data, int count, MPI_Datatype type, int dest, int tag, MPI_Comm comm) {
  IN_MPI;
  Copy *copies = 0;
  MPI_Request request;
  int failed = 0;
  if (!in_session()) return REAL(MPI_Send)(data, count, type, dest, tag, comm);
  int code = begin_to_send(data, count, type, dest, tag, comm, &copies, &request, &failed);
  if (failed) return REAL(MPI_Send)(data, count, type, dest, tag, comm);
  if (code == MPI_SUCCESS) code = wait_for(&request, MPI_STATUS_IGNORE, comm, __builtin_return_address(0));
  end_copies(copies, 0);
  return code;
}

static int exchange(const void *send, int send_count, MPI_Datatype send_type, int dest, int send_tag, void *data,
                    int count, MPI_Datatype type, int source, int tag, MPI_Comm comm, MPI_Status *status,
                    void *caller, int *failed) {
  Copy *copies = 0;
  MPI_Request request;
  int code = begin_to_send(send, send_count, send_type, dest, send_tag, comm, &copies, &request, failed);
  if (*failed || code != MPI_SUCCESS) return code;
  code = receive(data, count, type, source, tag, comm, status, caller);
  if (code == MPI_SUCCESS) code = wait_for(&request, MPI_STATUS_IGNORE, comm, caller);
  end_copies(copies, 0);
  return code;
}

int MPI_Sendrecv(const void *send, int send_count, MPI_Datatype send_type, int dest, int send_tag, void *data,
                 int count, MPI_Datatype type, int source, int tag, MPI_Comm comm, MPI_Status *status) {
  IN_MPI;
  int failed = !in_session(), code = MPI_SUCCESS;
  if (!failed)
    code = exchange(send, send_count, send_type, dest, send_tag, data, count, type, source, tag, comm, status,
                    __builtin_return_address(0), &failed);
  return failed ? REAL(MPI_Sendrecv)(send, send_count, send_type, dest, send_tag, data, count, type, source, tag,
                                     comm, status) : code;
}

int MPI_Sendrecv_replace(void *data, int count, MPI_Datatype type, int dest, int send_tag, int source, int tag,
                         MPI_Comm comm, MPI_Status *status) {
  IN_MPI;
  int failed = !in_session(), code = MPI_SUCCESS;
  if (!failed)
    code = exchange(data, count, type, dest, send_tag, data, count, type, source, tag, comm, status,
                    __builtin_return_address(0), &failed);
  return failed ? REAL(MPI_Sendrecv_replace)(data, count, type, dest, send_tag, source, tag, comm, status) : code;
}

/* --- Requests of the user's own: they stay his */

#define POLLED(real, test) \
  IN_MPI; \
  void *caller = __builtin_return_address(0); \
  if (!in_session()) return real; \
  for (int done = 0;;) { \
    int code = test; \
    if (code != MPI_SUCCESS || done) return code; \
    look(0, caller); \
  }

int MPI_Wait(MPI_Request *request, MPI_Status *status) {
  POLLED(REAL(MPI_Wait)(request, status), REAL(MPI_Test)(request, &done, status))
}
int MPI_Waitall(int n, MPI_Request requests[], MPI_Status statuses[]) {
  POLLED(REAL(MPI_Waitall)(n, requests, statuses), REAL(MPI_Testall)(n, requests, &done, statuses))
}
int MPI_Waitany(int n, MPI_Request requests[], int *index, MPI_Status *status) {
  POLLED(REAL(MPI_Waitany)(n, requests, index, status), REAL(MPI_Testany)(n, requests, index, &done, status))
}
int MPI_Waitsome(int n, MPI_Request requests[], int *ended, int indices[], MPI_Status statuses[]) {
  POLLED(REAL(MPI_Waitsome)(n, requests, ended, indices, statuses),
         (REAL(MPI_Testsome)(n, requests, ended, indices, statuses) + 0 * (done = *ended != 0)))
}

/* --- Collective */

/* `begin` begins the call on `request`, with buffers that IN and OUT have copied; a worker waits for it plainly. */
#define COLLECTIVE(real, begin) \
  IN_MPI; \
  Copy *copies = 0; \
  MPI_Request request; \
  int failed = 0, session = in_session(), code; \
  if (!has(&ours, comm)) return real; \
  code = begin; \
  if (code == MPI_SUCCESS) \
    code = session && !failed ? wait_for(&request, MPI_STATUS_IGNORE, comm, __builtin_return_address(0)) \
                              : REAL(MPI_Wait)(&request, MPI_STATUS_IGNORE); \
  end_copies(copies, code == MPI_SUCCESS); \
  return code;
#define IN(data, bytes) (session ? copied(&copies, data, bytes, 0, &failed) : (void *)(data))
#define OUT(data, bytes) (session ? copied(&copies, data, bytes, 1, &failed) : (void *)(data))
#define INTS(numbers) ((int *)IN(numbers, (long long)sizeof(int) * members(comm)))

int MPI_Barrier(MPI_Comm comm) {
  COLLECTIVE(REAL(MPI_Barrier)(comm), REAL(MPI_Ibarrier)(comm, &request))
}
int MPI_Bcast(void *data, int n, MPI_Datatype type, int root, MPI_Comm comm) {
  COLLECTIVE(REAL(MPI_Bcast)(data, n, type, root, comm),
             REAL(MPI_Ibcast)(OUT(data, span(n, type)), n, type, root, comm, &request))
}
int MPI_Reduce(const void *in, void *out, int n, MPI_Datatype type, MPI_Op op, int root, MPI_Comm comm) {
  COLLECTIVE(REAL(MPI_Reduce)(in, out, n, type, op, root, comm),
             REAL(MPI_Ireduce)(IN(in, span(n, type)), OUT(out, span(n, type)), n, type, op, root, comm, &request))
}
int MPI_Allreduce(const void *in, void *out, int n, MPI_Datatype type, MPI_Op op, MPI_Comm comm) {
  COLLECTIVE(REAL(MPI_Allreduce)(in, out, n, type, op, comm),
             REAL(MPI_Iallreduce)(IN(in, span(n, type)), OUT(out, span(n, type)), n, type, op, comm, &request))
}
int MPI_Gather(const void *in, int n, MPI_Datatype type, void *out, int m, MPI_Datatype to, int root,
               MPI_Comm comm) {
  long long bytes = is_root(root, comm) ? span((long long)m * members(comm), to) : 0;
  COLLECTIVE(REAL(MPI_Gather)(in, n, type, out, m, to, root, comm),
             REAL(MPI_Igather)(IN(in, span(n, type)), n, type, OUT(out, bytes), m, to, root, comm, &request))
}
int MPI_Gatherv(const void *in, int n, MPI_Datatype type, void *out, const int *m, const int *at, MPI_Datatype to,
                int root, MPI_Comm comm) {
  int rooted = is_root(root, comm);
  COLLECTIVE(REAL(MPI_Gatherv)(in, n, type, out, m, at, to, root, comm),
             REAL(MPI_Igatherv)(IN(in, span(n, type)), n, type, OUT(out, rooted ? total(m, at, to, comm) : 0),
                                rooted ? INTS(m) : m, rooted ? INTS(at) : at, to, root, comm, &request))
}
int MPI_Scatter(const void *in, int n, MPI_Datatype type, void *out, int m, MPI_Datatype to, int root,
                MPI_Comm comm) {
  long long bytes = is_root(root, comm) ? span((long long)n * members(comm), type) : 0;
  COLLECTIVE(REAL(MPI_Scatter)(in, n, type, out, m, to, root, comm),
             REAL(MPI_Iscatter)(IN(in, bytes), n, type, OUT(out, span(m, to)), m, to, root, comm, &request))
}
int MPI_Scatterv(const void *in, const int *n, const int *at, MPI_Datatype type, void *out, int m, MPI_Datatype to,
                 int root, MPI_Comm comm) {
  int rooted = is_root(root, comm);
  COLLECTIVE(REAL(MPI_Scatterv)(in, n, at, type, out, m, to, root, comm),
             REAL(MPI_Iscatterv)(IN(in, rooted ? total(n, at, type, comm) : 0), rooted ? INTS(n) : n,
                                 rooted ? INTS(at) : at, type, OUT(out, span(m, to)), m, to, root, comm, &request))
}
int MPI_Allgather(const void *in, int n, MPI_Datatype type, void *out, int m, MPI_Datatype to, MPI_Comm comm) {
  COLLECTIVE(REAL(MPI_Allgather)(in, n, type, out, m, to, comm),
             REAL(MPI_Iallgather)(IN(in, span(n, type)), n, type, OUT(out, span((long long)m * members(comm), to)),
                                  m, to, comm, &request))
}
int MPI_Allgatherv(const void *in, int n, MPI_Datatype type, void *out, const int *m, const int *at,
                   MPI_Datatype to, MPI_Comm comm) {
  COLLECTIVE(REAL(MPI_Allgatherv)(in, n, type, out, m, at, to, comm),
             REAL(MPI_Iallgatherv)(IN(in, span(n, type)), n, type, OUT(out, total(m, at, to, comm)), INTS(m),
                                   INTS(at), to, comm, &request))
}

/* --- Whose communicators these are */

int MPI_Comm_spawn(const char *command, char *arguments[], int n, MPI_Info info, int root, MPI_Comm comm,
                   MPI_Comm *workers, int errors[]) {
  IN_MPI;
  char environment[MESSAGE_BYTES];
  int found = 0;
  int code = REAL(MPI_Comm_spawn)(command, arguments, n, info, root, comm, workers, errors);
  if (in_session() && code == MPI_SUCCESS && info != symbol("ompi_mpi_info_null"))
    REAL(MPI_Info_get)(info, "env", sizeof environment - 1, environment, &found);
  if (found && strstr(environment, "PPE_WORKER")) add(&spawned, *workers);
  return code;
}

int MPI_Intercomm_merge(MPI_Comm workers, int high, MPI_Comm *merged) {
  IN_MPI;
  int code = REAL(MPI_Intercomm_merge)(workers, high, merged);
  MPI_Comm parent = 0;
  if (!in_session() && getenv("PPE_WORKER")) REAL(MPI_Comm_get_parent)(&parent);
  if (code == MPI_SUCCESS && (has(&spawned, workers) || parent == workers)) add(&ours, *merged);
  return code;
}

int MPI_Comm_free(MPI_Comm *comm) {
  IN_MPI;
  int leak = has(&abandoned, *comm);
  drop(&spawned, *comm);
  drop(&ours, *comm);
  drop(&abandoned, *comm);
  if (!leak) return REAL(MPI_Comm_free)(comm);
  *comm = symbol("ompi_mpi_comm_null");
  return MPI_SUCCESS;
}
#endif
