package main

import (
	"fmt"
	"slices"
	"strings"
)

// channel is how the bytes between the two daemons of dst are protected.
type channel struct {
	name   string // of the system; part of an interface's name
	cipher string // by their names in the kernel's crypto API
	hash   string
	keyed  bool
}

// channels are those that can be compared. The first of a run is what the others are held against.
var channels = []channel{
	{name: "none", hash: "none"},
	{name: "crc32c", hash: "crc32c"},
	{name: "gcm", cipher: "gcm(aes)", keyed: true},
	{name: "chacha", cipher: "rfc7539(chacha20,poly1305)", keyed: true},
	{name: "cbc", cipher: "cbc(aes)", hash: "hmac(sha256)", keyed: true},
	{name: "hmac", hash: "hmac(sha256)", keyed: true},
}

// findChannel is the channel of that name.
func findChannel(name string) (channel, bool) {
	i := slices.IndexFunc(channels, func(c channel) bool { return c.name == name })
	if i < 0 {
		return channel{}, false
	}
	return channels[i], true
}

// channelNames are the names of all of them.
func channelNames() (list []string) {
	for _, c := range channels {
		list = append(list, c.name)
	}
	return list
}

// parseChannels reads names with commas between; "all" is every one.
func parseChannels(s string) ([]string, error) {
	if s == "all" {
		return channelNames(), nil
	}
	return parseList(s, func(word string) (string, error) {
		if _, ok := findChannel(word); !ok {
			return "", fmt.Errorf("%q is no channel: write all, or some of %s", word, strings.Join(channelNames(), ","))
		}
		return word, nil
	})
}

// words configure a node for c; key is the path of a key file.
func (c channel) words(key string) (words []string) {
	words = []string{"crypto", "set", volume}
	if c.cipher != "" {
		words = append(words, "cipher", c.cipher, "cipher-key", key)
	}
	if c.hash != "" {
		words = append(words, "hash", c.hash)
		if c.keyed {
			words = append(words, "hash-key", key)
		}
	}
	return words
}
