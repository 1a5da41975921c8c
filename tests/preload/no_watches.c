/* A machine on which other programs have taken all of inotify's instances (fs.inotify.max_user_instances). */
#include <errno.h>

int inotify_init1(int flags) {
    (void)flags;
    errno = EMFILE;
    return -1;
}
