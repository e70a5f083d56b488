package main

import "dst/abi"

func cryptoObject() *object {
	var (
		name   = &arg{kind: kindName, need: true, attr: abi.AttrCryptoName, doc: "the node", put: putNew}
		keys   = keyArgs()
		legacy = &arg{word: "allow-legacy", attr: abi.AttrCryptoFlags, doc: "accept hmac(sha1), which is out of date", put: putLegacy}
	)
	threads := &arg{word: "threads", kind: kindNumber, attr: abi.AttrCryptoThreads, max: 1024,
		doc: "most workers that encrypt large requests; 0, the default, is one less than there are processors", put: putNumber(func(r *request) **uint32 { return &r.crypto.Threads })}
	return &object{name: "crypto", doc: "digest, cipher and keys of a node", verbs: []*verb{
		{name: "set", doc: "Set cipher and keys, or the digest of a node without keys.", run: runCrypto, some: true,
			more: "With a key a node speaks to those who have the same one, with the same algorithms, and to nobody else. " +
				"What was set before is replaced, and clients that are served with a key that is gone are cut at once; to exchange keys without that use add and del. " +
				"Only the path of a key is sent, the daemon opens the file: it must belong to root, be closed to all others (mode 0600) and hold 16 to 1024 random bytes, as key gen makes it. " +
				"A cipher's name has parentheses: a shell needs it in quotes. " +
				"Exports that share an address all have keys or none has. " +
				"With hash crc32c or none, and no key, a node speaks in clear: that is refused for an export that was added with require-crypto.",
			args:    append(append([]*arg{name}, keys...), threads, legacy),
			example: []string{"crypto set vol0 key /etc/dst/vol0.key", "crypto set vol0 hash crc32c", "crypto set vol0 threads 4"}},
		{name: "add", doc: "Let an export accept one more key.", run: runCryptoAdd, some: true,
			more: "To exchange a key: add the new one at the export, set it at the client, which calls again with it, and del the old one when crypto show finds no client with it. " +
				"Best each host has a key of its own.",
			args: append(append([]*arg{name}, keys...), legacy), example: []string{"crypto add vol0 key /etc/dst/vol0-2.key"}},
		{name: "del", also: []string{"delete"}, doc: "Let an export accept a key no more.", run: runCryptoDel,
			more:    "Clients that are served with it are cut at once. The last key stays: without one the export would speak in clear.",
			args:    []*arg{name, {word: "key-id", kind: kindKeyID, need: true, attr: abi.AttrCryptoKeyID, doc: "which key", put: putKeyID(func(r *request) *abi.KeyID { return &r.crypto.KeyID })}},
			example: []string{"crypto del vol0 key-id 5d0cbb2a1f6a9e34"}},
		{name: "show", also: []string{"list", "lst"}, optional: true, doc: "Show the keys of a node, or of all: their ids, never the keys.", run: runKeys,
			args: []*arg{argSome}, example: []string{"crypto show vol0"}},
	}}
}

// keyArgs are the words that name algorithms and the files of their keys.
func keyArgs() []*arg {
	file := func(word, with, group string, attr uint16, doc string, at func(*request) *string) *arg {
		return &arg{word: word, kind: kindFile, with: with, group: group, attr: attr, max: 4095, doc: doc, put: putPath(at)}
	}
	cipherKey := func(r *request) *string { return &r.crypto.CipherKeyFile }
	return []*arg{
		file("key", "", "key", abi.AttrCryptoCipherKeyFile, "the key, for gcm(aes) if no cipher is named", cipherKey),
		{word: "cipher", kind: kindCipher, with: "key|cipher-key", attr: abi.AttrCryptoCipher, doc: "the cipher; cbc(aes) and ctr(aes) need a hash with a key of its own beside them", put: putText(func(r *request) *string { return &r.crypto.Cipher })},
		file("cipher-key", "cipher", "key", abi.AttrCryptoCipherKeyFile, "its key", cipherKey),
		{word: "hash", kind: kindHash, attr: abi.AttrCryptoHash, doc: "the digest: alone it authenticates and does not encrypt, and crc32c only finds damage", put: putText(func(r *request) *string { return &r.crypto.Hash })},
		file("hash-key", "hash", "", abi.AttrCryptoHashKeyFile, "its key; crc32c has none", func(r *request) *string { return &r.crypto.HashKeyFile }),
	}
}

func keyObject() *object {
	return &object{name: "key", doc: "files of keys", verbs: []*verb{
		{name: "gen", doc: "Make a new key.", run: runKeyGen,
			more:    "32 random bytes in a new file of mode 0600. No daemon is asked. Copy the file to the other end where nobody can read it on its way (scp, not the network that it shall protect), and give it to the nodes at both ends.",
			args:    []*arg{{kind: kindPath, need: true, doc: "the file to make; one that exists is refused", max: 4095, put: putPath(func(r *request) *string { return &r.file })}},
			example: []string{"key gen /etc/dst/vol0.key"}},
	}}
}

func putKeyID(at func(*request) *abi.KeyID) putter {
	return func(p *parser, a *arg, s string) (err error) {
		*at(p.req), err = abi.ParseKeyID(s)
		return err
	}
}

func putLegacy(p *parser, a *arg, s string) error {
	p.req.crypto.Flags |= abi.CryptoFlagAllowLegacy
	return nil
}
