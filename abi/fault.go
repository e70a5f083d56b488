package abi

// Fault is an error for which one attribute of the request is to blame. Whoever
// carries a request out may return it; the door tells the caller where it is.
type Fault struct {
	Attr uint16 // top-level attribute of the request
	Nth  int    // of the attributes of this type, from 0
	Err  error  // errno and sentence
}

// Error is the sentence of what was wrong.
func (f *Fault) Error() string { return f.Err.Error() }

// Unwrap is what was wrong.
func (f *Fault) Unwrap() error { return f.Err }

// Blame says that the attribute attr is to blame for err; nil stays nil.
func Blame(attr uint16, err error) error { return BlameNth(attr, 0, err) }

// BlameNth is Blame for an attribute that may be there more than once.
func BlameNth(attr uint16, nth int, err error) error {
	if err == nil {
		return nil
	}
	return &Fault{attr, nth, err}
}
