// Ynlgen writes the Go code of the control ABI from its specification: abi/dst.yaml → abi/genl_gen.go and
// controlplane/policy_gen.go. It runs in the root of the module:
//
//	go run ./tools/ynlgen
//
// The specification is a YNL "genetlink" one (Documentation/netlink/genetlink.yaml of the kernel); what this generator does not
// use of that schema it refuses, so that nothing in the specification is without effect.
package main

import (
	"fmt"
	"os"
)

//go:generate sh -c "cd ../.. && go run ./tools/ynlgen"

// specFile and outputs are relative to the root of the module.
const specFile = "abi/dst.yaml"

var outputs = []struct {
	file  string
	write func(*Spec) ([]byte, error)
}{
	{"abi/genl_gen.go", writeABI},
	{"controlplane/policy_gen.go", writePolicy},
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "ynlgen:", err)
		os.Exit(1)
	}
}

// run writes every output. A file that is right already is left alone.
func run() error {
	text, err := os.ReadFile(specFile)
	if err != nil {
		return err
	}
	spec, err := Load(text)
	if err != nil {
		return fmt.Errorf("%s: %w", specFile, err)
	}
	for _, o := range outputs {
		want, err := o.write(spec)
		if err != nil {
			return fmt.Errorf("%s: %w", o.file, err)
		}
		if have, err := os.ReadFile(o.file); err == nil && string(have) == string(want) {
			continue
		}
		if err := os.WriteFile(o.file, want, 0o644); err != nil {
			return err
		}
		fmt.Println(o.file)
	}
	return nil
}
