/* A backend for tests: answers UDP on its ports with a service time, stamps which set it is on, logs what it saw.
 *
 * echo BEHAVIOUR LOGS: one file of `name value` lines, and a folder that gets one log of harness.records' layout.
 * The ports come from the environment that Swapper gives it (SWAPPER_UDP_1000, SWAPPER_TCP_8080). Static and
 * without a C library's locale or resolver, so that an image needs nothing but this.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CAPACITY = 400000, RECORD = 30, HEADER = 16, PENDING = 1 << 16, PROBE_MAGIC = 0x5377, FOREIGN = 8 };

struct reply {
    int64_t due_ns;
    uint32_t record;
    int socket, length;
    socklen_t address_length;
    struct sockaddr_in6 address;
    char data[2048];
};

static struct reply *pending;
static unsigned oldest, newest;
static unsigned char *records;
static uint64_t seen, overflowed;
static volatile sig_atomic_t asked_to_stop;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static long behaviour(const char *path, const char *name, long otherwise) {
    char key[64];
    long value, found = otherwise;
    FILE *file = fopen(path, "r");
    while (file && fscanf(file, "%63s %ld", key, &value) == 2)
        if (!strcmp(key, name)) found = value;
    if (file) fclose(file);
    return found;
}

static void on_term(int number) { (void)number; asked_to_stop = 1; }

static int listen_on(int family, int type, int port) {
    int one = 1, size = 8 << 20, fd = socket(family, type | SOCK_NONBLOCK, 0);
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    if (type == SOCK_STREAM) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    if (fd < 0 || (family == AF_INET6 ? bind(fd, (void *)&v6, sizeof v6) : bind(fd, (void *)&v4, sizeof v4)) ||
        (type == SOCK_STREAM && listen(fd, 64))) {
        if (family == AF_INET6) return -1; /* a container may have no IPv6 */
        fprintf(stderr, "port %d: %s\n", port, strerror(errno));
        exit(1);
    }
    return fd;
}

/* One record of harness.records.SEEN: stream, flow, seq, recv_ns, replied_ns, port, family, flags. */
static uint32_t log_seen(const unsigned char *data, int length, int64_t at_ns, int port, int family) {
    if (seen >= CAPACITY) {
        overflowed++;
        memcpy(records + 8, &overflowed, 8);
        return UINT32_MAX;
    }
    unsigned char *record = records + HEADER + seen * RECORD;
    int is_probe = length >= 22 && data[0] == PROBE_MAGIC >> 8 && data[1] == (PROBE_MAGIC & 255);
    uint16_t stream = is_probe ? data[8] << 8 | data[9] : 0, port16 = port;
    uint32_t flow = 0, seq = 0;
    if (is_probe) {
        memcpy(&flow, data + 10, 4), flow = ntohl(flow);
        memcpy(&seq, data + 14, 4), seq = ntohl(seq);
    }
    memset(record, 0, RECORD);
    memcpy(record, &stream, 2), memcpy(record + 2, &flow, 4), memcpy(record + 6, &seq, 4);
    memcpy(record + 10, &at_ns, 8), memcpy(record + 26, &port16, 2);
    record[28] = family, record[29] = is_probe ? 0 : FOREIGN;
    seen++;
    memcpy(records, &seen, 8);
    return seen - 1;
}

