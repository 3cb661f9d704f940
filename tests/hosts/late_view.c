/* The folders of a run's pool as a machine sees them that asks the file server now and then: for LD_PRELOAD.
 *
 * A process sees its own changes at once, and those of others when it has last listed a folder LATE_SECONDS ago or earlier. So with names, and with
 * the logs of others. Each name that is there and not shown is noted in LATE_NOTES. Folders: claims, owed, stop, turns and incarnations, and
 * those in jobs, below LATE_BELOW.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define REAL(function) ((typeof(&function))dlsym(RTLD_NEXT, #function))
enum { FOLDERS = 64, NAMES = 4096, LOGS = 256 };

struct view { char path[1024]; double at; int count; char *names[NAMES]; };
struct stream { DIR *own; struct view *view; int next; struct dirent64 entry; };
struct log { char path[1024]; double at; int copy; int is_own; };
static struct view views[FOLDERS];
static struct stream streams[16];
static struct log logs[LOGS];
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }
static double late(void) { const char *s = getenv("LATE_SECONDS"); return s ? atof(s) : 0; }

static int is_late_folder(const char *path) {
    const char *below = getenv("LATE_BELOW");
    if (!below || !path || strncmp(path, below, strlen(below))) return 0;
    const char *last = strrchr(path, '/');
    if (!last || last == path) return 0;
    static const char *const known[] = {"claims", "owed", "stop", "turns", "incarnations"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) if (!strcmp(last + 1, known[i])) return 1;
    return last - path > 5 && !strncmp(last - 5, "/jobs", 5);
}

static void add(struct view *view, const char *name) {
    for (int i = 0; i < view->count; i++) if (!strcmp(view->names[i], name)) return;
    if (view->count < NAMES) view->names[view->count++] = strdup(name);
}

static void drop(struct view *view, const char *name) {
    for (int i = 0; i < view->count; i++)
        if (!strcmp(view->names[i], name)) { free(view->names[i]); view->names[i] = view->names[--view->count]; return; }
}

static int has(const struct view *view, const char *name) {
    for (int i = 0; i < view->count; i++) if (!strcmp(view->names[i], name)) return 1;
    return 0;
}

/* What is seen of a folder now; NULL if all of it is. */
static struct view *seen(const char *path) {
    if (!is_late_folder(path)) return NULL;
    struct view *view = NULL;
    for (int i = 0; i < FOLDERS && !view; i++) if (!views[i].path[0] || !strcmp(views[i].path, path)) view = &views[i];
    if (!view) return NULL;
    int is_stale = view->path[0] && now() - view->at >= late();
    if (view->path[0] && !is_stale) return view;
    DIR *folder = REAL(opendir)(path);
    if (!folder) return NULL;
    while (view->count) free(view->names[--view->count]);
    snprintf(view->path, sizeof view->path, "%s", path);
    view->at = now();
    for (struct dirent64 *entry; (entry = REAL(readdir64)(folder));) add(view, entry->d_name);
    REAL(closedir)(folder);
    return view;
}

static struct view *parent(const char *path, const char **name) {
    char folder[1024];
    const char *last = path ? strrchr(path, '/') : NULL;
    if (!last || (size_t)(last - path) >= sizeof folder) return NULL;
    memcpy(folder, path, last - path); folder[last - path] = 0;
    *name = last + 1;
    return seen(folder);
}

static void made(const char *path) { const char *name; pthread_mutex_lock(&lock); struct view *view = parent(path, &name); if (view) add(view, name); pthread_mutex_unlock(&lock); }
static void gone(const char *path) { const char *name; pthread_mutex_lock(&lock); struct view *view = parent(path, &name); if (view) drop(view, name); pthread_mutex_unlock(&lock); }

