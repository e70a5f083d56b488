// Package abi is what other versions and other programs rely on: the wire
// between two daemons, the control interface, socket addresses, and the
// structures of the original's configuration tool, each with its codec and its
// golden bytes. README.md has the tables and the decisions.
//
// Values are plain structs; nothing here opens, waits or logs. What is read is
// never trusted: a Parse or Decode returns an errno and a sentence, and no input
// makes it panic.
package abi
