package main

import (
	"context"
	"fmt"
	"strings"

	"dst/abi"
)

func runCrypto(s *session, r *request) error    { return s.crypto(r, abi.CryptoOpSet) }
func runCryptoAdd(s *session, r *request) error { return s.crypto(r, abi.CryptoOpAdd) }
func runCryptoDel(s *session, r *request) error { return s.crypto(r, abi.CryptoOpDel) }

func (s *session) crypto(r *request, op abi.CryptoOp) error {
	r.crypto.Op = op
	return s.ask(func(ctx context.Context, d api) error { return d.Crypto(ctx, &r.crypto) })
}

// runKeyGen asks no daemon: the key is for a node that may not be there yet.
func runKeyGen(s *session, r *request) error {
	if err := s.makeKey(r.file); err != nil {
		return &fault{code: exitRefused, text: sentence(err), line: r.line, at: len(r.line.words) - 1}
	}
	if s.opts.json {
		return s.emit(madeKeyView{Schema: schema, File: r.file})
	}
	s.printf("%s holds a new key. Copy it in secret to the other end, and say at both: dstctl crypto set NAME key %s\n", clean(r.file), clean(r.file))
	return nil
}

func runKeys(s *session, r *request) error {
	nodes, err := s.nodes(r)
	if err != nil {
		return err
	}
	doc := keysView{Schema: schema, Keys: []keyView{}}
	for _, n := range nodes {
		if n.Status != nil {
			doc.Keys = append(doc.Keys, viewKeys(n.Name, n)...)
		}
	}
	if s.opts.json {
		return s.emit(doc)
	}
	for _, k := range doc.Keys {
		s.printf("%s %s\n", clean(k.Node), keyText(k))
	}
	return nil
}

// madeKeyView is the answer of key gen.
type madeKeyView struct {
	Schema int    `json:"schema"`
	File   string `json:"file"`
}

type keysView struct {
	Schema int       `json:"schema"`
	Keys   []keyView `json:"keys"`
}

// keyView is a key of a node, as far as it may be shown.
type keyView struct {
	Node     string  `json:"name,omitempty"` // crypto show
	ID       string  `json:"id"`
	Cipher   string  `json:"cipher,omitempty"`
	Hash     string  `json:"hash,omitempty"`
	Sessions *uint32 `json:"sessions,omitempty"` // exports
}

// viewKeys are the keys of n, which has a Status.
func viewKeys(node string, n *abi.Node) []keyView {
	all := []keyView{}
	for _, k := range n.Status.Keys {
		v := keyView{Node: node, ID: k.ID.String(), Cipher: k.Cipher, Hash: k.Hash}
		if n.Kind == abi.KindExport {
			v.Sessions = &k.Sessions
		}
		all = append(all, v)
	}
	return all
}

// keyText is a key for people, with its algorithms.
func keyText(v keyView) string {
	text := strings.Join(strings.Fields("key "+clean(v.ID)+" "+clean(v.Cipher)+" "+clean(v.Hash)), " ")
	if v.Sessions != nil {
		text += fmt.Sprintf(" clients %d", *v.Sessions)
	}
	return text
}

// keyIDText is the id of a key, "" if there is none.
func keyIDText(id abi.KeyID) string {
	if id == (abi.KeyID{}) {
		return ""
	}
	return id.String()
}

// protection is how a node with these keys protects its data, in one word of
// each key; "" without keys.
func protection(keys []abi.Key) string {
	var words []string
	for _, k := range keys {
		word := strings.Trim(k.Cipher+"+"+k.Hash, "+")
		if len(words) == 0 || words[len(words)-1] != word {
			words = append(words, word)
		}
	}
	return strings.Join(words, ",")
}
