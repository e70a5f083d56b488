// Package dataplane moves blocks: remotes, exports, and the Plane that knows
// them by name.
//
//	kernel, virtual machine, any NBD client
//	       │ Unix socket
//	      nbd ────► remote ═══════ link ═══════► export ────► file, block device
//	       │          │      TCP, Unix, ...        │
//	       └► trans ◄─┘                            │
//	            └──────────► conn ◄────────────────┘
//	                      crypt, mempool, abi
//
// The Plane is the only door for the control plane. A node's name is taken
// before its resources are, and given back after them.
package dataplane
