/* LD_PRELOAD: netfilter as a kernel has it that lacks the nfnetlink subsystem of number $KERNEL_WITHOUT, or the
 * expression of nf_tables that is called $KERNEL_WITHOUT.
 *
 * What is asked of that subsystem is asked of one that no kernel has, and the expression gets a name that none has, so
 * the refusal is the kernel's own; in the answer the number is put back, as far as an error quotes it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netlink.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define NOBODY 13 /* linux/netfilter/nfnetlink.h gives out 0 to 12 */
#define BATCH_BEGIN NLMSG_MIN_TYPE

static int hidden(void) {
    int number = atoi(getenv("KERNEL_WITHOUT"));
    return number ? number : NOBODY;
}

static int is_netlink(int fd) {
    struct sockaddr_storage own;
    socklen_t length = sizeof own;
    return getsockname(fd, (struct sockaddr *)&own, &length) == 0 && own.ss_family == AF_NETLINK;
}

static void exchange(struct nlmsghdr *message, int from, int to) {
    uint8_t *batch = (uint8_t *)message + NLMSG_HDRLEN + 2; /* nfgenmsg.res_id, big endian */
    if (message->nlmsg_type == BATCH_BEGIN && batch[0] == 0 && batch[1] == from)
        batch[1] = to;
    else if (message->nlmsg_type >> 8 == from)
        message->nlmsg_type = to << 8 | (message->nlmsg_type & 0xff);
}

/* Every attribute that holds the expression's name and nothing else. */
static void rename_expression(struct nlmsghdr *message) {
    const char *name = getenv("KERNEL_WITHOUT");
    size_t size = strlen(name) + 1;
    struct nlattr head = {NLA_HDRLEN + size, NFTA_EXPR_NAME};
    char *at = (char *)message, *end = at + message->nlmsg_len - sizeof head - size;
    for (; at <= end; at += NLA_ALIGNTO)
        if (memcmp(at, &head, sizeof head) == 0 && memcmp(at + sizeof head, name, size) == 0)
            at[sizeof head] = '?';
}

static void ask(int fd, const void *buffer, size_t length) {
    if (is_netlink(fd))
        for (struct nlmsghdr *m = (void *)buffer; NLMSG_OK(m, length); m = NLMSG_NEXT(m, length)) {
            exchange(m, hidden(), NOBODY);
            rename_expression(m);
        }
}

static void answer(int fd, void *buffer, size_t length) {
    if (is_netlink(fd))
        for (struct nlmsghdr *m = buffer; NLMSG_OK(m, length); m = NLMSG_NEXT(m, length))
            if (m->nlmsg_type == NLMSG_ERROR)
                exchange(&((struct nlmsgerr *)NLMSG_DATA(m))->msg, NOBODY, hidden());
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t send(int fd, const void *buffer, size_t length, int flags) {
    ask(fd, buffer, length);
    return NEXT(send)(fd, buffer, length, flags);
}

ssize_t sendto(int fd, const void *buffer, size_t length, int flags, const struct sockaddr *to, socklen_t size) {
    ask(fd, buffer, length);
    return NEXT(sendto)(fd, buffer, length, flags, to, size);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    for (size_t i = 0; i < message->msg_iovlen; i++)
        ask(fd, message->msg_iov[i].iov_base, message->msg_iov[i].iov_len);
    return NEXT(sendmsg)(fd, message, flags);
}

ssize_t recv(int fd, void *buffer, size_t length, int flags) {
    ssize_t got = NEXT(recv)(fd, buffer, length, flags);
    if (got > 0)
        answer(fd, buffer, got);
    return got;
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    ssize_t got = NEXT(recvmsg)(fd, message, flags);
    if (got > 0 && message->msg_iovlen)
        answer(fd, message->msg_iov[0].iov_base, got);
    return got;
}
