package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// maxLine is the longest line of a batch in bytes, continuations included.
const maxLine = 64 << 10

// batch carries out the commands of a file over one connection. A file is
// understood whole before anything is sent, so that a mistake in its last line
// leaves nothing half done; the standard input, and with -force a file too, is
// taken line by line.
func (s *session) batch() int {
	in, name := io.Reader(s.stdin), "-"
	if s.opts.batch != "-" {
		f, err := s.open(s.opts.batch)
		if err != nil {
			return s.fail(&fault{code: exitMistake, text: "the batch can not be read: " + err.Error(), at: -1}, nil)
		}
		defer f.Close()
		in, name = f, s.opts.batch
	}
	b := &batch{s: s, in: newBatchReader(in, name)}
	if name == "-" || s.opts.force {
		b.stream()
	} else if !b.whole() {
		return exitMistake
	}
	for _, err := range s.await(s.opts.wait) {
		b.fault(err, nil)
	}
	return b.code()
}

// batch is how far a batch has come.
type batch struct {
	s     *session
	in    *batchReader
	done  int
	wrong []int // exit codes of what failed
}

// whole reads and understands all, then carries it out. It returns false if
// something was not understood.
func (b *batch) whole() bool {
	var requests []*request
	for {
		r, err := b.read()
		if err == io.EOF {
			break
		}
		if err != nil {
			b.fault(err, nil)
			continue
		}
		requests = append(requests, r)
	}
	if len(b.wrong) > 0 {
		return false
	}
	for _, r := range requests {
		if !b.run(r) {
			break
		}
	}
	return true
}

// stream carries out each line before it reads the next.
func (b *batch) stream() {
	for {
		r, err := b.read()
		if err == io.EOF {
			return
		}
		if err == nil {
			if !b.run(r) {
				return
			}
			continue
		}
		b.fault(err, nil)
		if !b.s.opts.force {
			return
		}
	}
}

// read understands the next command.
func (b *batch) read() (*request, error) {
	l, err := b.in.next()
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(l.words[0], "-") {
		return nil, &fault{code: exitMistake, line: l, at: 0, text: fmt.Sprintf("option %q: options of a batch stand before -batch", l.words[0])}
	}
	r, err := parse(b.s.ctx, b.s.names, l, 0, false)
	if err == nil && !r.help && r.verb.endless {
		return nil, &fault{code: exitMistake, line: l, at: 0, text: fmt.Sprintf("%s has no end: run it by itself, not in a batch", l.words[0])}
	}
	return r, err
}

// run carries out one command and tells whether the next may follow.
func (b *batch) run(r *request) bool {
	if err := b.s.do(r); err != nil {
		code := b.fault(err, r)
		return b.s.opts.force && code != exitNoDaemon
	}
	b.done++
	if err := b.s.out.Flush(); err != nil {
		b.fault(fmt.Errorf("the answer could not be written: %w", err), nil)
		return false
	}
	return true
}

func (b *batch) fault(err error, r *request) int {
	code := b.s.fail(err, r)
	b.wrong = append(b.wrong, code)
	return code
}

// code is the exit code of all: that of the first failure, if nothing was done
// or if all that is missing is time; else exitPartly.
func (b *batch) code() int {
	switch {
	case len(b.wrong) == 0:
		return exitDone
	case b.done == 0, !slices.ContainsFunc(b.wrong, func(code int) bool { return code != exitNotYet }):
		return b.wrong[0]
	}
	return exitPartly
}

// batchReader cuts a batch into commands: words between white space, quoted
// whole by ' or ", # begins a comment, \ at the end continues the line.
type batchReader struct {
	r    *bufio.Reader
	name string
	line int
	err  error // io.EOF: no more can be read
}

func newBatchReader(r io.Reader, name string) *batchReader {
	return &batchReader{r: bufio.NewReaderSize(r, 4096), name: name}
}

// next is the next command. The error is io.EOF at the end, else a *fault.
func (b *batchReader) next() (line, error) {
	for {
		text, at, err := b.logical()
		if err != nil {
			return line{}, err
		}
		l := line{where: fmt.Sprintf("%s:%d", b.name, at)}
		words, err := split(text)
		if err != nil {
			l.words = words
			return line{}, &fault{code: exitMistake, line: l, at: len(words) - 1, text: err.Error()}
		}
		if l.words = words; len(words) > 0 {
			return l, nil
		}
	}
}

// logical reads one line with its continuations and says where it began.
func (b *batchReader) logical() (text string, at int, err error) {
	var buf strings.Builder
	at = b.line + 1
	for {
		piece, err := b.physical(maxLine - buf.Len())
		if err == io.EOF && buf.Len() > 0 {
			return buf.String(), at, nil
		}
		if err != nil {
			return "", at, err
		}
		more, continued := strings.CutSuffix(piece, `\`)
		buf.WriteString(more)
		if !continued {
			return buf.String(), at, nil
		}
		buf.WriteByte(' ')
	}
}

// physical reads one line of at most most bytes, without its end.
func (b *batchReader) physical(most int) (string, error) {
	if b.err != nil {
		return "", b.err
	}
	b.line++
	var text []byte
	for {
		piece, err := b.r.ReadSlice('\n')
		text = append(text, piece...)
		switch {
		case len(text) > most:
			return "", b.broken("the line is longer than %d bytes", maxLine)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err == io.EOF && len(text) == 0:
			b.err = io.EOF
			return "", io.EOF
		case err != nil && err != io.EOF:
			return "", b.broken("the batch can not be read: %v", err)
		}
		return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"), nil
	}
}

// broken is why reading ends here: said once, then comes io.EOF.
func (b *batchReader) broken(format string, args ...any) error {
	b.err = io.EOF
	return &fault{code: exitMistake, line: line{where: fmt.Sprintf("%s:%d", b.name, b.line)}, at: -1, text: fmt.Sprintf(format, args...)}
}

// split cuts text into words. On an error the last word is the one to blame.
func split(text string) (words []string, err error) {
	const blank = " \t\v\f\r"
	for {
		text = strings.TrimLeft(text, blank)
		if text == "" || text[0] == '#' {
			return words, nil
		}
		if quote := text[0]; quote == '"' || quote == '\'' {
			end := strings.IndexByte(text[1:], quote)
			if end < 0 {
				return append(words, text), fmt.Errorf("the quoted word does not end: add %c", quote)
			}
			words = append(words, text[1:1+end])
			text = text[2+end:]
			continue
		}
		end := strings.IndexAny(text, blank)
		if end < 0 {
			end = len(text)
		}
		words = append(words, text[:end])
		text = text[end:]
	}
}