static void answer_due(int64_t upto_ns) {
    for (; oldest != newest && pending[oldest % PENDING].due_ns <= upto_ns; oldest++) {
        struct reply *r = &pending[oldest % PENDING];
        int64_t at_ns = now_ns();
        if (sendto(r->socket, r->data, r->length, 0, (void *)&r->address, r->address_length) == r->length &&
            r->record != UINT32_MAX)
            memcpy(records + HEADER + (uint64_t)r->record * RECORD + 18, &at_ns, 8);
    }
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    const char *set = getenv("SWAPPER_SET"), *udp = getenv("SWAPPER_UDP_1000"), *tcp = getenv("SWAPPER_TCP_8080");
    if (!set || !udp) return fprintf(stderr, "SWAPPER_SET and SWAPPER_UDP_1000 are not set\n"), 2;
    int64_t service_ns = behaviour(argv[1], "service_ms", 0) * 1000000;
    long boot_ms = behaviour(argv[1], "boot_ms", 0), crash_ms = behaviour(argv[1], "crash_after_ms", 0);
    long mute_ms = behaviour(argv[1], "mute_after_ms", -1), deaf_to_term = behaviour(argv[1], "ignore_term", 0);
    signal(SIGTERM, deaf_to_term ? SIG_IGN : on_term); /* as pid 1 of a container the default would be to ignore it */
    printf("booting %s on %s\n", getenv("SWAPPER_RELEASE"), set);
    fflush(stdout);
    if (behaviour(argv[1], "exit_at_once", 0)) return fprintf(stderr, "no configuration, giving up\n"), 7;
    struct timespec boot = {boot_ms / 1000, boot_ms % 1000 * 1000000};
    nanosleep(&boot, NULL);
    if (behaviour(argv[1], "never_ready", 0)) for (;;) pause();

    char path[4096];
    snprintf(path, sizeof path, "%s/%s-%lld.log", argv[2], set, (long long)now_ns());
    int file = open(path, O_RDWR | O_CREAT | O_EXCL, 0644);
    if (file < 0 || posix_fallocate(file, 0, HEADER + CAPACITY * RECORD)) return perror(path), 1;
    records = mmap(NULL, HEADER + CAPACITY * RECORD, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    pending = calloc(PENDING, sizeof *pending);
    struct pollfd fds[64] = {0};
    int count = 0, families[64] = {AF_INET, AF_INET6}, ports[64], types[64];
    for (int f = 0; f < 2; f++) {
        int family = f ? AF_INET6 : AF_INET, fd = listen_on(family, SOCK_DGRAM, atoi(udp));
        if (fd >= 0) fds[count].fd = fd, families[count] = f ? 6 : 4, ports[count] = atoi(udp), types[count++] = 'u';
        if (tcp && (fd = listen_on(family, SOCK_STREAM, atoi(tcp))) >= 0)
            fds[count].fd = fd, families[count] = f ? 6 : 4, ports[count] = atoi(tcp), types[count++] = 'l';
    }
    printf("ready\n");
    fflush(stdout);
    int64_t began_ns = now_ns();
    int who = !strcmp(set, "blue") ? 1 : 2;
    while (!asked_to_stop || oldest != newest) { /* what it owes is answered before it ends */
        int64_t ahead_ns = oldest == newest ? 1000000000 : pending[oldest % PENDING].due_ns - now_ns();
        struct timespec wait = {0, ahead_ns > 50000000 ? 50000000 : ahead_ns > 0 ? ahead_ns : 0};
        for (int i = 0; i < count; i++) fds[i].events = POLLIN;
        ppoll(fds, count, &wait, NULL);
        int64_t age_ms = (now_ns() - began_ns) / 1000000;
        if (crash_ms && age_ms >= crash_ms) return fprintf(stderr, "segmentation fault, or so\n"), 139;
        for (int i = 0; i < count; i++) {
            if (types[i] == 'u') {
                for (int burst = 0; burst < 64 && newest - oldest < PENDING; burst++) {
                    struct reply *r = &pending[newest % PENDING];
                    r->address_length = sizeof r->address;
                    r->length = recvfrom(fds[i].fd, r->data, sizeof r->data, 0, (void *)&r->address, &r->address_length);
                    if (r->length <= 0) break;
                    int64_t at_ns = now_ns();
                    r->record = log_seen((unsigned char *)r->data, r->length, at_ns, ports[i], families[i]);
                    if (mute_ms >= 0 && age_ms >= mute_ms) continue;
                    if (r->length > 3) r->data[3] = who;
                    r->due_ns = at_ns + service_ns, r->socket = fds[i].fd;
                    newest++;
                }
            } else if (types[i] == 'l' && fds[i].revents) {
                int fd = accept4(fds[i].fd, NULL, NULL, SOCK_NONBLOCK);
                if (fd >= 0 && count < 64)
                    fds[count].fd = fd, families[count] = families[i], ports[count] = ports[i], types[count++] = 'c';
                else if (fd >= 0) close(fd);
            } else if (types[i] == 'c' && fds[i].revents) {
                char frame[64];
                int length = recv(fds[i].fd, frame, sizeof frame, 0);
                if (length <= 0) {
                    if (length == 0 || errno != EAGAIN) {
                        close(fds[i].fd);
                        count--;
                        fds[i] = fds[count], families[i] = families[count], ports[i] = ports[count],
                        types[i] = types[count];
                    }
                    continue;
                }
                if (length > 3) frame[3] = who;
                send(fds[i].fd, frame, length, MSG_NOSIGNAL);
            }
        }
        answer_due(now_ns());
    }
    return 0;
}
