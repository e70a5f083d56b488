package dataplane

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/crypt"
)

// cryptoChange is a CRYPTO request that makes sense by itself: its files are
// read, its names are known. A node decides whether it fits.
type cryptoChange struct {
	op      abi.CryptoOp
	key     *crypt.Key   // set: the only one, nil for plain; add
	plain   string       // set without key: the digest, "" = that and the keys stay
	digest  crypt.Digest // plain's
	id      abi.KeyID    // del
	threads *uint32
}

// wipe ends the key, unless a node took it (key is nil then).
func (c *cryptoChange) wipe() {
	if c.key != nil {
		c.key.Wipe()
	}
}

// readCrypto understands c, reading the files that it names. The caller wipes
// what it returns, and c.
func readCrypto(c *abi.Crypto) (ch *cryptoChange, err error) {
	ch = &cryptoChange{op: c.Op, id: c.KeyID, threads: c.Threads}
	if c.Op == 0 {
		ch.op = abi.CryptoOpSet
	}
	if err := checkCrypto(c, ch.op); err != nil {
		return ch, err
	}
	keyed := c.Cipher != "" || c.CipherKeyFile != "" || c.HashKeyFile != "" || len(c.CipherKey)+len(c.HashKey) > 0 || strings.HasPrefix(c.Hash, "hmac(")
	switch {
	case ch.op == abi.CryptoOpDel:
		return ch, nil
	case keyed:
		ch.key, err = readKey(c)
		return ch, err
	case ch.op == abi.CryptoOpAdd:
		return ch, fmt.Errorf("nothing to add: give the file of a key: %w", unix.EINVAL)
	case c.Hash == "" && c.Threads == nil:
		return ch, fmt.Errorf("nothing to set: give a key, or name a hash: %w", unix.EINVAL)
	case c.Hash != "":
		ch.plain = c.Hash
		ch.digest, err = crypt.ParseDigest(c.Hash)
	}
	return ch, abi.Blame(abi.AttrCryptoHash, err)
}

// checkCrypto refuses words that do not go together.
func checkCrypto(c *abi.Crypto, op abi.CryptoOp) error {
	none := abi.Crypto{Name: c.Name, Op: c.Op, KeyID: c.KeyID}
	switch {
	case op > abi.CryptoOpDel:
		return wrong(abi.AttrCryptoOp, "there is no operation %v: use set, add or del", op)
	case c.Flags&^abi.CryptoFlagAllowLegacy != 0:
		return wrong(abi.AttrCryptoFlags, "there are no flags %v: leave them out", c.Flags&^abi.CryptoFlagAllowLegacy)
	case op == abi.CryptoOpDel && c.KeyID == abi.KeyID{}:
		return wrong(abi.AttrCryptoKeyID, "the key to remove is missing: give its id, which show tells")
	case op == abi.CryptoOpDel && !sameWords(c, &none):
		return fmt.Errorf("a key is removed by its id: leave out all else: %w", unix.EINVAL)
	case op != abi.CryptoOpDel && c.KeyID != abi.KeyID{}:
		return wrong(abi.AttrCryptoKeyID, "a key that is given has its own id: leave the key id out")
	case op == abi.CryptoOpAdd && c.Threads != nil:
		return wrong(abi.AttrCryptoThreads, "the number of threads belongs to the node, not to a key: set it")
	}
	for _, k := range keyWords(c) {
		switch {
		case k.file != "" && len(k.bytes) > 0:
			return wrong(k.attr, "the %s key is given twice, as bytes and as a file: leave one out", k.what)
		case k.file != "" && k.file[0] != '/':
			return wrong(k.fileAttr, "key file %q: write an absolute path", k.file)
		}
	}
	return nil
}

// sameWords tells whether two requests say the same but for the bytes of keys,
// of which neither has any.
func sameWords(a, b *abi.Crypto) bool {
	return a.Cipher == b.Cipher && a.Hash == b.Hash && a.CipherKeyFile == b.CipherKeyFile && a.HashKeyFile == b.HashKeyFile &&
		len(a.CipherKey)+len(a.HashKey)+len(b.CipherKey)+len(b.HashKey) == 0 && a.Threads == b.Threads && a.Flags == b.Flags
}

// keyWord is the key of one algorithm, as a request gives it.
type keyWord struct {
	what, algorithm          string
	file                     string
	bytes                    []byte
	algoAttr, fileAttr, attr uint16
}

func keyWords(c *abi.Crypto) [2]keyWord {
	return [2]keyWord{
		{"cipher", c.Cipher, c.CipherKeyFile, c.CipherKey, abi.AttrCryptoCipher, abi.AttrCryptoCipherKeyFile, abi.AttrCryptoCipherKey},
		{"hash", c.Hash, c.HashKeyFile, c.HashKey, abi.AttrCryptoHash, abi.AttrCryptoHashKeyFile, abi.AttrCryptoHashKey},
	}
}

// given is the attribute of the key, 0 if there is none.
func (k *keyWord) given() uint16 {
	switch {
	case k.file != "":
		return k.fileAttr
	case len(k.bytes) > 0:
		return k.attr
	}
	return 0
}

// readKey is the key that c gives, which the caller wipes.
func readKey(c *abi.Crypto) (*crypt.Key, error) {
	words := keyWords(c)
	suite, err := crypt.ParseSuite(c.Cipher, c.Hash, c.Flags&abi.CryptoFlagAllowLegacy != 0)
	if err != nil {
		return nil, abi.Blame(culprit(c), err)
	}
	needs := [2]bool{suite.Encrypts(), suite.Hash() != ""}
	for i, k := range words {
		if k.given() != 0 && !needs[i] {
			return nil, wrong(k.given(), "a %s key needs a %s: name one", k.what, k.what)
		}
	}
	for i, k := range words {
		if k.given() == 0 && needs[i] {
			return nil, wrong(k.algoAttr, "%s %s needs a key: give its file, dstctl key gen makes one", k.what, orDefault(k.algorithm, suite.Cipher()))
		}
	}
	var secret [2][]byte
	for i, k := range words {
		if secret[i] = k.bytes; k.file == "" {
			continue
		}
		if secret[i], err = crypt.ReadKeyFile(k.file); err != nil {
			return nil, abi.Blame(k.fileAttr, err)
		}
		defer clear(secret[i])
	}
	key, err := crypt.NewKey(suite, secret[0], secret[1])
	if err != nil && needs[0] {
		return nil, abi.Blame(words[0].given(), err)
	}
	return key, abi.Blame(words[1].given(), err)
}

// culprit is the attribute of the name that spoils a suite.
func culprit(c *abi.Crypto) uint16 {
	if c.Cipher == "" {
		return abi.AttrCryptoHash
	}
	if _, err := crypt.ParseSuite("", c.Hash, c.Flags&abi.CryptoFlagAllowLegacy != 0); c.Hash != "" && err != nil {
		return abi.AttrCryptoHash
	}
	return abi.AttrCryptoCipher
}
