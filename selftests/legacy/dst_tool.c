/*
 * A configuration tool as those of the original driver are: it speaks the connector's binary commands, sends them to the kernel, waits
 * for one second, takes the first datagram that comes, and goes on after a failure.
 *
 *	dst_tool [-P PORT] [-W HOW] -n NAME [-d DISK] [-a ADDRESS -p PORT] [-S SIZE] [-m PAGES] [-T SCAN-MS] [-N RETRIES]
 *	         [-s SECURITY-FILE] [-c CIPHER -C KEY-FILE] [-x HASH [-H KEY-FILE]] [-t THREADS] [-R] [-D]
 *	dst_tool [-P PORT] [-W HOW] -F FRAME-FILE...
 *
 * In the first form the commands are add (an export with a disk, else a remote), security (each line of the file: permissions, address),
 * crypto, start (-R), del (-D), in that order. Each prints its name and the error, "no answer" or "wrong answer". In the second form a
 * frame is sent as it is, hexadecimal with # comments, and its answer is printed. -P is where to send to: 0, the kernel, or the daemon's
 * port. -W is how: send (default), sendto, sendmsg or write.
 * Exit status: 0 all is well, 1 usage or system, 2 something was refused, 3 something got no answer that is acceptable.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define GROUP 6
enum { DEL_NODE, ADD_REMOTE, ADD_EXPORT, CRYPTO, SECURITY, START };

struct cn_msg { uint32_t idx, val, seq, ack; uint16_t len, flags; };
struct dst_ctl { char name[32]; uint32_t flags, cmd, max_pages, scan, retries; uint64_t size; };
struct saddr { uint16_t family; uint8_t data[128]; uint16_t len; };
struct network_ctl { uint32_t type, proto; struct saddr addr; };
struct export_ctl { char device[32]; struct network_ctl ctl; };
struct secure_user { uint32_t perm; struct saddr addr; };
struct crypto_ctl { char cipher[32], hash[32]; uint32_t cipher_keysize, hash_keysize, attached_size; int32_t threads; };
struct ack { struct cn_msg msg; int32_t error, unused[3]; };

_Static_assert(sizeof(struct cn_msg) == 20 && sizeof(struct dst_ctl) == 64 && sizeof(struct saddr) == 132 &&
	       sizeof(struct network_ctl) == 140 && sizeof(struct export_ctl) == 172 && sizeof(struct secure_user) == 136 &&
	       sizeof(struct crypto_ctl) == 80 && sizeof(struct ack) == 36, "the layout of 64-bit hosts");

static const char *how = "send";
static uint32_t port, seq;
static int sock, status;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void worse(int than)
{
	if (status < than)
		status = than;
}

/* The mask is that of group 7, as the original's tool had it; the option is what makes it a member of 6. */
static void open_socket(void)
{
	struct sockaddr_nl self = { .nl_family = AF_NETLINK, .nl_groups = 1 << GROUP, .nl_pid = (uint32_t)getpid() };
	int group = GROUP;

	sock = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_CONNECTOR);
	if (sock < 0)
		die("socket");
	if (bind(sock, (struct sockaddr *)&self, sizeof self) < 0)
		die("bind");
	if (setsockopt(sock, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) < 0)
		die("membership");
}

static ssize_t transmit(void *data, size_t size)
{
	struct sockaddr_nl to = { .nl_family = AF_NETLINK, .nl_pid = port };
	struct iovec iov = { data, size };
	struct msghdr msg = { .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &iov, .msg_iovlen = 1 };

	if (!strcmp(how, "sendmsg"))
		return sendmsg(sock, &msg, 0);
	if (!strcmp(how, "sendto") || port)
		return sendto(sock, data, size, 0, (struct sockaddr *)&to, sizeof to);
	return strcmp(how, "write") ? send(sock, data, size, 0) : write(sock, data, size);
}

/* The first datagram within a second, or nothing. */
static ssize_t answer(void *data, size_t size)
{
	struct pollfd p = { .fd = sock, .events = POLLIN };

	return poll(&p, 1, 1000) == 1 ? recv(sock, data, size, 0) : -1;
}

static void command(const char *name, const struct dst_ctl *ctl, uint32_t cmd, const void *payload, size_t size)
{
	struct { struct nlmsghdr h; struct cn_msg m; uint8_t body[8192]; } out = { 0 };
	struct { struct nlmsghdr h; struct ack a; } in = { 0 };
	struct dst_ctl c = *ctl;
	ssize_t n;

	c.cmd = cmd;
	memcpy(out.body, &c, sizeof c);
	if (size)
		memcpy(out.body + sizeof c, payload, size);
	out.m = (struct cn_msg){ .idx = GROUP, .val = 1, .seq = seq, .len = (uint16_t)(sizeof c + size) };
	out.h = (struct nlmsghdr){ .nlmsg_len = (uint32_t)NLMSG_LENGTH(NLMSG_ALIGN(sizeof out.m + out.m.len)), .nlmsg_type = NLMSG_DONE,
				   .nlmsg_seq = seq++, .nlmsg_pid = (uint32_t)getpid() };
	n = transmit(&out, out.h.nlmsg_len);
	if (n >= 0)
		n = answer(&in, sizeof in);
	if (n < 0) {
		printf("%s: no answer\n", name);
		worse(3);
	} else if (in.a.msg.seq != seq - 1 || in.a.msg.ack != 1) {
		printf("%s: wrong answer\n", name);
		worse(3);
	} else {
		printf("%s: %s\n", name, in.a.error ? strerrorname_np(-in.a.error) : "ok");
		worse(in.a.error ? 2 : 0);
	}
}

