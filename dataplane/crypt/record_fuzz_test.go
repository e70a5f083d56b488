package crypt

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
)

// tape is a short recorded direction of connection 1 with each kind of record and a
// change of the key.
func tape(t fatal, s Suite) (stream []byte, texts [][]byte) {
	t.Helper()
	sealer, _ := direction(t, s, 1, nil)
	sealer.lane.limits.records = 2
	texts = [][]byte{text(1), text(48), text(15), text(16), text(100)}
	return slices.Concat(sealAll(t, sealer, texts...)...), texts
}

// FuzzOpener: whatever arrives, nothing is shown but what the peer has sealed, in
// its order; nothing panics and nothing grows.
func FuzzOpener(f *testing.F) {
	var streams [][]byte
	var texts [][]byte // of all suites
	for i, s := range everySuite {
		var stream []byte
		stream, texts = tape(f, s)
		streams = append(streams, stream)
		for _, raw := range [][]byte{stream, stream[:len(stream)-1], stream[1:], stream[:3], append(stream[:40:40], stream...)} {
			f.Add(byte(i), i%2 == 0, raw)
		}
	}
	f.Fuzz(func(t *testing.T, i byte, inPlace bool, raw []byte) {
		s, stream := everySuite[int(i)%len(everySuite)], streams[int(i)%len(everySuite)]
		_, opener := direction(t, s, 1, nil)
		got, err := openAll(opener, slices.Clone(raw), inPlace)
		if len(got) > len(texts) || !same(got, texts[:len(got)]) {
			t.Fatalf("%s: forged %x", s, got)
		}
		if (err == nil && len(got) == len(texts)) != bytes.Equal(raw, stream) {
			t.Fatalf("%s: %d texts, %v", s, len(got), err)
		}
		if _, again := openAll(opener, slices.Clone(stream[:min(len(stream), 60)]), false); err != nil && err.Error() != "cut" && again != err {
			t.Fatalf("%s: %v, then %v", s, err, again)
		}
	})
}

// TestRecordGolden: the bytes on the wire do not change from version to version.
func TestRecordGolden(t *testing.T) {
	for i, want := range wireBytes {
		stream, _ := tape(t, everySuite[i])
		if got := fmt.Sprintf("%x", stream[:min(len(stream), 80)]); got != want {
			t.Errorf("%s: %s", everySuite[i], got)
		}
	}
}

var wireBytes = []string{
	"0000010031f4242fced75c5d8226d5b7c9831b74b6000030017850a995c23b3c55a94a458ac5313816275c5cb0e52a47a8976b59dd63f3d6cd784ac301ba34156d652201ed07360a0b13be828a4e33cd", // gcm(aes)
	"00000100cbf4d4817951589ad64cec385e7f88f8d000003001c2e288688466b013b17c846c92e35ac46d99725c446abe07090cc6cd11be6610d027969da86c2e9155af73aa53ed93aa4c07286b7f5358", // rfc7539(chacha20,poly1305)
	"00000100293180eb14b9cc27869c7e957cca1d98e514f281db43c9f54fccf538d2e3f660cf342c597c639de2a7de40053016ee9d0000300160174fcb1d2cecd453ce23be66e4eaa5b94bebdb436224fd", // cbc(aes) hmac(sha256)
	"00000100e5aec418936a91e3b1a841f2e0f3bf9a4d55c2c49e27d36bd681d7d955effa788cc53e1890d8cb63c9bcea14ee661ecaa4da2d1f43f68c2f9b0948ee984ca3079f66308dfa286ea1ac0402cc", // cbc(aes) hmac(sha512)
	"0000010096a608c946d4c515f44fb8306ba3dc72e64ac5a6845bfbe8823532651be8a9aa3a000030017b354a4e9ea6144576da0aab0df3b2adc248377ba2ba14a34ee7c771b98b8ca55236681fc340ba", // ctr(aes) hmac(sha256)
	"0000010090e89dc849e463495d4ebb3bb458aaae7d55d9015cb33575cc91ad04c7fc37d9f6be157c5e4dc5e4c9b72644297e2bfcaa0000300195512f04dee5c9a91db96511495d597961d6e06c0e810d", // ctr(aes) hmac(sha384)
	"000001000dee85539b4675ff478c08302be800d6b9ce356892846e8ac754c7ffad4b60969ec3e17a0000300178f323082ee9c80a2666e7b6dd38e78dd8be765a8658849a1f403a25869e951bb14f4eb9", // cbc(aes) hmac(sha1)
	"000001006ad569eaa06278c3660a452488fd7ff3f1df4895c4a43ae61ce1fa2fb516d0de1700003001b93d8a3e73f45c39d44a6d9f20c004e5db2f5cf101e7c077386e539cebcc39ac934047227690e4", //  hmac(sha256)
	"000001006a2ff0f3878f4d8700e038586f097bf9e1d3c8b7411e088d428797c74c83fd5ab0c7a2d475f7667de44b411fb1f47515f400003001b93d8a3e73f45c39d44a6d9f20c004e5db2f5cf101e7c0", //  hmac(sha384)
	"000001006a06932c09b6adf177355b985a6b9b75fcf9903d00d7c7dae9256ab484d99e89f1e0bbb6d21967625ac48b1d09ff4303148eacb9384bba8b226bf1da531e2d6f1c00003001b93d8a3e73f45c", //  hmac(sha512)
}
