package main

import (
	"fmt"

	"dst/abi"
)

// Putters: how the value of an argument reaches the request.

func putText(at func(*request) *string) putter {
	return func(p *parser, a *arg, s string) error {
		if s == "" || len(s) > abi.NameMax {
			return fmt.Errorf("%q has %d characters: write 1 to %d", s, len(s), abi.NameMax)
		}
		*at(p.req) = s
		return nil
	}
}

// putNew stores the name of the node that the command is about.
func putNew(p *parser, a *arg, s string) error {
	p.req.name, p.req.node.Name, p.req.crypto.Name = s, s, s
	return abi.ValidName(s)
}

func putExport(p *parser, a *arg, s string) error {
	p.req.node.Export = s
	return abi.ValidName(s)
}

// putPath stores a path of at most a.max bytes.
func putPath(at func(*request) *string) putter {
	return func(p *parser, a *arg, s string) (err error) {
		*at(p.req), err = parsePath(s, int(a.max))
		return err
	}
}

func putAddrs(p *parser, a *arg, s string) (err error) {
	p.req.node.Addrs, err = p.names.parseAddrs(p.ctx, s)
	return err
}

func putSize(p *parser, a *arg, s string) (err error) {
	p.req.node.Size, err = parseSize(s)
	return err
}

// putResize stores a size, or that all there is shall be used.
func putResize(p *parser, a *arg, s string) error {
	if s == a.whole {
		p.req.node.Size = abi.SizeAll
		return nil
	}
	n, err := parseSize(s)
	p.req.node.Size = n
	return err
}

func putArena(p *parser, a *arg, s string) error {
	n, err := parseSize(s)
	p.req.node.Knobs.Arena = &n
	return err
}

// putNumber stores a number within the limits of a.
func putNumber(at func(*request) **uint32) putter {
	return func(p *parser, a *arg, s string) error {
		n, err := parseNumber(s)
		if err == nil && (n < a.min || n > a.max) {
			err = fmt.Errorf("%s %d is out of range: write %d to %d", a.word, n, a.min, a.max)
		}
		*at(p.req) = new(uint32(n))
		return err
	}
}

// putTime stores a time within the limits of a, or 0 for its zero word.
func putTime(at func(*request) **uint32) putter {
	return func(p *parser, a *arg, s string) error {
		if a.zero != "" && s == a.zero {
			*at(p.req) = new(uint32)
			return nil
		}
		ms, err := parseTime(s)
		switch {
		case err != nil && a.zero != "":
			return fmt.Errorf("%w, or %s", err, a.zero)
		case err == nil && ms == 0 && a.zero != "":
			return fmt.Errorf("%s %s: write %q if that is meant", a.word, s, a.zero)
		case err == nil && (ms < a.min || ms > a.max):
			err = fmt.Errorf("%s %s is out of range: write %s to %s", a.word, s, textTime(a.min), textTime(a.max))
		}
		*at(p.req) = new(uint32(ms))
		return err
	}
}

// putFlag sets a flag of the node.
func putFlag(flag abi.NodeFlag) putter {
	return func(p *parser, a *arg, s string) error {
		p.req.node.Flags |= flag
		return nil
	}
}

// putSwitchFlag sets or clears a flag of a new node.
func putSwitchFlag(flag abi.NodeFlag, on bool) putter {
	return func(p *parser, a *arg, s string) error {
		if p.req.node.Flags &^= flag; on {
			p.req.node.Flags |= flag
		}
		return nil
	}
}

// putSwitch says for set which flag changes, and to what.
func putSwitch(flag, value abi.NodeFlag) putter {
	return func(p *parser, a *arg, s string) error {
		p.req.node.Mask |= flag
		p.req.node.Flags |= value
		return nil
	}
}

func putAttach(how abi.Attach) putter {
	return func(p *parser, a *arg, s string) (err error) {
		p.req.node.Attach = how
		if a.kind != nil {
			p.req.node.Socket, err = parsePath(s, int(a.max))
		}
		return err
	}
}

func putWho(p *parser, a *arg, s string) (err error) {
	p.req.rule, err = parseWho(s)
	return err
}

func putPerm(perm abi.Perm) putter {
	return func(p *parser, a *arg, s string) error {
		p.req.rule.Perm, p.req.permAt = perm, p.last
		return nil
	}
}

func putForce(p *parser, a *arg, s string) error {
	p.req.force = true
	return nil
}
