/* Calls of the C library that write, in front of the real ones: the n-th below a folder goes wrong.

   cc -shared -fPIC -O1 -o faults.so faults.c -ldl; LD_PRELOAD=faults.so python ...

   Every writer passes here, whatever it is written in: Python, HDF5, a library of images. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SHORT = 1000, VANISH = 1001 }; /* beside errno values */

static char folder[PATH_MAX], away[PATH_MAX];
static long count, wanted;
static int kind, sticky, armed;
static char own[4096]; /* by descriptor */

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

/* From now on the `n`-th call goes wrong (0: none), and with `lasting` all after it. */
void fault_arm(const char *where, long n, int what, int lasting) {
  snprintf(folder, sizeof folder, "%s", where);
  snprintf(away, sizeof away, "%s.away", where);
  memset(own, 0, sizeof own);
  count = 0, wanted = n, kind = what, sticky = lasting, armed = 1;
}

long fault_count(void) { return count; }

static int below(const char *path) {
  if (!armed) return 0;
  size_t length = strlen(folder);
  if (path[0] == '/') return !strncmp(path, folder, length) && path[length] == '/';
  char here[PATH_MAX];
  return getcwd(here, sizeof here) && !strncmp(here, folder, length);
}

/* Whether this call is one to go wrong; sets errno. */
static int wrong(int may_be_short) {
  long now = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
  if (!wanted || (sticky ? now < wanted : now != wanted)) return 0;
  if (kind == VANISH) {
    if (now == wanted) REAL(rename)(folder, away);
    return 0; /* the system says the rest */
  }
  if (kind == SHORT) return may_be_short ? SHORT : 0;
  errno = kind;
  return 1;
}

static int ours(int fd) { return armed && fd >= 0 && fd < (int)sizeof own && own[fd]; }

#define OPEN(name, parameters, call, path)                                                    \
  int name parameters {                                                                       \
    mode_t mode = 0;                                                                          \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                      \
      va_list rest;                                                                           \
      va_start(rest, flags);                                                                  \
      mode = va_arg(rest, mode_t);                                                            \
      va_end(rest);                                                                           \
    }                                                                                         \
    int writes = (flags & O_ACCMODE) != O_RDONLY && below(path);                              \
    if (writes && wrong(0)) return -1;                                                        \
    int fd = REAL(name) call;                                                                 \
    if (fd >= 0 && fd < (int)sizeof own) own[fd] = (char)writes;                              \
    return fd;                                                                                \
  }

OPEN(open, (const char *path, int flags, ...), (path, flags, mode), path)
OPEN(open64, (const char *path, int flags, ...), (path, flags, mode), path)
OPEN(openat, (int at, const char *path, int flags, ...), (at, path, flags, mode), path)
OPEN(openat64, (int at, const char *path, int flags, ...), (at, path, flags, mode), path)

#define WRITE(name, parameters, whole, half)                                                  \
  ssize_t name parameters {                                                                   \
    if (ours(fd)) {                                                                           \
      int what = wrong(size > 1);                                                             \
      if (what == SHORT) return REAL(name) half;                                              \
      if (what) return -1;                                                                    \
    }                                                                                         \
    return REAL(name) whole;                                                                  \
  }

WRITE(write, (int fd, const void *data, size_t size), (fd, data, size), (fd, data, size / 2))
WRITE(pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at),
      (fd, data, size / 2, at))
WRITE(pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at),
      (fd, data, size / 2, at))
WRITE(writev, (int fd, const struct iovec *data, int size), (fd, data, size), (fd, data, size / 2))

#define ON_FILE(name, parameters, call)                                                       \
  int name parameters { return ours(fd) && wrong(0) ? -1 : REAL(name) call; }

ON_FILE(fsync, (int fd), (fd))
ON_FILE(fdatasync, (int fd), (fd))
ON_FILE(ftruncate, (int fd, off_t size), (fd, size))
ON_FILE(ftruncate64, (int fd, off64_t size), (fd, size))
ON_FILE(fchmod, (int fd, mode_t mode), (fd, mode))
ON_FILE(fchown, (int fd, uid_t user, gid_t group), (fd, user, group))

int close(int fd) { /* the descriptor is gone, whatever is said */
  int bad = ours(fd) && wrong(0), error = errno;
  if (fd >= 0 && fd < (int)sizeof own) own[fd] = 0;
  int done = REAL(close)(fd);
  if (!bad) return done;
  errno = error;
  return -1;
}

#define ON_PATH(name, parameters, call, path)                                                 \
  int name parameters { return below(path) && wrong(0) ? -1 : REAL(name) call; }

ON_PATH(rename, (const char *from, const char *to), (from, to), to)

int unlink(const char *path) { /* what takes no space needs none */
  int full = kind == ENOSPC || kind == EDQUOT;
  return below(path) && wrong(0) && !full ? -1 : REAL(unlink)(path);
}

ON_PATH(mkdir, (const char *path, mode_t mode), (path, mode), path)