static void frame(const char *file)
{
	uint8_t b[65536], in[256];
	FILE *f = fopen(file, "r");
	size_t size = 0;
	unsigned byte;
	ssize_t n;
	int c;

	if (!f)
		die(file);
	while ((c = getc(f)) != EOF && size < sizeof b) {
		if (c == '#')
			while ((c = getc(f)) != EOF && c != '\n')
				;
		else if (isxdigit(c) && ungetc(c, f) == c && fscanf(f, "%2x", &byte) == 1)
			b[size++] = (uint8_t)byte;
	}
	fclose(f);
	n = transmit(b, size) < 0 ? -1 : answer(in, sizeof in);
	if (n < 0) {
		puts("no answer");
		worse(3);
		return;
	}
	for (ssize_t i = 0; i < n; i++)
		printf("%02x%s", in[i], i + 1 == n ? "\n" : " ");
}

static int address(struct saddr *to, const char *text, uint16_t inet_port)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(inet_port) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(inet_port) };

	memset(to, 0, sizeof *to);
	if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
		memcpy(to, &v4, to->len = sizeof v4);
	else if (inet_pton(AF_INET6, text, &v6.sin6_addr) == 1)
		memcpy(to, &v6, to->len = sizeof v6);
	return to->len ? 0 : -1;
}

static void security(const struct dst_ctl *ctl, const char *file)
{
	FILE *f = fopen(file, "r");
	char line[256], perm[64], addr[128];

	if (!f)
		die(file);
	while (fgets(line, sizeof line, f) && sscanf(line, "%63s %127s", perm, addr) == 2) {
		struct secure_user u = { .perm = (uint32_t)strtoul(perm, NULL, 0) };

		if (address(&u.addr, addr, 0) < 0)
			fprintf(stderr, "%s is no address\n", addr);
		command("security", ctl, SECURITY, &u, sizeof u);
	}
	fclose(f);
}

static uint32_t key(uint8_t *to, const char *file)
{
	FILE *f = file ? fopen(file, "r") : NULL;
	size_t n;

	if (!file)
		return 0;
	if (!f)
		die(file);
	n = fread(to, 1, 1024, f);
	fclose(f);
	return (uint32_t)n;
}

int main(int argc, char **argv)
{
	const char *disk = NULL, *addr = NULL, *rules = NULL, *cipher = "", *cipher_key = NULL, *hash = "", *hash_key = NULL;
	struct dst_ctl ctl = { .max_pages = 2, .scan = 10000 };
	struct export_ctl export = { 0 };
	struct { struct crypto_ctl c; uint8_t keys[2048]; } crypto = { .c.threads = 3 };
	int opt, started = 0, deleted = 0;
	uint16_t inet_port = 0;

	open_socket();
	while ((opt = getopt(argc, argv, "P:W:F:n:d:a:p:S:m:T:N:s:c:C:x:H:t:RD")) != -1) {
		switch (opt) {
		case 'P': port = (uint32_t)strtoul(optarg, NULL, 0); break;
		case 'W': how = optarg; break;
		case 'F': frame(optarg); break;
		case 'n': snprintf(ctl.name, sizeof ctl.name, "%s", optarg); break;
		case 'd': disk = optarg; break;
		case 'a': addr = optarg; break;
		case 'p': inet_port = (uint16_t)atoi(optarg); break;
		case 'S': ctl.size = strtoull(optarg, NULL, 0); break;
		case 'm': ctl.max_pages = (uint32_t)atoi(optarg); break;
		case 'T': ctl.scan = (uint32_t)atoi(optarg); break;
		case 'N': ctl.retries = (uint32_t)atoi(optarg); break;
		case 's': rules = optarg; break;
		case 'c': cipher = optarg; break;
		case 'C': cipher_key = optarg; break;
		case 'x': hash = optarg; break;
		case 'H': hash_key = optarg; break;
		case 't': crypto.c.threads = atoi(optarg); break;
		case 'R': started = 1; break;
		case 'D': deleted = 1; break;
		default: return 1;
		}
	}
	if (addr) {
		export.ctl = (struct network_ctl){ .type = SOCK_STREAM, .proto = IPPROTO_TCP };
		if (address(&export.ctl.addr, addr, inet_port) < 0)
			return 1;
		snprintf(export.device, sizeof export.device, "%s", disk ? disk : "");
		if (disk)
			command("add", &ctl, ADD_EXPORT, &export, sizeof export);
		else
			command("add", &ctl, ADD_REMOTE, &export.ctl, sizeof export.ctl);
	}
	if (rules)
		security(&ctl, rules);
	if (*cipher || *hash) {
		snprintf(crypto.c.cipher, sizeof crypto.c.cipher, "%s", cipher);
		snprintf(crypto.c.hash, sizeof crypto.c.hash, "%s", hash);
		crypto.c.cipher_keysize = key(crypto.keys, cipher_key);
		crypto.c.hash_keysize = key(crypto.keys + crypto.c.cipher_keysize, hash_key);
		command("crypto", &ctl, CRYPTO, &crypto, sizeof crypto.c + crypto.c.cipher_keysize + crypto.c.hash_keysize);
	}
	if (started)
		command("start", &ctl, START, NULL, 0);
	if (deleted)
		command("del", &ctl, DEL_NODE, NULL, 0);
	return status;
}
