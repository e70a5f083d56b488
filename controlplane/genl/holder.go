package genl

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
)

// holder names the process that owns a port of a netlink protocol in this
// network namespace, as far as proc (a mounted procfs) tells.
func holder(proc string, protocol int, port uint32) string {
	inode := portInode(filepath.Join(proc, "thread-self/net/netlink"), protocol, port)
	if inode == "" {
		return "another process"
	}
	links, _ := filepath.Glob(filepath.Join(proc, "[0-9]*/fd/*")) // the pattern is good
	for _, link := range links {
		if to, err := os.Readlink(link); err != nil || to != "socket:["+inode+"]" {
			continue
		}
		dir := filepath.Dir(filepath.Dir(link))
		comm, _ := os.ReadFile(filepath.Join(dir, "comm")) // gone: the pid still helps
		return fmt.Sprintf("%s (pid %s)", printable(strings.TrimSpace(string(comm))), filepath.Base(dir))
	}
	return "a process that cannot be seen from here"
}

// printable is s without what moves a cursor or ends a line: any process may
// give itself such a name.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return '?'
	}, s)
}

// portInode finds the inode of the socket at port in a /proc/net/netlink table:
// columns "sk Eth Pid … Inode", Eth being the protocol. "" if there is none.
func portInode(table string, protocol int, port uint32) string {
	f, err := os.Open(table)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		w := strings.Fields(lines.Text())
		if len(w) < 4 || w[1] != strconv.Itoa(protocol) {
			continue
		}
		if w[2] == strconv.FormatUint(uint64(port), 10) {
			return w[len(w)-1]
		}
	}
	return ""
}