static void note(const char *path) {
    const char *notes = getenv("LATE_NOTES");
    int fd = notes ? REAL(open)(notes, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (fd >= 0) { dprintf(fd, "%s\n", path); close(fd); }
}

static int is_hidden(const char *path) {
    const char *name; struct stat found;
    pthread_mutex_lock(&lock);
    struct view *view = parent(path, &name);
    int hidden = view && !has(view, name) && name[0] != '.';
    pthread_mutex_unlock(&lock);
    if (hidden && !REAL(lstat)(path, &found)) note(path);
    return hidden;
}

/* The log of an incarnation, as it was when it was last asked for; -1 if it is shown as it is. */
static int old_log(const char *path, int flags) {
    const char *below = getenv("LATE_BELOW"), *at = path ? strstr(path, "/incarnations/") : NULL, *last = path ? strrchr(path, '/') : NULL;
    if (!below || !at || strncmp(path, below, strlen(below)) || strcmp(last, "/log")) return -1;
    struct log *log = NULL;
    int copy = -1;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < LOGS && !log; i++) if (!logs[i].path[0] || !strcmp(logs[i].path, path)) log = &logs[i];
    if (log && !log->path[0]) { snprintf(log->path, sizeof log->path, "%s", path); log->copy = -1; }
    if (log && (flags & O_ACCMODE) != O_RDONLY) log->is_own = 1;
    if (log && !log->is_own) {
        if (log->copy < 0 || now() - log->at >= late()) {
            struct stat size; int fd = REAL(open)(path, O_RDONLY | O_CLOEXEC);
            if (fd >= 0 && !fstat(fd, &size)) {
                if (log->copy >= 0) close(log->copy);
                log->copy = memfd_create("log", MFD_CLOEXEC); log->at = now();
                for (off_t left = size.st_size; left > 0;) { ssize_t n = sendfile(log->copy, fd, NULL, left); if (n <= 0) break; left -= n; }
            }
            if (fd >= 0) close(fd);
        }
        if (log->copy >= 0) { char own[64]; snprintf(own, sizeof own, "/proc/self/fd/%d", log->copy); copy = REAL(open)(own, O_RDONLY | O_CLOEXEC); }
    }
    pthread_mutex_unlock(&lock);
    return copy;
}

static int opened(int (*real)(const char *, int, ...), const char *path, int flags, mode_t mode) {
    int copy = old_log(path, flags);
    if (copy >= 0) return copy;
    if (!(flags & O_CREAT) && is_hidden(path)) { errno = ENOENT; return -1; }
    int fd = real(path, flags, mode);
    if (fd >= 0 && flags & O_CREAT) made(path);
    return fd;
}

#define MODE va_list rest; va_start(rest, flags); mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; va_end(rest)
int open(const char *path, int flags, ...) { MODE; return opened(REAL(open), path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE; return opened(REAL(open64), path, flags, mode); }
int stat(const char *path, struct stat *found) { if (is_hidden(path)) { errno = ENOENT; return -1; } return REAL(stat)(path, found); }
int stat64(const char *path, struct stat64 *found) { if (is_hidden(path)) { errno = ENOENT; return -1; } return REAL(stat64)(path, found); }
int lstat(const char *path, struct stat *found) { if (is_hidden(path)) { errno = ENOENT; return -1; } return REAL(lstat)(path, found); }
int lstat64(const char *path, struct stat64 *found) { if (is_hidden(path)) { errno = ENOENT; return -1; } return REAL(lstat64)(path, found); }
int mkdir(const char *path, mode_t mode) { int done = REAL(mkdir)(path, mode); if (!done) made(path); return done; }
int unlink(const char *path) { int done = REAL(unlink)(path); if (!done) gone(path); return done; }
int rename(const char *path, const char *other) { int done = REAL(rename)(path, other); if (!done) { gone(path); made(other); } return done; }
int link(const char *path, const char *other) { int done = REAL(link)(path, other); if (!done) made(other); return done; }
int linkat(int from, const char *path, int to, const char *other, int flags) { int done = REAL(linkat)(from, path, to, other, flags); if (!done) made(other); return done; }

DIR *opendir(const char *path) {
    DIR *own = REAL(opendir)(path);
    if (!own) return NULL;
    pthread_mutex_lock(&lock);
    struct view *view = seen(path);
    for (int i = 0; view && i < 16; i++) if (!streams[i].own) { streams[i] = (struct stream){.own = own, .view = view}; break; }
    pthread_mutex_unlock(&lock);
    return own;
}

static struct stream *stream_of(DIR *own) { for (int i = 0; i < 16; i++) if (streams[i].own == own) return &streams[i]; return NULL; }

struct dirent64 *readdir64(DIR *own) {
    struct stream *stream = stream_of(own);
    if (!stream) return REAL(readdir64)(own);
    if (stream->next >= stream->view->count) return NULL;
    memset(&stream->entry, 0, sizeof stream->entry);
    snprintf(stream->entry.d_name, sizeof stream->entry.d_name, "%s", stream->view->names[stream->next++]);
    return &stream->entry;
}

struct dirent *readdir(DIR *own) { return (struct dirent *)readdir64(own); }
int closedir(DIR *own) { struct stream *stream = stream_of(own); if (stream) stream->own = NULL; return REAL(closedir)(own); }
