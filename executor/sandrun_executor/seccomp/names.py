"""System calls by name: allowed, refused with EPERM, or ignored; all others return ENOSYS.

Calls that depend on their arguments are in filter._CHECKED. ENOSYS, on which programs fall back, is intended
for:

- io_setup and kin: contexts from one pool for the whole machine (fs.aio-max-nr), which a job could exhaust;
- io_uring_setup and kin, memfd_secret, mq_open and kin, the new mount calls: seldom used, much kernel code;
- vmsplice, cachestat, ustat: seldom used; the first has had holes, the others reveal the host's files.
"""

ALLOWED = tuple(
    (
        # files
        "read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 open openat openat2"
        " creat close"
        " close_range stat fstat lstat newfstatat fstatat64 statx access faccessat faccessat2 lseek _llseek"
        " truncate ftruncate fallocate fsync fdatasync syncfs sync_file_range readahead"
        " sendfile copy_file_range splice tee dup dup2 dup3 fcntl flock"
        " mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat"
        " readlink readlinkat chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat umask"
        " utime utimes utimensat futimesat getdents getdents64 getcwd chdir fchdir statfs fstatfs"
        " getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr setxattr lsetxattr fsetxattr"
        " removexattr"
        " lremovexattr fremovexattr mknod mknodat"
        " inotify_init inotify_init1 inotify_add_watch inotify_rm_watch"
        # waiting
        " poll ppoll select pselect6 _newselect epoll_create epoll_create1 epoll_ctl"
        " epoll_wait"
        " epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4 pipe pipe2"
        " timerfd_create timerfd_settime timerfd_gettime"
        # memory
        " munmap mremap mprotect pkey_alloc pkey_free pkey_mprotect madvise msync mincore brk"
        " mlock mlock2 munlock mlockall munlockall membarrier mseal get_mempolicy map_shadow_stack"
        " shmat shmdt shmctl semget semop semctl semtimedop msgget msgsnd msgrcv msgctl"
        # processes and threads
        " fork vfork execve execveat exit exit_group wait4 waitid waitpid getpid getppid gettid"
        " set_tid_address"
        " set_robust_list get_robust_list futex futex_time64 futex_waitv futex_wait futex_wake"
        " futex_requeue rseq"
        " arch_prctl set_thread_area get_thread_area kill tkill tgkill pidfd_open pidfd_send_signal"
        " sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_setparam sched_getscheduler"
        " sched_setscheduler sched_getattr sched_setattr sched_get_priority_max sched_get_priority_min"
        " sched_rr_get_interval getpriority setpriority ioprio_get ioprio_set getcpu"
        " getrlimit setrlimit prlimit64 getrusage times setpgid getpgid getpgrp setsid getsid"
        " restart_syscall"
        # signals
        " rt_sigaction rt_sigprocmask rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_tgsigqueueinfo"
        " rt_sigsuspend rt_sigreturn sigaltstack pause alarm setitimer getitimer"
        # identity
        " getuid geteuid getgid getegid getresuid getresgid getgroups setuid setgid setreuid setregid"
        " setresuid setresgid setgroups setfsuid setfsgid capget capset"
        # time
        " clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time"
        " timer_create timer_settime timer_gettime timer_getoverrun timer_delete"
        # sockets: which ones can be made is decided by their arguments
        " bind connect listen accept accept4 getsockname getpeername recvfrom recvmsg recvmmsg shutdown"
        # the machine, as far as a job may see it
        " uname sysinfo getrandom"
        # a job may sandbox itself further
        " landlock_create_ruleset landlock_add_rule landlock_restrict_self"
    ).split()
)

REFUSED = tuple(
    (
        "ptrace process_vm_readv process_vm_writev process_madvise process_mrelease pidfd_getfd kcmp"
        " mount umount umount2 pivot_root chroot setns unshare swapon swapoff sethostname setdomainname"
        " bpf perf_event_open userfaultfd keyctl add_key request_key open_by_handle_at name_to_handle_at"
        " fanotify_init fanotify_mark lookup_dcookie quotactl quotactl_fd acct nfsservctl"
        " init_module finit_module delete_module create_module kexec_load kexec_file_load reboot syslog"
        " vhangup"
        " settimeofday clock_settime clock_adjtime adjtimex stime iopl ioperm modify_ldt uselib sysfs"
        " _sysctl"
        " mbind set_mempolicy set_mempolicy_home_node migrate_pages move_pages vm86 vm86old"
    ).split()
)

# Ignored with success: sync(2) would flush every file system of the host, while a job's files are in memory.
# syncfs(2) is allowed, because it flushes one file system, and a job can reach only its private ones.
PRETENDED = ("sync",)
