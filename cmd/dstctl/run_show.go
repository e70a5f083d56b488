package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"dst/abi"
)

// emit writes one JSON document.
func (s *session) emit(doc any) error { return s.encode(doc, s.opts.pretty) }

func (s *session) encode(doc any, pretty bool) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if pretty {
		enc.SetIndent("", "    ")
	}
	if err := enc.Encode(doc); err != nil {
		return err
	}
	_, err := s.out.Write(escape(b.Bytes()))
	return err
}

// escape writes as \u and four digits what a terminal might obey and JSON allows as it is.
func escape(doc []byte) []byte {
	plain := func(r rune) bool { return r == '\n' || unicode.IsPrint(r) }
	if bytes.IndexFunc(doc, func(r rune) bool { return !plain(r) }) < 0 {
		return doc
	}
	var b []byte
	for _, r := range string(doc) {
		if plain(r) {
			b = utf8.AppendRune(b, r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			b = fmt.Appendf(b, `\u%04x`, unit)
		}
	}
	return b
}

func runShow(s *session, r *request) error {
	nodes, err := s.nodes(r)
	if err != nil {
		return err
	}
	counted := map[string]*abi.Counters{}
	if s.opts.stats {
		all, err := s.stats(r.name)
		if err != nil {
			return err
		}
		for _, one := range all {
			counted[one.Name] = &one.Counters
		}
	}
	doc := nodesView{Schema: schema, Nodes: []nodeView{}}
	for _, n := range nodes {
		v := viewNode(n, counted[n.Name], s.opts)
		if s.opts.json {
			doc.Nodes = append(doc.Nodes, v)
		} else {
			s.printNode(v)
		}
	}
	if s.opts.json {
		return s.emit(doc)
	}
	return nil
}

// nodes are the nodes that r names: one or all, of the kind of its object.
func (s *session) nodes(r *request) (nodes []*abi.Node, err error) {
	err = s.ask(func(ctx context.Context, d api) error {
		if r.name == "" {
			nodes, err = d.List(ctx)
			return err
		}
		n, err := d.Get(ctx, r.name)
		nodes = []*abi.Node{n}
		return err
	})
	if err != nil {
		return nil, err
	}
	fit := nodes[:0]
	for _, n := range nodes {
		if slices.Contains([]string{"show", "node", "crypto"}, r.object.name) || n.Kind.String() == r.object.name {
			fit = append(fit, n)
		}
	}
	if r.name != "" && len(fit) == 0 {
		return nil, &fault{code: exitRefused, line: r.line, at: r.at[abi.AttrNodeName],
			text: fmt.Sprintf("%s is a node, but no %s: see dstctl show %s", r.name, r.object.name, r.name)}
	}
	return fit, nil
}

// stats are the counters of the node name, or of all.
func (s *session) stats(name string) (all []*abi.NodeStats, err error) {
	err = s.ask(func(ctx context.Context, d api) error {
		if name == "" {
			all, err = d.ListStats(ctx)
			return err
		}
		c, err := d.Stats(ctx, name)
		if err == nil {
			all = []*abi.NodeStats{{Name: name, Counters: *c}}
		}
		return err
	})
	return all, err
}

func runStats(s *session, r *request) error {
	all, err := s.stats(r.name)
	if err != nil {
		return err
	}
	doc := statsView{Schema: schema, Stats: []nodeStatsView{}}
	if s.opts.brief && !s.opts.json {
		s.printf("%-16s %10s %10s %12s %13s %8s %8s\n", "name", "reads", "writes", "read-bytes", "written-bytes", "errors", "breaks")
	}
	for _, one := range all {
		c := viewCounters(&one.Counters)
		switch n := s.count; {
		case s.opts.json:
			doc.Stats = append(doc.Stats, nodeStatsView{one.Name, c})
		case s.opts.brief:
			s.printf("%-16s %10s %10s %12s %13s %8s %8s\n", clean(one.Name), n(c.Reads), n(c.Writes), n(c.ReadBytes), n(c.WrittenBytes), n(c.Errors), n(c.Breaks))
		default:
			s.record(append([]string{one.Name + ":"}, s.counters(c)...))
		}
	}
	if s.opts.json {
		return s.emit(doc)
	}
	return nil
}

func runRules(s *session, r *request) error {
	var all []*abi.NodeRules
	err := s.ask(func(ctx context.Context, d api) (err error) {
		all, err = d.Rules(ctx, r.name)
		return err
	})
	if err != nil {
		return err
	}
	doc := rulesView{Schema: schema, Rules: []ruleView{}}
	for _, node := range all {
		doc.Rules = append(doc.Rules, viewRules(node.Name, node.Rules)...)
	}
	if s.opts.json {
		return s.emit(doc)
	}
	for _, rule := range doc.Rules {
		s.printf("%s %s\n", clean(rule.Node), ruleText(rule))
	}
	return nil
}

func runSys(s *session, r *request) error {
	var sys *abi.Sys
	err := s.ask(func(ctx context.Context, d api) (err error) {
		sys, err = d.Sys(ctx)
		return err
	})
	if err != nil {
		return err
	}
	v := viewSys(sys)
	if s.opts.json {
		return s.emit(sysView{schema, v})
	}
	lines := []string{
		fmt.Sprintf("dstd %s pid %d up %s nodes %d sessions %d subscribers %d", v.Version, v.PID, textAge(v.Uptime), v.Nodes, v.Sessions, v.Subscribers),
		fmt.Sprintf("run %s state %s dev %s", v.RunDir, v.StateDir, v.DevDir),
		fmt.Sprintf("budget %s used %s heap %s", s.bytes(v.Budget), s.bytes(v.BudgetUsed), s.bytes(v.Heap)),
	}
	for _, p := range v.Protections {
		text := "protection " + p.Name + " active"
		if !p.Active {
			text = "protection " + p.Name + " inactive: " + p.Reason
		}
		lines = append(lines, text)
	}
	s.record(lines)
	return nil
}
