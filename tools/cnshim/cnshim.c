/*
 * Lets a configuration tool of the original driver, unmodified, talk to dstd. The tool sends its requests to the kernel, port 0 of
 * NETLINK_CONNECTOR, where nobody listens for them any more:
 *
 *	LD_PRELOAD=cnshim.so TOOL...
 *
 * Such a socket is connected to the daemon's port as soon as it is bound, and a destination of port 0 is left out. Sockets of other
 * protocols are not touched. It works with dynamically linked tools of the daemon's own word size.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/netlink.h>
#include <stddef.h>
#include <sys/socket.h>

#define DST_PORT 0x445354

static int option(int fd, int name)
{
	int value = -1, saved = errno;
	socklen_t len = sizeof value;

	if (getsockopt(fd, SOL_SOCKET, name, &value, &len) < 0)
		value = -1;
	errno = saved;
	return value;
}

static int is_connector(int fd)
{
	return option(fd, SO_DOMAIN) == AF_NETLINK && option(fd, SO_PROTOCOL) == NETLINK_CONNECTOR;
}

/* Addressed to the kernel, and not to a multicast group. */
static int is_kernel(const void *addr, socklen_t len)
{
	const struct sockaddr_nl *to = addr;

	return to && len >= sizeof *to && to->nl_family == AF_NETLINK && !to->nl_pid && !to->nl_groups;
}

int bind(int fd, const struct sockaddr *addr, socklen_t len)
{
	int (*next)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "bind");
	const struct sockaddr_nl daemon = { .nl_family = AF_NETLINK, .nl_pid = DST_PORT };
	int rc = next(fd, addr, len);

	if (!rc && is_connector(fd))
		rc = connect(fd, (const struct sockaddr *)&daemon, sizeof daemon);
	return rc;
}

ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t len)
{
	ssize_t (*next)(int, const void *, size_t, int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "sendto");

	if (is_kernel(to, len) && is_connector(fd))
		return next(fd, data, size, flags, NULL, 0);
	return next(fd, data, size, flags, to, len);
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	ssize_t (*next)(int, const struct msghdr *, int) = dlsym(RTLD_NEXT, "sendmsg");
	struct msghdr unaddressed = *msg;

	if (!is_kernel(msg->msg_name, msg->msg_namelen) || !is_connector(fd))
		return next(fd, msg, flags);
	unaddressed.msg_name = NULL;
	unaddressed.msg_namelen = 0;
	return next(fd, &unaddressed, flags);
}
