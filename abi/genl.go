package abi

// Port is the netlink port id of dstd on NETLINK_GENERIC ("DST"). It is above
// the largest pid, so that no port that the kernel gives out collides with it.
const Port = 0x445354

// FamilyID is the message type of the family, for the daemon itself: callers
// ask for it with CTRL_CMD_GETFAMILY. The kernel gives out ids from below.
const FamilyID = 0x3f0
