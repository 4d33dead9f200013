/* pause: the process that holds a pod's namespaces open. It does nothing, reaps orphans as PID 1 of a shared PID
 * namespace, and leaves on SIGTERM or SIGINT. No libc, so that the image is a few kilobytes and each pod costs a page or two.
 * All signals stay blocked and are taken by rt_sigtimedwait: no handlers, hence no restorer code.
 */
#include <asm/unistd.h>

#if defined(__x86_64__)
static long call4(long n, long a, long b, long c, long d) {
  long r;
  register long r10 __asm__("r10") = d;
  __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
  return r;
}
#elif defined(__aarch64__)
static long call4(long n, long a, long b, long c, long d) {
  register long x8 __asm__("x8") = n;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
  return x0;
}
#else
#error "pause: add the system call sequence of this architecture"
#endif

enum { SIG_INT = 2, SIG_TERM = 15, SIG_CHLD = 17, SIG_BLOCK_ALL = 2, WAIT_NO_HANG = 1 };

void _start(void) {
  unsigned long all = ~0ul;
  unsigned long wanted = 1ul << (SIG_INT - 1) | 1ul << (SIG_TERM - 1) | 1ul << (SIG_CHLD - 1);
  call4(__NR_rt_sigprocmask, SIG_BLOCK_ALL, (long)&all, 0, sizeof all);
  for (;;) {
    long signal = call4(__NR_rt_sigtimedwait, (long)&wanted, 0, 0, sizeof wanted);
    if (signal == SIG_INT || signal == SIG_TERM) call4(__NR_exit_group, 0, 0, 0, 0);
    if (signal == SIG_CHLD)
      while (call4(__NR_wait4, -1, 0, WAIT_NO_HANG, 0) > 0) {}
  }
}
