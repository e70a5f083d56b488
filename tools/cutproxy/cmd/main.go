// Command cutproxy runs a cutproxy.Proxy for shell tests.
//
//	cutproxy [-control PATH] LISTEN TARGET   forwards; takes commands from stdin, and at a Unix socket if one is given
//	cutproxy -send PATH COMMAND...           sends one command to such a socket and prints the answer
//
// It prints "listening ADDR" when it is ready, and ends at SIGINT or SIGTERM.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"dst/tools/cutproxy"
)

func main() {
	control := flag.String("control", "", "take commands at the Unix socket `path`")
	send := flag.String("send", "", "send a command to the Unix socket `path`")
	flag.Usage = func() {
		fmt.Fprintf(os.Stderr, "Usage: cutproxy [-control PATH] LISTEN TARGET\n       cutproxy -send PATH COMMAND...\nCommands:\n%s\n", cutproxy.Usage)
	}
	flag.Parse()
	var err error
	switch {
	case *send != "" && flag.NArg() > 0:
		err = sendLine(*send, strings.Join(flag.Args(), " "))
	case *send == "" && flag.NArg() == 2:
		err = run(flag.Arg(0), flag.Arg(1), *control)
	default:
		flag.Usage()
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cutproxy:", err)
		os.Exit(1)
	}
}

func run(listen, target, control string) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	p, err := cutproxy.New(listen, target)
	if err != nil {
		return err
	}
	if control != "" {
		ln, err := net.Listen("unix", control)
		if err != nil {
			return err
		}
		defer ln.Close()
		go serve(ln, p)
	}
	fmt.Println("listening", p.Addr())
	go func() { _ = p.Serve(os.Stdin, os.Stdout) }()
	<-stop
	return p.Close()
}

// serve takes commands from whoever connects to the control socket, one connection after the other.
// Started by run. Owns the connections it accepts. Ends when the listener is closed.
func serve(ln net.Listener, p *cutproxy.Proxy) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_ = p.Serve(c, c)
		c.Close()
	}
}

// sendLine sends one command and prints its answer; an answer "error: …" is an error.
func sendLine(path, line string) error {
	c, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := fmt.Fprintln(c, line); err != nil {
		return err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err
	}
	answer = strings.TrimSpace(answer)
	if text, bad := strings.CutPrefix(answer, "error: "); bad {
		return fmt.Errorf("%s", text)
	}
	fmt.Println(answer)
	return nil
}
