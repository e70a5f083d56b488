/*
 * How a C program talks to dstd: libnl-genl-3 with the daemon's port as the peer, everything else as with any family of the kernel.
 *
 *	dst_add NAME DEVICE ADDRESS PORT    adds an export, then prints the nodes that there are
 *
 * A refusal is printed with its sentence and the offset of the attribute that is to blame; the exit status is then 2.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/netlink.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>

/* From abi/dst.yaml. */
#define DST_PORT 0x445354
enum { CMD_ADD_EXPORT = 3, CMD_GET = 7 };
enum { NODE_NAME = 1, NODE_KIND = 2, NODE_DEVICE = 3, NODE_SIZE = 4, NODE_ADDRESS = 5, NODE_STATE = 20 };
enum { ADDRESS_TYPE = 1, ADDRESS_PROTO = 2, ADDRESS_SOCKADDR = 3 };

static void die(const char *what, int err)
{
	fprintf(stderr, "%s: %s\n", what, nl_geterror(err));
	exit(1);
}

/* The extended acknowledgement behind the echoed header: a sentence, and where the attribute begins in what was sent. */
static int refused(struct sockaddr_nl *from, struct nlmsgerr *e, void *arg)
{
	struct nlmsghdr *h = (struct nlmsghdr *)((char *)e - NLMSG_HDRLEN);
	int len = (int)(h->nlmsg_len - NLMSG_HDRLEN - sizeof *e);
	struct nlattr *a = (struct nlattr *)(e + 1), *text, *offset;

	(void)from;
	if (!(h->nlmsg_flags & NLM_F_CAPPED)) {
		len -= (int)NLMSG_ALIGN(e->msg.nlmsg_len - NLMSG_HDRLEN);
		a = (struct nlattr *)((char *)a + NLMSG_ALIGN(e->msg.nlmsg_len - NLMSG_HDRLEN));
	}
	if (!(h->nlmsg_flags & NLM_F_ACK_TLVS))
		len = 0;
	text = nla_find(a, len, NLMSGERR_ATTR_MSG);
	offset = nla_find(a, len, NLMSGERR_ATTR_OFFS);
	printf("error %d", -e->error);
	if (offset)
		printf(" offset %u", nla_get_u32(offset));
	printf(" %s\n", text ? nla_get_string(text) : "(nothing said)");
	*(int *)arg = e->error;
	return NL_STOP;
}

static int print_node(struct nl_msg *msg, void *arg)
{
	struct nlattr *a[64];

	(void)arg;
	if (genlmsg_parse(nlmsg_hdr(msg), 0, a, 63, NULL) < 0 || !a[NODE_NAME])
		return NL_SKIP;
	printf("node %s kind %u size %llu\n", nla_get_string(a[NODE_NAME]), a[NODE_KIND] ? nla_get_u32(a[NODE_KIND]) : 0,
	       a[NODE_SIZE] ? (unsigned long long)nla_get_u64(a[NODE_SIZE]) : 0);
	return NL_OK;
}

static struct nl_msg *request(int family, int flags, int cmd)
{
	struct nl_msg *msg = nlmsg_alloc();

	if (!msg || !genlmsg_put(msg, NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, flags, cmd, 1))
		die("no memory for a message", -NLE_NOMEM);
	return msg;
}

/* Sends, and reads until the acknowledgement, the end of the dump or the refusal. */
static int transact(struct nl_sock *sock, struct nl_msg *msg)
{
	struct nl_cb *cb = nl_socket_get_cb(sock);
	int err = 0, rc;

	nl_cb_err(cb, NL_CB_CUSTOM, refused, &err);
	rc = nl_send_auto(sock, msg);
	if (rc < 0)
		die("send", rc);
	nlmsg_free(msg);
	rc = nl_recvmsgs(sock, cb);
	nl_cb_put(cb);
	if (rc < 0 && !err)
		die("receive", rc);
	return err;
}

static int add(struct nl_sock *sock, int family, char **arg)
{
	struct nl_msg *msg = request(family, NLM_F_ACK, CMD_ADD_EXPORT);
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(arg[3])) };
	struct nlattr *nest;

	if (inet_pton(AF_INET, arg[2], &sa.sin_addr) != 1)
		die("address", -NLE_INVAL);
	nla_put_string(msg, NODE_NAME, arg[0]);
	nla_put_string(msg, NODE_DEVICE, arg[1]);
	nest = nla_nest_start(msg, NODE_ADDRESS | NLA_F_NESTED);
	nla_put_u32(msg, ADDRESS_TYPE, SOCK_STREAM);
	nla_put_u32(msg, ADDRESS_PROTO, IPPROTO_TCP);
	nla_put(msg, ADDRESS_SOCKADDR, sizeof sa, &sa);
	nla_nest_end(msg, nest);
	return transact(sock, msg);
}

int main(int argc, char **argv)
{
	struct nl_sock *sock = nl_socket_alloc();
	int one = 1, err, family;

	if (argc != 5) {
		fprintf(stderr, "Usage: dst_add NAME DEVICE ADDRESS PORT\n");
		return 1;
	}
	if (!sock || (err = genl_connect(sock)) < 0)
		die("no netlink socket", sock ? err : -NLE_NOMEM);
	nl_socket_set_peer_port(sock, DST_PORT);
	setsockopt(nl_socket_get_fd(sock), SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof one);
	nl_socket_modify_cb(sock, NL_CB_VALID, NL_CB_CUSTOM, print_node, NULL);

	family = genl_ctrl_resolve(sock, "dst");
	if (family < 0)
		die("family dst", family);
	printf("family %d\n", family);
	if (add(sock, family, argv + 1))
		return 2;
	err = transact(sock, request(family, NLM_F_DUMP, CMD_GET));
	nl_socket_free(sock);
	return err ? 2 : 0;
}
